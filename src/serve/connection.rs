//! One accepted connection, from its first byte to its last: PROXY header, TLS, HTTP/1.1 or h2.
//!
//! Between requests an HTTP/1.1 connection waits in [`http1`], with no buffer and nothing of a request.

use std::{
    future::{Future, poll_fn},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::SystemTime,
};

use bytes::{Buf, BytesMut};
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{
    identity,
    listener::{BUSY, Counted, Refused, Settings},
};
use crate::ingress::{
    Proxy,
    conn::{Conn, Ended, Info, ListenerKey, Phase},
    head::{BadHead, HeadLimits},
    io::{Io, Next, Transport},
    left,
    proxy_protocol::{self, ProxyHeader},
    refuse_head, refuse_stream,
    request::{self, UnderWay},
    stall,
    wire::{Socket, Wire},
};

/// RFC 9113 §3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection's task is given.
pub struct Accepted {
    pub socket: Socket,
    pub peer: Option<SocketAddr>,
    pub listener: ListenerKey,
    pub settings: Arc<Settings>,
    pub proxy: Arc<Proxy>,
    /// Turns true when this listener, or the whole process, is to end.
    pub shutdown: ShutdownWatch,
    pub counted: Counted,
}

/// Serves a connection to its end.
pub async fn serve(accepted: Accepted) {
    let Accepted { socket, peer, listener, settings, proxy, shutdown, mut counted } = accepted;
    // The set-up's state is large, and gone before the first request: in a box of its own.
    let ending = *shutdown.borrow();
    let ready = Box::pin(set_up(socket, peer, listener, &settings, ending, &mut counted)).await;
    match ready {
        Ok(Ready::Http1(io)) => http1(io, &proxy, &shutdown).await,
        Ok(Ready::H2(io)) => {
            let conn = io.conn.clone();
            Box::pin(super::h2::serve(io, &proxy, shutdown)).await;
            linger(&conn).await;
        }
        Err(refused) => counted.refused(refused),
    }
}

enum Ready {
    Http1(Box<Io>),
    H2(Box<Io>),
}

async fn set_up(
    socket: Socket,
    peer: Option<SocketAddr>,
    listener: ListenerKey,
    settings: &Settings,
    ending: bool,
    counted: &mut Counted,
) -> Result<Ready, Refused> {
    let info = Info { listener, peer, tls: settings.tls.is_some(), is_told: false };
    let begin = |info| {
        let conn = Conn::new(info, settings.timeouts);
        conn.begin(Phase::Handshake);
        if ending {
            // The last from the kernel's queue: the drain may have looked before this one was there.
            conn.drain();
        }
        conn
    };
    let mut conn = begin(info);
    let mut wire = Wire::new(socket);
    let peer_ip = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |p| p.ip());
    if settings.proxy_protocol.as_ref().is_some_and(|from| from.contains(peer_ip)) {
        let told = in_time(&conn, proxy_header(&mut wire)).await.ok_or(Refused::ProxyHeader)??;
        if let Some(told) = told {
            conn = begin(Info { peer: Some(told), is_told: true, ..info });
            if let Err(refused) = counted.is_from(told.ip(), settings.max_connections_per_ip) {
                if settings.tls.is_none() {
                    in_time(&conn, wire.write_all(BUSY)).await;
                }
                return Err(refused);
            }
        }
    }
    if let Some(tls) = &settings.tls {
        let accept = TlsAcceptor::from(tls.config.clone()).accept(wire);
        let Some(Ok(stream)) = in_time(&conn, accept).await else {
            return Err(Refused::Handshake);
        };
        if let Some(der) = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
            match identity::read(der, SystemTime::now()) {
                Ok(certificate) => conn.prove(certificate),
                Err(error) => {
                    tracing::debug!(%error, "connection refused");
                    return Err(Refused::Handshake);
                }
            }
        }
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let transport = Transport::Tls(Box::new(stream));
        return Ok(if h2 { Ready::H2(Io::http2(transport, conn)) } else { Ready::Http1(Io::http1(transport, conn)) });
    }
    if settings.h2c {
        let read = in_time(&conn, preface(&mut wire)).await.ok_or(Refused::Handshake)?;
        let (is_h2, bytes) = read.map_err(|_| Refused::Handshake)?;
        wire.unread(bytes);
        if is_h2 {
            return Ok(Ready::H2(Io::http2(Transport::Plain(wire), conn)));
        }
    }
    Ok(Ready::Http1(Io::http1(Transport::Plain(wire), conn)))
}

