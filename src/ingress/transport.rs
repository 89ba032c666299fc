//! What a caller's bytes come over: its socket, or TLS on it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::wire::Wire;

/// What the bytes come over.
#[derive(Debug)]
pub enum Transport {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
    /// Given away.
    Gone,
}

impl Transport {
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = match self {
            Self::Plain(wire) => Pin::new(wire).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Gone => Poll::Ready(Ok(())),
        };
        self.gone_if_broken(&read);
        read
    }

    /// A TLS stream that broke the protocol has had its fatal alert (RFC 8446 §6.2: and is closed without delay). rustls
    /// must not be asked again.
    fn gone_if_broken<T>(&mut self, read: &Poll<io::Result<T>>) {
        if matches!(read, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData) {
            *self = Self::Gone;
        }
    }

    pub fn poll_read_buf(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        // The future holds nothing between polls: it may be made anew for each.
        let read = match self {
            Self::Plain(wire) => Pin::new(&mut std::pin::pin!(wire.read_buf(buf))).poll(cx),
            Self::Tls(tls) => Pin::new(&mut std::pin::pin!(tls.read_buf(buf))).poll(cx),
            Self::Gone => Poll::Ready(Ok(0)),
        };
        self.gone_if_broken(&read);
        read
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(wire) => Pin::new(wire).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Self::Gone => Poll::Ready(Ok(0)),
        }
    }

    /// Whether the socket takes more now; if not, the waker hears when it does.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(wire) => wire.poll_room(cx),
            Self::Tls(tls) => tls.get_ref().0.poll_room(cx),
            Self::Gone => Poll::Ready(()),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}
