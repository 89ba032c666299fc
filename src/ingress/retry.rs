//! A request that came to nothing, sent once more: what is always safe, and what a function's `retries` allow beside that.
//!
//! An answer is asked for again before anything of it was given to the caller: its head is refused by an error that pingora tries again.
//! pingora then drops what is left of it: over HTTP/1.1 the connection (its body is unread), over h2 the stream.

use std::{os::fd::RawFd, time::Duration};

use pingora_core::protocols::l4::ext::{TCP_INFO, get_tcp_info};
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;

use super::{
    budget,
    caller::Caller,
    conn::Conn,
    ctx::{Ctx, since},
    live, standing,
};
use crate::{
    config::model::RetryOf,
    decide::{
        Reason,
        retry::{Because, retry_after, wait},
    },
    observe::unix_ms,
    platform::outcome::{by_status, retry_of},
    upstream::classify_error,
};

/// Where a request is in its retries.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Retries so far that `attempts` counts: neither next addresses nor dead connections.
    taken: u32,
    /// What to wait before the next attempt.
    wait: Option<Duration>,
    /// Which requests the last answer's rule lets be sent again.
    pub(super) of: Option<RetryOf>,
    /// The last answer was refused to be asked for again.
    refused: bool,
    /// A kept connection proved dead.
    stale: bool,
    /// The attempt's connection had been idle for [`IDLE`].
    was_idle: bool,
}

impl Again {
    /// Whether the last attempt broke with a kept connection, so that its address is not to blame.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }
}

/// A kept connection that nobody used for so long, and that breaks before an answer, was closed by the clock of whoever kept its other end.
/// One that was busy until just now may have broken by what the request does to the function.
const IDLE: Duration = Duration::from_secs(1);

/// An attempt has its connection.
pub(super) fn connected(ctx: &mut Ctx, reused: bool, fd: RawFd) {
    let (Some(live), Some(picked)) = (&ctx.live, ctx.picked) else { return };
    let asks = reused && live.snapshot.budgets[picked.function.index()].is_some();
    let idle = |info: TCP_INFO| Duration::from_millis(info.tcpi_last_data_recv.into());
    ctx.again.was_idle = asks && get_tcp_info(fd).is_ok_and(|info| idle(info) >= IDLE);
}

/// Before each attempt: the first is counted for the budget, the others wait.
pub(super) async fn begins(ctx: &mut Ctx) {
    if let Some(wait) = ctx.again.wait.take() {
        // Short, and within the request's deadline: see `may`.
        return Box::pin(tokio::time::sleep(wait)).await;
    }
    if ctx.attempts == 0
        && let (Some(live), Some(picked)) = (&ctx.live, ctx.picked)
        && let Some(budget) = &live.snapshot.budgets[picked.function.index()]
    {
        budget.request(ctx.worker, live::now());
    }
}

/// Whether nothing of an answer went to the caller, and the request's body can be sent from its start.
fn is_open(caller: &Caller<'_>, ctx: &Ctx) -> bool {
    ctx.refusal.is_none()
        && ctx.page.is_none()
        && !caller.is_kept_cut()
        && caller.written().is_none()
        && ctx.bounds().and_then(Conn::ended).is_none()
}

/// Whether `retries` let the request be sent again. If so that is counted, and the last attempt forgotten.
fn may(ctx: &mut Ctx, because: Because, after: Option<Duration>) -> bool {
    let (Some(live), Some(picked)) = (&ctx.live, ctx.picked) else { return false };
    let function = &live.snapshot.config.functions[picked.function.index()];
    let Some(retries) = &function.retries else { return false };
    if ctx.again.taken + 1 >= u32::from(retries.attempts) || ctx.bounds().and_then(Conn::ended).is_some() {
        return false;
    }
    let left = function.timeouts.total.map(|total| total.saturating_sub(since(ctx.started)));
    let Some(wait) = wait(retries, ctx.again.taken + 1, live::roll(), after, left) else { return false };
    let budget = live.snapshot.budgets[picked.function.index()].as_ref();
    if !budget.is_some_and(|budget| budget.take(retries, live::now())) {
        live.handles.retry_refused(ctx.worker, picked.function, picked.version);
        return false;
    }
    let live = live.clone();
    if !budget::again(ctx, &live, because) {
        return false;
    }
    live.handles.retried(ctx.worker, picked.function, picked.version, because);
    standing::attempt_over(ctx, &live, because);
    ctx.again = Again { taken: ctx.again.taken + 1, wait: Some(wait), ..Again::default() };
    // What the log says is of the last attempt.
    (ctx.upstream_status, ctx.outcome, ctx.platform_request_id) = (None, None, None);
    (ctx.connect, ctx.sent_at, ctx.upstream) = (None, None, None);
    ctx.address = None;
    if ctx.candidates.as_ref().is_some_and(|left| left.clone().next().is_none()) {
        ctx.candidates = None;
    }
    if let Some(bounds) = ctx.bounds() {
        bounds.bound_silence(None);
    }
    true
}

