//! Who has had an error counted lately.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bits of one turn; a power of two.
const BITS: usize = 1 << 16;

/// At most one error per caller and turn, for all workers together and without a lock.
///
/// One caller that tries again and again would be taken for many unlucky ones: with errors in clusters of twenty, a test that counts
/// each stops half of all healthy canaries. So a caller's first error counts, in whichever version it fell, and his next after
/// one turn to two. Callers are bits of a hash: two that share one count as one, which loses an error now and
/// then, in both versions alike. 24 KiB, whatever happens.
#[derive(Debug)]
pub struct Seen {
    /// The turn that is marked in, the one before it, and one that is being wiped.
    turns: [Box<[AtomicU64]>; 3],
    turn: AtomicUsize,
}

impl Seen {
    pub fn new() -> Self {
        let empty = || (0..BITS / 64).map(|_| AtomicU64::new(0)).collect();
        Self { turns: [empty(), empty(), empty()], turn: AtomicUsize::new(0) }
    }

    /// Whether this is the caller's first for a turn; marks him if so.
    pub fn is_first(&self, caller: u64) -> bool {
        let bit = caller as usize % BITS;
        let (word, mask) = (bit / 64, 1 << (bit % 64));
        let now = self.turn.load(Relaxed);
        let before = &self.turns[(now + 2) % 3][word];
        // Two workers at once: one of them finds it unmarked.
        before.load(Relaxed) & mask == 0 && self.turns[now % 3][word].fetch_or(mask, Relaxed) & mask == 0
    }

    /// Begins the next turn. One thread's business.
    pub fn turn(&self) {
        let next = (self.turn.load(Relaxed) + 1) % 3;
        self.turn.store(next, Relaxed);
        for word in &self.turns[(next + 1) % 3] {
            word.store(0, Relaxed);
        }
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_caller_counts_once_for_at_least_a_turn_and_at_most_two() {
        let seen = Seen::new();
        assert!(seen.is_first(7));
        assert!(!seen.is_first(7) && seen.is_first(8));
        seen.turn();
        assert!(!seen.is_first(7), "the turn before counts too");
        seen.turn();
        assert!(seen.is_first(7));
        for _ in 0..10 {
            seen.turn();
            seen.turn();
            assert!(seen.is_first(7) && !seen.is_first(7));
        }
    }

    #[test]
    fn of_many_workers_at_once_one_is_the_first() {
        let seen = Seen::new();
        let first = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let marked = (0..1000).filter(|caller| seen.is_first(*caller)).count();
                    first.fetch_add(marked, Relaxed);
                });
            }
        });
        assert_eq!(first.into_inner(), 1000);
    }
}
