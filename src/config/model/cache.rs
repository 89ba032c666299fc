//! What a route answers out of memory.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::{Class, Content};

/// `cache = { ttl = "1s", key = ["header:accept-language"], stale_if_error = "30s" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Zero: only those who ask at the same time share an answer.
    pub ttl: Duration,
    /// What belongs to the question beside version, scheme, host and path.
    pub key: Vec<CacheKey>,
    /// The largest body that is kept. Default 1 MiB.
    pub max_body: u64,
    /// What the route's answers may take together. Default 64 MiB; at least four times `max_body`.
    pub max_size: u64,
    /// How long, once `ttl` is over, an answer stands in where the function fails. Default zero.
    pub stale_if_error: Duration,
    /// How long a request waits for the answer to another. Default 5 s.
    pub wait: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CacheKey {
    Header(HeaderName),
    Cookie(String),
    /// Where there is one, only the named parameters belong to the question, not the whole query.
    Query(String),
    Client,
    ClientIp,
}

/// `fallback = { status = 200, body = "…" }`: what callers get where the call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// `None`: the failure's own.
    pub status: Option<StatusCode>,
    pub content: Content,
}

impl Fallback {
    /// Whether a call that ended so is one that it stands in for.
    pub fn is_for(class: Class) -> bool {
        match class {
            Class::Throttled
            | Class::Function
            | Class::Platform
            | Class::Config
            | Class::Account
            | Class::Timeout
            | Class::Unreachable => true,
            Class::Ok | Class::ClientError | Class::RateLimited | Class::Refused | Class::Aborted => false,
        }
    }
}
