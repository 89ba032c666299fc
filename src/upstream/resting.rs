//! Addresses of a version that go last for a while: one that no connection came to, and one that failed again and again while others of
//! the same version answered.
//!
//! Outlier ejection in Envoy's words, but an address is only put last: where all others fail to connect it is still tried, and at least one
//! other must be well when it goes. So a function that fails everywhere loses none of its addresses.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use crate::{config::model::Health, decide::Now};

/// How long an address that no connection came to goes last.
pub const SHUNNED: Duration = Duration::from_secs(10);

/// What is known of addresses that failed. Nearly always empty, and then requests read no more than that.
#[derive(Debug, Default)]
pub(super) struct Resting {
    known: ArcSwap<Vec<Arc<Known>>>,
    /// Who holds it decides that one goes; nobody waits for it.
    judging: Mutex<()>,
    /// Probes bring one back that failed, in place of a request.
    is_checked: AtomicBool,
    /// How often one went since somebody asked.
    ejections: AtomicU64,
}

/// One address. Kept as long as the name has it.
#[derive(Debug)]
struct Known {
    address: SocketAddr,
    /// [`Now`] from which it is tried again; 0: it takes its turn.
    until: AtomicU64,
    /// It went for its failures, not for want of a connection.
    is_out: AtomicBool,
    /// What began before this [`Now`] says nothing of how it is since.
    tried_from: AtomicU64,
    /// How long it rests, in nanoseconds.
    rest: AtomicU64,
    /// How often it went, less what it has made good since `well_since`.
    times: AtomicU32,
    well_since: AtomicU64,
    /// Failures of requests, in a row.
    in_a_row: AtomicU32,
    /// Probes that failed, and that went well, in a row.
    missed: AtomicU32,
    passed: AtomicU32,
}

/// How an address stands for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// Its time is over: this request is the one that tries it.
    Probe,
    Bad,
}

/// An address that goes last for its failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rests {
    pub address: SocketAddr,
    /// For how long, all in all.
    pub time: Duration,
}

/// For one look at all of them.
pub(super) struct Looked(arc_swap::Guard<Arc<Vec<Arc<Known>>>>, bool);

impl Looked {
    /// Nobody rests.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.iter().all(|known| known.until.load(Relaxed) == 0)
    }

    /// To be asked once: of an address whose time is over, only the first who asks is told so.
    pub(super) fn standing(&self, address: &SocketAddr, now: Now) -> Standing {
        self.0.iter().find(|known| known.address == *address).map_or(Standing::Good, |k| k.standing(now, self.1))
    }
}

impl Resting {
    pub(super) fn look(&self) -> Looked {
        Looked(self.known.load(), self.is_checked.load(Relaxed))
    }

    /// Whether probes look after addresses from now on. Without `health` nobody is out.
    pub(super) fn follow(&self, health: Option<&Health>) {
        self.is_checked.store(health.is_some_and(|health| health.check.is_some()), Relaxed);
        if health.is_none() {
            self.known.load().iter().filter(|known| known.is_out.load(Relaxed)).for_each(|known| known.is_back(Now(0)));
        }
    }

    /// No connection to `address`, one of `all`, came about.
    pub(super) fn unconnected(&self, address: SocketAddr, now: Now, all: &[SocketAddr]) {
        let known = self.entry(address, all);
        if !known.is_out.load(Relaxed) {
            known.until.store(after(now, SHUNNED), Relaxed);
        }
    }

    /// A connection was made.
    pub(super) fn connected(&self, address: SocketAddr) {
        if let Some(known) = self.find(address)
            && !known.is_out.load(Relaxed)
            && known.until.load(Relaxed) != 0
        {
            known.until.store(0, Relaxed);
        }
    }

    /// What was sent to `address`, one of `all`, at `began` came to nothing, and that was the address's own doing.
    pub(super) fn failed(&self, address: SocketAddr, (began, now): (Now, Now), health: &Health, all: &[SocketAddr]) {
        if all.len() < 2 {
            return;
        }
        let known = self.entry(address, all);
        let row = known.in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        if known.is_out.load(Relaxed) {
            if began.0 >= known.tried_from.load(Relaxed) && !self.is_checked.load(Relaxed) {
                self.out(&known, now, health, all);
            }
        } else if row >= health.consecutive_failures {
            self.out(&known, now, health, all);
        }
    }

    /// What was sent there at `began` was answered.
    pub(super) fn answered(&self, address: SocketAddr, (began, now): (Now, Now)) {
        let Some(known) = self.find(address) else { return };
        if known.in_a_row.load(Relaxed) != 0 {
            known.in_a_row.store(0, Relaxed);
        }
        if known.is_out.load(Relaxed) && !self.is_checked.load(Relaxed) && began.0 >= known.tried_from.load(Relaxed) {
            known.is_back(now);
        }
    }

