//! A place for the call, where the function has only so many: had at once, or waited for while the caller waits.
//!
//! Asked for last of all before the call: what the cache answers, a fallback or a refusal takes none, and a body that is kept for
//! its signature has arrived by then, so that a slow caller holds no place with it. A body that streams holds one while it does. Attempts of one
//! request share their place; it is given back with the request's context, however that ends.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
};

use pingora_error::Result;

use super::{
    caller::Caller,
    conn::{Conn, Ended},
    ctx::{Ctx, since},
    live,
    proxy::Ingress,
};
use crate::{
    decide::{Class, Reason, snapshot::Refusal},
    platform::outcome::by_status,
    upstream::concurrency::{Asked, NoPlace, Place, Turn},
};

/// Whether the request may go on to its function: it has its place, or needs none. Else it is answered.
pub(super) async fn pass(caller: &mut Caller<'_>, ctx: &mut Ctx) -> Result<bool> {
    let place = match ask(ctx) {
        Ok(None) => return Ok(true),
        Ok(Some(turn)) => Box::pin(wait(caller, ctx, turn)).await?,
        Err(why) => Err(why),
    };
    match place {
        Ok(place) => {
            ctx.queued = place.waited;
            ctx.place = Some(place);
            Ok(true)
        }
        Err(why) => {
            let refusal = Refusal { detail: why.detail().into(), ..Reason::Overloaded.into() };
            Box::pin(Ingress::refuse(caller, ctx, refusal)).await?;
            Ok(false)
        }
    }
}

/// `None`: there is nothing to wait for.
fn ask(ctx: &mut Ctx) -> Result<Option<Turn>, NoPlace> {
    let (Some(live), Some(picked)) = (&ctx.live, ctx.picked) else { return Ok(None) };
    let Some(places) = live.places(picked.function) else { return Ok(None) };
    let route = ctx.route.map(|id| &live.snapshot.config.routes[id.index()]);
    let criticality = route.map(|route| route.criticality).unwrap_or_default();
    match places.ask(picked.version, criticality, live::now()) {
        Asked::Got(place) => {
            ctx.place = Some(place);
            Ok(None)
        }
        Asked::Waits(turn) => Ok(Some(turn)),
        Asked::Refused(why) => Err(why),
    }
}

/// The caller's bytes stay where they are while this lives: of what it sends nothing is read on, only its end is seen.
struct Held(Arc<Conn>);

impl Held {
    fn new(conn: Arc<Conn>) -> Self {
        conn.is_held.store(true, Relaxed);
        Self(conn)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.is_held.store(false, Relaxed);
    }
}

/// Waits for the place.
///
/// # Errors
///
/// The inner one is for the caller. The outer one: it went away.
async fn wait(caller: &mut Caller<'_>, ctx: &mut Ctx, mut turn: Turn) -> Result<Result<Place, NoPlace>> {
    // One that waits in vain has waited as well.
    let began = live::now();
    let held = ctx.conn.clone().filter(|_| !ctx.is_h2).map(Held::new);
    let mut late = pin!(tokio::time::sleep(turn.wait()));
    // Elsewhere a caller may close its side and wait for the answer (RFC 9112 §9.6). That looks the same as one that is gone, and
    // one that is gone may not stand before others.
    caller.aborts_on_close(true);
    let ended = {
        let mut gone = pin!(caller.read_body_or_idle(true));
        let mut is_heard = false;
        poll_fn(|cx| {
            if let Poll::Ready(done) = turn.poll(cx, live::now) {
                return Poll::Ready(Some(Ok(done)));
            }
            if late.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            if !is_heard && let Poll::Ready(said) = gone.as_mut().poll(cx) {
                is_heard = true;
                if let Err(error) = said {
                    return Poll::Ready(Some(Err(error)));
                }
            }
            Poll::Pending
        })
        .await
    };
    caller.aborts_on_close(false);
    drop(held);
    ctx.queued = since(began);
    match ended {
        Some(Ok(done)) => Ok(done),
        // `timeouts.total` counts while it waits.
        Some(Err(_)) if ctx.bounds().and_then(Conn::ended) == Some(Ended::Upstream) => Ok(turn.give_up(live::now())),
        Some(Err(error)) => Err(error.into_down()),
        None => Ok(turn.give_up(live::now())),
    }
}

/// An answer with this status came in: one that says `throttled` says it of the calls at a time.
pub(super) fn saw(ctx: &Ctx, status: u16) {
    let (Some(live), Some(picked)) = (&ctx.live, ctx.picked) else { return };
    if ctx.outcome.unwrap_or_else(|| by_status(status)) == Class::Throttled
        && let Some(places) = live.places(picked.function)
    {
        places.throttled(live::now(), ctx.attempt_started);
    }
}
