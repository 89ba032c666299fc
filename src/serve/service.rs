//! The service while it lives: what was loaded, what listens, and how a reload changes both at once or not at all.

use std::{
    collections::HashMap,
    future::Future,
    io,
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use arc_swap::ArcSwap;
use http::HeaderValue;
use jiff::Timestamp;
use tokio::{
    runtime::{self, Handle},
    sync::{mpsc, oneshot, watch as channel},
};

use super::{
    Names, Order, Ready, Receipt, ReloadResult,
    bind::{Listening, bind},
    board::{Board, told},
    generations::{Author, Generations, StateError},
    listener::{Open, Settings, Total},
    notify, requests, tls,
    watch::WatchSet,
    workers::{Roots, Running, Workers},
};
use crate::{
    admin,
    config::{
        self, Config, Loaded, Mode,
        changes::{Change, changes},
        model::{ListenAddress, Listener, ListenerId, Name},
    },
    decide::{Snapshot, compile},
    ingress::{
        conn::ListenerKey,
        live::{self, Live},
    },
    observe::{AccessLog, Metrics, Sink},
    upstream::{Resolver, Target},
};

/// A listener of ours that accepts.
struct Serving {
    /// As the config says it.
    address: ListenAddress,
    /// As it is.
    bound: ListenAddress,
    open: Open,
}

/// The admin server.
struct AdminServing {
    address: ListenAddress,
    bound: ListenAddress,
    /// Dropped to end it.
    _stop: oneshot::Sender<()>,
}

pub struct Service {
    path: PathBuf,
    /// Of what serves now.
    loaded: Loaded,
    board: Arc<Board>,
    log: AccessLog,
    resolver: Resolver,
    generations: Generations,
    workers: Arc<Workers>,
    running: Running,
    /// The thread that accepts, where there are several workers.
    accepting: Option<Accepting>,
    listeners: HashMap<Name, Serving>,
    names: Names,
    total: Arc<Total>,
    admin: AdminServing,
    roots: Roots,
    /// What a failed load wants watched as well.
    also_watched: Vec<PathBuf>,
    read_at: SystemTime,
    /// The last refused text and why, so that one mistake is told once.
    refused: Option<String>,
}

/// What a reload needs and may fail to get, gathered before anything changes.
struct Prepared {
    targets: Vec<Box<[Arc<Target>]>>,
    tls: Vec<Option<Arc<rustls::ServerConfig>>>,
    /// New sockets, by the listener's place in the config.
    bound: HashMap<usize, Listening>,
    sink: Option<Sink>,
    admin: Option<Listening>,
    roots: Roots,
}

impl Service {
    pub async fn start(path: PathBuf, loaded: Loaded, orders: mpsc::UnboundedSender<Order>) -> Result<Self> {
        let read_at = SystemTime::now();
        warn_of(&loaded);
        let config = &loaded.config;
        let generations = open_state(config)?;
        let count = config.server.workers.map_or_else(cores, |n| n.get() as usize);
        let log = AccessLog::start(&config.log).context("cannot start the access log")?;
        let metrics = Metrics::new(count);
        metrics.watch_access_log(log.counts());
        let resolver = Resolver::new(Handle::current(), &config.server.dns);

        let hash = loaded.sources.hash();
        let generation = generations.number_for(&hash);
        let handles = metrics.resolve(config);
        let snapshot = compile(config.clone(), generation, hash, count, None, live::now());
        let names = Names::default();
        let first = Live {
            targets: targets(&loaded, None, &resolver).map_err(|e| anyhow!(e))?,
            hosts: hosts(config),
            handles: handles.clone(),
            listeners: keys(&names, config),
            snapshot,
        };
        metrics.install(handles, generation);
        let live = Arc::new(ArcSwap::from_pointee(first));
        let (workers, running) = Workers::start(count, &live, &log).context("cannot start the workers")?;
        let roots = roots_for(config);
        let accepting = if count > 1 { Some(Accepting::start()?) } else { None };
        let board = Arc::new(Board::new(live, metrics, count, orders));
        let admin_socket = bind(&config.admin.address, ADMIN_MODE)
            .with_context(|| format!("admin: cannot listen on {}", config.admin.address))?;
        let admin = serve_admin(&board, &config.admin.address, admin_socket);

        let mut service = Self {
            path,
            board,
            log,
            resolver,
            generations,
            workers,
            running,
            accepting,
            listeners: HashMap::new(),
            names,
            total: Arc::new(Total::new(max_connections(config))),
            admin,
            roots,
            also_watched: Vec::new(),
            read_at,
            refused: None,
            loaded,
        };
        service.workers.renew_proxies(roots).map_err(|e| anyhow!(e))?;
        let tls = service.tls_configs(&service.loaded).map_err(|e| anyhow!(e))?;
        let bound = service.bind_new(&service.loaded.config.clone()).await.map_err(|e| anyhow!(e))?;
        service.listen(tls, bound)?;
        service.record(&[], &Author { by: Some("start".to_owned()), reason: None });
        service.show();
        if let Err(error) = requests::prepare(&service.loaded.config.server.state_dir) {
            tracing::warn!(%error, "state_dir takes no requests: `gatepost reload` will not work");
        }
        Ok(service)
    }

    pub fn ready(&self) -> Ready {
        Ready {
            generation: self.board.live.load().snapshot.generation,
            listeners: self.listeners.iter().map(|(name, l)| (name.clone(), l.bound.clone())).collect(),
            admin: self.admin.bound.clone(),
        }
    }

    /// One line for `systemctl status`.
    pub fn summary(&self) -> String {
        let config = &self.loaded.config;
        format!(
            "generation {}: {} listeners, {} routes, {} functions",
            self.board.live.load().snapshot.generation,
            config.listeners.len(),
            config.routes.len(),
            config.functions.len()
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
        self.log.reopen();
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
                return Some(self.rejected(report, started));
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
        let outcome = match self.prepare(&loaded).await {
            Ok(prepared) => {
                warn_of(&loaded);
                self.apply(loaded, prepared).await
            }
            Err(why) => Err(format!("error: {why}\n")),
        };
        let receipt = match outcome {
            Ok(changes) => {
                self.refused = None;
                let receipt = self.receipt(ReloadResult::Applied, changes, None, started);
                // Behind the effect: it waits for the disk.
                self.record(&receipt.changes, author);
                receipt
            }
            Err(report) => self.rejected(report, started),
        };
        notify::ready(&self.summary());
        Some(receipt)
    }

    /// Answers what commands left in the state directory.
    pub async fn answer_requests(&mut self) -> Vec<Receipt> {
        let dir = self.loaded.config.server.state_dir.clone();
        let mut receipts = Vec::new();
        for (id, request) in requests::pending(&dir) {
            let requests::Kind::Reload = request.kind;
            let Some(receipt) = self.reload(&request.author, true).await else { continue };
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

    /// Makes the receipt, and tells it: log, metric, status.
    fn receipt(&self, result: ReloadResult, changes: Vec<Change>, report: Option<String>, started: Instant) -> Receipt {
        let live = self.board.live.load();
        let receipt = Receipt {
            generation: live.snapshot.generation,
            hash: live.snapshot.hash.clone(),
            result,
            changes,
            report,
            took: started.elapsed(),
            at: Timestamp::now(),
        };
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
    async fn prepare(&mut self, loaded: &Loaded) -> Result<Prepared, String> {
        let config = &loaded.config;
        let old = self.board.live.load_full();
        let targets = targets(loaded, Some(&old), &self.resolver)?;
        let tls = self.tls_configs(loaded)?;
        let sink = if config.log.access == self.loaded.config.log.access {
            None
        } else {
            Some(AccessLog::prepare(&config.log).map_err(|e| format!("log.access: {e}"))?)
        };
        let admin = if config.admin.address == self.admin.address {
            None
        } else {
            let address = &config.admin.address;
            Some(bind(address, ADMIN_MODE).map_err(|e| format!("admin: cannot listen on {address}: {e}"))?)
        };
        let roots = roots_for(config);
        if roots == Roots::System && self.roots == Roots::None {
            self.workers.renew_proxies(roots)?;
            self.roots = roots;
        }
        let bound = self.bind_new(config).await?;
        Ok(Prepared { targets, tls, bound, sink, admin, roots })
    }

    /// The change itself: nothing here fails.
    async fn apply(&mut self, loaded: Loaded, prepared: Prepared) -> Result<Vec<Change>, String> {
        let changes = changes(&self.loaded.config, &loaded.config);
        let mut config = loaded.config.clone();
        // These wait for a restart: what serves says so.
        config.server.workers = self.loaded.config.server.workers;
        config.server.state_dir.clone_from(&self.loaded.config.server.state_dir);

        let old = self.board.live.load_full();
        let hash = loaded.sources.hash();
        let generation = self.generations.number_for(&hash);
        let handles = self.board.metrics.resolve(&config);
        let listeners = keys(&self.names, &config);
        let snapshot: Snapshot =
            compile(config.clone(), generation, hash, self.workers.count(), Some(&old.snapshot), live::now());
        let next =
            Live { snapshot, targets: prepared.targets, hosts: hosts(&config), handles: handles.clone(), listeners };
        self.board.live.store(Arc::new(next));
        self.board.metrics.install(handles, generation);

        self.total.set_max(max_connections(&config));
        self.resolver.use_servers(&config.server.dns);
        if let Some(sink) = prepared.sink {
            self.log.switch(sink);
        }
        if let Some(socket) = prepared.admin {
            self.admin = serve_admin(&self.board, &config.admin.address, socket);
        }
        if prepared.roots == Roots::None {
            // Proxies that trust more than they need stay: their pools are worth more.
            self.roots = self.roots.max(prepared.roots);
        }
        self.loaded = Loaded { config, ..loaded };
        self.listen(prepared.tls, prepared.bound).map_err(|e| format!("{e:#}"))?;
        self.show();
        Ok(changes)
    }

    /// Binds what the config asks for and is not bound yet. By place in the config.
    async fn bind_new(&mut self, config: &Config) -> Result<HashMap<usize, Listening>, String> {
        let mut bound = HashMap::new();
        for (place, listener) in config.listeners.iter().enumerate() {
            if self.listeners.get(&listener.name).is_some_and(|l| l.address == listener.address) {
                continue;
            }
            // The same address under another name keeps its socket: see `listen`.
            if self.listeners.values().any(|l| l.address == listener.address) && !has_port_0(&listener.address) {
                continue;
            }
            match self.bind_one(listener, config).await {
                Ok(listening) => drop(bound.insert(place, listening)),
                Err(error) => {
                    return Err(format!("listener {}: cannot listen on {}: {error}", listener.name, listener.address));
                }
            }
        }
        Ok(bound)
    }

    async fn bind_one(&mut self, listener: &Listener, config: &Config) -> io::Result<Listening> {
        let first = match bind(&listener.address, listener.mode) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            done => return done,
        };
        // Perhaps a listener of ours has the port and is to leave it: `0.0.0.0:80` moves to `127.0.0.1:80`.
        let ListenAddress::Tcp(wanted) = listener.address else { return Err(first) };
        let in_the_way = self.listeners.iter().find(|(name, serving)| {
            let stays = config.listeners.iter().any(|l| l.name == **name && l.address == serving.address);
            !stays && matches!(serving.bound, ListenAddress::Tcp(a) if a.port() == wanted.port())
        });
        let Some(name) = in_the_way.map(|(name, _)| name.clone()) else { return Err(first) };
        let Some(mut leaving) = self.listeners.remove(&name) else { return Err(first) };
        leaving.open.stop_accepting();
        // What the kernel had accepted is taken first.
        let _ = (&mut leaving.open.stopped).await;
        match bind(&listener.address, listener.mode) {
            Ok(listening) => {
                leaving.open.end_connections(&self.workers);
                Ok(listening)
            }
            Err(error) => {
                // Back to how it was.
                if let Ok(again) = bind(&leaving.address, 0) {
                    let settings = leaving.open.shared.settings.load_full();
                    let key = leaving.open.shared.key;
                    if let Ok(open) = self.open(name.clone(), key, again, settings) {
                        self.listeners.insert(name, Serving { open, ..leaving });
                    }
                }
                Err(error)
            }
        }
    }

    fn open(&self, name: Name, key: ListenerKey, socket: Listening, settings: Arc<Settings>) -> io::Result<Open> {
        let accepts = match (&self.accepting, self.workers.only()) {
            (Some(accepting), _) => &accepting.handle,
            (None, Some(only)) => only,
            (None, None) => return Err(io::Error::other("no runtime accepts")),
        };
        Open::start(name, key, socket, settings, accepts, &self.workers, &self.total)
    }

    /// Makes the listeners as the present config says: new settings, new sockets, and an end to those that are gone.
    fn listen(
        &mut self,
        tls: Vec<Option<Arc<rustls::ServerConfig>>>,
        mut bound: HashMap<usize, Listening>,
    ) -> Result<()> {
        let live = self.board.live.load_full();
        let mut old = std::mem::take(&mut self.listeners);
        let listeners = self.loaded.config.listeners.clone();
        for ((place, listener), tls) in listeners.iter().enumerate().zip(tls) {
            let id = ListenerId(u32::try_from(place).unwrap_or(u32::MAX));
            let settings = Arc::new(Settings {
                tls,
                proxy_protocol: listener.proxy_protocol.clone(),
                h2c: listener.h2c,
                max_connections: listener.max_connections.map(|n| n.get() as usize),
                timeouts: listener.timeouts,
                counts: live.handles.listener(id).clone(),
            });
            let name = listener.name.clone();
            if let Some(kept) = old.remove(&name) {
                if kept.address == listener.address && !bound.contains_key(&place) {
                    set_mode(listener);
                    kept.open.shared.settings.store(settings);
                    self.listeners.insert(name, kept);
                    continue;
                }
                old.insert(name.clone(), kept);
            }
            let socket = match bound.remove(&place) {
                Some(socket) => socket,
                // Under another name until now: a listener of the same socket takes over.
                None => take_over(&mut old, &listener.address)
                    .with_context(|| format!("listener {name}: cannot take over {}", listener.address))?,
            };
            let address = socket.local_address(&listener.address);
            let key = key_of(&self.names, &name);
            let open = self.open(name.clone(), key, socket, settings)?;
            tracing::info!(listener = %name, address = %address, "listening");
            self.listeners.insert(name, Serving { address: listener.address.clone(), bound: address, open });
        }
        for (name, gone) in old {
            tracing::info!(listener = %name, address = %gone.bound, "no longer listening");
            self.close(gone);
        }
        Ok(())
    }

    /// Ends a listener: its queue is still taken, its requests end well, its idle connections close.
    fn close(&self, gone: Serving) {
        gone.open.stop_accepting();
        let workers = self.workers.clone();
        let still_used = self.listeners.values().any(|l| l.address == gone.address);
        tokio::spawn(async move {
            let Serving { address, mut open, .. } = gone;
            // It ends when it is told to, or panicked, which the log has.
            let _ = (&mut open.stopped).await;
            open.end_connections(&workers);
            if let (ListenAddress::Unix(path), false) = (&address, still_used) {
                // Somebody may have been faster.
                let _ = std::fs::remove_file(path);
            }
        });
    }

    fn tls_configs(&self, loaded: &Loaded) -> Result<Vec<Option<Arc<rustls::ServerConfig>>>, String> {
        loaded
            .config
            .listeners
            .iter()
            .map(|listener| {
                if listener.tls.is_empty() {
                    return Ok(None);
                }
                let keys = listener.tls.iter().filter_map(|files| loaded.material.key(files).cloned()).collect();
                tls::server_config(keys).map(Some).map_err(|e| format!("listener {}: {e}", listener.name))
            })
            .collect()
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
                let serving = self.listeners.get(&l.name)?;
                let counts = live.handles.listener(ListenerId(place)).clone();
                Some((l.name.clone(), serving.bound.clone(), !l.tls.is_empty(), counts))
            })
            .collect();
        listeners.sort_by(|a, b| a.0.cmp(&b.0));
        changing.listeners = listeners;
        drop(changing);
        self.board.metrics.set_certificates(tls::expiries(&self.loaded));
    }

    /// Drains: no new connections, idle ones close, requests under way end, at most for `server.drain`.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) {
        let drain = self.loaded.config.server.drain;
        self.board.draining.store(true, Relaxed);
        tracing::info!(connections = self.total.open(), drain_ms = drain.as_millis(), "draining");
        for (_, mut serving) in std::mem::take(&mut self.listeners) {
            serving.open.stop_accepting();
            let _ = (&mut serving.open.stopped).await;
            serving.open.end_connections(&self.workers);
            if let ListenAddress::Unix(path) = &serving.address {
                let _ = std::fs::remove_file(path);
            }
        }
        let all_done = async {
            loop {
                // A request that began just now may have left its connection idle.
                self.workers.drain(None);
                if self.total.open() == 0 {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = all_done => {}
            () = hurry => tracing::warn!("stopping at once"),
            () = tokio::time::sleep(drain) => {
                tracing::warn!(connections = self.total.open(), "server.drain is over; cutting what is left");
            }
        }
        let left = self.total.open();
        // Joining a thread must not wait on this runtime: nothing of it is needed any more.
        let Self { running, log, .. } = self;
        running.stop();
        log.close(Duration::from_secs(2));
        tracing::info!(cut = left, "stopped");
    }
}

/// How often a drain looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);
/// Permissions of the admin's unix socket.
const ADMIN_MODE: u32 = 0o660;

/// A runtime on a thread of its own.
struct Accepting {
    handle: Handle,
    _stop: channel::Sender<()>,
}

impl Accepting {
    fn start() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, mut stopping) = channel::channel(());
        std::thread::Builder::new().name("accept".to_owned()).spawn(move || {
            // Ends when the sender is gone.
            runtime.block_on(async { while stopping.changed().await.is_ok() {} });
        })?;
        Ok(Self { handle, _stop: stop })
    }
}

fn serve_admin(board: &Arc<Board>, address: &ListenAddress, listening: Listening) -> AdminServing {
    let bound = listening.local_address(address);
    let (stop, stopped) = oneshot::channel::<()>();
    let socket = match listening {
        Listening::Tcp(l) => admin::Socket::Tcp(l),
        Listening::Unix(l) => admin::Socket::Unix(l),
    };
    let board = board.clone();
    tokio::spawn(async move {
        let ended = async {
            // Its sender is dropped to end it.
            let _ = stopped.await;
        };
        if let Err(error) = admin::serve(socket, board, ended).await {
            tracing::error!(%error, "the admin server ended");
        }
    });
    tracing::info!(listener = %"admin", address = %bound, "listening");
    AdminServing { address: address.clone(), bound, _stop: stop }
}

fn open_state(config: &Config) -> Result<Generations> {
    let dir = &config.server.state_dir;
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

/// The targets of every version; what is known of an endpoint goes on.
fn targets(loaded: &Loaded, old: Option<&Live>, resolver: &Resolver) -> Result<Vec<Box<[Arc<Target>]>>, String> {
    let mut known: HashMap<(&str, &str), &Arc<Target>> = HashMap::new();
    if let Some(old) = old {
        for (function, targets) in old.snapshot.config.functions.iter().zip(&old.targets) {
            known.extend(function.versions.iter().map(|v| (&*function.name, &*v.name)).zip(targets));
        }
    }
    let functions = loaded.config.functions.iter();
    functions
        .map(|function| {
            let versions = function.versions.iter().map(|version| {
                let previous = known.get(&(&*function.name, &*version.name)).map(|t| &***t);
                let ca = version.ca.as_deref().and_then(|path| loaded.material.authority(path)).map(Arc::from);
                Target::carried(previous, version, function, ca, resolver)
                    .map(Arc::new)
                    .map_err(|e| format!("function {}: version {}: ca: {e}", function.name, version.name))
            });
            versions.collect()
        })
        .collect()
}

/// What each version is sent as Host: prepared, since every request needs it.
fn hosts(config: &Config) -> Vec<Box<[HeaderValue]>> {
    let host = |v: &config::model::Version| {
        let host = v.host.as_deref().unwrap_or(&v.url.authority);
        // The config takes no other hosts than such as can be sent.
        HeaderValue::from_str(host).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
    };
    config.functions.iter().map(|f| f.versions.iter().map(host).collect()).collect()
}

fn roots_for(config: &Config) -> Roots {
    let needs = config.functions.iter().flat_map(|f| &f.versions).any(|v| v.url.tls && v.ca.is_none());
    if needs { Roots::System } else { Roots::None }
}

fn key_of(names: &Names, name: &Name) -> ListenerKey {
    let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
    let at = names.iter().position(|n| n == name).unwrap_or_else(|| {
        names.push(name.clone());
        names.len() - 1
    });
    ListenerKey(u32::try_from(at).unwrap_or(u32::MAX))
}

fn keys(names: &Names, config: &Config) -> Vec<Option<ListenerId>> {
    let mut by_key = Vec::new();
    for (listener, place) in config.listeners.iter().zip(0..) {
        let key = key_of(names, &listener.name).0 as usize;
        by_key.resize(by_key.len().max(key + 1), None);
        by_key[key] = Some(ListenerId(place));
    }
    by_key
}

fn has_port_0(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(a) if a.port() == 0)
}

/// A second handle of a socket whose listener gets another name.
fn take_over(old: &mut HashMap<Name, Serving>, address: &ListenAddress) -> io::Result<Listening> {
    let serving = old.values().find(|l| l.address == *address).ok_or(io::ErrorKind::NotFound)?;
    serving.open.duplicate()
}

/// The permissions may have changed while the socket stays.
fn set_mode(listener: &Listener) {
    use std::os::unix::fs::PermissionsExt;
    let ListenAddress::Unix(path) = &listener.address else { return };
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(listener.mode)) {
        tracing::warn!(listener = &*listener.name, %error, "cannot change the socket's mode");
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// (file limit − 1,024) / 2: each connection may need one to its function, and others need files too.
fn max_connections(config: &Config) -> usize {
    if let Some(max) = config.server.max_connections {
        return max.get() as usize;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(1 << 20);
    (files.saturating_sub(1024) / 2).max(64)
}
