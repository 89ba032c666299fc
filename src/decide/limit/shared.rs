//! Limits that several gateposts share, decided by each alone at once.
//!
//! # How
//!
//! The truth is one TAT per key, in a store that all members reach. Each member has a bucket of its own for each key, a copy of that one, and
//! lets requests pass by it alone. A request moves the copy on by as many intervals as there are members ([`Pace::among`]): as if every
//! other did the same at that moment. What passed is noted in an [`Open`] table; some forty times a second a task outside of this room takes
//! the notes ([`Limiter::due`]), has the truth moved on by them, and puts it in the copy's place ([`Limiter::settle`]).
//!
//! So a key's *lease*, what a member may let pass before it hears of the others, is the burst divided by the members, and no request ever waits for
//! the store. Where the store is gone, copies go on: the rate and the burst divided by the members, with no switch to be thrown.
//!
//! # How many may pass
//!
//! Of `n` members, with burst `b` and rate `r`, never more than `b + r·t + n·l` from the beginning to any time `t`, where the lease
//! `l = max(1, b/n) + r·d/n`, and `d` is the longest time between two settlements of a member.
//!
//! What passed is either in the truth or noted. Let the truth's *room* be `b` less what it is ahead, in requests; all that is in the truth is
//! `b + r·t − room`. Take the last time at which the room was not below zero. After it, each member's next settlement brings what it let pass since the
//! one before: at most `l`, for a copy holds `max(1, b/n)` and refills with `r/n`. From then on its copy is one of a bucket that is overdrawn:
//! it is empty, and what it lets pass is what refills, `r/n`. All members together so overdraw by `n·l` at most, and else by no
//! more than what refills meanwhile; what is noted and not yet in the truth is of the same `n·l`. ∎
//!
//! A member that starts anew has forgotten its copies, and one whose store has forgotten finds full buckets: each costs a lease, or a burst, more.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use portable_atomic::AtomicU128;

use super::{
    Buckets, KeyHash, Limiter,
    gcra::{Pace, Wait},
    table::change_plain,
};
use crate::{
    config::model::{Limit, LimitScope, Name},
    decide::Now,
};

/// How often members settle: what a refused caller has to wait for where the store may know of room.
const SETTLED: u64 = 25_000_000;

/// How it stands with the other members: written by one task, read by requests.
#[derive(Debug, Default)]
pub struct Standing {
    /// 0: nobody knows yet, which is as good as one.
    members: AtomicU64,
    linked: AtomicBool,
    /// 0: not known yet.
    salt: AtomicU64,
}

impl Standing {
    pub fn set_members(&self, members: u64) {
        self.members.store(members, Ordering::Relaxed);
    }

    /// This one among them.
    pub fn members(&self) -> u64 {
        self.members.load(Ordering::Relaxed).max(1)
    }

    /// Whether the store answers.
    pub fn set_linked(&self, linked: bool) {
        self.linked.store(linked, Ordering::Relaxed);
    }

    pub fn linked(&self) -> bool {
        self.linked.load(Ordering::Relaxed)
    }

    /// The members' secret by which keys are hashed alike.
    pub fn set_salt(&self, salt: u64) {
        self.salt.store(salt, Ordering::Relaxed);
    }
}

/// What a limit shares with the same one of other members.
#[derive(Debug)]
pub struct Shared {
    /// `limit.partners`: the same limit on all of them.
    name: Box<str>,
    standing: Arc<Standing>,
    open: Open,
}

impl Shared {
    pub(super) fn salt(&self) -> Option<u64> {
        Some(self.standing.salt.load(Ordering::Relaxed)).filter(|salt| *salt != 0)
    }

    pub(super) fn pace(&self, whole: &Pace) -> Pace {
        whole.among(self.standing.members())
    }

    pub(super) fn took(&self, key: KeyHash) {
        self.open.note(key, 1);
    }

    /// A request waits: for how long in truth. Where others may have left some, they are asked.
    pub(super) fn refused(&self, key: KeyHash, wait: Wait, whole: &Pace) -> Wait {
        if !self.standing.linked() {
            return wait;
        }
        let own = self.pace(whole);
        let believed = wait.0.saturating_add(own.depth - own.interval);
        // What passed here is known, and need not be taken for what all did.
        let since = self.open.used(key);
        let ahead = believed.saturating_sub(since.saturating_mul(own.interval - whole.interval));
        match ahead.saturating_add(whole.interval).checked_sub(whole.depth) {
            None | Some(0) => {
                self.open.note(key, 0);
                Wait(whole.of_nanos(SETTLED))
            }
            Some(missing) => Wait(missing),
        }
    }
}

/// What passed of a key since the last settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub key: KeyHash,
    /// 0: nothing passed, but somebody asks.
    pub used: u64,
}

/// A limit and its place among others in the store, for the task that settles.
impl Limiter {
    /// The limiter of a config that follows `previous`, in the limit's scope; `kind` and the label are its name among the members.
    pub fn within(
        standing: &Arc<Standing>,
        kind: &str,
        limit: &Limit,
        label: Name,
        previous: Option<&Arc<Self>>,
        now: Now,
    ) -> Arc<Self> {
        let name = format!("{kind}.{label}");
        let carried = match previous {
            Some(previous) => Self::carried(limit, label, previous, now),
            None => Arc::new(Self::new(limit, label)),
        };
        let wanted = limit.scope == LimitScope::Cluster;
        let same = carried.shared.as_ref().map_or(!wanted, |shared| wanted && *shared.name == *name);
        if same {
            return carried;
        }
        let before = previous.and_then(|previous| previous.shared.clone()).filter(|shared| *shared.name == *name);
        let fresh = || {
            let open = Open::new(if matches!(carried.counts.buckets, Buckets::One(_)) { 64 } else { OPEN_KEYS });
            Arc::new(Shared { name: name.into(), standing: standing.clone(), open })
        };
        let shared = wanted.then(|| before.unwrap_or_else(fresh));
        Arc::new(Self {
            label: carried.label.clone(),
            limit: carried.limit.clone(),
            pace: carried.pace,
            policy: carried.policy.clone(),
            counts: carried.counts.clone(),
            shared,
        })
    }

