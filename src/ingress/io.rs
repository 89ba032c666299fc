//! A caller's connection: over a socket or TLS, with the gate in it.
//!
//! In HTTP/1 mode it hands out exactly one request at a time: its head by [`Io::poll_head`], its body framed as the head said, checked by
//! [`Chunks`]; behind its end, reads wait, and see only the caller's end of stream. What a caller sends ahead stays here.
//!
//! Answers are gathered until a flush: head and body of a small one leave in one write.

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{
    chunk::Chunks,
    conn::{self, Conn, Phase},
    frames::Frames,
    head::{self, BadHead, Framing, Head, HeadLimits, Look},
    pace::Pace,
    pool,
    request::Handed,
    secured, stall,
};

pub use self::as_stream::ConnOf;
pub use super::transport::Transport;

/// Where in the caller's bytes the gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// HTTP/2, or past a 101: bytes pass unseen.
    Open,
    /// A request was read to its end (or none was begun).
    Between,
    /// So many bytes of a body are left.
    Length(u64),
    Chunked(Chunks),
    /// The body's framing is broken: nothing more is handed out.
    Broken(&'static str),
}

/// What waiting for a head came to.
#[derive(Debug)]
pub enum Next {
    /// A head, in origin-form, ready for pingora's parser.
    Head(BytesMut, Head),
    Bad(BadHead),
    /// The caller closed, before a request or within its head.
    Closed,
    /// The phase that ran out of time.
    Overdue(Phase),
    Drained,
}

/// See the module.
pub struct Io {
    transport: Transport,
    pub conn: Arc<Conn>,
    gate: Gate,
    /// Of h2.
    frames: Option<Box<Frames>>,
    /// Read, and not handed out.
    inbox: BytesMut,
    /// How far `inbox` was searched for a head's end.
    searched: usize,
    /// To be written.
    outbox: BytesMut,
    /// What waits in `outbox` waited already when the task last came to rest.
    is_overdue: bool,
    saw_end: bool,
    /// The last read found nothing.
    is_dry: bool,
    /// Something was written since the present request's head.
    answered: bool,
    /// The present request is the connection's last: its caller wants it so.
    pub closes: bool,
    /// Of the present request's body and head, as they came.
    pub bytes_in: u64,
    head_bytes: u64,
    /// Of its answer, as they went.
    bytes_out: u64,
    pace: Pace,
    /// The present request, on its way to pingora.
    handed: Mutex<Option<Box<Handed>>>,
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("info", &self.conn.info).field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Io {
    pub fn http1(transport: Transport, conn: Arc<Conn>) -> Box<Self> {
        Self::new(transport, conn, Gate::Between, None)
    }

    pub fn http2(transport: Transport, conn: Arc<Conn>) -> Box<Self> {
        conn.is_h2.store(true, Relaxed);
        Self::new(transport, conn, Gate::Open, Some(Box::default()))
    }

    /// Bytes that nobody looks at.
    pub fn plain(transport: Transport, conn: Arc<Conn>) -> Box<Self> {
        Self::new(transport, conn, Gate::Open, None)
    }

    fn new(transport: Transport, conn: Arc<Conn>, gate: Gate, frames: Option<Box<Frames>>) -> Box<Self> {
        let pace = Pace::new(conn.timeouts.min_body_rate.filter(|_| frames.is_none()), conn.timeouts.body);
        Box::new(Self {
            transport,
            conn,
            gate,
            frames,
            inbox: BytesMut::new(),
            searched: 0,
            outbox: BytesMut::new(),
            is_overdue: false,
            saw_end: false,
            is_dry: false,
            answered: false,
            closes: false,
            bytes_in: 0,
            head_bytes: 0,
            bytes_out: 0,
            pace,
            handed: Mutex::default(),
        })
    }

    /// Bytes read before this IO was made.
    pub fn with_inbox(mut self: Box<Self>, bytes: BytesMut) -> Box<Self> {
        self.inbox = bytes;
        self
    }

    /// Goes along with the present request.
    pub(super) fn hand(&self, handed: Box<Handed>) {
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner) = Some(handed);
    }

