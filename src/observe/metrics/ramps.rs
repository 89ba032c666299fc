//! What ramps' hooks said.

use std::collections::{BTreeMap, BTreeSet};

use super::text::{Kind, Text};
use crate::config::model::Name;

#[derive(Debug, Default)]
pub(super) struct Ramps {
    /// By function: answers that let a step go, that held it, and that never came.
    asked: BTreeMap<Name, [u64; 3]>,
    /// Function and version.
    held: BTreeSet<(Name, Name)>,
}

/// The words of [`Ramps::asked`], in its order.
const RESULTS: [&str; 3] = ["go", "hold", "failed"];

impl Ramps {
    pub(super) fn count(&mut self, function: &Name, result: &str) {
        if let Some(at) = RESULTS.iter().position(|word| *word == result) {
            self.asked.entry(function.clone()).or_default()[at] += 1;
        }
    }

    pub(super) fn hold(&mut self, held: BTreeSet<(Name, Name)>) {
        self.held = held;
    }

    /// Forgets what no config names any more.
    pub(super) fn keep(&mut self, is_known: &dyn Fn(&Name) -> bool) {
        self.asked.retain(|function, _| is_known(function));
    }

    pub(super) fn render(&self, out: &mut Text) {
        let name = "gatepost_ramp_hook_total";
        out.family(name, Kind::Counter, "Answers of ramps' before_step, by what they said.");
        for (function, counts) in &self.asked {
            for (result, count) in RESULTS.into_iter().zip(counts) {
                out.sample(name, &[("function", &**function), ("result", result)], *count);
            }
        }
        let name = "gatepost_ramp_held";
        out.family(name, Kind::Gauge, "1 while a ramp's before_step holds a step, or can't be asked.");
        for (function, version) in &self.held {
            out.sample(name, &[("function", &**function), ("version", &**version)], 1);
        }
    }
}
