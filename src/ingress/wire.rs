//! A socket as the connection's task owns it: bounded by the sweeper, with bytes that were read ahead.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! socket {
    ($self:expr, $s:ident => $e:expr) => {
        match $self {
            Socket::Tcp($s) => $e,
            Socket::Unix($s) => $e,
        }
    };
}

/// What TLS or HTTP reads from and writes to.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    /// Read behind a PROXY header: comes first. Without allocation when empty.
    ahead: BytesMut,
}

impl Wire {
    pub fn new(socket: Socket) -> Self {
        Self { socket, ahead: BytesMut::new() }
    }

    /// Whether a read would have nothing to take now; if so, the task is woken when that changes.
    pub fn is_quiet(&self, cx: &mut Context<'_>) -> bool {
        self.ahead.is_empty() && socket!(&self.socket, s => s.poll_read_ready(cx)).is_pending()
    }

    /// Whether a write would go on now; if not, the waker hears when it would.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        // A socket that is broken says so to whoever writes.
        socket!(&self.socket, s => s.poll_write_ready(cx)).map(|_| ())
    }

    /// The socket, and what was read ahead.
    pub fn into_parts(self) -> (Socket, BytesMut) {
        (self.socket, self.ahead)
    }

    /// Small pieces are sent at once.
    pub fn hurry(&self) {
        if let Socket::Tcp(socket) = &self.socket {
            // It may be gone already; then the next read says so.
            let _ = socket.set_nodelay(true);
        }
    }

    /// Puts bytes back that were read too far.
    pub fn unread(&mut self, bytes: BytesMut) {
        self.ahead = bytes;
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..n]);
            self.ahead.advance(n);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        socket!(&mut self.socket, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        socket!(&mut self.socket, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        socket!(&mut self.socket, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        socket!(&mut self.socket, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        socket!(&mut self.socket, s => Pin::new(s).poll_shutdown(cx))
    }
}
