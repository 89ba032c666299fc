//! What a decision may look at, borrowed from the request.

use http::{HeaderMap, Method, header};

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

/// What `Content-Length` says (RFC 9110 §8.6), where it says something that can be read.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Who a caller proved to be: the certificate that it showed in the TLS handshake, verified against the listener's
/// `client_ca`. The same for every request of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// RFC 4514: the most specific name first, special characters escaped (`CN=payments,O=Example Bank,C=CH`).
    pub subject: String,
    pub sans: Vec<San>,
    /// SHA-256 over the certificate's DER.
    pub sha256: [u8; 32],
}

/// One of a certificate's subject alternative names (RFC 5280 §4.2.1.6) that name a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum San {
    /// Lower case, as DNS names are compared.
    Dns(String),
    Uri(String),
    Email(String),
}
