//! The counters of one config, by its ids.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Class,
    auth::AuthFailures,
    cache::{self, CacheCounts},
    cells::{BUCKETS, Limited, Requests, Sharded, Upstream},
    egress::EgressHandles,
    health::{self, Ejections},
    retries::{self, Retries},
    text::{Kind, Text},
};
use crate::{
    config::{
        Config,
        model::{FunctionId, LimitUse, ListenerId, Name, RouteId, Share, VersionId},
    },
    decide::{auth::Failure, retry::Because},
};

/// What became of a connection: `result` of `gatepost_connections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionResult {
    Accepted,
    /// The listener's cap or the total was reached.
    OverCap,
    /// The caller's address has as many as the listener lets it have.
    OverIpCap,
    /// TLS did not come about, in time or at all.
    HandshakeFailed,
    /// The PROXY header was missing, malformed, late or not this peer's to send.
    ProxyHeaderInvalid,
    /// The system refused: out of file descriptors, for instance.
    AcceptFailed,
    /// Short of memory or file descriptors, it was turned away.
    Shed,
}

impl ConnectionResult {
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::OverCap,
        Self::OverIpCap,
        Self::HandshakeFailed,
        Self::ProxyHeaderInvalid,
        Self::AcceptFailed,
        Self::Shed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::OverCap => "over_cap",
            Self::OverIpCap => "over_ip_cap",
            Self::HandshakeFailed => "handshake_failed",
            Self::ProxyHeaderInvalid => "proxy_header_invalid",
            Self::AcceptFailed => "accept_failed",
            Self::Shed => "shed",
        }
    }
}

/// The counters of everything that a config names; part of its snapshot.
#[derive(Debug)]
pub struct Handles {
    /// Requests that no route matched.
    unrouted: Arc<Sharded<Requests>>,
    routes: Vec<RouteHandles>,
    functions: Vec<FunctionHandles>,
    listeners: Vec<(Name, Arc<ListenerCounts>)>,
    auth: Arc<AuthFailures>,
    pub egress: Arc<EgressHandles>,
}

#[derive(Debug)]
struct RouteHandles {
    name: Name,
    function: Name,
    /// Requests that ended before a version was picked.
    unpicked: Arc<Sharded<Requests>>,
    /// By [`VersionId`].
    versions: Vec<(Name, Arc<Sharded<Requests>>)>,
    /// In the order of the route's `limits`.
    limits: Vec<(String, Arc<LimitCounts>)>,
    /// Where it has a cache.
    cache: Option<Arc<CacheCounts>>,
}

#[derive(Debug)]
struct FunctionHandles {
    name: Name,
    versions: Vec<VersionHandles>,
}

#[derive(Debug)]
struct VersionHandles {
    name: Name,
    /// In force.
    share: AtomicU16,
    upstream: Arc<Sharded<Upstream>>,
    retries: Arc<Sharded<Retries>>,
    /// `None`: without `health`.
    ejections: Option<Arc<Ejections>>,
}

impl VersionHandles {
    fn share(&self) -> Share {
        Share(self.share.load(Ordering::Relaxed))
    }
}

impl Handles {
    pub(super) fn none(shards: usize) -> Self {
        Self {
            unrouted: Arc::new(Sharded::new(shards)),
            routes: Vec::new(),
            functions: Vec::new(),
            listeners: Vec::new(),
            auth: Arc::new(AuthFailures::new(shards)),
            egress: Arc::default(),
        }
    }

