//! An answer's status and headers → how the call ended, and what the caller is told of it.

use http::HeaderMap;

use crate::config::model::{Class, Platform};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub class: Class,
    /// The status that callers are to get instead, under `map_status`.
    pub answer: Option<u16>,
}

/// By the function's rules and its platform's, or else [`by_status`]. `None` where there are no rules.
pub fn outcome(platform: &Platform, status: u16, headers: &HeaderMap) -> Option<Outcome> {
    if platform.classify.is_empty() && !platform.map_status {
        return None;
    }
    let rule = platform.classify.iter().find(|rule| rule.matches(status, headers));
    let class = rule.map_or_else(|| by_status(status), |rule| rule.class);
    let answer = match rule.and_then(|rule| rule.answer) {
        Some(answer) => Some(answer).filter(|answer| *answer != status),
        None => honest(class, status),
    };
    Some(Outcome { class, answer: answer.filter(|_| platform.map_status && status != 101) })
}

/// What a status means where nobody knows better.
pub fn by_status(status: u16) -> Class {
    match status {
        429 => Class::Throttled,
        500.. => Class::Function,
        400.. => Class::ClientError,
        _ => Class::Ok,
    }
}

/// The status that says what such an outcome is, where `status` does not.
///
/// What went wrong behind gatepost is no fault of the caller's, so it is a 5xx: 504 where time ran out, 503 where another
/// try later may do, else 502. A 5xx is honest already. A throttle may stay a 429, which every client knows to wait on.
fn honest(class: Class, status: u16) -> Option<u16> {
    let is_server_error = (500..600).contains(&status);
    match class {
        Class::Throttled if status == 429 => None,
        _ if is_server_error => None,
        Class::Throttled | Class::Account => Some(503),
        Class::Timeout => Some(504),
        Class::Function | Class::Platform | Class::Config | Class::Unreachable => Some(502),
        Class::Ok | Class::ClientError | Class::RateLimited | Class::Refused | Class::Aborted => None,
    }
}
