//! What the requests of a version say of its health: counted by all workers, judged elsewhere (`release::outliers`).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use super::{Class, Snapshot};
use crate::config::{Config, model::Endpoint};

/// The versions' counts of all functions with `health`, by function and then version.
pub type Health = Arc<[Option<Box<[Arc<Counts>]>>]>;

/// One version's. While all is well requests only read it.
#[derive(Debug, Default)]
pub struct Counts {
    in_a_row: AtomicU32,
    /// So many in a row that it is out.
    has_tripped: AtomicBool,
    /// Whether those behind are counted: while it is tried again.
    is_tried: AtomicBool,
    failed: AtomicU32,
    well: AtomicU32,
    /// Probes that failed, and that went well, in a row.
    missed: AtomicU32,
    passed: AtomicU32,
}

/// The counts go on from `previous` where the version still has the same URL.
pub(super) fn counts(config: &Config, previous: Option<&Snapshot>) -> Health {
    let mut old: HashMap<(&str, &str), (&Endpoint, &Arc<Counts>)> = HashMap::new();
    for (function, counts) in previous.iter().flat_map(|p| p.config.functions.iter().zip(&*p.health)) {
        for (version, counts) in function.versions.iter().zip(counts.iter().flatten()) {
            old.insert((&function.name, &version.name), (&version.url, counts));
        }
    }
    let of = |function: &crate::config::model::Function| {
        function.health.as_ref()?;
        let counts = function.versions.iter().map(|version| match old.get(&(&*function.name, &*version.name)) {
            Some((url, counts)) if **url == version.url => Arc::clone(counts),
            _ => Arc::default(),
        });
        Some(counts.collect())
    };
    config.functions.iter().map(of).collect()
}

impl Counts {
    /// A request of the version is over. `consecutive` failures in a row are too many.
    pub fn ended(&self, class: Class, consecutive: u32) {
        match class {
            Class::Function | Class::Platform | Class::Timeout | Class::Unreachable => {
                if self.in_a_row.fetch_add(1, Relaxed).saturating_add(1) >= consecutive {
                    self.has_tripped.store(true, Relaxed);
                }
                if self.is_tried.load(Relaxed) {
                    self.failed.fetch_add(1, Relaxed);
                }
            }
            Class::Ok | Class::ClientError => {
                if self.in_a_row.load(Relaxed) != 0 {
                    self.in_a_row.store(0, Relaxed);
                }
                if self.is_tried.load(Relaxed) {
                    self.well.fetch_add(1, Relaxed);
                }
            }
            // They say nothing of the version: it did not run, or it is not what failed.
            Class::Throttled
            | Class::Config
            | Class::Account
            | Class::RateLimited
            | Class::Refused
            | Class::Aborted => {}
        }
    }

    /// Whether there were too many failures in a row since the last time that this was asked. They no longer count.
    pub fn take_trip(&self) -> bool {
        let tripped = self.has_tripped.load(Relaxed) && self.has_tripped.swap(false, Relaxed);
        if tripped {
            self.in_a_row.store(0, Relaxed);
        }
        tripped
    }

    /// Counts what ends from now on, or no longer.
    pub fn try_again(&self, is_tried: bool) {
        self.in_a_row.store(0, Relaxed);
        self.has_tripped.store(false, Relaxed);
        self.failed.store(0, Relaxed);
        self.well.store(0, Relaxed);
        self.is_tried.store(is_tried, Relaxed);
        self.passed.store(0, Relaxed);
    }

    /// A probe is over. The failed ones in a row: before it, and with it.
    pub fn checked(&self, is_well: bool) -> (u32, u32) {
        let before = self.missed.load(Relaxed);
        if is_well {
            self.missed.store(0, Relaxed);
            self.passed.fetch_add(1, Relaxed);
            return (before, 0);
        }
        self.passed.store(0, Relaxed);
        (before, self.missed.fetch_add(1, Relaxed).saturating_add(1))
    }

    /// Probes that failed, in a row.
    pub fn missed(&self) -> u32 {
        self.missed.load(Relaxed)
    }

    /// Those that went well in a row, since the version was put out or in again.
    pub fn passed(&self) -> u32 {
        self.passed.load(Relaxed)
    }

    /// What ended since it is tried again: failed, and well.
    pub fn tried(&self) -> (u32, u32) {
        (self.failed.load(Relaxed), self.well.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_failures_trips_and_anything_good_breaks_it() {
        let counts = Counts::default();
        let end = |classes: &[Class]| classes.iter().for_each(|class| counts.ended(*class, 3));
        end(&[Class::Function, Class::Platform, Class::Ok, Class::Timeout, Class::Unreachable]);
        assert!(!counts.take_trip());
        // Neither a success nor a failure.
        end(&[Class::Throttled, Class::Config, Class::Account, Class::Aborted, Class::Refused, Class::RateLimited]);
        end(&[Class::Function, Class::Ok]);
        assert!(counts.take_trip(), "also if it went well since");
        assert!(!counts.take_trip());
        end(&[Class::Function, Class::Function, Class::ClientError, Class::Function]);
        assert!(!counts.take_trip(), "a caller's mistake is an answer");
    }

    #[test]
    fn while_it_is_tried_again_all_is_counted() {
        let counts = Counts::default();
        counts.ended(Class::Ok, 1);
        assert_eq!(counts.tried(), (0, 0));
        counts.try_again(true);
        for class in [Class::Ok, Class::Function, Class::Ok, Class::Throttled] {
            counts.ended(class, 9);
        }
        assert_eq!(counts.tried(), (1, 2));
        counts.try_again(false);
        counts.ended(Class::Ok, 1);
        assert_eq!(counts.tried(), (0, 0));
    }
}
