//! Connections in, one call each.

use std::{convert::Infallible, fs::File, io, os::unix, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    pin, select,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Backend, answer::answer};

/// Connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Its head, from the connection's begin.
    pub(super) header: Duration,
    /// All of it: body, a reload, an answer that is taken slowly.
    pub(super) call: Duration,
}

const BOUNDS: Bounds = Bounds { header: Duration::from_secs(5), call: Duration::from_secs(60) };

/// A bound and listening socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(std::net::TcpListener),
    Unix(unix::net::UnixListener),
}

/// The same, in the hands of tokio.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Answers calls until `shutdown`; then takes no more, finishes those under way (a minute at most) and returns.
pub async fn serve<B: Backend>(listener: Listener, backend: Arc<B>, shutdown: impl Future<Output = ()>) {
    serve_within(BOUNDS, listener, backend, shutdown).await;
}

pub(super) async fn serve_within<B: Backend>(
    bounds: Bounds,
    listener: Listener,
    backend: Arc<B>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Given up when there are no more: an operator can look at what is wrong.
    let mut spares = Vec::new();
    let mut calls = JoinSet::new();
    pin!(shutdown);
    loop {
        if calls.is_empty() {
            put_by(&mut spares);
        }
        // The semaphore is never closed.
        let Ok(place) = (select! {
            () = &mut shutdown => break,
            place = Arc::clone(&places).acquire_owned() => place,
        }) else {
            break;
        };
        let accepted = select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        while calls.try_join_next().is_some() {}
        match accepted {
            Ok(io) => {
                let backend = Arc::clone(&backend);
                calls.spawn(async move {
                    call(bounds, io, backend).await;
                    drop(place);
                });
            }
            Err(_) if !spares.is_empty() => spares.clear(),
            Err(error) => {
                warn!(%error, "admin connection cannot be accepted");
                // Out of file descriptors, most likely: they won't be back at once.
                select! {
                    () = &mut shutdown => break,
                    () = sleep(Duration::from_millis(100)) => {}
                }
            }
        }
    }
    drop(listener);
    while calls.join_next().await.is_some() {}
}

/// So many descriptors are put by: for calls, and for what they read.
const SPARES: usize = 8;

fn put_by(spares: &mut Vec<File>) {
    while spares.len() < SPARES {
        match File::open("/dev/null") {
            Ok(spare) => spares.push(spare),
            Err(_) => break,
        }
    }
}

async fn call<B: Backend>(bounds: Bounds, io: Box<dyn Io>, backend: Arc<B>) {
    let service = service_fn(|request| {
        let backend = Arc::clone(&backend);
        async move { Ok::<_, Infallible>(answer(&*backend, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header)
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), service);
    match timeout(bounds.call, connection).await {
        Ok(Ok(())) => {}
        // A caller that went away, or no HTTP: nobody need act.
        Ok(Err(error)) => debug!(%error, "admin call broke off"),
        Err(_) => debug!("admin call took too long"),
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Listener {
    /// For the runtime that this is called in.
    ///
    /// # Errors
    ///
    /// The socket can't be handed to tokio.
    pub fn new(socket: Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(TcpListener::from_std(listener)?)
            }
            Socket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener)?)
            }
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Io>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}
