//! A refusal → the bytes of an answer: a problem document (RFC 9457), or what gRPC callers understand.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::decide::{
    Reason,
    auth::{Denied, Gate},
    limit::Limiter,
    snapshot::Refusal,
};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// As it is written in HTTP/1.
pub const X_REQUEST_ID_NAME: &str = "X-Request-Id";
pub const X_GATEPOST_REASON: HeaderName = HeaderName::from_static("x-gatepost-reason");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// When to come back after an answer with 503, in seconds.
const RETRY_AFTER: &str = "1";

/// What any route can take.
const METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

/// An answer of gatepost's own.
#[derive(Debug)]
pub struct Answer {
    pub header: ResponseHeader,
    pub body: Bytes,
}

/// Makes the answer to a refusal. `limiter` is the one that refused, where one did.
///
/// # Errors
///
/// Never, as far as known: pingora's building of a header can fail, ours does not.
pub fn answer(
    refusal: &Refusal,
    limiter: Option<&Limiter>,
    request_id: &HeaderValue,
    request: Option<&RequestHeader>,
) -> Result<Answer> {
    let reason = refusal.reason;
    let is_grpc = request.and_then(|r| r.headers.get(header::CONTENT_TYPE)).is_some_and(is_grpc);
    let status = if is_grpc { 200 } else { reason.status() };
    let mut head = ResponseHeader::build(status, Some(8))?;
    head.insert_header(X_REQUEST_ID, request_id.clone())?;
    head.insert_header(X_GATEPOST_REASON, reason.as_str())?;
    // RFC 9111 §4.2.2: some of these would be cached by default.
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    if let Some(allow) = &refusal.allow {
        head.insert_header(header::ALLOW, allow.to_string())?;
    } else if reason == Reason::MethodNotAllowed {
        // RFC 9110 §15.5.6: a 405 says what is allowed. Here no route was asked: methods that no route can have are refused.
        head.insert_header(header::ALLOW, METHODS)?;
    }
    if let (Some(refused), Some(limiter)) = (&refusal.limit, limiter) {
        head.insert_header(header::RETRY_AFTER, refused.retry_after().to_string())?;
        head.insert_header(RATELIMIT, limiter.state(refused))?;
        head.insert_header(RATELIMIT_POLICY, limiter.policy().clone())?;
    } else if status == 503 {
        head.insert_header(header::RETRY_AFTER, RETRY_AFTER)?;
    }
    if is_grpc {
        // gRPC over HTTP/2, "Responses": a trailers-only answer.
        head.insert_header(header::CONTENT_TYPE, "application/grpc")?;
        head.insert_header("grpc-status", grpc_status(reason))?;
        head.insert_header("grpc-message", reason.as_str())?;
        head.insert_header(header::CONTENT_LENGTH, "0")?;
        return Ok(Answer { header: head, body: Bytes::new() });
    }
    let body = Bytes::from(problem(refusal, request_id));
    head.insert_header(header::CONTENT_TYPE, "application/problem+json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    let head_only = request.is_some_and(|r| r.method == Method::HEAD);
    Ok(Answer { header: head, body: if head_only { Bytes::new() } else { body } })
}

/// Adds what somebody who is not let in is told: which kinds of credentials are expected, or when to come back.
///
/// # Errors
///
/// As [`answer`].
pub fn challenge(answer: &mut Answer, denied: &Denied, gate: Option<&Gate>) -> Result<()> {
    let head = &mut answer.header;
    if matches!(denied.reason, Reason::CredentialsMissing | Reason::CredentialsInvalid) {
        // RFC 9110 §15.5.2: a 401 has one. gRPC's answer is a 200, where it says that other credentials might give another answer
        // (RFC 9110 §11.6.1).
        for challenge in gate.map_or(&[][..], Gate::challenges) {
            head.append_header(header::WWW_AUTHENTICATE, challenge.clone())?;
        }
    }
    if let Some(wait) = &denied.wait {
        head.insert_header(header::RETRY_AFTER, wait.retry_after().to_string())?;
    }
    Ok(())
}

/// The answer to an OPTIONS that asks gatepost itself.
///
/// # Errors
///
/// Never, as far as known, like [`answer`].
pub fn options(request_id: &HeaderValue) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(204, Some(2))?;
    head.insert_header(X_REQUEST_ID, request_id.clone())?;
    head.insert_header(header::ALLOW, METHODS)?;
    Ok(head)
}

/// RFC 9457 §3. All members are words of ours, or escaped.
fn problem(refusal: &Refusal, request_id: &HeaderValue) -> String {
    let reason = refusal.reason;
    let mut out = String::with_capacity(256);
    let id = request_id.to_str().unwrap_or("");
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        r#"{{"type":"about:blank#{word}","title":"{}","status":{}"#,
        reason.title(),
        reason.status(),
        word = reason.as_str(),
    );
    if !refusal.detail.is_empty() {
        let _ = write!(out, r#","detail":{}"#, serde_json::Value::from(&*refusal.detail));
    }
    let _ = write!(out, r#","reason":"{}","request_id":"{id}"}}"#, reason.as_str());
    out.push('\n');
    out
}

fn is_grpc(content_type: &HeaderValue) -> bool {
    let rest = content_type.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// gRPC's codes for HTTP statuses (grpc `doc/http-grpc-status-mapping.md`), and the closer ones where we know more.
fn grpc_status(reason: Reason) -> &'static str {
    match reason {
        Reason::BadRequest | Reason::UriTooLong | Reason::HeadersTooLarge => "3", // INVALID_ARGUMENT
        Reason::LoopDetected => "9",                                              // FAILED_PRECONDITION
        Reason::RequestTimeout | Reason::UpstreamTimeout => "4",                  // DEADLINE_EXCEEDED
        Reason::ForbiddenAddress
        | Reason::ForbiddenClient
        | Reason::DestinationNotAllowed
        | Reason::AddressNotAllowed
        | Reason::ServerNameMismatch => "7", // PERMISSION_DENIED
        Reason::CredentialsMissing | Reason::CredentialsInvalid => "16",          // UNAUTHENTICATED
        Reason::RateLimited | Reason::TunnelsExhausted | Reason::BodyTooLarge | Reason::BudgetSpent => "8", // RESOURCE_EXHAUSTED
        Reason::NoRoute | Reason::MethodNotAllowed => "12", // UNIMPLEMENTED
        Reason::UpstreamUnreachable
        | Reason::UpstreamReset
        | Reason::NameNotResolved
        | Reason::Overloaded
        | Reason::NoVersion
        | Reason::FunctionFailed
        | Reason::SourceUnavailable
        | Reason::CredentialUnavailable
        | Reason::Maintenance => "14", // UNAVAILABLE
    }
}

/// The bytes of an HTTP/1.1 answer that closes the connection, for heads that pingora does not see.
pub fn raw(answer: &Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let status = answer.header.status;
    out.extend_from_slice(
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("")).as_bytes(),
    );
    answer.header.header_to_h1_wire(&mut out);
    out.extend_from_slice(b"Connection: close\r\n\r\n");
    out.extend_from_slice(&answer.body);
    out
}
