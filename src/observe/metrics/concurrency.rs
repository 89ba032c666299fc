//! Places for calls, and who waits for one.

use super::text::{Kind, Text};
use crate::{config::model::Name, upstream::concurrency::Numbers};

pub(super) fn render(all: &[(Name, Numbers)], out: &mut Text) {
    let limit = |limit: Option<u32>| limit.map_or_else(|| "+Inf".to_owned(), |limit| limit.to_string());
    type Value = fn(&Numbers) -> u64;
    let number: [(&str, Kind, &str, Value); 3] = [
        ("gatepost_concurrency_in_use", Kind::Gauge, "Calls under way, of functions with `concurrency`.", |n| {
            n.in_use.into()
        }),
        ("gatepost_queue_length", Kind::Gauge, "Requests that wait for a place.", |n| n.waiting.into()),
        (
            "gatepost_concurrency_decreases_total",
            Kind::Counter,
            "How often a throttled answer made the limit smaller.",
            |n| n.cuts,
        ),
    ];
    for (name, kind, help, value) in number {
        out.family(name, kind, help);
        for (function, numbers) in all {
            out.sample(name, &[("function", function)], value(numbers));
        }
    }
    let name = "gatepost_concurrency_limit";
    out.family(name, Kind::Gauge, "Calls that may be under way just now.");
    for (function, numbers) in all {
        out.sample(name, &[("function", function)], limit(numbers.limit));
    }
    let name = "gatepost_concurrency_adaptive_limit";
    out.family(name, Kind::Gauge, "What `adaptive` has come to.");
    for (function, numbers) in all {
        if let Some(adapted) = numbers.adapted {
            out.sample(name, &[("function", function)], limit(adapted));
        }
    }
    let name = "gatepost_queue_total";
    out.family(name, Kind::Counter, "Requests that found no place free, by what became of them.");
    for (function, numbers) in all {
        let Numbers { served, late, full, displaced, gone, .. } = *numbers;
        let results = [("served", served), ("late", late), ("full", full), ("displaced", displaced), ("gone", gone)];
        for (result, count) in results {
            out.sample(name, &[("function", function), ("result", result)], count);
        }
    }
    let name = "gatepost_queue_wait_seconds_total";
    out.family(name, Kind::Counter, "How long those waited that got a place.");
    for (function, numbers) in all {
        out.sample(name, &[("function", function)], numbers.waited.as_secs_f64());
    }
}
