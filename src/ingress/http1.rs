//! One request of an HTTP/1 connection, and its answer: our own side of it, from the head that the gate let pass to the last byte of the answer.
//!
//! The gate has read the head and knows the body's bounds: nothing is parsed twice here, and nothing is framed that the gate would have to frame
//! again. Deadlines are the sweeper's; the [`Io`] tells of them by errors.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, uri::PathAndQuery};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    exchange::answer::Left,
    head::{self, BadHead, Framing, Head, HeadLimits, Look},
    io::Io,
    kept::Kept,
    pool,
};
use crate::decide::{Reason, http1::chunk::Chunks};

/// What is read at a time of a body that fills the first, smaller buffer.
const PIECE: usize = 64 << 10;
/// How many fields gatepost puts into a request.
const OURS: usize = 8;

/// How the answer's end is told (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outgoing {
    /// By nothing yet: its head did not go out.
    Head,
    /// So many bytes are left.
    Length(u64),
    Chunked,
    /// By the connection's.
    Close,
    Over,
}

/// See the module.
pub(super) struct Http1 {
    pub(super) io: Box<Io>,
    /// The head as it came.
    raw: Bytes,
    request: RequestHeader,
    body: Left,
    has_body: bool,
    is_large: bool,
    kept: Option<Kept>,
    bytes_in: u64,
    /// The connection serves further requests behind this one.
    keeps: bool,
    /// The caller has closed its side.
    is_gone: bool,
    /// And that is to be an error (else it may wait for the answer: RFC 9112 §9.6).
    aborts: bool,
    /// The status of the last head that went out.
    written: Option<StatusCode>,
    out: Outgoing,
    bytes_out: u64,
    /// Something that went out is waited for.
    is_urgent: bool,
}

/// An error of the caller's side.
fn down(etype: ErrorType, what: &'static str) -> Box<Error> {
    Error::explain(etype, what).into_down()
}

fn broken(etype: ErrorType, what: &'static str, cause: io::Error) -> Box<Error> {
    Error::because(etype, what, cause).into_down()
}

/// The head in the phases' words.
fn parse(raw: &Bytes, start: usize, head: &Head) -> Result<RequestHeader, BadHead> {
    const BAD: BadHead = BadHead { reason: Reason::BadRequest, detail: "the request target is no URI" };
    // The gate lets no such pass.
    const BAD_FIELD: BadHead = BadHead { reason: Reason::BadRequest, detail: "a header line is no field" };
    let slice = |range: &std::ops::Range<usize>| raw.slice(range.start - start..range.end - start);
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(&slice(&head.method)).map_err(|_| BAD)?;
    let path = PathAndQuery::from_maybe_shared(slice(&head.target)).map_err(|_| BAD)?;
    parts.uri = Uri::from(path);
    parts.version = if head.is_1_0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut headers = HeaderMap::with_capacity(head.fields.len() + OURS);
    for field in &head.fields {
        let within = |range: &std::ops::Range<u32>| range.start as usize - start..range.end as usize - start;
        let name = HeaderName::from_bytes(&raw[within(&field.name)]).map_err(|_| BAD_FIELD)?;
        let value = HeaderValue::from_maybe_shared(raw.slice(within(&field.value))).map_err(|_| BAD_FIELD)?;
        headers.append(name, value);
    }
    parts.headers = headers;
    Ok(parts.into())
}

impl Http1 {
    /// A request whose head is `own`, as the gate saw it.
    ///
    /// # Errors
    ///
    /// Its target is none.
    pub(super) fn new(io: Box<Io>, own: BytesMut, head: &Head) -> Result<Self, (Box<Io>, BadHead)> {
        let raw = own.freeze();
        let request = if head.absolute.is_none() && head.authority.is_none() {
            parse(&raw, head.start, head)
        } else {
            // In origin-form now, and with a Host: nothing is where it was.
            let limits = HeadLimits { bytes: usize::MAX, fields: usize::MAX, ..HeadLimits::default() };
            match head::look(&raw, 0, &limits) {
                Look::Head(head) => parse(&raw, 0, &head),
                Look::Bad(bad) => Err(bad),
                Look::Partial(_) => Err(BadHead { reason: Reason::BadRequest, detail: "the header breaks off" }),
            }
        };
        let request = match request {
            Ok(request) => request,
            Err(bad) => return Err((io, bad)),
        };
        let body = match head.framing {
            Framing::None => Left::Bytes(0),
            Framing::Length(length) => Left::Bytes(length),
            Framing::Chunked => Left::Chunks(Chunks::new()),
        };
        // RFC 9112 §9.3: HTTP/1.0 keeps where it says so.
        let keeps = !io.closes && (!head.is_1_0 || says_keep_alive(&request.headers));
        Ok(Self {
            io,
            raw,
            request,
            body,
            has_body: head.framing != Framing::None,
            is_large: false,
            kept: None,
            bytes_in: 0,
            keeps,
            is_gone: false,
            aborts: false,
            written: None,
            out: Outgoing::Head,
            bytes_out: 0,
            is_urgent: false,
        })
    }

