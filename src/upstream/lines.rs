//! Connections to functions over HTTP/1.1: made by pingora's connector, kept here between two requests. All of it is a worker's own.
//!
//! pingora's pool has a task wait beside each idle connection, and locks for what several threads could do with it: a tenth of
//! all that a small request costs. Here a connection lies still. Whether it still stands is asked when it is taken (by what the poller knows
//! already: no system call), and four times a second by the sweeper, which also closes those that have waited too long.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::BuildHasherDefault,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use pingora_core::{connectors::TransportConnector, protocols::Stream, upstreams::peer::HttpPeer};
use pingora_error::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, ReadBuf};
use twox_hash::XxHash64;

use crate::decide::Now;

/// Which connections are as good as each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub address: SocketAddr,
    /// By which name it was verified, whom it trusts, and which turn of its pool's age it is of.
    pub group: u64,
}

struct Idle {
    stream: Stream,
    until: Now,
}

/// Idle ones that a worker keeps.
const MOST: usize = 4096;

thread_local! {
    static CONNECTOR: RefCell<Option<Arc<TransportConnector>>> = const { RefCell::new(None) };
    static IDLE: RefCell<HashMap<Key, Vec<Idle>, BuildHasherDefault<XxHash64>>> = RefCell::default();
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Gives this worker what makes its connections. Those that it has are closed: whom they trust may be out of date.
pub fn enter(connector: Arc<TransportConnector>) {
    CONNECTOR.set(Some(connector));
    COUNT.set(0);
    drop(IDLE.take());
}

/// Connects, within the peer's own times.
///
/// # Errors
///
/// pingora's.
pub async fn dial(peer: Box<HttpPeer>) -> Result<Stream> {
    let Some(connector) = CONNECTOR.with_borrow(Clone::clone) else {
        return Error::e_explain(ErrorType::InternalError, "a request outside of a worker");
    };
    connector.new_stream(&*peer).await
}

/// The one that was put back last, if any still stands.
pub fn take(key: Key, now: Now) -> Option<Stream> {
    IDLE.with_borrow_mut(|idle| {
        let all = idle.get_mut(&key)?;
        while let Some(mut one) = all.pop() {
            COUNT.set(COUNT.get() - 1);
            if now < one.until && is_quiet(&mut one.stream) {
                return Some(one.stream);
            }
        }
        None
    })
}

/// Keeps a connection on which nothing is under way, for so long at most.
pub fn put(key: Key, stream: Stream, now: Now, idle: Duration) {
    if COUNT.get() == MOST {
        return;
    }
    let idle = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
    let one = Idle { stream, until: Now(now.0.saturating_add(idle)) };
    IDLE.with_borrow_mut(|all| all.entry(key).or_default().push(one));
    COUNT.set(COUNT.get() + 1);
}

/// Closes those that have waited too long, and those that the other side has closed.
pub fn sweep(now: Now) {
    if COUNT.get() == 0 {
        return;
    }
    IDLE.with_borrow_mut(|idle| {
        idle.retain(|_, all| {
            all.retain_mut(|one| now < one.until && is_quiet(&mut one.stream));
            !all.is_empty()
        });
        COUNT.set(idle.values().map(Vec::len).sum());
    });
}

/// A function that says anything now says that it closes. TLS may have had something to say for itself: it is heard here.
fn is_quiet(stream: &mut Stream) -> bool {
    // Whoever takes the connection registers for it anew.
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut [0])).is_pending()
}

#[cfg(test)]
mod tests;
