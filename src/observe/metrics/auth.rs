//! Callers that did not show who they are.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    cells::Sharded,
    text::{Kind, Text},
};
use crate::decide::auth::{Failure, Kind as Shown, Why};

/// By what was shown and what was wrong with it: no label that a caller can invent.
#[derive(Debug)]
pub(super) struct AuthFailures(Sharded<Cells>);

#[derive(Debug, Default)]
struct Cells([[AtomicU64; Why::ALL.len()]; Shown::ALL.len()]);

impl AuthFailures {
    pub(super) fn new(shards: usize) -> Self {
        Self(Sharded::new(shards))
    }

    pub(super) fn count(&self, worker: usize, failure: Failure) {
        self.0.of(worker).0[failure.kind as usize][failure.why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Only what has happened: most pairs never do.
    pub(super) fn render(&self, out: &mut Text) {
        let name = "gatepost_auth_failures_total";
        out.family(name, Kind::Counter, "Requests whose caller did not show who it is.");
        for kind in Shown::ALL {
            for why in Why::ALL {
                let count = self.0.sum(|cells| &cells.0[kind as usize][why as usize]);
                if count > 0 {
                    out.sample(name, &[("kind", kind.as_str()), ("reason", why.as_str())], count);
                }
            }
        }
    }
}
