//! A message from one side to the other: its head, then exactly as many bytes as its framing says.

use std::{
    borrow::Cow,
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::conn::Conn;
use crate::{
    decide::{
        egress::{Direction, Ticket},
        http1::{chunk::Chunks, head::Framing},
    },
    observe::clock::now,
};

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client is gone.
    Client,
    /// The client's body is malformed.
    Request,
    /// The origin is gone, or its answer malformed.
    Origin,
    /// The origin is a parent proxy that does not know gatepost.
    Parent,
}

/// What broke a message off.
#[derive(Debug)]
pub struct Fault(pub Side, pub Cow<'static, str>);

impl Fault {
    /// As of an answer, on whose way the sides have changed places.
    pub fn turned(self) -> Self {
        let side = match self.0 {
            Side::Client | Side::Request => Side::Origin,
            Side::Origin => Side::Client,
            Side::Parent => Side::Parent,
        };
        Self(side, self.1)
    }
}

const BUFFER: usize = 16 * 1024;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

enum Left {
    Bytes(u64),
    Chunks(Chunks),
    /// The same, of which the data alone is passed on.
    Unchunked(Chunks),
    /// To the end of the connection.
    Rest,
    Nothing,
    /// Nobody takes what is left.
    Lost,
}

/// A message on its way.
pub struct Pass {
    left: Left,
    /// To be written before anything else is read.
    held: Vec<u8>,
    at: usize,
    /// Read already: of this message, or behind it.
    over: BytesMut,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pass {
    pub fn new(framing: Framing, head: Vec<u8>) -> Self {
        Self::over_read(framing, head, BytesMut::new())
    }

    /// One of whose body something was read with its head.
    pub fn over_read(framing: Framing, head: Vec<u8>, over: BytesMut) -> Self {
        let left = match framing {
            Framing::None => Left::Nothing,
            Framing::Length(n) => Left::Bytes(n),
            Framing::Chunked => Left::Chunks(Chunks::new()),
        };
        Self { left, held: head, at: 0, over, pause: None }
    }

    /// One that comes in chunks, and goes on without them, to the end of its connection.
    pub fn unchunked(head: Vec<u8>, over: BytesMut) -> Self {
        Self { left: Left::Unchunked(Chunks::new()), held: head, at: 0, over, pause: None }
    }

    /// One that ends with its connection.
    pub fn to_end(head: Vec<u8>, over: BytesMut) -> Self {
        Self { left: Left::Rest, held: head, at: 0, over, pause: None }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.left, Left::Nothing) && self.at == self.held.len()
    }

    /// Nobody takes the rest: it counts as not sent.
    pub fn give_up(&mut self) {
        (self.held, self.at, self.left) = (Vec::new(), 0, Left::Lost);
    }

    /// What was read behind this message.
    pub fn take_over(&mut self) -> BytesMut {
        std::mem::take(&mut self.over)
    }

    /// Moves what can be moved. `inbox` is read first, and gets what was read too far.
    #[expect(clippy::too_many_arguments, reason = "both sides, what counts and what bounds: all of them others'")]
    pub fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        inbox: &mut BytesMut,
        count: &AtomicU64,
        conn: &Conn,
        ticket: Option<&Ticket>,
        direction: Direction,
    ) -> Poll<Result<(), Fault>> {
        let to_gone = |e: io::Error| Fault(Side::Origin, e.to_string().into());
        if matches!(self.left, Left::Lost) {
            return Poll::Pending;
        }
        if !matches!(self.left, Left::Nothing) && !inbox.is_empty() && self.over.is_empty() {
            std::mem::swap(&mut self.over, inbox);
        }
        loop {
            if self.at < self.held.len() {
                match ready!(Pin::new(&mut *to).poll_write(cx, &self.held[self.at..])).map_err(to_gone)? {
                    0 => return Poll::Ready(Err(Fault(Side::Origin, "it takes nothing more".into()))),
                    n => self.at += n,
                }
                conn.moved();
                if self.at == self.held.len() {
                    (self.held, self.at) = (Vec::new(), 0);
                }
                continue;
            }
            if matches!(self.left, Left::Nothing) {
                if !self.over.is_empty() && inbox.is_empty() && direction == Direction::Up {
                    std::mem::swap(&mut self.over, inbox);
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let n = if self.over.is_empty() {
                SHARED.with_borrow_mut(|shared| {
                    let mut buffer = ReadBuf::new(&mut shared[..]);
                    match ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer)) {
                        Ok(()) if buffer.filled().is_empty() => Poll::Ready(self.end()),
                        Ok(()) => Poll::Ready(self.take(buffer.filled())),
                        Err(e) => Poll::Ready(Err(Fault(Side::Client, e.to_string().into()))),
                    }
                })
            } else {
                let over = std::mem::take(&mut self.over);
                Poll::Ready(self.take(&over))
            };
            let Poll::Ready(n) = n else {
                // What TLS has made of earlier bytes.
                let _ = Pin::new(&mut *to).poll_flush(cx).map_err(to_gone)?;
                return Poll::Pending;
            };
            let n = n?;
            conn.moved();
            count.fetch_add(n as u64, Relaxed);
            if let Some(ticket) = ticket {
                let wait = ticket.pay(n as u64, direction, now());
                conn.pauses(now(), wait);
                self.pause = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
            }
        }
    }

    /// Takes in bytes that were read: those of this message are held to be written, the others kept apart.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let n = match &mut self.left {
            Left::Bytes(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= n as u64;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
                n
            }
            Left::Chunks(chunks) => {
                let n = chunks.take(bytes).map_err(|bad| Fault(Side::Request, bad.0.into()))?;
                if chunks.is_done() {
                    self.left = Left::Nothing;
                }
                n
            }
            Left::Unchunked(chunks) => {
                let mut at = 0;
                loop {
                    let found = chunks.next(&bytes[at..]);
                    let (framing, data) = found.map_err(|bad| Fault(Side::Request, bad.0.into()))?;
                    let from = at + framing;
                    at = from + data;
                    self.held.extend_from_slice(&bytes[from..at]);
                    if data == 0 {
                        break;
                    }
                }
                if chunks.is_done() {
                    self.left = Left::Nothing;
                }
                self.over.extend_from_slice(&bytes[at..]);
                return Ok(at);
            }
            Left::Rest => bytes.len(),
            Left::Nothing | Left::Lost => 0,
        };
        self.held.extend_from_slice(&bytes[..n]);
        self.over.extend_from_slice(&bytes[n..]);
        Ok(n)
    }

    /// The side that sends has ended.
    fn end(&mut self) -> Result<usize, Fault> {
        match self.left {
            Left::Rest => {
                self.left = Left::Nothing;
                Ok(0)
            }
            _ => Err(Fault(Side::Client, "the message broke off".into())),
        }
    }
}
