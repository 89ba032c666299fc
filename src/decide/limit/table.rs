//! Buckets by key: a lock-free table of bounded size that never forgets a bucket in use.
//!
//! # Layout
//!
//! A slot is one 128-bit atomic: the key's 63-bit tag (a keyed hash: two keys of a million sharing one has a chance of
//! 10^-7), a bit `PENDING`, and the bucket's TAT. One compare-and-swap decides a request. Slots lie in groups of 8; a
//! key has one group in each *level*. Levels grow sixteenfold from 64 slots, are opened when a new key finds no place
//! in those before, and are filled by chunks of 64 KiB, so that a limit with few keys costs little and growing never
//! costs one request much. All levels together have 1.5 slots per key of `max_keys`, for groups fill unevenly.
//!
//! A slot whose TAT is not ahead of now is a full bucket, the same as none: any new key may take its place. When a new
//! key finds all its groups in use, it shares one of 64 overflow buckets of the same rate; known keys keep theirs.
//!
//! # One bucket per key
//!
//! Two threads that meet a new key at once may find different free slots (one may have become free in between). If
//! each used its own, the key would have two full buckets. So a slot is used only once it is *settled*:
//!
//! 1. A thread that finds no settled slot of its key puts a pending one (tag, `PENDING`, a nonce) into a free slot, or
//!    takes up the pending one that it found. Nobody passes by a pending slot, and nobody else may overwrite it.
//! 2. After a sequentially consistent fence it looks through all the key's groups again. If there is a settled slot,
//!    it withdraws the pending one and starts over; if there are several pending ones, it withdraws the one farthest
//!    back and starts over.
//! 3. If there is no other, it settles the slot: a compare-and-swap from exactly that pending word, nonce included.
//!
//! Suppose that two slots P and Q of one key were settled at once, by threads X and Y. Both saw their slot pending
//! before their fence, and looked through all groups after it. Say X's fence came first: then Y's second look came
//! after it, and read from P the pending word that X saw, or a later one. Since P was still the key's when both were
//! settled, and its words from that pending one on are all the key's, Y saw the key in P, and did not settle Q. The
//! nonce makes sure that the word settled is the very one that was seen before the look.
//!
//! No thread waits for another: whoever meets a pending slot finishes the work itself.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering, fence},
};

use portable_atomic::AtomicU128;

use super::gcra::{Pace, Wait, give_back};
use crate::decide::Now;

const GROUP: usize = 8;
/// Groups in a chunk: 64 KiB.
const CHUNK: usize = 512;
const FIRST_LEVEL: usize = 64;
const OVERFLOW: usize = 64;
const PENDING: u128 = 1 << 127;

type Slot = AtomicU128;

/// Two cache lines: what a look at one level reads.
#[derive(Debug)]
#[repr(align(128))]
struct Group([Slot; GROUP]);

type Chunk = Box<[Group]>;

#[derive(Debug)]
struct Level {
    groups: usize,
    chunks: OnceLock<Box<[OnceLock<Chunk>]>>,
}

/// The buckets of a limit's keys.
#[derive(Debug)]
pub(super) struct Table {
    levels: Box<[Level]>,
    overflow: OnceLock<Box<[AtomicU64]>>,
    /// Requests that were counted by an overflow bucket.
    overflowed: AtomicU64,
    nonces: AtomicU64,
}

/// A key's hash: 63 bits, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// For a limit with one bucket.
    pub(super) const ANY: Self = Self(1);

    pub(super) fn new(hash: u64) -> Self {
        Self((hash >> 1).max(1))
    }

    pub fn number(self) -> u64 {
        self.0
    }

    /// The key with that [`number`](Self::number), of another process.
    pub(super) fn of_number(number: u64) -> Self {
        Self((number & (u64::MAX >> 1)).max(1))
    }

    pub(super) fn settled(self, tat: u64) -> u128 {
        u128::from(self.0) << 64 | u128::from(tat)
    }

    /// Whose word it is.
    pub(super) fn of(word: u128) -> Self {
        Self(tag(word))
    }

    pub(super) fn owns(self, word: u128) -> bool {
        tag(word) == self.0
    }

    /// Spread over all 64 bits, another way than the table does.
    pub(super) fn mixed(self) -> u64 {
        self.0.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 20
    }

    pub(super) fn pending(self, nonce: u64) -> u128 {
        PENDING | self.settled(nonce)
    }
}

