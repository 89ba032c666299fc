//! The tokens that are fetched for functions, and how that goes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::text::{Kind, Text};

/// Of one credential and audience.
#[derive(Debug)]
pub struct TokenCounts {
    credential: String,
    audience: String,
    good: AtomicU64,
    failed: AtomicU64,
    /// Seconds since 1970; 0: there is none.
    until: AtomicU64,
}

impl TokenCounts {
    pub fn new(credential: String, audience: String) -> Self {
        Self { credential, audience, good: AtomicU64::new(0), failed: AtomicU64::new(0), until: AtomicU64::new(0) }
    }

    /// It was fetched, and is good until then.
    pub fn fetched(&self, until: u64) {
        self.good.fetch_add(1, Relaxed);
        self.until.store(until, Relaxed);
    }

    /// It was fetched elsewhere.
    pub fn holds(&self, until: u64) {
        self.until.store(until, Relaxed);
    }

    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }
}

pub(super) fn render(all: &[std::sync::Arc<TokenCounts>], out: &mut Text) {
    let name = "gatepost_token_fetches_total";
    out.family(name, Kind::Counter, "Fetches of tokens for functions, by how they ended.");
    for one in all {
        for (result, count) in [("ok", &one.good), ("failed", &one.failed)] {
            let labels = [("credential", &*one.credential), ("audience", &one.audience), ("result", result)];
            out.sample(name, &labels, count.load(Relaxed));
        }
    }
    let name = "gatepost_token_expiry_seconds";
    out.family(name, Kind::Gauge, "Until when a function's token is good, in seconds since 1970; 0: there is none.");
    for one in all {
        let labels = [("credential", &*one.credential), ("audience", &one.audience)];
        out.sample(name, &labels, one.until.load(Relaxed));
    }
}
