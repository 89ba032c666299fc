//! Where answers are kept: one store per route, shared by all workers.
//!
//! A map in some shards, each behind a lock that is held for a look-up or an insertion and nothing else: no IO, no copying of
//! bodies, no freeing of them, at most [`EVICTED`] steps of making room. Who is first to ask what is not there leads a [`Flight`]; others
//! wait for it without a lock.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName};
use tokio::sync::watch;

use super::entry::Entry;
use crate::{
    config::model::Cache,
    decide::{
        Now,
        cache::question::{Use, write_variant},
    },
};

/// At most so many; fewer where each would have no room for an answer.
const SHARDS: u64 = 16;
/// Steps of making room that one insertion takes.
const EVICTED: usize = 64;
/// What a slot takes beside its key and its entry.
const OVERHEAD: u64 = 256;
/// How long nobody waits for an answer to a question whose last answer was not one to be shared: each asks for itself, and the
/// first answer that can be kept ends it.
const PASSES: Duration = Duration::from_secs(10);
/// Places for the times of [`Store::forget`].
const STRIPES: usize = 1024;

/// The answer that a leader has got, for those who wait.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Kept(Arc<Entry>),
    /// Not one to be shared: everyone asks for itself, at once.
    Passed,
    /// There was none, or one that says that the call failed.
    Failed,
    /// The leader's caller went away: another leads.
    Abandoned,
}

/// A call under way that others wait for.
#[derive(Debug)]
pub(super) struct Flight(watch::Sender<Option<Outcome>>);

impl Flight {
    pub(super) async fn outcome(&self) -> Outcome {
        let mut receiver = self.0.subscribe();
        // The sender is `self`: there is an outcome in the end, by the leader's `Drop`.
        let outcome = receiver.wait_for(Option::is_some).await;
        outcome.ok().and_then(|outcome| outcome.clone()).unwrap_or(Outcome::Abandoned)
    }
}

/// What a request finds.
#[derive(Debug)]
pub(super) enum Found {
    Fresh(Arc<Entry>),
    /// It goes to the function, and others wait for what it gets.
    Lead(Leader, Option<Arc<Entry>>),
    Wait(Arc<Flight>, Option<Arc<Entry>>),
    /// It goes to the function for itself.
    Pass(Option<Arc<Entry>>),
}

#[derive(Debug)]
pub(super) struct Store {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// The metric.
    held: Arc<AtomicU64>,
    /// Bytes of answers that are on their way in.
    arriving: AtomicU64,
    /// When something under a key of this stripe was last forgotten.
    forgotten: [AtomicU64; STRIPES],
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<Arc<[u8]>, Slot>,
    /// Every key once, about in the order in which they came.
    order: VecDeque<Arc<[u8]>>,
    held: u64,
}

#[derive(Debug, Default)]
struct Slot {
    entry: Option<Arc<Entry>>,
    /// Entries stand under longer keys: by what their requests said of these.
    vary: Option<Arc<[HeaderName]>>,
    flight: Option<Arc<Flight>>,
    passes_until: Now,
    /// Since the slot was last considered for eviction.
    used: bool,
    weight: u64,
}

impl Slot {
    fn is_over(&self, cache: &Cache, now: Now) -> bool {
        let entry = self.entry.as_ref();
        self.flight.is_none()
            && self.vary.is_none()
            && self.passes_until <= now
            && entry.is_none_or(|entry| entry.is_over(cache, now))
    }
}

/// How many shards the store of such a route has.
pub(super) fn shards_for(cache: &Cache) -> usize {
    // An entry weighs twice its body. A quarter of the room is for what arrives.
    let fits = cache.max_size / 4 * 3 / cache.max_body.saturating_mul(4).max(1);
    usize::try_from(1 << fits.clamp(1, SHARDS).ilog2()).unwrap_or(1)
}

