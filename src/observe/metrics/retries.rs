//! Requests that were sent again, and those that were not for want of budget.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    cells::Sharded,
    text::{Kind, Text},
};
use crate::decide::retry::Because;

/// One worker's count of one version's retries.
#[derive(Debug, Default)]
pub(super) struct Retries {
    because: [AtomicU64; Because::ALL.len()],
    refused: AtomicU64,
}

impl Retries {
    pub(super) fn count(&self, because: Because) {
        self.because[because as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }
}

/// The series of all versions: function, version, counts.
pub(super) fn render<'h>(
    versions: impl Fn() -> Box<dyn Iterator<Item = (&'h str, &'h str, &'h Sharded<Retries>)> + 'h>,
    out: &mut Text,
) {
    let name = "gatepost_retries_total";
    out.family(name, Kind::Counter, "Requests that were sent again, by why.");
    for (function, version, counts) in versions().filter(|(.., counts)| !counts.is_untouched()) {
        for because in Because::ALL {
            let labels = [("function", function), ("version", version), ("reason", because.as_str())];
            out.sample(name, &labels, counts.sum(|cell| &cell.because[because as usize]));
        }
    }
    let name = "gatepost_retry_budget_exhausted_total";
    out.family(name, Kind::Counter, "Requests that were not sent again, for want of budget.");
    for (function, version, counts) in versions().filter(|(.., counts)| !counts.is_untouched()) {
        let labels = [("function", function), ("version", version)];
        out.sample(name, &labels, counts.sum(|cell| &cell.refused));
    }
}
