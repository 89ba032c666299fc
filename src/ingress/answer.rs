//! Answers that a route has of its own, and what it does to the headers of every answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use super::reply::{Answer, X_GATEPOST_REASON, X_REQUEST_ID};
use crate::config::model::{Content, Handling, HeaderEdits, Maintenance, Respond, SecurityHeaders, SecurityPreset};

/// A redirect to `to`, without a body (RFC 9110 §15.4: the note in it is for clients that don't follow).
pub(super) fn redirect(to: &str, status: StatusCode, request_id: &HeaderValue) -> Result<Answer> {
    let mut head = ResponseHeader::build(status, Some(6))?;
    head.insert_header(X_REQUEST_ID, request_id.clone())?;
    head.insert_header(header::LOCATION, to)?;
    head.insert_header(header::CONTENT_LENGTH, "0")?;
    Ok(Answer { header: head, body: Bytes::new() })
}

/// The answer of a `respond`.
pub(super) fn respond(respond: &Respond, method: &Method, request_id: &HeaderValue) -> Result<Answer> {
    let mut head = ResponseHeader::build(respond.status, Some(6 + respond.headers.len()))?;
    head.insert_header(X_REQUEST_ID, request_id.clone())?;
    for (name, value) in &respond.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    let body = match &respond.content {
        Some(content) => put_content(&mut head, content, method)?,
        // RFC 9110 §8.6: not with 204; and 304 would speak of the body that it leaves out.
        None if matches!(respond.status.as_u16(), 204 | 304) => Bytes::new(),
        None => {
            head.insert_header(header::CONTENT_LENGTH, "0")?;
            Bytes::new()
        }
    };
    Ok(Answer { header: head, body })
}

/// Gives a head its body: type and length, and for HEAD no more than these (RFC 9110 §9.3.2).
pub(super) fn put_content(head: &mut ResponseHeader, content: &Content, method: &Method) -> Result<Bytes> {
    head.insert_header(header::CONTENT_TYPE, content.kind.clone())?;
    head.insert_header(header::CONTENT_LENGTH, content.bytes.len().to_string())?;
    Ok(if method == Method::HEAD { Bytes::new() } else { content.bytes.clone() })
}

/// Makes of the plain answer to maintenance what the operator wrote for it. gRPC callers keep theirs.
pub(super) fn maintenance(answer: &mut Answer, maintenance: &Maintenance, request: &RequestHeader) -> Result<()> {
    // RFC 9110 §10.2.3: whole seconds.
    let seconds = maintenance.retry_after + Duration::from_millis(999);
    answer.header.insert_header(header::RETRY_AFTER, seconds.as_secs().to_string())?;
    if answer.header.headers.contains_key("grpc-status") {
        return Ok(());
    }
    answer.header.set_status(maintenance.status)?;
    if let Some(content) = &maintenance.content {
        answer.body = put_content(&mut answer.header, content, &request.method)?;
    }
    Ok(())
}

/// What a route does to the headers of an answer, the function's or gatepost's own. `is_secure`: the caller came by TLS.
pub(super) fn dress(head: &mut ResponseHeader, handling: &Handling, is_secure: bool) -> Result<()> {
    if let Some(SecurityHeaders { preset, replace: true }) = handling.security_headers {
        for (name, _) in security(preset) {
            head.remove_header(*name);
        }
    }
    if let Some(edits) = &handling.response_headers {
        edit(head, edits)?;
    }
    if let Some(SecurityHeaders { preset, .. }) = handling.security_headers {
        // What tells which software answers is of use to attackers alone.
        for name in ["server", "x-powered-by", "x-aspnet-version", "x-aspnetmvc-version"] {
            head.remove_header(name);
        }
        for (name, value) in security(preset) {
            // RFC 6797 §7.2: not over plain HTTP.
            let fits = is_secure || *name != "strict-transport-security";
            if fits && !head.headers.contains_key(*name) {
                head.insert_header(HeaderName::from_static(name), HeaderValue::from_static(value))?;
            }
        }
    }
    Ok(())
}

type Preset = &'static [(&'static str, &'static str)];

fn security(preset: SecurityPreset) -> Preset {
    const BASIC: Preset = &[
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "SAMEORIGIN"),
        ("content-security-policy", "frame-ancestors 'self'"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ];
    const STRICT: Preset = &[
        ("strict-transport-security", "max-age=63072000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("content-security-policy", "frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
        (
            "permissions-policy",
            "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()",
        ),
    ];
    match preset {
        SecurityPreset::Basic => BASIC,
        SecurityPreset::Strict => STRICT,
    }
}

fn edit(head: &mut ResponseHeader, edits: &HeaderEdits) -> Result<()> {
    for name in &edits.remove {
        head.remove_header(name);
    }
    for name in named_by(edits, head.headers.keys(), is_answers_own) {
        head.remove_header(&name);
    }
    for (name, value) in &edits.set {
        head.insert_header(name.clone(), value.clone())?;
    }
    for (name, value) in &edits.add {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

/// Edits what a function is sent, once it is what gatepost makes of the caller's request.
pub(super) fn edit_request(request: &mut RequestHeader, edits: &HeaderEdits) -> Result<()> {
    for name in &edits.remove {
        request.remove_header(name);
    }
    for name in named_by(edits, request.headers.keys(), is_requests_own) {
        request.remove_header(&name);
    }
    for (name, value) in &edits.set {
        request.insert_header(name.clone(), value.clone())?;
    }
    for (name, value) in &edits.add {
        request.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

/// The names that start as `remove` says, less those that gatepost can't do without.
fn named_by<'h>(
    edits: &HeaderEdits,
    names: impl Iterator<Item = &'h HeaderName>,
    is_own: fn(&str) -> bool,
) -> Vec<HeaderName> {
    if edits.remove_prefixes.is_empty() {
        return Vec::new();
    }
    let goes = |name: &&HeaderName| {
        edits.remove_prefixes.iter().any(|p| name.as_str().starts_with(p)) && !is_own(name.as_str())
    };
    names.filter(goes).cloned().collect()
}

/// Fields that no prefix removes: framing, the connection's, gatepost's words.
fn is_answers_own(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "upgrade"
            | "content-length"
            | "transfer-encoding"
            | "content-encoding"
            | "content-range"
            | "content-type"
            | "x-request-id"
    ) || *name == *X_GATEPOST_REASON.as_str()
}

fn is_requests_own(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "connection"
            | "upgrade"
            | "te"
            | "expect"
            | "content-length"
            | "transfer-encoding"
            | "content-encoding"
            | "content-type"
            | "via"
            | "x-request-id"
            | "x-forwarded-for"
            | "x-forwarded-proto"
            | "x-forwarded-host"
            | "client-cert"
            | "client-cert-chain"
    )
}
