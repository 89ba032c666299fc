//! Media types to compress.

use http::HeaderName;

use crate::config::{
    model::MediaPattern,
    read::{Complaint, Word, words},
};

impl Word for MediaPattern {
    const EXPECTED: &'static str = "a media type such as `application/json`, `text/*` or `*+json`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let complaint = || Complaint::new(format!("`{}` is not a media type", text.escape_debug()));
        let is_token = |token: &str| token.parse::<HeaderName>().is_ok() && !token.contains('*');
        let lower = text.to_ascii_lowercase();
        if lower.contains(';') {
            return Err(complaint().help("leave the parameters out"));
        }
        let pattern = match lower.split_once('/') {
            Some((kind, "*")) if is_token(kind) => Self::Type(format!("{kind}/")),
            Some((kind, subtype)) if is_token(kind) && is_token(subtype) => Self::Exact(lower),
            None => match lower.strip_prefix('*') {
                Some(suffix) if suffix.starts_with('+') && is_token(suffix) => Self::Suffix(suffix.to_owned()),
                _ => return Err(complaint()),
            },
            Some(_) => return Err(complaint()),
        };
        match &pattern {
            Self::Exact(kind) if kind.starts_with("application/grpc") => {
                Err(Complaint::new("gRPC compresses its messages itself, and its frames must not wait"))
            }
            _ => Ok(pattern),
        }
    }

    fn form() -> serde_json::Value {
        serde_json::json!({ "minLength": 1, "examples": ["application/json", "text/*", "*+json"] })
    }
}

words!(MediaPattern);