    /// A probe of `address`, one of `all`, is over.
    pub(super) fn checked(&self, address: SocketAddr, is_well: bool, now: Now, health: &Health, all: &[SocketAddr]) {
        let Some(check) = &health.check else { return };
        if all.len() < 2 || (is_well && self.known.load().is_empty()) {
            return;
        }
        let known = self.entry(address, all);
        let is_out = known.is_out.load(Relaxed);
        if is_well {
            known.missed.store(0, Relaxed);
            let passed = known.passed.fetch_add(1, Relaxed).saturating_add(1);
            if is_out && passed >= check.rise && now.0 >= known.tried_from.load(Relaxed) {
                known.is_back(now);
            }
        } else {
            known.passed.store(0, Relaxed);
            let missed = known.missed.fetch_add(1, Relaxed).saturating_add(1);
            if !is_out && missed >= check.fall {
                self.out(&known, now, health, all);
            }
        }
    }

    /// It goes, unless it is the last that is well, or somebody else is judging: then the next failure asks again.
    fn out(&self, known: &Known, now: Now, health: &Health, all: &[SocketAddr]) {
        let Ok(_alone) = self.judging.try_lock() else { return };
        let others = self.known.load();
        let is_well = |address: &SocketAddr| {
            others.iter().find(|other| other.address == *address).is_none_or(|other| {
                let few = health.consecutive_failures.div_ceil(2);
                other.until.load(Relaxed) == 0 && other.in_a_row.load(Relaxed) < few && other.missed.load(Relaxed) == 0
            })
        };
        if !all.iter().any(|address| *address != known.address && is_well(address)) {
            return;
        }
        // For each time that it was well as long as it had rested, one is forgotten.
        let (rested, since) = (known.rest.load(Relaxed), known.well_since.load(Relaxed));
        let forgiven = if known.is_out.load(Relaxed) || rested == 0 { 0 } else { now.0.saturating_sub(since) / rested };
        let times = known.times.load(Relaxed).saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX)) + 1;
        let rest = health.rest(times);
        known.times.store(times, Relaxed);
        known.rest.store(u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        known.tried_from.store(after(now, rest), Relaxed);
        known.in_a_row.store(0, Relaxed);
        known.passed.store(0, Relaxed);
        known.until.store(after(now, rest), Relaxed);
        known.is_out.store(true, Relaxed);
        self.ejections.fetch_add(1, Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.load().is_empty()
    }

    /// Who of `all` goes last for its failures.
    pub(super) fn told(&self, all: &[SocketAddr]) -> Vec<Rests> {
        let known = self.known.load();
        let out = known.iter().filter(|known| known.is_out.load(Relaxed) && all.contains(&known.address));
        out.map(|known| Rests { address: known.address, time: Duration::from_nanos(known.rest.load(Relaxed)) })
            .collect()
    }

    /// How often one went, since this was asked last.
    pub(super) fn take_ejections(&self) -> u64 {
        if self.ejections.load(Relaxed) == 0 { 0 } else { self.ejections.swap(0, Relaxed) }
    }

    fn find(&self, address: SocketAddr) -> Option<Arc<Known>> {
        let known = self.known.load();
        known.iter().find(|known| known.address == address).cloned()
    }

    /// What is known of `address`, from now on. Addresses that are not among `all` any more go, so that the list is never longer than
    /// a name's answer.
    fn entry(&self, address: SocketAddr, all: &[SocketAddr]) -> Arc<Known> {
        if let Some(known) = self.find(address) {
            return known;
        }
        let new = Arc::new(Known::new(address));
        self.known.rcu(|known| {
            if known.iter().any(|known| known.address == address) {
                return Vec::clone(known);
            }
            let mut next: Vec<_> = known.iter().filter(|known| all.contains(&known.address)).cloned().collect();
            next.push(Arc::clone(&new));
            next
        });
        self.find(address).unwrap_or(new)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.load().len()
    }
}

impl Known {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            until: AtomicU64::default(),
            is_out: AtomicBool::default(),
            tried_from: AtomicU64::default(),
            rest: AtomicU64::default(),
            times: AtomicU32::default(),
            well_since: AtomicU64::default(),
            in_a_row: AtomicU32::default(),
            missed: AtomicU32::default(),
            passed: AtomicU32::default(),
        }
    }

    fn standing(&self, now: Now, is_checked: bool) -> Standing {
        let until = self.until.load(Relaxed);
        if until == 0 {
            return Standing::Good;
        }
        if until > now.0 || (is_checked && self.is_out.load(Relaxed)) {
            return Standing::Bad;
        }
        // One that hangs costs another while, and not for ever.
        let next = after(now, SHUNNED);
        let is_first = self.until.compare_exchange(until, next, Relaxed, Relaxed).is_ok();
        if is_first { Standing::Probe } else { Standing::Bad }
    }

    fn is_back(&self, now: Now) {
        self.well_since.store(now.0, Relaxed);
        self.in_a_row.store(0, Relaxed);
        self.is_out.store(false, Relaxed);
        self.until.store(0, Relaxed);
    }
}

fn after(now: Now, time: Duration) -> u64 {
    now.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
