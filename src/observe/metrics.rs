//! Numbers at `/metrics`, in the Prometheus text format.
//!
//! [`Metrics::resolve`] turns a config into [`Handles`]: for each route, version, limit and listener the very counters to add to, so
//! that a request looks nothing up. Counters that requests touch exist once per worker, on cache lines of their own, and are summed
//! when somebody asks. What a new config still names keeps its counts; what it no longer names is no longer shown.
//!
//! Written by hand rather than with the `prometheus` crate: that one has neither shards nor series that come and go with a config,
//! and the format is four kinds of line.

mod auth;
mod budget;
mod cache;
mod cells;
mod cluster;
mod concurrency;
mod egress;
mod guards;
mod handles;
mod health;
mod jwks;
mod mirror;
mod process;
mod ramps;
mod retries;
mod text;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;

pub use budget::BudgetCounts;
pub use cache::{CacheCounts, CacheResult};
pub use cluster::ClusterCounts;
pub use guards::GuardSeries;
pub use health::CheckResult;
pub use jwks::JwksCounts;
pub use mirror::{MirrorCounts, MirrorResult};
pub use tokens::TokenCounts;

pub use egress::{EgressCounts, EgressHandles, Seen, SourceCounts};
pub use handles::{ConnectionResult, Handles, LimitCounts, ListenerCounts};
pub use process::resident;

use super::{
    access::{Counts, lock},
    degraded::{Degraded, What},
    shedding::Shedding,
};
use crate::{
    config::{Config, model::Name},
    decide::Class,
    upstream::concurrency::Numbers,
};
use text::{Kind, Text};

/// How a load of the config ended: `result` of `gatepost_config_reloads_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    Applied,
    Rejected,
    Unchanged,
}

impl ReloadResult {
    pub const ALL: [Self; 3] = [Self::Applied, Self::Rejected, Self::Unchanged];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Unchanged => "unchanged",
        }
    }
}

/// When a listener's certificate ends to be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateExpiry {
    pub listener: String,
    /// The certificate's first name.
    pub name: String,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    shards: usize,
    started: f64,
    current: ArcSwap<Handles>,
    generation: AtomicU64,
    reloads: [AtomicU64; ReloadResult::ALL.len()],
    /// Whether what is in the file is what is served.
    last_reload_failed: AtomicBool,
    access_log: OnceLock<Arc<Counts>>,
    certificates: Mutex<Vec<CertificateExpiry>>,
    jwks: Mutex<Vec<Arc<JwksCounts>>>,
    budgets: Mutex<Vec<BudgetCounts>>,
    cluster: Mutex<Option<ClusterCounts>>,
    guards: Mutex<guards::Guards>,
    ramps: Mutex<ramps::Ramps>,
    tokens: Mutex<Vec<Arc<TokenCounts>>>,
    mirrors: Mutex<Vec<Arc<MirrorCounts>>>,
    places: Mutex<Vec<(Name, Numbers)>>,
    degraded: Mutex<Vec<Degraded>>,
    /// Whether new work is turned away for want of memory.
    pub shedding: Arc<Shedding>,
    /// By first name: certificates that were got by ACME, and orders that came to nothing.
    acme: Mutex<BTreeMap<String, [u64; 2]>>,
}

impl Metrics {
    /// Counters for `workers` threads, each of which adds under its own number. The process counts as started now.
    pub fn new(workers: usize) -> Arc<Self> {
        let shards = workers.max(1).next_power_of_two();
        Arc::new(Self {
            shards,
            started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
            current: ArcSwap::from_pointee(Handles::none(shards)),
            generation: AtomicU64::new(0),
            reloads: Default::default(),
            last_reload_failed: AtomicBool::new(false),
            access_log: OnceLock::new(),
            certificates: Mutex::default(),
            jwks: Mutex::default(),
            budgets: Mutex::default(),
            cluster: Mutex::default(),
            guards: Mutex::default(),
            ramps: Mutex::default(),
            tokens: Mutex::default(),
            mirrors: Mutex::default(),
            places: Mutex::default(),
            degraded: Mutex::default(),
            shedding: Arc::default(),
            acme: Mutex::default(),
        })
    }

