//! The service while it lives: what was loaded, what listens, and how a reload changes both at once or not at all.

mod certificates;
mod degraded;
mod hooks;
mod judge;
mod mirrors;
pub(super) mod upgrade;

use std::{
    future::Future,
    os::fd::AsFd,
    path::PathBuf,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    Order, Ready, Receipt, ReloadResult,
    acme::{self, Wanted},
    admin_port::{AdminServing, AdminSocket, at_once, bind_admin, serve_admin},
    board::{Board, told},
    budgets::Budgets,
    cluster::Membership,
    generations::{Author, Generations, StateError},
    guards::Guards,
    hand_over::{baggage, new::Arrival, old::Program},
    inherited::Inherited,
    jwks::{KeySets, Known},
    listener::{Total, Way},
    listeners::{Listeners, Plan},
    logs::{Logs, Opened},
    made::{cores, hosts, max_connections, max_requests, roots_for, targets},
    memory, notify, present,
    releases::Releases,
    requests,
    signers::signers,
    tls::{self, AllTls},
    tokens::Tokens,
    watch::WatchSet,
    way_out::{self, PlannedWayOut, WayOut},
    workers::{Roots, Running, Workers},
};
use crate::{
    config::{
        self, Config, Loaded, Mode,
        changes::{Applied, Change, changes},
        model::{Function, ListenerId},
    },
    decide::{Snapshot, compile_as_things_stand},
    ingress::{
        cache::caches,
        live::{self, Live},
        mirror::{self, mirrors},
    },
    observe::Metrics,
    upstream::{Resolver, concurrency},
};

use degraded::Around;
use upgrade::{Coming, Upgrade};

pub struct Service {
    path: PathBuf,
    /// Of what serves now.
    pub(super) loaded: Loaded,
    pub(super) board: Arc<Board>,
    logs: Logs,
    resolver: Resolver,
    inherited: Arc<Inherited>,
    /// What an upgrade starts; `None`: this is a part of another program.
    program: Option<Program>,
    upgrade: Upgrade,
    around: Around,
    pub(super) generations: Generations,
    pub(super) workers: Arc<Workers>,
    running: Running,
    listeners: Listeners,
    admin: AdminServing,
    tls: AllTls,
    way_out: WayOut,
    key_sets: KeySets,
    tokens: Tokens,
    acme: acme::Manager,
    pub(super) roots: Roots,
    /// What connections to mirrors trust; `None`: there are none.
    pub(super) mirrors_trust: Option<Roots>,
    /// What a failed load wants watched as well.
    also_watched: Vec<PathBuf>,
    budgets: Budgets,
    max_memory: tokio::sync::watch::Sender<Option<u64>>,
    pub(super) releases: Releases,
    guards: Guards,
    pub(super) cluster: Membership,
    read_at: SystemTime,
    /// The last config that was looked at, by its hash, and what came of it.
    pub(super) last: Option<(String, Receipt)>,
    /// The last refused text and why, so that one mistake is told once.
    refused: Option<String>,
}

/// What a reload needs and may fail to get, gathered before anything changes.
struct Prepared {
    targets: live::Targets,
    tokens: Tokens,
    signers: live::Signers,
    tls: AllTls,
    acme: Wanted,
    plan: Plan,
    way_out: PlannedWayOut,
    logs: Opened,
    admin: Option<AdminSocket>,
}

