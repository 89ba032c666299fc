//! Finds the route of a request, at a cost that grows with the request's path and not with the routes.
//!
//! Each host has a tree of path segments: literal children hashed, and at most one child for any `{param}`. An
//! exact path is a walk down without params, so a walk that tries literals before params meets exact and param
//! routes best first. Prefixes hang on the nodes of the literal walk and know the next shorter one. Routes that
//! differ in their conditions only share a bucket, best first; those and regexes are tried in turn.
//!
//! The maps are std's, keyed at random per process: callers invent hosts and paths, and can't aim at a bucket.

use std::{collections::HashMap, fmt, hash::RandomState, ops::ControlFlow};

use http::Method;
use regex::Regex;

use super::Facts;
use crate::config::model::{Config, HostPattern, PathPattern, PathSegment, RouteId};

mod condition;
mod explain;

use condition::{Conditions, Failed};
pub use explain::{Fate, Lead};

/// What a request leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Route(RouteId),
    NoRoute,
    /// There are routes on which nothing but the method failed.
    MethodNotAllowed(AllowedMethods),
}

/// What goes into the Allow field (RFC 9110 §10.2.1): sorted, each once, never empty. `Display` joins them by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedMethods(Vec<Method>);

impl AllowedMethods {
    fn new(mut methods: Vec<Method>) -> Self {
        methods.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        Self(methods)
    }

    pub fn as_slice(&self) -> &[Method] {
        &self.0
    }
}

impl fmt::Display for AllowedMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, method) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            f.write_str(method.as_str())?;
        }
        Ok(())
    }
}

/// The routes of one config, arranged for looking up.
#[derive(Debug)]
pub struct Router {
    /// By [`RouteId`].
    routes: Vec<Conditions>,
    exact_hosts: HashMap<Box<str>, Host>,
    /// By suffix with its dot in front: `.example.com`.
    wildcard_hosts: HashMap<Box<str>, Host>,
    /// Bytes of the longest of them, so that a host of a hundred labels is not hashed a hundred times.
    longest_wildcard: usize,
    any_host: Host,
    nodes: Vec<Node>,
    /// What the hosts and paths are matched by, once more: for [`Router::explain`] alone.
    patterns: Vec<explain::Patterns>,
}

/// The routes of one host pattern.
#[derive(Debug)]
struct Host {
    root: NodeId,
    has_params: bool,
    /// Best first.
    regexes: Vec<(Regex, RouteId)>,
}

#[derive(Debug, Clone, Copy)]
struct NodeId(u32);

/// Routes that match the same hosts and paths: best first.
type Bucket = Vec<RouteId>;

/// One place in a host's tree of segments.
#[derive(Debug)]
struct Node {
    literals: HashMap<Box<str>, NodeId>,
    param: Option<NodeId>,
    /// Routes whose path ends here: exact ones and ones with params.
    full: Bucket,
    /// Routes whose prefix ends here.
    prefix: Bucket,
    /// The nearest node above that has a prefix.
    outer_prefix: Option<NodeId>,
}

impl Router {
    /// Arranges the routes of `config`.
    pub fn new(config: &Config) -> Self {
        let mut router = Self::empty();
        for (index, route) in (0..).zip(&config.routes) {
            let id = RouteId(index);
            router.routes.push(Conditions::of(route));
            router.patterns.push(explain::Patterns::of(route));
            if route.hosts.is_empty() {
                let mut host = std::mem::replace(&mut router.any_host, Host::at(NodeId(0)));
                router.add_path(&mut host, &route.path, id);
                router.any_host = host;
            }
            for pattern in &route.hosts {
                router.add_under(pattern, &route.path, id);
            }
        }
        router.arrange();
        router
    }

    /// The best route of those whose conditions all hold.
    ///
    /// Host before path before number of conditions before priority; a route that misses a condition is passed
    /// over for less specific ones, and for less specific hosts. Allocates nothing but the methods of a 405.
    pub fn find(&self, facts: &Facts<'_>) -> Found {
        let mut only_method_failed = false;
        let found = self.visit(facts, &mut |id| match self.conditions(id).check(facts) {
            Ok(()) => ControlFlow::Break(id),
            Err(failed) => {
                only_method_failed |= matches!(failed, Failed::Method);
                ControlFlow::Continue(())
            }
        });
        match found {
            ControlFlow::Break(id) => Found::Route(id),
            ControlFlow::Continue(()) if only_method_failed => Found::MethodNotAllowed(self.allowed_methods(facts)),
            ControlFlow::Continue(()) => Found::NoRoute,
        }
    }