    pub(super) fn resolve(config: &Config, old: &Self, shards: usize) -> Self {
        let old_routes: HashMap<&str, &RouteHandles> = old.routes.iter().map(|r| (&*r.name, r)).collect();
        let old_functions: HashMap<&str, &FunctionHandles> = old.functions.iter().map(|f| (&*f.name, f)).collect();
        let old_listeners: HashMap<&str, &Arc<ListenerCounts>> = old.listeners.iter().map(|(n, l)| (&**n, l)).collect();

        let routes = config.routes.iter().map(|route| {
            let function = route.function().and_then(|id| config.functions.get(id.index()));
            let function_name = function.map_or_else(|| Name::from(""), |f| f.name.clone());
            let old = old_routes.get(&*route.name).copied();
            // The labels hold the function's name: with another function, it is another series.
            let old_series = old.filter(|old| old.function == function_name);
            let versions = function.into_iter().flat_map(|f| &f.versions).map(|version| {
                let kept = old_series.and_then(|old| old.versions.iter().find(|(name, _)| *name == version.name));
                (version.name.clone(), kept_or_new(kept.map(|(_, s)| s), shards))
            });
            let mut limits: Vec<(String, Arc<LimitCounts>)> = Vec::new();
            for (position, used) in route.limits.iter().enumerate() {
                let label = match used {
                    LimitUse::Own(_) => format!("limits[{position}]"),
                    LimitUse::Shared(id) => config.limits[id.index()].name.to_string(),
                };
                let same = |(name, _): &&(String, _)| *name == label;
                // A shared limit may stand twice in one route; there is one series for it.
                let counts = limits
                    .iter()
                    .find(same)
                    .or_else(|| old.and_then(|old| old.limits.iter().find(same)))
                    .map_or_else(|| Arc::new(LimitCounts::new(shards)), |(_, c)| Arc::clone(c));
                limits.push((label, counts));
            }
            RouteHandles {
                name: route.name.clone(),
                function: function_name,
                unpicked: kept_or_new(old_series.map(|old| &old.unpicked), shards),
                versions: versions.collect(),
                limits,
                cache: route.handling.cache.as_ref().map(|_| {
                    let kept = old.and_then(|old| old.cache.as_ref());
                    kept.map_or_else(|| Arc::new(CacheCounts::new(shards)), Arc::clone)
                }),
            }
        });
        let functions = config.functions.iter().map(|function| {
            let old = old_functions.get(&*function.name).copied();
            let shares = function.weights.iter();
            let versions = function.versions.iter().zip(shares).map(|(version, share)| {
                let kept = old.and_then(|o| o.versions.iter().find(|v| v.name == version.name));
                VersionHandles {
                    name: version.name.clone(),
                    share: AtomicU16::new(share.0),
                    upstream: kept_or_new(kept.map(|v| &v.upstream), shards),
                    retries: kept_or_new(kept.map(|v| &v.retries), shards),
                    ejections: function.health.map(|_| kept.and_then(|v| v.ejections.clone()).unwrap_or_default()),
                }
            });
            FunctionHandles { name: function.name.clone(), versions: versions.collect() }
        });
        let listeners = config.listeners.iter().map(|listener| {
            let counts = old_listeners.get(&*listener.name).map_or_else(Arc::default, |c| Arc::clone(c));
            (listener.name.clone(), counts)
        });
        Self {
            unrouted: Arc::clone(&old.unrouted),
            routes: routes.collect(),
            functions: functions.collect(),
            listeners: listeners.collect(),
            auth: Arc::clone(&old.auth),
            egress: Arc::new(EgressHandles::resolve(config, &old.egress, shards)),
        }
    }

    /// Counts a request that is over. `worker` is the number of the calling thread; `version` is one of the route's function.
    pub fn request(&self, worker: usize, picked: Option<(RouteId, Option<VersionId>)>, class: Class, total: Duration) {
        let series = match picked {
            None => &self.unrouted,
            Some((route, version)) => {
                let route = &self.routes[route.index()];
                match version {
                    None => &route.unpicked,
                    Some(version) => &route.versions[version.index()].1,
                }
            }
        };
        series.of(worker).count(class, total);
    }

