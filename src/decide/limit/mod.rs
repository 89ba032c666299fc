//! How many requests pass: exact limits on one machine, without locks.
//!
//! In: the limits that a request is under ([`Ask`]s) and the time. Out: it passes and has taken one from each, or it is
//! [`Refused`] and has taken from none. `gcra` has the arithmetic, `table` the buckets of keys, `shared` what several gateposts
//! have in common.

mod carry;
mod gcra;
mod key;
mod shared;
mod table;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;

use super::Now;
use crate::config::model::{Limit, LimitKey, Name};

pub use carry::{Debts, Told};
use gcra::{Pace, Wait};
pub use key::{KeyFacts, Seed, parameter};
pub use shared::{Due, Shared, Standing, of_cluster};
pub use table::KeyHash;
use table::{Table, Taken, take_plain};

/// A limit with its counts.
#[derive(Debug)]
pub struct Limiter {
    label: Name,
    limit: Limit,
    pace: Pace,
    policy: HeaderValue,
    /// Shared with the limiters before it, as long as what it counts is the same.
    counts: Arc<Counts>,
    /// `None`: it counts for this process alone.
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Counts {
    buckets: Buckets,
    would_refuse: AtomicU64,
}

#[derive(Debug)]
enum Buckets {
    One(Lone),
    Keyed(Table),
}

/// A bucket that all workers may be at: on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Lone(AtomicU64);

/// A limiter that a request is under, and the bucket by which it counts the request.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'l> {
    pub limiter: &'l Limiter,
    pub key: KeyHash,
}

/// A request that may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Which of the asks refused it; of several, the one to wait for longest.
    pub index: usize,
    /// How long to wait: a caller alone on its key passes then.
    pub wait: Duration,
}

impl Refused {
    /// `Retry-After` in seconds (RFC 9110 §10.2.3): rounded up, 1 to 300.
    pub fn retry_after(&self) -> u64 {
        self.seconds().clamp(1, 300)
    }

    fn seconds(&self) -> u64 {
        self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0)
    }
}

impl Limiter {
    /// A limiter that has counted nothing yet; `label` names it in headers and metrics.
    pub fn new(limit: &Limit, label: Name) -> Self {
        let counts = Counts::new(limit);
        Self::with(limit, label, counts.into())
    }

    fn with(limit: &Limit, label: Name, counts: Arc<Counts>) -> Self {
        let pace = Pace::new(limit.rate, limit.burst);
        Self { policy: policy(&label, limit, &pace), label, limit: limit.clone(), pace, counts, shared: None }
    }

    /// The limiter of a new config that takes the place of `previous`, keeping its counts.
    ///
    /// Nothing changed: `previous` itself. Only `dry_run` or the label changed: the same buckets. Another rate, burst
    /// or `max_keys`: new buckets from which as many requests are used as before, at most all; requests that `previous`
    /// lets pass from here on are not carried. Another `per` counts something else, and starts afresh.
    pub fn carried(limit: &Limit, label: Name, previous: &Arc<Self>, now: Now) -> Arc<Self> {
        let old = &previous.limit;
        if *limit == *old && label == previous.label {
            return Arc::clone(previous);
        }
        if limit.per != old.per {
            return Arc::new(Self::new(limit, label));
        }
        let unchanged = (limit.rate, limit.burst, limit.max_keys) == (old.rate, old.burst, old.max_keys);
        if unchanged {
            return Arc::new(Self::with(limit, label, Arc::clone(&previous.counts)));
        }
        let fresh = Self::new(limit, label);
        fresh.counts.carry(&fresh.pace, &previous.counts, &previous.pace, now);
        Arc::new(fresh)
    }

    pub fn label(&self) -> &Name {
        &self.label
    }

    /// Requests that this limit would have refused, had it not been a `dry_run`, and that no other limit refused.
    pub fn would_refuse(&self) -> u64 {
        self.counts.would_refuse.load(Ordering::Relaxed)
    }

    /// Requests of new keys that passed by a shared bucket, since all of `max_keys` were in use.
    pub fn overflowed(&self) -> u64 {
        match &self.counts.buckets {
            Buckets::One(_) => 0,
            Buckets::Keyed(table) => table.overflowed(),
        }
    }

    /// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): `"label";q=50;w=1`.
    ///
    /// A bucket has no fixed window. `q` is its size, the most that can pass at once; `w` is the time in which it fills
    /// from empty, in whole seconds rounded up, at least 1. So a caller that keeps to `q` per `w` is never refused if
    /// it spreads them evenly.
    pub fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// `RateLimit` (same draft) for a request that this limiter refused: `"label";r=0;t=2`: nothing is left, and in
    /// `t` seconds the next one passes.
    pub fn state(&self, refused: &Refused) -> HeaderValue {
        field(format!("{};r=0;t={}", quoted(&self.label), refused.seconds().max(1)))
    }

