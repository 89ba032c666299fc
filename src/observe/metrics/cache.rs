//! What routes answer out of memory.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    cells::Sharded,
    text::{Kind, Text},
};

/// What a route's cache did for a request: `cache` in the access log, `result` of `gatepost_cache_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// Answered out of memory.
    Hit,
    /// It went to the function.
    Miss,
    /// Answered out of memory, though that was too old, since the function failed.
    Stale,
    /// It waited for the answer to another request, and got that.
    Coalesced,
    /// The cache had no part in it.
    Bypass,
}

impl CacheResult {
    pub const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Stale, Self::Coalesced, Self::Bypass];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Coalesced => "coalesced",
            Self::Bypass => "bypass",
        }
    }
}

/// The counters of one route's cache.
#[derive(Debug)]
pub struct CacheCounts {
    results: Sharded<Results>,
    /// Bytes that its answers take.
    held: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Results([AtomicU64; CacheResult::ALL.len()]);

impl CacheCounts {
    pub(super) fn new(shards: usize) -> Self {
        Self { results: Sharded::new(shards), held: Arc::default() }
    }

    pub fn count(&self, worker: usize, result: CacheResult) {
        self.results.of(worker).0[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// To be kept up to date by whoever holds the bytes.
    pub fn held(&self) -> &Arc<AtomicU64> {
        &self.held
    }
}

pub(super) fn render<'c>(caches: impl Iterator<Item = (&'c str, &'c CacheCounts)> + Clone, out: &mut Text) {
    let name = "gatepost_cache_total";
    out.family(name, Kind::Counter, "Requests of routes with a cache, by what it did for them.");
    for (route, counts) in caches.clone() {
        for result in CacheResult::ALL {
            let count = counts.results.sum(|cell| &cell.0[result as usize]);
            out.sample(name, &[("route", route), ("result", result.as_str())], count);
        }
    }
    let name = "gatepost_cache_bytes";
    out.family(name, Kind::Gauge, "What the answers that a route's cache keeps take.");
    for (route, counts) in caches {
        out.sample(name, &[("route", route)], counts.held.load(Ordering::Relaxed));
    }
}
