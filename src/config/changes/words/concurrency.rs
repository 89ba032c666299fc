//! `concurrency` in words.

use std::fmt;

use super::{Leaf, duration, rate};
use crate::config::model::{Adaptive, Concurrency, Growth};

pub(super) fn concurrency_leaves(concurrency: Option<&Concurrency>) -> Vec<Leaf> {
    let Some(Concurrency { max, queue, wait, growth: g, adaptive: a }) = concurrency else {
        return leaves("any", "off", "off", "at once", "off");
    };
    leaves(
        max.map_or_else(|| "any".to_owned(), |max| max.to_string()),
        queue,
        duration(*wait),
        g.map_or_else(|| "at once".to_owned(), growth),
        a.map_or_else(|| "off".to_owned(), adaptive),
    )
}

fn leaves(
    max: impl fmt::Display,
    queue: impl fmt::Display,
    wait: impl fmt::Display,
    growth: impl fmt::Display,
    adaptive: impl fmt::Display,
) -> Vec<Leaf> {
    vec![
        Leaf::one("concurrency.max", max),
        Leaf::one("concurrency.queue", queue),
        Leaf::one("concurrency.wait", wait),
        Leaf::one("concurrency.growth", growth),
        Leaf::one("concurrency.adaptive", adaptive),
    ]
}

fn growth(Growth { rate: r, burst }: Growth) -> String {
    format!("{burst} at once, then {}", rate(r))
}

fn adaptive(Adaptive { min, decrease, increase }: Adaptive) -> String {
    format!("at least {min}, -{decrease} % when throttled, +{}", rate(increase))
}

/// The function's in one line, for people: `at most 300 at a time, 1000 wait up to 800ms`.
pub fn concurrency(concurrency: &Concurrency) -> String {
    let Concurrency { max, queue, wait, growth: g, adaptive: a } = concurrency;
    let most = max.map_or_else(|| "any number at a time".to_owned(), |max| format!("at most {max} at a time"));
    let waits = match queue {
        0 => "none waits".to_owned(),
        n => format!("{n} wait up to {}", duration(*wait)),
    };
    let grows = g.map(|g| format!(", {}", growth(g))).unwrap_or_default();
    let adapts = a.map(|a| format!(", adaptive ({})", adaptive(a))).unwrap_or_default();
    format!("{most}, {waits}{grows}{adapts}")
}
