//! Bytes from one side of a tunnel to the other, until both have ended.
//!
//! A tunnel that waits has no buffer: bytes are read into one that the worker's tunnels share, and written from there. What the other
//! side doesn't take at once is kept, and until it is taken nothing more is read. Long transfers between plain sockets go through a pipe
//! instead ([`splice`]).

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    conn::{Conn, End},
    splice::{self, Pipe, Read},
};
use crate::{
    decide::egress::{Direction, Ticket},
    observe::clock::now,
};

/// What is read at once.
const BUFFER: usize = 64 * 1024;
/// The same where bytes are paid for: small enough that nobody waits long for one piece.
const PACED: usize = 8 * 1024;

/// A direction that has moved so much may go on through a pipe,
const LONG: u64 = 1024 * 1024;
/// while its reads give so much: for less than half of it copying costs less.
const LARGE: usize = 16 * 1024;
/// Reads through a pipe until others have their turn.
const TURNS: usize = 16;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Bytes that went through.
#[derive(Debug, Default)]
pub struct Moved {
    /// From the client.
    pub sent: AtomicU64,
    /// To the client.
    pub received: AtomicU64,
}

/// How a tunnel ended.
#[derive(Debug)]
pub enum Ended {
    /// Both sides said so.
    Well,
    /// One broke off.
    Broken,
    By(End),
}

/// One direction.
#[derive(Default)]
struct Way {
    held: Vec<u8>,
    at: usize,
    /// The same, of what is read through a pipe.
    pipe: Option<Pipe>,
    /// The last read gave much.
    is_large: bool,
    state: State,
    /// Until the bytes so far are paid for.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The reader has said its last.
    Ending,
    Done,
}

/// A connection's side of a tunnel.
pub trait Side: AsyncRead + AsyncWrite + Unpin + Send {
    /// The socket, where its bytes are those of the tunnel.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl Side for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Side for tokio::net::UnixStream {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Side for tokio_rustls::server::TlsStream<T> {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Side for tokio_rustls::client::TlsStream<T> {}
#[cfg(test)]
impl Side for tokio::io::DuplexStream {}

/// Moves bytes until both sides have ended, one of them broke off, or the connection's bounds are reached. `closes`: both are plain sockets that
/// the caller closes at once, which says the last goodbye as well as a shutdown would.
pub async fn relay<C: Side + ?Sized, U: Side + ?Sized>(
    client: &mut C,
    upstream: &mut U,
    conn: &Conn,
    moved: &Moved,
    ticket: Option<&Ticket>,
    closes: bool,
) -> Ended {
    let (mut there, mut back) = (Way::default(), Way::default());
    poll_fn(|cx| {
        let bounds = Bounds { conn, ticket: ticket.filter(|ticket| ticket.is_paced()) };
        let is_last = closes && back.state == State::Done;
        let one = there.poll(cx, client, upstream, &moved.sent, &bounds, Direction::Up, is_last);
        let is_last = closes && there.state == State::Done;
        let two = back.poll(cx, upstream, client, &moved.received, &bounds, Direction::Down, is_last);
        match (one, two) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(Ended::Broken),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ended::Well),
            _ => {}
        }
        conn.register(cx.waker());
        match conn.ended() {
            // A drain lets tunnels end by themselves.
            None | Some(End::Drain) => Poll::Pending,
            Some(end) => Poll::Ready(Ended::By(end)),
        }
    })
    .await
}

struct Bounds<'b> {
    conn: &'b Conn,
    ticket: Option<&'b Ticket>,
}

