//! `health = { … }` of a function.

use std::time::Duration;

use super::{Scope, patience};
use crate::config::{
    model::{Check, Health},
    raw, raw_health,
    read::Whole,
    report::Problem,
    source::At,
};

/// A probe is a call: more of them are load, and a bill.
const OFTENEST: Duration = Duration::from_secs(1);

impl Scope<'_> {
    pub(super) fn health(&mut self, raw: &raw::Function) -> Option<Health> {
        let raw_health::Health { consecutive_failures, base_ejection_time, max_ejection_time, check, broken: _ } =
            &raw.health.as_ref()?.value;
        let base = patience(base_ejection_time.as_ref(), 30);
        let max = match max_ejection_time {
            Some(at) => at.value.0,
            None => base.max(Duration::from_secs(300)),
        };
        if let Some(at) = max_ejection_time.as_ref().filter(|_| max < base) {
            let problem = Problem::at("`max_ejection_time` is shorter than `base_ejection_time`", at.span);
            let problem = problem.label("expected at least the first ejection's time");
            self.report.push(match base_ejection_time {
                Some(base) => problem.also(base.span, "the first ejection's time"),
                None => problem.help("without `base_ejection_time` the first one takes 30s"),
            });
        }
        Some(Health {
            consecutive_failures: whole(consecutive_failures.as_ref(), 5),
            base_ejection_time: base,
            max_ejection_time: max,
            check: check.as_ref().and_then(|at| self.check(&at.value)),
        })
    }

    fn check(&mut self, raw: &raw_health::Check) -> Option<Check> {
        let raw_health::Check { path, method, every, timeout, status, fall, rise, broken: _ } = raw;
        let asked = patience(every.as_ref(), 30);
        if let Some(at) = every.as_ref().filter(|_| asked < OFTENEST) {
            self.report.push(
                Problem::at("`every` is less than a second", at.span)
                    .label("expected at least `1s`")
                    .help("each probe is a call; what fails in between, requests find out: `consecutive_failures`"),
            );
        }
        let patient = timeout.as_ref().map_or_else(|| asked.min(Duration::from_secs(5)), |at| at.value.0);
        if let Some(at) = timeout.as_ref().filter(|_| patient > asked) {
            let problem = Problem::at("`timeout` is longer than `every`", at.span);
            let problem = problem.label("the next probe would begin before this one is over");
            self.report.push(match every {
                Some(every) => problem.also(every.span, "how often it is asked"),
                None => problem.help("without `every` it is asked each 30s"),
            });
        }
        Some(Check {
            path: path.as_ref()?.value.0.clone(),
            method: method.as_ref().map(|at| at.value).unwrap_or_default(),
            every: asked,
            timeout: patient,
            statuses: status.as_ref().map_or_else(|| vec![(200, 299), (300, 399)], |at| at.value.0.clone()),
            fall: whole(fall.as_ref(), 3),
            rise: whole(rise.as_ref(), 2),
        })
    }
}

fn whole<const MIN: i64, const MAX: i64>(at: Option<&At<Whole<MIN, MAX>>>, default: u32) -> u32 {
    at.and_then(|at| u32::try_from(at.value.0).ok()).unwrap_or(default)
}
