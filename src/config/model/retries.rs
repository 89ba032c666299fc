//! When a request that came to nothing is sent to its function once more.

use std::time::Duration;

use super::Rate;

/// `retries = { attempts = 2, budget = 10, floor = "1/s", backoff = "25ms", max_wait = "2s" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// In all, the first counted, as `attempts` in the access log counts. 1 to 5.
    pub attempts: u8,
    /// Percent of the requests of the last [`WINDOW`](crate::decide::retry::WINDOW).
    pub budget: u8,
    /// What may be retried whatever the traffic.
    pub floor: Rate,
    /// The first wait's upper end; it doubles.
    pub backoff: Duration,
    /// No wait is longer.
    pub max_wait: Duration,
}

/// `retry = "…"` of a rule: which requests may be sent again after such an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryOf {
    /// The function did not run: any method.
    Any,
    /// It may have run: methods that mean the same twice (RFC 9110 §9.2.2).
    Idempotent,
    Never,
}

impl RetryOf {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Idempotent => "idempotent",
            Self::Never => "never",
        }
    }
}
