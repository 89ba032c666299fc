//! An h2 connection: one task for it, and one for each of its requests, with bounds of their own.
//!
//! Its end is said with a code (RFC 9113 §6.8, §7): to callers that are idle, that begin a frame and don't go on, that send
//! floods of what costs work and asks for nothing. What of all that the h2 library does itself, and what is done here, is told
//! in `docs/security.md`.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, server::Builder};
use pingora_core::{
    protocols::{Digest, GetProxyDigest},
    server::ShutdownWatch,
};

use crate::ingress::{
    Proxy,
    conn::{self, Conn, Ended, Phase},
    io::Io,
    left, refuse_stream,
    request::process,
    stall,
    stream::H2Stream,
};

/// What the library bounds, every figure of it: its defaults may change.
fn options() -> Builder {
    let mut options = Builder::new();
    options
        // Requests under way.
        .max_concurrent_streams(100)
        // Names and values and 32 bytes for each pair, unpacked (RFC 9113 §6.5.2). Larger: 431; far larger: the connection ends.
        .max_header_list_size(32 * 1024)
        // RFC 7541 §4.2.
        .header_table_size(4096)
        // The least that there is (RFC 9113 §4.2): a frame is held until it is whole.
        .max_frame_size(16 * 1024)
        // What a caller may send of bodies that nobody has taken yet.
        .initial_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        // Held of an answer that the caller does not take.
        .max_send_buffer_size(64 * 1024)
        // Requests taken back before they were looked at (rapid reset): at a time.
        .max_pending_accept_reset_streams(20)
        // Streams that we reset, remembered for what is still under way on them: at a time, and how long.
        .max_concurrent_reset_streams(50)
        .reset_stream_duration(Duration::from_secs(1))
        // Frames that make us reset their stream, for a connection's whole life.
        .max_local_error_reset_streams(Some(256))
        // Small pieces of bodies that nobody has taken yet, by what each costs in memory: 4,000 of one byte.
        .data_frame_budget(1024 * 1024);
    options
}

/// What a connection's requests share.
struct Shared {
    proxy: Arc<Proxy>,
    shutdown: ShutdownWatch,
}

/// What happens next on a connection.
enum Event {
    Request(Box<H2Stream>),
    /// The caller has closed, or the library has, and has said why.
    Over(Result<(), h2::Error>),
    /// It is to end: with that word, or without one.
    End(Option<Reason>),
    Drain,
}

impl Event {
    /// Why this connection is to end, if it is.
    fn end(conn: &Conn) -> Option<Self> {
        if conn.h2.is_flooded.load(Relaxed) {
            return Some(Self::End(Some(Reason::ENHANCE_YOUR_CALM)));
        }
        Some(Self::End(match conn.ended()? {
            Ended::Overdue(Phase::Idle | Phase::First) | Ended::Drained => Some(Reason::NO_ERROR),
            Ended::Overdue(Phase::Handshake) => Some(Reason::SETTINGS_TIMEOUT),
            Ended::Overdue(Phase::Header) => Some(Reason::ENHANCE_YOUR_CALM),
            // Who takes nothing hears nothing.
            _ => None,
        }))
    }
}

/// The requests of a connection: each is served, or told of as refused.
struct Count<'c> {
    conn: &'c Conn,
    /// Served, or told of.
    told: u32,
}

impl Count<'_> {
    /// Requests that the library has refused by itself: malformed, or more than may be under way.
    fn tell_of_lost(&mut self) {
        while self.told < self.conn.h2.opened() {
            self.told += 1;
            refuse_stream(self.conn);
        }
    }
}