fn tat(word: u128) -> u64 {
    word as u64
}

fn tag(word: u128) -> u64 {
    ((word & !PENDING) >> 64) as u64
}

/// One request taken from a bucket.
#[derive(Debug)]
pub(super) enum Taken<'t> {
    Slot { slot: &'t Slot, key: KeyHash, after: u64 },
    Plain { bucket: &'t AtomicU64, after: u64 },
}

impl Taken<'_> {
    /// Undoes the taking, as if it had never been.
    pub(super) fn give_back(self, pace: &Pace) {
        // Failing means that there is nothing left to give back.
        match self {
            Self::Slot { slot, key, after } => {
                let _ = slot.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                    let tat = tat(word);
                    if word != key.settled(tat) {
                        return None;
                    }
                    give_back(tat, after, pace.interval).map(|tat| key.settled(tat))
                });
            }
            Self::Plain { bucket, after } => {
                let _ = bucket
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |tat| give_back(tat, after, pace.interval));
            }
        }
    }
}

/// Takes one request from a bucket that is no slot.
pub(super) fn take_plain<'t>(bucket: &'t AtomicU64, pace: &Pace, now: u64) -> Result<Taken<'t>, Wait> {
    change_plain(bucket, |tat| pace.take(tat, now))
}

/// Gives a bucket that is no slot the TAT that `to` makes of the one that it has.
#[inline]
pub(super) fn change_plain(bucket: &AtomicU64, to: impl Fn(u64) -> Result<u64, Wait>) -> Result<Taken<'_>, Wait> {
    let mut tat = bucket.load(Ordering::Acquire);
    loop {
        let after = to(tat)?;
        match bucket.compare_exchange_weak(tat, after, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(Taken::Plain { bucket, after }),
            Err(current) => tat = current,
        }
    }
}

