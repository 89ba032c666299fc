//! The router against a scan over all routes that shares no code with it: the contract's sentences, pair by pair.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

const HOSTS: [&str; 6] = ["a.com", "*.a.com", "*.x.a.com", "x.a.com", "*.com", "b.com"];
const ASKED_HOSTS: [&str; 8] = ["a.com", "x.a.com", "y.x.a.com", "y.a.com", "b.com", "com", "xa.com", ""];
/// Regexes, and what each means.
type Meaning = (&'static str, fn(&str) -> bool);
const REGEXES: [Meaning; 4] = [
    ("~/a/.*", |p| p.starts_with("/a/")),
    ("~/[ab]", |p| p == "/a" || p == "/b"),
    ("~.*b", |p| p.ends_with('b')),
    ("~/a|/a/b", |p| p == "/a" || p == "/a/b"),
];
const QUERIES: [(&str, &str); 3] = [("q", "1"), ("q", "*"), ("r s", "2")];
const ASKED_QUERIES: [&str; 6] = ["q=1", "q=2", "q=2&q=1", "r+s=2", "q&r%20s=%32", "s=2"];

/// A route as the config would write it.
#[derive(Debug, Clone)]
struct Plan {
    listeners: Option<Vec<u32>>,
    hosts: Vec<&'static str>,
    path: String,
    methods: Option<Vec<&'static str>>,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
    priority: i32,
}

impl Plan {
    fn build(&self, name: usize) -> Route {
        let mut route = route(&format!("{name:02}")).path(&self.path);
        for listener in self.listeners.iter().flatten() {
            route = route.on(*listener);
        }
        for host in &self.hosts {
            route = route.host(host);
        }
        for (name, value) in &self.headers {
            route = route.header(name, value);
        }
        for (name, value) in &self.query {
            route = route.query(name, value);
        }
        route.methods = (self.methods.as_ref()).map(|methods| methods.iter().map(|m| m.parse().unwrap()).collect());
        route.priority(self.priority)
    }

    /// The pattern that names the host best.
    fn host_of(&self, host: &str) -> Option<&'static str> {
        let mut best: Option<&'static str> = None;
        for pattern in &self.hosts {
            let fits = match pattern.split_once('*') {
                Some((_, suffix)) => {
                    let labels = host.strip_suffix(suffix);
                    labels.is_some_and(|labels| !labels.is_empty())
                }
                None => *pattern == host,
            };
            if fits && best.is_none_or(|best| host_beats(pattern, best) == Some(true)) {
                best = Some(pattern);
            }
        }
        if self.hosts.is_empty() { Some("") } else { best }
    }

    fn path_fits(&self, path: &str) -> bool {
        if let Some((_, meaning)) = REGEXES.iter().find(|(text, _)| *text == self.path) {
            return meaning(path);
        }
        if let Some(prefix) = self.path.strip_suffix("/*") {
            return path == prefix || path.starts_with(&format!("{prefix}/"));
        }
        let pattern: Vec<&str> = self.path.split('/').collect();
        let path: Vec<&str> = path.split('/').collect();
        pattern.len() == path.len()
            && (pattern.iter().zip(&path)).all(
                |(pattern, segment)| {
                    if *pattern == "{p}" { !segment.is_empty() } else { pattern == segment }
                },
            )
    }

    fn conditions_but_method_hold(&self, ask: &Ask) -> bool {
        let headers = self.headers.iter().all(|(name, value)| {
            let mut lines = (ask.headers.iter()).filter(|(n, _)| n.as_str() == *name);
            lines.any(|(_, line)| *value == "*" || line == value)
        });
        let pairs: Vec<(String, String)> = (ask.query.as_deref().unwrap_or(""))
            .split('&')
            .map(|pair| {
                let plain = pair.replace('+', " ").replace("%20", " ").replace("%32", "2");
                let mut halves = plain.splitn(2, '=');
                let key = halves.next().unwrap_or("").to_owned();
                (key, halves.next().unwrap_or("").to_owned())
            })
            .collect();
        let query = (self.query.iter())
            .all(|(name, value)| (pairs.iter()).any(|(key, found)| key == name && (*value == "*" || found == value)));
        let listener = match &self.listeners {
            Some(listeners) => listeners.contains(&ask.listener),
            None => true,
        };
        headers && query && listener
    }

    fn method_fits(&self, ask: &Ask) -> bool {
        match &self.methods {
            Some(methods) => {
                methods.contains(&ask.method.as_str()) || ask.method == Method::HEAD && methods.contains(&"GET")
            }
            None => true,
        }
    }

    fn names_head(&self) -> bool {
        self.methods.as_ref().is_some_and(|methods| methods.contains(&"HEAD"))
    }

    fn conditions(&self) -> usize {
        self.headers.len() + self.query.len() + if self.methods.is_some() { 1 } else { 0 }
    }
}

