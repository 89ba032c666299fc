//! The keys of an issuer, as they are now: read by requests without a lock, changed by one background task.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use arc_swap::{ArcSwapOption, Guard};
use atomic_waker::AtomicWaker;

use crate::config::jwks::KeySet;

/// Numbers that no two things of this process have: what a remembered token was good by.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub(super) fn fresh_number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// The keys of one issuer.
pub struct KeyRing {
    keys: ArcSwapOption<KeySet>,
    /// Another one after each change.
    version: AtomicU64,
    /// A token named a key that is not there.
    wanted: AtomicBool,
    waker: AtomicWaker,
}

impl KeyRing {
    /// `None`: nobody knows them yet, and no token can be judged.
    pub fn new(keys: Option<Arc<KeySet>>) -> Self {
        Self {
            keys: ArcSwapOption::new(keys),
            version: AtomicU64::new(fresh_number()),
            wanted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// These are the keys from now on; what was accepted by the old ones is judged anew.
    pub fn store(&self, keys: Arc<KeySet>) {
        self.keys.store(Some(keys));
        // Behind the keys: who still reads the old version with the new keys only judges once more.
        self.version.store(fresh_number(), Ordering::Release);
    }

    pub fn load(&self) -> Guard<Option<Arc<KeySet>>> {
        self.keys.load()
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// A token names a key that is not among these: the issuer may have a new one.
    pub(super) fn want(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Ready once a key was wanted, for the one task that fetches them. Being asked takes the wish away.
    pub fn poll_wanted(&self, context: &Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        if self.wanted.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("keys", &self.keys.load().as_ref().map(|keys| keys.len()))
            .finish_non_exhaustive()
    }
}
