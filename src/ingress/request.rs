//! One request of an HTTP/1.1 caller, from its head to its line in the log.
//!
//! To a function that speaks HTTP/1.1 the whole way is ours. Else pingora goes on with it once it is decided: what was decided goes along.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::BytesMut;
use http::Version;
use pingora_core::{
    apps::{HttpServerApp, ReusedHttpStream},
    protocols::http::ServerSession,
    server::ShutdownWatch,
};
use pingora_error::Result;
use pingora_http::RequestHeader;

use super::{
    caller::Caller,
    ctx::Ctx,
    exchange,
    head::{BadHead, Head},
    http1::Http1,
    io::Io,
    own::Way,
    proxy::{Ingress, Proxy},
    tell::tell,
    turn,
};
use crate::decide::snapshot::Refusal;

/// A request that pingora goes on with.
pub(super) struct Handed {
    request: RequestHeader,
    ctx: Box<Ctx>,
    way: Result<Way, Refusal>,
    keeps: bool,
}

impl Handed {
    /// What pingora has read of it is not what was made of it.
    pub(super) fn over_to(self, caller: &mut Caller<'_>, ctx: &mut Box<Ctx>) -> Result<Way, Refusal> {
        if !self.keeps {
            caller.is_last();
        }
        if self.request.version == Version::HTTP_10 {
            caller.knows_no_interim();
        }
        *caller.req_header_mut() = self.request;
        *ctx = self.ctx;
        self.way
    }
}

/// A request under way. It ends with its connection, if that serves another.
pub type UnderWay<'p> = Pin<Box<dyn Future<Output = Option<Box<Io>>> + Send + 'p>>;

/// Begins a request whose head the gate let pass.
///
/// # Errors
///
/// It can't be: its caller is to be told so.
#[inline(never)]
pub fn begin<'p>(
    io: Box<Io>,
    own: BytesMut,
    head: &Head,
    proxy: &'p Arc<Proxy>,
    shutdown: &'p ShutdownWatch,
) -> Result<UnderWay<'p>, (Box<Io>, BadHead)> {
    let own = Http1::new(io, own, head)?;
    Ok(Box::pin(serve(own, proxy, shutdown)))
}

async fn serve(mut own: Http1, proxy: &Arc<Proxy>, shutdown: &ShutdownWatch) -> Option<Box<Io>> {
    let mut ctx = Box::new(Ctx::new());
    let mut caller = Caller::Own(&mut own);
    let way = Ingress::decide(&mut caller, &mut ctx);
    if matches!(way, Ok(Way::Function)) && !exchange::fits(&ctx) {
        return hand_over(own, ctx, way, proxy, shutdown).await;
    }
    let error = run(&mut caller, &mut ctx, way).await.err();
    if let Some(error) = &error {
        Box::pin(Ingress::fail(&mut caller, error, &mut ctx)).await;
    }
    tell(&caller, error.as_deref(), &mut ctx);
    drop(ctx);
    match error {
        None => own.finish().await,
        Some(_) => None,
    }
}

async fn run(caller: &mut Caller<'_>, ctx: &mut Ctx, way: Result<Way, Refusal>) -> Result<()> {
    if !Ingress::begin(caller, ctx, way).await? && turn::pass(caller, ctx).await? {
        exchange::run(caller, ctx).await?;
    }
    Ok(())
}

/// Not async: what it builds is large.
fn hand_over<'p>(
    own: Http1,
    ctx: Box<Ctx>,
    way: Result<Way, Refusal>,
    proxy: &'p Arc<Proxy>,
    shutdown: &'p ShutdownWatch,
) -> UnderWay<'p> {
    let (io, raw, request, keeps) = own.into_parts();
    io.hand(Box::new(Handed { request, ctx, way, keeps }));
    let mut session = ServerSession::new_http1(io);
    session.set_keepalive(Some(60));
    // The sweeper has the deadlines.
    session.set_read_timeout(None);
    session.set_abort_on_close(false);
    session.set_pipelined_prefix(BytesMut::from(&raw[..]));
    Box::pin(async move {
        let reused = process(proxy, session, shutdown).await?;
        // pingora hands back what it was given.
        reused.consume().0.into_any().downcast().ok()
    })
}

/// Not inlined: pingora's future has 13 KiB, and would be built on the stack here and then copied into its box.
#[inline(never)]
pub fn process<'p>(
    proxy: &'p Arc<Proxy>,
    session: ServerSession,
    shutdown: &'p ShutdownWatch,
) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'p>> {
    proxy.process_new_http(session, shutdown)
}
