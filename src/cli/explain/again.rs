//! When a request would be sent again.

use http::Method;
use serde::Serialize;

use super::told::row;
use crate::{
    cli::{failure::Outcome, term::Terminal},
    config::{
        changes,
        model::{Function, Retries},
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
