//! A guard, in words.

use super::{Leaf, duration};
use crate::config::model::Guard;

/// A guard that comes or goes is told by its action, and by what of it is not as usual.
pub(super) fn guard_leaves(guard: Option<&Guard>) -> Vec<Leaf> {
    let usual = Guard::default();
    let Guard { action, tolerate, false_alarm, max_error_ratio, min_requests, min_time, window, latency, warmup } =
        guard.unwrap_or(&usual);
    vec![
        Leaf::option("guard.action", "off", guard.map(|_| action.as_str())),
        Leaf::one("guard.tolerate", tolerate),
        Leaf::one("guard.false_alarm", percent(*false_alarm)),
        Leaf::one("guard.max_error_ratio", percent(*max_error_ratio)),
        Leaf::one("guard.min_requests", min_requests),
        Leaf::one("guard.min_time", duration(*min_time)),
        Leaf::one("guard.window", duration(*window)),
        Leaf::option("guard.latency", "not judged", latency.as_ref()),
        Leaf::one("guard.warmup", duration(*warmup)),
    ]
}

/// Without the noise of binary fractions.
pub fn percent(part: f64) -> String {
    format!("{} %", (part * 1e8).round() / 1e6)
}
