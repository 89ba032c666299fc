//! How many calls a function may have at a time, and who waits for a place.

use std::{num::NonZeroU32, time::Duration};

use super::Rate;

/// `concurrency = { max = 300, queue = 1000, wait = "800ms" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// Calls at a time; `None`: any number.
    pub max: Option<NonZeroU32>,
    /// Requests that may wait for a place. Default 1,000.
    pub queue: u32,
    /// How long one may wait. Default 1 s.
    pub wait: Duration,
    /// How fast calls may become more; `None`: at once.
    pub growth: Option<Growth>,
    /// Fewer calls while the platform throttles; `None`: never.
    pub adaptive: Option<Adaptive>,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { max: None, queue: 1000, wait: Duration::from_secs(1), growth: None, adaptive: None }
    }
}

/// `growth = { rate = "500/min", burst = 300 }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// Calls at a time that may come on top while all that may be are.
    pub rate: Rate,
    /// Calls at a time that may be at once. Default: what `rate` gives in a minute.
    pub burst: NonZeroU32,
}

/// `adaptive = { min = 10, decrease = 5, increase = "10/s" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adaptive {
    /// Never fewer calls at a time than this. Default 10, or `max` where that is less.
    pub min: NonZeroU32,
    /// Percent of the calls at a time that a throttled answer takes away. Default 5.
    pub decrease: u8,
    /// How fast they come back. Default: a hundredth of `max` a second, at least 1; without `max` 10.
    pub increase: Rate,
}

/// `criticality = "critical" | "normal" | "bulk"` of a route: who goes first where requests wait.
///
/// In this order: the first is served first, the last is displaced first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Criticality {
    Critical,
    /// The default.
    #[default]
    Normal,
    Bulk,
}

impl Criticality {
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::Bulk];

    /// As the file has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}
