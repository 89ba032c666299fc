//! One listener while it lives: its socket, the task that accepts, and the role and settings that the present config gives it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
};

use super::{
    bind::Listening,
    connection::{self, Accepted},
    egress,
    per_ip::{PerIp, Place},
    tls::Tls,
    workers::{Worker, Workers},
};
use crate::{
    config::model::{Listener, ListenerTimeouts, Name, Networks},
    decide::egress::Room,
    ingress::{conn::ListenerKey, wire},
    observe::{
        clock::now,
        metrics::{ConnectionResult, ListenerCounts},
        shedding::Shedding,
    },
};

/// Whom a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Callers of functions.
    In,
    /// Functions that call others.
    Out,
}

impl Way {
    /// How a listener is called where those of both ways are told of.
    pub fn label(self, name: &Name) -> Name {
        match self {
            Self::In => name.clone(),
            Self::Out => format!("egress.{name}").into(),
        }
    }
}

/// What a config says of a listener, ready for a connection.
#[derive(Debug)]
pub struct Settings {
    pub tls: Option<Tls>,
    pub proxy_protocol: Option<Networks>,
    pub h2c: bool,
    pub max_connections: Option<usize>,
    pub max_connections_per_ip: Option<u32>,
    pub timeouts: ListenerTimeouts,
    pub counts: Arc<ListenerCounts>,
}

impl Settings {
    pub fn of(listener: &Listener, tls: Option<Tls>, counts: Arc<ListenerCounts>) -> Self {
        Self {
            tls,
            proxy_protocol: listener.proxy_protocol.clone(),
            h2c: listener.h2c,
            max_connections: listener.max_connections.map(|n| n.get() as usize),
            max_connections_per_ip: listener.max_connections_per_ip.map(std::num::NonZeroU32::get),
            timeouts: listener.timeouts,
            counts,
        }
    }

    /// Whether a connection that was accepted by these settings would come in by `listener`'s the same way. Else it may
    /// hold what is no longer allowed: plain text, an address that a peer told who may not, or the word of an authority that is
    /// no longer believed.
    pub fn same_ways(&self, listener: &Listener, tls: Option<&Tls>) -> bool {
        self.tls.as_ref().map(|t| &t.trust) == tls.map(|t| &t.trust)
            && self.proxy_protocol == listener.proxy_protocol
            && (self.h2c == listener.h2c || self.tls.is_some())
    }
}

/// Why a connection came to nothing before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    ProxyHeader,
    Handshake,
    /// This address has as many connections as it may have.
    OverIpCap,
}

/// What the connections of a listener share, from the first to the last that came by the same ways. A listener that gets
/// another name, another socket or TLS is another one from then on.
#[derive(Debug)]
pub struct Shared {
    pub way: Way,
    pub name: Name,
    pub key: ListenerKey,
    pub settings: ArcSwap<Settings>,
    open: AtomicUsize,
    total: Arc<Total>,
    per_ip: Arc<PerIp>,
    /// Turns true when these connections are to end.
    ending: watch::Sender<bool>,
}

impl Shared {
    pub fn new(way: Way, name: Name, key: ListenerKey, settings: Arc<Settings>, total: Arc<Total>) -> Self {
        let ending = watch::Sender::new(false);
        Self {
            way,
            name,
            key,
            settings: ArcSwap::from(settings),
            open: AtomicUsize::new(0),
            total,
            per_ip: Arc::default(),
            ending,
        }
    }

    /// Lets its connections end: idle ones now, others after their request.
    pub fn end_connections(&self, workers: &Workers) {
        // First: one that is accepted just now sees it, or is seen by the drain.
        self.ending.send_replace(true);
        match self.way {
            Way::In => workers.drain(Some(self.key)),
            Way::Out => workers.drain_egress(Some(self.key.0)),
        }
    }
}

impl crate::egress::Rooms for Shared {
    fn rooms(&self) -> [Option<Room>; 2] {
        let own = self.settings.load().max_connections;
        let own = own.map(|most| Room { open: self.open.load(Relaxed), most });
        [own, Some(Room { open: self.total.open.load(Relaxed), most: self.total.max.load(Relaxed) })]
    }
}

/// Connections of the whole process.
#[derive(Debug)]
pub struct Total {
    open: AtomicUsize,
    max: AtomicUsize,
    shedding: Arc<Shedding>,
    /// When there were no descriptors for a connection, in nanoseconds since boot; 0: never.
    short_at: AtomicU64,
    /// Connections that were accepted.
    accepted: AtomicUsize,
    /// How many descriptors there may be, as it was when that was last asked.
    files: AtomicU64,
}

/// So many accepts share one question for the limit of descriptors, which may be changed while we run.
const ASK_EVERY: usize = 16;

