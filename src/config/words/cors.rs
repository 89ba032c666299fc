//! Origins, and headers of `cors`.

use http::HeaderName;
use serde_json::{Value as Json, json};

use crate::config::{
    model::{HostPattern, Origin},
    read::{Complaint, Word, words},
};

/// An origin, or `*`.
#[derive(Debug, Clone)]
pub(in crate::config) enum OriginWord {
    Any,
    One(Origin),
}

impl Word for OriginWord {
    const EXPECTED: &'static str = "an origin such as `https://app.example.com` or `https://*.example.com`, or `*`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let shown = text.escape_debug();
        let complaint = || Complaint::new(format!("`{shown}` is not an origin"));
        match text {
            "*" => return Ok(Self::Any),
            "null" => {
                return Err(Complaint::new("`null` is the origin of every sandboxed page, whoever wrote it"));
            }
            _ => {}
        }
        // RFC 6454 §6.2: scheme, host, and the port where it is not the scheme's own.
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(complaint().help(format!("write its scheme: `https://{shown}`")));
        };
        if scheme.is_empty()
            || !scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
        {
            return Err(complaint());
        }
        if let Some((origin, _)) = rest.split_once('/') {
            return Err(Complaint::new(format!("`{shown}` is more than an origin"))
                .help(format!("write `{scheme}://{}`", origin.escape_debug())));
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        if let Some(port) = port {
            let Ok(number) = port.parse::<u16>() else { return Err(complaint()) };
            if matches!((scheme, number), ("https", 443) | ("http", 80)) {
                return Err(Complaint::new(format!("`{shown}` is never sent: browsers leave the usual port out"))
                    .help(format!("write `{scheme}://{host}`")));
            }
        }
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        Ok(Self::One(match HostPattern::parse(host)? {
            HostPattern::Exact(host) => Origin::Exact(format!("{scheme}://{host}{port}")),
            HostPattern::Wildcard(suffix) => Origin::Below(format!("{scheme}://"), format!("{suffix}{port}")),
        }))
    }

    fn form() -> Json {
        json!({ "minLength": 1, "examples": ["https://app.example.com", "https://*.example.com", "*"] })
    }
}

/// A header's name, or `*`.
#[derive(Debug, Clone)]
pub(in crate::config) enum HeaderOrAny {
    Any,
    Name(HeaderName),
}

impl Word for HeaderOrAny {
    const EXPECTED: &'static str = "a header's name, or `*`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "*" => Ok(Self::Any),
            text => text
                .parse()
                .map(Self::Name)
                .map_err(|_| Complaint::new(format!("`{}` is not a header's name", text.escape_debug()))),
        }
    }
}

words!(OriginWord, HeaderOrAny);
