//! The arithmetic of one bucket: GCRA (the generic cell rate algorithm), in whole ticks.
//!
//! A bucket is one number, its *TAT*: when it will be full again (the theoretical arrival time). Each request that
//! passes pushes it one *interval* (period ÷ count) further; a request passes if that leaves it no further ahead than
//! the *depth* (burst × interval). A TAT that is not ahead of now is a full bucket, whatever its value.
//!
//! A tick is as fine as makes the interval a whole number, down to 1/64 ns: 7/s is exact in ticks of 1/7 ns,
//! 3,000,000/s in thirds. Rates for which that isn't enough (997/s) have their interval rounded up to 1/64 ns, so that
//! never too many pass: over a year, 997/s is 1 in 64 million too slow. Where a bucket takes more than 2 years to refill
//! (a million at 1/d), ticks are coarser. Ticks of 1/64 ns last for 9 years of uptime.

use std::{num::NonZeroU32, time::Duration};

use crate::{config::model::Rate, decide::Now};

/// Depths stay below this, so that a TAT never overflows.
const MAX_DEPTH: u128 = 1 << 62;

/// A rate and a burst in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// Ticks per nanosecond, where ticks are fine; 1 where they are coarse.
    per_nano: u64,
    /// A tick is 2^coarse nanoseconds, where ticks are coarse; else 0.
    coarse: u32,
    /// Ticks between two requests at the rate.
    pub(super) interval: u64,
    /// Ticks in which an empty bucket fills.
    pub(super) depth: u64,
}

/// A refusal: how many ticks to wait until one request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub(super) u64);

impl Pace {
    pub(super) fn new(rate: Rate, burst: NonZeroU32) -> Self {
        let period = rate.period.as_nanos().max(1);
        let count = u128::from(rate.count.get());
        let burst = u128::from(burst.get());
        let exact = count / gcd(count, period);
        let (mut per_nano, mut coarse) = (exact.min(64), 0);
        if (period * per_nano).div_ceil(count) * burst > MAX_DEPTH {
            per_nano = 1;
        }
        let interval = |per_nano: u128, coarse: u32| (period * per_nano).div_ceil(count << coarse).max(1);
        while interval(per_nano, coarse) * burst > MAX_DEPTH {
            coarse += 1;
        }
        let interval = interval(per_nano, coarse);
        Self { per_nano: per_nano as u64, coarse, interval: interval as u64, depth: (interval * burst) as u64 }
    }

    /// Now, in ticks.
    pub(super) fn ticks(&self, now: Now) -> u64 {
        now.0.saturating_mul(self.per_nano) >> self.coarse
    }

    /// How long ticks last, rounded up.
    pub(super) fn duration(&self, ticks: u64) -> Duration {
        let nanos = (u128::from(ticks) << self.coarse).div_ceil(u128::from(self.per_nano));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The pace of one among so many who share a bucket: each of its requests counts as if all of them had let one pass. So together they
    /// keep to the rate, whatever each knows of the others, and the depth stays a time that all mean alike.
    pub(super) fn among(&self, members: u64) -> Self {
        let interval = u128::from(self.interval) * u128::from(members);
        let interval = interval.min(MAX_DEPTH) as u64;
        Self { interval, depth: self.depth.max(interval), ..*self }
    }

    /// How many nanoseconds ticks last.
    pub(super) fn nanos(&self, ticks: u64) -> f64 {
        ticks as f64 * f64::from(1u32 << self.coarse.min(31)) / self.per_nano as f64
    }

    /// So many nanoseconds in ticks, rounded up.
    pub(super) fn of_nanos(&self, nanos: u64) -> u64 {
        let ticks = (u128::from(nanos) * u128::from(self.per_nano)).div_ceil(1 << self.coarse);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// The TAT after one more request at `now`.
    ///
    /// # Errors
    ///
    /// How long to wait, if the bucket has none left.
    pub(super) fn take(&self, tat: u64, now: u64) -> Result<u64, Wait> {
        let after = tat.saturating_sub(now).saturating_add(self.interval);
        match after.checked_sub(self.depth) {
            None | Some(0) => Ok(now.saturating_add(after)),
            Some(missing) => Err(Wait(missing)),
        }
    }

    /// The TAT of this pace with as many requests used as `tat` has of pace `of`, at most all.
    pub(super) fn carry(&self, tat: u64, of: &Self, now: Now) -> u64 {
        let debt = u128::from(tat.saturating_sub(of.ticks(now)));
        let debt = (debt * u128::from(self.interval)).div_ceil(u128::from(of.interval));
        let debt = u64::try_from(debt).unwrap_or(u64::MAX).min(self.depth);
        self.ticks(now).saturating_add(debt)
    }
}

/// The TAT after one of the requests that it counts is given back, or `None` if nothing is to be given back.
///
/// `after` is what the TAT was when the request had been taken. As long as the bucket has not been full in between,
/// every other request moved the TAT by whole intervals. If it has been full, the taken one has long refilled, and
/// giving it back would forgive someone else's.
pub(super) fn give_back(tat: u64, after: u64, interval: u64) -> Option<u64> {
    tat.abs_diff(after).is_multiple_of(interval).then(|| tat.saturating_sub(interval))
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}
