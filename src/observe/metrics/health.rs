//! Versions, and their addresses, that are out of traffic for failing, and what probes find.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::text::{Kind, Text};

/// One version's.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    is_out: AtomicBool,
    total: AtomicU64,
    addresses_out: AtomicU64,
    addresses_total: AtomicU64,
    checks: [AtomicU64; CheckResult::ALL.len()],
    check_fails: AtomicBool,
}

/// How a probe ended: `result` of `gatepost_checks_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    Passed,
    Failed,
    /// It said nothing: throttled, or not sent.
    Nothing,
}

impl CheckResult {
    /// In the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Passed, Self::Failed, Self::Nothing];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Nothing => "unknown",
        }
    }
}

impl Ejections {
    pub(super) fn stands(&self, is_out: bool, begins: bool) {
        self.is_out.store(is_out, Relaxed);
        if begins {
            self.total.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn addresses(&self, out: u64, began: u64) {
        self.addresses_out.store(out, Relaxed);
        self.addresses_total.fetch_add(began, Relaxed);
    }

    pub(super) fn checked(&self, result: CheckResult) {
        self.checks[result as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn check_fails(&self, fails: bool) {
        self.check_fails.store(fails, Relaxed);
    }
}

/// Of the versions of functions with `health`: function, version, and whether it is checked.
pub(super) fn render<'h>(versions: &[(&'h str, &'h str, &'h Ejections, bool)], out: &mut Text) {
    type Value = fn(&Ejections) -> u64;
    let families: [(&str, Kind, &str, Value); 4] = [
        (
            "gatepost_ejected",
            Kind::Gauge,
            "1 while a version is out of traffic for failing, or tried again.",
            |version| u64::from(version.is_out.load(Relaxed)),
        ),
        (
            "gatepost_ejections_total",
            Kind::Counter,
            "How often a version was taken out of traffic for failing.",
            |version| version.total.load(Relaxed),
        ),
        (
            "gatepost_addresses_ejected",
            Kind::Gauge,
            "Addresses of a version that go last for failing while others answer.",
            |version| version.addresses_out.load(Relaxed),
        ),
        (
            "gatepost_address_ejections_total",
            Kind::Counter,
            "How often an address of a version was put last for failing.",
            |version| version.addresses_total.load(Relaxed),
        ),
    ];
    for (name, kind, help, value) in families {
        out.family(name, kind, help);
        for (function, version, ejections, _) in versions {
            out.sample(name, &[("function", *function), ("version", *version)], value(ejections));
        }
    }
    let checked = || versions.iter().filter(|(.., is_checked)| *is_checked);
    let name = "gatepost_checks_total";
    out.family(name, Kind::Counter, "Probes of versions, by what they found.");
    for (function, version, ejections, _) in checked() {
        for result in CheckResult::ALL {
            let labels = [("function", *function), ("version", *version), ("result", result.as_str())];
            out.sample(name, &labels, ejections.checks[result as usize].load(Relaxed));
        }
    }
    let name = "gatepost_check_failing";
    out.family(name, Kind::Gauge, "1 while so many probes of a version in a row have failed that it would be put out.");
    for (function, version, ejections, _) in checked() {
        let labels = [("function", *function), ("version", *version)];
        out.sample(name, &labels, u8::from(ejections.check_fails.load(Relaxed)));
    }
}
