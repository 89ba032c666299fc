//! A request to a function over HTTP/1.1, and the answer back, without pingora's way in between.
//!
//! That way has a cache beside the answer and custom protocols on either side: four ends of channels, a message for each piece, two halves that wake
//! one another. Here is one loop. What the caller sends goes to the function as it can take it; what the function answers goes to the caller, and no
//! more of it is read than he takes. What is decided on the way is the same: both ways call the same phases.

pub mod answer;
mod upload;

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version, header};
use pingora_core::protocols::Stream;
use pingora_error::{Error, ErrorType, Result, RetryType};
use pingora_http::ResponseHeader;
use tokio::io::AsyncReadExt;

use self::{answer::Left, upload::Upload};
use super::{
    attempt::{self, Attempt},
    cache,
    caller::Caller,
    conn::Conn,
    ctx::Ctx,
    live, mirror, pool,
    proxy::Ingress,
    retry, sign,
};
use crate::upstream::{SHORTEST_IDLE, lines};

/// The largest head of an answer.
const HEAD: usize = 1 << 20;
/// Informational answers before one.
const INFORMATIONAL: u32 = 100;
/// What is read at a time of an answer that fills the first, smaller buffer.
const PIECE: usize = 64 << 10;

/// Whether the request goes this way: its function is spoken to in HTTP/1.1, and no tunnel is asked for.
pub(super) fn fits(ctx: &Ctx) -> bool {
    let (Some(live), Some(picked)) = (&ctx.live, ctx.picked) else { return false };
    !ctx.is_upgrade && live.target(picked.function, picked.version).speaks_http1() == Some(true)
}

/// Sends the request, as often as it may be sent, and answers it.
///
/// # Errors
///
/// As pingora's own way has them.
pub(super) async fn run(caller: &mut Caller<'_>, ctx: &mut Ctx) -> Result<()> {
    loop {
        let attempt = attempt::next(ctx).await?;
        let error = match line(caller, ctx, &attempt).await? {
            Ok((stream, reused)) => match once(caller, ctx, &attempt, stream, reused).await {
                Ok(()) => return Ok(()),
                Err(mut error) => {
                    retry::broken(caller, ctx, &mut error, reused);
                    error
                }
            },
            Err(mut error) => {
                error.as_up();
                attempt::not_connected(ctx, error)
            }
        };
        if !error.retry() {
            return Err(error);
        }
    }
}

/// A connection, and whether it is a kept one.
///
/// # Errors
///
/// The inner ones are the attempt's; the outer one says that the caller does not wait any longer.
async fn line(caller: &mut Caller<'_>, ctx: &Ctx, attempt: &Attempt) -> Result<Result<(Stream, bool)>> {
    let target = attempt.target();
    if !attempt.is_fresh
        && let Some(stream) = lines::take(target.key(attempt.address, attempt.turn), ctx.attempt_started)
    {
        return Ok(Ok((stream, true)));
    }
    let mut dial = Box::pin(lines::dial(target.http1_peer(attempt.address)));
    // What the caller sends stays where it is meanwhile.
    let is_whole = caller.is_body_done();
    let bounds = ctx.stream.as_ref().or(ctx.conn.as_ref());
    let dialled = if is_whole {
        let mut idle = pin!(caller.read_body_or_idle(true));
        poll_fn(|cx| match dial.as_mut().poll(cx) {
            Poll::Ready(dialled) => Poll::Ready(Ok(dialled)),
            Poll::Pending => poll_gone(cx, idle.as_mut()),
        })
        .await?
    } else {
        poll_fn(|cx| match dial.as_mut().poll(cx) {
            Poll::Ready(dialled) => Poll::Ready(Ok(dialled)),
            Poll::Pending => poll_over(cx, bounds.map(|bounds| &**bounds)),
        })
        .await?
    };
    if dialled.is_err() {
        target.chooses_anew();
    }
    Ok(dialled.map(|stream| (stream, false)))
}

/// Ready where the caller is gone or the time is over, and else never.
fn poll_gone<T>(cx: &mut Context<'_>, idle: impl Future<Output = Result<Option<Bytes>>>) -> Poll<Result<T>> {
    match pin!(idle).poll(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.into_down())),
        Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
    }
}

/// Ready where the time is over: while nobody looks at the caller's bytes, who would hear of it.
fn poll_over<T>(cx: &mut Context<'_>, bounds: Option<&Conn>) -> Poll<Result<T>> {
    let Some(bounds) = bounds else { return Poll::Pending };
    bounds.register(cx.waker());
    match bounds.ended() {
        Some(ended) => Poll::Ready(Err(Error::explain(ErrorType::ReadTimedout, format!("{ended:?}")).into_down())),
        None => Poll::Pending,
    }
}

