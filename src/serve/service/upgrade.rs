//! Upgrades, from the service's side: giving everything to a new process and leaving, and taking over from an old one. How they talk is
//! [`hand_over`](crate::serve::hand_over)'s matter.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    os::fd::OwnedFd,
    path::Path,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::Service;
use crate::{
    config::model::Function,
    ingress::live,
    release::Event,
    serve::{
        Order,
        budgets::Budgets,
        hand_over::{
            Process, UpgradeReceipt, UpgradeResult,
            baggage::{self, Packer, Piece},
            new::{Arrival, Predecessor},
            old::{Belongings, News, PATIENCE, Program, Successor},
        },
        inherited::Inherited,
        listener::Way,
        notify,
        releases::Releases,
        requests,
        tls::{self, HandedTickets},
    },
};

/// How a process comes to serve.
#[derive(Default)]
pub struct Coming {
    pub inherited: Arc<Inherited>,
    /// From whom it takes over, where it does.
    pub arrival: Option<Arc<Arrival>>,
    /// What an upgrade of it would start.
    pub program: Option<Program>,
}

/// Where upgrades stand.
pub struct Upgrade {
    orders: mpsc::UnboundedSender<Order>,
    going: Option<Going>,
    /// From the moment when the new process was given what was counted: nothing is written or decided here any more.
    is_frozen: bool,
    /// What was counted when the last piece was given.
    packer: Packer,
    predecessor: Option<Predecessor>,
    tickets: Vec<HandedTickets>,
    /// Its keys of limits mean the same here.
    knows_keys: bool,
    counted: Option<mpsc::UnboundedReceiver<Piece>>,
}

struct Going {
    successor: Successor,
    binary: std::path::PathBuf,
    asked: Option<requests::Id>,
    since: Instant,
}

impl Upgrade {
    pub fn new(orders: mpsc::UnboundedSender<Order>, knows_keys: bool) -> Self {
        Self {
            orders,
            going: None,
            is_frozen: false,
            packer: Packer::default(),
            predecessor: None,
            tickets: Vec::new(),
            knows_keys,
            counted: None,
        }
    }

    /// A service manager ends what is left of a service once its main process ends: an older process is given its time.
    pub(super) async fn predecessor_ends(&mut self, at_most: Duration) {
        if let Some(predecessor) = &mut self.predecessor
            && !predecessor.is_gone()
        {
            tracing::info!(pid = predecessor.pid, "waiting for the old process to end");
            let _ = tokio::time::timeout(at_most, predecessor.gone()).await;
        }
    }
}

impl Arrival {
    /// The lock of that directory, where it came along: a new config may name another one.
    pub fn lock_of(&self, state_dir: &Path) -> Option<OwnedFd> {
        if self.state_dir != state_dir {
            return None;
        }
        self.lock.as_ref().and_then(|lock| lock.try_clone().ok())
    }
}

/// How often connections are asked to end with their next request: one that was accepted meanwhile has not heard it.
const RETIRE: Duration = Duration::from_millis(250);
/// How often a drain looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);
/// A request for an upgrade that is older was made of a process that is no more.
const STALE: Duration = Duration::from_secs(60);

impl Service {
    pub fn is_upgrading(&self) -> bool {
        self.upgrade.going.is_some()
    }

    /// Has the folder of requests looked at, and watched.
    pub(super) fn look_for_requests(&self) {
        // The service may have ended meanwhile.
        let _ = self.upgrade.orders.send(Order::Requests);
    }

    /// Decisions that last are the new process's.
    pub fn is_frozen(&self) -> bool {
        self.upgrade.is_frozen
    }

    /// Starts the new process. What comes of it is told by orders; a request is answered then.
    pub fn begin_upgrade(&mut self, asked: Option<requests::Id>, request: &requests::Request) {
        // It waits where it was left until it is answered, and whoever looks there sees it again.
        if asked.is_some() && self.upgrade.going.as_ref().is_some_and(|going| going.asked == asked) {
            return;
        }
        let own = self.program.clone();
        let binary = request.binary.clone().or_else(|| own.as_ref().map(|own| own.binary.clone())).unwrap_or_default();
        let begun = match own {
            _ if self.is_upgrading() => Err("an upgrade is under way already".to_owned()),
            _ if asked.as_ref().is_some_and(|id| id.age() > STALE) => {
                Err("the request was made of a process that is no more".to_owned())
            }
            None => Err("this gatepost is a part of another program, which would have to be started anew".to_owned()),
            Some(own) => self.start_successor(&Program { binary: binary.clone(), ..own }, request.patience),
        };
        match begun {
            Ok(successor) => {
                tracing::info!(binary = %binary.display(), "upgrade: a new process is started");
                self.upgrade.going = Some(Going { successor, binary, asked, since: Instant::now() });
            }
            Err(why) => self.not_upgraded(binary, asked, None, why),
        }
    }

