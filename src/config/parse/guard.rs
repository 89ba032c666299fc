//! `guard` of a function.

use super::Scope;
use crate::config::{
    model::{Guard, Name, VersionId},
    raw_guard as raw,
    report::Problem,
    source::At,
    words::PatienceOrNone,
};

impl Scope<'_> {
    /// `baseline`: of the function; a guard has nothing to compare with where there is none.
    pub(super) fn guard(
        &mut self,
        name: &Name,
        at: Option<&At<raw::Guard>>,
        has_baseline: bool,
        baseline: Option<VersionId>,
    ) -> Option<Guard> {
        let at = at?;
        // A wrong name of one is in the report already.
        if baseline.is_none() && !has_baseline {
            self.report.push(
                Problem::at(format!("function `{name}` has a guard and no baseline to compare with"), at.span)
                    .help("write `\"rest\"` as the weight of the version that others are compared with, or `baseline = \"…\"`"),
            );
        }
        let raw = &at.value;
        let default = Guard::default();
        let time = |at: &Option<At<PatienceOrNone>>, default| at.as_ref().map_or(default, |at| at.value.0);
        Some(Guard {
            action: raw.action.as_ref().map_or(default.action, |at| at.value),
            tolerate: raw.tolerate.as_ref().map_or(default.tolerate, |at| at.value.0),
            false_alarm: raw.false_alarm.as_ref().map_or(default.false_alarm, |at| at.value.0),
            max_error_ratio: raw.max_error_ratio.as_ref().map_or(default.max_error_ratio, |at| at.value.0),
            min_requests: raw.min_requests.as_ref().map_or(default.min_requests, |at| at.value.0.unsigned_abs()),
            min_time: time(&raw.min_time, default.min_time),
            window: raw.window.as_ref().map_or(default.window, |at| at.value.0),
            latency: raw.latency.as_ref().map(|at| at.value.0),
            warmup: time(&raw.warmup, default.warmup),
        })
    }
}
