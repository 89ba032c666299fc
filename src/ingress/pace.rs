//! How fast a caller must be where it alone is waited for: a store of time that its bytes fill and its waits empty.

use std::{num::NonZeroU32, time::Duration};

/// What the store holds at the beginning of a request, at most: a slow start is no attack.
const GRACE: Duration = Duration::from_secs(20);
/// How much of that it holds at most. Who was fast for an hour may not be slow for the next.
const MOST: u64 = 2;

/// Of one connection. In bytes, so that what comes in one go costs no division.
#[derive(Debug)]
pub struct Pace {
    /// Bytes a second; 0: any pace will do.
    rate: u64,
    grace: u64,
    left: u64,
    /// Bytes of the request that are in `left` already.
    counted: u64,
    /// When the present wait began, in milliseconds.
    since: Option<u64>,
}

impl Pace {
    /// `pause`: what may pass between two reads or writes. One such pause is forgiven.
    pub fn new(rate: Option<NonZeroU32>, pause: Duration) -> Self {
        let rate = rate.map_or(0, |rate| rate.get().into());
        let grace = rate * u64::try_from(pause.min(GRACE).as_millis()).unwrap_or(u64::MAX) / 1_000;
        Self { rate, grace, left: grace, counted: 0, since: None }
    }

    /// A request begins.
    pub fn begin(&mut self) {
        (self.left, self.counted, self.since) = (self.grace, 0, None);
    }

    /// A wait begins, `moved` bytes into the request: how long it may last. `None`: as long as others allow.
    pub fn waits(&mut self, now_ms: u64, moved: u64) -> Option<Duration> {
        if self.rate == 0 {
            return None;
        }
        let fresh = moved.saturating_sub(self.counted);
        self.counted = moved;
        self.left = self.left.saturating_add(fresh).min(self.grace * MOST);
        self.since = Some(now_ms);
        Some(Duration::from_millis(self.left.saturating_mul(1_000) / self.rate))
    }

    /// Bytes move again.
    pub fn goes_on(&mut self, now_ms: u64) {
        if let Some(since) = self.since.take() {
            let waited = now_ms.saturating_sub(since);
            self.left = self.left.saturating_sub(waited.saturating_mul(self.rate) / 1_000);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a caller lasts that sends `bytes` every `pause`.
    fn lasts(rate: u32, bytes: u64, pause_ms: u64) -> Option<u64> {
        let mut pace = Pace::new(NonZeroU32::new(rate), Duration::from_secs(10));
        let (mut now, mut moved) = (5_000, 0);
        for _ in 0..10_000 {
            let may = pace.waits(now, moved)?.as_millis() as u64;
            if may < pause_ms {
                return Some(now + may - 5_000);
            }
            now += pause_ms;
            pace.goes_on(now);
            moved += bytes;
        }
        None
    }

    #[test]
    fn who_trickles_is_cut_behind_the_grace_and_who_keeps_pace_is_not() {
        assert_eq!(lasts(500, 0, 1_000), Some(10_000));
        assert_eq!(lasts(500, 1, 1_000), Some(10_020));
        assert_eq!(lasts(500, 250, 1_000), Some(19_500));
        assert_eq!(lasts(500, 500, 1_000), None);
        assert_eq!(lasts(500, 100, 100), None);
        assert_eq!(lasts(0, 0, 60_000), None);
    }

    #[test]
    fn what_was_fast_is_soon_forgotten() {
        let mut pace = Pace::new(NonZeroU32::new(1_000), Duration::from_secs(60));
        assert_eq!(pace.waits(0, 1 << 40), Some(GRACE * 2));
        pace.goes_on(1_000);
        assert_eq!(pace.waits(2_000, 1 << 40), Some(GRACE * 2 - Duration::from_secs(1)));
        pace.begin();
        assert_eq!(pace.waits(9_000, 0), Some(GRACE));
    }

    proptest::proptest! {
        #[test]
        fn never_more_than_the_store_and_never_a_panic(steps in proptest::collection::vec((0..u64::MAX / 4, 0..1u64 << 40), 1..50), rate in 1..u32::MAX) {
            let mut pace = Pace::new(NonZeroU32::new(rate), Duration::from_secs(60));
            let (mut now, mut moved) = (0u64, 0u64);
            for (time, bytes) in steps {
                now = now.saturating_add(time);
                pace.goes_on(now);
                moved = moved.saturating_add(bytes);
                proptest::prop_assert!(pace.waits(now, moved).is_some_and(|may| may <= GRACE * 2));
            }
        }
    }
}
