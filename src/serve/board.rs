//! What the admin server shows and asks for.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{Order, Receipt, ReloadResult, budgets, certificate::Served, cluster, generations::Author, present::Shown};
use crate::{
    admin::{
        AddressStatus, Backend, CertificateStatus, CheckStatus, DegradedStatus, GuardStatus, JwksStatus,
        ListenerStatus, MirrorStatus, Outcome, Receipt as Told, SourceStatus, Status, VersionStatus,
    },
    config::{
        SecretRef,
        changes::Change,
        model::{Name, RouteId},
    },
    decide::split::InForce,
    ingress::live::{self, Live},
    observe::{
        Metrics,
        degraded::Degraded,
        metrics::{CertificateExpiry, MirrorCounts, MirrorResult, Seen, SourceCounts},
    },
};

/// Shared with the admin server; requests never come here.
pub struct Board {
    pub live: Arc<ArcSwap<Live>>,
    pub metrics: Arc<Metrics>,
    pub workers: usize,
    pub draining: AtomicBool,
    pub changing: Mutex<Changing>,
    cluster: cluster::Shown,
    orders: mpsc::UnboundedSender<Order>,
}

/// What reloads change.
#[derive(Default)]
pub struct Changing {
    pub since: String,
    pub listeners: Vec<Shown>,
    pub certificates: Vec<Served>,
    pub guards: Vec<GuardStatus>,
    pub last: Option<Told>,
    pub releases: Vec<crate::release::Told>,
    pub addresses: Vec<AddressStatus>,
    pub checks: Vec<CheckStatus>,
    pub token: Option<SecretRef>,
}

impl Board {
    pub fn new(
        live: Arc<ArcSwap<Live>>,
        metrics: Arc<Metrics>,
        workers: usize,
        orders: mpsc::UnboundedSender<Order>,
        cluster: cluster::Shown,
    ) -> Self {
        let draining = AtomicBool::new(false);
        Self { live, metrics, workers, draining, changing: Mutex::default(), cluster, orders }
    }

    /// The way to the main thread.
    pub fn orders(&self) -> mpsc::UnboundedSender<Order> {
        self.orders.clone()
    }

