//! What a limiter's buckets owe, for the process that takes over; and again what they have come to owe since, while both serve.
//!
//! A debt is how far a TAT is ahead of now, in ticks: the time until the bucket is full. Both processes go by one clock, that of the boot.
//! Debts add up: requests that one process lets pass after it has told are a debt more, which the other adds when it hears of it.

use std::{collections::HashMap, sync::atomic::Ordering};

use super::{Buckets, KeyHash, Limiter, gcra::Wait, table::change_plain};
use crate::decide::Now;

/// What the buckets of a limiter owe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Debts {
    /// What it counts by: other keys mean nothing here.
    pub per: String,
    /// Ticks between two requests at its rate.
    pub interval: u64,
    /// By the key's number.
    pub of: Vec<(u64, u64)>,
}

/// What was told already, so that it is not told twice: by key, the TAT.
#[derive(Debug, Default)]
pub struct Told(HashMap<u64, u64>);

impl Limiter {
    /// What its buckets owe beyond what was told.
    pub fn debts(&self, now: Now, told: &mut Told) -> Debts {
        let ticks = self.pace.ticks(now);
        let mut of = Vec::new();
        let mut tell = |key: u64, tat: u64| {
            let before = told.0.insert(key, tat).unwrap_or(0).max(ticks);
            if tat > before {
                of.push((key, tat - before));
            }
        };
        match &self.counts.buckets {
            Buckets::One(bucket) => tell(KeyHash::ANY.number(), bucket.0.load(Ordering::Acquire)),
            Buckets::Keyed(table) => table.in_use(ticks).for_each(|(key, tat)| tell(key.number(), tat)),
        }
        // A full bucket owes nothing, and what it owed is paid.
        told.0.retain(|_, tat| *tat > ticks);
        Debts { per: format!("{:?}", self.limit.per), interval: self.pace.interval, of }
    }

    /// Adds what another process's buckets owe. Of another rate as many requests as those are, and never more than twice a bucket.
    pub fn owe(&self, debts: &Debts, now: Now) {
        if debts.per != format!("{:?}", self.limit.per) {
            return;
        }
        let (ticks, pace) = (self.pace.ticks(now), &self.pace);
        for (key, debt) in &debts.of {
            let debt = u128::from(*debt) * u128::from(pace.interval) / u128::from(debts.interval.max(1));
            let debt = u64::try_from(debt).unwrap_or(u64::MAX);
            let to = |tat: u64| -> Result<u64, Wait> {
                // More than a bucket's worth, for it may be empty here as well: what the other lets pass then is waited for. But not for ever.
                let owed = tat.saturating_sub(ticks).saturating_add(debt).min(pace.depth.saturating_mul(2));
                Ok(ticks.saturating_add(owed))
            };
            // Which never refuses.
            let _ = match &self.counts.buckets {
                Buckets::One(bucket) => change_plain(&bucket.0, to),
                Buckets::Keyed(table) => table.change(KeyHash::of_number(*key), ticks, to),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::{
        config::model::{Limit, LimitKey, LimitScope, Rate},
        decide::limit::{Ask, take_all},
    };

    const SECOND: u64 = 1_000_000_000;

    fn limit(per_second: u32, burst: u32, per: LimitKey) -> Limit {
        let rate = Rate { count: NonZeroU32::new(per_second).unwrap(), period: std::time::Duration::from_secs(1) };
        let burst = NonZeroU32::new(burst).unwrap();
        Limit {
            rate,
            burst,
            per,
            max_keys: NonZeroU32::new(1000).unwrap(),
            dry_run: false,
            scope: LimitScope::Instance,
        }
    }

    fn passes(limiter: &Limiter, key: KeyHash, at: u64) -> bool {
        take_all(&[Ask { limiter, key }], Now(at)).is_ok()
    }

    fn key(n: u64) -> KeyHash {
        KeyHash::new(n << 20)
    }

    #[test]
    fn what_was_used_is_used_up_over_there_too_by_key() {
        for per in [LimitKey::Route, LimitKey::ClientIp] {
            let limit = limit(1, 5, per.clone());
            let (old, new) = (Limiter::new(&limit, "l".into()), Limiter::new(&limit, "l".into()));
            for n in 0..5 {
                assert!(passes(&old, key(1), 100 * SECOND), "{n}");
            }
            let mut told = Told::default();
            new.owe(&old.debts(Now(100 * SECOND), &mut told), Now(100 * SECOND));
            assert!(!passes(&new, key(1), 100 * SECOND), "{per:?}");
            assert!(passes(&new, key(1), 101 * SECOND), "{per:?}");
            // Nothing more was used: nothing more is told.
            assert!(old.debts(Now(100 * SECOND), &mut told).of.is_empty());
            if per != LimitKey::Route {
                assert!(passes(&new, key(2), 100 * SECOND));
            }
        }
    }

    #[test]
    fn together_two_processes_let_no_more_pass_than_one() {
        let limit = limit(10, 10, LimitKey::ClientIp);
        let (old, new) = (Limiter::new(&limit, "l".into()), Limiter::new(&limit, "l".into()));
        let mut told = Told::default();
        let mut passed = 0;
        // Ten seconds; both are asked all the time, and the old one tells ten times a second.
        for tick in 0..10_000_u64 {
            let at = 100 * SECOND + tick * SECOND / 1000;
            passed += u64::from(passes(&old, key(1), at)) + u64::from(passes(&new, key(1), at));
            if tick % 100 == 0 {
                new.owe(&old.debts(Now(at), &mut told), Now(at));
            }
        }
        // The old one's rate and burst, whose debts keep the new one empty; and that one's burst, which it had at the start.
        assert!((100..=140).contains(&passed), "{passed}");
    }

    #[test]
    fn another_rate_owes_as_many_requests_and_another_key_nothing() {
        let old = Limiter::new(&limit(1, 10, LimitKey::ClientIp), "l".into());
        for _ in 0..6 {
            assert!(passes(&old, key(1), 100 * SECOND));
        }
        let debts = old.debts(Now(100 * SECOND), &mut Told::default());
        let faster = Limiter::new(&limit(10, 10, LimitKey::ClientIp), "l".into());
        faster.owe(&debts, Now(100 * SECOND));
        assert_eq!((0..10).filter(|_| passes(&faster, key(1), 100 * SECOND)).count(), 4);
        let other = Limiter::new(&limit(1, 10, LimitKey::Client), "l".into());
        other.owe(&debts, Now(100 * SECOND));
        assert_eq!((0..20).filter(|_| passes(&other, key(1), 100 * SECOND)).count(), 10);
        // Hostile or absurd numbers fill a bucket, no more.
        let absurd = Debts { per: debts.per, interval: 0, of: vec![(0, u64::MAX), (u64::MAX, u64::MAX)] };
        faster.owe(&absurd, Now(100 * SECOND));
        assert!(passes(&faster, KeyHash::of_number(0), 102 * SECOND));
    }
}
