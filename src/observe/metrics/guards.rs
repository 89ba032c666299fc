//! What guards say of canaries.

use std::collections::BTreeMap;

use super::text::{Kind, Text};
use crate::config::model::Name;

/// A canary that is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardSeries {
    pub function: Name,
    pub version: Name,
    /// Every word that a verdict can be, and whether it is this.
    pub verdicts: Vec<(&'static str, bool)>,
    /// Against it.
    pub odds: f64,
}

#[derive(Debug, Default)]
pub(super) struct Guards {
    series: Vec<GuardSeries>,
    /// By function, version and verdict.
    alarms: BTreeMap<(Name, Name, &'static str), u64>,
}

impl Guards {
    pub(super) fn set(&mut self, series: Vec<GuardSeries>) {
        self.series = series;
    }

    pub(super) fn alarm(&mut self, function: &Name, version: &Name, verdict: &'static str) {
        *self.alarms.entry((function.clone(), version.clone(), verdict)).or_default() += 1;
    }

    /// Forgets what no config names any more.
    pub(super) fn keep(&mut self, is_known: &dyn Fn(&Name, &Name) -> bool) {
        self.alarms.retain(|(function, version, _), _| is_known(function, version));
    }

    pub(super) fn render(&self, out: &mut Text) {
        let name = "gatepost_guard_verdict";
        out.family(name, Kind::Gauge, "What the guard says of a canary: 1 at the verdict in force.");
        for GuardSeries { function, version, verdicts, .. } in &self.series {
            for (verdict, is) in verdicts {
                let labels = [("function", &**function), ("version", &**version), ("verdict", *verdict)];
                out.sample(name, &labels, u8::from(*is));
            }
        }
        let name = "gatepost_guard_odds";
        out.family(
            name,
            Kind::Gauge,
            "The odds against a canary, to one; it is worse once they reach 1 / false_alarm.",
        );
        for GuardSeries { function, version, odds, .. } in &self.series {
            out.sample(name, &[("function", &**function), ("version", &**version)], odds);
        }
        let name = "gatepost_guard_alarms_total";
        out.family(name, Kind::Counter, "Canaries that were found to be worse than tolerated, by verdict.");
        for ((function, version, verdict), count) in &self.alarms {
            let labels = [("function", &**function), ("version", &**version), ("verdict", *verdict)];
            out.sample(name, &labels, count);
        }
    }
}
