//! What a scripted function answers, faults included.

use std::sync::{
    Arc, LazyLock, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

/// A door that a test opens when it is time.
#[derive(Debug, Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

pub(crate) fn gate() -> Gate {
    Gate(watch::Sender::new(false))
}

impl Gate {
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn passed(&self) {
        let mut open = self.0.subscribe();
        // The sender lives in `self`, so this ends by opening alone.
        let _ = open.wait_for(|open| *open).await;
    }
}

/// The test's end of a body that it writes piece by piece. Dropped, the body ends.
#[derive(Debug, Clone)]
pub(crate) struct Feed(mpsc::UnboundedSender<Bytes>);

impl Feed {
    /// Hands a piece to the function, which sends it at once.
    pub(crate) fn send(&self, piece: impl Into<Bytes>) {
        assert!(self.try_send(piece), "nobody reads the fed body any more");
    }

    /// `false` where the function has gone.
    pub(crate) fn try_send(&self, piece: impl Into<Bytes>) -> bool {
        self.0.send(piece.into()).is_ok()
    }
}

/// Places that calls take until they are answered.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    most: usize,
    taken: Arc<AtomicUsize>,
}

/// Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Places {
    pub(crate) fn of(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// `None`: all are taken.
    pub(crate) fn take(&self) -> Option<Arc<Place>> {
        let place = Place(self.taken.clone());
        (self.taken.fetch_add(1, Ordering::SeqCst) < self.most).then(|| Arc::new(place))
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) type Fed = Arc<Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>>;

#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// With its length.
    Whole(Bytes),
    /// In chunks, then these trailers.
    Chunks(Vec<Bytes>, Vec<(String, String)>),
    /// So many bytes, made up on the way.
    Made(u64),
    /// Piece by piece from the test, chunked.
    Fed(Fed),
    /// Instead of head and body: these very bytes.
    Raw(Bytes),
    /// What came in, frame by frame, after a 101.
    WebSocket,
}

/// What happens after so many bytes of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// An orderly close.
    Close,
    /// RST.
    Reset,
    /// Silence, with the connection open.
    Hang,
}

/// An answer: `Reply::text("v1").status(503).after(&gate)`.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Body,
    pub(crate) wait: Option<Gate>,
    pub(crate) holds: Option<Arc<Place>>,
    pub(crate) length: Option<u64>,
    pub(crate) cut: Option<(u64, Cut)>,
    pub(crate) close: bool,
}

impl Reply {
    fn of(body: Body) -> Self {
        Self { status: 200, fields: Vec::new(), body, wait: None, holds: None, length: None, cut: None, close: false }
    }

    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self::of(Body::Whole(text.into()))
    }

    pub(crate) fn chunks(chunks: &[&str]) -> Self {
        let chunks = chunks.iter().map(|c| Bytes::from(c.to_string())).collect();
        Self::of(Body::Chunks(chunks, Vec::new()))
    }

    /// A body of so many bytes: `0, 1, 2, …`, see [`made`].
    pub(crate) fn made(bytes: u64) -> Self {
        Self::of(Body::Made(bytes))
    }

    /// A body that the test hands over piece by piece.
    pub(crate) fn fed() -> (Self, Feed) {
        let (send, receive) = mpsc::unbounded_channel();
        let fed = Arc::new(Mutex::new(Some(receive)));
        (Self::of(Body::Fed(fed)), Feed(send))
    }

    /// These very bytes for an answer.
    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::of(Body::Raw(bytes.into()))
    }

    /// Nothing at all: the connection is closed on the request.
    pub(crate) fn vanish() -> Self {
        Self::raw("").cut(0, Cut::Close)
    }

    /// 101, then every WebSocket message comes back.
    pub(crate) fn websocket() -> Self {
        Self::of(Body::WebSocket)
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn trailer(mut self, name: &str, value: &str) -> Self {
        if let Body::Whole(text) = self.body {
            self.body = Body::Chunks(vec![text], Vec::new());
        }
        if let Body::Chunks(_, trailers) = &mut self.body {
            trailers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Not before the test opens the gate.
    pub(crate) fn after(mut self, gate: &Gate) -> Self {
        self.wait = Some(gate.clone());
        self
    }

    /// Until it goes out, the call has this place.
    pub(crate) fn holding(mut self, place: Arc<Place>) -> Self {
        self.holds = Some(place);
        self
    }

    /// Claims a `Content-Length` that isn't so.
    pub(crate) fn claims(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// After so many bytes of the body (of everything, where the answer is raw).
    pub(crate) fn cut(mut self, after: u64, how: Cut) -> Self {
        self.cut = Some((after, how));
        self
    }

    /// Closes the connection behind this answer, without having said so.
    pub(crate) fn then_close(mut self) -> Self {
        self.close = true;
        self
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Self::text(text.to_owned())
    }
}

/// How far apart the bytes of a made body repeat, and the most that one piece of it may hold.
pub(crate) const MADE_PERIOD: u64 = 64 * 1024;

/// `length` bytes of a made-up body from `offset` on: a pattern in which a lost or doubled piece shows.
pub(crate) fn made(offset: u64, length: u64) -> Bytes {
    static TWICE: LazyLock<Bytes> = LazyLock::new(|| (0..2 * MADE_PERIOD).map(|n| (n ^ (n >> 8)) as u8).collect());
    let start = offset % MADE_PERIOD;
    let end = start + length.min(MADE_PERIOD);
    TWICE.slice(start as usize..end as usize)
}

/// Reads a made-up body and holds it against the pattern.
#[derive(Debug, Default)]
pub(crate) struct MadeCheck {
    pub(crate) bytes: u64,
}

impl MadeCheck {
    pub(crate) fn take(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let expected = made(self.bytes, piece.len() as u64);
            let (now, later) = piece.split_at(expected.len());
            assert!(now == expected, "the body differs near byte {}", self.bytes);
            self.bytes += now.len() as u64;
            piece = later;
        }
    }
}
