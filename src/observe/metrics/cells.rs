//! Counters that exist once per worker, and are made when first touched.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Class;

/// One `T` per worker. A gateway with 10,000 routes keeps 24 bytes for each that nobody calls.
#[derive(Debug)]
pub(super) struct Sharded<T> {
    shards: usize,
    cells: OnceLock<Box<[Line<T>]>>,
}

/// Begins on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line<T>(T);

impl<T: Default> Sharded<T> {
    /// `shards` is a power of two.
    pub(super) fn new(shards: usize) -> Self {
        Self { shards, cells: OnceLock::new() }
    }

    /// The cell of a worker. Two workers may share one without harm but that of waiting for its cache line.
    pub(super) fn of(&self, worker: usize) -> &T {
        let cells = self.cells.get_or_init(|| (0..self.shards).map(|_| Line::default()).collect());
        &cells[worker & (cells.len() - 1)].0
    }

    /// All cells; none if nobody touched any.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.cells.get().map_or(&[][..], |cells| cells).iter().map(|line| &line.0)
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.cells.get().is_none()
    }

    pub(super) fn sum(&self, count: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.iter().map(|cell| count(cell).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// Upper bounds of the buckets of request times, in microseconds, and as Prometheus writes them in seconds.
pub(super) const BUCKETS: [(u64, &str); 15] = [
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (60_000_000, "60"),
];

/// One worker's requests of one route and version.
#[derive(Debug, Default)]
pub(super) struct Requests {
    classes: [AtomicU64; Class::ALL.len()],
    /// Not cumulative; the last is above all bounds.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Requests {
    pub(super) fn count(&self, class: Class, total: Duration) {
        let micros = u64::try_from(total.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|&(bound, _)| micros <= bound).unwrap_or(BUCKETS.len());
        self.classes[class as usize].fetch_add(1, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Sharded<Requests> {
    pub(super) fn class(&self, class: Class) -> u64 {
        self.sum(|cell| &cell.classes[class as usize])
    }

    pub(super) fn bucket(&self, at: usize) -> u64 {
        self.sum(|cell| &cell.buckets[at])
    }

    pub(super) fn seconds(&self) -> f64 {
        self.sum(|cell| &cell.micros) as f64 / 1e6
    }
}

/// One worker's dealings with one version of a function.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    /// May be negative in one cell, if another worker ended what this one began: the sum counts.
    pub(super) in_flight: AtomicI64,
    /// Connections used: fresh, reused.
    pub(super) connections: [AtomicU64; 2],
}

impl Sharded<Upstream> {
    pub(super) fn in_flight(&self) -> i64 {
        self.iter().map(|cell| cell.in_flight.load(Ordering::Relaxed)).sum()
    }
}

/// One worker's count of what one limit did.
#[derive(Debug, Default)]
pub(super) struct Limited {
    pub(super) refused: AtomicU64,
    pub(super) dry_run: AtomicU64,
    pub(super) overflow: AtomicU64,
}
