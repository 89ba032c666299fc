//! What was seen → what is to be said of it. Pure.

use rustls::CertificateError;
use serde::Serialize;

use crate::{
    config::model::{CredentialKind, Platform},
    decide::Class,
    platform::outcome::{by_status, outcome},
    upstream::probe::dial::{Distrust, Shown},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    /// Worth knowing.
    Note,
    /// Somebody should look at it by day.
    Warning,
    /// It does not work, or is not safe.
    Problem,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    /// `name`, `connect`, `certificate`, `answer`, `clock`, `signature` or `bypass`.
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) help: Option<String>,
}

impl Finding {
    pub(super) fn new(check: &'static str, level: Level, text: impl Into<String>) -> Self {
        Self { check, level, text: text.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

const DAY: i64 = 86_400;

/// A good certificate: until when.
pub(super) fn certificate(shown: &Shown, now: i64) -> Finding {
    let until = moment(shown.not_after);
    let days = (shown.not_after - now) / DAY;
    let names = names(&shown.names);
    if shown.not_after < now {
        return Finding::new("certificate", Level::Problem, format!("for {names}, expired on {until}"));
    }
    // As gatepost judges its own: the last two weeks, or the last quarter of a short life.
    let near = ((shown.not_after - shown.not_before) / 4).min(14 * DAY);
    if shown.not_after - now < near {
        return Finding::new("certificate", Level::Warning, format!("for {names}, ends in {days} days, on {until}"))
            .help("whoever runs that endpoint must renew it; from then on every call fails with 502");
    }
    Finding::new("certificate", Level::Ok, format!("for {names}, until {until} ({days} days)"))
}

/// A certificate that nobody may believe.
pub(super) fn distrust(distrust: &Distrust, asked: &str, own_ca: bool) -> Finding {
    let shown = distrust.shown.clone().unwrap_or_default();
    let finding = |text: String, help: &str| Finding::new("certificate", Level::Problem, text).help(help);
    match &distrust.why {
        CertificateError::UnknownIssuer => {
            let whom = if own_ca { "the `ca` of this version" } else { "this machine" };
            finding(
                format!("signed by \"{}\", whom {whom} does not know", shown.issuer),
                if own_ca {
                    "the endpoint changed its authority, or `ca` names the wrong file"
                } else {
                    "for a private authority: `ca = \"FILE\"` at the function or version; else the endpoint sends no chain"
                },
            )
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => finding(
            format!("for {}, and not for {asked}", names(&shown.names)),
            "the URL must have a name that the certificate is for; `host` changes the Host field alone",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => finding(
            format!("expired on {}", moment(shown.not_after)),
            "whoever runs that endpoint must renew it; if it looks good elsewhere, this machine's clock is wrong",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => finding(
            format!("not valid before {}", moment(shown.not_before)),
            "this machine's clock is wrong, or the certificate was put up too early",
        ),
        other => finding(format!("not believed: {other:?}"), "`openssl s_client -connect HOST:443` shows what is sent"),
    }
}

fn names(names: &[String]) -> String {
    match names {
        [] => "no name at all".to_owned(),
        names if names.len() > 4 => format!("{} and {} more", names[..4].join(", "), names.len() - 4),
        names => names.join(", "),
    }
}

fn moment(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "no date".to_owned(), |at| at.strftime("%F %T UTC").to_string())
}

/// How far the clocks are apart, in seconds; positive: the function's is ahead. `signs`: the signature tells the time.
pub(super) fn clock(ahead: Option<f64>, signs: bool) -> Finding {
    let Some(ahead) = ahead else {
        return Finding::new(
            "clock",
            Level::Note,
            "the answer has no Date: nothing to compare this machine's clock with",
        );
    };
    let apart = ahead.abs();
    let which = if ahead > 0.0 { "behind" } else { "ahead" };
    // Date tells whole seconds, and answers take time.
    if apart <= 3.0 {
        return Finding::new("clock", Level::Ok, "within 3 s of the function's");
    }
    let text = format!("this machine is {apart:.0} s {which} the function's Date");
    let level = match apart {
        240.0.. if signs => Level::Problem,
        60.0.. => Level::Warning,
        _ => Level::Note,
    };
    let finding = Finding::new("clock", level, text);
    match level {
        Level::Note => finding,
        _ if signs => finding
            .help("signatures are good for some minutes only: is this machine's clock synchronised (`timedatectl`)?"),
        _ => finding.help("is this machine's clock synchronised (`timedatectl`)?"),
    }
}

/// An answer's status, and its class by the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) class: Class,
}

impl Heard {
    pub(super) fn new(platform: &Platform, status: u16, headers: &http::HeaderMap) -> Self {
        let class = outcome(platform, status, headers).map_or_else(|| by_status(status), |outcome| outcome.class);
        Self { status, class }
    }

    /// Turned away before the function's own code, as far as anybody can tell.
    fn is_refused(self) -> bool {
        matches!(self.status, 401 | 403) || self.class == Class::Config
    }
}

/// Whether signatures of that kind tell the time.
pub(super) fn tells_time(kind: &CredentialKind) -> bool {
    !matches!(kind, CredentialKind::Header { .. })
}

/// What the answer says of the function; whether its refusal is the signature's matter is [`signature`]'s to say.
pub(super) fn answer(heard: Heard, took_ms: u128) -> Option<Finding> {
    let Heard { status, class } = heard;
    let text = format!("{status} in {took_ms} ms");
    let finding = |level, help: &str| {
        Some(Finding::new("answer", level, format!("{text} (class {})", class.as_str())).help(help))
    };
    match class {
        _ if heard.is_refused() => None,
        Class::Ok => Some(Finding::new("answer", Level::Ok, text)),
        Class::ClientError => {
            Some(Finding::new("answer", Level::Note, text).help("it answers; `--path` asks for another path"))
        }
        Class::Throttled => {
            finding(Level::Warning, "the platform's quota is used up: see `concurrency`, and the platform's console")
        }
        Class::Account => {
            finding(Level::Problem, "the account is suspended or out of money: see the platform's console")
        }
        _ => finding(Level::Problem, "the function fails: see its own log"),
    }
}

/// Whether the platform takes the signature, and calls without one. `private`: the endpoint's address is.
pub(super) fn signature(signed: Option<Heard>, bare: Heard, private: bool) -> Vec<Finding> {
    const GO_AROUND: &str = "whoever knows the URL goes around gatepost";
    let status = bare.status;
    let Some(signed) = signed else {
        let finding = match (bare.is_refused(), private) {
            (true, _) => {
                Finding::new("signature", Level::Problem, format!("calls are not signed, and the answer is {status}"))
                    .help("give the function a `credential`; if it asks for a caller's own Authorization, all is well with `--path` of a public page")
            }
            (false, true) => Finding::new("bypass", Level::Note, "answers without a signature, at a private address"),
            (false, false) => {
                Finding::new("bypass", Level::Warning, format!("answers {status} without a signature, at a public address: {GO_AROUND}"))
                    .help("have the endpoint ask for signed calls and give the function a `credential`, or use the platform's private address")
            }
        };
        return vec![finding];
    };
    let taken = match signed.is_refused() {
        false => Finding::new("signature", Level::Ok, format!("taken: {}", signed.status)),
        true => Finding::new(
            "signature",
            Level::Problem,
            format!("the call is signed, and the answer is {}", signed.status),
        )
        .help("wrong key, region or service, a key without permission, or a clock that is wrong"),
    };
    let bypass = match (bare.is_refused(), bare.status < 400, bare.status == signed.status) {
        (true, ..) => Finding::new("bypass", Level::Ok, format!("without the signature it answers {status}")),
        (_, true, _) => Finding::new(
            "bypass",
            Level::Problem,
            format!("answers {status} without the signature as well: {GO_AROUND}"),
        )
        .help("have the endpoint ask for it: `docs/functions.md` says where each platform has that"),
        (_, false, true) => Finding::new(
            "bypass",
            Level::Warning,
            format!("answers {status} with the signature and without: nobody can tell whether it is asked for"),
        )
        .help("`--path` with a path that answers 200"),
        (_, false, false) => Finding::new("bypass", Level::Ok, format!("without the signature it answers {status}")),
    };
    vec![taken, bypass]
}

/// A call without the signature of a credential that could not be tried.
pub(super) fn without(bare: Heard) -> Option<Finding> {
    let status = bare.status;
    match (bare.is_refused(), status < 400) {
        (true, _) => Some(Finding::new("bypass", Level::Ok, format!("without the signature it answers {status}"))),
        (false, true) => signature(Some(bare), bare, false).pop(),
        (false, false) => {
            Some(Finding::new("bypass", Level::Note, format!("without the signature it answers {status}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(status: u16) -> Heard {
        Heard { status, class: by_status(status) }
    }

    #[test]
    fn a_signature_is_told_apart_from_a_bypass() {
        use Level::{Note, Ok, Problem, Warning};
        for (signed, bare, private, expected) in [
            (Some(200), 403, false, vec![("signature", Ok), ("bypass", Ok)]),
            (Some(404), 401, false, vec![("signature", Ok), ("bypass", Ok)]),
            (Some(200), 200, false, vec![("signature", Ok), ("bypass", Problem)]),
            (Some(200), 302, true, vec![("signature", Ok), ("bypass", Problem)]),
            (Some(404), 404, false, vec![("signature", Ok), ("bypass", Warning)]),
            (Some(200), 404, false, vec![("signature", Ok), ("bypass", Ok)]),
            (Some(403), 403, false, vec![("signature", Problem), ("bypass", Ok)]),
            (Some(403), 200, false, vec![("signature", Problem), ("bypass", Problem)]),
            (None, 200, false, vec![("bypass", Warning)]),
            (None, 404, false, vec![("bypass", Warning)]),
            (None, 200, true, vec![("bypass", Note)]),
            (None, 403, false, vec![("signature", Problem)]),
        ] {
            let told = signature(signed.map(heard), heard(bare), private);
            let told: Vec<_> = told.into_iter().map(|finding| (finding.check, finding.level)).collect();
            assert_eq!(told, expected, "{signed:?} {bare} {private}");
        }
        // A platform that refuses signatures by another status.
        let refused = Heard { status: 400, class: Class::Config };
        assert_eq!(signature(Some(refused), refused, false)[0].level, Problem);
    }

    #[test]
    fn a_clock_matters_more_where_signatures_tell_the_time() {
        use Level::{Note, Ok, Problem, Warning};
        for (ahead, unsigned, signed) in [
            (Some(0.4), Ok, Ok),
            (Some(-2.9), Ok, Ok),
            (Some(12.0), Note, Note),
            (Some(-90.0), Warning, Warning),
            (Some(900.0), Warning, Problem),
            (None, Note, Note),
        ] {
            assert_eq!((clock(ahead, false).level, clock(ahead, true).level), (unsigned, signed), "{ahead:?}");
        }
        assert_eq!(clock(Some(90.0), false).text, "this machine is 90 s behind the function's Date");
    }

    #[test]
    fn a_certificate_is_told_of_when_its_end_is_near() {
        let shown = |days: i64| Shown {
            names: vec!["a.test".into()],
            not_before: 0,
            not_after: days * DAY,
            ..Shown::default()
        };
        assert_eq!(certificate(&shown(90), 70 * DAY).level, Level::Ok);
        assert_eq!(certificate(&shown(90), 80 * DAY).text, "for a.test, ends in 10 days, on 1970-04-01 00:00:00 UTC");
        assert_eq!(certificate(&shown(8), 7 * DAY).level, Level::Warning);
        assert_eq!(certificate(&shown(8), 5 * DAY).level, Level::Ok);
    }

    #[test]
    fn an_answer_is_judged_by_its_class() {
        let level = |status, class| answer(Heard { status, class }, 7).map(|finding| finding.level);
        assert_eq!(level(200, Class::Ok), Some(Level::Ok));
        assert_eq!(level(404, Class::ClientError), Some(Level::Note));
        assert_eq!(level(429, Class::Throttled), Some(Level::Warning));
        assert_eq!(level(200, Class::Function), Some(Level::Problem));
        assert_eq!(level(402, Class::Account), Some(Level::Problem));
        assert_eq!(level(403, Class::ClientError), None);
    }
}