/// What a walk through a key's groups found.
#[derive(Default)]
pub(super) struct Look<'t> {
    /// The key's own slot. The walk ends with it.
    pub(super) settled: Option<(&'t Slot, u128)>,
    first_pending: Option<(&'t Slot, u128)>,
    last_pending: Option<(&'t Slot, u128)>,
    pub(super) free: Option<Free<'t>>,
}

pub(super) enum Free<'t> {
    Slot(&'t Slot, u128),
    /// A place in this level, once its memory is there.
    Unmade(usize),
}

impl Table {
    pub(super) fn new(max_keys: u32) -> Self {
        let mut left = (max_keys as usize).saturating_mul(3).div_ceil(2).next_multiple_of(GROUP);
        let mut size = FIRST_LEVEL;
        let mut levels = Vec::new();
        while left > 0 {
            let slots = size.min(left);
            levels.push(Level { groups: slots / GROUP, chunks: OnceLock::new() });
            left -= slots;
            size = size.saturating_mul(16);
        }
        Self {
            levels: levels.into_boxed_slice(),
            overflow: OnceLock::new(),
            overflowed: AtomicU64::new(0),
            nonces: AtomicU64::new(0),
        }
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Takes one request from the key's bucket.
    pub(super) fn take(&self, key: KeyHash, pace: &Pace, now: u64) -> Result<Taken<'_>, Wait> {
        self.change(key, now, |tat| pace.take(tat, now))
    }

    /// Gives the key's bucket the TAT that `set` makes of its own; where there is no room for another key, nothing.
    pub(super) fn put(&self, key: KeyHash, now: u64, set: impl Fn(u64) -> u64) {
        let look = self.look(key, now);
        let full = look.settled.is_none() && look.first_pending.is_none();
        if full && (look.free.is_none() || set(0) <= now) {
            return;
        }
        // It never refuses.
        let _ = self.change(key, now, |tat| Ok(set(tat)));
    }

    /// Gives the key's bucket the TAT that `to` makes of the one that it has.
    #[inline]
    pub(super) fn change(
        &self,
        key: KeyHash,
        now: u64,
        to: impl Fn(u64) -> Result<u64, Wait>,
    ) -> Result<Taken<'_>, Wait> {
        loop {
            let look = self.look(key, now);
            if let Some((slot, word)) = look.settled {
                let after = to(tat(word))?;
                if exchange(slot, word, key.settled(after)) {
                    return Ok(Taken::Slot { slot, key, after });
                }
                continue;
            }
            let (slot, word) = match (look.first_pending, look.free) {
                (Some(pending), _) => pending,
                (None, Some(Free::Slot(slot, old))) => {
                    let word = key.pending(self.nonces.fetch_add(1, Ordering::Relaxed));
                    if !exchange(slot, old, word) {
                        continue;
                    }
                    (slot, word)
                }
                (None, Some(Free::Unmade(level))) => {
                    self.levels[level].make(key, level);
                    continue;
                }
                (None, None) => {
                    let taken = change_plain(self.overflow_of(key), &to)?;
                    self.overflowed.fetch_add(1, Ordering::Relaxed);
                    return Ok(taken);
                }
            };
            // A fresh bucket lets a first request pass: the burst is at least 1.
            let after = to(0)?;
            if self.settle(key, slot, word, key.settled(after), now) {
                return Ok(Taken::Slot { slot, key, after });
            }
        }
    }

    /// Whether one request would pass now, without taking anything.
    pub(super) fn check(&self, key: KeyHash, pace: &Pace, now: u64) -> Result<(), Wait> {
        let look = self.look(key, now);
        let tat = match look {
            Look { settled: Some((_, word)), .. } => tat(word),
            Look { first_pending: None, free: None, .. } => self.overflow_of(key).load(Ordering::Acquire),
            _ => return Ok(()),
        };
        pace.take(tat, now).map(drop)
    }

    /// Makes `slot`, in which `pending` was seen, the key's one bucket; see [the module](self).
    pub(super) fn settle(&self, key: KeyHash, slot: &Slot, pending: u128, settled: u128, now: u64) -> bool {
        fence(Ordering::SeqCst);
        let look = self.look(key, now);
        if look.settled.is_some() {
            exchange(slot, pending, 0);
            return false;
        }
        let (Some((first, _)), Some((last, last_word))) = (look.first_pending, look.last_pending) else {
            return false;
        };
        if !std::ptr::eq(first, last) {
            exchange(last, last_word, 0);
            return false;
        }
        std::ptr::eq(first, slot) && exchange(slot, pending, settled)
    }

    /// Walks through the key's groups, front to back.
    pub(super) fn look(&self, key: KeyHash, now: u64) -> Look<'_> {
        let mut look = Look::default();
        for (n, level) in self.levels.iter().enumerate() {
            let Some(group) = level.group(key, n) else {
                look.free.get_or_insert(Free::Unmade(n));
                if level.chunks.get().is_none() {
                    // Levels are opened in order.
                    break;
                }
                continue;
            };
            for slot in &group.0 {
                let word = slot.load(Ordering::Acquire);
                if tag(word) == key.0 {
                    if word & PENDING == 0 {
                        look.settled = Some((slot, word));
                        return look;
                    }
                    look.first_pending.get_or_insert((slot, word));
                    look.last_pending = Some((slot, word));
                } else if look.free.is_none() && word & PENDING == 0 && tat(word) <= now {
                    look.free = Some(Free::Slot(slot, word));
                }
            }
        }
        look
    }

    fn overflow_of(&self, key: KeyHash) -> &AtomicU64 {
        let buckets = self.overflow.get_or_init(fresh_overflow);
        &buckets[key.0 as usize % OVERFLOW]
    }

    /// Takes over the buckets in use of a table whose pace was another. Keys for which this table has no place are
    /// forgotten.
    pub(super) fn carry(&self, pace: &Pace, from: &Self, from_pace: &Pace, now: Now) {
        let ticks = pace.ticks(now);
        let old_ticks = from_pace.ticks(now);
        for group in from.levels.iter().flat_map(Level::groups) {
            for slot in &group.0 {
                let word = slot.load(Ordering::Acquire);
                if word & PENDING == 0 && tat(word) > old_ticks {
                    self.adopt(KeyHash(tag(word)), pace.carry(tat(word), from_pace, now), ticks);
                }
            }
        }
        if let Some(buckets) = from.overflow.get() {
            let carried = buckets.iter().map(|b| pace.carry(b.load(Ordering::Acquire), from_pace, now).into());
            // Only a table that nobody uses yet carries, so that it has none.
            let _ = self.overflow.set(carried.collect());
        }
        let overflowed = from.overflowed();
        self.overflowed.store(overflowed, Ordering::Relaxed);
    }

    /// The buckets in use, with their keys.
    pub(super) fn in_use(&self, now: u64) -> impl Iterator<Item = (KeyHash, u64)> {
        let slots = self.levels.iter().flat_map(Level::groups).flat_map(|group| &group.0);
        slots.filter_map(move |slot| {
            let word = slot.load(Ordering::Acquire);
            (word & PENDING == 0 && tat(word) > now).then(|| (KeyHash(tag(word)), tat(word)))
        })
    }

    fn adopt(&self, key: KeyHash, tat: u64, now: u64) {
        loop {
            match self.look(key, now).free {
                Some(Free::Slot(slot, old)) => {
                    if exchange(slot, old, key.settled(tat)) {
                        return;
                    }
                }
                Some(Free::Unmade(level)) => self.levels[level].make(key, level),
                None => return,
            }
        }
    }

    /// Bytes of buckets that have been allocated.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.levels.iter().flat_map(Level::groups).map(size_of_val).sum()
    }

    /// Memory for the key in the first level.
    #[cfg(test)]
    pub(super) fn make_first(&self, key: KeyHash) {
        self.levels[0].make(key, 0);
    }

    #[cfg(test)]
    pub(super) fn nonce(&self) -> u64 {
        self.nonces.fetch_add(1, Ordering::Relaxed)
    }

    /// How many slots the key has, pending ones too.
    #[cfg(test)]
    pub(super) fn words_of(&self, key: KeyHash) -> usize {
        self.levels
            .iter()
            .flat_map(Level::groups)
            .flat_map(|g| &g.0)
            .filter(|s| tag(s.load(Ordering::SeqCst)) == key.0)
            .count()
    }

    /// How many settled slots the key has.
    #[cfg(test)]
    pub(super) fn slots_of(&self, key: KeyHash) -> usize {
        self.levels
            .iter()
            .flat_map(Level::groups)
            .flat_map(|g| &g.0)
            .filter(|s| {
                let word = s.load(Ordering::SeqCst);
                tag(word) == key.0 && word & PENDING == 0
            })
            .count()
    }
}

