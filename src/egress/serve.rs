//! One client's connection, from its first request to its last.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use super::{
    answer::{self, Refusal},
    conn::{Conn, End},
    forward::{self, After, Asked},
    live, parent, pool,
    record::Record,
    relay::Side,
    splice,
    tunnel::{self, Tunnel},
    way,
};
use crate::{
    config::model::{ListenerTimeouts, Name},
    decide::{
        ClientCertificate, Reason,
        egress::{self as policy, via},
        http1::head::{self, BadHead, Head, HeadLimits, Look, To},
    },
    observe::clock::now,
};

/// A connection that was accepted, with what is known of its client.
pub struct Caller {
    pub stream: Stream,
    /// Bytes that were read behind a PROXY header.
    pub ahead: BytesMut,
    pub conn: Arc<Conn>,
    /// `None`: it came by a unix socket.
    pub ip: Option<IpAddr>,
    pub certificate: Option<Box<ClientCertificate>>,
    pub listener: Name,
    pub rooms: Arc<dyn Rooms>,
    pub timeouts: ListenerTimeouts,
}

/// What a connection counts in.
pub trait Rooms: Send + Sync {
    /// The listener's, where it has a bound of its own, and the process's: as they are now, this connection included.
    fn rooms(&self) -> [Option<policy::Room>; 2];
}

/// A side of a tunnel: the client's, or what was dialled.
pub enum Stream {
    /// As nearly all are.
    Tcp(TcpStream),
    /// TLS, or a unix socket.
    Other(Box<dyn Side>),
}

impl Stream {
    /// Once it is dropped, the peer is not told that this was the end: a plain one is reset (RFC 9293 §3.10.4), TLS says no `close_notify`.
    pub fn resets(&self) {
        if let Self::Tcp(stream) = self {
            // Else it is an end like any other.
            let _ = stream.set_zero_linger();
        }
    }