fn has_retries(ctx: &Ctx) -> bool {
    let of = ctx.live.as_ref().zip(ctx.picked);
    of.is_some_and(|(live, picked)| live.snapshot.budgets[picked.function.index()].is_some())
}

fn count(ctx: &Ctx, because: Because) {
    if let (Some(live), Some(picked)) = (&ctx.live, ctx.picked) {
        live.handles.retried(ctx.worker, picked.function, picked.version, because);
    }
}

/// Whether this answer goes to the caller.
///
/// # Errors
///
/// With it the request is sent again.
pub(super) fn answered(caller: &Caller<'_>, ctx: &mut Ctx, answer: &ResponseHeader) -> Result<()> {
    let (Some(live), Some(picked)) = (&ctx.live, ctx.picked) else { return Ok(()) };
    if live.snapshot.budgets[picked.function.index()].is_none() {
        return Ok(());
    }
    let status = ctx.upstream_status.unwrap_or_else(|| answer.status.as_u16());
    let class = ctx.outcome.unwrap_or_else(|| by_status(status));
    let Some(because) = Because::of(class) else { return Ok(()) };
    let fits = match ctx.again.of.unwrap_or_else(|| retry_of(class)) {
        RetryOf::Any => true,
        RetryOf::Idempotent => caller.req_header().method.is_idempotent(),
        RetryOf::Never => false,
    };
    // A WebSocket's request is the caller's to repeat: pingora has begun to treat the connection as a tunnel.
    if !fits || ctx.is_upgrade || !is_open(caller, ctx) {
        return Ok(());
    }
    if !may(ctx, because, retry_after(&answer.headers, unix_ms)) {
        return Ok(());
    }
    ctx.wants_fresh = false;
    ctx.again.refused = true;
    let mut error = Error::create(ErrorType::Custom("sent again"), ErrorSource::Upstream, None, None);
    error.set_retry(true);
    Err(error)
}

/// No connection came about: any method may try the next address, and with `retries` all of them once more.
pub(super) fn not_connected(ctx: &mut Ctx, error: &mut Error) {
    ctx.wants_fresh = false;
    let is_ours = classify_error(error).is_some_and(|failure| failure.reason == Reason::Overloaded);
    let mut again = ctx.candidates.as_mut().is_some_and(|c| c.clone().next().is_some());
    if again {
        count(ctx, Because::Connect);
    } else {
        again = !is_ours && may(ctx, Because::Connect, None);
    }
    error.set_retry(again);
}

/// An attempt broke off. RFC 9110 §9.2.2, RFC 9112 §9.3.1: only what is idempotent may be sent again by itself. An answer that began is
/// final.
pub(super) fn broken(caller: &Caller<'_>, ctx: &mut Ctx, error: &mut Error, reused: bool) {
    if std::mem::take(&mut ctx.again.refused) {
        return error.set_retry(true);
    }
    ctx.again.stale = is_stale(error, reused);
    if !caller.req_header().method.is_idempotent() || !is_open(caller, ctx) {
        return error.set_retry(false);
    }
    error.retry.decide_reuse(reused);
    let is_reset = |error: &Error| classify_error(error).is_some_and(|failure| failure.reason == Reason::UpstreamReset);
    let again = if error.retry() && (ctx.again.was_idle || !has_retries(ctx)) {
        count(ctx, Because::Stale);
        true
    } else {
        is_reset(error) && may(ctx, Because::Reset, None)
    };
    ctx.wants_fresh = true;
    error.set_retry(again);
}

/// Whether a kept connection broke in a way by which pingora takes it for one that was closed before.
fn is_stale(error: &Error, reused: bool) -> bool {
    let mut again = error.retry;
    again.decide_reuse(reused);
    reused && again.retry()
}
