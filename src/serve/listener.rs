//! A listener while it lives: its socket, its settings of the present config, and the task that accepts.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::watch,
};

use super::{
    bind::Listening,
    connection::{self, Accepted},
    workers::{Worker, Workers},
};
use crate::{
    config::model::{ListenerTimeouts, Name, Networks},
    ingress::{conn::ListenerKey, wire::Socket},
    observe::metrics::{ConnectionResult, ListenerCounts},
};

/// What a config says of a listener, ready for a connection.
#[derive(Debug)]
pub struct Settings {
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub proxy_protocol: Option<Networks>,
    pub h2c: bool,
    pub max_connections: Option<usize>,
    pub timeouts: ListenerTimeouts,
    pub counts: Arc<ListenerCounts>,
}

/// Why a connection came to nothing before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    ProxyHeader,
    Handshake,
}

/// What a listener's accept task and its connections share.
#[derive(Debug)]
pub struct Shared {
    pub name: Name,
    pub key: ListenerKey,
    pub settings: ArcSwap<Settings>,
    open: AtomicUsize,
    /// Turns true when the listener's connections are to end.
    pub ending: watch::Sender<bool>,
}

/// Connections of the whole process.
#[derive(Debug)]
pub struct Total {
    open: AtomicUsize,
    max: AtomicUsize,
}

impl Total {
    pub fn new(max: usize) -> Self {
        Self { open: AtomicUsize::new(0), max: AtomicUsize::new(max) }
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
}

impl Counted {
    pub fn refused(&self, refused: Refused) {
        self.counts.count(match refused {
            Refused::ProxyHeader => ConnectionResult::ProxyHeaderInvalid,
            Refused::Handshake => ConnectionResult::HandshakeFailed,
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

/// A listener that accepts. Dropping it closes the socket, once what the kernel had accepted is taken.
pub struct Open {
    pub shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    /// A second handle of the socket, for a listener of another name.
    socket: OwnedFd,
    is_unix: bool,
    pub stopped: tokio::task::JoinHandle<()>,
}

impl Open {
    /// Begins to accept on `listening`; `accepts` is the runtime for that.
    ///
    /// # Errors
    ///
    /// The kernel has no room to watch the socket.
    pub fn start(
        name: Name,
        key: ListenerKey,
        listening: Listening,
        settings: Arc<Settings>,
        accepts: &Handle,
        workers: &Arc<Workers>,
        total: &Arc<Total>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name,
            key,
            settings: ArcSwap::from(settings),
            open: AtomicUsize::new(0),
            ending: watch::Sender::new(false),
        });
        let (stop, stopping) = watch::channel(false);
        let task = Accept { shared: shared.clone(), workers: workers.clone(), total: total.clone() };
        let (socket, is_unix) = (listening.as_fd().try_clone_to_owned()?, matches!(listening, Listening::Unix(_)));
        let guard = accepts.enter();
        let listening = watched(listening)?;
        drop(guard);
        let stopped = accepts.spawn(task.run(listening, stopping));
        Ok(Self { shared, stop, socket, is_unix, stopped })
    }

    /// The same socket once more.
    ///
    /// # Errors
    ///
    /// Out of file descriptors.
    pub fn duplicate(&self) -> io::Result<Listening> {
        let socket = self.socket.try_clone()?;
        Ok(if self.is_unix { Listening::Unix(socket.into()) } else { Listening::Tcp(socket.into()) })
    }

    /// No further connections; those that wait in the kernel's queue are still taken.
    pub fn stop_accepting(&self) {
        self.stop.send_replace(true);
    }

    /// Lets its connections end: idle ones now, others after their request.
    pub fn end_connections(&self, workers: &Workers) {
        self.shared.ending.send_replace(true);
        workers.drain(Some(self.shared.key));
    }
}

/// Registers the socket with the runtime that is entered.
#[expect(
    deprecated,
    reason = "its successor is `unsafe`, for types that lie about their descriptor; `Listening` owns std's sockets"
)]
fn watched(listening: Listening) -> io::Result<AsyncFd<Listening>> {
    AsyncFd::with_interest(listening, Interest::READABLE)
}

impl AsRawFd for Listening {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

struct Accept {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    total: Arc<Total>,
}

/// How long to wait for file descriptors or memory to come free.
const BREATH: Duration = Duration::from_millis(50);

impl Accept {
    async fn run(self, listening: AsyncFd<Listening>, mut stopping: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => break,
                accepted = listening.async_io(Interest::READABLE, Listening::accept) => accepted,
            };
            match accepted {
                Ok((fd, peer)) => self.dispatch(fd, peer),
                // The caller went away while it waited.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    self.shared.settings.load().counts.count(ConnectionResult::AcceptFailed);
                    tracing::warn!(listener = &*self.shared.name, error = %e, "cannot accept a connection");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        while let Ok((fd, peer)) = listening.get_ref().accept() {
            self.dispatch(fd, peer);
        }
    }

    fn dispatch(&self, fd: OwnedFd, peer: Option<SocketAddr>) {
        let settings = self.shared.settings.load_full();
        let worker = self.workers.least_busy().clone();
        settings.counts.opened();
        worker.open.fetch_add(1, Relaxed);
        let here = self.shared.open.fetch_add(1, Relaxed) + 1;
        let all = self.total.open.fetch_add(1, Relaxed) + 1;
        let counted = Counted {
            listener: self.shared.clone(),
            total: self.total.clone(),
            worker: worker.clone(),
            counts: settings.counts.clone(),
        };
        if all > self.total.max.load(Relaxed) || settings.max_connections.is_some_and(|max| here > max) {
            settings.counts.count(ConnectionResult::OverCap);
            if settings.tls.is_none() {
                turn_away(&fd);
            }
            return;
        }
        settings.counts.count(ConnectionResult::Accepted);
        let listener = self.shared.key;
        let shutdown = self.shared.ending.subscribe();
        worker.spawn(async move {
            let (Some(proxy), Ok(socket)) = (super::workers::proxy(), socket(fd, peer.is_none())) else { return };
            connection::serve(Accepted { socket, peer, listener, settings, proxy, shutdown, counted }).await;
        });
    }
}

/// Says 503 to a caller that is one too many, if that can be said without waiting.
fn turn_away(fd: &OwnedFd) {
    const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nX-Gatepost-Reason: overloaded\r\nRetry-After: 1\r\n\
        Content-Length: 0\r\nConnection: close\r\n\r\n";
    // It may not be there any more.
    let _ = rustix::io::write(fd, BUSY);
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
}

fn socket(fd: OwnedFd, is_unix: bool) -> io::Result<Socket> {
    Ok(if is_unix {
        Socket::Unix(tokio::net::UnixStream::from_std(fd.into())?)
    } else {
        Socket::Tcp(tokio::net::TcpStream::from_std(fd.into())?)
    })
}