impl Total {
    pub fn new(max: usize, shedding: Arc<Shedding>) -> Self {
        Self {
            open: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            shedding,
            short_at: AtomicU64::new(0),
            accepted: AtomicUsize::new(0),
            files: AtomicU64::new(u64::MAX),
        }
    }

    /// Short of memory, or of descriptors: connections to functions and the admin need some, too.
    fn is_scarce(&self, fd: &OwnedFd) -> bool {
        if self.accepted.fetch_add(1, Relaxed).is_multiple_of(ASK_EVERY) {
            let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            self.files.store(files.unwrap_or(u64::MAX), Relaxed);
        }
        // The kernel gives out the lowest free number: the highest are given out when all others are.
        let files = self.files.load(Relaxed);
        let is_short = fd.as_raw_fd() >= RawFd::try_from(files - (files / KEPT_SHARE).min(KEPT)).unwrap_or(RawFd::MAX);
        if is_short {
            self.falls_short();
        }
        self.shedding.is_on() || is_short
    }

    fn falls_short(&self) {
        self.short_at.store(now().0.max(1), Relaxed);
    }

    /// Whether there were no descriptors for a connection within the last `time`.
    pub fn is_short(&self, time: Duration) -> bool {
        let at = self.short_at.load(Relaxed);
        at != 0 && u128::from(now().0.saturating_sub(at)) < time.as_nanos()
    }

    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

/// A connection's place under the caps, and in the gauges: given back when dropped.
pub struct Counted {
    listener: Arc<Shared>,
    total: Arc<Total>,
    worker: Arc<Worker>,
    counts: Arc<ListenerCounts>,
    of_ip: Option<Place>,
}

impl Counted {
    /// Counts the connection as one of its caller's.
    ///
    /// # Errors
    ///
    /// The caller has as many as it may.
    pub fn is_from(&mut self, ip: IpAddr, max: Option<u32>) -> Result<(), Refused> {
        if let Some(max) = max {
            self.of_ip = Some(self.listener.per_ip.enter(ip, max).ok_or(Refused::OverIpCap)?);
        }
        Ok(())
    }

    pub fn refused(&self, refused: Refused) {
        self.counts.count(match refused {
            Refused::ProxyHeader => ConnectionResult::ProxyHeaderInvalid,
            Refused::Handshake => ConnectionResult::HandshakeFailed,
            Refused::OverIpCap => ConnectionResult::OverIpCap,
        });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.listener.open.fetch_sub(1, Relaxed);
        self.total.open.fetch_sub(1, Relaxed);
        self.worker.open.fetch_sub(1, Relaxed);
        self.counts.closed();
    }
}

/// A listening socket that a runtime watches.
pub type Socket = Arc<AsyncFd<Listening>>;

/// A socket that is accepted from, in the role of a listener.
pub struct Open {
    role: Arc<ArcSwap<Shared>>,
    socket: Socket,
    stop: watch::Sender<Stop>,
    stopped: JoinHandle<()>,
}

/// Whether a listener goes on accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// Once nobody waits in the kernel's queue.
    Emptied,
    /// Who waits there is somebody else's.
    Now,
}

impl Open {
    /// Begins to accept; `accepts` is the runtime that watches the socket.
    pub fn start(
        socket: Socket,
        shared: Arc<Shared>,
        accepts: &Handle,
        workers: &Arc<Workers>,
        total: &Arc<Total>,
    ) -> Self {
        let role = Arc::new(ArcSwap::from(shared));
        let (stop, stopping) = watch::channel(Stop::No);
        let task = Accept { role: role.clone(), workers: workers.clone(), total: total.clone() };
        let stopped = accepts.spawn(task.run(socket.clone(), stopping));
        Self { role, socket, stop, stopped }
    }

    pub fn present(&self) -> Arc<Shared> {
        self.role.load_full()
    }

    /// Further connections come in as this listener's; returns whose they were.
    pub fn turn_into(&self, shared: Arc<Shared>) -> Arc<Shared> {
        self.role.swap(shared)
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    /// No further connections: those that wait in the kernel's queue are still taken, then the socket closes and what is
    /// returned ends.
    pub fn stop(self) -> JoinHandle<()> {
        self.stop.send_replace(Stop::Emptied);
        self.stopped
    }

    /// No further connections: a successor accepts from the same socket.
    pub fn leave(self) -> JoinHandle<()> {
        self.stop.send_replace(Stop::Now);
        self.stopped
    }
}

/// Registers the socket with the runtime that is entered.
///
/// # Errors
///
/// The kernel has no room to watch the socket.
#[expect(
    deprecated,
    reason = "its successor is `unsafe`, for types that lie about their descriptor; `Listening` owns std's sockets"
)]
pub fn watched(listening: Listening) -> io::Result<Socket> {
    AsyncFd::with_interest(listening, Interest::READABLE).map(Arc::new)
}