    /// A second walk, so that the first need not remember what most requests never ask for.
    fn allowed_methods(&self, facts: &Facts<'_>) -> AllowedMethods {
        let mut methods = Vec::new();
        let _ = self.visit(facts, &mut |id| {
            let conditions = self.conditions(id);
            if let Err(Failed::Method) = conditions.check(facts) {
                methods.extend_from_slice(conditions.methods());
            }
            ControlFlow::Continue(())
        });
        AllowedMethods::new(methods)
    }

    fn conditions(&self, id: RouteId) -> &Conditions {
        &self.routes[id.index()]
    }

    /// Calls `visitor` with the routes whose host and path match, best first, until it breaks.
    fn visit<V>(&self, facts: &Facts<'_>, visitor: &mut V) -> ControlFlow<RouteId>
    where
        V: FnMut(RouteId) -> ControlFlow<RouteId>,
    {
        if let Some(host) = self.exact_hosts.get(facts.host) {
            self.visit_host(host, facts.path, visitor)?;
        }
        if !self.wildcard_hosts.is_empty() {
            for (dot, _) in facts.host.match_indices('.') {
                let suffix = &facts.host[dot..];
                if dot == 0 || suffix.len() > self.longest_wildcard {
                    continue;
                }
                if let Some(host) = self.wildcard_hosts.get(suffix) {
                    self.visit_host(host, facts.path, visitor)?;
                }
            }
        }
        self.visit_host(&self.any_host, facts.path, visitor)
    }

    fn visit_host<V>(&self, host: &Host, path: &str, visitor: &mut V) -> ControlFlow<RouteId>
    where
        V: FnMut(RouteId) -> ControlFlow<RouteId>,
    {
        // What is no path (`*` of OPTIONS, RFC 9112 §3.2.4) is on no route.
        let Some(segments) = path.strip_prefix('/') else {
            return ControlFlow::Continue(());
        };
        let (deepest, is_whole) = self.walk_literals(host.root, segments);
        if is_whole {
            visit_all(&self.node(deepest).full, visitor)?;
        }
        if host.has_params {
            // Meets the exact end again: it has nothing new to say.
            self.visit_ways(host.root, Some(segments), visitor)?;
        }
        let mut place = Some(deepest);
        while let Some(node) = place.map(|id| self.node(id)) {
            visit_all(&node.prefix, visitor)?;
            place = node.outer_prefix;
        }
        for (regex, id) in &host.regexes {
            if regex.is_match(path) {
                visitor(*id)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// The deepest node on the way of these segments, and whether it is the end of the way.
    ///
    /// Ends where the tree ends: the length of a path that a caller invents doesn't matter.
    fn walk_literals(&self, root: NodeId, segments: &str) -> (NodeId, bool) {
        let mut place = root;
        for segment in segments.split('/') {
            match self.node(place).literals.get(segment) {
                Some(child) => place = *child,
                None => return (place, false),
            }
        }
        (place, true)
    }

    /// Visits the ends of all ways, params included; from the left, literals before params.
    ///
    /// No deeper than the longest pattern, and each node once at most: a node has one way to it.
    fn visit_ways<V>(&self, place: NodeId, rest: Option<&str>, visitor: &mut V) -> ControlFlow<RouteId>
    where
        V: FnMut(RouteId) -> ControlFlow<RouteId>,
    {
        let node = self.node(place);
        let Some(rest) = rest else {
            return visit_all(&node.full, visitor);
        };
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = node.literals.get(segment) {
            self.visit_ways(*child, rest, visitor)?;
        }
        match node.param {
            Some(child) if !segment.is_empty() => self.visit_ways(child, rest, visitor),
            _ => ControlFlow::Continue(()),
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }
}

fn visit_all<V>(bucket: &[RouteId], visitor: &mut V) -> ControlFlow<RouteId>
where
    V: FnMut(RouteId) -> ControlFlow<RouteId>,
{
    bucket.iter().try_for_each(|id| visitor(*id))
}

/// Building.
impl Router {
    fn empty() -> Self {
        let keys = RandomState::new();
        Self {
            routes: Vec::new(),
            exact_hosts: HashMap::with_hasher(keys.clone()),
            wildcard_hosts: HashMap::with_hasher(keys.clone()),
            longest_wildcard: 0,
            any_host: Host::at(NodeId(0)),
            nodes: vec![Node::new(keys)],
            patterns: Vec::new(),
        }
    }

    fn add_under(&mut self, pattern: &HostPattern, path: &PathPattern, id: RouteId) {
        let (hosts, name) = match pattern {
            HostPattern::Exact(name) => (&mut self.exact_hosts, name),
            HostPattern::Wildcard(suffix) => {
                self.longest_wildcard = self.longest_wildcard.max(suffix.len());
                (&mut self.wildcard_hosts, suffix)
            }
        };
        let keys = hosts.hasher().clone();
        // Taken out while its tree grows, and put back.
        let (name, mut host) = hosts.remove_entry(name.as_str()).unwrap_or_else(|| {
            let root = add_node(&mut self.nodes, keys);
            (name.as_str().into(), Host::at(root))
        });
        self.add_path(&mut host, path, id);
        match pattern {
            HostPattern::Exact(_) => self.exact_hosts.insert(name, host),
            HostPattern::Wildcard(_) => self.wildcard_hosts.insert(name, host),
        };
    }

    fn add_path(&mut self, host: &mut Host, path: &PathPattern, id: RouteId) {
        match path {
            PathPattern::Exact(path) => {
                let end = self.grow(host.root, segments_of(path).map(Some));
                self.nodes[end.0 as usize].full.push(id);
            }
            PathPattern::Params(segments) => {
                host.has_params = true;
                let segments = segments.iter().map(|segment| match segment {
                    PathSegment::Literal(text) => Some(text.as_str()),
                    PathSegment::Param(_) => None,
                });
                let end = self.grow(host.root, segments);
                self.nodes[end.0 as usize].full.push(id);
            }
            PathPattern::Prefix(prefix) => {
                let end = self.grow(host.root, segments_of(prefix).map(Some));
                self.nodes[end.0 as usize].prefix.push(id);
            }
            PathPattern::Regex(regex) => host.regexes.push((regex.clone(), id)),
        }
    }

    /// The node at the end of `segments`, where `None` is a param.
    fn grow<'p>(&mut self, root: NodeId, segments: impl Iterator<Item = Option<&'p str>>) -> NodeId {
        segments.fold(root, |place, segment| {
            let node = &self.nodes[place.0 as usize];
            let known = match segment {
                Some(literal) => node.literals.get(literal).copied(),
                None => node.param,
            };
            if let Some(child) = known {
                return child;
            }
            let keys = node.literals.hasher().clone();
            let child = add_node(&mut self.nodes, keys);
            let node = &mut self.nodes[place.0 as usize];
            match segment {
                Some(literal) => {
                    node.literals.insert(literal.into(), child);
                }
                None => node.param = Some(child),
            }
            child
        })
    }

    /// Once all routes are in: orders the buckets and links the prefixes.
    fn arrange(&mut self) {
        let routes = &self.routes;
        // A stable sort: should two routes tie after all, the first by name wins, always.
        for node in &mut self.nodes {
            node.full.sort_by_key(|id| routes[id.index()].rank());
            node.prefix.sort_by_key(|id| routes[id.index()].rank());
        }
        let hosts = self.exact_hosts.values_mut();
        let hosts = hosts.chain(self.wildcard_hosts.values_mut());
        for host in hosts.chain([&mut self.any_host]) {
            host.regexes.sort_by_key(|(_, id)| routes[id.index()].rank());
        }
        // Parents stand before their children.
        for id in 0..self.nodes.len() {
            let node = &self.nodes[id];
            let outer = match node.prefix.is_empty() {
                true => node.outer_prefix,
                false => Some(NodeId(id as u32)),
            };
            let children: Vec<NodeId> = node.literals.values().copied().chain(node.param).collect();
            for child in children {
                self.nodes[child.0 as usize].outer_prefix = outer;
            }
        }
    }
}

impl Host {
    fn at(root: NodeId) -> Self {
        Self { root, has_params: false, regexes: Vec::new() }
    }
}

impl Node {
    fn new(keys: RandomState) -> Self {
        Self {
            literals: HashMap::with_hasher(keys),
            param: None,
            full: Bucket::new(),
            prefix: Bucket::new(),
            outer_prefix: None,
        }
    }
}

fn add_node(nodes: &mut Vec<Node>, keys: RandomState) -> NodeId {
    let id = NodeId(nodes.len() as u32);
    nodes.push(Node::new(keys));
    id
}

/// `/a/b` is `a`, `b`; the empty prefix is nothing.
fn segments_of(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').into_iter().flat_map(|p| p.split('/'))
}

#[cfg(test)]
mod tests;
