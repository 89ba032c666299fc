//! `concurrency` in words.

use super::{Leaf, duration, rate};
use crate::config::model::{Adaptive, Concurrency, Growth};

pub(super) fn concurrency_leaves(concurrency: Option<&Concurrency>) -> Vec<Leaf> {
    let key = |of: fn(&Concurrency) -> String| concurrency.map(of);
    // Taken apart so that a new key does not compile until it has words.
    let _ = |Concurrency { max: _, queue: _, wait: _, growth: _, adaptive: _ }: Concurrency| ();
    vec![
        Leaf::option("concurrency.max", "any", concurrency.and_then(|c| c.max)),
        Leaf::option("concurrency.queue", "off", key(|c| c.queue.to_string())),
        Leaf::option("concurrency.wait", "off", key(|c| duration(c.wait))),
        Leaf::option("concurrency.growth", "at once", concurrency.and_then(|c| c.growth).map(growth)),
        Leaf::option("concurrency.adaptive", "off", concurrency.and_then(|c| c.adaptive).map(adaptive)),
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