    pub fn as_side(&mut self) -> &mut dyn Side {
        match self {
            Self::Tcp(stream) => stream,
            Self::Other(stream) => &mut **stream,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Other(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Other(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Other(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Other(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

const LIMITS: HeadLimits = HeadLimits { to: To::Proxy, bytes: 32 * 1024, fields: 100, target: 8 * 1024 };

/// How long a client may go on sending what nobody reads, so that it gets to read its answer.
const LINGER: Duration = Duration::from_secs(2);
/// And how much.
const LINGER_BYTES: usize = 1024 * 1024;

/// Serves a connection to its end.
pub async fn serve(caller: Caller) {
    // What a request needs is large, and gone before its tunnel begins to move bytes: in a box of its own.
    if let Some(tunnel) = Box::pin(requests(caller)).await {
        tunnel.run().await;
    }
}

/// What comes next.
enum Next {
    Request,
    Tunnel(Box<Tunnel>),
    End,
}

async fn requests(mut caller: Caller) -> Option<Box<Tunnel>> {
    let mut inbox = std::mem::take(&mut caller.ahead);
    caller.conn.step(now(), caller.timeouts.header);
    loop {
        let head = match read_head(&mut caller, &mut inbox).await {
            Got::Head(head) => head,
            Got::Nothing => return None,
            Got::Bad(bad) => {
                refuse_head(caller, &inbox, bad).await;
                return None;
            }
        };
        caller.conn.no_step();
        match request(caller, &mut inbox, head).await {
            (Next::Request, Some(back)) => caller = back,
            (Next::Tunnel(tunnel), _) => return Some(tunnel),
            _ => return None,
        }
        caller.conn.step(now(), caller.timeouts.idle);
    }
}

enum Got {
    Head(Head),
    Bad(BadHead),
    Nothing,
}

async fn read_head(caller: &mut Caller, inbox: &mut BytesMut) -> Got {
    let mut searched = 0;
    let mut has_begun = false;
    loop {
        if !inbox.is_empty() {
            match head::look(inbox, searched, &LIMITS) {
                Look::Head(head) => return Got::Head(head),
                Look::Bad(bad) => return Got::Bad(bad),
                Look::Partial(at) => searched = at,
            }
            if !has_begun {
                has_begun = true;
                caller.conn.step(now(), caller.timeouts.header);
            }
        }
        inbox.reserve(1024);
        let read = caller.stream.read_buf(inbox);
        let read = if has_begun { caller.conn.within(read).await } else { caller.conn.while_idle(read).await };
        match read {
            Ok(Ok(1..)) => {}
            Ok(_) => return Got::Nothing,
            Err(End::Late) if has_begun => {
                return Got::Bad(BadHead {
                    reason: Reason::RequestTimeout,
                    detail: "the header did not arrive in time",
                });
            }
            Err(_) => return Got::Nothing,
        }
    }
}

/// Answers a head that is no request.
async fn refuse_head(caller: Caller, inbox: &[u8], bad: BadHead) {
    let Some(mut record) = Record::begin(caller.listener.clone(), caller.ip).map(Box::new) else { return };
    let (method, _, target) = head::describe(inbox);
    record.kind = if method == "CONNECT" { "connect" } else { "forward" };
    record.target = shown(target.as_bytes());
    let refusal = Refusal::new(bad.reason, bad.detail);
    say(caller.stream, record, &refusal, method == "HEAD").await;
}

/// Of a target that nobody has understood yet.
fn shown(target: &[u8]) -> Option<Box<[u8]>> {
    Some(policy::without_secrets(target)).filter(|text| !text.is_empty()).map(Into::into)
}

/// Says a refusal, and closes. What the request held is free once it is said.
async fn say(mut stream: Stream, mut record: Box<Record>, refusal: &Refusal, is_head: bool) {
    record.refused(refusal);
    let message = record.live.snapshot.config.egress.deny_message.as_deref();
    let bytes = answer::bytes(refusal, message, record.id.as_str(), true, is_head);
    let told = async {
        let is_said = stream.write_all(&bytes).await.is_ok();
        drop(record);
        if is_said {
            goodbye(&mut stream).await;
        }
    };
    // The bounds of the connection may be what ended it.
    let _ = tokio::time::timeout(LINGER, told).await;
}

/// Ends a connection so that what was written arrives.
async fn goodbye(stream: &mut Stream) {
    let linger = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        // RFC 9112 §9.6: closed at once, what the client still sends would reset the connection, and take the answer with it.
        let mut sink = [0; 2048];
        let mut left = LINGER_BYTES;
        while let Ok(n @ 1..) = stream.read(&mut sink).await {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, linger).await;
}

/// The fields of a head that was found good.
fn fields(bytes: &[u8], head: &Head) -> Option<HeaderMap> {
    let mut lines = [httparse::EMPTY_HEADER; 100];
    let line_end = memchr::memchr(b'\n', &bytes[head.start..head.end])? + head.start + 1;
    let (_, found) = httparse::parse_headers(&bytes[line_end..head.end], &mut lines).ok()?.unwrap();
    let mut headers = HeaderMap::with_capacity(found.len());
    for line in found {
        headers.append(HeaderName::from_bytes(line.name.as_bytes()).ok()?, HeaderValue::from_bytes(line.value).ok()?);
    }
    Some(headers)
}

async fn request(caller: Caller, inbox: &mut BytesMut, head: Head) -> (Next, Option<Caller>) {
    let Some(mut record) = Record::begin(caller.listener.clone(), caller.ip).map(Box::new) else {
        return (Next::End, None);
    };
    let bytes = inbox.split_to(head.end).freeze();
    let (method, target) = (&bytes[head.method.clone()], &bytes[head.target.clone()]);
    record.target = shown(target);
    let is_connect = method == b"CONNECT";
    record.kind = if is_connect { "connect" } else { "forward" };
    let Some(headers) = fields(&bytes, &head) else {
        let refusal = Refusal::new(Reason::BadRequest, "the header cannot be read");
        say(caller.stream, record, &refusal, method == b"HEAD").await;
        return (Next::End, None);
    };
    // RFC 9112 §3.2: also where the target is what counts.
    if !headers.get(header::HOST).is_none_or(|host| policy::is_host(host.as_bytes())) {
        let refusal = Refusal::new(Reason::BadRequest, "Host is no host");
        say(caller.stream, record, &refusal, method == b"HEAD").await;
        return (Next::End, None);
    }
    if !is_connect {
        record.method = Some(method.into());
        return Box::pin(forwarded(caller, record, &bytes, head, &headers, inbox)).await;
    }
    let to = || {
        parent::no_circle(&headers)?;
        policy::connect(target).map(policy::Authority::into_owned).map_err(|p| Refusal::new(p.reason(), p.to_string()))
    };
    let to = match way::admit(&mut record, to, &headers, &caller) {
        Ok(to) => to,
        Err(refusal) => {
            say(caller.stream, record, &refusal, false).await;
            return (Next::End, None);
        }
    };
    let via = parent::of(&record).map(|_| via::with_ours(&headers, head.is_1_0, &parent::OWN_NAME)).unwrap_or_default();
    let grounds = way::grounds(&record, &headers, &caller);
    drop(headers);
    match tunnel::open(caller.stream, record, to, &via, std::mem::take(inbox), grounds, caller.conn.clone()).await {
        Ok(Some(tunnel)) => (Next::Tunnel(Box::new(tunnel)), None),
        Ok(None) => (Next::End, None),
        Err((refusal, stream, record)) => {
            say(stream, record, &refusal, false).await;
            (Next::End, None)
        }
    }
}

async fn forwarded(
    mut caller: Caller,
    mut record: Box<Record>,
    bytes: &[u8],
    head: Head,
    headers: &HeaderMap,
    inbox: &mut BytesMut,
) -> (Next, Option<Caller>) {
    let (method, target) = (&bytes[head.method.clone()], &bytes[head.target.clone()]);
    let mut absolute = None;
    let to = || {
        if let Some(refusal) = forward::unfit(method, headers) {
            return Err(refusal);
        }
        parent::no_circle(headers)?;
        let found = policy::absolute(target).map_err(|p| Refusal::new(p.reason(), p.to_string()))?;
        let to = found.authority.clone().into_owned();
        absolute = Some(found);
        Ok(to)
    };
    let admitted = way::admit(&mut record, to, headers, &caller);
    let after = match (admitted, &absolute) {
        (Ok(to), Some(absolute)) => {
            let asked = Asked { method, headers, to, absolute, head };
            match forward::answered_here(&mut caller, &mut record, &asked).await {
                Some(after) => after,
                None => forward::forward(&mut caller, &mut record, &asked, inbox).await,
            }
        }
        (Ok(_), None) => After::Close,
        (Err(refusal), _) => After::Refuse(refusal),
    };
    match after {
        After::Keep => (Next::Request, Some(caller)),
        After::Close => {
            drop(record);
            goodbye(&mut caller.stream).await;
            (Next::End, None)
        }
        After::Cut => {
            caller.stream.resets();
            (Next::End, None)
        }
        After::Refuse(refusal) => {
            say(caller.stream, record, &refusal, method == b"HEAD").await;
            (Next::End, None)
        }
    }
}

/// Whether the generation is another one than at the last sweep.
pub fn sweep() {
    let is_new = live::is_new();
    super::conn::sweep(now(), is_new);
    splice::sweep();
    pool::sweep(if is_new { live::current().map(|(_, live)| live.snapshot.generation) } else { None });
}
