//! What a connection's task, its IO, pingora's phases and the worker's sweeper share about one downstream connection.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};

use atomic_waker::AtomicWaker;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;

use super::{io::Transport, stall::Stall};
use crate::{
    config::model::ListenerTimeouts,
    decide::{ClientCertificate, Now},
};

/// What a connection waits for: what its deadline is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing that is bounded here.
    None = 0,
    /// PROXY header, TLS handshake, h2 preface.
    Handshake = 1,
    /// The next request.
    Idle = 2,
    /// The rest of a head.
    Header = 3,
    /// The next bytes of a request's body.
    Body = 4,
    /// The caller to take more of the answer.
    Write = 5,
    /// The caller to close after a last answer.
    Linger = 6,
    /// The first request.
    First = 7,
}

impl Phase {
    fn of(n: u8) -> Self {
        match n {
            1 => Self::Handshake,
            2 => Self::Idle,
            3 => Self::Header,
            4 => Self::Body,
            5 => Self::Write,
            6 => Self::Linger,
            7 => Self::First,
            _ => Self::None,
        }
    }
}

/// Why a connection was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// This phase took too long.
    Overdue(Phase),
    /// The function took too long (first byte, idle or total).
    Upstream,
    /// gatepost stops, or the listener is gone, and no request is under way.
    Drained,
    /// gatepost stops, and the time for what is under way is over.
    Cut,
    /// The function took too long, and pingora, told so a sweep ago, waits on: it must be dropped.
    Stuck,
}

/// The shared part of a connection. Deadlines are set with relaxed stores and looked at by one sweeper per worker: no timer is
/// registered per request.
#[derive(Debug)]
pub struct Conn {
    pub info: Info,
    pub timeouts: ListenerTimeouts,
    phase: AtomicU8,
    /// In milliseconds of the worker's coarse clock; 0: none.
    deadline: AtomicU64,
    /// The same for the function that works for this connection, and how long it may be silent.
    upstream_deadline: AtomicU64,
    upstream_silence: AtomicU64,
    /// The silence that counts once the request's body is on its way.
    silence_after: AtomicU64,
    /// The same for the whole request.
    total_deadline: AtomicU64,
    ended: AtomicU8,
    waker: AtomicWaker,
    /// The function answered 101: bytes pass unseen from here on.
    pub tunnel: AtomicBool,
    /// What is to be closed gently once the IO is gone.
    left_over: Mutex<Option<Transport>>,
    /// What is to be said before that: the answer to a request that had to be dropped.
    last_words: Mutex<Vec<u8>>,
    /// gatepost's phases have seen the present request.
    asked: AtomicBool,
    /// Something of the present request's answer went out.
    answered: AtomicBool,
    /// Requests under way on an h2 connection.
    streams: AtomicU32,
    /// A frame of h2, or a header block, has begun: when it is to be whole.
    frame_deadline: AtomicU64,
    pub h2: H2,
    /// Of one h2 request: its connection.
    pub of: Option<Arc<Self>>,
    /// The caller's address as functions are told it: the same for every request.
    ip_value: OnceLock<HeaderValue>,
    /// What the caller proved in the TLS handshake.
    certificate: OnceLock<Box<Certificate>>,
    /// The present request's answer, beside what its caller takes.
    pub stall: Stall,
    /// The present request waits for its function's turn: what its caller sends is not read on.
    pub is_held: AtomicBool,
    /// After the present request this connection is to close.
    pub closing: AtomicBool,
    /// The next request that comes is the last.
    retiring: AtomicBool,
    /// An h2 connection, past its TLS.
    pub is_h2: AtomicBool,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// Which listener: stable over reloads, unlike its index in a config.
    pub listener: ListenerKey,
    /// The caller, as the PROXY header or the socket tells; `None`: a unix socket.
    pub peer: Option<SocketAddr>,
    pub tls: bool,
    /// A PROXY header told of the caller: whoever sent it may have ended his TLS.
    pub is_told: bool,
}

impl Info {
    /// The caller's address. A unix socket's peer is this machine.
    pub fn ip(&self) -> IpAddr {
        self.peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip().to_canonical())
    }
}

