//! What workers count of a guarded function, and its judge reads once a second.

use std::{
    net::IpAddr,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use super::{Seen, Tally, tail};
use crate::{
    config::model::{Class, VersionId},
    decide::{Now, PickedBy},
};

/// The counters of one function: per worker, so that nobody waits for anybody.
#[derive(Debug)]
pub struct Watch {
    /// By worker, then version.
    workers: Box<[Box<[Cell]>]>,
    baseline: VersionId,
    failed: Seen,
    slow: Option<Slow>,
    /// Requests that began before this were dealt by other weights.
    since: AtomicU64,
}

#[derive(Debug)]
struct Slow {
    seen: Seen,
    /// In microseconds: from here on an answer is slow. `u64::MAX`: nobody knows yet.
    above: AtomicU64,
    /// The baseline's times, by worker.
    times: Box<[tail::Times]>,
}

/// One worker's counts of one version; only he writes them.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell {
    requests: AtomicU64,
    failures: AtomicU64,
    errors: AtomicU64,
    misfits: AtomicU64,
    misfit_callers: AtomicU64,
    timed: AtomicU64,
    slow: AtomicU64,
}

/// One more. Not `fetch_add`, which would wait for other cores: there is one writer.
pub(super) fn more(count: &AtomicU64) {
    count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
}

/// A request that is over.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub version: VersionId,
    pub picked_by: PickedBy,
    pub class: Class,
    pub began: Now,
    /// How long the function took to begin its answer; `None`: it didn't.
    pub took: Option<Duration>,
    /// His sticky key's hash, where he has one.
    pub caller: Option<u64>,
    pub client_ip: Option<IpAddr>,
}

impl Watch {
    pub fn new(workers: usize, versions: usize, baseline: VersionId, judges_time: bool) -> Self {
        let cells = || (0..versions).map(|_| Cell::default()).collect();
        let slow = || Slow {
            seen: Seen::new(),
            above: AtomicU64::new(u64::MAX),
            times: (0..workers).map(|_| tail::Times::default()).collect(),
        };
        Self {
            workers: (0..workers).map(|_| cells()).collect(),
            baseline,
            failed: Seen::new(),
            slow: judges_time.then(slow),
            since: AtomicU64::new(0),
        }
    }

    /// Counts a request that is over. `worker` is the calling thread's number.
    pub fn count(&self, worker: usize, ended: &Ended) {
        // Whoever chooses a version himself is no fair sample of its callers.
        if !matches!(ended.picked_by, PickedBy::Weight | PickedBy::Sticky) || ended.began.0 < self.since.load(Acquire) {
            return;
        }
        let cells = self.workers.get(worker).and_then(|cells| cells.get(ended.version.index()));
        let Some(cell) = cells else { return };
        match ended.class {
            Class::Ok | Class::ClientError => {
                more(&cell.requests);
                self.time(worker, cell, ended);
            }
            Class::Function | Class::Platform | Class::Timeout | Class::Unreachable | Class::Config => {
                more(&cell.requests);
                more(&cell.failures);
                let is_first = self.failed.is_first(caller(ended));
                if is_first {
                    more(&cell.errors);
                }
                if ended.class == Class::Config {
                    more(&cell.misfits);
                    if is_first {
                        more(&cell.misfit_callers);
                    }
                }
            }
            // No version's fault: the platform's quota, the account, gatepost's own refusals, callers who went away.
            Class::Throttled | Class::Account | Class::RateLimited | Class::Refused | Class::Aborted => {}
        }
    }

    fn time(&self, worker: usize, cell: &Cell, ended: &Ended) {
        let (Some(slow), Some(took)) = (&self.slow, ended.took) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if ended.version == self.baseline
            && let Some(times) = slow.times.get(worker)
        {
            times.count(micros);
        }
        let above = slow.above.load(Relaxed);
        if above == u64::MAX {
            return;
        }
        more(&cell.timed);
        if micros >= above && slow.seen.is_first(caller(ended)) {
            more(&cell.slow);
        }
    }

    /// What was counted of a version, by all workers.
    pub fn tally(&self, version: VersionId) -> Tally {
        let mut sum = Tally::default();
        for cell in self.workers.iter().filter_map(|cells| cells.get(version.index())) {
            // A request is counted before what it did: never more failures than requests.
            let failures = cell.failures.load(Relaxed);
            sum.add(&Tally {
                failures,
                errors: cell.errors.load(Relaxed),
                misfits: cell.misfits.load(Relaxed),
                misfit_callers: cell.misfit_callers.load(Relaxed),
                slow: cell.slow.load(Relaxed),
                timed: cell.timed.load(Relaxed),
                requests: cell.requests.load(Relaxed),
            });
        }
        sum
    }

    /// From now on only requests that begin from `since` on count.
    pub fn begin(&self, since: Now) {
        self.since.store(since.0, Release);
    }

    /// Callers whose errors have been counted may have another one counted.
    pub fn turn(&self) {
        self.failed.turn();
        if let Some(slow) = &self.slow {
            slow.seen.turn();
        }
    }

    /// The baseline's times so far; `None`: time isn't judged.
    pub(super) fn times(&self) -> Option<tail::Histogram> {
        let slow = self.slow.as_ref()?;
        let mut sum = tail::Histogram::default();
        slow.times.iter().for_each(|times| sum.add(times));
        Some(sum)
    }

    pub(super) fn slow_above(&self, micros: u64) {
        if let Some(slow) = &self.slow {
            slow.above.store(micros, Relaxed);
        }
    }
}

/// Who it was: by his sticky key, or else his address (IPv6 by /64, as limits count).
fn caller(ended: &Ended) -> u64 {
    ended.caller.unwrap_or_else(|| {
        let bits = match ended.client_ip.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => u64::from(ip.to_bits()),
            Some(IpAddr::V6(ip)) => (ip.to_bits() >> 64) as u64,
            None => 0,
        };
        // The finaliser of SplitMix64: addresses that differ in little have nothing in common afterwards.
        let z = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
