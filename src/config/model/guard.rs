//! `guard` of a function: how canaries are compared with the baseline, and what becomes of one that is worse.

use std::time::Duration;

/// `[function.NAME] guard`
#[derive(Debug, Clone, PartialEq)]
pub struct Guard {
    pub action: GuardAction,
    /// How many times the baseline's errors a canary may have.
    pub tolerate: f64,
    /// How probable it may be that a canary within that is called worse: a part of 1.
    pub false_alarm: f64,
    /// From which part of failing answers on, in either version, nothing is promoted.
    pub max_error_ratio: f64,
    /// What a canary must have answered since its share changed before it can be called healthy.
    pub min_requests: u64,
    /// How long ago that must be.
    pub min_time: Duration,
    /// Within this a caller's errors count as one.
    pub window: Duration,
    /// How many times the baseline's slow answers a canary may have; `None`: time isn't judged.
    pub latency: Option<f64>,
    /// For how long after its share has risen a canary's time isn't judged.
    pub warmup: Duration,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            action: GuardAction::Rollback,
            tolerate: 1.5,
            false_alarm: 0.001,
            max_error_ratio: 0.2,
            min_requests: 500,
            min_time: Duration::from_secs(300),
            window: Duration::from_secs(60),
            latency: None,
            warmup: Duration::from_secs(60),
        }
    }
}

/// What becomes of a canary that is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuardAction {
    /// Its share goes to the baseline.
    #[default]
    Rollback,
    /// It is told of, and nothing else.
    Alert,
}

impl GuardAction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Alert => "alert",
        }
    }
}
