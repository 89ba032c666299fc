//! Values of header edits, statuses of answers, contents.

use http::{HeaderName, HeaderValue};

use crate::config::{
    model::SecurityPreset,
    read::{Complaint, Word, words},
    report::nearest,
};

/// The value of a header that gatepost is to send.
#[derive(Debug, Clone)]
pub(in crate::config) struct HeaderText(pub(in crate::config) HeaderValue);

impl Word for HeaderText {
    const EXPECTED: &'static str = "the header's value";

    fn parse(text: &str) -> Result<Self, Complaint> {
        // RFC 9110 §5.5: no control characters, no blanks at the ends.
        match HeaderValue::from_str(text) {
            Ok(value) if text.is_ascii() && text.trim() == text && !text.is_empty() => Ok(Self(value)),
            _ if text.is_empty() => {
                Err(Complaint::new("an empty value says nothing").help("to take a header out use `remove`"))
            }
            _ => Err(Complaint::new(format!(
                "`{}` is not a header's value: visible ASCII without blanks at its ends",
                text.escape_debug()
            ))),
        }
    }
}

/// One of `remove`: a header's name, or how names start.
#[derive(Debug, Clone)]
pub(in crate::config) enum RemoveName {
    Name(HeaderName),
    /// Lower case, without the star.
    Prefix(String),
}

impl Word for RemoveName {
    const EXPECTED: &'static str = "a header's name, or how names start, such as `x-debug-*`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let name = |text: &str| -> Result<HeaderName, Complaint> {
            text.parse().map_err(|_| Complaint::new(format!("`{}` is not a header's name", text.escape_debug())))
        };
        match text.strip_suffix('*') {
            Some("") => {
                Err(Complaint::new("`*` would remove every header").help("name them, or how their names start"))
            }
            Some(prefix) if prefix.contains('*') => {
                Err(Complaint::new(format!("`{}`: a `*` stands at the end alone", text.escape_debug())))
            }
            Some(prefix) => name(prefix).map(|prefix| Self::Prefix(prefix.as_str().to_owned())),
            None if text.contains('*') => {
                Err(Complaint::new(format!("`{}`: a `*` stands at the end alone", text.escape_debug())))
            }
            None => name(text).map(Self::Name),
        }
    }
}

/// A media type, as Content-Type has it.
#[derive(Debug, Clone)]
pub(in crate::config) struct MediaType(pub(in crate::config) HeaderValue);

impl Word for MediaType {
    const EXPECTED: &'static str = "a media type such as `text/html; charset=utf-8`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let complaint = || Complaint::new(format!("`{}` is not a media type", text.escape_debug()));
        let essence = text.split(';').next().unwrap_or_default().trim_end();
        // RFC 9110 §8.3.1: a type and a subtype, both tokens.
        let (kind, subtype) = essence.split_once('/').ok_or_else(complaint)?;
        if [kind, subtype].iter().any(|token| token.parse::<HeaderName>().is_err()) {
            return Err(complaint());
        }
        HeaderText::parse(text).map(|value| Self(value.0))
    }
}

impl Word for SecurityPreset {
    const EXPECTED: &'static str = "`basic` or `strict`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "basic" => Ok(Self::Basic),
            "strict" => Ok(Self::Strict),
            other => {
                let complaint = Complaint::new(format!("`{}` is none of the choices", other.escape_debug()));
                Err(match nearest(other, ["basic", "strict"]) {
                    Some(near) => complaint.help(format!("did you mean `{near}`?")),
                    None => complaint,
                })
            }
        }
    }

    fn form() -> serde_json::Value {
        serde_json::json!({ "enum": ["basic", "strict"] })
    }
}

/// An `add_prefix`: a literal path without a slash at its end.
#[derive(Debug, Clone)]
pub(in crate::config) struct AddPrefix(pub(in crate::config) String);

impl Word for AddPrefix {
    const EXPECTED: &'static str = "segments such as `/v2`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let trimmed = text.trim_end_matches('/');
        if trimmed.is_empty() {
            return Err(
                Complaint::new(format!("`{}` adds nothing", text.escape_debug())).help("leave `add_prefix` out")
            );
        }
        if trimmed != text {
            return Err(Complaint::new(format!("`{}` does not end with a segment", text.escape_debug()))
                .help(format!("write `{trimmed}`")));
        }
        if text.contains(['*', '{', '}']) {
            return Err(Complaint::new(format!("`{}` is a pattern, not a path", text.escape_debug()))
                .help("`rewrite` takes parts of the path"));
        }
        super::path::literal(text)?;
        Ok(Self(text.to_owned()))
    }

    fn form() -> serde_json::Value {
        serde_json::json!({ "pattern": "^/[^?#*{}]*[^?#*{}/]$" })
    }
}

words!(HeaderText, RemoveName, MediaType, SecurityPreset, AddPrefix);
