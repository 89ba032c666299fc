//! What tunnels are decided by: a config with what was made of it. Swapped whole; a tunnel keeps the one that it began with.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use arc_swap::{ArcSwap, Cache};

use super::parent::Parent;
use crate::{
    config::model::{AccessSink, Log},
    decide::{Snapshot, auth::TokenCache, egress::Own},
    observe::{LogPort, metrics::EgressHandles},
};

/// One generation of the way out.
pub struct Live {
    pub snapshot: Arc<Snapshot>,
    pub counts: Arc<EgressHandles>,
    /// Where gatepost itself listens.
    pub own: Own,
    /// By [`EgressRuleId`](crate::config::model::EgressRuleId).
    pub parents: Parents,
}

/// What the rules' parents need; `None`: the rule has none.
pub type Parents = Arc<[Option<Arc<Parent>>]>;

/// What a worker's thread has for itself.
struct Worker {
    number: usize,
    live: Cache<Arc<ArcSwap<Live>>, Arc<Live>>,
    /// Among the lines of requests.
    log: LogPort,
    /// Where the way out has a log of its own.
    own_log: LogPort,
    /// What the last sweep has seen.
    swept: Option<Arc<Live>>,
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
    static TOKENS: Rc<RefCell<TokenCache>> = Rc::default();
}

/// The tokens that this worker has found good.
pub fn tokens() -> Option<Rc<RefCell<TokenCache>>> {
    TOKENS.try_with(Rc::clone).ok()
}

/// Makes this thread a worker. Its dice are thrown already.
pub fn enter(number: usize, live: Arc<ArcSwap<Live>>, log: LogPort, own_log: LogPort) {
    WORKER.set(Some(Worker { number, live: Cache::new(live), log, own_log, swept: None }));
}

/// The generation in force, and this worker's number.
pub fn current() -> Option<(usize, Arc<Live>)> {
    WORKER.with_borrow_mut(|w| w.as_mut().map(|w| (w.number, w.live.load().clone())))
}

/// Whether there was a reload since this was last asked. Also one that changed no config but a secret, an authority or a certificate of it: that has
/// no generation of its own.
pub fn is_new() -> bool {
    WORKER.with_borrow_mut(|w| {
        w.as_mut().is_some_and(|w| {
            let live = w.live.load();
            let is_new = w.swept.as_ref().is_none_or(|swept| !Arc::ptr_eq(swept, live));
            if is_new {
                w.swept = Some(live.clone());
            }
            is_new
        })
    })
}

/// Writes to the log: the way out's own, or that of requests, as the config in force has it. A tunnel may have begun by another config, whose
/// log nobody writes any more.
pub fn log(write: impl FnOnce(&mut LogPort, &Log)) {
    WORKER.with_borrow_mut(|w| {
        let Some(worker) = w else { return };
        let live = worker.live.load().clone();
        let log = &live.snapshot.config.log;
        match &log.egress {
            Some(AccessSink::Off) => {}
            Some(_) => write(&mut worker.own_log, log),
            None if log.access == AccessSink::Off => {}
            None => write(&mut worker.log, log),
        }
    });
}
