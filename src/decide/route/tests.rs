//! The contract's sentences, each as a table. `model.rs` holds the router against a naive one.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Fate, Found, Lead, Router};
use crate::{
    config::model::{
        AccessSink, Admin, BodyBound, Config, EncodedSlash, FunctionId, HeaderCondition, HostPattern, ListenAddress,
        ListenerId, Log, LogFormat, Networks, PathPattern, PathSegment, QueryCondition, Route, RouteId, Server, Serves,
    },
    decide::Facts,
};

mod agrees;
mod model;

/// A route that matches everything; its methods narrow it.
fn route(name: &str) -> Route {
    Route {
        name: name.into(),
        listeners: None,
        hosts: Vec::new(),
        path: PathPattern::Prefix(String::new()),
        methods: None,
        headers: Vec::new(),
        query: Vec::new(),
        priority: 0,
        serves: Serves::Function(FunctionId(0)),
        version: None,
        clients: None,
        allow: None,
        deny: Networks::default(),
        limits: Vec::new(),
        handling: Default::default(),
        encoded_slash: EncodedSlash::Refuse,
        forward_client_cert: false,
        criticality: crate::config::model::Criticality::default(),
    }
}

impl Route {
    /// As a config writes it: `*.example.com` is a wildcard.
    fn host(mut self, pattern: &str) -> Self {
        self.hosts.push(match pattern.strip_prefix('*') {
            Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
            None => HostPattern::Exact(pattern.to_owned()),
        });
        self
    }

    /// As a config writes it: `/a/*`, `/a/{id}`, `/a`; with `~` in front, a regex.
    fn path(mut self, pattern: &str) -> Self {
        self.path = path(pattern);
        self
    }

    fn on(mut self, listener: u32) -> Self {
        self.listeners.get_or_insert_default().push(ListenerId(listener));
        self
    }

    fn methods(mut self, methods: &[Method]) -> Self {
        self.methods = Some(methods.to_vec());
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push(HeaderCondition {
            name: HeaderName::from_static(name),
            value: (value != "*").then(|| value.to_owned()),
        });
        self
    }

    fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push(QueryCondition { name: name.to_owned(), value: (value != "*").then(|| value.to_owned()) });
        self
    }

    fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }
}

fn path(pattern: &str) -> PathPattern {
    if let Some(regex) = pattern.strip_prefix('~') {
        PathPattern::Regex(regex::Regex::new(&format!("^(?:{regex})$")).unwrap())
    } else if let Some(prefix) = pattern.strip_suffix("/*") {
        PathPattern::Prefix(prefix.to_owned())
    } else if pattern.contains('{') {
        let segments =
            pattern[1..].split('/').map(|segment| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                Some(name) => PathSegment::Param(name.to_owned()),
                None => PathSegment::Literal(segment.to_owned()),
            });
        PathPattern::Params(segments.collect())
    } else {
        PathPattern::Exact(pattern.to_owned())
    }
}

fn config(routes: Vec<Route>) -> Config {
    Config {
        server: Server {
            workers: None,
            state_dir: PathBuf::new(),
            trusted_proxies: Networks::default(),
            max_connections: None,
            max_requests: None,
            max_memory: None,
            dns: Vec::new(),
            drain: Duration::from_secs(30),
            auth_failures: crate::config::model::Limit::AUTH_FAILURES,
            maintenance: None,
            max_body: BodyBound::DEFAULT,
            max_hops: 10,
            error_pages: Vec::new(),
        },
        admin: Admin { address: ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), token: None },
        log: Log { access: AccessSink::Off, egress: None, format: LogFormat::Json, sample_ok: 1.0, query: false },
        listeners: Vec::new(),
        clients: Vec::new(),
        functions: Vec::new(),
        routes,
        limits: Vec::new(),
        credentials: Vec::new(),
        freeze: Default::default(),
        cluster: None,
        egress: Default::default(),
    }
}

/// A gateway with these routes, to be asked.
struct Gate {
    names: Vec<String>,
    router: Router,
}

fn gate(routes: impl IntoIterator<Item = Route>) -> Gate {
    let config = config(routes.into_iter().collect());
    Gate { names: config.routes.iter().map(|r| r.name.to_string()).collect(), router: Router::new(&config) }
}