    /// What it is called among the members; `None`: it counts for itself.
    pub fn shared_name(&self) -> Option<&str> {
        self.shared.as_ref().map(|shared| &*shared.name)
    }

    /// Takes the notes of what passed.
    pub fn due(&self, mut each: impl FnMut(Due)) {
        if let Some(shared) = &self.shared {
            shared.open.drain(&mut each);
        }
    }

    /// Requests that passed without a note, since too many keys were in use at once: they count here alone.
    pub fn unshared(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.open.lost.load(Ordering::Relaxed))
    }

    /// How many microseconds so many requests move the truth on.
    pub fn micros(&self, used: u64) -> f64 {
        self.pace.nanos(self.pace.interval) * used as f64 / 1_000.0
    }

    /// How many microseconds the truth may be ahead at most; more is a clock that has jumped.
    pub fn most_micros(&self) -> f64 {
        self.pace.nanos(self.pace.depth) * 2.0 / 1_000.0 + 1_000_000.0
    }

    /// The truth of a key: so many nanoseconds ahead of now.
    pub fn settle(&self, key: KeyHash, ahead: u64, now: Now) {
        let Some(shared) = &self.shared else { return };
        let (whole, own) = (&self.pace, shared.pace(&self.pace));
        let ticks = whole.ticks(now);
        let ahead = whole.of_nanos(ahead);
        let set = |_: u64| {
            // What passed since is not in the truth yet.
            let since = shared.open.used(key);
            let truth = ahead.saturating_add(since.saturating_mul(whole.interval));
            let mut copy = ahead.saturating_add(since.saturating_mul(own.interval));
            if truth.saturating_add(whole.interval) <= whole.depth {
                // Whoever sees a whole request's room may let one pass, be the others many.
                copy = copy.min(own.depth - own.interval);
            }
            ticks.saturating_add(copy)
        };
        match &self.counts.buckets {
            // It never refuses.
            Buckets::One(bucket) => drop(change_plain(&bucket.0, |tat| Ok(set(tat)))),
            Buckets::Keyed(table) => table.put(key, ticks, set),
        }
    }
}

/// The limits of the cluster among these, each once.
pub fn of_cluster(shared: &[Arc<Limiter>], routes: &[Box<[Arc<Limiter>]>]) -> Arc<[Arc<Limiter>]> {
    let mut found: Vec<Arc<Limiter>> = Vec::new();
    for limiter in shared.iter().chain(routes.iter().flatten()) {
        if limiter.shared.is_some() && !found.iter().any(|one| Arc::ptr_eq(one, limiter)) {
            found.push(limiter.clone());
        }
    }
    found.into()
}

/// So many keys of a limit may pass requests between two settlements: 256 KiB, once the first does.
const OPEN_KEYS: usize = 16_384;
/// So many slots are looked at for a key.
const PROBES: usize = 16;

/// What passed since it was looked at last, by key: bounded, and without locks.
///
/// A slot is a key and a count in one atomic, so that a count never goes to another key. A slot that is emptied and the bits that say which
/// are in use may differ for a moment: a note that comes in between is found the next time.
#[derive(Debug)]
struct Open {
    size: usize,
    made: OnceLock<Made>,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Made {
    slots: Box<[AtomicU128]>,
    in_use: Box<[AtomicU64]>,
}

impl Open {
    /// `size`: a power of two, at least 64.
    fn new(size: usize) -> Self {
        Self { size, made: OnceLock::new(), lost: AtomicU64::new(0) }
    }

    fn made(&self) -> &Made {
        self.made.get_or_init(|| Made {
            slots: (0..self.size).map(|_| AtomicU128::new(0)).collect(),
            in_use: (0..self.size / 64).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    fn places(&self, key: KeyHash) -> impl Iterator<Item = usize> + use<> {
        let mask = self.size - 1;
        let start = key.mixed() as usize;
        (0..PROBES.min(self.size)).map(move |n| (start + n) & mask)
    }

    fn note(&self, key: KeyHash, used: u64) {
        let made = self.made();
        for place in self.places(key) {
            let slot = &made.slots[place];
            let mut word = slot.load(Ordering::Acquire);
            while word == 0 || key.owns(word) {
                let next = if word == 0 { key.settled(used) } else { word + u128::from(used) };
                if next == word {
                    return;
                }
                match slot.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        if word == 0 {
                            made.in_use[place / 64].fetch_or(1 << (place % 64), Ordering::Release);
                        }
                        return;
                    }
                    Err(current) => word = current,
                }
            }
        }
        self.lost.fetch_add(used, Ordering::Relaxed);
    }

    fn used(&self, key: KeyHash) -> u64 {
        let Some(made) = self.made.get() else { return 0 };
        let words = self.places(key).map(|place| made.slots[place].load(Ordering::Acquire));
        words.filter(|word| key.owns(*word)).map(|word| word as u64).sum()
    }

    fn drain(&self, each: &mut dyn FnMut(Due)) {
        let Some(made) = self.made.get() else { return };
        for (nth, bits) in made.in_use.iter().enumerate() {
            if bits.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = bits.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let place = nth * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let word = made.slots[place].swap(0, Ordering::AcqRel);
                if word != 0 {
                    each(Due { key: KeyHash::of(word), used: word as u64 });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