impl Way {
    #[expect(clippy::too_many_arguments, reason = "both sides, what counts and what bounds: all of them others'")]
    fn poll<R: Side + ?Sized, W: Side + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &AtomicU64,
        bounds: &Bounds<'_>,
        direction: Direction,
        is_last: bool,
    ) -> Poll<io::Result<()>> {
        let mut turns = 0;
        loop {
            if let (Some(pipe), Some(to)) = (&mut self.pipe, to.plain()) {
                ready!(pipe.drain(cx, to, || bounds.conn.moved()))?;
                if let Some(empty) = self.pipe.take() {
                    splice::give_back(empty);
                }
                continue;
            }
            if self.at < self.held.len() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.held[self.at..]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                bounds.conn.moved();
                self.at += n;
                if self.at == self.held.len() {
                    (self.held, self.at) = (Vec::new(), 0);
                }
                continue;
            }
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ending if is_last => self.state = State::Done,
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Done;
                }
                State::Open => {
                    if let Some(pause) = &mut self.pause {
                        ready!(pause.as_mut().poll(cx));
                        self.pause = None;
                    }
                    if self.is_large
                        && bounds.ticket.is_none()
                        && count.load(Relaxed) >= LONG
                        && let (Some(from), Some(_)) = (from.plain(), to.plain())
                    {
                        if turns == TURNS {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        turns += 1;
                        ready!(from.poll_read_ready(cx))?;
                        match splice::read(from)? {
                            Read::Bytes(pipe, n) => {
                                self.pipe = Some(pipe);
                                self.is_large = n >= LARGE;
                                bounds.conn.moved();
                                count.fetch_add(n as u64, Relaxed);
                                continue;
                            }
                            Read::End => {
                                self.state = State::Ending;
                                continue;
                            }
                            Read::Not => {}
                        }
                    }
                    let most = if bounds.ticket.is_some() { PACED } else { BUFFER };
                    let n = SHARED.with_borrow_mut(|shared| self.turn(cx, from, to, &mut shared[..most]))?;
                    let Poll::Ready(n) = n else {
                        // What a TLS side has made of earlier bytes.
                        let _ = Pin::new(&mut *to).poll_flush(cx)?;
                        return Poll::Pending;
                    };
                    if n == 0 {
                        self.state = State::Ending;
                        continue;
                    }
                    self.is_large = n >= LARGE;
                    bounds.conn.moved();
                    count.fetch_add(n as u64, Relaxed);
                    if let Some(ticket) = bounds.ticket {
                        let wait = ticket.pay(n as u64, direction, now());
                        bounds.conn.pauses(now(), wait);
                        self.pause = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
                    }
                }
            }
        }
    }

    /// Reads once, and writes what that gave; keeps what is not taken.
    fn turn<R: Side + ?Sized, W: Side + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        shared: &mut [u8],
    ) -> io::Result<Poll<usize>> {
        let mut buffer = ReadBuf::new(shared);
        if Pin::new(from).poll_read(cx, &mut buffer)?.is_pending() {
            return Ok(Poll::Pending);
        }
        let read = buffer.filled();
        if read.is_empty() {
            return Ok(Poll::Ready(0));
        }
        let written = match Pin::new(to).poll_write(cx, read)? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(n) => n,
            Poll::Pending => 0,
        };
        if written < read.len() {
            self.held = read[written..].to_vec();
        }
        Ok(Poll::Ready(read.len()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::decide::Now;

    #[tokio::test]
    async fn bytes_go_both_ways_and_each_side_may_end_first() {
        let (mut caller, mut client) = duplex(100);
        let (mut origin, mut upstream) = duplex(100);
        let (conn, moved) = (Conn::new(0, Now(1)), Arc::new(Moved::default()));
        let counted = moved.clone();
        let tunnel = tokio::spawn(async move { relay(&mut client, &mut upstream, &conn, &moved, None, false).await });
        let sent = vec![7; 200_000];
        let speak = async {
            caller.write_all(&sent).await.unwrap();
            caller.shutdown().await.unwrap();
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let listen = async {
            let mut got = Vec::new();
            origin.read_to_end(&mut got).await.unwrap();
            // The other side has ended; this one has not.
            origin.write_all(b"after the end").await.unwrap();
            origin.shutdown().await.unwrap();
            got.len()
        };
        let (answer, got) = tokio::join!(speak, listen);
        assert_eq!((answer.as_str(), got), ("after the end", 200_000));
        assert!(matches!(tunnel.await.unwrap(), Ended::Well));
        assert_eq!((counted.sent.load(Relaxed), counted.received.load(Relaxed)), (200_000, 13));
    }
}
