//! An h2 connection: one task for it, and one for each of its requests, with bounds of their own.

use std::{future::poll_fn, sync::Arc, task::Poll};

use pingora_core::{
    apps::HttpServerApp,
    protocols::{
        Digest, GetProxyDigest,
        http::{
            ServerSession,
            v2::server::{H2Accept, HttpSession, handshake},
        },
    },
    server::ShutdownWatch,
};

use crate::ingress::{
    Proxy,
    conn::{self, Conn},
    io::Io,
    refuse_stream,
};

/// A connection that sends so many malformed requests is over.
const MALFORMED: usize = 32;

/// Serves the connection until the caller closes it, or it is drained.
pub async fn serve(io: Box<Io>, proxy: &Arc<Proxy>, mut shutdown: ShutdownWatch) {
    let conn = io.conn.clone();
    let digest = Arc::new(Digest {
        ssl_digest: None,
        timing_digest: Vec::new(),
        proxy_digest: io.get_proxy_digest(),
        socket_digest: None,
    });
    let Ok(mut h2) = handshake(io, proxy.h2_options.clone()).await else { return };
    let mut is_ending = *shutdown.borrow_and_update();
    if is_ending {
        h2.graceful_shutdown();
    }
    let mut malformed = 0;
    let mut streams = Vec::new();
    loop {
        let next = tokio::select! {
            biased;
            _ = shutdown.changed(), if !is_ending => {
                // RFC 9113 §6.8: requests that are on their way are still served.
                is_ending = true;
                h2.graceful_shutdown();
                continue;
            }
            next = HttpSession::from_h2_conn(&mut h2, digest.clone()) => next,
        };
        match next {
            Ok(Some(H2Accept::Session(session))) => {
                let bounds = free(&mut streams, &conn);
                tokio::spawn(request(session, bounds, proxy.clone(), shutdown.clone()));
            }
            Ok(Some(H2Accept::Rejected)) => {
                refuse_stream(&conn);
                malformed += 1;
                if malformed == MALFORMED {
                    return;
                }
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// The bounds of a request that is over, for the next one: the sweeper has each on its list only once. As many are made
/// as there are requests at a time.
fn free(streams: &mut Vec<Arc<Conn>>, conn: &Conn) -> Arc<Conn> {
    if let Some(over) = streams.iter().find(|stream| Arc::strong_count(stream) == 1) {
        over.request_begins();
        return over.clone();
    }
    let fresh = conn.stream();
    streams.push(fresh.clone());
    fresh
}

/// One request. Past its bounds it is dropped, which resets its stream: pingora can't be told in time.
async fn request(session: HttpSession, bounds: Arc<Conn>, proxy: Arc<Proxy>, shutdown: ShutdownWatch) {
    let mut under_way = proxy.process_new_http(ServerSession::new_http2(session), &shutdown);
    poll_fn(|cx| {
        if conn::with_stream(&bounds, || under_way.as_mut().poll(cx)).is_ready() {
            return Poll::Ready(());
        }
        bounds.register(cx.waker());
        if bounds.ended().is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
