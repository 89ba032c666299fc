//! When a version, or an address of it, gets no requests for a while.

use std::time::Duration;

/// `health = { consecutive_failures = 5, base_ejection_time = "30s", max_ejection_time = "5m", check = { … } }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Failed requests in a row. At least 1.
    pub consecutive_failures: u32,
    /// How long it is out the first time; it doubles.
    pub base_ejection_time: Duration,
    /// Never longer; at least as long as the first time.
    pub max_ejection_time: Duration,
    /// Calls of gatepost's own; `None`: it makes none.
    pub check: Option<Check>,
}

impl Health {
    /// How long what is out for the `times`th time (from 1) rests.
    pub fn rest(&self, times: u32) -> Duration {
        self.base_ejection_time.saturating_mul(1 << times.saturating_sub(1).min(20)).min(self.max_ejection_time)
    }
}

/// `check = { path = "/health", method = "HEAD", every = "30s", timeout = "5s", status = ["2xx", "3xx"], fall = 3, rise = 2 }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub method: ProbeMethod,
    /// Path and query, behind the path of the version's URL.
    pub path: String,
    /// From the beginning of one probe to that of the next.
    pub every: Duration,
    /// For a probe's answer, its connection included. No longer than `every`.
    pub timeout: Duration,
    /// What a good answer has: inclusive ranges.
    pub statuses: Vec<(u16, u16)>,
    /// So many failed probes in a row put it out. At least 1.
    pub fall: u32,
    /// So many good ones in a row let it back. At least 1.
    pub rise: u32,
}

impl Check {
    /// Whether an answer with this status is a good one.
    pub fn is_good(&self, status: u16) -> bool {
        self.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status))
    }
}

/// How a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ProbeMethod {
    #[default]
    Head,
    Get,
}

impl ProbeMethod {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "HEAD",
            Self::Get => "GET",
        }
    }
}
