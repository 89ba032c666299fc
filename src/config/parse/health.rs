//! `health = { … }` of a function.

use std::time::Duration;

use super::{Scope, patience};
use crate::config::{model::Health, raw, raw_health, report::Problem};

impl Scope<'_> {
    pub(super) fn health(&mut self, raw: &raw::Function) -> Option<Health> {
        let raw_health::Health { consecutive_failures, base_ejection_time, max_ejection_time, broken: _ } =
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
        let consecutive_failures = consecutive_failures.as_ref().and_then(|at| u32::try_from(at.value.0).ok());
        Some(Health {
            consecutive_failures: consecutive_failures.unwrap_or(5),
            base_ejection_time: base,
            max_ejection_time: max,
        })
    }
}
