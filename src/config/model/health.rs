//! When a version, or an address of it, gets no requests for a while.

use std::time::Duration;

/// `health = { consecutive_failures = 5, base_ejection_time = "30s", max_ejection_time = "5m" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Failed requests in a row. At least 1.
    pub consecutive_failures: u32,
    /// How long it is out the first time; it doubles.
    pub base_ejection_time: Duration,
    /// Never longer; at least as long as the first time.
    pub max_ejection_time: Duration,
}
