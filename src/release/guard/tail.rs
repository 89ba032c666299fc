//! From which time on an answer is slow: longer than 99 in 100 of the baseline's lately.
//!
//! It need not be exact. Whatever the line is, as long as it was drawn before the second that it judges, canary and baseline
//! are held against the same; a line in an odd place only takes longer to tell them apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::watch::more;

/// Four to each doubling, from 64 µs to more than an hour.
const BUCKETS: usize = 104;
const LOWEST: u32 = 6;

/// How many answers it takes for one in a hundred to mean something.
const ENOUGH: f64 = 300.0;

/// What is kept of older answers whenever newer ones are added: every ten seconds, so that half is forgotten in a minute and a half.
const KEPT: f64 = 0.93;

fn bucket(micros: u64) -> usize {
    let micros = micros.max(1 << LOWEST);
    let doubling = micros.ilog2();
    let quarter = (micros >> (doubling - 2)) & 3;
    (((doubling - LOWEST) as usize) * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The least time of the bucket after this.
fn above(bucket: usize) -> u64 {
    let (doubling, quarter) = ((bucket + 1) / 4, (bucket + 1) % 4);
    (4 + quarter as u64) << (doubling as u32 + LOWEST - 2)
}

/// One worker's count of times.
#[derive(Debug)]
pub(super) struct Times([AtomicU64; BUCKETS]);

impl Default for Times {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Times {
    pub(super) fn count(&self, micros: u64) {
        more(&self.0[bucket(micros)]);
    }
}

/// The times of all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Histogram([u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    pub(super) fn add(&mut self, times: &Times) {
        for (sum, count) in self.0.iter_mut().zip(&times.0) {
            *sum = sum.wrapping_add(count.load(Relaxed));
        }
    }
}

/// What the baseline took lately.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    lately: [f64; BUCKETS],
    last: Histogram,
}

impl Default for Tail {
    fn default() -> Self {
        Self { lately: [0.0; BUCKETS], last: Histogram::default() }
    }
}

impl Tail {
    /// Takes in what was counted since the last time; the line, in microseconds, where there is enough for one.
    pub(super) fn line(&mut self, now: Histogram) -> Option<u64> {
        for ((lately, now), last) in self.lately.iter_mut().zip(now.0).zip(self.last.0) {
            *lately = *lately * KEPT + now.wrapping_sub(last) as f64;
        }
        self.last = now;
        let all: f64 = self.lately.iter().sum();
        if all < ENOUGH {
            return None;
        }
        let mut left = all * 0.01;
        let at = self.lately.iter().rposition(|count| {
            left -= count;
            left < 0.0
        })?;
        Some(above(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for at in 0..BUCKETS - 1 {
            let first_of_next = above(at);
            assert_eq!(bucket(first_of_next - 1), at);
            assert_eq!(bucket(first_of_next), at + 1);
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn the_line_lies_just_above_99_in_100_and_moves_with_the_baseline() {
        let (times, mut tail) = (Times::default(), Tail::default());
        let histogram = |times: &Times| {
            let mut sum = Histogram::default();
            sum.add(times);
            sum
        };
        for n in 0..299 {
            times.count(n * 100);
        }
        assert_eq!(tail.line(histogram(&times)), None, "too few");
        for n in 0..10_000 {
            times.count(n * 10);
        }
        let line = tail.line(histogram(&times)).unwrap();
        assert!((98_000..=115_000).contains(&line), "{line}");
        for _ in 0..60 {
            (0..1000).for_each(|n| times.count(1_000_000 + n));
            tail.line(histogram(&times));
        }
        let line = tail.line(histogram(&times)).unwrap();
        assert!((1_000_000..1_200_000).contains(&line), "{line}");
    }
}
