//! Requests that were copied to a function's mirror, and how its answers compare.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::text::{Kind, Text};
use crate::config::model::Name;

/// What became of a request that was dealt to a mirror: `result` of `gatepost_mirror_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorResult {
    /// Both answered, in the same class and the same hundred of statuses.
    Same,
    Different,
    /// The mirror gave no answer.
    Failed,
    /// The caller's own call came to nothing that could be compared.
    Aborted,
    /// Not copied: as many as may be were under way.
    Dropped,
    /// Not copied: its body is larger than `mirror.max_body`.
    TooLarge,
    /// Not copied: the function's budget is spent, or nearly so.
    OverBudget,
}

impl MirrorResult {
    pub const ALL: [Self; 7] =
        [Self::Same, Self::Different, Self::Failed, Self::Aborted, Self::Dropped, Self::TooLarge, Self::OverBudget];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Dropped => "dropped",
            Self::TooLarge => "too_large",
            Self::OverBudget => "over_budget",
        }
    }
}

/// Of one function's mirror. All workers count here: it is touched by the copied requests alone.
#[derive(Debug)]
pub struct MirrorCounts {
    pub function: Name,
    pub version: Name,
    results: [AtomicU64; MirrorResult::ALL.len()],
    /// Microseconds until both answers of a pair began: the caller's version's, and the mirror's.
    took: [AtomicU64; 2],
    pub under_way: AtomicUsize,
}

impl MirrorCounts {
    pub fn new(function: Name, version: Name) -> Self {
        Self {
            function,
            version,
            results: Default::default(),
            took: Default::default(),
            under_way: AtomicUsize::new(0),
        }
    }

    pub fn count(&self, result: MirrorResult) {
        self.results[result as usize].fetch_add(1, Relaxed);
    }

    /// How long both took to begin their answers.
    pub fn pair(&self, real: Duration, mirror: Duration) {
        for (sum, took) in self.took.iter().zip([real, mirror]) {
            sum.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    pub fn of(&self, result: MirrorResult) -> u64 {
        self.results[result as usize].load(Relaxed)
    }

    /// In seconds, of all pairs: the callers' versions', and the mirror's.
    pub fn seconds(&self) -> [f64; 2] {
        self.took.each_ref().map(|sum| sum.load(Relaxed) as f64 / 1e6)
    }
}

pub(super) fn render(all: &[Arc<MirrorCounts>], out: &mut Text) {
    let name = "gatepost_mirror_total";
    out.family(name, Kind::Counter, "Requests that were dealt to a mirror, by what became of their copy.");
    for one in all {
        for result in MirrorResult::ALL {
            let labels = [("function", &*one.function), ("version", &*one.version), ("result", result.as_str())];
            out.sample(name, &labels, one.of(result));
        }
    }
    let name = "gatepost_mirror_answer_seconds_total";
    let help =
        "How long answers took to begin, over all pairs that were compared: the mirror's, and the callers' versions'.";
    out.family(name, Kind::Counter, help);
    for one in all {
        for (of, seconds) in ["real", "mirror"].into_iter().zip(one.seconds()) {
            out.sample(name, &[("function", &*one.function), ("version", &*one.version), ("of", of)], seconds);
        }
    }
    let name = "gatepost_mirror_in_flight";
    out.family(name, Kind::Gauge, "Copies of requests that are under way to a mirror.");
    for one in all {
        let labels = [("function", &*one.function), ("version", &*one.version)];
        out.sample(name, &labels, one.under_way.load(Relaxed));
    }
}
