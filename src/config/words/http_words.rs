//! Methods, header names and values, cookies, and the keys that limits and stickiness go by.

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value as Json, json};

use crate::config::{
    model::{LimitKey, StickyKey},
    read::{Complaint, Word, words},
    report::nearest,
};

impl Word for Method {
    const EXPECTED: &'static str = "a method such as `GET`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let method = Self::from_bytes(text.as_bytes())
            .map_err(|_| Complaint::new(format!("`{}` is not a method", text.escape_debug())))?;
        let upper = text.to_ascii_uppercase();
        if upper != text {
            return Err(Complaint::new(format!("methods are upper case (RFC 9110 §9.1): `{text}`"))
                .help(format!("write `{upper}`")));
        }
        if method == Self::CONNECT {
            return Err(Complaint::new("`CONNECT` asks for a tunnel, and no route is one"));
        }
        Ok(method)
    }

    fn form() -> Json {
        json!({ "pattern": "^[!#$%&'*+.^_`|~0-9A-Z-]+$" })
    }
}

/// Checks the name of a header that a request is to be judged by.
pub(in crate::config) fn header_name(text: &str) -> Result<HeaderName, Complaint> {
    let name: HeaderName =
        text.parse().map_err(|_| Complaint::new(format!("`{}` is not a header's name", text.escape_debug())))?;
    // RFC 9110 §7.6.1: these belong to one connection and say nothing about the request.
    const HOP: [&str; 8] = [
        "connection",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if name == http::header::HOST {
        return Err(Complaint::new("`host` is not judged as a header: a route has `host = \"…\"`"));
    }
    if HOP.contains(&name.as_str()) {
        return Err(Complaint::new(format!(
            "`{name}` is about the connection, not about the request (RFC 9110 §7.6.1)"
        )));
    }
    Ok(name)
}

/// Checks the value of a header: what a caller can send and gatepost would see.
fn header_value(text: &str) -> Result<String, Complaint> {
    let valid = HeaderValue::from_str(text).is_ok() && text.is_ascii();
    if !valid || text.trim() != text {
        return Err(Complaint::new(format!(
            "`{}` is not a header's value: visible ASCII without blanks at its ends",
            text.escape_debug()
        )));
    }
    Ok(text.to_owned())
}

/// RFC 6265 §4.1.1: a cookie's name is a token.
pub(super) fn cookie_name(text: &str) -> Result<String, Complaint> {
    if text.is_empty() || Method::from_bytes(text.as_bytes()).is_err() {
        return Err(Complaint::new(format!("`{}` is not a cookie's name", text.escape_debug())));
    }
    Ok(text.to_owned())
}

/// What a header or query key must be; `"*"`: anything, as long as it is there.
#[derive(Debug, Clone)]
pub(in crate::config) struct Condition(pub(in crate::config) Option<String>);

impl Word for Condition {
    const EXPECTED: &'static str = "the value to match exactly, or `*` for any";

    fn parse(text: &str) -> Result<Self, Complaint> {
        Ok(Self((text != "*").then(|| text.to_owned())))
    }
}

/// The same for a header.
#[derive(Debug, Clone)]
pub(in crate::config) struct HeaderCondition(pub(in crate::config) Option<String>);

impl Word for HeaderCondition {
    const EXPECTED: &'static str = "the value to match exactly, or `*` for any";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "*" => Ok(Self(None)),
            text => header_value(text).map(|value| Self(Some(value))),
        }
    }
}

impl Word for LimitKey {
    const EXPECTED: &'static str = "`route`, `client_ip`, `client`, `header:NAME`, `cookie:NAME` or `query:NAME`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text.split_once(':') {
            None => match text {
                "route" => Ok(Self::Route),
                "client_ip" => Ok(Self::ClientIp),
                "client" => Ok(Self::Client),
                _ => Err(unknown_word(text, &["route", "client_ip", "client"])),
            },
            Some(pair) => named(pair, Self::Header, Self::Cookie, Self::Query),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^(route|client_ip|client|header:.+|cookie:.+|query:.+)$" })
    }
}

/// What is named by its kind: `header:NAME`, `cookie:NAME`, `query:NAME`, taken apart at the colon.
pub(super) fn named<T>(
    (kind, name): (&str, &str),
    header: impl FnOnce(HeaderName) -> T,
    cookie: impl FnOnce(String) -> T,
    query: impl FnOnce(String) -> T,
) -> Result<T, Complaint> {
    match (kind, name) {
        ("header", name) => header_name(name).map(header),
        ("cookie", name) => cookie_name(name).map(cookie),
        ("query", "") => Err(Complaint::new("`query:` names no key")),
        ("query", name) => Ok(query(name.to_owned())),
        (kind, _) => Err(unknown_word(kind, &["header", "cookie", "query"])),
    }
}