/// `None`: alike.
fn host_beats(one: &str, other: &str) -> Option<bool> {
    let wild = |pattern: &str| pattern.starts_with('*');
    match (one, other) {
        _ if one == other => None,
        ("", _) => Some(false),
        (_, "") => Some(true),
        _ if !wild(one) => Some(true),
        _ if !wild(other) => Some(false),
        _ if one.len() == other.len() => None,
        _ => Some(one.len() > other.len()),
    }
}

fn path_beats(one: &str, other: &str) -> Option<bool> {
    let kind = |path: &str| match path {
        _ if path.starts_with('~') => 3,
        _ if path.ends_with("/*") => 2,
        _ if path.contains('{') => 1,
        _ => 0,
    };
    if kind(one) != kind(other) {
        return Some(kind(one) < kind(other));
    }
    match kind(one) {
        1 => (one.split('/').zip(other.split('/')))
            .find(|(a, b)| (*a == "{p}") != (*b == "{p}"))
            .map(|(_, b)| b == "{p}"),
        2 if one.len() != other.len() => Some(one.len() > other.len()),
        _ => None,
    }
}

fn beats(one: &Plan, other: &Plan, host: &str) -> Option<bool> {
    host_beats(one.host_of(host)?, other.host_of(host)?)
        .or_else(|| path_beats(&one.path, &other.path))
        .or_else(|| {
            let (one, other) = (one.conditions(), other.conditions());
            (one != other).then_some(one > other)
        })
        .or_else(|| (one.priority != other.priority).then_some(one.priority > other.priority))
        .or_else(|| (one.names_head() != other.names_head()).then_some(one.names_head()))
}

