//! An answer's status and headers → how the call ended, and what the caller is told of it.

use http::HeaderMap;

use crate::config::model::{Class, Platform, RetryOf};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub class: Class,
    /// The status that callers are to get instead, under `map_status`.
    pub answer: Option<u16>,
    /// Which requests may be sent again.
    pub retry: RetryOf,
    /// Whether the platform bills it, where a rule says so; else the class does.
    pub billed: Option<bool>,
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
    let retry = rule.and_then(|rule| rule.retry).unwrap_or_else(|| retry_of(class));
    let billed = rule.and_then(|rule| rule.billed);
    Some(Outcome { class, answer: answer.filter(|_| platform.map_status && status != 101), retry, billed })
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

/// Which requests may be sent again after such an outcome, where no rule says so. What was throttled did not run; a platform's own
/// fault may have struck before the function or behind it. A function that failed would fail again, one that is too slow may still
/// be running, and a config or an account does not mend itself.
pub fn retry_of(class: Class) -> RetryOf {
    match class {
        Class::Throttled => RetryOf::Any,
        Class::Platform => RetryOf::Idempotent,
        _ => RetryOf::Never,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{
        model::{PlatformName, Rule},
        preset::preset,
    };

    fn told(name: PlatformName, status: u16, fields: &[(&'static str, &str)]) -> (Class, u16) {
        let mut platform = preset(name).unwrap().platform.clone();
        platform.map_status = true;
        let fields = fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        let outcome = outcome(&platform, status, &fields.collect()).unwrap();
        (outcome.class, outcome.answer.unwrap_or(status))
    }

    /// `platforms.md` B2, signal by signal: platform, status, headers → class, and the caller's status under `map_status`.
    #[test]
    fn each_signal_of_each_platform_is_told_apart() {
        use Class::{Account, ClientError, Config, Function, Ok, Platform, Throttled, Timeout};
        use PlatformName::{AliyunFc3, AwsLambdaUrl, AzureFunctions, CloudRun, Generic, Knative, OpenFaas, TencentScf};
        const FC: (&str, &str) = ("x-fc-error-type", "FcCommonError");
        type Signal = (PlatformName, u16, &'static [(&'static str, &'static str)], Class, u16);
        let table: &[Signal] = &[
            (AliyunFc3, 200, &[], Ok, 200),
            (AliyunFc3, 404, &[], ClientError, 404),
            (AliyunFc3, 429, &[FC], Throttled, 429),
            (AliyunFc3, 503, &[FC], Throttled, 503),
            (AliyunFc3, 500, &[FC], Platform, 500),
            (AliyunFc3, 502, &[("x-fc-error-type", "UnhandledInvocationError")], Function, 502),
            (AliyunFc3, 200, &[("x-fc-error-type", "InitializationError")], Function, 502),
            (AliyunFc3, 200, &[("x-fc-error-type", "HandledInvocationError")], Function, 502),
            (AliyunFc3, 400, &[FC], Config, 502),
            (AliyunFc3, 403, &[FC], Config, 502),
            (AliyunFc3, 404, &[FC], Config, 502),
            (TencentScf, 429, &[], Throttled, 429),
            (TencentScf, 432, &[], Throttled, 503),
            (TencentScf, 430, &[], Function, 502),
            (TencentScf, 433, &[], Function, 502),
            (TencentScf, 434, &[], Function, 502),
            (TencentScf, 402, &[], Account, 503),
            (TencentScf, 410, &[], Account, 503),
            (TencentScf, 406, &[], Config, 502),
            (TencentScf, 407, &[], Config, 502),
            (TencentScf, 435, &[], Config, 502),
            (TencentScf, 429, &[("x-scf-error-type", "ScfCommonError")], Throttled, 429),
            (TencentScf, 500, &[("x-scf-error-type", "ScfSysError")], Platform, 500),
            (TencentScf, 502, &[("x-scf-error-type", "UnhandledInvocationErr")], Function, 502),
            (AwsLambdaUrl, 429, &[("x-amzn-errortype", "TooManyRequestsException")], Throttled, 429),
            (AwsLambdaUrl, 502, &[], Function, 502),
            (AwsLambdaUrl, 200, &[("x-amz-function-error", "Unhandled")], Function, 502),
            (AwsLambdaUrl, 403, &[("x-amzn-errortype", "AccessDeniedException")], Config, 502),
            (AwsLambdaUrl, 403, &[], ClientError, 403),
            (CloudRun, 429, &[], Throttled, 429),
            (CloudRun, 503, &[], Throttled, 503),
            (CloudRun, 504, &[], Timeout, 504),
            (AzureFunctions, 504, &[], Timeout, 504),
            (AzureFunctions, 429, &[], Throttled, 429),
            (Knative, 503, &[], Throttled, 503),
            (Knative, 504, &[], Timeout, 504),
            (OpenFaas, 429, &[], Throttled, 429),
            (OpenFaas, 504, &[], Timeout, 504),
            (Generic, 200, &[], Ok, 200),
            (Generic, 302, &[], Ok, 302),
            (Generic, 418, &[], ClientError, 418),
            (Generic, 429, &[], Throttled, 429),
            (Generic, 502, &[], Function, 502),
        ];
        for (name, status, fields, class, answer) in table {
            assert_eq!(told(*name, *status, fields), (*class, *answer), "{} {status} {fields:?}", name.as_str());
        }
    }

    #[test]
    fn without_rules_nothing_is_asked_and_without_map_status_nothing_is_changed() {
        assert_eq!(outcome(&Platform::default(), 200, &HeaderMap::new()), None);
        let platform = &preset(PlatformName::TencentScf).unwrap().platform;
        let outcome = outcome(platform, 430, &HeaderMap::new()).unwrap();
        assert_eq!(outcome, Outcome { class: Class::Function, answer: None, retry: RetryOf::Never, billed: None });
    }

    #[test]
    fn the_first_rule_that_matches_wins_and_its_answer_beats_what_fits_the_class() {
        let rule = |statuses: &[(u16, u16)], class, answer| Rule {
            statuses: statuses.into(),
            header: None,
            class,
            answer,
            retry: None,
            billed: None,
        };
        let rules =
            [rule(&[(410, 410), (420, 429)], Class::ClientError, Some(404)), rule(&[(400, 499)], Class::Config, None)];
        let platform = Platform { classify: Arc::from(rules), map_status: true, ..Platform::default() };
        let told = |status| outcome(&platform, status, &HeaderMap::new()).map(|o| (o.class, o.answer));
        assert_eq!(told(410), Some((Class::ClientError, Some(404))));
        assert_eq!(told(425), Some((Class::ClientError, Some(404))));
        assert_eq!(told(411), Some((Class::Config, Some(502))));
        assert_eq!(told(200), Some((Class::Ok, None)));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

        /// Whatever a platform says: a success is never made a failure nor the other way round, and what is told is an error.
        #[test]
        fn an_answer_under_map_status_is_an_error_for_what_is_one(
            which in 0..PlatformName::ALL.len(),
            status in 200u16..600,
            header in proptest::option::of("(x-fc-error-type|x-scf-error-type|x-amz-function-error)"),
            word in "(FcCommonError|ScfSysError|Unhandled|[a-z]{0,8})",
        ) {
            let mut platform = preset(PlatformName::ALL[which]).unwrap().platform.clone();
            platform.map_status = true;
            let mut headers = HeaderMap::new();
            if let Some(name) = header {
                headers.insert(name.parse::<http::HeaderName>().unwrap(), word.parse().unwrap());
            }
            let Outcome { class, answer, retry: _, billed: _ } = outcome(&platform, status, &headers).unwrap();
            let told = answer.unwrap_or(status);
            let is_failure = !matches!(class, Class::Ok | Class::ClientError);
            assert_eq!(is_failure, told >= 500 || told == 429, "{status} {headers:?}: {class:?} {told}");
            if !is_failure {
                assert_eq!(answer, None);
            }
            // What was taken down does not depend on what callers are told.
            platform.map_status = false;
            assert_eq!(outcome(&platform, status, &headers).map_or_else(|| by_status(status), |o| o.class), class);
        }
    }
}
