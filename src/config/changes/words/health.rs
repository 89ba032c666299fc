//! Health, in words.

use super::{Leaf, duration, platform::statuses};
use crate::config::model::{Check, Health};

pub(super) fn health_leaves(health: Option<&Health>) -> Vec<Leaf> {
    const OFF: &str = "off";
    let (mut failures, mut first, mut longest, mut probe) = (None, None, None, None);
    if let Some(Health { consecutive_failures, base_ejection_time, max_ejection_time, check }) = health {
        failures = Some(consecutive_failures);
        (first, longest) = (Some(duration(*base_ejection_time)), Some(duration(*max_ejection_time)));
        probe = check.as_ref();
    }
    let (mut path, mut method, mut every, mut timeout) = (None, None, None, None);
    let (mut status, mut down, mut up) = (None, None, None);
    if let Some(Check { path: asked, method: how, every: often, timeout: patience, statuses: good, fall, rise }) = probe
    {
        (path, method) = (Some(asked), Some(how.as_str()));
        (every, timeout) = (Some(duration(*often)), Some(duration(*patience)));
        (status, down, up) = (Some(statuses(good)), Some(fall), Some(rise));
    }
    vec![
        Leaf::option("health.consecutive_failures", OFF, failures),
        Leaf::option("health.base_ejection_time", OFF, first),
        Leaf::option("health.max_ejection_time", OFF, longest),
        Leaf::option("health.check.path", OFF, path),
        Leaf::option("health.check.method", OFF, method),
        Leaf::option("health.check.every", OFF, every),
        Leaf::option("health.check.timeout", OFF, timeout),
        Leaf::option("health.check.status", OFF, status),
        Leaf::option("health.check.fall", OFF, down),
        Leaf::option("health.check.rise", OFF, up),
    ]
}
