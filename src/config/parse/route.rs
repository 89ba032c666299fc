//! `[route.NAME]`: what is matched, where it goes, who may.

use std::collections::BTreeMap;

use super::{Scope, function::version_names};
use crate::config::{
    model::{
        ClientId, EncodedSlash, Handling, HeaderCondition, HostPattern, LimitUse, ListenerId, Name, PathPattern,
        PathSegment, QueryCondition, Route, VersionId,
    },
    raw::{self, RouteLimit},
    report::Problem,
    source::{At, Span},
    words::{Strip, header_name},
};

impl Scope<'_> {
    pub(super) fn route(&mut self, name: &Name, place: Span, raw: &raw::Route) -> Option<Route> {
        let file = self.file;
        let listeners = self.names(raw.listeners.as_ref(), "listeners", |scope, at| {
            scope.find("listener", at, &file.listeners).map(ListenerId)
        });
        let clients = self
            .names(raw.clients.as_ref(), "clients", |scope, at| scope.find("client", at, &file.clients).map(ClientId));
        let hosts = self.hosts(raw);
        let path = self.path_pattern(raw);
        self.encoded_slash_fits(raw);
        let methods = self.distinct(raw.methods.as_ref(), "methods");
        let headers = self.headers(raw);
        let query = self.query(raw);
        let serves = self.serves(raw, path.as_ref(), place);
        let version = self.pin(raw);
        let allow = raw.allow.as_ref().map(|list| self.some_networks(list, "allow"));
        let deny = self.networks(raw.deny.as_ref());
        let limits = self.route_limits(raw);
        let path_edit = self.path_edit(raw, path.as_ref());
        let request_headers = self.request_edits(raw);
        let response_headers = self.response_edits(raw);
        let compression = self.compression(raw);
        let error_pages = self.error_pages(raw.error_pages.as_ref());
        let fallback = self.fallback(raw.fallback.as_ref());
        let cors = self.cors(raw);
        let maintenance = self.maintenance(raw.maintenance.as_ref());
        self.client_cert_is_there(raw);
        Some(Route {
            name: name.clone(),
            listeners: listeners?,
            hosts,
            path: path?,
            methods,
            headers,
            query,
            priority: raw.priority.as_ref().and_then(|at| i32::try_from(at.value.0).ok()).unwrap_or_default(),
            serves: serves?,
            version,
            clients: clients?,
            allow: match allow {
                None => None,
                Some(allow) => Some(allow?),
            },
            deny: deny?,
            limits,
            encoded_slash: raw.encoded_slash.as_ref().map_or(EncodedSlash::Refuse, |at| at.value),
            handling: Handling {
                path: path_edit,
                request_headers: request_headers?,
                response_headers: response_headers?,
                security_headers: Self::security(raw.security_headers.as_ref()),
                maintenance: maintenance?,
                max_body: raw.max_body.as_ref().map(|at| at.value),
                cors: cors?,
                compression: compression?,
                error_pages: error_pages?,
                fallback: fallback?,
            }
            .shared(),
            forward_client_cert: raw.forward_client_cert.as_ref().is_some_and(|at| at.value),
            criticality: raw.criticality.as_ref().map(|at| at.value).unwrap_or_default(),
        })
    }

    /// A list of names that is either absent or names somebody: `Some(None)` is absent, `None` wrong.
    fn names<T>(
        &mut self,
        list: Option<&At<raw::Names>>,
        key: &str,
        mut find: impl FnMut(&mut Self, &At<crate::config::words::Text>) -> Option<T>,
    ) -> Option<Option<Vec<T>>> {
        let Some(list) = list else {
            return Some(None);
        };
        if list.value.is_empty() {
            self.report.push(
                Problem::at(format!("`{key}` is empty"), list.span)
                    .label("expected at least one name")
                    .help(format!("to mean all of them leave `{key}` out")),
            );
            return None;
        }
        let found: Vec<T> = list.value.iter().filter_map(|at| find(self, at)).collect();
        (found.len() == list.value.len()).then_some(Some(found))
    }

    fn hosts(&mut self, raw: &raw::Route) -> Vec<HostPattern> {
        let Some(at) = &raw.host else {
            return Vec::new();
        };
        let mut hosts: Vec<HostPattern> = Vec::new();
        if at.value.0.is_empty() {
            self.report.push(
                Problem::at("`host` is empty", at.span)
                    .label("expected at least one host")
                    .help("for any host leave `host` out"),
            );
        }
        for host in &at.value.0 {
            if hosts.contains(&host.value) {
                self.report.push(Problem::at("this host is there twice", host.span));
            } else {
                hosts.push(host.value.clone());
            }
        }
        hosts
    }

    /// A list without repetitions; `None` where it is absent.
    fn distinct<T: Clone + PartialEq + std::fmt::Display>(
        &mut self,
        list: Option<&At<Vec<At<T>>>>,
        key: &str,
    ) -> Option<Vec<T>> {
        let list = list?;
        if list.value.is_empty() {
            self.report.push(
                Problem::at(format!("`{key}` is empty: nothing would match"), list.span)
                    .label("expected at least one")
                    .help(format!("to mean all of them leave `{key}` out")),
            );
        }
        let mut seen: Vec<T> = Vec::with_capacity(list.value.len());
        for at in &list.value {
            if seen.contains(&at.value) {
                self.report.push(Problem::at(format!("`{}` is there twice", at.value), at.span));
            } else {
                seen.push(at.value.clone());
            }
        }
        Some(seen)
    }

    fn path_pattern(&mut self, raw: &raw::Route) -> Option<PathPattern> {
        match (&raw.path, &raw.path_regex) {
            (Some(path), Some(regex)) => {
                self.report.push(
                    Problem::at("a route has `path` or `path_regex`, not both", regex.span)
                        .label("the second")
                        .also(path.span, "the first"),
                );
                None
            }
            (Some(path), None) => Some(path.value.0.clone()),
            (None, Some(regex)) => Some(PathPattern::Regex(regex.value.0.clone())),
            (None, None) => Some(PathPattern::Prefix(String::new())),
        }
    }

    /// A path with an encoded slash is matched only where the route keeps them.
    fn encoded_slash_fits(&mut self, raw: &raw::Route) {
        let keep = (raw.encoded_slash.as_ref()).is_some_and(|at| at.value == EncodedSlash::Keep);
        let Some(at) = raw.path.as_ref().filter(|_| !keep) else {
            return;
        };
        let encoded = |text: &str| text.contains("%2F") || text.contains("%5C");
        let found = match &at.value.0 {
            PathPattern::Exact(text) | PathPattern::Prefix(text) => encoded(text),
            PathPattern::Params(segments) => {
                segments.iter().any(|segment| matches!(segment, PathSegment::Literal(text) if encoded(text)))
            }
            PathPattern::Regex(_) => false,
        };
        if found {
            self.report.push(
                Problem::at("this path is never matched: encoded slashes are refused", at.span)
                    .help("add `encoded_slash = \"keep\"`"),
            );
        }
    }

    /// Whether the prefix ends at a segment border of everything that the path matches.
    pub(super) fn strips(&mut self, strip: &At<Strip>, path: &PathPattern) -> bool {
        let prefix = &strip.value.0;
        let starts = |text: &str| {
            text.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let (fits, shown) = match path {
            PathPattern::Exact(text) => (starts(text), text.clone()),
            PathPattern::Prefix(text) => (starts(text), format!("{text}/*")),
            PathPattern::Params(segments) => {
                let shown: String = segments
                    .iter()
                    .map(|segment| match segment {
                        PathSegment::Literal(text) => format!("/{text}"),
                        PathSegment::Param(name) => format!("/{{{name}}}"),
                    })
                    .collect();
                (starts(&shown), shown)
            }
            PathPattern::Regex(_) => {
                self.report.push(
                    Problem::at("`strip_prefix` needs a `path`", strip.span)
                        .label("a `path_regex` does not say how its matches start"),
                );
                return false;
            }
        };
        if !fits {
            self.report.push(
                Problem::at(format!("`{prefix}` is not how the path `{shown}` starts"), strip.span)
                    .label("expected its first segments"),
            );
        }
        fits
    }

    /// A certificate is told of only where callers are asked for one.
    fn client_cert_is_there(&mut self, raw: &raw::Route) {
        let Some(at) = raw.forward_client_cert.as_ref().filter(|at| at.value) else {
            return;
        };
        let named =
            |name: &str| raw.listeners.as_ref().is_none_or(|names| names.value.iter().any(|at| at.value.0 == name));
        let asks = |listener: &raw::Listener| listener.client_ca.is_some() || listener.broken;
        if !self.file.listeners.iter().any(|(name, (_, listener))| named(name) && asks(listener)) {
            self.report.push(
                Problem::at("no listener of this route asks callers for a certificate", at.span)
                    .label("there is never one to forward")
                    .help("give the listener a `client_ca`"),
            );
        }
    }

    fn headers(&mut self, raw: &raw::Route) -> Vec<HeaderCondition> {
        let mut conditions = Vec::new();
        let mut places = BTreeMap::new();
        for (key, value) in raw.headers.iter().flat_map(|at| &at.value.0) {
            let name = match header_name(&key.value) {
                Ok(name) => name,
                Err(complaint) => {
                    let mut problem = Problem::at(complaint.message, key.span).label("expected the name of a header");
                    problem.help = complaint.help;
                    self.report.push(problem);
                    continue;
                }
            };
            // RFC 9110 §5.1: names are case-insensitive.
            if let Some(first) = places.insert(name.as_str().to_owned(), key.span) {
                self.report.push(
                    Problem::at(format!("header `{name}` is there twice"), key.span)
                        .label("again, in other letters")
                        .also(first, "first here"),
                );
            }
            if let Some(value) = value {
                conditions.push(HeaderCondition { name, value: value.value.0.clone() });
            }
        }
        conditions
    }

    fn query(&mut self, raw: &raw::Route) -> Vec<QueryCondition> {
        let mut conditions = Vec::new();
        for (key, value) in raw.query.iter().flat_map(|at| &at.value.0) {
            if key.value.is_empty() {
                self.report.push(Problem::at("a query key cannot be empty", key.span));
            }
            if let Some(value) = value {
                conditions.push(QueryCondition { name: key.value.clone(), value: value.value.0.clone() });
            }
        }
        conditions
    }

    fn pin(&mut self, raw: &raw::Route) -> Option<VersionId> {
        let (version, function) = (raw.version.as_ref()?, raw.function.as_ref()?);
        let (_, of) = self.file.functions.get(&function.value.0)?;
        of.versions.as_ref()?;
        let names = version_names(of);
        self.known_version(&version.value.0, version.span, &function.value.0, &names)
    }

    fn route_limits(&mut self, raw: &raw::Route) -> Vec<LimitUse> {
        let mut limits = Vec::new();
        for at in raw.limits.iter().flat_map(|list| &list.value) {
            let limit = match &at.value {
                RouteLimit::Own(limit) => self.limit(limit).map(LimitUse::Own),
                RouteLimit::Shared(shared) => {
                    (shared.r#use.as_ref()).and_then(|name| self.shared_limit(name)).map(LimitUse::Shared)
                }
            };
            let Some(limit) = limit else {
                continue;
            };
            if limits.contains(&limit) {
                self.report.push(
                    Problem::at("this limit is there twice", at.span)
                        .label("a request would count twice, or for nothing"),
                );
            }
            limits.push(limit);
        }
        limits
    }
}
