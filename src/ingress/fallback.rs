//! `fallback`: what callers get where the call came to nothing.

use http::{HeaderValue, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use super::{
    answer::put_content,
    ctx::Ctx,
    reply::{self, Answer},
};
use crate::{
    config::model::{Fallback, Route},
    decide::{Reason, snapshot::Refusal},
    platform::outcome::by_status,
};

/// Makes of a refusal what the route says instead, where the refusal is a failure of what is behind the route. It keeps
/// `X-Gatepost-Reason`; and gRPC callers keep what they understand.
pub(super) fn in_place_of(
    answer: &mut Answer,
    reason: Reason,
    route: Option<&Route>,
    request: &RequestHeader,
) -> Result<()> {
    let Some(fallback) = route.and_then(|route| route.handling.fallback.as_ref()) else { return Ok(()) };
    if !reason.is_failure() || answer.header.headers.contains_key("grpc-status") {
        return Ok(());
    }
    put(answer, fallback, request)
}

/// The same for a function's answer that says that the call failed.
pub(super) fn for_answer(
    ctx: &Ctx,
    head: &ResponseHeader,
    route: &Route,
    request: &RequestHeader,
) -> Result<Option<Answer>> {
    let Some(fallback) = &route.handling.fallback else { return Ok(None) };
    let class = ctx.outcome.unwrap_or_else(|| by_status(head.status.as_u16()));
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !Fallback::is_for(class) || kind.starts_with(b"application/grpc") {
        return Ok(None);
    }
    let refusal = Refusal::from(Reason::FunctionFailed);
    let mut answer = reply::answer(&refusal, None, &ctx.request_id, Some(request))?;
    if head.status.as_u16() >= 400 {
        answer.header.set_status(head.status)?;
        if let Some(when) = head.headers.get(header::RETRY_AFTER) {
            answer.header.insert_header(header::RETRY_AFTER, when.clone())?;
        }
    }
    put(&mut answer, fallback, request)?;
    Ok(Some(answer))
}

fn put(answer: &mut Answer, fallback: &Fallback, request: &RequestHeader) -> Result<()> {
    if let Some(status) = fallback.status {
        answer.header.set_status(status)?;
        if !status.is_server_error() {
            // RFC 9110 §10.2.3: nobody is to come back for what it has.
            answer.header.remove_header(&header::RETRY_AFTER);
        }
    }
    answer.body = put_content(&mut answer.header, &fallback.content, &request.method)?;
    Ok(())
}
