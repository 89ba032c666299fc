//! Whether the process is short of memory, so that new work is turned away: asked by every request, told by one task.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// New work is shed above this share of the limit, in percent,
const BEGIN: u64 = 90;
/// until less than this is used.
const END: u64 = 85;

#[derive(Debug, Default)]
pub struct Shedding {
    is_on: AtomicBool,
    /// In bytes; 0: none is known.
    limit: AtomicU64,
    used: AtomicU64,
}

impl Shedding {
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Takes in what is used, and what may be: whether that turned it on or off.
    pub fn look(&self, used: u64, limit: Option<u64>) -> Option<bool> {
        let limit = limit.unwrap_or(0);
        self.limit.store(limit, Relaxed);
        self.used.store(used, Relaxed);
        let was_on = self.is_on();
        let percent = if was_on { END } else { BEGIN };
        let is_on = limit != 0 && used > limit / 100 * percent;
        self.is_on.store(is_on, Relaxed);
        (is_on != was_on).then_some(is_on)
    }

    pub fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Relaxed)).filter(|limit| *limit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_above_90_percent_and_ends_below_85() {
        let shedding = Shedding::default();
        let look = |used| (shedding.look(used, Some(1_000)), shedding.is_on());
        assert_eq!(look(900), (None, false));
        assert_eq!(look(901), (Some(true), true));
        assert_eq!(look(860), (None, true));
        assert_eq!(look(850), (Some(false), false));
        assert_eq!(shedding.look(u64::MAX, None), None);
        assert!(!shedding.is_on() && shedding.limit().is_none());
    }
}
