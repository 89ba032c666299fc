//! The way out, as a part of the service: its listeners, what it is decided by, and whether its sources are there.

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;

use super::{
    acme::Wanted,
    client_tls::Connectors,
    echo,
    listener::Way,
    listeners::{Listeners, Plan},
    parents,
    present::Shown,
    tls::{self, AllTls},
};
use crate::{
    config::{Loaded, model::ListenAddress},
    decide::{Snapshot, egress::Own},
    egress::{self, live::Parents},
    ingress::live::Live,
    observe::metrics::Handles,
};

pub struct WayOut {
    pub listeners: Listeners,
    pub tls: AllTls,
    parents: Parents,
    connectors: Connectors,
    checks: echo::Checks,
    live: Arc<ArcSwap<egress::Live>>,
}

/// What a reload needs and may fail to get.
pub struct PlannedWayOut {
    plan: Plan,
    tls: AllTls,
    parents: Parents,
    connectors: Connectors,
    questions: Vec<echo::Question>,
}

/// What tunnels are decided by, before it is known where the listeners are.
pub fn live(snapshot: &Snapshot, handles: &Handles) -> egress::Live {
    egress::Live {
        own: Own::of(&snapshot.config),
        parents: Arc::default(),
        counts: handles.egress.clone(),
        snapshot: Arc::new(snapshot.clone()),
    }
}

impl WayOut {
    /// Shares the workers and the total with the listeners of the way in.
    pub fn new(way_in: &Listeners, live: Arc<ArcSwap<egress::Live>>) -> Self {
        let listeners = way_in.beside(Way::Out);
        let (parents, connectors, checks) = (Parents::default(), Connectors::default(), echo::Checks::default());
        Self { listeners, tls: AllTls::default(), parents, connectors, checks, live }
    }

    /// Everything that can fail; `others` are sockets of ours that close with this reload.
    ///
    /// # Errors
    ///
    /// What is wrong with which listener.
    pub fn prepare(&self, loaded: &Loaded, acme: &Wanted, others: &[BorrowedFd<'_>]) -> Result<PlannedWayOut, String> {
        let tls = tls::prepare(loaded, Way::Out, acme, &self.tls)?;
        let plan = self.listeners.plan(&loaded.config.egress.listeners, &tls, others)?;
        let mut connectors = self.connectors.next();
        let parents = parents::of(loaded, &mut connectors)?;
        let questions = echo::questions(loaded, &mut connectors)?;
        Ok(PlannedWayOut { plan, tls, parents, connectors, questions })
    }

    /// Puts a generation in force. Nothing here fails.
    pub fn apply(&mut self, planned: PlannedWayOut, live: &Live, way_in: &Listeners, admin: &ListenAddress) {
        let PlannedWayOut { plan, tls, parents, connectors, questions } = planned;
        (self.parents, self.connectors) = (parents, connectors);
        let listeners = &live.snapshot.config.egress.listeners;
        let counts = &live.handles.egress;
        // First without the listeners that are new: nobody comes by those yet.
        self.store(live, way_in, admin);
        let keys = self.listeners.keys(listeners, &plan);
        self.listeners.apply(listeners, plan, &keys, &tls, |place| counts.listener(place));
        self.tls = tls;
        self.store(live, way_in, admin);
        self.look_at_sources();
        self.checks = self.checks.follow(questions, counts);
    }

    fn store(&self, live: &Live, way_in: &Listeners, admin: &ListenAddress) {
        let bound = way_in.bound().chain(self.listeners.bound()).map(|(_, at)| at).chain([admin.clone()]);
        let tcp = bound.filter_map(|at| match at {
            ListenAddress::Tcp(at) => Some(at),
            ListenAddress::Unix(_) => None,
        });
        let own = Own::new(&live.snapshot.config, tcp);
        let (snapshot, counts) = (Arc::new(live.snapshot.clone()), live.handles.egress.clone());
        let parents = self.parents.clone();
        self.live.store(Arc::new(egress::Live { snapshot, counts, own, parents }));
    }

    /// Looks which addresses to leave from this machine has: a floating one comes and goes.
    pub fn look_at_sources(&self) {
        for (source, address, counts) in self.live.load().counts.sources() {
            let is_up = egress::here::has(address);
            if counts.up.swap(is_up, Relaxed) == is_up {
                continue;
            }
            if is_up {
                tracing::info!(%source, %address, "the source has its address again");
            } else {
                tracing::warn!(%source, %address, "degraded: this machine does not have the source's address; what would leave from it gets 503");
            }
        }
    }

    /// Sources whose addresses this machine does not have.
    pub fn sources_down(&self) -> Vec<String> {
        let live = self.live.load();
        let down = live.counts.sources().filter(|(.., counts)| !counts.up.load(Relaxed));
        down.map(|(source, address, _)| format!("{source} ({address})")).collect()
    }

    /// For the status page: what listens where.
    pub fn shown(&self, live: &Live) -> Vec<Shown> {
        let listeners = live.snapshot.config.egress.listeners.iter().enumerate();
        listeners
            .filter_map(|(place, listener)| {
                let bound = self.listeners.bound_of(&listener.name)?.clone();
                let counts = live.handles.egress.listener(place).clone();
                Some((Way::Out.label(&listener.name), bound, !listener.tls.is_empty(), counts))
            })
            .collect()
    }
}
