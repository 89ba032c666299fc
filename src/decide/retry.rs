//! Whether a request may be sent to its function once more, and how long that has to wait.
//!
//! The budget is what keeps retries from making an outage worse: of the requests of the last [`WINDOW`] so many percent may be sent again,
//! or so many a second where that is more (linkerd's ratio, floor and time to live). Requests are counted by each worker for itself, and
//! summed only when somebody asks for a retry; retries are counted by all workers together, so that the bound is exact.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, header};
use jiff::{Timestamp, fmt::rfc2822};

use super::{Class, Now, Snapshot};
use crate::config::{Config, model::Retries};

/// How far back requests and retries count.
pub const WINDOW: Duration = Duration::from_secs(10);
const SLOTS: usize = WINDOW.as_secs() as usize;

/// Why a request is sent again: `reason` of `gatepost_retries_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// No connection: nothing was sent.
    Connect,
    /// A kept connection proved dead.
    Stale,
    /// The connection broke before an answer.
    Reset,
    /// What the answer was.
    Throttled,
    Platform,
    Function,
    Timeout,
    Config,
    Account,
}

impl Because {
    /// In the order of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Stale,
        Self::Reset,
        Self::Throttled,
        Self::Platform,
        Self::Function,
        Self::Timeout,
        Self::Config,
        Self::Account,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Stale => "stale",
            Self::Reset => "reset",
            Self::Throttled => "throttled",
            Self::Platform => "platform",
            Self::Function => "function",
            Self::Timeout => "timeout",
            Self::Config => "config",
            Self::Account => "account",
        }
    }

    /// `None`: an answer of that class is not asked for again, whatever a rule says.
    pub fn of(class: Class) -> Option<Self> {
        match class {
            Class::Throttled => Some(Self::Throttled),
            Class::Platform => Some(Self::Platform),
            Class::Function => Some(Self::Function),
            Class::Timeout => Some(Self::Timeout),
            Class::Config => Some(Self::Config),
            Class::Account => Some(Self::Account),
            _ => None,
        }
    }
}

/// What one function's requests and retries came to of late.
#[derive(Debug)]
pub struct Budget {
    /// By worker, each written by that worker alone.
    requests: Box<[Line]>,
    retries: Counts,
}

/// A slot per second: the second in the upper half, how many in the lower.
type Counts = [AtomicU64; SLOTS];

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(Counts);

/// The budgets of all functions with `retries`; what was counted goes on from `previous`.
pub(super) fn budgets(config: &Config, workers: usize, previous: Option<&Snapshot>) -> Arc<[Option<Arc<Budget>>]> {
    let old: HashMap<&str, &Arc<Budget>> = previous
        .map(|p| {
            p.config.functions.iter().zip(&*p.budgets).filter_map(|(f, b)| Some((&*f.name, b.as_ref()?))).collect()
        })
        .unwrap_or_default();
    let budget = |name: &str| match old.get(name) {
        Some(budget) if budget.requests.len() == workers.max(1) => Arc::clone(budget),
        _ => Arc::new(Budget::new(workers)),
    };
    config.functions.iter().map(|function| function.retries.map(|_| budget(&function.name))).collect()
}

impl Budget {
    pub fn new(workers: usize) -> Self {
        Self { requests: (0..workers.max(1)).map(|_| Line::default()).collect(), retries: Counts::default() }
    }

    /// A request goes to the function for the first time. `worker` is the number of the calling thread.
    pub fn request(&self, worker: usize, now: Now) {
        let second = second(now);
        let slot = &self.requests[worker % self.requests.len()].0[at(second)];
        // Nobody else writes it.
        slot.store(joined(second, count_of(slot.load(Relaxed), second) + 1), Relaxed);
    }

    /// Takes one retry, if there is one left.
    pub fn take(&self, retries: &Retries, now: Now) -> bool {
        let second = second(now);
        let slot = &self.retries[at(second)];
        loop {
            let seen = slot.load(Relaxed);
            let here = count_of(seen, second);
            let before = (1..SLOTS as u64).filter_map(|ago| second.checked_sub(ago));
            let before: u64 = before.map(|s| count_of(self.retries[at(s)].load(Relaxed), s)).sum();
            if here + before >= self.allowed(retries, second) {
                return false;
            }
            if slot.compare_exchange_weak(seen, joined(second, here + 1), Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
    }

    /// How many retries the requests of the window are worth.
    fn allowed(&self, retries: &Retries, second: u64) -> u64 {
        let requests: u64 = self.requests.iter().map(|line| window(&line.0, second)).sum();
        let floor = u128::from(retries.floor.count.get()) * WINDOW.as_nanos() / retries.floor.period.as_nanos().max(1);
        let share = requests * u64::from(retries.budget) / 100;
        share.max(u64::try_from(floor).unwrap_or(u64::MAX))
    }
}

fn second(now: Now) -> u64 {
    now.0 / 1_000_000_000
}

fn at(second: u64) -> usize {
    (second % SLOTS as u64) as usize
}

fn joined(second: u64, count: u64) -> u64 {
    second << 32 | count.min(u64::from(u32::MAX))
}

fn count_of(slot: u64, second: u64) -> u64 {
    if slot >> 32 == second & u64::from(u32::MAX) { slot & u64::from(u32::MAX) } else { 0 }
}

fn window(counts: &Counts, second: u64) -> u64 {
    let seconds = (0..SLOTS as u64).filter_map(|ago| second.checked_sub(ago));
    seconds.map(|s| count_of(counts[at(s)].load(Relaxed), s)).sum()
}

/// How long the `nth` retry (from 1) waits: a random time up to `backoff`, twice as long for each further one ("full jitter": those who
/// failed together don't come back together). `dice` is any 64 bits.
pub fn backoff(retries: &Retries, nth: u32, dice: u64) -> Duration {
    let most = retries.backoff.saturating_mul(1 << nth.saturating_sub(1).min(16)).min(retries.max_wait);
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(nanos) * u128::from(dice)) >> 64) as u64)
}

/// What an answer's `Retry-After` asks for (RFC 9110 §10.2.3): seconds, or a date. `None`: it has none, or one that says nothing.
pub fn retry_after(headers: &HeaderMap, unix_ms: impl FnOnce() -> u64) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are for ever.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date: Timestamp = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let date = u64::try_from(date.as_millisecond()).unwrap_or(0);
    Some(Duration::from_millis(date.saturating_sub(unix_ms())))
}

/// The wait before the `nth` retry: its [`backoff`], and what `Retry-After` asks for before that. `None`: it is not waited for, since it
/// is longer than `max_wait`, or than the request has left.
pub fn wait(
    retries: &Retries,
    nth: u32,
    dice: u64,
    after: Option<Duration>,
    left: Option<Duration>,
) -> Option<Duration> {
    let after = after.unwrap_or_default();
    let wait = after.saturating_add(backoff(retries, nth, dice));
    (after <= retries.max_wait && left.is_none_or(|left| wait < left)).then_some(wait)
}

#[cfg(test)]
mod tests;
