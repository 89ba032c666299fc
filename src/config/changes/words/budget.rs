//! A function's budget, in words.

use super::{Leaf, bytes};
use crate::config::model::{Budget, Price};

pub(super) fn budget_leaves(budget: Option<&Budget>) -> Vec<Leaf> {
    let Some(budget) = budget else {
        let keys = [
            "budget.calls_per_day",
            "budget.spend_per_day",
            "budget.price.per_million",
            "budget.price.per_gb_second",
            "budget.memory",
            "budget.timezone",
            "budget.warn",
            "budget.action",
        ];
        return keys.into_iter().map(|key| Leaf::one(key, "none")).collect();
    };
    let Budget { calls_per_day, spend_per_day, price, memory, warn, action, zone } = budget;
    let Price { per_million, per_gb_second } = price;
    vec![
        Leaf::option("budget.calls_per_day", "none", *calls_per_day),
        Leaf::option("budget.spend_per_day", "none", *spend_per_day),
        Leaf::option("budget.price.per_million", "none", *per_million),
        Leaf::option("budget.price.per_gb_second", "none", *per_gb_second),
        Leaf::option("budget.memory", "none", memory.map(bytes)),
        Leaf::one("budget.timezone", &zone.name),
        Leaf::list("budget.warn", "never", warn.iter().map(|percent| format!("{percent} %"))),
        Leaf::one("budget.action", action.as_str()),
    ]
}
