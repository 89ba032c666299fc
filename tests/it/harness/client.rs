//! Callers over HTTP/1: kept and fresh connections, and bytes that no client would send.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::{
    PATIENCE,
    wire::{Duplex, Fields, Head, Wire},
};

/// What a caller asks for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

pub(crate) fn request(method: &str, target: &str) -> Request {
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        host: "gate.test".to_owned(),
        fields: Vec::new(),
        body: Bytes::new(),
    }
}

pub(crate) fn get(target: &str) -> Request {
    request("GET", target)
}

pub(crate) fn post(target: &str) -> Request {
    request("POST", target)
}

impl Request {
    pub(crate) fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The request as HTTP/1.1 writes it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        let says_length = |(name, _): &(String, String)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        };
        if !self.body.is_empty() && !self.fields.iter().any(says_length) {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        [head.as_bytes(), &self.body].concat()
    }
}

impl From<&str> for Request {
    /// A plain `GET` of that path.
    fn from(target: &str) -> Self {
        get(target)
    }
}

/// What came back.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

impl fmt::Debug for Answer {
    /// For a failure's message: the body as text, and no more of it than one wants to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("fields", &self.fields.0)
            .field("body", &beginning(&self.body))
            .field("trailers", &self.trailers.0)
            .finish()
    }
}

/// The first words of a body.
pub(crate) fn beginning(body: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&body[..body.len().min(500)]);
    match body.len() {
        ..=500 => shown.into_owned(),
        all => format!("{shown}… ({all} bytes)"),
    }
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: not JSON: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }

    /// Why gatepost answered itself; empty where the function did.
    pub(crate) fn reason(&self) -> &str {
        self.header("x-gatepost-reason").unwrap_or_default()
    }

    /// Fails unless this is gatepost's own answer with that status and reason, told in the header and in the document alike.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, reason: &str) {
        assert_eq!((self.status, self.reason()), (status, reason), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let document = self.json();
        assert_eq!(document["status"], status, "{document}");
        assert_eq!(document["reason"], reason, "{document}");
        let title = document["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty(), "{document}");
        let id = self.header("x-request-id").unwrap_or_default();
        assert!(!id.is_empty(), "no X-Request-Id: {self:?}");
        assert_eq!(document["request_id"], id);
    }
}

/// How an answer failed to come.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Not a byte of it.
    Nothing(io::Error),
    /// It began.
    Midway(io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing(e) => write!(f, "no answer: {e}"),
            Self::Midway(e) => write!(f, "answer broke off: {e}"),
        }
    }
}

/// A kept HTTP/1.1 connection.
pub(crate) struct Connection {
    pub(crate) wire: Wire,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.unwrap()
    }

    pub(crate) async fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// As a caller at `ip`: on loopback every 127.x.y.z is ours.
    pub(crate) async fn from(ip: &str, address: SocketAddr) -> Self {
        let ip: IpAddr = ip.parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(ip, 0)).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }

    pub(crate) async fn unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap())
    }

    pub(crate) fn over(io: impl Duplex + 'static) -> Self {
        Self { wire: Wire::new(io) }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.write(bytes.as_ref()).await.unwrap();
    }

    #[track_caller]
    pub(crate) fn send(&mut self, request: impl Into<Request>) -> impl Future<Output = Answer> {
        let request = request.into();
        async move {
            let told = format!("{} {}", request.method, request.target);
            self.try_send(request).await.unwrap_or_else(|broken| panic!("{told}: {broken}"))
        }
    }

    pub(crate) async fn try_send(&mut self, request: impl Into<Request>) -> Result<Answer, Broken> {
        let request = request.into();
        // A peer that answers and closes early makes writing fail; what it said is still there to read.
        let written = self.wire.write(&request.bytes()).await;
        match self.try_answer(&request.method).await {
            Err(Broken::Nothing(e)) => Err(Broken::Nothing(written.err().unwrap_or(e))),
            other => other,
        }
    }

    /// Sends the request and reads the answer's head; the body is left to [`Connection::piece`].
    pub(crate) async fn begin(&mut self, request: impl Into<Request>) -> Head {
        let request = request.into();
        self.write(request.bytes()).await;
        self.answer_head(&request.method).await.unwrap()
    }

    /// Reads an answer to a request that was written before.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer("GET").await.unwrap_or_else(|e| panic!("{e}"))
    }

    pub(crate) async fn try_answer(&mut self, method: &str) -> Result<Answer, Broken> {
        let patience = 4 * PATIENCE;
        let whole = async {
            let head = self.answer_head(method).await?;
            let body = self.wire.body().await.map_err(Broken::Midway)?;
            Ok(Answer {
                status: head.status(),
                fields: head.fields,
                body,
                trailers: std::mem::take(&mut self.wire.trailers),
            })
        };
        match tokio::time::timeout(patience, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(Broken::Nothing(io::Error::other(format!("nothing within {patience:?}")))),
        }
    }

    /// The next head that isn't an interim one (RFC 9110 §15.2).
    pub(crate) async fn answer_head(&mut self, method: &str) -> Result<Head, Broken> {
        loop {
            let head = match self.wire.head().await {
                Ok(Some(head)) => head,
                Ok(None) => return Err(Broken::Nothing(io::Error::other("closed"))),
                Err(e) if self.wire.has_bytes() => return Err(Broken::Midway(e)),
                Err(e) => return Err(Broken::Nothing(e)),
            };
            if matches!(head.status(), 100 | 102 | 103) {
                continue;
            }
            self.wire.framing = head.framing(Some(method));
            return Ok(head);
        }
    }

    /// The next piece of the body that [`Connection::begin`] left; `None` is its proper end.
    pub(crate) async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        match tokio::time::timeout(4 * PATIENCE, self.wire.piece()).await {
            Ok(piece) => piece,
            Err(_) => Err(io::Error::other("no piece came")),
        }
    }

    /// Everything until the other side closes; fails where it doesn't in time.
    pub(crate) async fn until_closed(&mut self) -> String {
        let (bytes, closed) = self.wire.rest(PATIENCE).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(closed, "still open after {PATIENCE:?}, having said {text:?}");
        text
    }

    /// Whether the other side closes within `patience` without another byte.
    pub(crate) async fn closes_within(&mut self, patience: Duration) -> bool {
        let (bytes, closed) = self.wire.rest(patience).await;
        closed && bytes.is_empty()
    }
}
