//! A request on its way to a function over HTTP/1.1: its head, then its body as it comes, framed anew.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header;
use pingora_core::protocols::Stream;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tokio::io::AsyncWrite;

use crate::ingress::pool;

/// How the function is told where the body ends (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are to come.
    Length(u64),
    Chunked,
}

/// What is left to be sent.
#[derive(Debug)]
pub struct Upload {
    /// Goes out first: the head, what frames a piece, a small piece.
    out: BytesMut,
    /// A larger one, from where it lies; and what closes it.
    piece: Bytes,
    behind: &'static [u8],
    framing: Framing,
    /// All of the body is here.
    is_whole: bool,
    is_flushed: bool,
    /// The function takes no more.
    broken: Option<io::Error>,
}

impl Upload {
    /// A request whose body is still to come, if it `has_body`.
    pub fn new(head: &RequestHeader, has_body: bool) -> Self {
        let mut out = pool::take();
        out.put_slice(head.method.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(head.raw_path());
        out.put_slice(b" HTTP/1.1\r\n");
        head.header_to_h1_wire(&mut out);
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let is_chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
        let framing = match length {
            Some(length) if !is_chunked => Framing::Length(length),
            None if !has_body && !is_chunked => Framing::Length(0),
            _ => Framing::Chunked,
        };
        if framing == Framing::Chunked && !is_chunked {
            out.put_slice(b"transfer-encoding: chunked\r\n");
        }
        out.put_slice(b"\r\n");
        Self { out, piece: Bytes::new(), behind: b"", framing, is_whole: false, is_flushed: false, broken: None }
    }

    /// The next piece of the body; to be called when nothing [waits](Self::waits).
    ///
    /// # Errors
    ///
    /// The body is not as long as was said: the function would take the next request for its rest.
    pub fn push(&mut self, piece: Bytes, is_end: bool) -> Result<()> {
        self.is_whole = is_end;
        if self.broken.is_some() {
            return Ok(());
        }
        self.is_flushed = false;
        match &mut self.framing {
            Framing::Length(left) => {
                let rest = left.checked_sub(piece.len() as u64).filter(|rest| *rest == 0 || !is_end);
                *left = rest.ok_or_else(|| {
                    Error::explain(ErrorType::ReadError, "the body is not as long as its Content-Length").into_down()
                })?;
                self.put(piece, b"");
            }
            Framing::Chunked if piece.is_empty() => {
                if is_end {
                    self.out.put_slice(b"0\r\n\r\n");
                }
            }
            Framing::Chunked => {
                self.out.put_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                self.put(piece, if is_end { b"\r\n0\r\n\r\n" } else { b"\r\n" });
            }
        }
        Ok(())
    }

    fn put(&mut self, piece: Bytes, behind: &'static [u8]) {
        if self.out.len() + piece.len() + behind.len() <= pool::SIZE {
            self.out.put_slice(&piece);
            self.out.put_slice(behind);
        } else {
            (self.piece, self.behind) = (piece, behind);
        }
    }

    /// Whether something is to be sent that is here.
    pub fn waits(&self) -> bool {
        !self.is_flushed && self.broken.is_none()
    }

    /// Whether all of the body is here, or nobody wants the rest.
    pub fn is_whole(&self) -> bool {
        self.is_whole || self.broken.is_some()
    }

    /// Whether all of the request was sent.
    pub fn is_sent(&self) -> bool {
        self.is_whole && self.is_flushed && self.broken.is_none()
    }

    /// Why it could not be sent.
    pub fn take_broken(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// Sends what is here.
    pub fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<()> {
        if self.waits() {
            match ready!(self.poll_send(cx, stream)) {
                Ok(()) => self.is_flushed = true,
                Err(error) => {
                    self.broken = Some(error);
                    (self.piece, self.behind) = (Bytes::new(), b"");
                }
            }
            pool::give(&mut self.out);
        }
        Poll::Ready(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        loop {
            let next = if self.out.has_remaining() { &self.out[..] } else { &self.piece[..] };
            if next.is_empty() {
                if self.behind.is_empty() {
                    return Pin::new(stream).poll_flush(cx);
                }
                self.out.put_slice(std::mem::take(&mut self.behind));
                continue;
            }
            match ready!(Pin::new(&mut *stream).poll_write(cx, next))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n if self.out.has_remaining() => self.out.advance(n),
                n => self.piece.advance(n),
            }
        }
    }
}

#[cfg(test)]
mod tests;