    /// For another server side: the connection, the head as it came and as it is now, and whether another request may follow.
    pub(super) fn into_parts(self) -> (Box<Io>, Bytes, RequestHeader, bool) {
        (self.io, self.raw, self.request, self.keeps)
    }

    pub(super) fn request(&self) -> &RequestHeader {
        &self.request
    }

    pub(super) fn request_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    /// The connection is to end behind the answer.
    pub(super) fn is_last(&mut self) {
        self.keeps = false;
    }

    /// Whether a caller who closes its side is taken for one that is gone.
    pub(super) fn aborts(&mut self, aborts: bool) {
        self.aborts = aborts;
    }

    pub(super) fn is_body_empty(&self) -> bool {
        !self.has_body
    }

    pub(super) fn is_body_done(&self) -> bool {
        self.io.request_is_read()
    }

    pub(super) fn written(&self) -> Option<StatusCode> {
        self.written
    }

    /// Of the bodies: what came, and what went.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in, self.bytes_out)
    }

    /// Keeps what is read of the body from now on.
    pub(super) fn keeps_body(&mut self) {
        if self.has_body {
            self.kept.get_or_insert_default();
        }
    }

    pub(super) fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The next piece of the request's body; `None`: it is over.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        while !self.is_body_done() {
            let mut inbox = if self.is_large { BytesMut::with_capacity(PIECE) } else { pool::take() };
            let read = self.io.poll_body(cx, &mut inbox);
            let piece = match &read {
                Poll::Ready(Ok(1..)) => {
                    self.is_large = inbox.len() == inbox.capacity();
                    self.body.take(&mut inbox).map_err(|e| e.into_down())
                }
                _ => Ok(Bytes::new()),
            };
            pool::give(&mut inbox);
            match ready!(read) {
                Ok(0) => {
                    return Poll::Ready(Err(down(ErrorType::ConnectionClosed, "before the end of the request's body")));
                }
                Ok(_) => {}
                Err(cause) => return Poll::Ready(Err(broken(ErrorType::ReadError, "the request's body", cause))),
            }
            let piece = piece?;
            if piece.is_empty() {
                continue;
            }
            self.bytes_in += piece.len() as u64;
            if let Some(kept) = &mut self.kept {
                kept.keep(&piece);
            }
            return Poll::Ready(Ok(Some(piece)));
        }
        Poll::Ready(Ok(None))
    }

    /// Behind the request: only its caller's end is ever heard.
    ///
    /// # Errors
    ///
    /// It is gone, or the time is over.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if !self.is_gone {
            let mut nothing = [0; 1];
            match ready!(Pin::new(&mut *self.io).poll_read(cx, &mut ReadBuf::new(&mut nothing))) {
                Ok(()) => (self.is_gone, self.keeps) = (true, false),
                Err(cause) => return Poll::Ready(Err(broken(ErrorType::ReadError, "behind the request", cause))),
            }
        }
        if self.aborts {
            return Poll::Ready(Err(down(ErrorType::ConnectionClosed, "the caller did not wait for its answer")));
        }
        // Nothing comes any more but the sweeper's word.
        self.io.conn.register(cx.waker());
        match self.io.conn.ended() {
            Some(ended) => Poll::Ready(Err(Error::explain(ErrorType::ReadTimedout, format!("{ended:?}")).into_down())),
            None => Poll::Pending,
        }
    }

    /// Reads what is left of the body.
    pub(super) async fn drain(&mut self) -> Result<()> {
        while poll_fn(|cx| self.poll_piece(cx)).await?.is_some() {}
        Ok(())
    }

    /// Writes the head of an answer, final or not.
    pub(super) async fn write_head(&mut self, head: &mut ResponseHeader) -> Result<()> {
        let is_final = !head.status.is_informational();
        if self.written.is_some_and(|status| !status.is_informational()) {
            return Ok(());
        }
        if !is_final && self.request.version == Version::HTTP_10 {
            // RFC 9110 §15.2: its caller knows none.
            return Ok(());
        }
        if is_final {
            // RFC 9112 §9.6: the answer may be over before all of the request was read.
            self.keeps &= self.is_body_done() && !self.io.conn.closing.load(Relaxed);
            self.out = self.framing(head);
            self.keeps &= self.out != Outgoing::Close;
            head.remove_header(&header::CONNECTION);
        }
        let has_date = head.headers.contains_key(header::DATE);
        let out = self.io.gathers();
        // RFC 9112 §2.3: the version is the sender's own.
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(head.status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
        out.put_slice(b"\r\n");
        head.header_to_h1_wire(out);
        if is_final {
            if !has_date {
                // RFC 9110 §6.6.1.
                out.put_slice(b"Date: ");
                out.put_slice(get_cached_date().as_bytes());
                out.put_slice(b"\r\n");
            }
            out.put_slice(if self.keeps { b"Connection: keep-alive\r\n" } else { b"Connection: close\r\n" });
        }
        out.put_slice(b"\r\n");
        self.written = Some(head.status);
        // Of an answer whose length nobody knows each part may be waited for.
        self.is_urgent = !matches!(self.out, Outgoing::Length(_)) || !is_final;
        match is_final && self.out != Outgoing::Over {
            true => Ok(()),
            false => self.flush().await,
        }
    }

    fn framing(&self, head: &ResponseHeader) -> Outgoing {
        if self.request.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304) {
            return Outgoing::Over;
        }
        let of = |name| head.headers.get(name).map(|value: &HeaderValue| value.as_bytes());
        if of(header::TRANSFER_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
            return Outgoing::Chunked;
        }
        let length = of(header::CONTENT_LENGTH).and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
        match length {
            Some(0) => Outgoing::Over,
            Some(length) => Outgoing::Length(length),
            None => Outgoing::Close,
        }
    }

    /// Writes the next piece of the answer's body; with `is_end`, its last.
    pub(super) async fn write_body(&mut self, data: Bytes, is_end: bool) -> Result<()> {
        match &mut self.out {
            _ if data.is_empty() => {}
            Outgoing::Head | Outgoing::Over => {}
            Outgoing::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= n as u64;
                if *left == 0 {
                    self.out = Outgoing::Over;
                    self.is_urgent = true;
                }
                self.put(&data[..n]).await?;
                self.bytes_out += n as u64;
            }
            Outgoing::Chunked => {
                self.io.gathers().put_slice(format!("{:X}\r\n", data.len()).as_bytes());
                self.put(&data).await?;
                self.io.gathers().put_slice(b"\r\n");
                self.bytes_out += data.len() as u64;
                self.is_urgent = true;
            }
            Outgoing::Close => {
                self.put(&data).await?;
                self.bytes_out += data.len() as u64;
                self.is_urgent = true;
            }
        }
        match is_end {
            true => self.finish_body().await,
            false if self.is_urgent => self.flush().await,
            false => Ok(()),
        }
    }

    /// The answer is over.
    ///
    /// # Errors
    ///
    /// It is shorter than it was to be.
    pub(super) async fn finish_body(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.out, Outgoing::Over) {
            Outgoing::Chunked => self.io.gathers().put_slice(b"0\r\n\r\n"),
            Outgoing::Length(_) => {
                self.keeps = false;
                return Err(down(ErrorType::WriteError, "the answer is shorter than its Content-Length"));
            }
            Outgoing::Head => self.out = Outgoing::Head,
            Outgoing::Close | Outgoing::Over => {}
        }
        self.flush().await
    }

    /// Whether what was gathered should not wait for what comes next.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    async fn put(&mut self, data: &[u8]) -> Result<()> {
        self.io.write_all(data).await.map_err(|cause| broken(ErrorType::WriteError, "the answer", cause))
    }

    /// Sends what was gathered.
    pub(super) async fn flush(&mut self) -> Result<()> {
        self.is_urgent = false;
        let flushed = poll_fn(|cx| Pin::new(&mut *self.io).poll_flush(cx)).await;
        flushed.map_err(|cause| broken(ErrorType::WriteError, "the answer", cause))
    }

    /// The request was answered: its connection, if it serves another.
    pub(super) async fn finish(mut self) -> Option<Box<Io>> {
        self.finish_body().await.ok()?;
        if !self.keeps {
            // Whoever is gone already needs no goodbye.
            let _ = self.io.shutdown().await;
            return None;
        }
        self.drain().await.ok()?;
        Some(self.io)
    }
}

fn says_keep_alive(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONNECTION).map(HeaderValue::as_bytes).unwrap_or_default();
    value.split(|b| *b == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"keep-alive"))
}

#[cfg(test)]
mod tests;
