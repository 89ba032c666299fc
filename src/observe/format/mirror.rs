//! One line for a request that was copied to its function's mirror: what the caller's version answered, and what the mirror.
//!
//! Keys always there: `ts`, `kind` (`mirror`), `request_id` (the caller's own line has the same), `generation`, `function`, `version` (the
//! mirror), `method`, `path`, `result`. `status`, `class` and `upstream_ms` are the mirror's, those with `real_` the caller's version's: left out
//! where there was no answer. `error` says why the mirror gave none.

use std::time::Duration;

use super::{
    Stamp,
    egress::{Field, fields_line},
};
use crate::{config::model::LogFormat, decide::Class};

/// What one line tells.
#[derive(Debug, Clone, Copy)]
pub struct MirrorEntry<'r> {
    /// When both answers were there.
    pub ts: u64,
    pub request_id: &'r str,
    pub generation: u64,
    pub route: Option<&'r str>,
    pub function: &'r str,
    pub version: &'r str,
    pub method: &'r str,
    pub path: &'r [u8],
    pub result: &'static str,
    /// Of the mirror.
    pub answer: Answered,
    pub real_version: &'r str,
    /// Of the caller's version.
    pub real: Answered,
    pub error: Option<&'r str>,
}

/// How a version answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answered {
    pub status: Option<u16>,
    pub class: Option<Class>,
    /// How long it took to begin its answer.
    pub took: Option<Duration>,
}

/// Appends the line of `entry`, its newline included.
pub fn line(out: &mut Vec<u8>, format: LogFormat, stamp: &mut Stamp, e: &MirrorEntry<'_>) {
    fn word(word: &str) -> Field<'_> {
        Field::Word(word.as_bytes())
    }
    let fields = [
        ("kind", Some(word("mirror"))),
        ("request_id", Some(word(e.request_id))),
        ("generation", Some(Field::Number(e.generation))),
        ("route", e.route.map(word)),
        ("function", Some(word(e.function))),
        ("version", Some(word(e.version))),
        ("method", Some(word(e.method))),
        ("path", Some(Field::Word(e.path))),
        ("result", Some(word(e.result))),
        ("status", e.answer.status.map(|s| Field::Number(s.into()))),
        ("class", e.answer.class.map(|c| word(c.as_str()))),
        ("upstream_ms", e.answer.took.map(Field::Time)),
        ("real_version", Some(word(e.real_version))),
        ("real_status", e.real.status.map(|s| Field::Number(s.into()))),
        ("real_class", e.real.class.map(|c| word(c.as_str()))),
        ("real_upstream_ms", e.real.took.map(Field::Time)),
        ("error", e.error.map(word)),
    ];
    fields_line(out, format, stamp.format(e.ts), &fields);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_answers_is_one_line() {
        let answered = |status: u16, class, ms| Answered {
            status: Some(status),
            class: Some(class),
            took: Some(Duration::from_millis(ms)),
        };
        let entry = MirrorEntry {
            ts: 1_709_210_096_789,
            request_id: "ab",
            generation: 3,
            route: Some("api"),
            function: "orders",
            version: "v42",
            method: "GET",
            path: b"/a\"b",
            result: "different",
            answer: answered(500, Class::Function, 7),
            real_version: "v41",
            real: answered(200, Class::Ok, 9),
            error: None,
        };
        let written = |format, entry: &MirrorEntry<'_>| {
            let mut out = Vec::new();
            line(&mut out, format, &mut Stamp::new(), entry);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(LogFormat::Json, &entry),
            "{\"ts\":\"2024-02-29T12:34:56.789Z\",\"kind\":\"mirror\",\"request_id\":\"ab\",\"generation\":3,\"route\":\"api\",\
             \"function\":\"orders\",\"version\":\"v42\",\"method\":\"GET\",\"path\":\"/a\\\"b\",\"result\":\"different\",\"status\":500,\
             \"class\":\"function\",\"upstream_ms\":7,\"real_version\":\"v41\",\"real_status\":200,\"real_class\":\"ok\",\
             \"real_upstream_ms\":9}\n"
        );
        let failed = MirrorEntry {
            result: "failed",
            answer: Answered::default(),
            error: Some("no answer within 10 s"),
            ..entry
        };
        let text = written(LogFormat::Text, &failed);
        assert!(text.starts_with("[2024-02-29T12:34:56.789Z] kind=mirror request_id=ab"), "{text}");
        assert!(text.ends_with("real_upstream_ms=9 error=\"no answer within 10 s\"\n"), "{text}");
    }
}