impl Service {
    pub async fn start(
        path: PathBuf,
        loaded: Loaded,
        orders: mpsc::UnboundedSender<Order>,
        coming: Coming,
    ) -> Result<Self> {
        let Coming { inherited, arrival, program } = coming;
        let early = arrival.as_ref().map(|arrival| &arrival.early);
        let knows_keys = early.and_then(|early| early.seed).is_some_and(baggage::adopt_seed);
        let read_at = SystemTime::now();
        warn_of(&loaded);
        let config = &loaded.config;
        let generations = open_state(config, arrival.as_deref())?;
        let count = config.server.workers.map_or_else(cores, |n| n.get() as usize);
        let logs = Logs::start(&config.log).context("cannot start the log")?;
        let metrics = Metrics::new(count);
        metrics.watch_access_log(logs.access().counts());
        let resolver = Resolver::new(Handle::current(), &config.server.dns);
        resolver.seed(early.iter().flat_map(|early| early.addresses.iter().cloned()));

        let hash = loaded.sources.hash();
        let generation = generations.number_for(&hash);
        let handles = metrics.resolve(config);
        let (releases, mut events) = Releases::open(config);
        let weights = |f: &Function| releases.in_force(f);
        let now = live::now();
        let mut snapshot = compile_as_things_stand(config.clone(), generation, hash, count, None, now, &weights);
        let key_sets = KeySets::default().of(&loaded, &config.server.state_dir, &resolver);
        snapshot.know(&Known { material: &loaded.material, key_sets: &key_sets }, now);
        let budgets = match &arrival {
            Some(_) => Budgets::unread(&config.server.state_dir),
            None => {
                let mut budgets = Budgets::open(&config.server.state_dir);
                budgets.adopt(&snapshot, Timestamp::now());
                budgets
            }
        };
        let mut guards = Guards::default();
        guards.follow(None, config, count, now);
        let tokens = Tokens::default().of(&loaded, &resolver).map_err(|e| anyhow!(e))?;
        tokens.adopt(early.map_or(&[], |early| &early.tokens));
        tokens.first().await;
        let first = Live {
            targets: targets(&loaded, None, &resolver).map_err(|e| anyhow!(e))?,
            hosts: hosts(config),
            signers: signers(&loaded, &tokens).map_err(|e| anyhow!(e))?,
            caches: caches(config, &handles, None),
            places: concurrency::places(config, None, live::now()).into(),
            handles: handles.clone(),
            guards: guards.watches(config),
            mirrors: mirrors(config, count, None),
            listeners: Listeners::first_keys(config),
            max_requests: max_requests(config, count),
            shedding: metrics.shedding.clone(),
            challenges: Arc::default(),
            snapshot,
        };
        Releases::show(&first);
        let egress = Arc::new(ArcSwap::from_pointee(way_out::live(&first.snapshot, &handles)));
        let acme = acme::Manager::new(&config.server.state_dir, first.challenges.clone(), metrics.clone());
        metrics.install(handles, generation);
        let shedding = metrics.shedding.clone();
        let max_memory = tokio::sync::watch::Sender::new(config.server.max_memory);
        memory::look_now(&shedding, config.server.max_memory);
        tokio::spawn(memory::watch(shedding.clone(), max_memory.subscribe()));
        let live = Arc::new(ArcSwap::from_pointee(first));
        let (workers, running) = Workers::start(count, &live, &egress, &logs).context("cannot start the workers")?;
        let roots = roots_for(config);
        let mut cluster = early.map_or_else(Membership::default, |early| Membership::after(early.member.clone()));
        let board = Arc::new(Board::new(live, metrics, count, orders.clone(), cluster.shown()));
        cluster.follow(&loaded, &board.live, &config.server.state_dir, &resolver);
        cluster.first().await;
        let admin_socket = bind_admin(&config.admin.address, None, &inherited).map_err(|e| anyhow!(e))?;
        let (its_turn, is_its_turn) = tokio::sync::watch::channel(arrival.is_none());
        let admin = serve_admin(&board, &config.admin.address, admin_socket, is_its_turn);
        let total = Arc::new(Total::new(max_connections(config), shedding));
        let listeners = Listeners::new(workers.clone(), total, inherited.clone())
            .context("cannot start the thread that accepts")?;
        let way_out = WayOut::new(&listeners, egress);

        let mut service = Self {
            path,
            board,
            logs,
            resolver,
            inherited,
            program,
            upgrade: Upgrade::new(orders, knows_keys),
            around: Around::default(),
            generations,
            workers,
            running,
            listeners,
            admin,
            tls: AllTls::default(),
            way_out,
            key_sets,
            tokens,
            acme,
            roots,
            mirrors_trust: None,
            also_watched: Vec::new(),
            budgets,
            max_memory,
            releases,
            guards,
            cluster,
            read_at,
            last: None,
            refused: None,
            loaded,
        };
        service.workers.renew_proxies(roots).map_err(|e| anyhow!(e))?;
        let config = service.loaded.config.clone();
        service.connect_mirrors(&config).map_err(|e| anyhow!(e))?;
        let acme = service.acme.prepare(&service.loaded).map_err(|e| anyhow!(e))?;
        service.tls = tls::prepare(&service.loaded, Way::In, &acme, &service.tls).map_err(|e| anyhow!(e))?;
        let listeners = &service.loaded.config.listeners;
        let plan = service.listeners.plan(listeners, &service.tls, &[]).map_err(|e| anyhow!(e))?;
        let way_out = service.way_out.prepare(&service.loaded, &acme, &[]).map_err(|e| anyhow!(e))?;
        // All that can fail is done. Who takes over waits for its turn, and begins with what was counted until then.
        if let Some(arrival) = &arrival {
            events = service.take_over(arrival).await?;
        }
        let listeners = &service.loaded.config.listeners;
        let keys = service.listeners.keys(listeners, &plan);
        let live = service.board.live.load_full();
        service
            .listeners
            .apply(listeners, plan, &keys, &service.tls, |id| live.handles.listener(ListenerId(id as u32)));
        service.way_out.apply(way_out, &live, &service.listeners, &service.admin.bound);
        service.inherited.settle();
        its_turn.send_replace(true);
        if let Some(arrival) = arrival {
            service.is_serving(arrival).await;
        }
        // Now that somebody answers their challenges.
        service.acme.apply(acme);
        let start = Author { by: Some("start".to_owned()), reason: None };
        let state_dir = &service.loaded.config.server.state_dir;
        let author = requests::author_of(state_dir, &service.loaded.sources.hash()).unwrap_or(start);
        service.record(&[], &author);
        service.tell_events(&events, &author);
        service.releases.save();
        service.show();
        if let Err(error) = requests::prepare(&service.loaded.config.server.state_dir) {
            tracing::warn!(%error, "state_dir takes no requests: `gatepost reload` will not work");
        }
        // What was asked for while nobody ran.
        service.answer_requests().await;
        Ok(service)
    }

