//! `retries = { … }` of a function.

use std::{num::NonZeroU32, time::Duration};

use super::patience;
use crate::config::{
    model::{Rate, Retries},
    raw, raw_retries,
    read::Whole,
    source::At,
};

/// What is in force; `None`: no retries but those that are always safe.
pub(super) fn retries(raw: &raw::Function) -> Option<Retries> {
    let raw_retries::Retries { attempts, budget, floor, backoff, max_wait, broken: _ } = &raw.retries.as_ref()?.value;
    let max_wait = patience(max_wait.as_ref(), 2);
    Some(Retries {
        attempts: whole(attempts.as_ref(), 2),
        budget: whole(budget.as_ref(), 10),
        floor: floor.as_ref().map_or(Rate { count: NonZeroU32::MIN, period: Duration::from_secs(1) }, |at| at.value),
        backoff: backoff.as_ref().map_or(Duration::from_millis(25), |at| at.value.0),
        max_wait,
    })
}

fn whole<const MIN: i64, const MAX: i64>(at: Option<&At<Whole<MIN, MAX>>>, default: u8) -> u8 {
    at.and_then(|at| u8::try_from(at.value.0).ok()).unwrap_or(default)
}