/// How far the answer is.
enum Answer {
    Head,
    Body(Left),
    Over,
}

/// What happened.
enum Event {
    /// The next of the request's body; `None`: its end.
    Piece(Option<Bytes>),
    /// So many bytes came from the function; 0: it has ended.
    Said(io::Result<usize>),
}

/// One attempt, on this connection, to its end.
async fn once(
    caller: &mut Caller<'_>,
    ctx: &mut Ctx,
    attempt: &Attempt,
    mut stream: Stream,
    reused: bool,
) -> Result<()> {
    attempt::connected(caller, ctx, reused, stream.id())?;
    mirror::offer(caller, ctx);
    let has_body = !caller.is_body_empty();
    let mut upload = if sign::is_signed(ctx) {
        let mut head = caller.req_header().clone();
        sign::attempt(&mut head, caller, ctx)?;
        Upload::new(&head, has_body)
    } else {
        Upload::new(caller.req_header(), has_body)
    };
    let mut is_read = true;
    if has_body {
        is_read = caller.is_body_done();
        caller.keeps_body();
    }
    // Of an attempt before this one; or there is none.
    let before = if has_body { caller.kept_body() } else { None };
    if is_read || before.is_some() {
        push(&mut upload, before, is_read, ctx)?;
    }

    let is_head = caller.req_header().method == Method::HEAD;
    let (mut answer, mut searched, mut informational) = (Answer::Head, 0, 0);
    let (mut inbox, mut keeps, mut is_large) = (pool::take(), true, false);
    loop {
        match next(caller, ctx, &mut upload, &mut stream, &mut inbox, is_large).await? {
            Event::Piece(piece) => {
                let is_end = piece.is_none() || caller.is_body_done();
                push(&mut upload, piece, is_end, ctx)?;
                continue;
            }
            Event::Said(Ok(0)) => match &mut answer {
                Answer::Body(left @ Left::Rest) => *left = Left::Bytes(0),
                Answer::Body(_) => {
                    let error = Error::explain(ErrorType::ConnectionClosed, "before the end of the answer's body");
                    return Err(error.into_up());
                }
                _ => return Err(no_answer(&mut upload, inbox.len(), None)),
            },
            Event::Said(Err(cause)) => {
                return Err(match answer {
                    Answer::Body(_) => Error::because(ErrorType::ReadError, "the answer's body", cause).into_up(),
                    _ => no_answer(&mut upload, inbox.len(), Some(cause)),
                });
            }
            Event::Said(Ok(_)) => is_large = inbox.len() == inbox.capacity(),
        }
        while matches!(answer, Answer::Head) {
            let head = answer::next_head(&mut inbox, &mut searched).map_err(|e| e.into_up())?;
            let Some(mut head) = head else {
                if inbox.len() > HEAD {
                    return Err(invalid("the answer's head is larger than 1 MiB"));
                }
                break;
            };
            cache::framing(ctx, &head);
            if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                informational += 1;
                if informational > INFORMATIONAL {
                    return Err(invalid("informational answers without end"));
                }
                Ingress::pass_head(caller, &mut head, ctx)?;
                caller.write_head(head).await.map_err(|e| e.into_down())?;
                continue;
            }
            let left = Left::of(&mut head, is_head).map_err(|e| e.into_up())?;
            keeps = left.keeps(&head);
            answer = pass_head(caller, ctx, head, left).await?;
        }
        if let Answer::Body(left) = &mut answer {
            let piece = left.take(&mut inbox).map_err(|e| e.into_up())?;
            let end = left.is_over();
            if end || !piece.is_empty() {
                let mut piece = Some(piece).filter(|piece| !piece.is_empty());
                Ingress::pass_answer(caller, &mut piece, end, ctx)?;
                let piece = piece.unwrap_or_default();
                caller.write_body(piece, end).await.map_err(|e| e.into_down())?;
            }
            if end {
                answer = Answer::Over;
            }
        }
        if matches!(answer, Answer::Over) {
            break;
        }
    }
    // The function has said all that it has to say: what the caller still sends nobody wants. Nor did anybody ask for what is behind the answer.
    keeps &= upload.is_sent() && inbox.is_empty();
    pool::give(&mut inbox);
    let pool = &attempt.function().pool;
    if keeps && !pool.idle.is_zero() {
        // One that has waited for as long as its whole age is not asked for again.
        let idle = pool.age.map_or(pool.idle, |age| pool.idle.min(age)).max(SHORTEST_IDLE);
        lines::put(attempt.target().key(attempt.address, attempt.turn), stream, live::now(), idle);
    }
    Ok(())
}