/// Serves the connection until the caller closes it, it is drained, or it is sent away.
pub async fn serve(io: Box<Io>, proxy: &Arc<Proxy>, shutdown: ShutdownWatch) {
    let conn = io.conn.clone();
    let digest = Arc::new(Digest {
        ssl_digest: None,
        timing_digest: Vec::new(),
        proxy_digest: io.get_proxy_digest(),
        socket_digest: None,
    });
    let Ok(mut h2) = options().handshake::<_, Bytes>(io).await else { return };
    let shared = Arc::new(Shared { proxy: proxy.clone(), shutdown });
    let mut count = Count { conn: &conn, told: 0 };
    let mut is_draining = false;
    let mut streams = Vec::new();
    let last_word = loop {
        let event = poll_fn(|cx| {
            if let Some(end) = Event::end(&conn) {
                return Poll::Ready(end);
            }
            if !is_draining && conn.closing.load(Relaxed) {
                return Poll::Ready(Event::Drain);
            }
            match h2.poll_accept(cx) {
                Poll::Ready(Some(Ok(request))) => {
                    return Poll::Ready(Event::Request(H2Stream::new(
                        request,
                        digest.clone(),
                        free(&mut streams, &conn),
                    )));
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Event::Over(Err(e))),
                Poll::Ready(None) => return Poll::Ready(Event::Over(Ok(()))),
                Poll::Pending => {}
            }
            // All that was read has been looked at, unless there is no room for what is to be said to it.
            if !conn.h2.is_blocked.load(Relaxed) {
                count.tell_of_lost();
            }
            conn.register(cx.waker());
            Event::end(&conn).map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        match event {
            Event::Request(stream) => {
                count.told += 1;
                tokio::spawn(request(stream, shared.clone()));
            }
            Event::Drain => {
                // RFC 9113 §6.8: requests that are on their way are still served. The library says goodbye twice: that no more may
                // be sent, and, once the caller has seen it, which was the last.
                is_draining = true;
                h2.graceful_shutdown();
            }
            Event::Over(Ok(())) | Event::End(None) => return count.tell_of_lost(),
            // The library has said why.
            Event::Over(Err(_)) => break None,
            Event::End(word) => break word,
        }
    };
    count.tell_of_lost();
    // What the caller has sent meanwhile would reset the connection, and the last word would be lost.
    conn.h2.lingers.store(last_word != Some(Reason::NO_ERROR), Relaxed);
    let Some(word) = last_word else { return };
    h2.abrupt_shutdown(word);
    conn.request_begins();
    conn.begin(Phase::Linger);
    poll_fn(|cx| {
        while let Poll::Ready(next) = h2.poll_accept(cx) {
            // Requests that came before the word are not served any more.
            if !matches!(next, Some(Ok(_))) {
                return Poll::Ready(());
            }
        }
        conn.register(cx.waker());
        if conn.ended().is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The bounds of a request that is over, for the next one: the sweeper has each on its list only once. As many are made
/// as there are requests at a time.
fn free(streams: &mut Vec<Arc<Conn>>, conn: &Arc<Conn>) -> Arc<Conn> {
    if let Some(over) = streams.iter().find(|stream| Arc::strong_count(stream) == 1) {
        over.request_begins();
        return over.clone();
    }
    let fresh = conn.stream();
    streams.push(fresh.clone());
    fresh
}

/// One request. Its session tells pingora of its bounds; where pingora does not look, it is dropped, which resets its stream.
async fn request(stream: Box<H2Stream>, shared: Arc<Shared>) {
    let bounds = stream.bounds().clone();
    let mut under_way = process(&shared.proxy, stream.into(), &shared.shutdown);
    let (mut is_new, mut cuts) = (true, 0);
    poll_fn(|cx| {
        // It asks for its bounds at once.
        let is_done = match std::mem::take(&mut is_new) {
            true => conn::with_stream(&bounds, || under_way.as_mut().poll(cx)).is_ready(),
            false => stall::poll(&bounds, cx, |cx| under_way.as_mut().poll(cx)).is_ready(),
        };
        if is_done {
            return Poll::Ready(());
        }
        bounds.register(cx.waker());
        let ended = bounds.ended();
        cuts += u8::from(ended == Some(Ended::Cut));
        if ended == Some(Ended::Stuck) || cuts > 2 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    drop(under_way);
    Box::pin(left::give_back(&shared.proxy, &shared.shutdown)).await;
}
