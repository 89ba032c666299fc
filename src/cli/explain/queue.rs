//! Where a request would wait, and before whom.

use serde::Serialize;

use super::told::{Told, row};
use crate::{
    cli::{failure::Outcome, term::Terminal},
    config::{
        changes,
        model::{Function, Route},
    },
};

#[derive(Debug, Serialize)]
pub(super) struct QueueTold {
    max: Option<u32>,
    queue: u32,
    wait: String,
    criticality: &'static str,
    /// Versions with a cap of their own, of those that it may reach.
    versions: Vec<(String, u32)>,
    #[serde(skip)]
    words: String,
}

/// Tells of the queue, where the function has one.
pub(super) fn explain(told: &mut Told, function: &Function, route: &Route) {
    let Some(concurrency) = function.concurrency.as_ref().filter(|_| told.refused.is_none()) else { return };
    let reached = |name: &str| told.destinations.iter().any(|to| to.version == name);
    let capped = function.versions.iter().filter(|version| reached(&version.name));
    told.queue = Some(QueueTold {
        max: concurrency.max.map(std::num::NonZero::get),
        queue: concurrency.queue,
        wait: changes::duration(concurrency.wait),
        criticality: route.criticality.as_str(),
        versions: capped.filter_map(|v| Some((v.name.to_string(), v.max_concurrency?.get()))).collect(),
        words: changes::concurrency(concurrency),
    });
}

impl QueueTold {
    pub(super) fn print(&self, term: &mut Terminal) -> Outcome {
        row(term, "calls", &self.words)?;
        for (version, max) in &self.versions {
            row(term, "", format_args!("of {version} at most {max} at a time"))?;
        }
        row(term, "", format_args!("waits as {}", self.criticality))
    }
}
