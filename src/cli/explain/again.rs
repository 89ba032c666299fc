//! When a request would be sent again, and what its version's failures would lead to.

use http::Method;
use serde::Serialize;

use super::told::row;
use crate::{
    cli::{failure::Outcome, term::Terminal},
    config::{
        changes,
        model::{Function, Health, Retries},
    },
};

#[derive(Debug, Serialize)]
pub(super) struct RetriesTold {
    /// In all, the first counted.
    attempts: u8,
    budget_percent: u8,
    floor: String,
    /// Also where the function may have run: the method means the same twice.
    idempotent: bool,
}

/// `None`: without `retries`.
pub(super) fn told(function: &Function, method: &str) -> Option<RetriesTold> {
    let Retries { attempts, budget, floor, backoff: _, max_wait: _ } = function.retries?;
    let idempotent = Method::from_bytes(method.as_bytes()).is_ok_and(|method| method.is_idempotent());
    Some(RetriesTold { attempts, budget_percent: budget, floor: changes::rate(floor), idempotent })
}

impl RetriesTold {
    pub(super) fn print(&self, term: &mut Terminal) -> Outcome {
        let Self { attempts, budget_percent, floor, idempotent } = self;
        let when = match (attempts, idempotent) {
            (1, _) => "no answer is asked for again".to_owned(),
            (_, true) => format!("up to {attempts} attempts if it is throttled, cannot connect, or comes to nothing"),
            (_, false) => {
                format!("up to {attempts} attempts if it is throttled or cannot connect: it may not run twice")
            }
        };
        row(term, "retries", format_args!("{when}; at most {budget_percent} % of requests, or {floor}"))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct HealthTold {
    consecutive_failures: u32,
    base_ejection_time: String,
    max_ejection_time: String,
    /// Whether a version may be out: there is another one.
    versions: bool,
    check: Option<CheckTold>,
}

#[derive(Debug, Serialize)]
struct CheckTold {
    asks: String,
    every: String,
    fall: u32,
    rise: u32,
}

/// `None`: without `health`.
pub(super) fn health(function: &Function) -> Option<HealthTold> {
    let Health { consecutive_failures, base_ejection_time, max_ejection_time, check } = function.health.as_ref()?;
    Some(HealthTold {
        consecutive_failures: *consecutive_failures,
        base_ejection_time: changes::duration(*base_ejection_time),
        max_ejection_time: changes::duration(*max_ejection_time),
        versions: function.versions.len() > 1,
        check: check.as_ref().map(|check| CheckTold {
            asks: format!("{} {}", check.method.as_str(), check.path),
            every: changes::duration(check.every),
            fall: check.fall,
            rise: check.rise,
        }),
    })
}

impl HealthTold {
    pub(super) fn print(&self, term: &mut Terminal) -> Outcome {
        let Self { consecutive_failures, base_ejection_time, max_ejection_time, versions, check } = self;
        let what = match versions {
            true => "put a version out, the baseline never",
            false => "put an address last, as long as another one answers",
        };
        row(
            term,
            "health",
            format_args!(
                "{consecutive_failures} failures in a row {what}: for {base_ejection_time}, at most {max_ejection_time}"
            ),
        )?;
        if let Some(CheckTold { asks, every, fall, rise }) = check {
            row(
                term,
                "check",
                format_args!(
                    "{asks} of each version each {every}: {fall} failures put it out, back after {rise} good ones"
                ),
            )?;
        }
        Ok(())
    }
}
