//! What a function's calls cost in a day: counted by all workers without locks ([`Ledger`]), judged once a second ([`Book`]).
//!
//! A call is counted when it is let in, so that no more get in than may, and given back where the platform does not bill it.

mod book;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use crate::config::{
    Config,
    model::{Budget, BudgetAction, Function, Name},
};

pub use book::{Book, Day, Kept, SHEDS_FROM, Said};

use super::Class;

/// All that may pass.
pub const ALL: u32 = 10_000;

/// One function's day. Outlives reloads.
#[derive(Debug)]
pub struct Ledger {
    /// Which day that is, counted from the start of the process.
    day: AtomicU64,
    calls: AtomicU64,
    spend: AtomicU64,
    /// Since the start of the process.
    admitted: AtomicU64,
    refused: AtomicU64,
    /// Of [`ALL`], under `shed`.
    passes: AtomicU32,
    /// When the day ends, and when all will be used, in seconds since 1970; 0: not known, or not on this day.
    ends: AtomicI64,
    gone: AtomicI64,
}

impl Default for Ledger {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let (ends, gone) = (AtomicI64::default(), AtomicI64::default());
        Self {
            ends,
            gone,
            day: zero(),
            calls: zero(),
            spend: zero(),
            admitted: zero(),
            refused: zero(),
            passes: AtomicU32::new(ALL),
        }
    }
}

/// A call that was let in, on that day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken(u64);

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub calls: u64,
    /// In the parts of an [`Amount`](crate::config::model::Amount).
    pub spend: u64,
}

impl Ledger {
    /// Lets a call in, or not. `dice` decides who goes where only a share may pass.
    pub fn take(&self, budget: &Budget, dice: u64) -> Option<Taken> {
        let taken = self.take_again(budget, dice);
        let count = if taken.is_some() { &self.admitted } else { &self.refused };
        count.fetch_add(1, Relaxed);
        taken
    }

    /// The same for one more call of a request that was let in before.
    pub fn take_again(&self, budget: &Budget, dice: u64) -> Option<Taken> {
        let day = Taken(self.day.load(Relaxed));
        let admit = match budget.action {
            BudgetAction::Alert => self.calls.fetch_add(1, Relaxed) < u64::MAX,
            BudgetAction::Fallback | BudgetAction::Stop => self.take_within(budget),
            BudgetAction::Shed => {
                let passes = u64::from(self.passes.load(Relaxed));
                dice % u64::from(ALL) < passes && self.take_within(budget)
            }
        };
        admit.then_some(day)
    }

    /// Lets a call in that no caller waits for, and counts it like any other: the platform bills it. Not while callers' own are shed.
    pub fn spare(&self, budget: &Budget) -> Option<Taken> {
        let day = Taken(self.day.load(Relaxed));
        let admit = match budget.action {
            BudgetAction::Alert => self.calls.fetch_add(1, Relaxed) < u64::MAX,
            _ => self.passes.load(Relaxed) >= ALL && self.take_within(budget),
        };
        admit.then_some(day)
    }

    fn take_within(&self, budget: &Budget) -> bool {
        if budget.spend_per_day.is_some_and(|most| self.spend.load(Relaxed) >= most.0) {
            return false;
        }
        let most = budget.calls_per_day.map_or(u64::MAX, |most| most.get());
        let is_within = self.calls.fetch_add(1, Relaxed) < most;
        if !is_within {
            self.give_back();
        }
        is_within
    }

    /// A call is over. `cost`: what it costs; `None`: it is not billed.
    pub fn end(&self, taken: Taken, cost: Option<u64>) {
        // Of another day: it was counted there, and nobody asks any more.
        if taken.0 != self.day.load(Relaxed) {
            return;
        }
        match cost {
            None => self.give_back(),
            Some(cost) => {
                let before = self.spend.fetch_add(cost, Relaxed);
                if before.checked_add(cost).is_none() {
                    self.spend.store(u64::MAX, Relaxed);
                }
            }
        }
    }

    /// Not below zero, though the day turns in this very moment: nobody would be let in any more.
    fn give_back(&self) {
        let _ = self.calls.fetch_update(Relaxed, Relaxed, |calls| calls.checked_sub(1));
    }

    pub fn counts(&self) -> Counts {
        Counts { calls: self.calls.load(Relaxed), spend: self.spend.load(Relaxed) }
    }

    /// Calls that were let in, and that were not, since the start.
    pub fn told(&self) -> (u64, u64) {
        (self.admitted.load(Relaxed), self.refused.load(Relaxed))
    }

    /// Goes on from what was kept.
    pub fn restore(&self, counts: Counts) {
        self.calls.fetch_add(counts.calls, Relaxed);
        self.spend.fetch_add(counts.spend, Relaxed);
    }

    /// Begins a day.
    fn turn(&self) {
        self.day.fetch_add(1, Relaxed);
        self.calls.store(0, Relaxed);
        self.spend.store(0, Relaxed);
    }

    fn foresee(&self, passes: u32, ends: i64, gone: Option<i64>) {
        self.passes.store(passes.min(ALL), Relaxed);
        self.ends.store(ends, Relaxed);
        self.gone.store(gone.unwrap_or(0), Relaxed);
    }

    /// When the day ends, in seconds since 1970.
    pub fn ends(&self) -> i64 {
        self.ends.load(Relaxed)
    }

    /// When it is gone, at the rate of the last minutes, in seconds since 1970; `None`: not on this day.
    pub fn gone(&self) -> Option<i64> {
        Some(self.gone.load(Relaxed)).filter(|gone| *gone != 0)
    }
}

/// The ledgers of a config's functions, those of before where the names are the same.
pub fn ledgers<'c>(
    config: &Config,
    previous: impl Iterator<Item = (&'c Name, &'c Option<Arc<Ledger>>)>,
) -> Vec<Option<Arc<Ledger>>> {
    let old: HashMap<&Name, &Arc<Ledger>> = previous.filter_map(|(name, old)| Some((name, old.as_ref()?))).collect();
    let of = |function: &Function| match old.get(&function.name) {
        // Also of a function that has no budget now: it may have one again before the day is over.
        Some(old) => Some(Arc::clone(old)),
        None => function.budget.as_ref().map(|_| Arc::default()),
    };
    config.functions.iter().map(of).collect()
}

/// Whether platforms bill a call that ended so, once it was sent. Those that they throttle, refuse or fail themselves they do not.
pub fn is_billed(class: Class) -> bool {
    !matches!(class, Class::Throttled | Class::Platform | Class::Config | Class::Account | Class::Unreachable)
}

/// How much of a budget is used: 1 is all of it. The bound that is nearer counts.
pub fn used(budget: &Budget, counts: Counts) -> f64 {
    let calls = budget.calls_per_day.map_or(0.0, |most| counts.calls as f64 / most.get() as f64);
    let spend = budget.spend_per_day.map_or(0.0, |most| counts.spend as f64 / most.0 as f64);
    calls.max(spend)
}

#[cfg(test)]
mod tests;