impl AsRawFd for Listening {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

struct Accept {
    role: Arc<ArcSwap<Shared>>,
    workers: Arc<Workers>,
    total: Arc<Total>,
}

/// So many descriptors callers may not have; where there are few, an eighth of them.
const KEPT: u64 = 64;
const KEPT_SHARE: u64 = 8;
/// How long to wait for file descriptors or memory to come free.
const BREATH: Duration = Duration::from_millis(50);
/// How often that is said.
const TELL: Duration = Duration::from_secs(10);

impl Accept {
    async fn run(self, listening: Socket, mut stopping: watch::Receiver<Stop>) {
        let mut told = None;
        let mut spare = spare();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop != Stop::No) => break,
                accepted = listening.async_io(Interest::READABLE, Listening::accept) => accepted,
            };
            match accepted {
                Ok((fd, peer)) => self.dispatch(fd, peer),
                // The caller went away while it waited.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    // Out of descriptors: whoever waits is told so, by means of the one that was put by.
                    if spare.take().is_some()
                        && let Ok((fd, _)) = listening.get_ref().accept()
                        && self.role.load().settings.load().tls.is_none()
                    {
                        turn_away(&fd);
                    }
                    spare = self::spare();
                    self.total.falls_short();
                    let shared = self.role.load_full();
                    shared.settings.load().counts.count(ConnectionResult::AcceptFailed);
                    // Out of descriptors, it fails twenty times a second until some come free: told once in ten seconds.
                    if told.is_none_or(|at: Instant| at.elapsed() > TELL) {
                        told = Some(Instant::now());
                        tracing::warn!(listener = %shared.name, error = %e, "cannot accept a connection");
                    }
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        if *stopping.borrow() == Stop::Now {
            return;
        }
        while let Ok((fd, peer)) = listening.get_ref().accept() {
            self.dispatch(fd, peer);
        }
    }

    fn dispatch(&self, fd: OwnedFd, peer: Option<SocketAddr>) {
        let shared = self.role.load_full();
        let settings = shared.settings.load_full();
        let worker = self.workers.least_busy().clone();
        settings.counts.opened();
        worker.open.fetch_add(1, Relaxed);
        let here = shared.open.fetch_add(1, Relaxed) + 1;
        let all = self.total.open.fetch_add(1, Relaxed) + 1;
        let mut counted = Counted {
            listener: shared.clone(),
            total: self.total.clone(),
            worker: worker.clone(),
            counts: settings.counts.clone(),
            of_ip: None,
        };
        // Who must tell by a PROXY header for whom it comes is counted as that one.
        let own = peer.filter(|p| settings.proxy_protocol.as_ref().is_none_or(|from| !from.contains(p.ip())));
        let over = if all > self.total.max.load(Relaxed) || settings.max_connections.is_some_and(|max| here > max) {
            Some(ConnectionResult::OverCap)
        } else if self.total.is_scarce(&fd) {
            Some(ConnectionResult::Shed)
        } else if own.is_some_and(|p| counted.is_from(p.ip(), settings.max_connections_per_ip).is_err()) {
            Some(ConnectionResult::OverIpCap)
        } else {
            None
        };
        if let Some(over) = over {
            settings.counts.count(over);
            if settings.tls.is_none() {
                turn_away(&fd);
            }
            return;
        }
        settings.counts.count(ConnectionResult::Accepted);
        let listener = shared.key;
        let shutdown = shared.ending.subscribe();
        if shared.way == Way::Out {
            worker.spawn(async move {
                let Ok(socket) = stream(fd, peer.is_none()) else { return };
                let ending = *shutdown.borrow();
                egress::serve(egress::Accepted { socket, peer, listener: shared, settings, ending, counted }).await;
            });
            return;
        }
        worker.spawn(async move {
            let (Some(proxy), Ok(socket)) = (super::workers::proxy(), stream(fd, peer.is_none())) else { return };
            connection::serve(Accepted { socket, peer, listener, settings, proxy, shutdown, counted }).await;
        });
    }
}

/// A descriptor to give up when there are no more.
fn spare() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

/// What a caller is told that is one too many.
pub const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nX-Gatepost-Reason: overloaded\r\nRetry-After: 1\r\n\
    Content-Length: 0\r\nConnection: close\r\n\r\n";

/// Says 503 to a caller, if that can be said without waiting.
fn turn_away(fd: &OwnedFd) {
    // It may not be there any more.
    let _ = rustix::io::write(fd, BUSY);
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
}

fn stream(fd: OwnedFd, is_unix: bool) -> io::Result<wire::Socket> {
    Ok(if is_unix {
        wire::Socket::Unix(tokio::net::UnixStream::from_std(fd.into())?)
    } else {
        wire::Socket::Tcp(tokio::net::TcpStream::from_std(fd.into())?)
    })
}
