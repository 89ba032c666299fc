//! Dealing: weights kept exactly, request by request.
//!
//! With two versions the sequence is a balanced word: the first version gets request `i` unless
//! `(i·w + φ) mod 10,000 ≥ 10,000 − w`, where `w` is the weight of the second. Any run of `n` requests then holds
//! `⌊n·w⌋` or `⌈n·w⌉` of the second, wherever it starts; so each worker may start at a place `φ` of its own, and
//! several workers together stay even as well.
//!
//! With more versions no sequence is that even in all windows. The sequence is Tijdeman's (The chairman assignment
//! problem, 1980): counted from its start, each of `k` versions is never further than `1 − 1/(2k − 2)` from its share.
//! It repeats after a period, at whose end every count is exact, so that read backwards it keeps the same bound: odd
//! workers do that, lest all workers begin with the same version.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use crate::config::model::{Function, Name, Share, VersionId};

/// Deals requests to the versions with weight.
#[derive(Debug)]
pub(super) struct Dealer {
    /// Those with weight, by name.
    hands: Vec<Hand>,
    /// What the weights total.
    whole: u32,
    /// One per worker; the same across reloads that leave the weights alone.
    places: Arc<[Place]>,
    /// The sequence of three or more versions, as indices into `hands`: made when the first request needs it.
    sequence: OnceLock<Box<[u16]>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hand {
    name: Name,
    version: VersionId,
    weight: u32,
}

/// How many requests a worker has dealt, modulo the period; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place(AtomicU32);

impl Place {
    /// The place, moved on by one. Only one worker does this, so that a plain store is enough.
    fn next(&self, period: u32) -> u32 {
        let at = self.0.load(Relaxed) % period;
        self.0.store((at + 1) % period, Relaxed);
        at
    }
}

impl Dealer {
    /// `shares`: those in force.
    pub(super) fn new(function: &Function, shares: &[Share], workers: usize, previous: Option<&Self>) -> Self {
        let hands: Vec<Hand> = (0u32..)
            .zip(function.versions.iter().zip(shares))
            .filter(|(_, (_, share))| share.0 > 0)
            .map(|(id, (version, share))| Hand {
                name: version.name.clone(),
                version: VersionId(id),
                weight: u32::from(share.0),
            })
            .collect();
        let workers = workers.max(1);
        let places = match previous {
            Some(p) if p.places.len() == workers && same_weights(&p.hands, &hands) => Arc::clone(&p.places),
            _ => (0..workers).map(|_| Place::default()).collect(),
        };
        Self { whole: hands.iter().map(|h| h.weight).sum(), hands, places, sequence: OnceLock::new() }
    }

    /// The version for this worker's next request.
    pub(super) fn deal(&self, worker: usize) -> Option<VersionId> {
        let hand = match self.hands.len() {
            0 => return None,
            1 => 0,
            n => {
                let worker = worker % self.places.len();
                let place = &self.places[worker];
                if n == 2 { self.deal_two(worker, place) } else { self.deal_many(worker, place) }
            }
        };
        Some(self.hands[hand].version)
    }

    fn deal_two(&self, worker: usize, place: &Place) -> usize {
        let (weight, whole) = (u64::from(self.hands[1].weight), u64::from(self.whole));
        let at = u64::from(place.next(self.whole));
        let phase = phase(worker, whole);
        usize::from((at * weight + phase) % whole + weight >= whole)
    }

    fn deal_many(&self, worker: usize, place: &Place) -> usize {
        // Two workers that come first at once both make it, rather than that one waits for the other.
        let sequence = match self.sequence.get() {
            Some(sequence) => sequence,
            None => {
                let made = chairmen(&self.hands);
                self.sequence.get_or_init(|| made)
            }
        };
        let at = place.next(sequence.len() as u32) as usize;
        let at = if worker % 2 == 1 { sequence.len() - 1 - at } else { at };
        usize::from(sequence[at])
    }
}

fn same_weights(a: &[Hand], b: &[Hand]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name == b.name && a.weight == b.weight)
}

/// Where in the sequence a worker starts: multiples of the golden ratio lie far apart however many workers there are.
fn phase(worker: usize, whole: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let turn = GOLDEN.wrapping_mul(worker as u64);
    ((u128::from(turn) * u128::from(whole)) >> 64) as u64
}

/// Tijdeman's assignment over one period, for three or more versions.
///
/// With `n = k − 1`: at step `t`, of the versions that lag by at least `1/(2n)` of a request, the one whose lag would
/// reach `1 − 1/(2n)` soonest is next. All in integers: lags are scaled by `whole · 2n`.
fn chairmen(hands: &[Hand]) -> Box<[u16]> {
    let divisor = hands.iter().fold(0, |d, h| gcd(d, h.weight));
    let weights: Vec<i64> = hands.iter().map(|h| i64::from(h.weight / divisor)).collect();
    let period: i64 = weights.iter().sum();
    let scale = 2 * (hands.len() as i64 - 1);
    let mut lags = vec![0i64; hands.len()];
    (0..period)
        .map(|_| {
            let mut next = None;
            for (i, (lag, weight)) in lags.iter_mut().zip(&weights).enumerate() {
                *lag += weight * scale;
                if *lag < period {
                    continue;
                }
                let slack = period * scale - period - *lag;
                let sooner = next.is_none_or(|(_, best_slack, best_weight)| {
                    // slack / weight < best_slack / best_weight
                    i128::from(slack) * i128::from(best_weight) < i128::from(best_slack) * i128::from(*weight)
                });
                if sooner {
                    next = Some((i, slack, *weight));
                }
            }
            // The lags total `period · scale`, so that at least one version is eligible.
            let chosen = next.map_or(0, |(i, _, _)| i);
            lags[chosen] -= period * scale;
            chosen as u16
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