impl Store {
    pub(super) fn new(shards: usize, held: Arc<AtomicU64>) -> Self {
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            held,
            arriving: AtomicU64::new(0),
            forgotten: [const { AtomicU64::new(0) }; STRIPES],
        }
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        self.shard_of(self.hasher.hash_one(key))
    }

    fn shard_of(&self, hash: u64) -> MutexGuard<'_, Shard> {
        let at = hash as usize & (self.shards.len() - 1);
        // A panic in a lock's few lines has left nothing half done that matters: an answer less is kept.
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When what is kept under this key was last forgotten, or another that shares its place.
    fn forgotten(&self, hash: u64) -> &AtomicU64 {
        &self.forgotten[(hash >> 32) as usize % STRIPES]
    }

    /// What there is for this question. `key` grows by what the request says of the headers that answers vary by.
    pub(super) fn find(
        self: &Arc<Self>,
        key: &mut Vec<u8>,
        headers: &HeaderMap,
        cache: &Cache,
        usage: Use,
        now: Now,
    ) -> Found {
        let hash = self.hasher.hash_one(key.as_slice());
        let forgotten = Now(self.forgotten(hash).load(Relaxed));
        let mut shard = self.shard_of(hash);
        let varies = shard.slots.get(key.as_slice()).and_then(|slot| slot.vary.clone());
        if let Some(names) = varies {
            drop(shard);
            write_variant(key, &names, headers);
            shard = self.shard(key);
        }
        let slot = shard.slots.get_mut(key.as_slice());
        let mut stale = None;
        if let Some(slot) = slot {
            slot.used = true;
            if let Some(entry) = slot.entry.as_ref().filter(|entry| entry.asked() > forgotten) {
                if entry.is_fresh(cache, now) {
                    return Found::Fresh(entry.clone());
                }
                stale = Some(entry).filter(|entry| entry.may_stand_in(cache, now)).cloned();
            }
            if slot.passes_until > now {
                return Found::Pass(stale);
            }
            if let Some(flight) = &slot.flight {
                return Found::Wait(flight.clone(), stale);
            }
        }
        if usage == Use::Read {
            return Found::Pass(stale);
        }
        let flight = Arc::new(Flight(watch::Sender::new(None)));
        let key: Arc<[u8]> = key.as_slice().into();
        let gone = self.put(&mut shard, &key, cache, now, |slot| slot.flight = Some(flight.clone()));
        drop(shard);
        drop(gone);
        Found::Lead(Leader { store: self.clone(), key, flight, is_done: false }, stale)
    }

    /// Changes a slot, which is made where there is none, and makes room. What went is to be dropped without the lock.
    fn put(
        &self,
        shard: &mut Shard,
        key: &Arc<[u8]>,
        cache: &Cache,
        now: Now,
        change: impl FnOnce(&mut Slot),
    ) -> Vec<Slot> {
        let Shard { slots, order, held } = shard;
        let slot = slots.entry(key.clone()).or_insert_with(|| {
            order.push_back(key.clone());
            Slot::default()
        });
        change(slot);
        let weight = 2 * key.len() as u64 + OVERHEAD + slot.entry.as_ref().map_or(0, |entry| entry.weight());
        let before = mem::replace(&mut slot.weight, weight);
        *held = held.saturating_add(weight).saturating_sub(before);
        let mut freed = before;
        let room = cache.max_size / 4 * 3 / self.shards.len() as u64;
        let mut gone = Vec::new();
        for step in 0..EVICTED {
            // Two are looked at in any case, so that what is over goes in the end.
            if *held <= room && step >= 2 {
                break;
            }
            let Some(oldest) = order.pop_front() else { break };
            let Some(slot) = slots.get_mut(&*oldest) else { continue };
            let spared = mem::take(&mut slot.used) && step < EVICTED / 2;
            let goes = slot.is_over(cache, now) || (*held > room && !spared);
            if !goes || oldest == *key {
                order.push_back(oldest);
                continue;
            }
            if let Some(slot) = slots.remove(&*oldest) {
                *held = held.saturating_sub(slot.weight);
                freed = freed.saturating_add(slot.weight);
                gone.push(slot);
            }
        }
        self.held.fetch_add(weight, Relaxed);
        self.held.fetch_sub(freed, Relaxed);
        gone
    }

    /// Keeps an answer. `base` is its question's key, without what answers vary by.
    pub(super) fn keep(&self, base: &[u8], entry: &Arc<Entry>, cache: &Cache, now: Now) {
        let forgotten = self.forgotten(self.hasher.hash_one(base)).load(Relaxed);
        if forgotten >= entry.asked().0 || entry.is_over(cache, now) {
            return;
        }
        let mut key: Arc<[u8]> = base.into();
        if !entry.vary().is_empty() {
            let names: Arc<[HeaderName]> = entry.vary().into();
            let mut shard = self.shard(&key);
            let gone = self.put(&mut shard, &key, cache, now, |slot| {
                slot.entry = None;
                slot.passes_until = Now(0);
                slot.vary = Some(names);
            });
            drop(shard);
            drop(gone);
            key = [base, entry.variant()].concat().into();
        }
        let mut old = None;
        let mut shard = self.shard(&key);
        let gone = self.put(&mut shard, &key, cache, now, |slot| {
            old = slot.entry.replace(entry.clone());
            slot.passes_until = Now(0);
            slot.vary = None;
        });
        drop(shard);
        drop((gone, old));
    }

    /// RFC 9111 §4.4: what was kept of this question is not what the function would say now; nor is what is on its way.
    pub(super) fn forget(&self, base: &[u8], now: Now) {
        let hash = self.hasher.hash_one(base);
        self.forgotten(hash).store(now.0, Relaxed);
        // Who asks from here on waits for none that asked before. Of what varies, the flight under way is not found: its answer
        // isn't kept either.
        let flight = self.shard_of(hash).slots.get_mut(base).and_then(|slot| slot.flight.take());
        drop(flight);
    }

    /// Takes room for `more` bytes of an answer that arrives.
    pub(super) fn arrives(&self, more: u64, cache: &Cache) -> bool {
        let all = self.arriving.fetch_add(more, Relaxed).saturating_add(more);
        let fits = all <= cache.max_size / 4;
        if !fits {
            self.arriving.fetch_sub(more, Relaxed);
        }
        fits
    }

    pub(super) fn arrived(&self, bytes: u64) {
        self.arriving.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let all = self.shards.iter_mut().map(|shard| shard.get_mut().map_or(0, |shard| shard.held)).sum();
        self.held.fetch_sub(all, Relaxed);
    }
}

/// Who gets the answer that others wait for. Dropped without an outcome, another takes its place.
#[derive(Debug)]
pub(super) struct Leader {
    store: Arc<Store>,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
    is_done: bool,
}

impl Leader {
    pub(super) fn ends(mut self, outcome: Outcome, now: Now) {
        self.end(outcome, now);
    }

    fn end(&mut self, outcome: Outcome, now: Now) {
        if mem::replace(&mut self.is_done, true) {
            return;
        }
        {
            let mut shard = self.store.shard(&self.key);
            if let Some(slot) = shard.slots.get_mut(&self.key)
                && slot.flight.as_ref().is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
            {
                slot.flight = None;
                if matches!(outcome, Outcome::Passed) {
                    let passes = u64::try_from(PASSES.as_nanos()).unwrap_or(u64::MAX);
                    slot.passes_until = Now(now.0.saturating_add(passes));
                }
            }
        }
        self.flight.0.send_replace(Some(outcome));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.end(Outcome::Abandoned, Now(0));
    }
}
