//! `before_step = { … }` of a ramp: who is asked before it moves.

use std::{path::PathBuf, time::Duration};

use super::Endpoint;
use crate::config::secret::SecretRef;

/// `before_step = { url = "https://…", ca = "ca.pem", bearer = "env:TOKEN", hmac = "file:/key", timeout = "10s", again = "1m" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What is posted to.
    pub url: Endpoint,
    /// PEM bundle that alone is trusted for it; `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// Sent as a bearer token (RFC 6750).
    pub bearer: Option<SecretRef>,
    /// What is posted is signed with it.
    pub hmac: Option<SecretRef>,
    /// For the whole answer.
    pub timeout: Duration,
    /// When it is asked again, after it held a step or could not be asked.
    pub again: Duration,
}

impl Hook {
    pub const TIMEOUT: Duration = Duration::from_secs(10);
    pub const AGAIN: Duration = Duration::from_secs(60);

    /// As it is written, but for what `:443` and slashes at the end say.
    pub fn url(&self) -> String {
        let scheme = if self.url.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.url.authority, self.url.base_path)
    }

    /// The target of the request line.
    pub fn target(&self) -> &str {
        if self.url.base_path.is_empty() { "/" } else { &self.url.base_path }
    }
}
