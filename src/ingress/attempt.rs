//! One attempt of a request: where it goes, that it got a connection, or none.

use std::{net::SocketAddr, os::fd::RawFd, sync::Arc, time::Duration};

use http::Version;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};

use super::{
    caller::Caller,
    ctx::{Ctx, Picked, since},
    io::Io,
    live::{self, Live},
    on_platform,
    proxy::Ingress,
    retry,
};
use crate::{
    config::model::Function,
    decide::Reason,
    upstream::{SHORTEST_IDLE, Target, classify_error},
};

/// Where an attempt goes.
pub(super) struct Attempt {
    pub(super) live: Arc<Live>,
    picked: Picked,
    pub(super) address: SocketAddr,
    /// It takes no kept connection.
    pub(super) is_fresh: bool,
    /// Which turn of the pool's age kept connections must be of.
    pub(super) turn: u64,
}

/// Begins an attempt, once what it has to wait for is over.
///
/// # Errors
///
/// There is no address to go to.
pub(super) async fn next(ctx: &mut Ctx) -> Result<Attempt> {
    let live = ctx.live()?.clone();
    let Some(picked) = ctx.picked else {
        return Error::e_explain(ErrorType::InternalError, "no version was picked");
    };
    retry::begins(ctx).await;
    let target = live.target(picked.function, picked.version);
    let function = &live.snapshot.config.functions[picked.function.index()];
    if ctx.candidates.is_none() {
        let mut candidates = target.candidates(if ctx.attempts == 0 { ctx.started } else { live::now() });
        if candidates.is_empty() {
            // The name's first lookup may still be under way.
            let _ = Box::pin(target.wait_first(function.timeouts.connect)).await;
            candidates = target.candidates(live::now());
        }
        ctx.candidates = Some(candidates);
    }
    ctx.attempts += 1;
    if let Some((bound, left)) = &mut ctx.body_left {
        // Each attempt sends the body from its start.
        *left = *bound;
    }
    // A fresh connection after a stale one goes where the stale one went.
    let address = if ctx.wants_fresh { ctx.address } else { None };
    let next = address.or_else(|| ctx.candidates.as_mut().and_then(Iterator::next));
    let Some(address) = next else {
        ctx.attempts -= 1;
        ctx.refusal = Some((Reason::NameNotResolved, "".into()));
        return Error::e_explain(ErrorType::HTTPStatus(502), "the function's name does not resolve");
    };
    (ctx.address, ctx.group_key) = (Some(address), None);
    ctx.attempt_started = live::now();
    let is_fresh = ctx.wants_fresh || function.pool.idle.is_zero();
    let turn = function.pool.age.map_or(0, |age| on_platform::generation_of(ctx.attempt_started, ctx.worker, age));
    Ok(Attempt { live, picked, address, is_fresh, turn })
}

impl Attempt {
    pub(super) fn target(&self) -> &Target {
        self.live.target(self.picked.function, self.picked.version)
    }

    pub(super) fn function(&self) -> &Function {
        &self.live.snapshot.config.functions[self.picked.function.index()]
    }

    /// The same in pingora's words.
    pub(super) fn peer(&self, caller: &mut Caller<'_>, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let target = self.target();
        let timeouts = &self.function().timeouts;
        let mut peer = if ctx.is_upgrade { target.http1_peer(self.address) } else { target.peer(self.address) };
        // The sweeper bounds the silence (`Conn::bound_silence`): a timer of pingora's per read costs more. But it acts by the
        // caller's IO, which nobody polls while a large body waits for the function to take it.
        let is_swept = ctx.is_upgrade || caller.is_body_done() || Ingress::body_is_small(caller);
        if is_swept {
            peer.options.read_timeout = None;
        } else if let Some(total) = timeouts.total {
            let left = total.saturating_sub(since(ctx.started));
            for bound in [&mut peer.options.read_timeout, &mut peer.options.write_timeout] {
                *bound = Some(bound.map_or(left, |t| t.min(left)));
            }
        }
        if self.is_fresh {
            // A pool of its own, which is empty.
            peer.group_key = live::roll();
            peer.options.idle_timeout = Some(SHORTEST_IDLE);
        } else {
            peer.group_key ^= self.turn;
        }
        ctx.group_key = Some(peer.group_key);
        Ok(peer)
    }
}

/// The attempt has its connection, and the request goes out on it.
pub(super) fn connected(caller: &mut Caller<'_>, ctx: &mut Ctx, reused: bool, fd: RawFd) -> Result<()> {
    retry::connected(ctx, reused, fd);
    let (Some(live), Some(picked), Some(conn)) = (&ctx.live, ctx.picked, &ctx.conn) else {
        return Error::e_explain(ErrorType::InternalError, "given back");
    };
    let now = live::now();
    ctx.connect = Some(Duration::from_nanos(now.0.saturating_sub(ctx.attempt_started.0)));
    ctx.sent_at = Some(now);
    if let Some(address) = ctx.address {
        live.target(picked.function, picked.version).succeeded(address);
    }
    let timeouts = &live.snapshot.config.functions[picked.function.index()].timeouts;
    let bounds = ctx.stream.as_ref().unwrap_or(conn);
    let is_read = if ctx.is_h2 { caller.is_body_done() } else { caller.io().is_none_or(Io::request_is_read) };
    if is_read {
        bounds.bound_silence(Some(timeouts.first_byte));
    } else {
        bounds.bound_upload(timeouts.write, Some(timeouts.first_byte));
    }
    live.handles.upstream_connection(ctx.worker, picked.function, picked.version, reused);
    Ok(())
}

/// The function answered in this version: one that may choose is spoken to in it from now on.
pub(super) fn speaks(ctx: &Ctx, version: Version) {
    if let (Some(live), Some(picked), false) = (&ctx.live, ctx.picked, ctx.is_upgrade) {
        live.target(picked.function, picked.version).chose(version == Version::HTTP_2);
    }
}

/// The attempt got no connection: its address is told of it, and the error says whether there is a next one.
pub(super) fn not_connected(ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    if let (Some(live), Some(picked), Some(address)) = (&ctx.live, ctx.picked, ctx.address) {
        let target = live.target(picked.function, picked.version);
        if classify_error(&error).is_none_or(|failure| failure.reason != Reason::Overloaded) {
            let health = live.snapshot.config.functions[picked.function.index()].health.as_ref();
            target.failed(address, live::now(), health);
        }
        tracing::warn!(
            function = &*live.snapshot.config.functions[picked.function.index()].name,
            host = target.host(), %address, error = %error,
            "cannot connect to a function",
        );
    }
    retry::not_connected(ctx, &mut error);
    error
}
