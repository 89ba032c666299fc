//! Finds routes that would match the same requests with nothing to tell which of them wins.

use std::collections::{BTreeMap, HashMap};

use super::{
    model::{HostPattern, PathPattern, PathSegment, Route},
    report::Problem,
    source::Span,
};

/// The problems of all routes that tie with one before them; each comes with the place of its name.
pub(super) fn find(routes: &[(&Route, Span)]) -> Vec<Problem> {
    let mut groups: BTreeMap<Standing<'_>, Vec<usize>> = BTreeMap::new();
    for (at, (route, _)) in routes.iter().enumerate() {
        let hosts: Vec<Host<'_>> =
            if route.hosts.is_empty() { vec![Host::Any] } else { route.hosts.iter().map(Host::of).collect() };
        for host in hosts {
            groups.entry(Standing::of(route, host)).or_default().push(at);
        }
    }
    // A route is named once, with the first that it ties with, however many there are.
    let mut ties: BTreeMap<usize, usize> = BTreeMap::new();
    for group in groups.into_values() {
        for (first, second) in pairs(routes, group) {
            let known = ties.entry(second).or_insert(first);
            *known = first.min(*known);
        }
    }
    ties.into_iter()
        .filter_map(|(second, first)| {
            let ((a, first), (b, second)) = (routes.get(first)?, routes.get(second)?);
            Some(
                Problem::at(
                    format!("routes `{}` and `{}` match the same requests", a.name, b.name),
                    *second,
                )
                .label("nothing tells which of the two wins")
                .also(*first, format!("`{}` is here", a.name))
                .help("give one a higher `priority`, or a condition more: `host`, `path`, `methods`, `headers`, `query`"),
            )
        })
        .collect()
}

