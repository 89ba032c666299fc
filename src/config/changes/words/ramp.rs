//! A function's ramp and the freezes, in words.

use super::{Leaf, duration};
use crate::config::model::{Freeze, Function, Ramp};

pub(in crate::config::changes) fn ramp_leaves(function: &Function) -> Vec<Leaf> {
    let ramp = function.ramp.as_ref().map(|Ramp { version, steps, hold, when }| {
        let name = &function.versions[version.index()].name;
        (name, steps.iter().map(ToString::to_string).collect::<Vec<_>>(), duration(*hold), when)
    });
    let of = ramp.as_ref();
    vec![
        Leaf::option("ramp.version", "no ramp", of.map(|ramp| ramp.0)),
        Leaf::list("ramp.steps", "no ramp", of.map_or(&[][..], |ramp| &ramp.1)),
        Leaf::option("ramp.hold", "no ramp", of.map(|ramp| &ramp.2)),
        Leaf::option("ramp.hours", "no ramp", of.map(|ramp| ramp.3)),
    ]
}

pub(in crate::config::changes) fn freeze_leaves(freeze: &Freeze) -> Vec<Leaf> {
    let Freeze { windows } = freeze;
    vec![Leaf::list("windows", "none", windows)]
}
