//! The key sets that are fetched, and how that goes.

use std::sync::{
    Mutex,
    atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use jiff::Timestamp;

use super::{
    lock,
    text::{Kind, Text},
};

/// Of one URL, which is the config's word.
#[derive(Debug)]
pub struct JwksCounts {
    url: String,
    keys: AtomicUsize,
    /// Seconds since 1970; 0: not since the start.
    fetched_at: AtomicI64,
    good: AtomicU64,
    failed: AtomicU64,
    error: Mutex<Option<String>>,
}

impl JwksCounts {
    /// `keys`: how many are remembered.
    pub fn new(url: String, keys: usize) -> Self {
        Self {
            url,
            keys: AtomicUsize::new(keys),
            fetched_at: AtomicI64::new(0),
            good: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            error: Mutex::default(),
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// It was fetched.
    pub fn fetched(&self, keys: usize) {
        self.keys.store(keys, Relaxed);
        self.fetched_at.store(Timestamp::now().as_second(), Relaxed);
        self.good.fetch_add(1, Relaxed);
        *lock(&self.error) = None;
    }

    /// It was not, and why.
    pub fn failed(&self, error: &str) {
        self.failed.fetch_add(1, Relaxed);
        *lock(&self.error) = Some(error.to_owned());
    }

    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// When it was fetched last.
    pub fn fetched_at(&self) -> Option<Timestamp> {
        match self.fetched_at.load(Relaxed) {
            0 => None,
            at => Timestamp::from_second(at).ok(),
        }
    }

    /// Why the last fetch failed, if it did.
    pub fn error(&self) -> Option<String> {
        lock(&self.error).clone()
    }
}

pub(super) fn render(all: &[std::sync::Arc<JwksCounts>], out: &mut Text) {
    let name = "gatepost_jwks_fetches_total";
    out.family(name, Kind::Counter, "Fetches of issuers' keys, by how they ended.");
    for one in all {
        for (result, count) in [("ok", &one.good), ("failed", &one.failed)] {
            out.sample(name, &[("url", &one.url), ("result", result)], count.load(Relaxed));
        }
    }
    let name = "gatepost_jwks_keys";
    out.family(name, Kind::Gauge, "Keys of issuers that are in use.");
    for one in all {
        out.sample(name, &[("url", &one.url)], one.keys());
    }
    let name = "gatepost_jwks_last_success_seconds";
    out.family(
        name,
        Kind::Gauge,
        "When issuers' keys were fetched last, in seconds since 1970; 0: not since the start.",
    );
    for one in all {
        out.sample(name, &[("url", &one.url)], one.fetched_at.load(Relaxed));
    }
}
