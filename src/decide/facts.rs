//! What a decision may look at, borrowed from the request.

use http::{HeaderMap, Method};

use crate::config::model::ListenerId;

/// A request as routing sees it.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'r> {
    pub listener: ListenerId,
    pub method: &'r Method,
    /// The host of Host or `:authority`: lower case, without its port.
    pub host: &'r str,
    /// Normalised by [`path::normalise`](super::path::normalise).
    pub path: &'r str,
    /// As it came, without the question mark.
    pub query: Option<&'r str>,
    pub headers: &'r HeaderMap,
}
