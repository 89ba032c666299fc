//! Requests of an access log before two configs: which of them would fare otherwise.
//!
//! A log has neither headers nor queries nor credentials: conditions on headers and queries are not met, limits per header, cookie or
//! query count by the caller's address (as they do for requests without the key), and a caller is the client that the log says it was.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
};

use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};

use super::super::{failure::Outcome, lines, term::Terminal};
use crate::{
    config::{
        Config,
        model::{LimitUse, ListenerId, Route, RouteId, Serves},
    },
    decide::{
        Facts, Now, Reason, Snapshot, client, compile,
        limit::{Ask, KeyFacts, take_all},
        path,
        route::Found,
    },
};

/// What of a line is looked at.
#[derive(Debug, Deserialize)]
struct Line {
    listener: String,
    client_ip: Option<IpAddr>,
    client: Option<String>,
    method: String,
    host: String,
    path: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Traffic {
    pub(super) requests: u64,
    pub(super) as_before: u64,
    pub(super) moved: Vec<Moved>,
    pub(super) shares: Vec<Shares>,
}

/// Requests that would fare otherwise, in the same way.
#[derive(Debug, Serialize)]
pub(super) struct Moved {
    pub(super) requests: u64,
    pub(super) was: String,
    pub(super) would_be: String,
    pub(super) example: String,
}

/// How many requests of a function a version has by its weights in the file.
#[derive(Debug, Serialize)]
pub(super) struct Shares {
    pub(super) function: String,
    pub(super) version: String,
    pub(super) was: f64,
    pub(super) would_be: f64,
}

/// So many groups are shown; the rest is one.
const SHOWN: usize = 50;

pub(super) fn judge(log: &Path, old: &Config, new: &Config, term: &mut Terminal) -> Outcome<Traffic> {
    let conditional = |config: &Config| config.routes.iter().any(|r| !r.headers.is_empty() || !r.query.is_empty());
    if conditional(old) || conditional(new) {
        term.warn("the log has no headers and queries: routes with conditions on them match nothing here");
    }
    let mut sides = [Side::new(old), Side::new(new)];
    let mut groups: HashMap<(String, String), (u64, String)> = HashMap::new();
    let (mut requests, mut as_before) = (0, 0);
    let skipped = lines::each(log, |at, line: Line| {
        requests += 1;
        let [was, would_be] = sides.each_mut().map(|side| side.fate(at, &line));
        if was == would_be {
            as_before += 1;
            return;
        }
        let example = || format!("{} {}{}", line.method, line.host, line.path).escape_debug().to_string();
        groups.entry((was, would_be)).or_insert_with(|| (0, example())).0 += 1;
    })?;
    if skipped > 0 {
        term.warn(format_args!("{skipped} lines are no JSON lines of an access log, and count for nothing"));
    }
    let moved = groups.into_iter();
    let mut moved: Vec<_> =
        moved.map(|((was, would_be), (requests, example))| Moved { requests, was, would_be, example }).collect();
    moved.sort_by(|a, b| (b.requests, &a.was, &a.would_be).cmp(&(a.requests, &b.was, &b.would_be)));
    if moved.len() > SHOWN {
        let rest = moved.split_off(SHOWN);
        let requests = rest.iter().map(|moved| moved.requests).sum();
        let (was, would_be) = ("other ways".to_owned(), format!("{} others", rest.len()));
        moved.extend(rest.into_iter().next().map(|first| Moved { requests, was, would_be, example: first.example }));
    }
    let [was, would_be] = sides.map(|side| side.shares());
    let mut both: BTreeMap<(String, String), (f64, f64)> = BTreeMap::new();
    was.into_iter().for_each(|(key, count)| both.entry(key).or_default().0 = count);
    would_be.into_iter().for_each(|(key, count)| both.entry(key).or_default().1 = count);
    both.retain(|_, (was, would_be)| (*was - *would_be).abs() >= 0.5);
    let shares = both.into_iter();
    let shares =
        shares.map(|((function, version), (was, would_be))| Shares { function, version, was, would_be }).collect();
    Ok(Traffic { requests, as_before, moved, shares })
}

/// One of the two configs, with limits that count.
struct Side<'c> {
    config: &'c Config,
    snapshot: Snapshot,
    listeners: HashMap<&'c str, ListenerId>,
    /// Requests for a function that its weights share out.
    weighed: HashMap<usize, u64>,
}