    fn start_successor(&self, program: &Program, patience: Option<u64>) -> Result<Successor, String> {
        let sockets = || -> io::Result<Vec<_>> {
            let mut all = self.inherited.lent()?;
            let lent: Vec<String> = all.iter().map(|(of, _)| of.address.clone()).collect();
            let mut own = self.listeners.handed()?;
            own.extend(self.way_out.listeners.handed()?);
            own.push(self.admin.handed()?);
            all.extend(own.into_iter().filter(|(of, _)| !lent.contains(&of.address)));
            Ok(all)
        };
        let belongings = Belongings {
            sockets: sockets().map_err(|e| format!("the sockets cannot be handed over: {e}"))?,
            lock: self.generations.lock().map_err(|e| format!("the lock of state_dir cannot be handed over: {e}"))?,
            state_dir: self.loaded.config.server.state_dir.clone(),
            early: self.pack_early(),
        };
        let patience = patience.map_or(PATIENCE, |secs| Duration::from_secs(secs.clamp(1, 600)));
        let orders = self.upgrade.orders.clone();
        let news = move |news| {
            // The service may have ended meanwhile.
            let _ = orders.send(Order::Successor(news));
        };
        Successor::start(program, belongings, patience, news)
            .map_err(|e| format!("{} cannot be started: {e}", program.binary.display()))
    }

    /// What the new process came to. `true`: it serves, and this one is to leave.
    pub fn hear_of_successor(&mut self, news: News) -> bool {
        match news {
            News::Ready(process) => {
                tracing::info!(pid = process.pid, version = process.version, "upgrade: the new process can serve");
                // The last words to the disk; from here on they are the other's.
                self.releases.save();
                self.budgets.close();
                self.upgrade.is_frozen = true;
                self.cluster.be_a_guest();
                let pieces = self.pack();
                if let Some(going) = &self.upgrade.going {
                    going.successor.go(pieces);
                }
                false
            }
            News::Serving(process) => {
                let Some(going) = &mut self.upgrade.going else { return false };
                let receipt = UpgradeReceipt {
                    result: UpgradeResult::Upgraded,
                    from: Process::own(),
                    to: Some(process.clone()),
                    binary: going.binary.clone(),
                    report: None,
                    at: Timestamp::now(),
                };
                let (pid, took_ms) = (process.pid, going.since.elapsed().as_millis());
                tracing::info!(
                    pid,
                    version = process.version,
                    took_ms,
                    "upgrade: the new process serves; this one drains"
                );
                // In this order: only the main process is believed.
                notify::main_is(pid);
                let asked = going.asked.take();
                self.answer_upgrade(asked, &receipt);
                if let Some(going) = &self.upgrade.going {
                    going.successor.is_main();
                }
                true
            }
            News::Failed { who, why } => {
                self.upgrade.is_frozen = false;
                self.cluster.be_the_member();
                if let Some(going) = self.upgrade.going.take() {
                    self.not_upgraded(going.binary, going.asked, who, why);
                }
                false
            }
            // Told by `leave`.
            News::Gone(_) => false,
        }
    }

    fn not_upgraded(&self, binary: std::path::PathBuf, asked: Option<requests::Id>, to: Option<Process>, why: String) {
        tracing::error!(binary = %binary.display(), "not upgraded, this process goes on serving: {}", why.trim_end());
        let (result, from) = (UpgradeResult::Failed, Process::own());
        let receipt = UpgradeReceipt { result, from, to, binary, report: Some(why), at: Timestamp::now() };
        self.answer_upgrade(asked, &receipt);
    }

    fn answer_upgrade(&self, asked: Option<requests::Id>, receipt: &UpgradeReceipt) {
        if let Some(id) = asked
            && let Err(error) = requests::answer(&self.loaded.config.server.state_dir, &id, receipt)
        {
            tracing::warn!(%error, "cannot answer a request in state_dir");
        }
    }