    /// The pace that this process keeps to.
    fn own_pace(&self) -> Pace {
        match &self.shared {
            None => self.pace,
            Some(shared) => shared.pace(&self.pace),
        }
    }

    fn take(&self, key: KeyHash, pace: &Pace, now: Now) -> Result<Taken<'_>, Wait> {
        let ticks = pace.ticks(now);
        match &self.counts.buckets {
            Buckets::One(bucket) => take_plain(&bucket.0, pace, ticks),
            Buckets::Keyed(table) => table.take(key, pace, ticks),
        }
    }

    fn check(&self, key: KeyHash, now: Now) -> Result<(), Wait> {
        let pace = &self.own_pace();
        let ticks = pace.ticks(now);
        match &self.counts.buckets {
            Buckets::One(bucket) => pace.take(bucket.0.load(Ordering::Acquire), ticks).map(drop),
            Buckets::Keyed(table) => table.check(key, pace, ticks),
        }
    }

    /// Whether a request of that key would pass now; takes nothing.
    ///
    /// # Errors
    ///
    /// How long it would have to wait.
    pub fn peek(&self, key: KeyHash, now: Now) -> Result<(), Refused> {
        self.check(key, now).map_err(|wait| self.refusal(0, key, wait))
    }

    fn refusal(&self, index: usize, key: KeyHash, wait: Wait) -> Refused {
        let wait = match &self.shared {
            None => wait,
            Some(shared) => shared.refused(key, wait, &self.pace),
        };
        Refused { index, wait: self.pace.duration(wait.0) }
    }
}

impl Counts {
    fn new(limit: &Limit) -> Self {
        Self {
            buckets: match limit.per {
                LimitKey::Route => Buckets::One(Lone::default()),
                _ => Buckets::Keyed(Table::new(limit.max_keys.get())),
            },
            would_refuse: AtomicU64::new(0),
        }
    }

    /// Takes over what has been used. Only for counts that nobody uses yet.
    fn carry(&self, pace: &Pace, from: &Self, from_pace: &Pace, now: Now) {
        match (&self.buckets, &from.buckets) {
            (Buckets::One(to), Buckets::One(from)) => {
                let tat = pace.carry(from.0.load(Ordering::Acquire), from_pace, now);
                to.0.store(tat, Ordering::Release);
            }
            (Buckets::Keyed(to), Buckets::Keyed(from)) => to.carry(pace, from, from_pace, now),
            _ => {}
        }
        self.would_refuse.store(from.would_refuse.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Takes one request from every limiter, or from none.
///
/// All are asked before the first is taken from, so that a refused request doesn't take from one what another caller
/// needs, even for a moment; where one is emptied by others in between, what was taken is given back. A `dry_run` limit
/// never refuses; a request that it would have refused takes nothing from it and is counted ([`Limiter::would_refuse`]).
///
/// `now` has to count from less than 9 years ago: of a process or a boot, not of Unix time.
///
/// # Errors
///
/// [`Refused`]: by which, and how long to wait.
pub fn take_all(asks: &[Ask], now: Now) -> Result<(), Refused> {
    if asks.len() > 1 {
        let longest = asks
            .iter()
            .enumerate()
            .filter(|(_, ask)| !ask.limiter.limit.dry_run)
            .filter_map(|(n, ask)| Some(ask.limiter.refusal(n, ask.key, ask.limiter.check(ask.key, now).err()?)))
            .max_by_key(|refused| refused.wait);
        if let Some(refused) = longest {
            return Err(refused);
        }
    }
    take_from(asks, 0, now)
}

/// Takes from the nth limiter and those after it. Each level of the recursion remembers what it took, on the stack.
fn take_from(asks: &[Ask], n: usize, now: Now) -> Result<(), Refused> {
    let Some(Ask { limiter, key }) = asks.get(n) else {
        return Ok(());
    };
    let pace = limiter.own_pace();
    match limiter.take(*key, &pace, now) {
        Ok(taken) => {
            let rest = take_from(asks, n + 1, now);
            if rest.is_err() {
                taken.give_back(&pace);
            } else if let Some(shared) = &limiter.shared {
                shared.took(*key);
            }
            rest
        }
        Err(wait) if limiter.limit.dry_run => {
            if let Some(shared) = &limiter.shared {
                shared.refused(*key, wait, &limiter.pace);
            }
            take_from(asks, n + 1, now)?;
            limiter.counts.would_refuse.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        Err(wait) => Err(limiter.refusal(n, *key, wait)),
    }
}

fn policy(label: &str, limit: &Limit, pace: &Pace) -> HeaderValue {
    let fill = pace.duration(pace.depth);
    let window = fill.as_secs() + u64::from(fill.subsec_nanos() > 0);
    field(format!("{};q={};w={}", quoted(label), limit.burst, window.max(1)))
}

/// A String of structured fields (RFC 9651 §3.3.3): printable ASCII between quotes; other characters become `?`.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

fn field(text: String) -> HeaderValue {
    // Printable ASCII always is a valid value.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
