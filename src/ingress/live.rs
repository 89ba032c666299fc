//! What requests are served by: a config with everything that was made of it. Swapped whole.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use arc_swap::{ArcSwap, Cache};
use http::HeaderValue;

use super::{cache::Caches, challenge::Challenges, conn::ListenerKey, mirror::Mirrors};
use crate::{
    config::model::{FunctionId, ListenerId, VersionId},
    decide::{Now, Snapshot, auth::TokenCache},
    observe::{LogPort, dice, metrics::Handles, shedding::Shedding},
    platform::sign::Signer,
    release::guard::Watch,
    upstream::{Target, concurrency::Places},
};

pub use crate::observe::{
    clock::now,
    dice::{roll, roll_128},
};

/// What each version's calls are signed with, by function and then version; `None`: with nothing.
pub type Signers = Arc<[Box<[Option<Arc<Signer>>]>]>;

/// Where the versions are, by function and then version.
pub type Targets = Arc<[Box<[Arc<Target>]>]>;

/// One generation, ready to serve. Cheap to clone: what is large in it is shared.
#[derive(Debug, Clone)]
pub struct Live {
    pub snapshot: Snapshot,
    pub targets: Targets,
    /// What each version is sent as Host.
    pub hosts: Arc<[Box<[HeaderValue]>]>,
    pub signers: Signers,
    /// By function; `None`: it has any number.
    pub places: Arc<[Option<Places>]>,
    pub handles: Arc<Handles>,
    /// What is counted for each function's guard; `None`: it has none.
    pub guards: Arc<[Option<Arc<Watch>>]>,
    /// By function, where any has one.
    pub mirrors: Mirrors,
    /// By [`ListenerKey`]; `None`: not in this config.
    pub listeners: Vec<Option<ListenerId>>,
    pub caches: Caches,
    /// Requests at a time that one worker takes.
    pub max_requests: usize,
    pub shedding: Arc<Shedding>,
    /// Of ACME; the same over all generations.
    pub challenges: Arc<Challenges>,
}

impl Live {
    pub fn target(&self, function: FunctionId, version: VersionId) -> &Arc<Target> {
        &self.targets[function.index()][version.index()]
    }

    pub fn host(&self, function: FunctionId, version: VersionId) -> &HeaderValue {
        &self.hosts[function.index()][version.index()]
    }

    pub fn signer(&self, function: FunctionId, version: VersionId) -> Option<&Arc<Signer>> {
        self.signers[function.index()][version.index()].as_ref()
    }

    pub fn places(&self, function: FunctionId) -> Option<&Places> {
        self.places.get(function.index())?.as_ref()
    }

    /// A listener that was removed keeps the connections that it has until they end: only routes for all listeners serve them.
    pub fn listener(&self, key: ListenerKey) -> ListenerId {
        self.listeners.get(key.0 as usize).copied().flatten().unwrap_or(ListenerId(u32::MAX))
    }
}

/// What a worker's thread has for itself.
struct Worker {
    number: usize,
    live: Cache<Arc<ArcSwap<Live>>, Arc<Live>>,
    log: LogPort,
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
    static TOKENS: Rc<RefCell<TokenCache>> = Rc::default();
    /// Requests that this worker has under way.
    static REQUESTS: Cell<usize> = const { Cell::new(0) };
}

/// The tokens that this worker has found good.
pub fn tokens() -> Option<Rc<RefCell<TokenCache>>> {
    TOKENS.try_with(Rc::clone).ok()
}

/// Makes this thread a worker.
pub fn enter(number: usize, live: Arc<ArcSwap<Live>>, log: LogPort, seed: u64) {
    WORKER.set(Some(Worker { number, live: Cache::new(live), log }));
    dice::seed(seed);
}

/// The generation in force, for one request.
pub fn current() -> Option<(usize, Arc<Live>)> {
    WORKER.with_borrow_mut(|w| w.as_mut().map(|w| (w.number, w.live.load().clone())))
}

/// Gives those who wait what time alone has granted them. To be called every [`SWEEP`](super::conn::SWEEP).
pub fn go_on(now: Now) {
    if let Some((_, live)) = current() {
        live.places.iter().flatten().for_each(|places| places.go_on(now));
    }
}

/// Counts a request that begins, if there may be so many; each that is counted wants a [`request_ends`].
pub fn request_begins(max: usize) -> bool {
    let under_way = REQUESTS.get();
    if under_way < max {
        REQUESTS.set(under_way + 1);
    }
    under_way < max
}

pub fn request_ends() {
    REQUESTS.set(REQUESTS.get() - 1);
}

/// Writes a line of the access log.
pub fn log(write: impl FnOnce(&mut LogPort)) {
    WORKER.with_borrow_mut(|w| {
        if let Some(worker) = w {
            write(&mut worker.log);
        }
    });
}