    pub fn ready(&self) -> Ready {
        Ready {
            generation: self.board.live.load().snapshot.generation,
            listeners: self.listeners.bound().chain(self.way_out.listeners.bound()).collect(),
            admin: self.admin.bound.clone(),
        }
    }

    /// One line for `systemctl status`.
    pub fn summary(&self) -> String {
        let config = &self.loaded.config;
        let refused = if self.refused.is_some() { "; the newer config is refused" } else { "" };
        format!(
            "generation {}: {} listeners, {} routes, {} functions{refused}{}",
            self.board.live.load().snapshot.generation,
            config.listeners.len(),
            config.routes.len(),
            config.functions.len(),
            self.troubles()
        )
    }

    pub fn watch_set(&self) -> WatchSet {
        let mut set = WatchSet {
            requests: requests::dir(&self.loaded.config.server.state_dir),
            read_at: Some(self.read_at),
            ..WatchSet::default()
        };
        let material = self.loaded.material.paths().map(std::path::Path::to_path_buf);
        let all = self.loaded.sources.watched().into_iter().chain(material).chain(self.also_watched.iter().cloned());
        for path in all {
            let kind = if path.is_dir() { &mut set.globs_dirs } else { &mut set.files };
            if !kind.contains(&path) {
                kind.push(path);
            }
        }
        set
    }

    pub fn reopen_log(&self) {
        self.logs.reopen();
    }

    /// Reads the config anew and applies it whole, or not at all. `None`: nothing changed, and nobody asked.
    pub async fn reload(&mut self, author: &Author, asked: bool) -> Option<Receipt> {
        let started = Instant::now();
        self.read_at = SystemTime::now();
        let loaded = match config::load(&self.path, Mode::Run) {
            Ok(loaded) => loaded,
            Err(report) => {
                self.also_watched = report.watched().to_vec();
                let report = report.to_string();
                if !asked && self.refused.as_ref() == Some(&report) {
                    return None;
                }
                let receipt = self.rejected(report, started);
                if let Ok(texts) = config::texts(&self.path) {
                    self.last = Some((texts.hash(), receipt.clone()));
                }
                return Some(receipt);
            }
        };
        self.also_watched.clear();
        let same_text = loaded.sources.hash() == self.loaded.sources.hash();
        let same_material = loaded.material.hash() == self.loaded.material.hash();
        if same_text && same_material {
            if !asked && self.refused.is_none() {
                return None;
            }
            self.refused = None;
            return Some(self.receipt(ReloadResult::Unchanged, Vec::new(), None, started));
        }
        notify::reloading();
        let hash = loaded.sources.hash();
        let announced = requests::author_of(&self.loaded.config.server.state_dir, &hash);
        let author = announced.as_ref().unwrap_or(author);
        let receipt = match self.prepare(&loaded) {
            Ok(prepared) => {
                // Calls without one would be refused.
                prepared.tokens.first().await;
                warn_of(&loaded);
                let mut changes = self.apply(loaded, prepared);
                if same_text {
                    let text =
                        "a certificate, authority or secret that the config names has another content".to_owned();
                    changes.push(Change { text, applies: Applied::Live });
                }
                self.refused = None;
                let receipt = self.receipt(ReloadResult::Applied, changes, None, started);
                // Behind the effect: it waits for the disk.
                self.record(&receipt.changes, author);
                self.releases.save();
                receipt
            }
            Err(why) => self.rejected(format!("error: {why}\n"), started),
        };
        self.last = Some((hash, receipt.clone()));
        notify::ready(&self.summary());
        Some(receipt)
    }

