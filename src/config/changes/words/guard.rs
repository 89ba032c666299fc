//! A guard, in words.

use super::{Leaf, duration};
use crate::config::model::Guard;

pub(super) fn guard_leaves(guard: Option<&Guard>) -> Vec<Leaf> {
    let told = |of: &dyn Fn(&Guard) -> String| guard.map(of);
    // Taken apart so that a new key does not compile until it has words here.
    if let Some(Guard {
        action: _,
        tolerate: _,
        false_alarm: _,
        max_error_ratio: _,
        min_requests: _,
        min_time: _,
        window: _,
        latency: _,
        warmup: _,
    }) = guard
    {}
    let leaf = |key, of: &dyn Fn(&Guard) -> String| Leaf::option(key, "off", told(of));
    vec![
        leaf("guard.action", &|g| g.action.as_str().to_owned()),
        leaf("guard.tolerate", &|g| g.tolerate.to_string()),
        leaf("guard.false_alarm", &|g| percent(g.false_alarm)),
        leaf("guard.max_error_ratio", &|g| percent(g.max_error_ratio)),
        leaf("guard.min_requests", &|g| g.min_requests.to_string()),
        leaf("guard.min_time", &|g| duration(g.min_time)),
        leaf("guard.window", &|g| duration(g.window)),
        leaf("guard.latency", &|g| g.latency.map_or_else(|| "not judged".to_owned(), |times| times.to_string())),
        leaf("guard.warmup", &|g| duration(g.warmup)),
    ]
}

/// Without the noise of binary fractions.
fn percent(part: f64) -> String {
    format!("{} %", (part * 1e8).round() / 1e6)
}