pub(super) fn unknown_word(word: &str, known: &[&str]) -> Complaint {
    let complaint = Complaint::new(format!("`{}` is no key to go by", word.escape_debug()));
    match nearest(word, known.iter().copied()) {
        Some(near) => complaint.help(format!("did you mean `{near}`?")),
        None => complaint,
    }
}

/// One of `sticky.by`.
#[derive(Debug, Clone)]
pub(in crate::config) struct StickyBy(pub(in crate::config) StickyKey);

impl Word for StickyBy {
    const EXPECTED: &'static str = "`header:NAME`, `cookie:NAME` or `client_ip`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text.split_once(':') {
            None if text == "client_ip" => Ok(Self(StickyKey::ClientIp)),
            None => Err(unknown_word(text, &["client_ip"])),
            Some(("header", name)) => header_name(name).map(|name| Self(StickyKey::Header(name))),
            Some(("cookie", name)) => cookie_name(name).map(|name| Self(StickyKey::Cookie(name))),
            Some((kind, _)) => Err(unknown_word(kind, &["header", "cookie"])),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^(client_ip|header:.+|cookie:.+)$" })
    }
}

/// An override's `header = "name: value"` or `header = "name"`.
#[derive(Debug, Clone)]
pub(in crate::config) struct HeaderIs(pub(in crate::config) HeaderName, pub(in crate::config) Option<String>);

impl Word for HeaderIs {
    const EXPECTED: &'static str = "`name: value`, or `name` for any value";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text.split_once(':') {
            None => Ok(Self(header_name(text)?, None)),
            Some((name, value)) => Ok(Self(header_name(name)?, Some(header_value(value.trim_matches(' '))?))),
        }
    }
}

/// An override's `cookie = "name=value"` or `cookie = "name"`.
#[derive(Debug, Clone)]
pub(in crate::config) struct CookieIs(pub(in crate::config) String, pub(in crate::config) Option<String>);

impl Word for CookieIs {
    const EXPECTED: &'static str = "`name=value`, or `name` for any value";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text.split_once('=') {
            None => Ok(Self(cookie_name(text)?, None)),
            Some((name, value)) => Ok(Self(cookie_name(name)?, Some(value.to_owned()))),
        }
    }
}

/// A `path_regex`, compiled: anchored at both ends.
#[derive(Debug, Clone)]
pub(in crate::config) struct RegexText(pub(in crate::config) regex::Regex);

impl Word for RegexText {
    const EXPECTED: &'static str = "a regular expression for the whole path";

    fn parse(text: &str) -> Result<Self, Complaint> {
        // Alone first: `a)(b` must not close the group that anchors it.
        let checked = regex::Regex::new(text)
            .and_then(|_| regex::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(1 << 20).build());
        match checked {
            Ok(regex) => Ok(Self(regex)),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err(Complaint::new("the regular expression is too big when compiled"))
            }
            Err(error) => {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default();
                Err(Complaint::new(format!("the regular expression is broken: {}", why.trim_start_matches("error: "))))
            }
        }
    }
}

/// The field in which a `[credential]` of kind `header` sends its secret.
#[derive(Debug, Clone)]
pub(in crate::config) struct SecretField(pub(in crate::config) HeaderName);

impl Word for SecretField {
    const EXPECTED: &'static str = "a header's name such as `x-gate-secret`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let name = header_name(text)?;
        const OWN: [&str; 5] = ["content-length", "content-type", "cookie", "expect", "x-request-id"];
        let ours = ["x-forwarded-", "x-gatepost-"].iter().any(|prefix| name.as_str().starts_with(prefix));
        if OWN.contains(&name.as_str()) || ours {
            return Err(Complaint::new(format!("`{name}` says something else already")));
        }
        // `NAME-previous` must be a name as well.
        if name.as_str().len() > 200 {
            return Err(Complaint::new("the name is too long: at most 200 letters"));
        }
        Ok(Self(name))
    }
}

words!(Method, Condition, HeaderCondition, LimitKey, StickyBy, HeaderIs, CookieIs, RegexText, SecretField);