    /// Answers what commands left in the state directory.
    pub async fn answer_requests(&mut self) -> Vec<Receipt> {
        let dir = self.loaded.config.server.state_dir.clone();
        let mut receipts = Vec::new();
        for (id, request) in requests::pending(&dir) {
            if request.kind == requests::Kind::Upgrade {
                self.begin_upgrade(Some(id), &request);
                continue;
            }
            // It is for whoever serves then.
            if self.is_upgrading() {
                continue;
            }
            let Some(receipt) = self.answer_to(&id, &request).await else { continue };
            if let Err(error) = requests::answer(&dir, &id, &receipt) {
                tracing::warn!(%error, "cannot answer a request in state_dir");
            }
            receipts.push(receipt);
        }
        receipts
    }

    fn rejected(&mut self, report: String, started: Instant) -> Receipt {
        self.refused = Some(report.clone());
        self.receipt(ReloadResult::Rejected, Vec::new(), Some(report), started)
    }

    /// A receipt of what serves now.
    pub(super) fn answered(
        &self,
        result: ReloadResult,
        changes: Vec<Change>,
        report: Option<String>,
        took: Duration,
    ) -> Receipt {
        let live = self.board.live.load();
        let (generation, hash) = (live.snapshot.generation, live.snapshot.hash.clone());
        Receipt { generation, hash, result, changes, report, took, at: Timestamp::now() }
    }

    /// Makes the receipt, and tells it: log, metric, status.
    fn receipt(&self, result: ReloadResult, changes: Vec<Change>, report: Option<String>, started: Instant) -> Receipt {
        let receipt = self.answered(result, changes, report, started.elapsed());
        let generation = receipt.generation;
        let word = result.as_str();
        match &receipt.report {
            Some(report) => {
                tracing::error!(result = %word, generation, "reload");
                tracing::error!(
                    "{}\nthe new config is refused; generation {generation} goes on serving",
                    report.trim_end()
                );
            }
            None => tracing::info!(result = %word, generation, "reload: {receipt}"),
        }
        self.board.metrics.count_reload(match result {
            ReloadResult::Applied => crate::observe::metrics::ReloadResult::Applied,
            ReloadResult::Rejected => crate::observe::metrics::ReloadResult::Rejected,
            ReloadResult::Unchanged => crate::observe::metrics::ReloadResult::Unchanged,
        });
        self.board.changing().last = Some(told(&receipt));
        receipt
    }

    /// Everything that can fail, before anything changes.
    fn prepare(&mut self, loaded: &Loaded) -> Result<Prepared, String> {
        let config = &loaded.config;
        let old = self.board.live.load_full();
        let targets = targets(loaded, Some(&old), &self.resolver)?;
        let tokens = self.tokens.of(loaded, &self.resolver)?;
        let signers = signers(loaded, &tokens)?;
        let acme = self.acme.prepare(loaded)?;
        let tls = tls::prepare(loaded, Way::In, &acme, &self.tls)?;
        let logs = Logs::prepare(&self.loaded.config.log, &config.log)?;
        let admin_moves = config.admin.address != self.admin.address;
        let admin_leaves = admin_moves.then(|| self.admin.held.as_fd());
        let mut others = self.way_out.listeners.leaving(&config.egress.listeners);
        others.extend(admin_leaves);
        let plan = self.listeners.plan(&config.listeners, &tls, &others)?;
        let mut others = self.listeners.leaving(&config.listeners);
        others.extend(admin_leaves);
        let way_out = self.way_out.prepare(loaded, &acme, &others)?;
        let admin = if admin_moves {
            Some(bind_admin(&config.admin.address, Some(self.admin.held.as_fd()), &self.inherited)?)
        } else {
            None
        };
        let roots = roots_for(config);
        if roots == Roots::System && self.roots == Roots::None {
            // Proxies that trust more than they need harm nobody, should this reload fail; nor later, and their pools are
            // worth more than new ones.
            self.workers.renew_proxies(roots)?;
            self.roots = roots;
        }
        self.connect_mirrors(config)?;
        Ok(Prepared { targets, tokens, signers, tls, acme, plan, way_out, logs, admin })
    }