    pub fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receipt in the words of the admin API.
pub fn told(receipt: &Receipt) -> Told {
    Told {
        result: match receipt.result {
            ReloadResult::Applied => Outcome::Applied,
            ReloadResult::Rejected => Outcome::Rejected,
            ReloadResult::Unchanged => Outcome::Unchanged,
        },
        at: receipt.at.to_string(),
        generation: receipt.generation,
        hash: receipt.hash.clone(),
        changes: receipt.changes.iter().map(|c| c.text.clone()).collect(),
        waiting_for_restart: receipt.waiting().map(|c: &Change| c.text.clone()).collect(),
        report: receipt.report.clone(),
    }
}

/// `None`: the config in force has none for it.
fn mirror(live: &Live, counts: &MirrorCounts) -> Option<MirrorStatus> {
    let function = live.snapshot.config.functions.iter().find(|function| function.name == counts.function)?;
    let share = function.mirror.as_deref()?.share;
    let of = |result| counts.of(result);
    let (same, different) = (of(MirrorResult::Same), of(MirrorResult::Different));
    let mean = |seconds: f64| (same + different > 0).then(|| (seconds * 1e6 / (same + different) as f64).round() / 1e3);
    let [real, mirror] = counts.seconds();
    Some(MirrorStatus {
        function: counts.function.to_string(),
        version: counts.version.to_string(),
        share: f64::from(share.0) / 100.0,
        same,
        different,
        failed: of(MirrorResult::Failed),
        aborted: of(MirrorResult::Aborted),
        dropped: of(MirrorResult::Dropped),
        too_large: of(MirrorResult::TooLarge),
        over_budget: of(MirrorResult::OverBudget),
        in_flight: counts.under_way.load(Relaxed) as u64,
        real_ms: mean(real),
        mirror_ms: mean(mirror),
    })
}

fn certificate(served: &Served) -> CertificateStatus {
    CertificateStatus {
        listener: served.listener.to_string(),
        name: served.name(),
        expires: served.not_after().and_then(|at| Timestamp::from_second(at).ok()).map(|at| at.to_string()),
        problem: served.problem(Timestamp::now().as_second()),
    }
}

fn source((name, address, counts): (&Name, std::net::IpAddr, &Arc<SourceCounts>)) -> SourceStatus {
    SourceStatus {
        source: name.to_string(),
        address: address.to_string(),
        here: counts.up.load(Relaxed),
        open: u64::try_from(counts.open.load(Relaxed)).unwrap_or(0),
        seen: match counts.last_seen() {
            Seen::Unknown => None,
            Seen::Agrees => Some("as public".to_owned()),
            Seen::Differs(ip) => Some(format!("{ip}, which is not its public address")),
            Seen::Failed(why) => Some(format!("not known: {why}")),
        },
    }
}

impl Backend for Board {
    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Relaxed) { Err("draining".to_owned()) } else { Ok(()) }
    }

    fn degraded(&self) -> Vec<DegradedStatus> {
        let told = |d: Degraded| DegradedStatus { what: d.what.as_str().to_owned(), why: d.why };
        self.metrics.degraded().into_iter().map(told).collect()
    }

    fn metrics(&self) -> String {
        let live = self.live.load();
        for (id, limiters) in (0..).map(RouteId).zip(&*live.snapshot.limits) {
            for (position, limiter) in limiters.iter().enumerate() {
                live.handles.limit(id, position).show(limiter.would_refuse(), limiter.overflowed());
            }
        }
        let now = live::now();
        let places = live.places.iter().flatten();
        self.metrics.set_places(places.map(|places| (places.name().clone(), places.numbers(now))).collect());
        let expiry = |served: &Served| {
            let (listener, name) = (served.listener.to_string(), served.name());
            served.not_after().map(|not_after| CertificateExpiry { listener, name, not_after })
        };
        let certificates = self.changing().certificates.iter().filter_map(expiry).collect();
        self.metrics.set_certificates(certificates);
        self.metrics.set_cluster(cluster::counts(&self.cluster, &live.snapshot));
        self.metrics.set_budgets(budgets::counts(&live.snapshot));
        self.metrics.render()
    }

    fn status(&self) -> Status {
        let live = self.live.load();
        let changing = self.changing();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            generation: live.snapshot.generation,
            hash: live.snapshot.hash.clone(),
            since: changing.since.clone(),
            listeners: changing
                .listeners
                .iter()
                .map(|(name, address, tls, counts)| ListenerStatus {
                    name: name.to_string(),
                    address: address.to_string(),
                    tls: *tls,
                    connections: u64::try_from(counts.open()).unwrap_or(0),
                    address_present: counts.is_present(),
                })
                .collect(),
            functions: live
                .handles
                .versions()
                .zip(live.snapshot.splits.iter().flat_map(|split| {
                    let InForce { shares, from } = split.in_force();
                    shares.iter().map(|_| *from)
                }))
                .map(|((function, version, share, in_flight), from)| VersionStatus {
                    function: function.to_string(),
                    version: version.to_string(),
                    weight: f64::from(share.0) / 100.0,
                    weights_from: from.as_str().to_owned(),
                    in_flight: u64::try_from(in_flight).unwrap_or(0),
                })
                .collect(),
            sources: live.handles.egress.sources().map(source).collect(),
            budgets: budgets::status(&live.snapshot),
            guards: changing.guards.clone(),
            mirrors: self.metrics.mirrors().iter().filter_map(|counts| mirror(&live, counts)).collect(),
            jwks: (self.metrics.jwks().iter())
                .map(|set| JwksStatus {
                    url: set.url().to_owned(),
                    keys: set.keys() as u64,
                    fetched: set.fetched_at().map(|at| at.to_string()),
                    error: set.error(),
                })
                .collect(),
            certificates: changing.certificates.iter().map(certificate).collect(),
            releases: changing.releases.clone(),
            addresses: changing.addresses.clone(),
            checks: changing.checks.clone(),
            cluster: cluster::look(&self.cluster).as_ref().map(cluster::Standing::status),
            last_reload: changing.last.clone(),
            degraded: self.degraded(),
            draining: self.draining.load(Relaxed),
            workers: self.workers,
        }
    }

    fn token(&self) -> Option<Vec<u8>> {
        let reference = self.changing().token.clone()?;
        match reference.read() {
            Ok(secret) => Some(secret.expose().as_bytes().to_vec()),
            Err(error) => {
                tracing::warn!(%error, "cannot read admin.token");
                None
            }
        }
    }

    async fn reload(&self) -> Told {
        let (answer, receipt) = oneshot::channel();
        let author = Author { by: Some("admin".to_owned()), reason: None };
        // Both ends live as long as the process serves.
        let _ = self.orders.send(Order::Reload(author, Some(answer)));
        match receipt.await {
            Ok(receipt) => told(&receipt),
            Err(_) => {
                let live = self.live.load();
                Told {
                    result: Outcome::Rejected,
                    at: Timestamp::now().to_string(),
                    generation: live.snapshot.generation,
                    hash: live.snapshot.hash.clone(),
                    changes: Vec::new(),
                    waiting_for_restart: Vec::new(),
                    report: Some("gatepost is stopping".to_owned()),
                }
            }
        }
    }
}