    /// The counters of everything that `config` names: those that are shown now, where the names are the same. Changes nothing yet.
    pub fn resolve(&self, config: &Config) -> Arc<Handles> {
        Arc::new(Handles::resolve(config, &self.current.load(), self.shards))
    }

    /// Shows these counters from now on.
    pub fn install(&self, handles: Arc<Handles>, generation: u64) {
        self.current.store(handles);
        self.generation.store(generation, Ordering::Relaxed);
    }

    pub fn count_reload(&self, result: ReloadResult) {
        self.reloads[result as usize].fetch_add(1, Ordering::Relaxed);
        self.last_reload_failed.store(result == ReloadResult::Rejected, Ordering::Relaxed);
    }

    /// Shows what the access log could not write. The first call counts.
    pub fn watch_access_log(&self, counts: Arc<Counts>) {
        // A second log in one process would be another process's worth of counters.
        let _ = self.access_log.set(counts);
    }

    /// Shows these certificates instead of those before.
    pub fn set_certificates(&self, certificates: Vec<CertificateExpiry>) {
        *lock(&self.certificates) = certificates;
    }

    /// Shows these tokens instead of those before.
    pub fn set_tokens(&self, tokens: Vec<Arc<TokenCounts>>) {
        *lock(&self.tokens) = tokens;
    }

    /// A ramp's hook has said `go` or `hold`, or could not be asked (`failed`).
    pub fn count_hook(&self, function: &Name, result: &str) {
        lock(&self.ramps).count(function, result);
    }

    /// Shows that these ramps' steps are held, by function and version, and no longer counts of other functions.
    pub fn hold_ramps(&self, held: BTreeSet<(Name, Name)>, is_known: &dyn Fn(&Name) -> bool) {
        let mut ramps = lock(&self.ramps);
        ramps.hold(held);
        ramps.keep(is_known);
    }

    /// Shows these mirrors instead of those before.
    pub fn set_mirrors(&self, mirrors: Vec<Arc<MirrorCounts>>) {
        *lock(&self.mirrors) = mirrors;
    }

    pub fn mirrors(&self) -> Vec<Arc<MirrorCounts>> {
        lock(&self.mirrors).clone()
    }

    /// Shows these budgets instead of those before.
    pub fn set_budgets(&self, budgets: Vec<BudgetCounts>) {
        *lock(&self.budgets) = budgets;
    }

    /// Shows this standing instead of that before.
    pub fn set_cluster(&self, counts: Option<ClusterCounts>) {
        *lock(&self.cluster) = counts;
    }

    /// Shows these key sets instead of those before.
    pub fn set_jwks(&self, jwks: Vec<Arc<JwksCounts>>) {
        *lock(&self.jwks) = jwks;
    }

    /// Shows what guards say of these canaries, instead of those before.
    pub fn set_guards(&self, series: Vec<GuardSeries>) {
        lock(&self.guards).set(series);
    }

    /// A canary was found to be worse.
    pub fn count_alarm(&self, function: &Name, version: &Name, verdict: &'static str) {
        lock(&self.guards).alarm(function, version, verdict);
    }

    /// Alarms of other versions are no longer shown.
    pub fn keep_alarms(&self, is_known: &dyn Fn(&Name, &Name) -> bool) {
        lock(&self.guards).keep(is_known);
    }

    /// Shows these numbers of functions with `concurrency` instead of those before.
    pub fn set_places(&self, places: Vec<(Name, Numbers)>) {
        *lock(&self.places) = places;
    }

    /// Shows these as degraded, and nothing else.
    pub fn set_degraded(&self, degraded: Vec<Degraded>) {
        *lock(&self.degraded) = degraded;
    }

    pub fn degraded(&self) -> Vec<Degraded> {
        lock(&self.degraded).clone()
    }

    pub fn jwks(&self) -> Vec<Arc<JwksCounts>> {
        lock(&self.jwks).clone()
    }

    /// The first names of the certificates that ACME is asked for: others are no longer shown.
    pub fn keep_acme(&self, names: Vec<String>) {
        let mut acme = lock(&self.acme);
        acme.retain(|name, _| names.contains(name));
        for name in names {
            acme.entry(name).or_default();
        }
    }

