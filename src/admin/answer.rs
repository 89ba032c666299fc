//! One call → one answer.

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Backend, Outcome};

pub(super) type Answer = Response<Full<Bytes>>;

/// Bytes of a call's body that are read (and thrown away, so that the answer isn't lost to a reset).
const MAX_BODY: usize = 64 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

pub(super) async fn answer<B, C>(backend: &B, request: Request<C>) -> Answer
where
    B: Backend,
    C: Body,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    if Limited::new(body, MAX_BODY).collect().await.is_err() {
        let detail = format!("a call's body may be {MAX_BODY} bytes and is not needed");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &detail);
    }
    let path = head.uri.path();
    let read = matches!(head.method, Method::GET | Method::HEAD);
    match path {
        "/api/v1/reload" if head.method == Method::POST => reload(backend, &head.headers).await,
        "/api/v1/reload" => wrong_method("POST"),
        "/healthz" | "/readyz" | "/metrics" | "/api/v1/status" if !read => wrong_method("GET, HEAD"),
        "/healthz" => full(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match backend.ready() {
            Ok(()) => {
                let degraded = backend.degraded();
                let lines = degraded.iter().map(|part| format!("degraded: {}: {}\n", part.what, part.why));
                full(StatusCode::OK, TEXT, format!("ready\n{}", lines.collect::<String>()))
            }
            Err(why) => full(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        "/metrics" => full(StatusCode::OK, METRICS, backend.metrics()),
        "/api/v1/status" => json(StatusCode::OK, JSON, &backend.status()),
        _ => problem(
            StatusCode::NOT_FOUND,
            "not_found",
            "there are /healthz, /readyz, /metrics, /api/v1/status and /api/v1/reload",
        ),
    }
}

async fn reload(backend: &impl Backend, headers: &HeaderMap) -> Answer {
    // An empty token would be one that everybody knows.
    let Some(token) = backend.token().filter(|token| !token.is_empty()) else {
        return problem(
            StatusCode::FORBIDDEN,
            "admin_token_not_configured",
            "calls that change something need a token: set `token` in [admin], or send SIGHUP",
        );
    };
    let Some(given) = headers.get(AUTHORIZATION) else {
        return unauthorized("credentials_missing", "send `Authorization: Bearer TOKEN`");
    };
    if !bearer(given).is_some_and(|given| same(given, &token)) {
        return unauthorized("credentials_invalid", "this is not the token of [admin]");
    }
    let receipt = backend.reload().await;
    let status = match receipt.result {
        Outcome::Applied | Outcome::Unchanged => StatusCode::OK,
        Outcome::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
    };
    json(status, JSON, &receipt)
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1); the scheme's name in any case (RFC 9110 §11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Whether two secrets are the same, in a time that tells nothing of where they differ: of their hashes, every byte is looked at.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let (given, wanted) = (Sha256::digest(given), Sha256::digest(wanted));
    let differing = given.iter().zip(&wanted).fold(0, |bits, (a, b)| bits | (a ^ b));
    std::hint::black_box(differing) == 0
}

fn unauthorized(reason: &str, detail: &str) -> Answer {
    let mut answer = problem(StatusCode::UNAUTHORIZED, reason, detail);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

fn wrong_method(allow: &'static str) -> Answer {
    let detail = format!("this takes {allow}");
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &detail);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// RFC 9457.
pub(super) fn problem(status: StatusCode, reason: &str, detail: &str) -> Answer {
    #[derive(Serialize)]
    struct Problem<'p> {
        r#type: &'static str,
        title: &'p str,
        status: u16,
        detail: &'p str,
        reason: &'p str,
    }
    let problem = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail,
        reason,
    };
    json(status, "application/problem+json", &problem)
}

fn json(status: StatusCode, content_type: &'static str, value: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            full(status, content_type, text)
        }
        // Only maps with odd keys fail, and there are none; a caller still gets an answer.
        Err(error) => full(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
    }
}

fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
