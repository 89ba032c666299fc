//! What function platforms are told apart by: sizes, statuses, patterns of header names.

use http::HeaderName;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::{http_words::header_name, size::Size};
use crate::config::{
    model::NamePattern,
    read::{Complaint, Read, Reader, Value, Word, words},
    report::Problem,
};

/// `"8KiB"`, or `"none"`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct SizeOrNone(pub(in crate::config) Option<u64>);

impl Word for SizeOrNone {
    const EXPECTED: &'static str = "a size such as `8KiB` or `32MiB`, or `none`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "none" => Ok(Self(None)),
            text => Size::parse(text).map(|Size(bytes)| Self(Some(bytes))),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$|^none$" })
    }
}

/// A header's name, or its beginning and a `*`.
impl Word for NamePattern {
    const EXPECTED: &'static str = "a header's name, or its beginning such as `x-scf-*`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let Some(prefix) = text.strip_suffix('*') else {
            let lower = text.to_ascii_lowercase();
            if OURS.contains(&lower.as_str()) {
                return Err(Complaint::new(format!("`{lower}` is gatepost's own word, and stays")));
            }
            return header_name(text).map(|name| Self::Exact(name.as_str().to_owned()));
        };
        let name: HeaderName = prefix
            .parse()
            .map_err(|_| Complaint::new(format!("`{}` is not how a header's name begins", text.escape_debug())))?;
        // `x-*` would take X-Forwarded-For and X-Request-Id along.
        let vague = OURS.iter().any(|ours| ours.starts_with(name.as_str()));
        if vague {
            return Err(Complaint::new(format!("`{text}` takes headers along that are gatepost's own word"))
                .help("write more of the name, such as `x-scf-*`"));
        }
        Ok(Self::Prefix(name.as_str().to_owned()))
    }

    fn form() -> Json {
        json!({ "pattern": "^[!#$%&'+.^_`|~0-9A-Za-z-]+\\*?$" })
    }
}

/// What gatepost itself tells a function or a caller, and what says where a body ends.
const OURS: [&str; 10] = [
    "content-length",
    "host",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-gatepost-hop",
    "x-gatepost-reason",
    "x-request-id",
    "via",
];

/// The name of an answer's header.
#[derive(Debug, Clone)]
pub(in crate::config) struct AnswerHeader(pub(in crate::config) HeaderName);

impl Word for AnswerHeader {
    const EXPECTED: &'static str = "a header's name";

    fn parse(text: &str) -> Result<Self, Complaint> {
        header_name(text).map(Self)
    }
}

words!(SizeOrNone, NamePattern, AnswerHeader);

/// `430`, `"5xx"`, or a list of such; each as an inclusive range.
#[derive(Debug, Clone)]
pub(in crate::config) struct Statuses(pub(in crate::config) Vec<(u16, u16)>);

impl Statuses {
    const EXPECTED: &'static str = "a status such as `430`, `\"5xx\"` for all of a hundred, or a list of them";

    fn one(value: &Value<'_>) -> Option<(u16, u16)> {
        match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => {
                number.as_str().parse().ok().filter(|status| (200..=599).contains(status)).map(|s| (s, s))
            }
            DeValue::String(text) => {
                let hundred: u16 = text.strip_suffix("xx")?.parse().ok().filter(|h| (2..=5).contains(h))?;
                Some((hundred * 100, hundred * 100 + 99))
            }
            _ => None,
        }
    }
}

impl Read for Statuses {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let many = value.get_ref().as_array();
        let each: Vec<&Value<'_>> = many.map_or_else(|| vec![value], |all| all.iter().collect());
        let mut read = Vec::with_capacity(each.len());
        for one in &each {
            match (Self::one(one), one.get_ref()) {
                (Some(range), _) => read.push(range),
                (None, DeValue::Integer(_) | DeValue::String(_)) => {
                    let written = match one.get_ref() {
                        DeValue::String(text) => text.escape_debug().to_string(),
                        DeValue::Integer(number) => number.to_string(),
                        _ => String::new(),
                    };
                    let span = reader.span(one);
                    reader.report.push(
                        Problem::at(format!("`{written}` is no status that ends an exchange"), span)
                            .label(format!("expected {}", Self::EXPECTED)),
                    );
                }
                (None, _) => reader.expected(Self::EXPECTED, one),
            }
        }
        if each.is_empty() {
            let span = reader.span(value);
            reader
                .report
                .push(Problem::at("`status` is empty: no answer has none", span).label("leave it out for any status"));
        }
        (read.len() == each.len() && !each.is_empty()).then_some(Self(read))
    }

    fn schema() -> Json {
        let one = [
            json!({ "type": "integer", "minimum": 200, "maximum": 599 }),
            json!({ "type": "string", "pattern": "^[2-5]xx$" }),
        ];
        let list = json!({ "type": "array", "items": { "type": ["integer", "string"] }, "minItems": 1 });
        json!({ "anyOf": [one[0], one[1], list] })
    }
}