/// Runs `future` until the connection's present phase is over.
async fn in_time<F: Future>(conn: &Conn, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(done) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        conn.register(cx.waker());
        if conn.ended().is_some() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// Reads the PROXY header, and leaves what is behind it to be read next.
pub(super) async fn proxy_header(wire: &mut Wire) -> Result<Option<SocketAddr>, Refused> {
    let mut bytes = BytesMut::with_capacity(512);
    loop {
        if wire.read_buf(&mut bytes).await.map_err(|_| Refused::ProxyHeader)? == 0 {
            return Err(Refused::ProxyHeader);
        }
        match proxy_protocol::parse(&bytes) {
            ProxyHeader::Partial => {}
            ProxyHeader::Whole(n, address) => {
                bytes.advance(n);
                wire.unread(bytes);
                return Ok(address);
            }
            ProxyHeader::Bad(what) => {
                tracing::debug!(problem = what, "connection refused: PROXY header");
                return Err(Refused::ProxyHeader);
            }
        }
    }
}

/// Reads until it is clear whether the caller begins with the h2 preface.
async fn preface(wire: &mut Wire) -> std::io::Result<(bool, BytesMut)> {
    let mut bytes = BytesMut::with_capacity(512);
    loop {
        let n = wire.read_buf(&mut bytes).await?;
        let seen = bytes.len().min(H2_PREFACE.len());
        if bytes[..seen] != H2_PREFACE[..seen] || n == 0 {
            return Ok((false, bytes));
        }
        if seen == H2_PREFACE.len() {
            return Ok((true, bytes));
        }
    }
}

/// One request after another.
async fn http1(mut io: Box<Io>, proxy: &Arc<Proxy>, shutdown: &ShutdownWatch) {
    let limits = HeadLimits::default();
    let conn = io.conn.clone();
    loop {
        match poll_fn(|cx| io.poll_head(cx, &limits)).await {
            Next::Head(own, head) => {
                let under_way = match request::begin(io, own, &head, proxy, shutdown) {
                    Ok(under_way) => under_way,
                    Err((io, bad)) => return Box::pin(refuse(io, bad)).await,
                };
                match unless_stuck(&conn, under_way).await {
                    Some(back) => io = back,
                    None => {
                        if !conn.was_asked() {
                            // Never seen, for the gate is the stricter of the two; but if so, it is told.
                            refuse_stream(&conn);
                        }
                        Box::pin(left::give_back(proxy, shutdown)).await;
                        return linger(&conn).await;
                    }
                }
                conn.request_ends();
                if conn.closing.load(Relaxed) {
                    return Box::pin(goodbye(io)).await;
                }
            }
            Next::Bad(bad) => return Box::pin(refuse(io, bad)).await,
            Next::Overdue(Phase::Header) => {
                let late = BadHead {
                    reason: crate::decide::Reason::RequestTimeout,
                    detail: "the header did not arrive in time",
                };
                return Box::pin(refuse(io, late)).await;
            }
            Next::Closed | Next::Drained | Next::Overdue(_) => return Box::pin(goodbye(io)).await,
        }
    }
}

/// A request that is past its bounds is told so by its IO. Where pingora does not look at that (the function takes no more of
/// a body, the caller has closed its side) it is dropped.
async fn unless_stuck(conn: &Conn, mut under_way: UnderWay<'_>) -> Option<Box<Io>> {
    let (mut is_registered, mut cuts) = (false, 0);
    poll_fn(|cx| {
        if let Poll::Ready(done) = stall::poll(conn, cx, |cx| under_way.as_mut().poll(cx)) {
            return Poll::Ready(done);
        }
        let ended = conn.ended();
        if ended.is_some() || !is_registered {
            is_registered = true;
            conn.register(cx.waker());
        }
        cuts += u8::from(ended == Some(Ended::Cut));
        if ended == Some(Ended::Stuck) || cuts > 2 { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// Answers a head that pingora is not to see.
async fn refuse(mut io: Box<Io>, bad: BadHead) {
    let answer = refuse_head(&io, bad);
    io.conn.begin(Phase::Linger);
    let conn = io.conn.clone();
    if io.write_all(&answer).await.is_ok() && io.flush().await.is_ok() {
        io.keep_for_linger();
        drop(io);
        linger(&conn).await;
    }
}

async fn goodbye(mut io: Box<Io>) {
    io.conn.begin(Phase::Linger);
    let conn = io.conn.clone();
    in_time(&conn, io.shutdown()).await;
}

/// The caller is still sending what nobody will read: closing now would reset the connection and may take the answer
/// with it (RFC 9112 §9.6). So: say the end, and read for a while.
async fn linger(conn: &Arc<Conn>) {
    let Some(transport) = conn.left_over() else { return };
    Box::pin(async move {
        conn.request_begins();
        conn.begin(Phase::Linger);
        let drain = async {
            let mut io = Io::plain(transport, conn.clone());
            let words = conn.last_words();
            if !words.is_empty() {
                let _ = io.write_all(&words).await;
            }
            let _ = io.shutdown().await;
            let mut sink = [0; 4096];
            let mut left = LINGER_BYTES;
            while let Ok(n @ 1..) = io.read(&mut sink).await {
                left = left.saturating_sub(n);
                if left == 0 {
                    return;
                }
            }
        };
        in_time(conn, drain).await;
    })
    .await;
}

/// What is read and thrown away at most: a caller that sends more than this has had its chance to listen.
const LINGER_BYTES: usize = 1024 * 1024;
