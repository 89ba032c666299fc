//! Health, in words.

use super::{Leaf, duration};
use crate::config::model::Health;

pub(super) fn health_leaves(health: Option<&Health>) -> Vec<Leaf> {
    const OFF: &str = "off";
    let (mut failures, mut first, mut longest) = (None, None, None);
    if let Some(Health { consecutive_failures, base_ejection_time, max_ejection_time }) = health {
        failures = Some(consecutive_failures);
        (first, longest) = (Some(duration(*base_ejection_time)), Some(duration(*max_ejection_time)));
    }
    vec![
        Leaf::option("health.consecutive_failures", OFF, failures),
        Leaf::option("health.base_ejection_time", OFF, first),
        Leaf::option("health.max_ejection_time", OFF, longest),
    ]
}
