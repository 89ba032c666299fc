//! Answers that a route has of its own, and what it does to the headers of every answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use super::reply::{Answer, X_GATEPOST_REASON, X_REQUEST_ID};
use crate::{
    config::model::{
        Config, Content, Cors, CorsHeaders, ErrorPage, Handling, HeaderEdits, Maintenance, Origins, Respond, Route,
        SecurityHeaders, SecurityPreset,
    },
    decide::{accept, content_length, cors},
};

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

/// Puts the operator's page for that status in the place of a problem document, where the caller doesn't ask for one.
pub(super) fn put_page(
    answer: &mut Answer,
    config: &Config,
    route: Option<&Route>,
    request: &RequestHeader,
) -> Result<()> {
    let is_problem = answer.header.headers.get(header::CONTENT_TYPE).is_some_and(|t| t == "application/problem+json");
    let page = config.error_page(route, answer.header.status.as_u16(), false).filter(|_| is_problem);
    if let Some(page) = page.filter(|page| wants(request, page)) {
        answer.body = put_content(&mut answer.header, &page.content, &request.method)?;
    }
    Ok(())
}

fn wants(request: &RequestHeader, page: &ErrorPage) -> bool {
    accept::wants_page(&request.headers, page.content.kind.to_str().unwrap_or(""))
}

/// What of a function's answer is about its body alone (RFC 9110 §8, RFC 9530), and goes with it.
const OF_THE_BODY: [&str; 14] = [
    "accept-ranges",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-md5",
    "content-range",
    "digest",
    "etag",
    "last-modified",
    "repr-digest",
    "trailer",
    "transfer-encoding",
];

/// Whether an answer has a body that surely comes, and ends soon: another can go out in its place while it is read.
pub(super) fn has_short_body(head: &ResponseHeader, method: &Method) -> bool {
    const LONGEST: u64 = 64 * 1024;
    method == Method::HEAD || content_length(&head.headers).is_some_and(|length| (1..=LONGEST).contains(&length))
}

/// The page that goes out in place of a function's answer, with the rest of the answer's head.
pub(super) fn intercept(
    head: &ResponseHeader,
    config: &Config,
    route: &Route,
    request: &RequestHeader,
) -> Result<Option<Answer>> {
    let Some(page) = config.error_page(Some(route), head.status.as_u16(), true) else { return Ok(None) };
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    // gRPC callers read frames; who asks for a document gets the function's.
    if kind.starts_with(b"application/grpc") || !wants(request, page) {
        return Ok(None);
    }
    let mut head = head.clone();
    for name in OF_THE_BODY {
        head.remove_header(name);
    }
    vary(&mut head, "Accept")?;
    let body = put_content(&mut head, &page.content, &request.method)?;
    Ok(Some(Answer { header: head, body }))
}

/// The answer to a preflight: what of it is of this caller's origin comes with [`dress`].
pub(super) fn preflight(
    cors: &Cors,
    is_known: bool,
    request: &RequestHeader,
    request_id: &HeaderValue,
) -> Result<Answer> {
    let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, Some(10))?;
    head.insert_header(X_REQUEST_ID, request_id.clone())?;
    if is_known {
        let methods: Vec<&str> = cors.methods.iter().map(Method::as_str).collect();
        head.insert_header(header::ACCESS_CONTROL_ALLOW_METHODS, methods.join(", "))?;
        match &cors.headers {
            CorsHeaders::These(names) if names.is_empty() => {}
            CorsHeaders::These(names) => {
                let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
                head.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, names.join(", "))?;
            }
            // WHATWG Fetch §4.8: a star would leave Authorization out, and means nothing beside credentials.
            CorsHeaders::Asked => {
                if let Some(asked) = cors::asked_headers(&request.headers) {
                    head.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, asked)?;
                }
            }
        }
        head.insert_header(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.as_secs().to_string())?;
    }
    vary(&mut head, "Access-Control-Request-Method")?;
    vary(&mut head, "Access-Control-Request-Headers")?;
    Ok(Answer { header: head, body: Bytes::new() })
}

/// Says who may read the answer, in place of what the function says (WHATWG Fetch §3.2.3).
fn allow_origin(
    head: &mut ResponseHeader,
    cors: &Cors,
    origin: Option<&HeaderValue>,
    is_preflight: bool,
) -> Result<()> {
    const ANSWERS: [HeaderName; 3] = [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
    ];
    const PREFLIGHTS: [HeaderName; 3] =
        [header::ACCESS_CONTROL_ALLOW_METHODS, header::ACCESS_CONTROL_ALLOW_HEADERS, header::ACCESS_CONTROL_MAX_AGE];
    for name in &ANSWERS {
        head.remove_header(name);
    }
    if !is_preflight {
        for name in &PREFLIGHTS {
            head.remove_header(name);
        }
    }
    let allowed = match (&cors.origins, origin) {
        // The same for everyone, so that caches may keep it.
        (Origins::Any, _) => HeaderValue::from_static("*"),
        (Origins::These(known), origin) => {
            // §3.2.5: also of answers without it, for a cache may give them to another origin.
            vary(head, "Origin")?;
            match origin.filter(|origin| cors::is_allowed(known, origin.as_bytes())) {
                Some(origin) => origin.clone(),
                None => return Ok(()),
            }
        }
    };
    head.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed)?;
    if cors.credentials {
        head.insert_header(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")?;
    }
    if let Some(expose) = cors.expose.as_ref().filter(|_| !is_preflight) {
        head.insert_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone())?;
    }
    Ok(())
}

/// Adds a name to Vary (RFC 9110 §12.5.5), which is one line after it.
pub(super) fn vary(head: &mut ResponseHeader, name: &str) -> Result<()> {
    let mut names = String::new();
    for line in head.headers.get_all(header::VARY) {
        let Ok(line) = line.to_str() else { continue };
        if line.split(',').map(str::trim).any(|there| there == "*" || there.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        if !names.is_empty() {
            names.push_str(", ");
        }
        names.push_str(line);
    }
    if !names.is_empty() {
        names.push_str(", ");
    }
    names.push_str(name);
    head.insert_header(header::VARY, names)
}

/// What a route does to the headers of an answer, the function's or gatepost's own.
pub(super) fn dress(head: &mut ResponseHeader, handling: &Handling, caller: &Caller<'_>) -> Result<()> {
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
            let fits = caller.is_secure || *name != "strict-transport-security";
            if fits && !head.headers.contains_key(*name) {
                head.insert_header(HeaderName::from_static(name), HeaderValue::from_static(value))?;
            }
        }
    }
    match &handling.cors {
        Some(cors) => allow_origin(head, cors, caller.origin, caller.is_preflight),
        None => Ok(()),
    }
}

/// Who is answered.
pub(super) struct Caller<'c> {
    /// By TLS, here or at a trusted proxy.
    pub(super) is_secure: bool,
    pub(super) origin: Option<&'c HeaderValue>,
    pub(super) is_preflight: bool,
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
