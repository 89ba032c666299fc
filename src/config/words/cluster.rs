//! `[cluster]`: where the shared store is, and names in it.

use serde_json::{Value as Json, json};

use super::net::{endpoint_host, split_port};
use crate::config::{
    model::RedisUrl,
    read::{Complaint, Word, words},
};

const PORT: u16 = 6379;

impl Word for RedisUrl {
    const EXPECTED: &'static str = "a URL such as `redis://10.0.0.9:6379` or `rediss://redis.internal/2`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let bad = |why: &str| Complaint::new(format!("`{}` {why}", text.escape_debug()));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("is no URL"))?;
        if rest.contains('@') {
            // Whatever stands before it may be a secret.
            return Err(Complaint::new("a user name and a password do not stand in the URL")
                .help("write `username = \"…\"` and `password = \"file:/path\"`")
                .secret());
        }
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(bad("begins with neither `redis://` nor `rediss://`")),
        };
        if rest.contains(['?', '#']) {
            return Err(bad("has more than a host, a port and a database"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = split_port(authority).ok_or_else(|| bad("has no port from 1 to 65535"))?;
        let database = match path {
            "" => 0,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|number| *number < 1 << 20).ok_or_else(|| bad("has no such database"))?
            }
            _ => return Err(bad("has a path that is no database's number")),
        };
        Ok(Self { tls, host: endpoint_host(host)?, port: port.unwrap_or(PORT), database })
    }

    fn form() -> Json {
        json!({ "pattern": "^rediss?://[^/?#@]+(/[0-9]*)?$" })
    }
}

/// What keys begin with: nothing that a key could be cut at, and no braces, which mean a slot to Redis.
#[derive(Debug, Clone)]
pub(in crate::config) struct KeyPrefix(pub(in crate::config) String);

impl Word for KeyPrefix {
    const EXPECTED: &'static str = "up to 64 letters, digits, `-`, `_`, `.` or `:`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        match !text.is_empty() && text.len() <= 64 && text.bytes().all(fine) {
            true => Ok(Self(text.to_owned())),
            false => Err(Complaint::new(format!("`{}` cannot begin a key", text.escape_debug()))),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^[A-Za-z0-9._:-]{1,64}$" })
    }
}

/// Becomes a label of metrics.
#[derive(Debug, Clone)]
pub(in crate::config) struct MemberName(pub(in crate::config) String);

impl Word for MemberName {
    const EXPECTED: &'static str = "up to 64 letters, digits, `-`, `_` or `.`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match !text.is_empty() && text.len() <= 64 && text.bytes().all(fine) {
            true => Ok(Self(text.to_owned())),
            false => Err(Complaint::new(format!("`{}` is not a name", text.escape_debug()))),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^[A-Za-z0-9._-]{1,64}$" })
    }
}

words!(RedisUrl, KeyPrefix, MemberName);