    /// The change itself: nothing here fails.
    fn apply(&mut self, loaded: Loaded, prepared: Prepared) -> Vec<Change> {
        let Prepared { targets, tokens, signers, tls, acme, plan, way_out, logs: mut sinks, admin } = prepared;
        let mut changes = changes(&self.loaded.config, &loaded.config);
        changes.extend(self.releases.follow(&loaded.config));
        let mut config = loaded.config.clone();
        // These wait for a restart: what serves says so.
        config.server.workers = self.loaded.config.server.workers;
        config.server.state_dir.clone_from(&self.loaded.config.server.state_dir);

        let old = self.board.live.load_full();
        let hash = loaded.sources.hash();
        let generation = self.generations.number_for(&hash);
        let handles = self.board.metrics.resolve(&config);
        let keys = self.listeners.keys(&config.listeners, &plan);
        let (workers, now) = (self.workers.count(), live::now());
        let weights = |f: &Function| self.releases.in_force(f);
        let previous = Some(&old.snapshot);
        let mut snapshot: Snapshot =
            compile_as_things_stand(config.clone(), generation, hash, workers, previous, now, &weights);
        let key_sets = self.key_sets.of(&loaded, &config.server.state_dir, &self.resolver);
        snapshot.know(&Known { material: &loaded.material, key_sets: &key_sets }, live::now());
        self.key_sets = key_sets;
        self.tokens = tokens;
        self.budgets.adopt(&snapshot, Timestamp::now());
        let listeners = keys.table.clone();
        self.guards.follow(Some(&old.snapshot.config), &config, workers, now);
        let next = Live {
            snapshot,
            targets,
            hosts: hosts(&config),
            caches: caches(&config, &handles, Some(&old)),
            signers,
            places: concurrency::places(&config, Some((&old.snapshot.config, &old.places)), live::now()).into(),
            handles: handles.clone(),
            guards: self.guards.watches(&config),
            mirrors: mirrors(&config, workers, Some((&old.snapshot.config, &old.mirrors))),
            listeners,
            max_requests: max_requests(&config, self.workers.count()),
            shedding: old.shedding.clone(),
            challenges: old.challenges.clone(),
        };
        Releases::show(&next);
        self.logs.switch_on(&self.loaded.config.log, &mut sinks);
        let next = Arc::new(next);
        self.board.live.store(next.clone());
        self.board.metrics.install(handles.clone(), generation);
        self.cluster.follow(&loaded, &self.board.live, &config.server.state_dir, &self.resolver);

        self.listeners.total().set_max(max_connections(&config));
        self.max_memory.send_replace(config.server.max_memory);
        self.resolver.use_servers(&config.server.dns);
        self.logs.switch(&self.loaded.config.log, sinks);
        if let Some(socket) = admin {
            let moved = serve_admin(&self.board, &config.admin.address, socket, at_once());
            let gone = std::mem::replace(&mut self.admin, moved);
            if let Some(file) = gone.file {
                file.remove();
            }
        }
        self.listeners.apply(&config.listeners, plan, &keys, &tls, |id| handles.listener(ListenerId(id as u32)));
        self.way_out.apply(way_out, &next, &self.listeners, &self.admin.bound);
        self.tls = tls;
        self.acme.apply(acme);
        self.loaded = Loaded { config, ..loaded };
        self.show();
        self.show_guards();
        changes
    }

    /// Keeps the texts of the present generation.
    fn record(&mut self, changes: &[Change], author: &Author) {
        let live = self.board.live.load_full();
        let home = self.path.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
        let texts: Vec<_> = self
            .loaded
            .sources
            .files
            .iter()
            .map(|f| (f.path.strip_prefix(&home).unwrap_or(&f.path).display().to_string(), f.text.to_string()))
            .collect();
        if let Err(error) = self.generations.record(&texts, &live.snapshot.hash, changes, author, Timestamp::now()) {
            tracing::warn!(%error, "degraded: the generation is served, but its texts are not kept");
            self.around.unrecorded = Some((changes.to_vec(), author.clone()));
        }
    }

