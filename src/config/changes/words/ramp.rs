//! A function's ramp and the freezes, in words.

use super::{Leaf, duration};
use crate::config::{
    model::{Freeze, Function, Hook, Ramp},
    secret::SecretRef,
};

pub(in crate::config::changes) fn ramp_leaves(function: &Function) -> Vec<Leaf> {
    let ramp = function.ramp.as_ref().map(|Ramp { version, steps, hold, when, before_step: _ }| {
        let name = &function.versions[version.index()].name;
        (name, steps.iter().map(ToString::to_string).collect::<Vec<_>>(), duration(*hold), when)
    });
    let of = ramp.as_ref();
    let hook = function.ramp.as_ref().and_then(|ramp| ramp.before_step.as_deref());
    let secret = |at: fn(&Hook) -> &Option<SecretRef>| hook.and_then(|hook| at(hook).as_ref());
    vec![
        Leaf::option("ramp.version", "no ramp", of.map(|ramp| ramp.0)),
        Leaf::list("ramp.steps", "no ramp", of.map_or(&[][..], |ramp| &ramp.1)),
        Leaf::option("ramp.hold", "no ramp", of.map(|ramp| &ramp.2)),
        Leaf::option("ramp.hours", "no ramp", of.map(|ramp| ramp.3)),
        Leaf::option("ramp.before_step.url", "nobody is asked", hook.map(Hook::url)),
        Leaf::option("ramp.before_step.ca", "the system's", hook.and_then(|h| h.ca.as_ref()).map(|ca| ca.display())),
        Leaf::option("ramp.before_step.bearer", "none", secret(|hook| &hook.bearer)),
        Leaf::option("ramp.before_step.hmac", "none", secret(|hook| &hook.hmac)),
        Leaf::option("ramp.before_step.timeout", "nobody is asked", hook.map(|hook| duration(hook.timeout))),
        Leaf::option("ramp.before_step.again", "nobody is asked", hook.map(|hook| duration(hook.again))),
    ]
}

pub(in crate::config::changes) fn freeze_leaves(freeze: &Freeze) -> Vec<Leaf> {
    let Freeze { windows } = freeze;
    vec![Leaf::list("windows", "none", windows)]
}