/// Everything that ranks a route where it matches: routes that differ in it don't tie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Standing<'r> {
    host: Host<'r>,
    path: Shape<'r>,
    conditions: usize,
    priority: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Host<'r> {
    Exact(&'r str),
    Wildcard(&'r str),
    Any,
}

impl<'r> Host<'r> {
    fn of(host: &'r HostPattern) -> Self {
        match host {
            HostPattern::Exact(name) => Self::Exact(name),
            HostPattern::Wildcard(name) => Self::Wildcard(name),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Shape<'r> {
    Exact(&'r str),
    /// `None`: a parameter, whatever its name.
    Params(Vec<Option<&'r str>>),
    Prefix(&'r str),
    /// Whether two expressions match one path is not worth knowing: they need distinct priorities.
    Regex,
}

impl<'r> Standing<'r> {
    fn of(route: &'r Route, host: Host<'r>) -> Self {
        Self {
            host,
            path: match &route.path {
                PathPattern::Exact(path) => Shape::Exact(path),
                PathPattern::Params(segments) => Shape::Params(
                    segments
                        .iter()
                        .map(|segment| match segment {
                            PathSegment::Literal(text) => Some(text.as_str()),
                            PathSegment::Param(_) => None,
                        })
                        .collect(),
                ),
                PathPattern::Prefix(path) => Shape::Prefix(path),
                PathPattern::Regex(_) => Shape::Regex,
            },
            conditions: usize::from(route.methods.is_some()) + route.headers.len() + route.query.len(),
            priority: route.priority,
        }
    }
}

/// Pairs of a group that can match one request, at least the first of each route.
fn pairs(routes: &[(&Route, Span)], group: Vec<usize>) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    // Thousands of routes may differ in one header's value: split by it first, or every pair would be compared.
    let mut open = vec![group];
    while let Some(group) = open.pop() {
        match split(routes, &group) {
            Some(parts) => open.extend(parts),
            None => {
                for (nth, second) in group.iter().enumerate() {
                    let first = group[..nth].iter().find(|first| meet(routes[**first].0, routes[*second].0));
                    found.extend(first.map(|first| (*first, *second)));
                }
            }
        }
    }
    found
}

/// Splits a group by a header or query key of which each of its routes demands one value.
fn split(routes: &[(&Route, Span)], group: &[usize]) -> Option<Vec<Vec<usize>>> {
    if group.len() < 16 {
        return None;
    }
    let keys = exact(routes[*group.first()?].0);
    keys.into_keys().find_map(|key| {
        let mut parts: HashMap<&str, Vec<usize>> = HashMap::new();
        for at in group {
            let value = exact(routes[*at].0).get(&key).copied()?;
            parts.entry(value).or_default().push(*at);
        }
        (parts.len() > 1).then(|| parts.into_values().collect())
    })
}

/// The headers and query keys of which a route demands one value.
fn exact(route: &Route) -> BTreeMap<(bool, &str), &str> {
    let headers = route.headers.iter().filter_map(|c| Some(((true, c.name.as_str()), c.value.as_deref()?)));
    let query = route.query.iter().filter_map(|c| Some(((false, c.name.as_str()), c.value.as_deref()?)));
    headers.chain(query).collect()
}

/// Whether one request can fulfil the conditions of both.
fn meet(a: &Route, b: &Route) -> bool {
    let listeners = match (&a.listeners, &b.listeners) {
        (Some(a), Some(b)) => a.iter().any(|id| b.contains(id)),
        _ => true,
    };
    let methods = match (&a.methods, &b.methods) {
        (Some(a), Some(b)) => a.iter().any(|method| b.contains(method)),
        _ => true,
    };
    listeners && methods && {
        let demanded = exact(a);
        exact(b).iter().all(|(key, value)| demanded.get(key).is_none_or(|other| other == value))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write as _};

    use proptest::prelude::*;

    use crate::config::{Sources, parse};

    /// A route by what it was made of: host, path, method, header, query key, priority.
    type Made = (usize, usize, usize, usize, usize, usize);

    const HOSTS: [&str; 3] = ["", "host = \"a.example\"", "host = \"*.example\""];
    const PATHS: [&str; 3] = ["/a", "/a/*", "/{x}"];
    const METHODS: [&str; 4] = ["", "\"GET\"", "\"PUT\"", "\"GET\", \"PUT\""];
    const VALUES: [&str; 4] = ["", "1", "2", "*"];

    fn text(routes: &[Made]) -> String {
        let mut text = String::from(
            "[listener.in]\naddress = \"127.0.0.1:0\"\n\
             [function.f]\nversions = { v = \"http://f.example\" }\n",
        );
        for (nth, (host, path, method, header, query, priority)) in routes.iter().enumerate() {
            let _ = writeln!(text, "[route.r{nth:03}]\nfunction = \"f\"\n{}", HOSTS[*host]);
            let _ = writeln!(text, "path = \"{}\"\npriority = {priority}", PATHS[*path]);
            if *method > 0 {
                let _ = writeln!(text, "methods = [{}]", METHODS[*method]);
            }
            for (key, value) in [("headers", header), ("query", query)] {
                if *value > 0 {
                    let _ = writeln!(text, "{key} = {{ k = \"{}\" }}", VALUES[*value]);
                }
            }
        }
        text
    }

    /// The rule, pair by pair.
    fn ties(a: &Made, b: &Made) -> bool {
        let count = |r: &Made| [r.2, r.3, r.4].into_iter().filter(|given| *given > 0).count();
        let methods = (a.2 == 0 || b.2 == 0) || a.2 & b.2 > 0;
        let both = |a: usize, b: usize| a == 0 || b == 0 || a == 3 || b == 3 || a == b;
        (a.0, a.1, a.5) == (b.0, b.1, b.5) && count(a) == count(b) && methods && both(a.3, b.3) && both(a.4, b.4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_same_routes_tie_as_when_every_pair_is_compared(
            routes in prop::collection::vec(
                (0..2usize, 0..2usize, 0..4usize, 0..4usize, 0..4usize, 0..2usize), 0..120,
            ),
            alike in any::<bool>(),
        ) {
            // Large groups, too: all with one host, path, priority, and a demanded header.
            let routes: Vec<Made> = if alike {
                routes.iter().map(|r| (0, 0, r.2, 1 + r.3 % 2, r.4, 0)).collect()
            } else {
                routes
            };
            let expected: BTreeSet<String> = (0..routes.len())
                .filter(|nth| routes[..*nth].iter().any(|first| ties(first, &routes[*nth])))
                .map(|nth| format!("r{nth:03}"))
                .collect();
            let found: BTreeSet<String> = match parse(&Sources::new([("t.toml", text(&routes))])) {
                Ok(_) => BTreeSet::new(),
                Err(report) => report
                    .problems()
                    .iter()
                    .filter_map(|problem| problem.message.split('`').nth(3).map(str::to_owned))
                    .collect(),
            };
            prop_assert_eq!(found, expected);
        }
    }
}
