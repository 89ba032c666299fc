//! The book in words: for `status` and `explain`.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Book, ramp::Progress, state::Latch};
use crate::config::{
    Config,
    changes::duration,
    model::{Ramp, Share},
};

/// How one version stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub function: String,
    pub version: String,
    /// `ramp`, `held` (by its `before_step`), `paused` or `over` of a ramp; or `latched`.
    pub state: String,
    /// For people.
    pub detail: String,
}

impl Book {
    /// What is not as the file alone would have it, by function and version.
    pub fn told(&self, config: &Config, at: Timestamp) -> Vec<Told> {
        let frozen = config.freeze.window(at).map_or_else(String::new, |window| format!("; frozen from {window}"));
        let mut all = Vec::new();
        for function in &config.functions {
            let Some(here) = self.state().functions.get(&*function.name) else { continue };
            let told = |version: &str, state: &str, detail| Told {
                function: function.name.to_string(),
                version: version.to_owned(),
                state: state.to_owned(),
                detail,
            };
            all.extend(here.latches.iter().map(|(version, latch)| told(version, "latched", latched(latch))));
            if let (Some(progress), Some(ramp)) = (&here.ramp, &function.ramp) {
                let (state, detail) = ramp_words(progress, ramp);
                let frozen = if state == "ramp" { &*frozen } else { "" };
                all.push(told(&progress.version, state, detail + frozen));
            }
        }
        all
    }
}

fn latched(latch: &Latch) -> String {
    format!("since {} by {}: {}", latch.at, latch.by, latch.reason)
}

fn ramp_words(progress: &Progress, ramp: &Ramp) -> (&'static str, String) {
    let share = progress.in_force().unwrap_or(progress.number.as_share());
    let next = progress.next(ramp);
    let step = match next.map_or(ramp.steps.len(), |(next, _)| next - 1) {
        0 => String::new(),
        at => format!(" (step {at} of {})", ramp.steps.len()),
    };
    if let Some(pause) = &progress.paused {
        let how = if pause.set_back { ", set back" } else { &*step };
        return ("paused", format!("at {share} %{how}: {}; `gatepost resume` lets it go on", pause.why));
    }
    if progress.done {
        return ("over", format!("at {share} %: write it into the file and take `ramp` out"));
    }
    // In whole seconds: nobody waits for the milliseconds of an hour.
    let held = Duration::from_secs(progress.held_ms / 1000).min(ramp.hold);
    let then = next.map_or_else(|| "then over".to_owned(), |(_, to)| format!("then {to} %"));
    let share = Share(progress.share).max(share);
    (
        "ramp",
        format!(
            "at {share} %{step}, held {} of {}, {then}; moves at {}",
            duration(held),
            duration(ramp.hold),
            ramp.when
        ),
    )
}
