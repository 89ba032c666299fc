//! What a client is told that is not let through: a problem document (RFC 9457) with the reason, also in a header. Many clients show no more of an
//! answer to CONNECT than its status: the same reason is in the log.

use std::{borrow::Cow, fmt::Write as _};

use http::{HeaderValue, StatusCode};

use crate::decide::{
    Reason,
    egress::{status, title},
};

/// Somebody who goes nowhere.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub reason: Reason,
    /// What exactly; empty: the reason says it all.
    pub detail: Cow<'static, str>,
    /// Seconds; where the answer has no time of its own.
    pub retry_after: Option<u64>,
    /// `Proxy-Authenticate`.
    pub challenges: Vec<HeaderValue>,
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
    pub limit: Option<Box<[HeaderValue; 2]>>,
}

impl Refusal {
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), retry_after: None, challenges: Vec::new(), limit: None }
    }
}

/// What a proxy takes; others of which it knows nothing pass as well (RFC 9110 §9.1).
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT";

/// The answer to an OPTIONS that may go no further (RFC 9110 §7.6.2).
pub fn options(request_id: &str, closes: bool) -> Vec<u8> {
    let connection = if closes { "Connection: close\r\n" } else { "" };
    format!("HTTP/1.1 204 No Content\r\nX-Request-Id: {request_id}\r\nAllow: {METHODS}\r\n{connection}\r\n")
        .into_bytes()
}

/// The bytes of the answer. `closes`: no further request is read.
pub fn bytes(refusal: &Refusal, message: Option<&str>, request_id: &str, closes: bool, is_head: bool) -> Vec<u8> {
    let reason = refusal.reason;
    let status = status(reason);
    let words = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
    let body = problem(refusal, message, status, request_id);
    let mut head = String::with_capacity(512 + body.len());
    // Writing to a String cannot fail.
    let _ = write!(
        head,
        "HTTP/1.1 {status} {words}\r\nX-Request-Id: {request_id}\r\nX-Gatepost-Reason: {}\r\nCache-Control: no-store\r\n\
         Content-Type: application/problem+json\r\nContent-Length: {}\r\n",
        reason.as_str(),
        body.len()
    );
    if status == 405 {
        let _ = write!(head, "Allow: {METHODS}\r\n");
    }
    if let Some(seconds) = refusal.retry_after.or_else(|| (status == 503 || status == 429).then_some(1)) {
        let _ = write!(head, "Retry-After: {seconds}\r\n");
    }
    if closes {
        head.push_str("Connection: close\r\n");
    }
    let mut out = head.into_bytes();
    let challenges = refusal.challenges.iter().map(|challenge| ("Proxy-Authenticate", challenge));
    let limit = ["RateLimit-Policy", "RateLimit"].into_iter().zip(refusal.limit.iter().flat_map(|limit| limit.iter()));
    for (name, value) in challenges.chain(limit) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(body.as_bytes());
    }
    out
}

fn problem(refusal: &Refusal, message: Option<&str>, status: u16, request_id: &str) -> String {
    let word = refusal.reason.as_str();
    let title = title(refusal.reason);
    let mut out = String::with_capacity(256);
    let _ = write!(out, r#"{{"type":"about:blank#{word}","title":"{title}","status":{status}"#);
    let detail = match message {
        Some(message) if refusal.detail.is_empty() => Cow::Borrowed(message),
        Some(message) => Cow::Owned(format!("{}. {message}", refusal.detail)),
        None => refusal.detail.clone(),
    };
    if !detail.is_empty() {
        let _ = write!(out, r#","detail":{}"#, serde_json::Value::from(&*detail));
    }
    let _ = write!(out, r#","reason":"{word}","request_id":"{request_id}"}}"#);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why_and_whom_to_ask() {
        let refusal = Refusal::new(Reason::UpstreamTimeout, "no answer within 5s");
        let text = String::from_utf8(bytes(&refusal, Some("Ask \"#platform\""), "ab", true, false)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(
            "HTTP/1.1 504 Gateway Timeout\r\nX-Request-Id: ab\r\nX-Gatepost-Reason: upstream_timeout\r\n"
        ));
        assert!(head.ends_with("Connection: close"));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["detail"], "no answer within 5s. Ask \"#platform\"");
        assert_eq!((&body["status"], &body["reason"]), (&504.into(), &"upstream_timeout".into()));
    }

    #[test]
    fn who_is_unknown_is_asked_by_407() {
        let challenges = vec![HeaderValue::from_static("Basic realm=\"gatepost\"")];
        let refusal = Refusal { challenges, ..Refusal::new(Reason::CredentialsMissing, "") };
        let text = String::from_utf8(bytes(&refusal, None, "ab", false, true)).unwrap();
        assert!(text.starts_with("HTTP/1.1 407 Proxy Authentication Required\r\n"));
        assert!(text.ends_with("\r\nProxy-Authenticate: Basic realm=\"gatepost\"\r\n\r\n"));
    }
}
