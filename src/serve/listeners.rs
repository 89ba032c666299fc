//! All listeners: which sockets a new config needs, and how those that are there get their new roles.
//!
//! A socket lives as long as some listener has its address, whatever that listener is called: a rename, a swap of two
//! names, new certificates or TLS where there was none close no socket. [`Listeners::plan`] does all that can fail;
//! [`Listeners::apply`] can't.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{BorrowedFd, OwnedFd},
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{runtime, runtime::Handle, sync::watch};

use super::{
    bind::{SocketFile, bind_for, cannot_listen},
    hand_over::{Role, SocketOf},
    inherited::Inherited,
    listener::{Open, Settings, Shared, Socket, Total, Way, watched},
    present::is_here,
    tls::AllTls,
    workers::Workers,
};
use crate::{
    config::{
        Config,
        model::{ListenAddress, Listener, ListenerId, Name},
    },
    ingress::conn::{ListenerKey, SWEEP},
    observe::{clock::now, metrics::ListenerCounts},
};

/// A listener that accepts.
struct Serving {
    /// As the config says it.
    address: ListenAddress,
    freebind: bool,
    /// As it is.
    bound: ListenAddress,
    file: Option<SocketFile>,
    open: Open,
}

/// What becomes of a listener of the new config.
enum Step {
    /// Its socket and its connections stay; settings change.
    Keep,
    /// Its socket stays, but what was accepted so far came by other ways (without TLS, say) and ends.
    Renew,
    /// It had another name until now.
    TakeOver,
    New(Fresh),
}

/// A socket that listens and is not accepted from yet.
struct Fresh {
    socket: Socket,
    bound: ListenAddress,
    file: Option<SocketFile>,
}

/// What [`Listeners::plan`] found and got; dropped, it changed nothing.
pub struct Plan(Vec<Step>);

/// Which listener of a config has which key.
pub struct Keys {
    /// By the listener's place in the config.
    of: Vec<ListenerKey>,
    /// By key; `None`: not in this config.
    pub table: Vec<Option<ListenerId>>,
}

pub struct Listeners {
    way: Way,
    serving: HashMap<Name, Serving>,
    /// The name of every key that was ever given: a connection keeps its key over reloads.
    names: Vec<Name>,
    accepting: Arc<Accepting>,
    inherited: Arc<Inherited>,
    workers: Arc<Workers>,
    total: Arc<Total>,
}

impl Listeners {
    /// # Errors
    ///
    /// The system has no room for a thread or its poller.
    pub fn new(workers: Arc<Workers>, total: Arc<Total>, inherited: Arc<Inherited>) -> io::Result<Self> {
        let accepting = match workers.only() {
            Some(worker) => Accepting { handle: worker.clone(), seen: moves(worker), _stop: None },
            None => Accepting::start()?,
        };
        Ok(Self {
            way: Way::In,
            serving: HashMap::new(),
            names: Vec::new(),
            accepting: Arc::new(accepting),
            inherited,
            workers,
            total,
        })
    }

    /// Those of the other way: they share the thread that accepts, and the total.
    pub fn beside(&self, way: Way) -> Self {
        let (accepting, workers, total) = (self.accepting.clone(), self.workers.clone(), self.total.clone());
        let inherited = self.inherited.clone();
        Self { way, serving: HashMap::new(), names: Vec::new(), accepting, inherited, workers, total }
    }

    /// The keys of the first config, as [`keys`](Self::keys) will give them.
    pub fn first_keys(config: &Config) -> Vec<Option<ListenerId>> {
        (0..).map(ListenerId).map(Some).take(config.listeners.len()).collect()
    }

    /// When what accepts moved last, in nanoseconds since boot.
    pub fn seen(&self) -> u64 {
        self.accepting.seen.load(Relaxed)
    }

    pub fn total(&self) -> &Arc<Total> {
        &self.total
    }

    /// Where each listens.
    pub fn bound(&self) -> impl Iterator<Item = (Name, ListenAddress)> {
        self.serving.iter().map(|(name, serving)| (self.way.label(name), serving.bound.clone()))
    }

    pub fn bound_of(&self, name: &Name) -> Option<&ListenAddress> {
        self.serving.get(name).map(|serving| &serving.bound)
    }

