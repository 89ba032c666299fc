//! Versions that are out of traffic for failing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::text::{Kind, Text};

/// One version's.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    is_out: AtomicBool,
    total: AtomicU64,
}

impl Ejections {
    pub(super) fn stands(&self, is_out: bool, begins: bool) {
        self.is_out.store(is_out, Relaxed);
        if begins {
            self.total.fetch_add(1, Relaxed);
        }
    }
}

/// Of the versions of functions with `health`: function, version.
pub(super) fn render<'h>(versions: &[(&'h str, &'h str, &'h Ejections)], out: &mut Text) {
    let name = "gatepost_ejected";
    out.family(name, Kind::Gauge, "1 while a version is out of traffic for failing, or tried again.");
    for (function, version, ejections) in versions {
        let labels = [("function", *function), ("version", *version)];
        out.sample(name, &labels, u8::from(ejections.is_out.load(Relaxed)));
    }
    let name = "gatepost_ejections_total";
    out.family(name, Kind::Counter, "How often a version was taken out of traffic for failing.");
    for (function, version, ejections) in versions {
        let labels = [("function", *function), ("version", *version)];
        out.sample(name, &labels, ejections.total.load(Relaxed));
    }
}