    /// A request goes to a version. Each call wants one of [`leave`](Self::leave), on the same `Handles`.
    pub fn enter(&self, worker: usize, function: FunctionId, version: VersionId) {
        let cell = self.upstream(function, version).of(worker);
        cell.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// It is over.
    pub fn leave(&self, worker: usize, function: FunctionId, version: VersionId) {
        let cell = self.upstream(function, version).of(worker);
        cell.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request got its connection: a kept one, or a fresh one.
    pub fn upstream_connection(&self, worker: usize, function: FunctionId, version: VersionId, reused: bool) {
        let cell = self.upstream(function, version).of(worker);
        cell.connections[usize::from(reused)].fetch_add(1, Ordering::Relaxed);
    }

    /// A request is sent again.
    pub fn retried(&self, worker: usize, function: FunctionId, version: VersionId, because: Because) {
        self.functions[function.index()].versions[version.index()].retries.of(worker).count(because);
    }

    /// A request would have been sent again, had there been budget.
    pub fn retry_refused(&self, worker: usize, function: FunctionId, version: VersionId) {
        self.functions[function.index()].versions[version.index()].retries.of(worker).refuse();
    }

    /// A version stands otherwise: out (or tried again) or not, and whether that is an ejection.
    pub fn stands(&self, function: FunctionId, version: VersionId, is_out: bool, begins: bool) {
        if let Some(ejections) = &self.functions[function.index()].versions[version.index()].ejections {
            ejections.stands(is_out, begins);
        }
    }

    fn upstream(&self, function: FunctionId, version: VersionId) -> &Sharded<Upstream> {
        &self.functions[function.index()].versions[version.index()].upstream
    }

    /// The counters of a limit by its place in the route's `limits`.
    pub fn limit(&self, route: RouteId, position: usize) -> &LimitCounts {
        &self.routes[route.index()].limits[position].1
    }

    /// The counters of a route's cache, where it has one.
    pub fn cache(&self, route: RouteId) -> Option<&Arc<CacheCounts>> {
        self.routes[route.index()].cache.as_ref()
    }

    /// The counters of a listener, to be kept by its connections: they may outlive the config.
    pub fn listener(&self, listener: ListenerId) -> &Arc<ListenerCounts> {
        &self.listeners[listener.index()].1
    }

    /// A caller did not show who it is.
    pub fn auth_failed(&self, worker: usize, failure: Failure) {
        self.auth.count(worker, failure);
    }

    /// Shows the shares in force of a function, which are its file's until this says otherwise. One per version.
    pub fn show_shares(&self, function: FunctionId, shares: &[Share]) {
        for (version, share) in self.functions[function.index()].versions.iter().zip(shares) {
            version.share.store(share.0, Ordering::Relaxed);
        }
    }

    /// Every version with its function, its share in force and the requests that it is working on.
    pub fn versions(&self) -> impl Iterator<Item = (&Name, &Name, Share, i64)> {
        self.functions.iter().flat_map(|function| {
            function.versions.iter().map(|v| (&function.name, &v.name, v.share(), v.upstream.in_flight()))
        })
    }

    pub(super) fn render(&self, out: &mut Text) {
        self.render_requests(out);
        self.render_limits(out);
        self.render_versions(out);
        let versions =
            || self.functions.iter().flat_map(|f| f.versions.iter().map(|v| (&*f.name, &*v.name, &*v.retries)));
        let ejections = self.functions.iter().flat_map(|f| f.versions.iter().map(|v| (&*f.name, v)));
        let ejections = ejections.filter_map(|(name, v)| Some((name, &*v.name, &**v.ejections.as_ref()?)));
        health::render(&ejections.collect::<Vec<_>>(), out);
        retries::render(|| Box::new(versions()), out);
        self.render_listeners(out);
        self.auth.render(out);
        let caches = self.routes.iter().filter_map(|route| Some((&*route.name, &**route.cache.as_ref()?)));
        cache::render(caches, out);
        self.egress.render(out);
    }

    /// Every series of requests that was touched, with its labels.
    fn series(&self) -> impl Iterator<Item = ([(&str, &str); 3], &Sharded<Requests>)> {
        let of_routes = self.routes.iter().flat_map(|route| {
            let picked = route.versions.iter().map(|(name, series)| (&**name, series));
            let all = std::iter::once(("", &route.unpicked)).chain(picked);
            all.map(|(version, series)| {
                let labels = [("route", &*route.name), ("function", &*route.function), ("version", version)];
                (labels, &**series)
            })
        });
        let none = [("route", ""), ("function", ""), ("version", "")];
        std::iter::once((none, &*self.unrouted)).chain(of_routes).filter(|(_, series)| !series.is_untouched())
    }

    fn render_requests(&self, out: &mut Text) {
        let name = "gatepost_requests_total";
        out.family(name, Kind::Counter, "Requests that are over, by how they ended.");
        for ([route, function, version], series) in self.series() {
            for class in Class::ALL {
                let labels = [route, function, version, ("class", class.as_str())];
                out.sample(name, &labels, series.class(class));
            }
        }
        out.family("gatepost_request_seconds", Kind::Histogram, "Time from a request's head to the end of its answer.");
        for ([route, function, version], series) in self.series() {
            let mut so_far = 0;
            let bounds = BUCKETS.iter().map(|&(_, text)| text).chain(["+Inf"]);
            for (at, bound) in bounds.enumerate() {
                so_far += series.bucket(at);
                let labels = [route, function, version, ("le", bound)];
                out.sample("gatepost_request_seconds_bucket", &labels, so_far);
            }
            let labels = [route, function, version];
            out.sample("gatepost_request_seconds_sum", &labels, series.seconds());
            // The same number as the last bucket's, or the histogram would contradict itself.
            out.sample("gatepost_request_seconds_count", &labels, so_far);
        }
    }

    fn render_limits(&self, out: &mut Text) {
        type Count = fn(&Limited) -> &AtomicU64;
        let families: [(&str, &str, Count); 3] = [
            ("gatepost_limited_total", "Requests that a limit refused.", |cell| &cell.refused),
            (
                "gatepost_limit_dry_run_total",
                "Requests that a limit would have refused, were it not a dry run.",
                |cell| &cell.dry_run,
            ),
            (
                "gatepost_limit_overflow_total",
                "Requests counted in a shared bucket, for want of room for another key.",
                |cell| &cell.overflow,
            ),
        ];
        for (name, help, count) in families {
            out.family(name, Kind::Counter, help);
            for route in &self.routes {
                for (at, (label, counts)) in route.limits.iter().enumerate() {
                    let first = route.limits.iter().position(|(l, _)| l == label);
                    if first == Some(at) {
                        let labels = [("route", &*route.name), ("limit", label)];
                        out.sample(name, &labels, counts.0.sum(count));
                    }
                }
            }
        }
    }

    fn render_versions(&self, out: &mut Text) {
        let versions = || {
            self.functions.iter().flat_map(|function| {
                let labels = |v: &VersionHandles| [("function", function.name.clone()), ("version", v.name.clone())];
                function.versions.iter().map(move |v| (labels(v), v))
            })
        };
        let name = "gatepost_in_flight";
        out.family(name, Kind::Gauge, "Requests that a version is working on.");
        for ([function, version], handles) in versions() {
            let labels = [(function.0, &*function.1), (version.0, &*version.1)];
            out.sample(name, &labels, handles.upstream.in_flight());
        }
        let name = "gatepost_release_share";
        out.family(name, Kind::Gauge, "The share of requests in force, in percent.");
        for ([function, version], handles) in versions() {
            let labels = [(function.0, &*function.1), (version.0, &*version.1)];
            out.sample(name, &labels, handles.share());
        }
        let name = "gatepost_upstream_connections_total";
        out.family(name, Kind::Counter, "Requests sent, by whether a kept connection served.");
        for ([function, version], handles) in versions() {
            for (reused, at) in [("false", 0), ("true", 1)] {
                let labels = [(function.0, &*function.1), (version.0, &*version.1), ("reused", reused)];
                let count = handles.upstream.sum(|cell| &cell.connections[at]);
                out.sample(name, &labels, count);
            }
        }
    }

    fn render_listeners(&self, out: &mut Text) {
        let name = "gatepost_connections";
        out.family(name, Kind::Gauge, "Open connections.");
        for (listener, counts) in self.listeners.iter().chain(self.egress.listeners()) {
            out.sample(name, &[("listener", listener)], counts.open());
        }
        let name = "gatepost_listener_address_present";
        out.family(name, Kind::Gauge, "0 while this machine does not have the listener's address.");
        for (listener, counts) in self.listeners.iter().chain(self.egress.listeners()) {
            out.sample(name, &[("listener", listener)], u8::from(counts.is_present()));
        }
        let name = "gatepost_connections_total";
        out.family(name, Kind::Counter, "Connections, by what became of them at the door.");
        for (listener, counts) in self.listeners.iter().chain(self.egress.listeners()) {
            for result in ConnectionResult::ALL {
                let labels = [("listener", &**listener), ("result", result.as_str())];
                out.sample(name, &labels, counts.of(result));
            }
        }
    }
}

fn kept_or_new<T: Default>(kept: Option<&Arc<Sharded<T>>>, shards: usize) -> Arc<Sharded<T>> {
    kept.map_or_else(|| Arc::new(Sharded::new(shards)), Arc::clone)
}

/// What one limit did to the requests of one route.
#[derive(Debug)]
pub struct LimitCounts(Sharded<Limited>);

impl LimitCounts {
    fn new(shards: usize) -> Self {
        Self(Sharded::new(shards))
    }

    /// A request was refused.
    pub fn refused(&self, worker: usize) {
        self.0.of(worker).refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows what the limiter itself counts: requests that a dry run would have refused, and those in overflow buckets.
    pub fn show(&self, dry_run: u64, overflow: u64) {
        let cell = self.0.of(0);
        cell.dry_run.store(dry_run, Ordering::Relaxed);
        cell.overflow.store(overflow, Ordering::Relaxed);
    }
}

/// The connections of one listener.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    open: AtomicI64,
    results: [AtomicU64; ConnectionResult::ALL.len()],
    /// Whether this machine does not have its address, as far as is known.
    absent: AtomicBool,
}

impl ListenerCounts {
    /// Whether this machine has its address. Says whether that is news.
    pub fn set_present(&self, present: bool) -> bool {
        self.absent.swap(!present, Ordering::Relaxed) == present
    }

    pub fn is_present(&self) -> bool {
        !self.absent.load(Ordering::Relaxed)
    }

    /// A connection is there; each call wants one of [`closed`](Self::closed).
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn count(&self, result: ConnectionResult) {
        self.results[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn open(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    fn of(&self, result: ConnectionResult) -> u64 {
        self.results[result as usize].load(Ordering::Relaxed)
    }
}
