//! Functions' budgets.

use super::text::{Kind, Text};

/// A function's day.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetCounts {
    pub function: String,
    /// 1 is all of it.
    pub used: f64,
    pub calls: u64,
    pub spend: f64,
    /// When it is gone, in seconds since 1970; `None`: not on this day.
    pub gone: Option<i64>,
    /// Requests that it refused, since the start.
    pub refused: u64,
}

pub(super) fn render(all: &[BudgetCounts], out: &mut Text) {
    let name = "gatepost_budget_used_ratio";
    out.family(name, Kind::Gauge, "How much of the day's budget is used; 1 is all of it.");
    for one in all {
        out.sample(name, &[("function", &one.function)], one.used);
    }
    let name = "gatepost_budget_calls";
    out.family(name, Kind::Gauge, "Calls of the day that are billed or under way.");
    for one in all {
        out.sample(name, &[("function", &one.function)], one.calls);
    }
    let name = "gatepost_budget_spend";
    out.family(name, Kind::Gauge, "What the day's calls cost by the config's prices.");
    for one in all {
        out.sample(name, &[("function", &one.function)], one.spend);
    }
    let name = "gatepost_budget_exhaustion_seconds";
    let help =
        "When the day's budget is gone, at the rate of the last minutes, in seconds since 1970; absent if it lasts.";
    out.family(name, Kind::Gauge, help);
    for one in all {
        if let Some(gone) = one.gone {
            out.sample(name, &[("function", &one.function)], gone);
        }
    }
    let name = "gatepost_budget_refused_total";
    out.family(name, Kind::Counter, "Requests that a budget refused.");
    for one in all {
        out.sample(name, &[("function", &one.function)], one.refused);
    }
}
