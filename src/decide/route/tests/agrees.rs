//! What the config takes, routing can tell apart: both rooms have their own code for it, and must not disagree.

use std::{collections::BTreeSet, fmt::Write as _};

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use crate::{
    config::{
        Config, Sources,
        model::{ListenerId, PathPattern, PathSegment, RouteId},
        parse,
    },
    decide::{
        Facts,
        path::normalise,
        route::{Found, Router},
    },
};

const HOSTS: [&str; 4] = ["", "\"a.example\"", "\"*.example\"", "\"a.example\", \"*.example\""];
const PATHS: [&str; 8] = ["/*", "/a", "/a/*", "/a/b", "/{x}", "/a/{x}", "/{x}/b", "/{x}/"];
const METHODS: [&str; 4] = ["", "\"GET\"", "\"PUT\"", "\"GET\", \"PUT\""];
const VALUES: [&str; 4] = ["", "1", "2", "*"];
const LISTENERS: [&str; 3] = ["", "\"in\"", "\"out\""];

#[derive(Debug, Clone)]
struct Made {
    host: usize,
    path: usize,
    method: usize,
    header: usize,
    query: usize,
    listener: usize,
    priority: usize,
}

prop_compose! {
    fn made()(
        host in 0..HOSTS.len(), path in 0..PATHS.len(), method in 0..METHODS.len(), header in 0..VALUES.len(),
        query in 0..VALUES.len(), listener in 0..LISTENERS.len(), priority in 0..2_usize,
    ) -> Made {
        Made { host, path, method, header, query, listener, priority }
    }
}

/// A config whose route `n` is called `rNNN`, or from the other end of the alphabet.
fn text(routes: &[&Made], reversed: bool) -> String {
    let mut text = String::from(
        "[listener.in]\naddress = \"127.0.0.1:0\"\n[listener.out]\naddress = \"127.0.0.1:0\"\n\
         [function.f]\nversions = { v = \"http://f.example\" }\n",
    );
    for (nth, route) in routes.iter().enumerate() {
        let name = if reversed { 999 - nth } else { nth };
        let _ = writeln!(text, "[route.r{name:03}]\nfunction = \"f\"\npath = \"{}\"", PATHS[route.path]);
        let _ = writeln!(text, "priority = {}", route.priority);
        for (key, all, given) in [
            ("host", &HOSTS[..], route.host),
            ("methods", &METHODS, route.method),
            ("listeners", &LISTENERS, route.listener),
        ] {
            if given > 0 {
                let _ = writeln!(text, "{key} = [{}]", all[given]);
            }
        }
        for (key, given) in [("headers", route.header), ("query", route.query)] {
            if given > 0 {
                let _ = writeln!(text, "{key} = {{ k = \"{}\" }}", VALUES[given]);
            }
        }
    }
    text
}

fn config(routes: &[&Made], reversed: bool) -> Result<Config, BTreeSet<usize>> {
    parse(&Sources::new([("t.toml", text(routes, reversed))])).map_err(|report| {
        let tied = |message: &str| message.split('`').nth(3)?.strip_prefix('r')?.parse::<usize>().ok();
        report.problems().iter().map(|p| tied(&p.message).unwrap_or_else(|| panic!("{report}"))).collect()
    })
}

