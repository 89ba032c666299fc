//! `budget` of a function.

use std::num::NonZeroU64;

use super::Scope;
use crate::config::{
    model::{Budget, Name, Price, Zone},
    raw_budget as raw,
    report::Problem,
    source::At,
};

const WARN: [u8; 3] = [50, 80, 100];

impl Scope<'_> {
    pub(super) fn budget(&mut self, function: &Name, at: &At<raw::Budget>) -> Option<Box<Budget>> {
        let raw = &at.value;
        let before = self.report.len();
        if raw.calls_per_day.is_none() && raw.spend_per_day.is_none() && !raw.broken {
            self.report.push(
                Problem::at(format!("the budget of function `{function}` bounds nothing"), at.span)
                    .label("expected `calls_per_day`, `spend_per_day` or both"),
            );
        }
        let price = raw.price.as_ref();
        let per_million = price.and_then(|at| at.value.per_million.as_ref());
        let per_gb_second = price.and_then(|at| at.value.per_gb_second.as_ref());
        if let Some(price) = price.filter(|at| per_million.is_none() && per_gb_second.is_none() && !at.value.broken) {
            self.report.push(
                Problem::at("an empty price", price.span).label("expected `per_million`, `per_gb_second` or both"),
            );
        }
        if let Some(spend) = raw.spend_per_day.as_ref().filter(|_| price.is_none() && !raw.broken) {
            self.report.push(
                Problem::at(format!("the budget of function `{function}` has no `price`"), spend.span)
                    .label("so nobody knows what is spent")
                    .help("write what the platform charges: `price = { per_million = 1.3, per_gb_second = 0.00011 }`"),
            );
        }
        match (&raw.memory, per_gb_second) {
            (None, Some(price)) if !raw.broken => self.report.push(
                Problem::at("a price per GB and second, and no `memory`", price.span)
                    .label("of how many GB?")
                    .help("write what the function is given: `memory = \"512MiB\"`"),
            ),
            (Some(memory), None) if !raw.broken => self.report.push(
                Problem::at("`memory` says nothing without `price.per_gb_second`", memory.span)
                    .label("not needed here"),
            ),
            _ => {}
        }
        let warn = match &raw.warn {
            None => WARN.to_vec(),
            Some(list) => {
                let mut warn: Vec<u8> = list.value.iter().filter_map(|at| u8::try_from(at.value.0).ok()).collect();
                warn.sort_unstable();
                warn.dedup();
                warn
            }
        };
        (self.report.len() == before).then(|| {
            Box::new(Budget {
                calls_per_day: raw
                    .calls_per_day
                    .as_ref()
                    .and_then(|at| u64::try_from(at.value.0).ok())
                    .and_then(NonZeroU64::new),
                spend_per_day: raw.spend_per_day.as_ref().map(|at| at.value.0),
                price: Price {
                    per_million: per_million.map(|at| at.value.0),
                    per_gb_second: per_gb_second.map(|at| at.value.0),
                },
                memory: raw.memory.as_ref().map(|at| at.value.0),
                warn,
                action: raw.action.as_ref().map(|at| at.value).unwrap_or_default(),
                zone: raw.timezone.as_ref().map_or_else(Zone::utc, |at| at.value.0.clone()),
            })
        })
    }
}