/// A verified client certificate: once per connection, however many requests come on it.
#[derive(Debug)]
pub struct Certificate {
    pub identity: ClientCertificate,
    der: Box<[u8]>,
    /// Made when the first function wants it.
    header: OnceLock<HeaderValue>,
}

impl Certificate {
    pub fn new(identity: ClientCertificate, der: &[u8]) -> Self {
        Self { identity, der: der.into(), header: OnceLock::new() }
    }

    /// As functions are told it: RFC 9440 §2.1, a byte sequence of RFC 8941 §3.3.5.
    pub fn header(&self) -> &HeaderValue {
        self.header.get_or_init(|| {
            let text = format!(":{}:", STANDARD.encode(&self.der));
            // Colons and base64 always are a valid value.
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("::"))
        })
    }
}

/// An address in a header field's form.
pub fn ip_value(ip: IpAddr) -> HeaderValue {
    // Digits, dots, letters and colons always are a valid value.
    HeaderValue::try_from(ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// A listener by the order in which names were first seen in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerKey(pub u32);

/// What the tasks of an h2 connection's requests, and its loop, tell the [`Frames`](super::frames::Frames), and they them.
#[derive(Debug, Default)]
pub struct H2 {
    /// Requests whose headers came, whether or not they are good.
    opened: AtomicU32,
    /// What pieces of answers allow the caller to say, and answers that it got to their end.
    pieces: AtomicU32,
    answers: AtomicU32,
    /// Requests that could be read in two ways.
    malformed: AtomicU32,
    /// The caller is to be sent away.
    pub is_flooded: AtomicBool,
    /// The caller takes nothing just now: what it sent may not have been looked at.
    pub is_blocked: AtomicBool,
    /// The last word was said: once the IO is gone, the transport is to be closed gently.
    pub lingers: AtomicBool,
}

impl H2 {
    pub fn opens(&self, requests: u32) {
        if requests > 0 {
            self.opened.fetch_add(requests, Relaxed);
        }
    }

    pub fn opened(&self) -> u32 {
        self.opened.load(Relaxed)
    }

    /// So many bytes of an answer's body went out: the caller may open its windows for them.
    pub fn piece_is_sent(&self, bytes: usize) {
        let frames = 4 + u32::try_from(bytes / 256).unwrap_or(u32::MAX / 2);
        self.pieces.fetch_add(frames, Relaxed);
    }

    pub fn request_is_answered(&self) {
        self.answers.fetch_add(1, Relaxed);
    }

    /// A request was refused as one that could be read in two ways: the caller is not asked for many more.
    pub fn request_is_malformed(&self) {
        if self.malformed.fetch_add(1, Relaxed) + 1 >= MALFORMED {
            self.is_flooded.store(true, Relaxed);
        }
    }

    /// Frames allowed for since the last time, and answers.
    pub fn take_earned(&self) -> (u32, u32) {
        let take = |n: &AtomicU32| if n.load(Relaxed) == 0 { 0 } else { n.swap(0, Relaxed) };
        (take(&self.pieces), take(&self.answers))
    }
}

impl Conn {
    pub fn new(info: Info, timeouts: ListenerTimeouts) -> Arc<Self> {
        Self::make(info, timeouts, None)
    }

    fn make(info: Info, timeouts: ListenerTimeouts, of: Option<Arc<Self>>) -> Arc<Self> {
        let conn = Arc::new(Self {
            info,
            timeouts,
            phase: AtomicU8::new(0),
            deadline: AtomicU64::new(0),
            upstream_deadline: AtomicU64::new(0),
            upstream_silence: AtomicU64::new(0),
            silence_after: AtomicU64::new(0),
            total_deadline: AtomicU64::new(0),
            ended: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            tunnel: AtomicBool::new(false),
            left_over: Mutex::new(None),
            last_words: Mutex::default(),
            asked: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            streams: AtomicU32::new(0),
            frame_deadline: AtomicU64::new(0),
            h2: H2::default(),
            of,
            ip_value: OnceLock::new(),
            certificate: OnceLock::new(),
            stall: Stall::default(),
            is_held: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            retiring: AtomicBool::new(false),
            is_h2: AtomicBool::new(false),
        });
        SWEEPER.with_borrow_mut(|s| s.conns.push(Arc::downgrade(&conn)));
        conn
    }

    /// What bounds one request of this h2 connection.
    pub fn stream(self: &Arc<Self>) -> Arc<Self> {
        Self::make(self.info, self.timeouts, Some(self.clone()))
    }

    /// Begins a phase with its full time, whatever was before.
    pub fn begin(&self, phase: Phase) {
        let time = match phase {
            Phase::None => None,
            Phase::Handshake => Some(self.timeouts.handshake),
            Phase::Idle | Phase::First => Some(self.timeouts.idle),
            Phase::Header => Some(self.timeouts.header),
            Phase::Body | Phase::Write => Some(self.timeouts.body),
            Phase::Linger => Some(LINGER),
        };
        self.phase.store(phase as u8, Relaxed);
        self.deadline.store(time.map_or(0, after), Relaxed);
    }

    /// A read or write has to wait: its time runs from the first such wait, and is `at_most` so much.
    pub fn waits(&self, phase: Phase, at_most: impl FnOnce(u64) -> Option<Duration>) {
        if self.deadline.load(Relaxed) == 0 {
            self.begin(phase);
            match at_most(coarse_ms()) {
                Some(Duration::ZERO) => {
                    self.deadline.store(0, Relaxed);
                    self.end(phase as u8);
                }
                Some(time) => {
                    self.deadline.fetch_min(after(time), Relaxed);
                }
                None => {}
            }
        }
    }

    /// A read or write went on: whether that was what was waited for.
    pub fn goes_on(&self, phase: Phase) -> bool {
        let waited = self.phase.load(Relaxed) == phase as u8;
        if waited {
            self.begin(Phase::None);
        }
        waited
    }

    /// A whole head is here: what ended the wait for it no longer counts.
    pub fn request_begins(&self) {
        self.begin(Phase::None);
        self.bound_silence(None);
        self.bound_total(None);
        self.stall.request_begins();
        self.ended.store(0, Relaxed);
        self.asked.store(false, Relaxed);
        self.answered.store(false, Relaxed);
    }

    pub fn is_asked(&self) {
        self.asked.store(true, Relaxed);
    }

    pub fn was_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    pub fn is_answered(&self) {
        self.answered.store(true, Relaxed);
    }

    pub fn was_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    /// The request is answered: its function has no bounds any more.
    pub fn request_ends(&self) {
        self.bound_silence(None);
        self.bound_total(None);
    }

    pub fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Relaxed))
    }

    /// Bounds the silence of the function from now on; `None` lifts it.
    pub fn bound_silence(&self, time: Option<Duration>) {
        let ms = time.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        self.upstream_silence.store(ms, Relaxed);
        self.silence_after.store(ms, Relaxed);
        self.upstream_deadline.store(time.map_or(0, after), Relaxed);
    }

    /// While the request's body is passed on the function is given `write` to take more of it; then `silence` counts.
    pub fn bound_upload(&self, write: Duration, silence: Option<Duration>) {
        self.bound_silence(Some(write));
        self.silence_after.store(silence.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)), Relaxed);
    }

    /// The caller is who is waited for.
    pub fn caller_is_slow(&self) {
        self.upstream_deadline.store(0, Relaxed);
    }

    /// The request's body was read to its end.
    pub fn upload_ends(&self) {
        if self.upstream_silence.load(Relaxed) != 0 {
            let silence = self.silence_after.load(Relaxed);
            self.bound_silence((silence != 0).then(|| Duration::from_millis(silence)));
        }
    }

    /// Bytes went to or from the function: it is not silent.
    pub fn moved(&self) {
        let ms = self.upstream_silence.load(Relaxed);
        if ms != 0 {
            self.upstream_deadline.store(after(Duration::from_millis(ms)), Relaxed);
        }
    }

    /// Bounds the present request as a whole; `None` lifts it.
    pub fn bound_total(&self, time: Option<Duration>) {
        self.total_deadline.store(time.map_or(0, after), Relaxed);
    }

    pub fn ended(&self) -> Option<Ended> {
        match self.ended.load(Relaxed) {
            0 => None,
            ENDED_DRAINED => Some(Ended::Drained),
            ENDED_UPSTREAM => Some(Ended::Upstream),
            ENDED_CUT => Some(Ended::Cut),
            ENDED_STUCK => Some(Ended::Stuck),
            n => Some(Ended::Overdue(Phase::of(n))),
        }
    }

    /// The caller's address, in a header field's form.
    pub fn ip_value(&self) -> &HeaderValue {
        self.ip_value.get_or_init(|| ip_value(self.info.ip()))
    }

    /// Hands were shaken with a caller who proved to be somebody. The first call counts.
    pub fn prove(&self, certificate: Certificate) {
        let _ = self.certificate.set(Box::new(certificate));
    }

    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.get().map(|c| &**c)
    }

    /// Of h2: a request begins; the connection is no longer idle.
    pub fn stream_begins(&self) {
        if self.streams.fetch_add(1, Relaxed) == 0 {
            self.begin(Phase::None);
        }
    }

    /// Of h2: a request ended; with the last one idle time begins.
    pub fn stream_ends(&self) {
        if self.streams.fetch_sub(1, Relaxed) == 1 {
            self.begin(Phase::Idle);
            if self.closing.load(Relaxed) {
                self.hurry();
            }
        }
    }

    /// Of h2: the caller's last bytes end within a frame or a header block, or behind one.
    pub fn frame_is_midway(&self, midway: bool) {
        let is_set = self.frame_deadline.load(Relaxed) != 0;
        if midway != is_set {
            self.frame_deadline.store(if midway { after(self.timeouts.header) } else { 0 }, Relaxed);
        }
    }

    /// Only the connection's own task and what it calls come here: nobody waits for this lock.
    pub fn leave(&self, transport: Transport) {
        *self.left_over.lock().unwrap_or_else(PoisonError::into_inner) = Some(transport);
    }

    /// The answer to a request that had to be dropped before it had one.
    pub fn leave_words(&self, words: Vec<u8>) {
        *self.last_words.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    pub fn last_words(&self) -> Vec<u8> {
        std::mem::take(&mut *self.last_words.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn left_over(&self) -> Option<Transport> {
        self.left_over.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// To be called before a task waits, so that the sweeper can wake it.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Wakes the connection's task, which can be woken again before it registers anew.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            self.waker.register(&waker);
            waker.wake();
        }
    }

    fn end(&self, how: u8) {
        self.ended.store(how, Relaxed);
        self.wake();
    }

    /// No further request after the present one; a connection that waits for one ends now. One that never had a request
    /// is given a moment: its caller has just come, the request is on its way, and it would not expect to send it twice.
    pub fn drain(&self) {
        self.closing.store(true, Relaxed);
        if self.is_h2.load(Relaxed) {
            // Its loop says goodbye, and waits for the answer: see `serve::h2`.
            if matches!(self.phase(), Phase::Idle | Phase::Handshake) {
                self.hurry();
            }
            return self.wake();
        }
        match self.phase() {
            Phase::Idle => self.end(ENDED_DRAINED),
            Phase::Handshake | Phase::First => self.hurry(),
            _ => {}
        }
    }

    /// One more request, whose answer tells the caller so; an idle connection stays until its own end. Of h2: both goodbyes.
    pub fn retire(&self) {
        if self.is_h2.load(Relaxed) {
            self.closing.store(true, Relaxed);
            return self.waker.wake();
        }
        self.retiring.store(true, Relaxed);
    }

    /// A request has come: whether it is the last on this connection.
    pub fn is_last(&self) -> bool {
        let last = self.retiring.load(Relaxed);
        if last {
            self.closing.store(true, Relaxed);
        }
        last
    }

    /// Ends the present phase soon, if it would end later.
    pub fn hurry(&self) {
        let soon = after(FIRST);
        if self.deadline.load(Relaxed) > soon {
            self.deadline.store(soon, Relaxed);
        }
    }
}

const ENDED_DRAINED: u8 = 100;
const ENDED_UPSTREAM: u8 = 101;
const ENDED_CUT: u8 = 102;
const ENDED_STUCK: u8 = 103;
/// An h2 connection with so many malformed requests is over.
const MALFORMED: u32 = 32;
/// How long a caller may take to read a last answer and close.
const LINGER: Duration = Duration::from_secs(2);
/// How long a drain waits for a connection's first request.
const FIRST: Duration = Duration::from_millis(500);
/// How often deadlines are looked at: deadlines are met up to two sweeps late, never early.
pub const SWEEP: Duration = Duration::from_millis(250);

#[derive(Default)]
struct Sweeper {
    conns: Vec<Weak<Conn>>,
    /// The coarse clock.
    now_ms: u64,
}

thread_local! {
    /// Of the h2 request whose task runs just now.
    static STREAM: RefCell<Option<Arc<Conn>>> = const { RefCell::new(None) };
    static SWEEPER: RefCell<Sweeper> = RefCell::default();
}

/// The worker's coarse clock: up to a sweep behind.
pub fn coarse_ms() -> u64 {
    SWEEPER.with_borrow(|s| s.now_ms)
}

fn after(time: Duration) -> u64 {
    let now = coarse_ms();
    // The coarse clock may be a sweep behind: never end anything early.
    let time = u64::try_from((time + SWEEP).as_millis()).unwrap_or(u64::MAX);
    now.saturating_add(time).max(1)
}

/// Ends what is overdue on this worker. To be called every [`SWEEP`], with the time.
pub fn sweep(now: Now) {
    let now_ms = now.0 / 1_000_000;
    let overdue = SWEEPER.with_borrow_mut(|s| {
        s.now_ms = now_ms;
        let mut overdue = Vec::new();
        s.conns.retain(|weak| {
            let Some(conn) = weak.upgrade() else { return false };
            let is_over = |d: &AtomicU64| matches!(d.load(Relaxed), d if d != 0 && d <= now_ms);
            if is_over(&conn.frame_deadline) {
                conn.frame_deadline.store(0, Relaxed);
                conn.phase.store(Phase::Header as u8, Relaxed);
                overdue.push((conn, true));
            } else if is_over(&conn.deadline) {
                overdue.push((conn, true));
            } else if is_over(&conn.upstream_deadline)
                || is_over(&conn.total_deadline)
                || conn.ended.load(Relaxed) == ENDED_UPSTREAM
            {
                overdue.push((conn, false));
            }
            true
        });
        overdue
    });
    for (conn, own) in overdue {
        if own {
            conn.deadline.store(0, Relaxed);
            conn.end(conn.phase.load(Relaxed));
        } else {
            conn.upstream_deadline.store(0, Relaxed);
            conn.total_deadline.store(0, Relaxed);
            // The second time: whatever pingora waits for, it is not the caller, and it will not hear.
            let is_deaf = conn.ended.load(Relaxed) == ENDED_UPSTREAM;
            conn.end(if is_deaf { ENDED_STUCK } else { ENDED_UPSTREAM });
        }
    }
}

/// Polls the task of an h2 request, as the one that [`present_stream`] tells of.
pub fn with_stream<T>(stream: &Arc<Conn>, poll: impl FnOnce() -> T) -> T {
    /// Also where the poll panics.
    struct Leaves;
    impl Drop for Leaves {
        fn drop(&mut self) {
            STREAM.set(None);
        }
    }
    STREAM.set(Some(stream.clone()));
    let _leaves = Leaves;
    poll()
}

/// What bounds the h2 request that asks.
pub fn present_stream() -> Option<Arc<Conn>> {
    STREAM.with_borrow(Clone::clone)
}

/// Drains this worker's connections: of one listener, or all.
pub fn drain(listener: Option<ListenerKey>) {
    let conns: Vec<_> = SWEEPER.with_borrow(|s| s.conns.iter().filter_map(Weak::upgrade).collect());
    for conn in conns.iter().filter(|c| listener.is_none_or(|l| c.info.listener == l)) {
        conn.drain();
    }
}

/// Lets each of this worker's connections have one more request.
pub fn retire() {
    let conns: Vec<_> = SWEEPER.with_borrow(|s| s.conns.iter().filter_map(Weak::upgrade).collect());
    conns.iter().for_each(|conn| conn.retire());
}

/// Ends all of this worker's connections, with the requests on them: each still tells its end. `false`: there are none.
pub fn cut() -> bool {
    let conns: Vec<_> = SWEEPER.with_borrow(|s| s.conns.iter().filter_map(Weak::upgrade).collect());
    for conn in &conns {
        conn.closing.store(true, Relaxed);
        conn.end(ENDED_CUT);
    }
    !conns.is_empty()
}