impl Level {
    /// Where the key's group is: which chunk, and which group of it.
    fn place(&self, key: KeyHash, level: usize) -> (usize, usize) {
        // Another odd factor for each level, so that keys which share a group here don't there.
        let factor = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(2 * level as u64 + 1);
        let mixed = u128::from(key.0.wrapping_mul(factor));
        let group = ((mixed * self.groups as u128) >> 64) as usize;
        (group / CHUNK, group % CHUNK)
    }

    fn group(&self, key: KeyHash, level: usize) -> Option<&Group> {
        let (chunk, group) = self.place(key, level);
        Some(&self.chunks.get()?[chunk].get()?[group])
    }

    /// Makes the memory of the key's group. Threads that do so at once each make it and all but one drop theirs,
    /// rather than that they wait for one.
    fn make(&self, key: KeyHash, level: usize) {
        let (chunk, _) = self.place(key, level);
        let chunks = match self.chunks.get() {
            Some(chunks) => chunks,
            None => {
                let made = (0..self.groups.div_ceil(CHUNK)).map(|_| OnceLock::new());
                let made = made.collect();
                self.chunks.get_or_init(|| made)
            }
        };
        if chunks[chunk].get().is_none() {
            let groups = (self.groups - chunk * CHUNK).min(CHUNK);
            let fresh = || Group([const { Slot::new(0) }; GROUP]);
            // Losing the race is as good as winning it.
            let _ = chunks[chunk].set((0..groups).map(|_| fresh()).collect());
        }
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.chunks.get().into_iter().flatten().filter_map(OnceLock::get).flatten()
    }
}

fn fresh_overflow() -> Box<[AtomicU64]> {
    (0..OVERFLOW).map(|_| AtomicU64::new(0)).collect()
}

pub(super) fn exchange(slot: &Slot, old: u128, new: u128) -> bool {
    slot.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
}