    /// Sockets that no listener of `wanted` needs.
    pub fn leaving(&self, wanted: &[Listener]) -> Vec<BorrowedFd<'_>> {
        let addresses = fixed(wanted);
        let stays = |name: &Name, serving: &Serving| {
            addresses.contains(&serving.address)
                || wanted.iter().any(|l| l.name == *name && l.address == serving.address)
        };
        let gone = self.serving.iter().filter(|(name, serving)| !stays(name, serving));
        gone.map(|(_, serving)| serving.open.descriptor()).collect()
    }

    /// Binds what `listeners` need and is not bound yet; `others` are sockets of ours elsewhere that close with this reload.
    ///
    /// # Errors
    ///
    /// Which listener can't be had, and why. Everything is as before then.
    pub fn plan(&self, listeners: &[Listener], tls: &AllTls, others: &[BorrowedFd<'_>]) -> Result<Plan, String> {
        let wanted = fixed(listeners);
        let mut leaving = self.leaving(listeners);
        leaving.extend(others);
        let held: HashSet<&ListenAddress> = self.serving.values().map(|s| &s.address).collect();
        let step = |listener: &Listener| {
            if let Some(serving) = self.serving.get(&listener.name).filter(|s| s.address == listener.address) {
                // Without it, a start would fail.
                if serving.freebind && !listener.freebind && !is_here(&listener.address) {
                    let who = format!("listener {}", self.way.label(&listener.name));
                    let absent = io::Error::from_raw_os_error(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error());
                    return Err(cannot_listen(&who, &listener.address, &absent));
                }
                let same = serving.open.present().settings.load().same_ways(listener, tls.get(&listener.name));
                return Ok(if same { Step::Keep } else { Step::Renew });
            }
            if wanted.contains(&listener.address) && held.contains(&listener.address) {
                return Ok(Step::TakeOver);
            }
            let who = || format!("listener {}", self.way.label(&listener.name));
            let fresh = self.bind(listener, &leaving);
            fresh.map(Step::New).map_err(|error| cannot_listen(&who(), &listener.address, &error))
        };
        listeners.iter().map(step).collect::<Result<_, _>>().map(Plan)
    }

    fn bind(&self, listener: &Listener, leaving: &[BorrowedFd<'_>]) -> io::Result<Fresh> {
        let (listening, is_ours) = match self.inherited.take(self.role(), &listener.name, &listener.address) {
            Some((listening, is_ours)) => {
                if is_ours {
                    set_mode(listener);
                }
                (listening, is_ours)
            }
            None => (bind_for(listener, leaving)?, true),
        };
        let bound = listening.local_address(&listener.address);
        let file = if is_ours { SocketFile::of(&listener.address) } else { None };
        let _entered = self.accepting.handle.enter();
        Ok(Fresh { socket: watched(listening)?, bound, file })
    }

    fn role(&self) -> Role {
        match self.way {
            Way::In => Role::In,
            Way::Out => Role::Out,
        }
    }

    /// A second handle of every socket, with what it is for.
    pub fn handed(&self) -> io::Result<Vec<(SocketOf, OwnedFd)>> {
        let one = |(name, serving): (&Name, &Serving)| {
            let fd = serving.open.descriptor().try_clone_to_owned()?;
            Ok((SocketOf::new(self.role(), name, &serving.address, false), fd))
        };
        self.serving.iter().map(one).collect()
    }

    /// Leaves all sockets, and their files, to a successor, and returns when nothing is accepted here any more. Connections go on.
    pub async fn leave(&mut self) {
        let all: Vec<_> = self.serving.drain().map(|(_, serving)| serving.open.leave()).collect();
        for stopped in all {
            // It ends when it is told to, or panicked, which the log has.
            let _ = stopped.await;
        }
    }

    /// Gives new keys to what is new. The table must be in force before [`apply`](Self::apply).
    pub fn keys(&mut self, listeners: &[Listener], plan: &Plan) -> Keys {
        let of = listeners.iter().zip(&plan.0).map(|(listener, step)| match (step, self.serving.get(&listener.name)) {
            (Step::Keep, Some(serving)) => serving.open.present().key,
            _ => {
                self.names.push(listener.name.clone());
                ListenerKey(u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX))
            }
        });
        let of = of.collect();
        let ids: HashMap<&Name, u32> = listeners.iter().map(|l| &l.name).zip(0..).collect();
        Keys { of, table: self.names.iter().map(|name| ids.get(name).copied().map(ListenerId)).collect() }
    }

    /// Makes the listeners as `config` says. Nothing here fails.
    pub fn apply<'c>(
        &mut self,
        listeners: &[Listener],
        plan: Plan,
        keys: &Keys,
        tls: &AllTls,
        counts: impl Fn(usize) -> &'c Arc<ListenerCounts>,
    ) {
        let mut old = std::mem::take(&mut self.serving);
        let way = self.way;
        for (id, ((listener, step), &key)) in listeners.iter().zip(plan.0).zip(&keys.of).enumerate() {
            let name = &listener.name;
            let settings = Arc::new(Settings::of(listener, tls.get(name).cloned(), counts(id).clone()));
            let total = &self.total;
            let shared = || Arc::new(Shared::new(way, name.clone(), key, settings.clone(), total.clone()));
            let held = match &step {
                Step::Keep | Step::Renew => old.remove(name),
                Step::TakeOver => {
                    let donor = old.iter().find(|(_, s)| s.address == listener.address).map(|(name, _)| name.clone());
                    donor.and_then(|donor| old.remove(&donor))
                }
                Step::New(_) => None,
            };
            let serving = match (step, held) {
                (Step::New(fresh), _) => {
                    let Fresh { socket, bound, file } = fresh;
                    let open = Open::start(socket, shared(), &self.accepting.handle, &self.workers, &self.total);
                    tracing::info!(listener = %way.label(name), address = %bound, "listening");
                    Serving { address: listener.address.clone(), freebind: listener.freebind, bound, file, open }
                }
                (step, Some(mut held)) => {
                    held.freebind = listener.freebind;
                    set_mode(listener);
                    match step {
                        Step::Keep => held.open.present().settings.store(settings),
                        _ => {
                            let is_alike =
                                held.open.present().settings.load().same_ways(listener, settings.tls.as_ref());
                            let before = held.open.turn_into(shared());
                            if before.name != *name {
                                let (name, before) = (way.label(name), way.label(&before.name));
                                tracing::info!(listener = %name, address = %held.bound, %before, "listening");
                            }
                            before.end_connections(&self.workers);
                            if !is_alike && before.way == Way::Out {
                                self.workers.doubt_egress(before.key.0);
                            }
                        }
                    }
                    held
                }
                // A plan is made of what is there.
                (_, None) => continue,
            };
            self.serving.insert(name.clone(), serving);
        }
        for (name, gone) in old {
            tracing::info!(listener = %way.label(&name), address = %gone.bound, "no longer listening");
            self.close(gone);
        }
    }

    /// Ends a listener: its queue is still taken, its requests end well, its idle connections close.
    fn close(&self, gone: Serving) {
        tokio::spawn(close(gone, &self.workers));
    }

    /// Ends all of them, and returns when nobody is accepted any more.
    pub async fn close_all(&mut self) {
        for serving in self.serving.values() {
            serving.open.present().end_connections(&self.workers);
        }
        // Each worker, that is: whose answer comes as soon as nobody is accepted any more must know by then that it is the last. One that
        // hears nothing has other troubles.
        let _ = tokio::time::timeout(HEARD, self.workers.heard()).await;
        let all: Vec<_> = self.serving.drain().map(|(_, serving)| close(serving, &self.workers)).collect();
        for closing in all {
            closing.await;
        }
    }
}