/// What the contract says; `None` where two routes tie for the place.
fn expected(plans: &[Plan], ask: &Ask) -> Option<Found> {
    let near: Vec<(RouteId, &Plan)> = (0u32..)
        .map(RouteId)
        .zip(plans)
        .filter(|(_, plan)| plan.host_of(&ask.host).is_some() && plan.path_fits(&ask.path))
        .filter(|(_, plan)| plan.conditions_but_method_hold(ask))
        .collect();
    let able: Vec<_> = (near.iter()).filter(|(_, plan)| plan.method_fits(ask)).collect();
    for (id, plan) in &able {
        let mut others = able.iter().filter(|(other, _)| other != id);
        if others.all(|(_, other)| beats(plan, other, &ask.host) == Some(true)) {
            return Some(Found::Route(*id));
        }
    }
    if !able.is_empty() {
        return None;
    }
    let mut methods: Vec<&str> = (near.iter()).flat_map(|(_, plan)| plan.methods.iter().flatten().copied()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort();
    methods.dedup();
    Some(if methods.is_empty() {
        Found::NoRoute
    } else {
        let methods = methods.iter().map(|m| m.parse().unwrap()).collect();
        Found::MethodNotAllowed(super::super::AllowedMethods(methods))
    })
}

fn patterns() -> impl Strategy<Value = String> {
    let segment = || select(vec!["a", "b", "ab"]);
    let any = || prop_oneof![2 => segment(), 1 => Just("{p}")];
    let join = |segments: Vec<&'static str>| format!("/{}", segments.join("/"));
    prop_oneof![
        3 => vec(segment(), 0..4).prop_map(join),
        1 => vec(segment(), 1..3).prop_map(move |s| join(s) + "/"),
        4 => vec(any(), 1..4).prop_map(join),
        4 => vec(segment(), 0..4).prop_map(|s| s.iter().map(|s| format!("/{s}")).collect::<String>() + "/*"),
        2 => select(REGEXES.map(|(text, _)| text.to_owned()).to_vec()),
    ]
}

prop_compose! {
    fn plan()(
        listeners in option::weighted(0.2, vec(0u32..2, 1..3)),
        hosts in prop_oneof![Just(vec![]), vec(select(HOSTS.to_vec()), 1..3)],
        path in patterns(),
        methods in option::weighted(0.3, vec(select(vec!["GET", "HEAD", "POST", "PUT"]), 1..3)),
        headers in prop_oneof![
            3 => Just(vec![]),
            1 => vec(select(vec![("x-one", "1"), ("x-one", "*"), ("x-two", "1")]), 1..3),
        ],
        query in prop_oneof![3 => Just(vec![]), 1 => vec(select(QUERIES.to_vec()), 1..3)],
        priority in 0..4,
    ) -> Plan {
        Plan { listeners, hosts, path, methods, headers, query, priority }
    }
}

prop_compose! {
    fn ask()(
        listener in 0u32..2,
        method in select(vec![Method::GET, Method::HEAD, Method::POST, Method::DELETE]),
        host in select(ASKED_HOSTS.to_vec()),
        segments in vec(select(vec!["a", "b", "ab", "c"]), 0..4),
        slash in prop::bool::weighted(0.1),
        query in option::weighted(0.4, select(ASKED_QUERIES.to_vec())),
        headers in vec(select(vec![("x-one", "1"), ("x-one", "2"), ("x-two", "1")]), 0..3),
    ) -> Ask {
        let mut path = format!("/{}", segments.join("/"));
        if slash && path.len() > 1 {
            path.push('/');
        }
        let mut asked = Ask {
            listener,
            method,
            path,
            query: query.map(str::to_owned),
            ..get(&format!("{host}/"))
        };
        for (name, value) in headers {
            asked = asked.header(name, value);
        }
        asked
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_the_contract_says(plans in vec(plan(), 1..24), asks in vec(ask(), 50)) {
        let gate = gate(plans.iter().enumerate().map(|(i, plan)| plan.build(i)));
        for ask in &asks {
            let Some(expected) = expected(&plans, ask) else { continue };
            let facts = ask.facts();
            prop_assert_eq!(gate.router.find(&facts), expected, "{:?}", ask);
        }
    }

    #[test]
    fn explains_what_it_finds(plans in vec(plan(), 1..24), asks in vec(ask(), 20)) {
        let gate = gate(plans.iter().enumerate().map(|(i, plan)| plan.build(i)));
        for ask in &asks {
            let facts = ask.facts();
            let told = gate.router.explain(&facts);
            prop_assert_eq!(told.len(), plans.len());
            let is_method = |(_, fate): &(RouteId, Fate)| *fate == Fate::Method;
            match (gate.router.find(&facts), &told[0]) {
                (Found::Route(id), (winner, Fate::Wins)) => prop_assert_eq!(id, *winner),
                (Found::MethodNotAllowed(_), first) => prop_assert!(is_method(first)),
                (Found::NoRoute, _) => {
                    prop_assert!(!told.iter().any(is_method));
                    prop_assert!(told.iter().all(|(_, fate)| *fate != Fate::Wins));
                }
                (found, first) => prop_assert!(false, "{:?} but {:?}", found, first),
            }
        }
    }
}
