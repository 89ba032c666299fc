//! What a route answers out of memory.

use http::StatusCode;

use super::{Class, Content};

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
