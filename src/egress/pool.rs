//! Connections to destinations that wait for a next request: per worker, and per client and rule of one generation. Two clients never share one, and so
//! never leave from each other's source; nor does one outlive the rules by which it was made.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::{parent::Through, record::Left, serve::Stream};
use crate::config::model::{ClientId, EgressRuleId, EgressSourceId};

/// Whose connection it is, and whereto.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub generation: u64,
    pub client: Option<ClientId>,
    pub rule: Option<EgressRuleId>,
    /// `host:port`
    pub target: Box<[u8]>,
}

/// A connection, with where it leads and leaves from.
pub struct Kept {
    pub stream: Stream,
    pub through: Option<Arc<Through>>,
    pub address: Option<SocketAddr>,
    pub source: Option<(EgressSourceId, IpAddr)>,
    pub left: Option<Left>,
}

/// Shorter than servers keep theirs.
const LONGEST: Duration = Duration::from_secs(15);
const PER_KEY: usize = 32;
const IN_ALL: usize = 1024;

#[derive(Default)]
struct Pool {
    idle: HashMap<Key, Vec<(Kept, Instant)>>,
    count: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// The one that was put back last, if it still stands.
pub fn take(key: &Key) -> Option<Kept> {
    POOL.with_borrow_mut(|pool| {
        let all = pool.idle.get_mut(key)?;
        while let Some((mut kept, since)) = all.pop() {
            pool.count -= 1;
            // A server that says anything now says that it closes.
            let is_quiet = is_quiet(&mut kept.stream);
            if is_quiet && since.elapsed() < LONGEST {
                return Some(kept);
            }
        }
        None
    })
}

fn is_quiet(stream: &mut Stream) -> bool {
    match stream {
        Stream::Tcp(stream) => stream.try_read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock),
        // Whoever takes it registers for it anew.
        Stream::Other(stream) => {
            let mut context = Context::from_waker(Waker::noop());
            Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut [0])).is_pending()
        }
    }
}

pub fn put(key: Key, kept: Kept) {
    POOL.with_borrow_mut(|pool| {
        if pool.count < IN_ALL {
            let all = pool.idle.entry(key).or_default();
            if all.len() < PER_KEY {
                all.push((kept, Instant::now()));
                pool.count += 1;
            }
        }
    });
}

/// Closes those that have waited too long, or are of another generation.
pub fn sweep(generation: Option<u64>) {
    POOL.with_borrow_mut(|pool| {
        if pool.count == 0 {
            return;
        }
        pool.idle.retain(|key, all| {
            all.retain(|(_, since)| since.elapsed() < LONGEST && generation.is_none_or(|g| g == key.generation));
            !all.is_empty()
        });
        pool.count = pool.idle.values().map(Vec::len).sum();
    });
}
