//! Which requests a function's mirror gets a copy of.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::config::model::Share;

/// Deals copies evenly, not by dice: in any run of a worker's requests the copied ones are within one of the share. Each worker's
/// first is copied, so that whoever tries it sees it.
#[derive(Debug)]
pub struct Deal {
    share: u32,
    /// By worker: what is owed to the mirror, in hundredths of a percent of a request.
    owed: Box<[Owed]>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Owed(AtomicU32);

const WHOLE: u32 = Share::WHOLE.0 as u32;

impl Deal {
    pub fn new(share: Share, workers: usize) -> Self {
        let share = u32::from(share.0).min(WHOLE);
        Self { share, owed: (0..workers).map(|_| Owed(AtomicU32::new(WHOLE - share))).collect() }
    }

    /// Whether this request is copied. `worker` is the calling thread's number, and no other thread has it.
    pub fn next(&self, worker: usize) -> bool {
        let Some(Owed(owed)) = self.owed.get(worker) else { return false };
        let now = owed.load(Relaxed) + self.share;
        owed.store(now % WHOLE, Relaxed);
        now >= WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

        #[test]
        fn in_any_run_the_copies_are_within_one_of_the_share(share in 1u16..=10_000, from in 0usize..500, length in 1usize..500) {
            let deal = Deal::new(Share(share), 2);
            let dealt: Vec<bool> = (0..from + length).map(|_| deal.next(1)).collect();
            assert!(dealt[0]);
            let copies = dealt[from..].iter().filter(|copied| **copied).count() as f64;
            let meant = length as f64 * f64::from(share) / 1e4;
            assert!((copies - meant).abs() < 1.0, "{copies} of {length} at {share}");
            // Each worker deals for itself.
            assert!(deal.next(0) && !deal.next(2));
        }
    }
}
