//! Signs what goes to a function: every attempt anew, on the very head that pingora writes next.
//!
//! Where the signature covers the body, the body is read to its end first, and kept: within the credential's `sign_body_max`, and
//! [`ALL_KEPT`] for all requests together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::{caller::Caller, ctx::Ctx, on_platform};
use crate::{
    decide::{Reason, content_length, snapshot::Refusal},
    platform::sign::{Call, Payload, Signer, Unsignable},
};

/// What the kept bodies of all requests may hold together.
const ALL_KEPT: usize = 256 << 20;
/// pingora sends a body again out of a buffer of this size, and only from there does it ask [`replay`] for a body that was read before.
const REPLAYED: usize = 64 << 10;

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// A body that waits for its request to be sent.
pub(super) struct Body {
    bytes: Bytes,
    payload: Payload,
    _room: Room,
}

/// A share of [`ALL_KEPT`].
struct Room(usize);

impl Room {
    fn grow(&mut self, to: usize) -> Result<(), Refusal> {
        let more = to.saturating_sub(self.0);
        if KEPT.fetch_add(more, Ordering::Relaxed).saturating_add(more) > ALL_KEPT {
            KEPT.fetch_sub(more, Ordering::Relaxed);
            return Err(Refusal { detail: "too many bodies wait to be signed".into(), ..Reason::Overloaded.into() });
        }
        self.0 += more;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        KEPT.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// The signer of the version that was picked; `None`: its calls are not signed.
fn signer(ctx: &Ctx) -> Option<&Arc<Signer>> {
    let picked = ctx.picked?;
    ctx.live.as_ref()?.signer(picked.function, picked.version)
}

/// Whether the request has a body that the signature needs whole.
pub(super) fn wants_body(caller: &mut Caller<'_>, ctx: &Ctx) -> bool {
    signer(ctx).is_some_and(|signer| signer.hashes_bodies()) && !caller.is_body_empty()
}

/// Reads the request's body to its end.
///
/// # Errors
///
/// The inner one is for the caller: the body is larger than may be kept. The outer one: the caller went away, or broke off.
pub(super) async fn keep_body(caller: &mut Caller<'_>, ctx: &mut Ctx) -> Result<Result<(), Refusal>> {
    let Some(max) = signer(ctx).map(|signer| signer.sign_body_max()) else { return Ok(Ok(())) };
    let headers = &caller.req_header().headers;
    let length = content_length(headers).and_then(|length| usize::try_from(length).ok());
    if length.is_some_and(|length| length > max) {
        return Ok(Err(too_large(max)));
    }
    if headers.get(header::EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        // RFC 9110 §10.1.1: who is to read the body says so; the function then gets it without having been asked.
        caller.write_continue().await?;
        caller.req_header_mut().remove_header(&header::EXPECT);
    }
    let stream = ctx.stream.clone();
    let bound = ctx.body_left.map(|(bound, _)| bound);
    let (mut kept, mut room, mut replays) = (Vec::new(), Room(0), false);
    loop {
        // As late as possible, so that the last part of the body is all that the buffer gets to hold.
        if !replays && length.is_none_or(|length| length.saturating_sub(kept.len()) <= REPLAYED) {
            caller.keeps_body();
            replays = true;
        }
        let Some(piece) = caller.read_body().await.map_err(|e| e.into_down())? else { break };
        if let Some(stream) = &stream {
            stream.moved();
        }
        let needed = kept.len() + piece.len();
        if let Some(bound) = bound.filter(|bound| needed as u64 > *bound) {
            return Ok(Err(on_platform::body_too_large(ctx.live.as_deref(), ctx.picked, bound)));
        }
        if needed > max {
            return Ok(Err(too_large(max)));
        }
        if length.is_none() && needed > REPLAYED {
            let detail = "a body of more than 64 KiB that is to be signed needs a Content-Length";
            return Ok(Err(Refusal { detail: detail.into(), ..Reason::BodyTooLarge.into() }));
        }
        if needed > kept.capacity() {
            let capacity = needed.max(kept.capacity() * 2).min(length.unwrap_or(max).max(needed));
            if let Err(refusal) = room.grow(capacity) {
                return Ok(Err(refusal));
            }
            kept.reserve_exact(capacity - kept.len());
        }
        kept.extend_from_slice(&piece);
    }
    let payload = Payload::of(&kept);
    ctx.body = Some(Body { bytes: kept.into(), payload, _room: room });
    Ok(Ok(()))
}

fn too_large(max: usize) -> Refusal {
    let detail = format!("at most {max} bytes can be signed");
    Refusal { detail: detail.into(), ..Reason::BodyTooLarge.into() }
}

/// Gives pingora the kept body, where there is one, in place of the part of it that pingora knows.
pub(super) fn replay(ctx: &Ctx, piece: &mut Option<Bytes>, is_end: bool) -> bool {
    let Some(body) = &ctx.body else { return false };
    *piece = match is_end {
        // `None` would be the end.
        false => Some(Bytes::new()),
        true => Some(body.bytes.clone()).filter(|bytes| !bytes.is_empty()),
    };
    true
}

/// Whether the version's calls are signed.
pub(super) fn is_signed(ctx: &Ctx) -> bool {
    signer(ctx).is_some()
}

/// The kept body, where there is one.
pub(super) fn kept(ctx: &Ctx) -> Option<Bytes> {
    ctx.body.as_ref().map(|body| body.bytes.clone())
}

/// Signs one attempt. Nothing of ours changes the head after this.
///
/// # Errors
///
/// When it cannot be signed. It is never sent unsigned.
pub(super) fn attempt(head: &mut RequestHeader, caller: &mut Caller<'_>, ctx: &mut Ctx) -> Result<()> {
    let Some(signer) = signer(ctx).cloned() else { return Ok(()) };
    let payload = match &ctx.body {
        Some(body) => {
            // Its length is known now, however it came.
            head.remove_header(&header::TRANSFER_ENCODING);
            head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.bytes.len()))?;
            body.payload
        }
        None if caller.is_body_empty() => Payload::Empty,
        None => Payload::Unread,
    };
    // Of each attempt: platforms allow minutes of skew, and a retry may come late.
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(u64::MAX, |time| time.as_secs());
    match put(head, &signer, payload, now)? {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::error!(credential = &**signer.name(), %error, "a call cannot be signed");
            ctx.refusal = Some((Reason::CredentialUnavailable, "the call cannot be signed".into()));
            Error::e_explain(ErrorType::HTTPStatus(503), "the call cannot be signed")
        }
    }
}

/// Puts a signature into a head that goes to the wire as it is then.
///
/// # Errors
///
/// The inner one: it cannot be signed. It must not be sent then.
pub(super) fn put(
    head: &mut RequestHeader,
    signer: &Signer,
    payload: Payload,
    now: u64,
) -> Result<Result<(), Unsignable>> {
    // What only the signer may say, whoever said it.
    let said: Vec<HeaderName> = head.headers.keys().filter(|name| signer.owns(name.as_str())).cloned().collect();
    for name in said {
        head.remove_header(&name);
    }
    let fields = {
        let text = |name: HeaderName| {
            let mut all = head.headers.get_all(name).iter();
            let first = all.next().and_then(|value| value.to_str().ok());
            first.filter(|_| all.next().is_none())
        };
        let call = Call {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query(),
            host: text(header::HOST).unwrap_or_default(),
            content_type: text(header::CONTENT_TYPE),
            payload,
        };
        signer.sign(&call, now)
    };
    let fields = match fields {
        Ok(fields) => fields,
        Err(error) => return Ok(Err(error)),
    };
    for (name, value) in fields {
        head.insert_header(name, value)?;
    }
    Ok(Ok(()))
}