    /// Shows what serves now to the admin server.
    fn show(&self) {
        let live = self.board.live.load();
        let mut changing = self.board.changing();
        changing.since = Timestamp::now().to_string();
        changing.token.clone_from(&self.loaded.config.admin.token);
        let mut listeners: Vec<_> = self
            .loaded
            .config
            .listeners
            .iter()
            .zip(0..)
            .filter_map(|(l, place)| {
                let bound = self.listeners.bound_of(&l.name)?;
                let counts = live.handles.listener(ListenerId(place)).clone();
                Some((l.name.clone(), bound.clone(), !l.tls.is_empty(), counts))
            })
            .collect();
        listeners.extend(self.way_out.shown(&live));
        listeners.sort_by(|a, b| a.0.cmp(&b.0));
        present::look(&listeners, true);
        changing.listeners = listeners;
        changing.certificates = self.served();
        changing.releases = self.releases.told(&live.snapshot.config);
        drop(changing);
        self.board.metrics.set_jwks(self.key_sets.counts());
        self.board.metrics.set_tokens(self.tokens.counts());
        self.board.metrics.set_mirrors(mirror::counts(&live.mirrors));
        self.warn_of_ends();
    }

    /// Whether a function has a budget.
    pub fn has_books(&self) -> bool {
        !self.budgets.is_empty()
    }

    /// Once a second, where it has.
    pub fn keep_books(&mut self) {
        self.budgets.tick(&self.board.live.load().snapshot, Timestamp::now());
    }

    /// Looks whether the addresses to listen on and to leave from are there.
    pub fn look_at_addresses(&self) {
        present::look(&self.board.changing().listeners, false);
        self.way_out.look_at_sources();
    }

    /// Drains: no new connections, idle ones close, requests under way end, at most for `server.drain`.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) {
        let drain = self.loaded.config.server.drain;
        self.board.draining.store(true, Relaxed);
        let total = self.listeners.total().clone();
        tracing::info!(connections = total.open(), drain_ms = drain.as_millis(), "draining");
        let all_done = async {
            self.listeners.close_all().await;
            self.way_out.listeners.close_all().await;
            loop {
                // A request that began just now may have left its connection idle.
                self.workers.drain(None);
                self.workers.drain_egress(None);
                if total.open() == 0 {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let (mut all_done, mut hurry) = (pin!(all_done), pin!(hurry));
        let mut over = pin!(tokio::time::sleep(drain));
        let mut second = tokio::time::interval_at(tokio::time::Instant::now() + SECOND, SECOND);
        loop {
            tokio::select! {
                () = &mut all_done => break,
                () = &mut hurry => {
                    tracing::warn!("stopping at once");
                    break;
                }
                () = &mut over => {
                    tracing::warn!(connections = total.open(), "server.drain is over; cutting what is left");
                    break;
                }
                _ = second.tick() => {
                    notify::status(&format!("draining: {} connections are open", total.open()));
                    // What ends now is counted as well.
                    if !self.budgets.is_empty() {
                        self.budgets.tick(&self.board.live.load().snapshot, Timestamp::now());
                    }
                }
            }
        }
        let left = total.open();
        // Joining a thread must not wait on this runtime: nothing of it is needed any more.
        let Self { running, logs, admin, mut budgets, mut upgrade, cluster, .. } = self;
        cluster.stop().await;
        upgrade.predecessor_ends(drain).await;
        if let Some(file) = admin.file {
            file.remove();
        }
        running.stop();
        budgets.close();
        logs.close(Duration::from_secs(2));
        tracing::info!(cut = left, "stopped");
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// How often a drain looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);
fn open_state(config: &Config, arrival: Option<&Arrival>) -> Result<Generations> {
    let dir = &config.server.state_dir;
    if let Some(lock) = arrival.and_then(|arrival| arrival.lock_of(dir)) {
        return Ok(Generations::inherit(dir, lock));
    }
    match Generations::open(dir) {
        Ok(generations) => Ok(generations),
        Err(error @ StateError::InUse { .. }) => Err(anyhow!(error)),
        Err(error) => {
            tracing::warn!(%error, "degraded: generations are not kept");
            Ok(Generations::detached(dir))
        }
    }
}

fn warn_of(loaded: &Loaded) {
    if !loaded.warnings.is_empty() {
        tracing::warn!("config\n{}", loaded.warnings);
    }
}