/// Every request that these patterns can tell apart. None has a header or a query key twice: a route that wants `k = "1"`
/// and one that wants `k = "2"` don't tie, though a request may bring both; then the first by name has it.
fn requests(mut each: impl FnMut(&Facts<'_>) -> bool) -> bool {
    let headers = ["", "1", "2", "3"].map(|value| {
        let mut headers = HeaderMap::new();
        if !value.is_empty() {
            headers.insert("k", HeaderValue::from_static(value));
        }
        headers
    });
    for listener in [ListenerId(0), ListenerId(1)] {
        for host in ["a.example", "b.example", "c.test"] {
            for path in ["/", "/a", "/a/", "/a/b", "/c", "/c/", "/c/b", "/a/c", "/a/b/c"] {
                for method in [Method::GET, Method::PUT, Method::POST] {
                    for headers in &headers {
                        for query in [None, Some("k=1"), Some("k=2"), Some("k=3")] {
                            if each(&Facts { listener, method: &method, host, path, query, headers }) {
                                return true;
                            }
                        }
                    }
                }
            }
        }
    }
    false
}

/// The route by its number, whatever it is called.
fn number(found: &Found, routes: usize, reversed: bool) -> Option<usize> {
    match found {
        // Routes are in the order of their names.
        Found::Route(RouteId(at)) if reversed => Some(routes - 1 - *at as usize),
        Found::Route(RouteId(at)) => Some(*at as usize),
        _ => None,
    }
}

/// Whether some request goes elsewhere when the routes' order is turned round: then two of them tied on it.
fn order_matters(routes: &[&Made], config: &Config, turned: &Config) -> bool {
    let (one, other) = (Router::new(config), Router::new(turned));
    requests(|facts| number(&one.find(facts), routes.len(), false) != number(&other.find(facts), routes.len(), true))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn routes_that_the_config_takes_never_tie_on_a_request(all in prop::collection::vec(made(), 1..24)) {
        let mut routes: Vec<&Made> = all.iter().collect();
        if let Err(tied) = config(&routes, false) {
            routes = (0..).zip(routes).filter(|(nth, _)| !tied.contains(nth)).map(|(_, route)| route).collect();
        }
        // Names don't decide which routes tie.
        let (Ok(config), Ok(turned)) = (config(&routes, false), config(&routes, true)) else {
            return Err(TestCaseError::fail("a tie is left"));
        };
        prop_assert!(!order_matters(&routes, &config, &turned), "{}", text(&routes, false));
    }

    #[test]
    fn routes_that_the_config_refuses_do_tie_on_some_request(one in made(), other in made()) {
        // Alike but for the conditions, so that many tie.
        let other = Made { host: one.host, path: one.path, priority: one.priority, ..other };
        let routes = [&one, &other];
        if config(&routes, false).is_err() {
            // The router itself takes them: made apart, then put together.
            let mut together = config(&[&one], false).map_err(|_| TestCaseError::fail("one route alone"))?;
            let second = config(&[&other], false).map_err(|_| TestCaseError::fail("one route alone"))?;
            together.routes.extend(second.routes);
            let mut turned = together.clone();
            turned.routes.reverse();
            prop_assert!(order_matters(&routes, &together, &turned), "{}", text(&routes, false));
        }
    }

    #[test]
    fn a_path_that_the_config_takes_is_in_its_normal_form(
        path in "(/|[a-c.~]|%2[Ff]|%5[Cc]|%41|%e4|%E4|%00|\\{[a-b]\\}|[\\[\\]^|\\\\ äA*+:@]){0,8}(/\\*)?",
    ) {
        let quoted = serde_json::to_string(&path).map_err(|e| TestCaseError::fail(e.to_string()))?;
        for more in ["", "encoded_slash = \"keep\"\n"] {
            let text = format!(
                "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = {{ v = \"http://f.example\" }}\n\
                 [route.r]\nfunction = \"f\"\npath = {quoted}\n{more}"
            );
            let Ok(config) = parse(&Sources::new([("t.toml", text)])) else { continue };
            let written = match &config.routes[0].path {
                PathPattern::Exact(path) => path.clone(),
                PathPattern::Prefix(prefix) => format!("{prefix}/x"),
                PathPattern::Params(segments) => segments
                    .iter()
                    .map(|segment| match segment {
                        PathSegment::Literal(text) => format!("/{text}"),
                        PathSegment::Param(_) => "/x".to_owned(),
                    })
                    .collect(),
                PathPattern::Regex(_) => continue,
            };
            let normal = normalise(&written).map(|normal| normal.path.into_owned());
            prop_assert_eq!(normal, Ok(written));
        }
    }
}