/// A request, owned.
#[derive(Debug, Clone)]
struct Ask {
    listener: u32,
    method: Method,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

/// `GET` of `example.com/path?query`.
fn get(url: &str) -> Ask {
    let slash = url.find('/').unwrap();
    let (host, target) = url.split_at(slash);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    Ask {
        listener: 0,
        method: Method::GET,
        host: host.to_owned(),
        path: path.to_owned(),
        query,
        headers: HeaderMap::new(),
    }
}

impl Ask {
    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    fn on(mut self, listener: u32) -> Self {
        self.listener = listener;
        self
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            listener: ListenerId(self.listener),
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}

impl Gate {
    /// The route's name, `404`, or `405` with the methods.
    fn ask(&self, ask: Ask) -> String {
        match self.router.find(&ask.facts()) {
            Found::Route(id) => self.names[id.index()].clone(),
            Found::NoRoute => "404".to_owned(),
            Found::MethodNotAllowed(methods) => format!("405 {methods}"),
        }
    }

    fn get(&self, url: &str) -> String {
        self.ask(get(url))
    }
}

#[test]
fn exact_host_beats_wildcard_host_beats_none() {
    let gate = gate([
        route("none").path("/exact"),
        route("wide").host("*.example.com"),
        route("narrow").host("*.eu.example.com"),
        route("exact").host("api.eu.example.com"),
    ]);
    for (host, expected) in [
        ("api.eu.example.com", "exact"),
        ("shop.eu.example.com", "narrow"),
        ("a.b.eu.example.com", "narrow"),
        ("eu.example.com", "wide"),
        ("a.example.com", "wide"),
        ("example.com", "none"),
        ("notexample.com", "none"),
        ("", "none"),
        ("[::1]", "none"),
    ] {
        assert_eq!(gate.get(&format!("{host}/exact")), expected, "{host}");
    }
    assert_eq!(gate.get("example.com/other"), "404");
}

#[test]
fn exact_path_beats_param_beats_the_longest_prefix_beats_regex() {
    let gate = gate([
        route("regex").path("~/orders/.*"),
        route("all").path("/*"),
        route("orders").path("/orders/*"),
        route("orders-eu").path("/orders/eu/*"),
        route("param").path("/orders/{id}"),
        route("exact").path("/orders/7"),
    ]);
    for (path, expected) in [
        ("/orders/7", "exact"),
        ("/orders/8", "param"),
        ("/orders/eu", "param"),
        ("/orders/eu/1", "orders-eu"),
        ("/orders/us/1", "orders"),
        ("/orders/", "orders"),
        ("/orders", "orders"),
        ("/orders/7/", "orders"),
        ("/", "all"),
        ("/x", "all"),
    ] {
        assert_eq!(gate.get(&format!("a{path}")), expected, "{path}");
    }
}

#[test]
fn regexes_are_asked_last_and_match_the_whole_path() {
    let gate = gate([
        route("low").path("~/v[0-9]+/.*"),
        route("high").path("~/v1/.*").priority(1),
        route("any").path("/v3/*"),
    ]);
    assert_eq!(gate.get("a/v2/x"), "low");
    assert_eq!(gate.get("a/v1/x"), "high");
    assert_eq!(gate.get("a/v3/x"), "any");
    assert_eq!(gate.get("a/x/v1/x"), "404");
    assert_eq!(gate.get("a/v1"), "404");
}

#[test]
fn of_params_the_leftmost_literal_decides() {
    let gate = gate([
        route("both").path("/{a}/{b}"),
        route("second").path("/{a}/x"),
        route("first").path("/x/{b}"),
        route("three").path("/{a}/{b}/end"),
    ]);
    assert_eq!(gate.get("h/x/x"), "first");
    assert_eq!(gate.get("h/y/x"), "second");
    assert_eq!(gate.get("h/y/y"), "both");
    // From the dead end after `/x/…` back to the params.
    assert_eq!(gate.get("h/x/y/end"), "three");
    assert_eq!(gate.get("h/x/y/fin"), "404");
}

#[test]
fn a_param_is_one_whole_segment_that_is_not_empty() {
    let gate = gate([route("user").path("/users/{id}"), route("folder").path("/users/{id}/")]);
    for (path, expected) in [
        ("/users/7", "user"),
        ("/users/a%2Fb", "user"),
        ("/users/7/", "folder"),
        ("/users/", "404"),
        ("/users", "404"),
        ("/users/7/x", "404"),
    ] {
        assert_eq!(gate.get(&format!("h{path}")), expected, "{path}");
    }
}

#[test]
fn prefixes_end_at_segment_borders() {
    let gate = gate([route("orders").path("/orders/*")]);
    for (path, expected) in [
        ("/orders", "orders"),
        ("/orders/", "orders"),
        ("/orders/7", "orders"),
        ("/orders/7/items", "orders"),
        ("/orders2", "404"),
        ("/order", "404"),
        ("/", "404"),
        ("/x/orders", "404"),
    ] {
        assert_eq!(gate.get(&format!("h{path}")), expected, "{path}");
    }
}

#[test]
fn then_the_route_with_more_conditions_wins() {
    let gate = gate([
        route("none").priority(9),
        route("method").methods(&[Method::GET]).priority(5),
        route("header").header("x-env", "test"),
        route("two").header("x-env", "test").query("debug", "1"),
        route("three").methods(&[Method::POST, Method::GET, Method::PUT]).header("x-env", "test").query("debug", "1"),
    ]);
    let test = |url| get(url).header("x-env", "test");
    assert_eq!(gate.ask(test("h/?debug=1")), "three");
    assert_eq!(gate.ask(test("h/?debug=1").method(Method::DELETE)), "two");
    // One condition each: the priority.
    assert_eq!(gate.ask(test("h/")), "method");
    assert_eq!(gate.ask(test("h/").method(Method::DELETE)), "header");
    assert_eq!(gate.ask(get("h/").method(Method::DELETE)), "none");
}

#[test]
fn a_failed_condition_disqualifies_and_the_search_goes_on() {
    let gate = gate([
        route("exact").host("a.b").path("/x/y").header("k", "1"),
        route("param").host("a.b").path("/x/{p}").header("k", "2"),
        route("prefix").host("a.b").path("/x/*").header("k", "3"),
        route("outer").host("a.b").path("/*").header("k", "4"),
        route("regex").host("a.b").path("~/x/.").header("k", "5"),
        route("wild").host("*.b").path("/x/y").header("k", "6"),
        route("any").path("/x/*"),
    ]);
    for (k, expected) in
        [("1", "exact"), ("2", "param"), ("3", "prefix"), ("4", "outer"), ("5", "regex"), ("6", "wild"), ("7", "any")]
    {
        assert_eq!(gate.ask(get("a.b/x/y").header("k", k)), expected);
    }
}

#[test]
fn a_route_with_several_hosts_is_under_each() {
    let gate = gate([route("both").host("a.com").host("*.b.com").path("/x"), route("rest").host("x.b.com").path("/*")]);
    assert_eq!(gate.get("a.com/x"), "both");
    assert_eq!(gate.get("y.b.com/x"), "both");
    assert_eq!(gate.get("x.b.com/x"), "rest");
    assert_eq!(gate.get("b.com/x"), "404");
}

#[test]
fn a_route_is_on_its_listeners_only() {
    let gate = gate([route("inside").path("/x").on(1).on(2), route("all").path("/*")]);
    assert_eq!(gate.ask(get("h/x").on(0)), "all");
    assert_eq!(gate.ask(get("h/x").on(1)), "inside");
    assert_eq!(gate.ask(get("h/x").on(2)), "inside");
}

#[test]
fn a_header_holds_when_any_line_of_it_is_exactly_the_value() {
    let gate = gate([route("prod").header("x-env", "prod"), route("there").header("x-there", "*")]);
    assert_eq!(gate.ask(get("h/").header("x-env", "prod")), "prod");
    let two = get("h/").header("x-env", "test").header("x-env", "prod");
    assert_eq!(gate.ask(two), "prod");
    assert_eq!(gate.ask(get("h/").header("x-env", "Prod")), "404");
    assert_eq!(gate.ask(get("h/").header("x-env", "prod, test")), "404");
    assert_eq!(gate.ask(get("h/").header("x-there", "")), "there");
    assert_eq!(gate.get("h/"), "404");
}

#[test]
fn a_query_condition_holds_when_any_pair_decodes_to_it() {
    let gate = gate([
        route("q").query("a b", "c d"),
        route("there").query("flag", "*"),
        route("empty").query("e", ""),
        route("odd").query("p", "100%"),
    ]);
    for (query, expected) in [
        ("a+b=c+d", "q"),
        ("a%20b=c%20d", "q"),
        ("%61+b=%63+d", "q"),
        ("x=1&&a+b=z&a+b=c+d", "q"),
        ("a+b=c+d=", "404"),
        ("a+b=c+", "404"),
        ("a+b=c+d+", "404"),
        ("A+b=c+d", "404"),
        ("flag", "there"),
        ("flag=", "there"),
        ("flag=1", "there"),
        ("%66lag", "there"),
        ("flags", "404"),
        ("e", "empty"),
        ("e=", "empty"),
        ("p=100%25", "odd"),
        ("p=100%", "odd"),
        ("p=100%2", "404"),
        ("", "404"),
    ] {
        assert_eq!(gate.get(&format!("h/?{query}")), expected, "{query}");
    }
    assert_eq!(gate.get("h/"), "404");
}

#[test]
fn method_not_allowed_only_if_nothing_but_the_method_failed() {
    let gate = gate([
        route("post").path("/x").methods(&[Method::POST, Method::PUT]),
        route("other").path("/x/*").methods(&[Method::DELETE, Method::PUT]),
        route("header").path("/x").methods(&[Method::PATCH]).header("k", "1"),
        route("listener").path("/x").methods(&[Method::TRACE]).on(7),
        route("host").host("other").path("/x").methods(&[Method::HEAD]),
    ]);
    assert_eq!(gate.get("h/x"), "405 DELETE, POST, PUT");
    assert_eq!(gate.get("h/x/y"), "405 DELETE, PUT");
    assert_eq!(gate.ask(get("h/x").header("k", "1")), "405 DELETE, PATCH, POST, PUT");
    assert_eq!(gate.get("other/x"), "405 DELETE, HEAD, POST, PUT");
    assert_eq!(gate.get("h/y"), "404");
    assert_eq!(gate.ask(get("h/x").method(Method::PUT)), "post");
}

#[test]
fn who_may_get_may_head_but_a_route_that_names_head_comes_first() {
    let get_alone = gate([route("get").methods(&[Method::GET])]);
    assert_eq!(get_alone.ask(get("h/").method(Method::HEAD)), "get");
    assert_eq!(get_alone.ask(get("h/").method(Method::PUT)), "405 GET, HEAD");
    let both = gate([route("get").methods(&[Method::GET]), route("head").methods(&[Method::HEAD])]);
    assert_eq!(both.ask(get("h/").method(Method::HEAD)), "head");
    let told = both.router.explain(&get("h/").method(Method::HEAD).facts());
    assert_eq!(told, [(RouteId(1), Fate::Wins), (RouteId(0), Fate::LessSpecific(Lead::Head))]);
    assert_eq!(both.get("h/"), "get");
    let head_alone = gate([route("head").methods(&[Method::HEAD])]);
    assert_eq!(head_alone.get("h/"), "405 HEAD");
}

#[test]
fn what_is_no_path_is_on_no_route() {
    let gate = gate([route("all"), route("regex").path("~.*")]);
    let asterisk = Ask { path: "*".to_owned(), ..get("h/") };
    assert_eq!(gate.ask(asterisk), "404");
}

#[test]
fn file_order_never_matters() {
    let routes = [
        route("a").path("/x/*"),
        route("b").path("/x/{p}").methods(&[Method::GET]),
        route("c").path("/x/{p}"),
        route("d").host("h").path("/*"),
    ];
    let backwards = gate(routes.iter().rev().cloned());
    let forwards = gate(routes);
    for url in ["h/x/y", "g/x/y", "g/x", "g/"] {
        assert_eq!(forwards.get(url), backwards.get(url), "{url}");
    }
}

#[test]
fn explains_the_winner_and_each_loser() {
    let gate = gate([
        route("a-wins").host("h").path("/x").methods(&[Method::GET]),
        route("b-priority").path("/x").header("k", "1").priority(-1),
        route("c-conditions").host("h").path("/x"),
        route("d-path").host("h").path("/*"),
        route("e-host").path("/x"),
        route("f-listener").on(3),
        route("g-host").host("*.h"),
        route("h-path").path("/y"),
        route("i-header").header("k", "2").methods(&[Method::PUT]),
        route("j-query").query("debug", "1").methods(&[Method::PUT]),
        route("k-method").methods(&[Method::PUT]),
    ]);
    let told = gate.router.explain(&get("h/x").header("k", "1").facts());
    let told: Vec<_> = (told.iter()).map(|(id, fate)| (gate.names[id.index()].as_str(), fate.clone())).collect();
    assert_eq!(
        told,
        [
            ("a-wins", Fate::Wins),
            ("c-conditions", Fate::LessSpecific(Lead::Conditions)),
            ("d-path", Fate::LessSpecific(Lead::Path)),
            ("b-priority", Fate::LessSpecific(Lead::Host)),
            ("e-host", Fate::LessSpecific(Lead::Host)),
            ("k-method", Fate::Method),
            ("j-query", Fate::Query("debug".to_owned())),
            ("i-header", Fate::Header(HeaderName::from_static("k"))),
            ("h-path", Fate::Path),
            ("g-host", Fate::Host),
            ("f-listener", Fate::Listener),
        ]
    );
    let words: Vec<_> = told.iter().map(|(_, fate)| fate.to_string()).collect();
    assert_eq!(words[1], "matches, but the winner has more conditions");
    assert_eq!(words[5], "everything holds but the method");
    assert_eq!(words[7], "the header `k` is not as this route wants it");
}

#[test]
fn explains_by_what_a_tie_is_decided() {
    let gate = gate([route("a").path("~/x.*"), route("b").path("~/.*x").priority(1), route("c").path("~/x")]);
    let told = gate.router.explain(&get("h/x").facts());
    assert_eq!(
        told,
        [
            (RouteId(1), Fate::Wins),
            (RouteId(0), Fate::LessSpecific(Lead::Priority)),
            (RouteId(2), Fate::LessSpecific(Lead::Priority)),
        ]
    );
}

#[test]
fn among_ten_thousand_routes_each_is_found() {
    let many = (0..10_000).map(|i| {
        let name = format!("r{i}");
        match i % 5 {
            0 => route(&name).host(&format!("h{i}.example.com")),
            1 => route(&name).host(&format!("*.h{i}.example.com")).path("/x/*"),
            2 => route(&name).path(&format!("/svc{i}/{{id}}/items")),
            3 => route(&name).path(&format!("/svc{i}/*")),
            _ => route(&name).path(&format!("/svc{i}/report")),
        }
    });
    let gate = gate(many);
    for i in 0..10_000 {
        let url = match i % 5 {
            0 => format!("h{i}.example.com/any"),
            1 => format!("a.h{i}.example.com/x/y"),
            2 => format!("h/svc{i}/7/items"),
            3 => format!("h/svc{i}/7/items"),
            _ => format!("h/svc{i}/report"),
        };
        assert_eq!(gate.get(&url), format!("r{i}"), "{url}");
    }
    assert_eq!(gate.get("h/svc10000/report"), "404");
}

#[test]
fn long_paths_and_hosts_cost_no_more_than_the_deepest_route() {
    let gate = gate([
        route("prefix").path("/a/a/*"),
        route("param").path("/{x}/{y}/{z}"),
        route("wild").host("*.a.a").path("/b"),
    ]);
    let long = format!("h{}", "/a".repeat(100_000));
    let wide = format!("{}/b", ["a"; 127].join("."));
    // Going down with every segment would overflow the stack, and take minutes.
    for _ in 0..1_000 {
        assert_eq!(gate.get(&long), "prefix");
        assert_eq!(gate.get(&wide), "wild");
    }
}