    pub(super) fn take_handed(&self) -> Option<Box<Handed>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the present request's body was read to its end.
    pub fn request_is_read(&self) -> bool {
        matches!(self.gate, Gate::Between | Gate::Open)
    }

    /// What is wrong with the present request's body, where something is.
    pub fn broken(&self) -> Option<&'static str> {
        match self.gate {
            Gate::Broken(what) => Some(what),
            _ => None,
        }
    }

    /// When this IO is dropped, its transport stays with the connection, to be closed gently.
    pub fn keep_for_linger(&mut self) {
        let transport = std::mem::replace(&mut self.transport, Transport::Gone);
        self.conn.leave(transport);
    }

    /// Waits for the next head, in the caller's idle and header time.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, limits: &HeadLimits) -> Poll<Next> {
        loop {
            if !self.inbox.is_empty() {
                match head::look(&self.inbox, self.searched, limits) {
                    Look::Head(head) if head.is_https && !secured::may_be(&self.conn) => {
                        self.conn.begin(Phase::None);
                        return Poll::Ready(Next::Bad(secured::IS_NOT));
                    }
                    Look::Head(head) => {
                        self.conn.request_begins();
                        return Poll::Ready(Next::Head(self.take_head(&head), head));
                    }
                    Look::Bad(bad) => {
                        self.conn.begin(Phase::None);
                        return Poll::Ready(Next::Bad(bad));
                    }
                    Look::Partial(searched) => {
                        self.searched = searched;
                        if self.conn.phase() != Phase::Header {
                            self.conn.begin(Phase::Header);
                        }
                    }
                }
            } else if !matches!(self.conn.phase(), Phase::Idle | Phase::First) {
                let first = self.conn.phase() == Phase::Handshake;
                self.conn.begin(if first { Phase::First } else { Phase::Idle });
                // `drain` may have run while this connection was busy.
                if self.conn.closing.load(Relaxed) {
                    if !first {
                        return Poll::Ready(Next::Drained);
                    }
                    self.conn.hurry();
                }
            }
            if self.saw_end {
                return Poll::Ready(Next::Closed);
            }
            match self.poll_more(cx) {
                Poll::Ready(Ok(0)) => self.saw_end = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Next::Closed),
                Poll::Pending => {
                    return match self.conn.ended() {
                        Some(conn::Ended::Overdue(phase)) => Poll::Ready(Next::Overdue(phase)),
                        Some(_) => Poll::Ready(Next::Drained),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }

    /// What there is of the head that is being waited for: for the log.
    pub fn inbox(&self) -> &[u8] {
        &self.inbox
    }

    /// Reads into the inbox.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() == 0 {
            self.inbox = pool::take();
        }
        let read = self.transport.poll_read_buf(cx, &mut self.inbox);
        self.is_dry = read.is_pending();
        if read.is_pending() {
            self.conn.register(cx.waker());
            if self.inbox.is_empty() {
                pool::give(&mut self.inbox);
            }
        }
        read
    }

    /// Cuts the head out of the inbox, absolute-form rewritten to origin-form (RFC 9112 §3.2.1), and sets the gate.
    fn take_head(&mut self, head: &Head) -> BytesMut {
        let bytes = &self.inbox[head.start..head.end];
        let mut own = BytesMut::with_capacity(bytes.len() + 1);
        match &head.absolute {
            None => own.extend_from_slice(bytes),
            Some(cut) => {
                own.extend_from_slice(&self.inbox[head.start..cut.start]);
                if self.inbox[cut.end] != b'/' {
                    // RFC 9112 §3.2.4: OPTIONS without a path asks the server itself.
                    let is_options = own.starts_with(b"OPTIONS ") && self.inbox[cut.end] == b' ';
                    own.extend_from_slice(if is_options { b"*" } else { b"/" });
                }
                own.extend_from_slice(&self.inbox[cut.end..head.end]);
            }
        }
        if let Some(host) = &head.authority {
            // Before the empty line.
            own.truncate(own.len() - 2);
            for part in [b"Host: ", &self.inbox[host.clone()], b"\r\n\r\n"] {
                own.extend_from_slice(part);
            }
        }
        self.head_bytes = bytes.len() as u64;
        (self.bytes_in, self.bytes_out) = (self.head_bytes, 0);
        self.pace.begin();
        self.answered = false;
        self.closes = head.closes;
        self.inbox.advance(head.end);
        self.searched = 0;
        if self.inbox.is_empty() {
            pool::give(&mut self.inbox);
        }
        self.gate = match head.framing {
            Framing::None => Gate::Between,
            Framing::Length(n) => Gate::Length(n),
            Framing::Chunked => Gate::Chunked(Chunks::new()),
        };
        own
    }

    /// The next bytes of the body, framed as they came, into an empty `buf`; none: its caller has ended before it did.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        if self.inbox.is_empty() || self.request_is_read() {
            // The future holds nothing between polls: it may be made anew for each.
            return pin!(self.read_buf(buf)).poll(cx);
        }
        self.poll_rest(cx)?;
        if let Some(error) = self.overdue() {
            return Poll::Ready(Err(error));
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        let passed = self.pass(&inbox);
        if let Ok(n) = passed {
            if n == inbox.len() {
                // All that is here: its buffer goes along.
                std::mem::swap(buf, &mut inbox);
            } else {
                buf.extend_from_slice(&inbox[..n]);
                inbox.advance(n);
            }
        }
        if inbox.is_empty() {
            pool::give(&mut inbox);
        }
        self.inbox = inbox;
        Poll::Ready(passed)
    }

    /// Where the head of an answer is to be written, to go out with what is written next.
    pub fn gathers(&mut self) -> &mut BytesMut {
        self.answers();
        if self.outbox.capacity() == 0 {
            self.outbox = pool::take();
        }
        &mut self.outbox
    }

    /// Something of an answer is to go out.
    fn answers(&mut self) {
        if !self.answered {
            self.answered = true;
            self.conn.is_answered();
        }
        self.conn.moved();
    }

    /// Lets bytes of the body pass: says how many of these belong to it.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = match &mut self.gate {
            Gate::Open => bytes.len(),
            Gate::Between | Gate::Broken(_) => 0,
            Gate::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= n as u64;
                if *left == 0 {
                    self.gate = Gate::Between;
                }
                n
            }
            Gate::Chunked(chunks) => match chunks.take(bytes) {
                Ok(n) => {
                    if chunks.is_done() {
                        self.gate = Gate::Between;
                    }
                    n
                }
                Err(bad) => {
                    self.gate = Gate::Broken(bad.0);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, bad.0));
                }
            },
        };
        self.bytes_in += n as u64;
        self.conn.moved();
        if self.gate == Gate::Between {
            self.conn.upload_ends();
        }
        Ok(n)
    }

    /// Behind a request's end: looks for the end of the stream alone. What else comes stays in the inbox, up to a buffer's
    /// size; past that the caller's bytes stay in its socket.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_rest(cx)?;
        loop {
            if let Some(error) = self.overdue() {
                return Poll::Ready(Err(error));
            }
            if self.saw_end {
                return Poll::Ready(Ok(()));
            }
            if self.inbox.len() >= pool::SIZE / 2 {
                self.conn.register(cx.waker());
                return Poll::Pending;
            }
            // A TLS stream that was read dry has nothing before its socket has: asking it costs more than the rest here.
            if let (true, Transport::Tls(tls)) = (self.is_dry, &self.transport)
                && tls.get_ref().0.is_quiet(cx)
            {
                self.conn.register(cx.waker());
                return Poll::Pending;
            }
            // Almost always nothing comes: no buffer is taken for that.
            let mut little = [MaybeUninit::uninit(); 512];
            let mut buf = ReadBuf::uninit(&mut little);
            let read = self.transport.poll_read(cx, &mut buf);
            self.is_dry = read.is_pending();
            if self.is_dry {
                self.conn.register(cx.waker());
            }
            ready!(read)?;
            if buf.filled().is_empty() {
                self.ends(cx)?;
            } else {
                if self.inbox.capacity() == 0 {
                    self.inbox = pool::take();
                }
                self.inbox.extend_from_slice(buf.filled());
            }
        }
    }

    /// Lets frames of h2 pass, unless they are too much of nothing: then the connection's loop ends it.
    fn pass_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, before: usize) -> Poll<io::Result<()>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(Ok(())) };
        if self.conn.h2.is_flooded.load(Relaxed)
            || frames.take(&buf.filled()[before..], &self.conn.h2, conn::coarse_ms()).is_err()
        {
            self.conn.h2.is_flooded.store(true, Relaxed);
            self.conn.register(cx.waker());
            buf.set_filled(before);
            return Poll::Pending;
        }
        self.conn.frame_is_midway(frames.is_midway());
        if frames.is_settled() && self.conn.phase() == Phase::Handshake {
            self.conn.begin(Phase::Idle);
            if self.conn.closing.load(Relaxed) {
                self.conn.hurry();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn overdue(&self) -> Option<io::Error> {
        self.conn.ended().map(|ended| io::Error::new(io::ErrorKind::TimedOut, format!("{ended:?}")))
    }

    fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            match self.transport.poll_write(cx, &[IoSlice::new(&self.outbox)]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.went_on(Phase::Write);
                    self.bytes_out += n as u64;
                    self.outbox.advance(n);
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return self.write_waits(cx),
            }
        }
        pool::give(&mut self.outbox);
        self.is_overdue = false;
        self.conn.h2.is_blocked.store(false, Relaxed);
        Poll::Ready(Ok(()))
    }

    /// The task waits for the caller, and so for the function as well: what it gathered goes out, for pingora flushes a body
    /// with a length at its end only. Not at the first wait: most often the rest of the answer is here a moment later.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        if !std::mem::replace(&mut self.is_overdue, true) {
            cx.waker().wake_by_ref();
            return Ok(());
        }
        self.send_on(cx)
    }

    /// The caller's end was read. Nobody reads any more, so that nothing else would send what was gathered before there is a lot of it.
    fn ends(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.saw_end = true;
        self.send_on(cx)
    }

    /// As much of what was gathered as its caller takes now.
    fn send_on(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_outbox(cx) {
            Poll::Ready(done) => done,
            Poll::Pending => Ok(()),
        }
    }

    fn write_waits<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.conn.register(cx.waker());
        self.conn.h2.is_blocked.store(true, Relaxed);
        if let Some(error) = self.overdue() {
            return Poll::Ready(Err(error));
        }
        self.waits(Phase::Write);
        if self.gate == Gate::Between {
            self.conn.caller_is_slow();
            if stall::is_full(&self.conn, cx, |cx| self.transport.poll_room(cx)).is_ready() {
                // Room by now: the next turn sees it.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn waits(&mut self, phase: Phase) {
        let (pace, moved) = (&mut self.pace, self.bytes_in + self.bytes_out);
        // Past a 101 and in h2 whoever has nothing to say says nothing.
        // Who sent nothing of its body yet may wait for a 100 (Continue).
        let is_paced = self.gate != Gate::Open && (phase == Phase::Write || self.bytes_in > self.head_bytes);
        self.conn.waits(phase, |now| if is_paced { pace.waits(now, moved) } else { None });
    }

    fn went_on(&mut self, phase: Phase) {
        if self.conn.goes_on(phase) {
            self.pace.goes_on(conn::coarse_ms());
            // From now on it may be the function that is waited for.
            self.conn.moved();
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // It had to be dropped without an answer: there is one to come (`Conn::last_words`).
        let is_dropped = !self.answered && self.conn.ended() == Some(conn::Ended::Stuck);
        // Or one went out, and not all that the caller sent was read: see `linger`.
        let is_unread = !(self.request_is_read() && self.inbox.is_empty()) || self.conn.h2.lingers.load(Relaxed);
        if is_dropped || self.answered && !self.saw_end && is_unread {
            self.keep_for_linger();
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.conn.tunnel.load(Relaxed) {
            this.gate = Gate::Open;
        }
        if this.conn.is_held.load(Relaxed) {
            return this.poll_end(cx);
        }
        match this.gate {
            Gate::Between => return this.poll_end(cx),
            Gate::Broken(what) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what))),
            _ => {}
        }
        this.poll_rest(cx)?;
        if let Some(error) = this.overdue() {
            return Poll::Ready(Err(error));
        }
        if !this.inbox.is_empty() {
            let mut inbox = std::mem::take(&mut this.inbox);
            let n = inbox.len().min(buf.remaining());
            let passed = this.pass(&inbox[..n]);
            // What is behind the body's end stays: it is the next request's.
            if let Ok(passed) = passed {
                buf.put_slice(&inbox[..passed]);
                inbox.advance(passed);
            }
            this.inbox = inbox;
            if this.inbox.is_empty() {
                pool::give(&mut this.inbox);
            }
            passed?;
            return Poll::Ready(Ok(()));
        }
        if this.saw_end {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = this.transport.poll_read(cx, buf);
        this.is_dry = read.is_pending();
        match read {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Pending => {
                this.conn.register(cx.waker());
                if this.gate != Gate::Open {
                    this.waits(Phase::Body);
                    this.conn.caller_is_slow();
                }
                return Poll::Pending;
            }
        }
        this.went_on(Phase::Body);
        if buf.filled().len() == before {
            return Poll::Ready(this.ends(cx));
        }
        if this.frames.is_some() {
            return this.pass_frames(cx, buf, before);
        }
        let passed = this.pass(&buf.filled()[before..])?;
        let rest = &buf.filled()[before + passed..];
        if !rest.is_empty() {
            let mut inbox = pool::take();
            inbox.extend_from_slice(rest);
            this.inbox = inbox;
            buf.set_filled(before + passed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.answers();
        this.conn.stall.goes_out(this.bytes_out, buf.len());
        if this.outbox.len() + buf.len() <= pool::SIZE {
            this.gathers().extend_from_slice(buf);
            if this.saw_end {
                // As `ends` says.
                this.send_on(cx)?;
            }
            return Poll::Ready(Ok(buf.len()));
        }
        // Large: written from where it lies, behind what waits.
        let waiting = this.outbox.len();
        match this.transport.poll_write(cx, &[IoSlice::new(&this.outbox), IoSlice::new(buf)]) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(n)) => {
                this.went_on(Phase::Write);
                this.bytes_out += n as u64;
                if n < waiting {
                    this.outbox.advance(n);
                    // Nothing of `buf` is gone yet: wait for the rest of what came before it.
                    ready!(this.poll_outbox(cx))?;
                    return Pin::new(this).poll_write(cx, buf);
                }
                pool::give(&mut this.outbox);
                if n == waiting {
                    return Pin::new(this).poll_write(cx, buf);
                }
                Poll::Ready(Ok(n - waiting))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => this.write_waits(cx),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_outbox(cx))?;
        match this.transport.poll_flush(cx) {
            Poll::Ready(done) => {
                this.went_on(Phase::Write);
                Poll::Ready(done)
            }
            Poll::Pending => this.write_waits(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_outbox(cx))?;
        match this.transport.poll_shutdown(cx) {
            Poll::Pending => this.write_waits(cx),
            done => done,
        }
    }
}

mod as_stream;
#[cfg(test)]
mod tests;