    /// A new process serves: no new connections, one more request on each that is there, at most for `server.drain`.
    pub(in crate::serve) async fn leave(
        mut self,
        hurry: impl Future<Output = ()>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        let drain = self.loaded.config.server.drain;
        self.board.draining.store(true, Relaxed);
        self.generations.let_go();
        self.acme.end();
        self.admin.leave();
        self.listeners.leave().await;
        self.way_out.listeners.leave().await;
        let total = self.listeners.total().clone();
        tracing::info!(connections = total.open(), drain_ms = drain.as_millis(), "draining for the new process");
        let mut hurry = pin!(hurry);
        let mut over = pin!(tokio::time::sleep(drain));
        let mut look = tokio::time::interval(LOOK);
        let mut retire = tokio::time::interval(RETIRE);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = look.tick() => {
                    let older = self.upgrade.predecessor.as_ref().is_some_and(|older| !older.is_gone());
                    if total.open() == 0 && !older {
                        break;
                    }
                }
                _ = retire.tick() => self.workers.retire(),
                _ = second.tick() => self.tell_counts(),
                () = &mut hurry => {
                    tracing::warn!("stopping at once");
                    break;
                }
                () = &mut over => {
                    tracing::warn!(connections = total.open(), "server.drain is over; cutting what is left");
                    break;
                }
                Some(order) = orders.recv() => {
                    if let Order::Successor(News::Gone(status)) = order {
                        // A service manager sees that nobody is there once both are gone.
                        tracing::error!(status, "the new process has ended; this one, which accepts no more, ends as well");
                        break;
                    }
                }
            }
        }
        let left = total.open();
        self.tell_counts();
        let Self { running, logs, upgrade, .. } = self;
        running.stop();
        logs.close(Duration::from_secs(2));
        tracing::info!(cut = left, "the old process has ended");
        if let Some(going) = upgrade.going {
            going.successor.close();
        }
    }

    /// What the last requests took, and what an even older process told.
    fn tell_counts(&mut self) {
        let mut pieces = self.pack_counts();
        if let Some(counted) = &mut self.upgrade.counted {
            while let Ok(piece) = counted.try_recv() {
                pieces.push(piece);
            }
        }
        if let Some(going) = &self.upgrade.going {
            going.successor.counted(pieces);
        }
    }

    /// This process can serve: waits for its turn, and goes on from where the other one stands.
    pub(super) async fn take_over(&mut self, arrival: &Arc<Arrival>) -> Result<Vec<Event>> {
        let waits = arrival.clone();
        let baggage = tokio::task::spawn_blocking(move || waits.ready()).await?.map_err(|e| anyhow!(e))?;
        self.generations.refresh();
        let config = self.board.live.load().snapshot.config.clone();
        let (releases, events) = Releases::open(&config);
        self.releases = releases;
        self.releases.put_in_force(&self.board, config.functions.iter().map(|f: &Function| &*f.name));
        self.meet_what_was_met();
        let mut days = BTreeMap::new();
        for mut piece in baggage {
            days.append(&mut piece.days);
            self.unpack(piece);
        }
        self.budgets = Budgets::inherit(&config.server.state_dir, days);
        self.budgets.adopt(&self.board.live.load().snapshot, Timestamp::now());
        Ok(events)
    }

    /// This process serves: returns once it is the main one.
    pub(super) async fn is_serving(&mut self, arrival: Arc<Arrival>) {
        tls::adopt(&self.way_out.tls, Way::Out, &std::mem::take(&mut self.upgrade.tickets));
        let waits = arrival.clone();
        // A task that panicked has said so; this process serves all the same.
        let _ = tokio::task::spawn_blocking(move || waits.serving()).await;
        self.cluster.be_the_member();
        let (counted, counts) = mpsc::unbounded_channel();
        match arrival.follow(counted) {
            Ok(predecessor) => {
                tracing::info!(pid = predecessor.pid, "took over from another process, which drains");
                self.upgrade.predecessor = Some(predecessor);
                self.upgrade.counted = Some(counts);
            }
            Err(error) => tracing::warn!(%error, "what the old process still counts is not heard"),
        }
    }

    /// What an old process has counted since; to be called now and then.
    pub fn hear_counts(&mut self) {
        while let Some(piece) = self.upgrade.counted.as_mut().and_then(|counted| counted.try_recv().ok()) {
            self.unpack(piece);
        }
    }
}

/// What goes along.
impl Service {
    /// What is needed before anything is served, and can't wait for the last moment.
    fn pack_early(&self) -> Piece {
        Piece {
            seed: baggage::seed(),
            tokens: self.tokens.handed(),
            addresses: self.resolver.answers(),
            member: self.cluster.id(),
            ..Piece::default()
        }
    }

    /// What was counted since the last time.
    fn pack_counts(&mut self) -> Vec<Piece> {
        let live = self.board.live.load_full();
        let mut pieces = self.upgrade.packer.limits(&live.snapshot, live::now());
        let budgets = self.budgets.counted(&mut self.upgrade.packer.budgets);
        if !budgets.is_empty() {
            pieces.push(Piece { budgets, ..Piece::default() });
        }
        pieces
    }

    /// All that was counted, and what else goes along last of all.
    fn pack(&mut self) -> Vec<Piece> {
        self.upgrade.packer.forget();
        let live = self.board.live.load_full();
        let mut pieces = self.upgrade.packer.limits(&live.snapshot, live::now());
        let days = self.budgets.days();
        self.upgrade.packer.budgets = days.clone();
        let mut tickets = tls::handed(&self.tls, Way::In);
        tickets.extend(tls::handed(&self.way_out.tls, Way::Out));
        pieces.push(Piece { days, tickets, ..Piece::default() });
        pieces
    }

    fn unpack(&mut self, piece: Piece) {
        let live = self.board.live.load_full();
        // Keys that are hashed otherwise would be other callers'.
        if self.upgrade.knows_keys {
            baggage::unpack_limits(piece.limits, &live.snapshot, live::now());
        }
        self.budgets.add(&piece.budgets);
        if !piece.tickets.is_empty() {
            tls::adopt(&self.tls, Way::In, &piece.tickets);
            // Those of the way out come into force with its listeners.
            self.upgrade.tickets = piece.tickets;
        }
    }
}