/// How long workers have to hear that they are to end.
const HEARD: Duration = Duration::from_secs(1);

fn close(gone: Serving, workers: &Workers) -> impl Future<Output = ()> + Send + 'static {
    if let Some(file) = &gone.file {
        // Before anybody else may want the path.
        file.remove();
    }
    // First: who sees that nobody is taken any more may count on what is under way being the last. Those who are still
    // accepted see it from the start.
    gone.open.present().end_connections(workers);
    let stopped = gone.open.stop();
    async move {
        // It ends when it is told to, or panicked, which the log has.
        let _ = stopped.await;
    }
}

/// The addresses that listeners share nothing of by chance: port 0 is another one each time.
fn fixed(listeners: &[Listener]) -> HashSet<&ListenAddress> {
    let has_port_0 = |address: &ListenAddress| matches!(address, ListenAddress::Tcp(a) if a.port() == 0);
    listeners.iter().map(|l| &l.address).filter(|a| !has_port_0(a)).collect()
}

/// The permissions may have changed while the socket stays.
fn set_mode(listener: &Listener) {
    if let ListenAddress::Unix(path) = &listener.address
        && let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(listener.mode))
    {
        let path = path.display();
        tracing::warn!(listener = %listener.name, %path, %error, "cannot set the socket's mode; callers may not reach it");
    }
}

/// The runtime that accepts: with one worker, its own; else one on a thread of its own.
struct Accepting {
    handle: Handle,
    /// When it moved last, in nanoseconds since boot.
    seen: Arc<AtomicU64>,
    _stop: Option<watch::Sender<()>>,
}

impl Accepting {
    fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, mut stopping) = watch::channel(());
        std::thread::Builder::new().name("accept".to_owned()).spawn(move || {
            // Ends when the sender is gone.
            runtime.block_on(async { while stopping.changed().await.is_ok() {} });
        })?;
        Ok(Self { seen: moves(&handle), handle, _stop: Some(stop) })
    }
}

/// Notes again and again that this runtime moves.
fn moves(runtime: &Handle) -> Arc<AtomicU64> {
    let seen = Arc::new(AtomicU64::new(now().0));
    let noted = seen.clone();
    runtime.spawn(async move {
        let mut tick = tokio::time::interval(SWEEP);
        loop {
            tick.tick().await;
            noted.store(now().0, Relaxed);
        }
    });
    seen
}