/// The next of the request's body, on its way through the phases.
fn push(upload: &mut Upload, mut piece: Option<Bytes>, is_end: bool, ctx: &mut Ctx) -> Result<()> {
    Ingress::pass_body(&mut piece, is_end, ctx)?;
    upload.push(piece.unwrap_or_default(), is_end)
}

/// Waits for what happens first, while the request goes out.
async fn next(
    caller: &mut Caller<'_>,
    ctx: &Ctx,
    upload: &mut Upload,
    stream: &mut Stream,
    inbox: &mut BytesMut,
    is_large: bool,
) -> Result<Event> {
    // All that is here of the answer was written: none of it is to wait for what comes next.
    caller.flush_urgent().await.map_err(|e| e.into_down())?;
    let bounds = ctx.stream.as_deref().or(ctx.conn.as_deref());
    // Else its bytes stay where they are: the function takes none, or takes no more.
    let is_whole = upload.is_whole();
    let is_idle = is_whole && caller.is_body_done();
    let size = if is_large { PIECE } else { pool::SIZE };
    let mut heard = pin!(caller.read_body_or_idle(is_idle));
    let mut is_heard = false;
    poll_fn(|cx| {
        let sent = upload.poll(cx, stream);
        room(inbox, size);
        if let Poll::Ready(read) = poll_read(stream, cx, inbox) {
            return Poll::Ready(Ok(Event::Said(read)));
        }
        if inbox.is_empty() {
            // Nobody knows for how long.
            pool::give(inbox);
        }
        if sent.is_pending() || (upload.is_whole() && !is_idle) {
            return poll_over(cx, bounds);
        }
        if is_heard {
            return Poll::Pending;
        }
        match heard.as_mut().poll(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into_down())),
            Poll::Ready(Ok(piece)) if !is_idle => Poll::Ready(Ok(Event::Piece(piece))),
            Poll::Ready(Ok(_)) => {
                is_heard = true;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The answer's head, on to the caller.
async fn pass_head(
    caller: &mut Caller<'_>,
    ctx: &mut Ctx,
    mut head: Box<ResponseHeader>,
    left: Left,
) -> Result<Answer> {
    if matches!(left, Left::Rest) && !head.headers.contains_key(header::TRANSFER_ENCODING) {
        // HTTP/1.0's way, which takes the connection for the body's end: the caller's goes on.
        head.set_version(Version::HTTP_11);
        head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ingress::pass_head(caller, &mut head, ctx)?;
    if left.is_over() {
        caller.write_whole(head).await.map_err(|e| e.into_down())?;
        return Ok(Answer::Over);
    }
    caller.write_head(head).await.map_err(|e| e.into_down())?;
    Ok(Answer::Body(left))
}

fn invalid(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}

/// The connection ended before a whole head of an answer came. A kept one may have been closed before (RFC 9112 §9.3.1).
fn no_answer(upload: &mut Upload, read: usize, cause: Option<io::Error>) -> Box<Error> {
    let what = format!("before an answer, of which {read} bytes came");
    // What TLS says is not the network's doing.
    let mut is_of_the_network = true;
    // What broke first is the reason of the rest.
    let mut error = match (upload.take_broken(), cause) {
        (Some(cause), _) => {
            is_of_the_network = cause.raw_os_error().is_some();
            Error::because(ErrorType::WriteError, what, cause)
        }
        (None, Some(cause)) => {
            is_of_the_network = cause.raw_os_error().is_some();
            Error::because(ErrorType::ReadError, what, cause)
        }
        (None, None) => Error::explain(ErrorType::ConnectionClosed, what),
    };
    if is_of_the_network {
        error.retry = RetryType::ReusedOnly;
    }
    error.into_up()
}

/// Room for the next read.
fn room(inbox: &mut BytesMut, size: usize) {
    if !inbox.is_empty() {
        // The beginning of something: it must be able to grow.
        if inbox.len() == inbox.capacity() {
            inbox.reserve(size);
        }
    } else if !inbox.try_reclaim(size) {
        // Somebody still has the last piece, or it was smaller.
        pool::give(inbox);
        *inbox = if size == pool::SIZE { pool::take() } else { BytesMut::with_capacity(size) };
    }
}

fn poll_read(stream: &mut Stream, cx: &mut Context<'_>, inbox: &mut BytesMut) -> Poll<io::Result<usize>> {
    // The future holds nothing between polls: it may be made anew for each.
    pin!(stream.read_buf(inbox)).poll(cx)
}