    /// An order by ACME ended.
    pub fn count_acme(&self, name: &str, issued: bool) {
        if let Some(counts) = lock(&self.acme).get_mut(name) {
            counts[usize::from(!issued)] += 1;
        }
    }

    /// Everything, in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let mut out = Text::new();
        let handles = self.current.load();
        handles.render(&mut out);
        self.render_config(&mut out);
        self.render_acme(&mut out);
        self.render_log(&mut out);
        jwks::render(&lock(&self.jwks), &mut out);
        tokens::render(&lock(&self.tokens), &mut out);
        mirror::render(&lock(&self.mirrors), &mut out);
        budget::render(&lock(&self.budgets), &mut out);
        cluster::render(*lock(&self.cluster), &mut out);
        lock(&self.guards).render(&mut out);
        lock(&self.ramps).render(&mut out);
        concurrency::render(&lock(&self.places), &mut out);
        out.family("gatepost_build_info", Kind::Gauge, "What runs; always 1.");
        out.sample("gatepost_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let shedding = u8::from(self.shedding.is_on());
        out.single("gatepost_shedding", Kind::Gauge, "1 while new requests are refused for want of memory.", shedding);
        let help = "What memory may be used, by server.max_memory or the control group.";
        let limit = self.shedding.limit().map_or_else(|| "+Inf".to_owned(), |limit| limit.to_string());
        out.single("gatepost_memory_limit_bytes", Kind::Gauge, help, limit);
        let name = "gatepost_degraded";
        out.family(name, Kind::Gauge, "1 while that part does not work as it should; the rest goes on.");
        let degraded = lock(&self.degraded);
        for what in What::ALL {
            let is_so = degraded.iter().any(|degraded| degraded.what == what);
            out.sample(name, &[("what", what.as_str())], u8::from(is_so));
        }
        drop(degraded);
        process::render(&mut out, self.started);
        out.finish()
    }

    fn render_config(&self, out: &mut Text) {
        out.single(
            "gatepost_config_generation",
            Kind::Gauge,
            "The generation of the config in use.",
            self.generation.load(Ordering::Relaxed),
        );
        let name = "gatepost_config_reloads_total";
        out.family(name, Kind::Counter, "Loads of the config, by how they ended.");
        for result in ReloadResult::ALL {
            let count = self.reloads[result as usize].load(Ordering::Relaxed);
            out.sample(name, &[("result", result.as_str())], count);
        }
        out.single(
            "gatepost_config_last_reload_successful",
            Kind::Gauge,
            "0 while the file on disk was rejected and an older config serves on.",
            u8::from(!self.last_reload_failed.load(Ordering::Relaxed)),
        );
        let name = "gatepost_certificate_expiry_seconds";
        let certificates = lock(&self.certificates);
        out.family(name, Kind::Gauge, "When a certificate in use ends to be valid, in seconds since 1970.");
        for certificate in certificates.iter() {
            let labels = [("listener", certificate.listener.as_str()), ("name", &certificate.name)];
            out.sample(name, &labels, certificate.not_after);
        }
    }

    fn render_acme(&self, out: &mut Text) {
        let acme = lock(&self.acme);
        let name = "gatepost_acme_orders_total";
        out.family(name, Kind::Counter, "Orders of certificates by ACME, by how they ended.");
        for (first, counts) in acme.iter() {
            for (result, count) in ["issued", "failed"].into_iter().zip(counts) {
                out.sample(name, &[("name", first), ("result", result)], *count);
            }
        }
    }

    fn render_log(&self, out: &mut Text) {
        let Some(counts) = self.access_log.get() else {
            return;
        };
        out.single(
            "gatepost_access_log_dropped_lines_total",
            Kind::Counter,
            "Access-log lines that found no room or could not be written.",
            counts.dropped_lines(),
        );
        out.single(
            "gatepost_access_log_write_errors_total",
            Kind::Counter,
            "Failed attempts to write or reopen the access log.",
            counts.write_errors(),
        );
    }
}

#[cfg(test)]
mod tests;