impl<'c> Side<'c> {
    fn new(config: &'c Config) -> Self {
        let snapshot = compile(config.clone(), 1, String::new(), 1, None, Now(0));
        let listeners = config.listeners.iter().map(|l| &*l.name).zip((0..).map(ListenerId)).collect();
        Self { config, snapshot, listeners, weighed: HashMap::new() }
    }

    /// What becomes of the request, in words.
    fn fate(&mut self, at: u64, line: &Line) -> String {
        let refused = |reason: Reason| format!("refused ({})", reason.as_str());
        let (Ok(method), Ok(normal)) = (line.method.parse::<Method>(), path::normalise(&line.path)) else {
            return refused(Reason::BadRequest);
        };
        let headers = HeaderMap::new();
        let facts = Facts {
            listener: self.listeners.get(line.listener.as_str()).copied().unwrap_or(ListenerId(u32::MAX)),
            method: &method,
            host: &line.host,
            path: &normal.path,
            query: None,
            headers: &headers,
        };
        let id = match self.snapshot.router.find(&facts) {
            Found::Route(id) => id,
            Found::NoRoute => return refused(Reason::NoRoute),
            Found::MethodNotAllowed(_) => return refused(Reason::MethodNotAllowed),
        };
        let route = &self.config.routes[id.index()];
        let (name, ip) = (&route.name, line.client_ip);
        if let Some(reason) = self.shut_out(route, line) {
            return format!("{} by route {name}", refused(reason));
        }
        if let Some(limit) = self.limited(id, at, line, &headers) {
            return format!("limited by {limit} of route {name}");
        }
        let is_let_in = |nets: &crate::config::model::Networks| ip.is_some_and(|ip| nets.contains(ip));
        if self.snapshot.maintenance(id).is_some_and(|m| !is_let_in(&m.allow)) {
            return format!("{} by route {name}", refused(Reason::Maintenance));
        }
        let function = match &route.serves {
            Serves::Redirect(_) => return format!("redirected by route {name}"),
            Serves::Respond(_) => return format!("answered by route {name}"),
            Serves::Function(function) => function.index(),
        };
        let to = &self.config.functions[function];
        match route.version {
            Some(version) => {
                format!("version {} of function {} by route {name}", to.versions[version.index()].name, to.name)
            }
            None => {
                *self.weighed.entry(function).or_default() += 1;
                format!("function {} by route {name}", to.name)
            }
        }
    }

    fn shut_out(&self, route: &Route, line: &Line) -> Option<Reason> {
        if let Some(reason) = line.client_ip.and_then(|ip| client::admit(route, ip).err()) {
            return Some(reason);
        }
        let clients = route.clients.as_ref()?;
        let knows = |name: &String| clients.iter().any(|id| *self.config.clients[id.index()].name == **name);
        (!line.client.as_ref().is_some_and(knows)).then_some(Reason::ForbiddenClient)
    }

    /// The limit that refuses it; takes from them where none does.
    fn limited(&self, route: RouteId, at: u64, line: &Line, headers: &HeaderMap) -> Option<String> {
        let limiters = &self.snapshot.limits[route.index()];
        let client_ip = line.client_ip.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let facts = KeyFacts { client_ip, client: line.client.as_deref(), headers, query: None };
        let asks: Vec<_> = limiters.iter().map(|limiter| Ask { limiter, key: limiter.key(&facts) }).collect();
        let refused = take_all(&asks, Now(at * 1_000_000)).err()?;
        Some(match &self.config.routes[route.index()].limits[refused.index] {
            LimitUse::Own(_) => format!("limits[{}]", refused.index),
            LimitUse::Shared(id) => self.config.limits[id.index()].name.to_string(),
        })
    }

    fn shares(self) -> BTreeMap<(String, String), f64> {
        let of = |(at, count): (usize, u64)| {
            let function = &self.config.functions[at];
            let versions = function.versions.iter().zip(&function.weights);
            versions.map(move |(version, share)| {
                let key = (function.name.to_string(), version.name.to_string());
                (key, count as f64 * f64::from(share.0) / 10_000.0)
            })
        };
        self.weighed.into_iter().flat_map(of).collect()
    }
}
