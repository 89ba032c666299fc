//! Scripted functions: they answer what a test says, count what reaches them, and fail on demand.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    client::beginning,
    eventually,
    faulty::{Faulty, Plan},
    h2,
    ports::free,
    reply::{Body, Cut, MADE_PERIOD, Reply, made},
    tls::Leaf,
    websocket, when,
    wire::{Duplex, Fields, Head, Wire},
};

/// Of a request's body so much is kept.
pub(crate) const KEPT_BODY: usize = 1024 * 1024;

/// A request as the function got it.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) version: String,
    pub(crate) fields: Fields,
    /// Its body, as far as [`KEPT_BODY`].
    pub(crate) body: Vec<u8>,
    /// How long its body was.
    pub(crate) body_bytes: u64,
    pub(crate) trailers: Fields,
    /// Which request on its connection this is, from 0.
    pub(crate) nth: usize,
    /// Which of all requests this is, from 0.
    pub(crate) number: usize,
    /// The server name that TLS asked for.
    pub(crate) sni: Option<String>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, target, version, fields, .. } = self;
        let body = beginning(&self.body);
        write!(f, "{method} {target} {version} {:?} {body:?}", fields.0)
    }
}

impl Seen {
    /// Counts a piece of the body, and keeps it while there is room.
    pub(crate) fn take_piece(&mut self, piece: &[u8]) {
        self.body_bytes += piece.len() as u64;
        let room = KEPT_BODY - self.body.len();
        self.body.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "method": self.method,
            "target": self.target,
            "version": self.version,
            "headers": self.fields.0,
            "body": String::from_utf8_lossy(&self.body),
            "body_bytes": self.body_bytes,
            "sni": self.sni,
        })
    }
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// A function before it runs.
pub(crate) struct Build {
    script: Script,
    tls: Option<TlsAcceptor>,
    h2: bool,
    early: bool,
    at: SocketAddr,
    faults: Option<Faults>,
    keeps: Option<Duration>,
}

/// What goes wrong on the nth connection.
type Faults = Arc<dyn Fn(usize) -> Plan + Send + Sync>;

/// A function that answers `ok` with 200 until told otherwise.
pub(crate) fn origin() -> Build {
    Build {
        script: Arc::new(|_| Reply::text("ok")),
        tls: None,
        h2: false,
        early: false,
        at: SocketAddr::from(([127, 0, 0, 1], 0)),
        faults: None,
        keeps: None,
    }
}

impl Build {
    /// The same answer always.
    pub(crate) fn reply(self, reply: impl Into<Reply>) -> Self {
        let reply = reply.into();
        self.answers(move |_| reply.clone())
    }

    /// What it saw of the request, as JSON.
    pub(crate) fn echo(self) -> Self {
        self.answers(|seen| Reply::text(seen.to_json().to_string()))
    }

    pub(crate) fn answers(mut self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        self.script = Arc::new(script);
        self
    }

    /// Over TLS, HTTP/1.1 only.
    pub(crate) fn tls(mut self, leaf: &Leaf) -> Self {
        self.tls = Some(leaf.acceptor(&["http/1.1"]));
        self
    }

    /// Over TLS, h2 or HTTP/1.1 as ALPN agrees.
    pub(crate) fn tls_h2(mut self, leaf: &Leaf) -> Self {
        self.tls = Some(leaf.acceptor(&["h2", "http/1.1"]));
        self
    }

    /// h2 with prior knowledge on a plain port.
    pub(crate) fn h2c(mut self) -> Self {
        self.h2 = true;
        self
    }

    /// Answers on the head alone; a request's body stays unread until the answer is out.
    pub(crate) fn early(mut self) -> Self {
        self.early = true;
        self
    }

    /// At this address of loopback, and at that port where it isn't 0.
    pub(crate) fn at(mut self, ip: &str, port: u16) -> Self {
        self.at = SocketAddr::new(ip.parse().unwrap(), port);
        self
    }

    /// Breaks its connections, each as `faults` says of its number.
    pub(crate) fn faults(mut self, faults: impl Fn(usize) -> Plan + Send + Sync + 'static) -> Self {
        self.faults = Some(Arc::new(faults));
        self
    }

    /// Closes an HTTP/1 connection that has waited so long for its next request, as the edges of platforms do.
    pub(crate) fn keeps(mut self, time: Duration) -> Self {
        self.keeps = Some(time);
        self
    }

    pub(crate) async fn start(self) -> Origin {
        let listener = TcpListener::bind(self.at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(self.script),
            early: self.early,
            seen: Mutex::default(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            idle: watch::Sender::new(0),
            keeps: self.keeps,
        });
        let all = watch::Sender::new(false);
        let how = How { tls: self.tls.clone(), h2: self.h2, faults: self.faults };
        let accepting = tokio::spawn(accept(listener, shared.clone(), how, all.subscribe()));
        Origin { address, scheme: if self.tls.is_some() { "https" } else { "http" }, shared, accepting, all }
    }
}

/// A running function; dropped, it is gone, with its connections.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    all: watch::Sender<bool>,
}

pub(crate) struct Shared {
    script: Mutex<Script>,
    early: bool,
    seen: Mutex<Vec<Seen>>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    open: AtomicUsize,
    /// Counts up when idle connections are to be closed.
    idle: watch::Sender<usize>,
    keeps: Option<Duration>,
}

/// At most so many requests are kept to look at.
const KEPT: usize = 20_000;

impl Shared {
    /// Whether the answer goes out before the request's body was read.
    pub(crate) fn early(&self) -> bool {
        self.early
    }

    /// Counts a request and gives its answer.
    pub(crate) fn take(&self, mut seen: Seen) -> Reply {
        seen.number = self.requests.fetch_add(1, Ordering::SeqCst);
        let script = self.script.lock().unwrap().clone();
        let reply = script(&seen);
        let mut all = self.seen.lock().unwrap();
        if all.len() < KEPT {
            all.push(seen);
        }
        reply
    }
}

impl Origin {
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The URL with a name in place of the address.
    pub(crate) fn url_as(&self, name: &str) -> String {
        format!("{}://{name}:{}", self.scheme, self.address.port())
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Requests whose head and body arrived.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections ever.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections now.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The latest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        let seen = self.shared.seen.lock().unwrap();
        seen.last().cloned().expect("nothing reached the function")
    }

    /// From now on, another script.
    pub(crate) fn now_answers(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// Closes all connections that wait for a request, and returns when they are closed.
    pub(crate) async fn close_idle(&self) {
        self.shared.idle.send_modify(|n| *n += 1);
        eventually("idle connections are closed", async || when(self.open() == 0)).await;
    }

    /// Refuses connections from now on, and cuts those it has.
    pub(crate) async fn die(&self) {
        self.accepting.abort();
        self.all.send_replace(true);
        let address = self.address;
        eventually("the function is dead", async || when(TcpStream::connect(address).await.is_err())).await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A port on which nothing listens: connections are refused.
pub(crate) fn dead_address() -> SocketAddr {
    free("127.0.0.1")
}

/// How a function's connections are served.
#[derive(Clone)]
struct How {
    tls: Option<TlsAcceptor>,
    h2: bool,
    faults: Option<Faults>,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, how: How, all: watch::Receiver<bool>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        let nth = shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let (shared, how, mut all) = (shared.clone(), how.clone(), all.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = serve(tcp, &shared, how, nth) => {}
                // Ends as well when the origin is dropped.
                _ = all.wait_for(|all| *all) => {}
            }
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(tcp: TcpStream, shared: &Arc<Shared>, how: How, nth: usize) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    // For `Cut::Reset`, wherever the stream is wrapped by then.
    let raw = SockRef::from(&tcp).try_clone()?;
    let tcp: Box<dyn Duplex> = match &how.faults {
        Some(faults) => Box::new(Faulty::new(tcp, faults(nth))),
        None => Box::new(tcp),
    };
    match how.tls {
        None if how.h2 => h2::serve(tcp, shared.clone(), None).await,
        None => serve_http1(Wire::new(tcp), shared, None, &raw).await,
        Some(tls) => {
            let stream = tls.accept(tcp).await?;
            let (_, session) = stream.get_ref();
            let sni = session.server_name().map(str::to_owned);
            match session.alpn_protocol() {
                Some(b"h2") => h2::serve(stream, shared.clone(), sni).await,
                _ => serve_http1(Wire::new(stream), shared, sni, &raw).await,
            }
        }
    }
}

async fn waited(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

async fn serve_http1(mut wire: Wire, shared: &Shared, sni: Option<String>, raw: &socket2::Socket) -> io::Result<()> {
    let mut idle = shared.idle.subscribe();
    for nth in 0.. {
        idle.mark_unchanged();
        let head = tokio::select! {
            head = wire.head() => head?,
            _ = idle.changed() => return Ok(()),
            () = waited(shared.keeps), if nth > 0 => return Ok(()),
        };
        let Some(head) = head else {
            return Ok(());
        };
        let (mut seen, mut reply) = request(&mut wire, head, shared, nth, sni.clone()).await?;
        if let Some(gate) = &reply.wait {
            gate.passed().await;
        }
        // Whoever has the answer may count on the place.
        reply.holds = None;
        if let Body::WebSocket = reply.body {
            wire.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )
            .await?;
            let (io, _) = wire.into_parts();
            return websocket::echo(io).await;
        }
        let mut out = Cutting { wire: &mut wire, cut: reply.cut, raw };
        if !out.answer(&reply, &seen.method).await? || reply.close {
            return Ok(());
        }
        if shared.early {
            while let Some(piece) = wire.piece().await? {
                seen.body_bytes += piece.len() as u64;
            }
        }
    }
    Ok(())
}

/// Reads the request behind `head` and asks the script.
async fn request(
    wire: &mut Wire,
    head: Head,
    shared: &Shared,
    nth: usize,
    sni: Option<String>,
) -> io::Result<(Seen, Reply)> {
    wire.framing = head.framing(None);
    let mut seen = Seen {
        method: head.word(0).to_owned(),
        target: head.word(1).to_owned(),
        version: head.word(2).to_owned(),
        nth,
        sni,
        ..Seen::default()
    };
    let expects = head.fields.first("expect").is_some();
    seen.fields = head.fields;
    if shared.early {
        let reply = shared.take(seen.clone());
        return Ok((seen, reply));
    }
    if expects {
        wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    while let Some(piece) = wire.piece().await? {
        seen.take_piece(&piece);
    }
    seen.trailers = std::mem::take(&mut wire.trailers);
    let reply = shared.take(seen.clone());
    Ok((seen, reply))
}

/// Writes an answer up to its cut.
struct Cutting<'w> {
    wire: &'w mut Wire,
    cut: Option<(u64, Cut)>,
    raw: &'w socket2::Socket,
}

impl Cutting<'_> {
    /// `false` where the connection is to be closed.
    async fn answer(&mut self, reply: &Reply, method: &str) -> io::Result<bool> {
        if let Body::Raw(bytes) = &reply.body {
            return Ok(self.put(bytes).await? && self.cut.is_none());
        }
        let bodiless = method == "HEAD" || matches!(reply.status, 204 | 304);
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
        for (name, value) in &reply.fields {
            head += &format!("{name}: {value}\r\n");
        }
        let length = match &reply.body {
            Body::Whole(bytes) if reply.status != 204 && reply.status != 304 => Some(bytes.len() as u64),
            Body::Made(length) => Some(*length),
            _ => None,
        };
        match reply.length.or(length) {
            Some(length) => head += &format!("Content-Length: {length}\r\n"),
            None if !bodiless => head += "Transfer-Encoding: chunked\r\n",
            None => {}
        }
        head += "\r\n";
        self.wire.write(head.as_bytes()).await?;
        if bodiless {
            return Ok(true);
        }
        self.body(&reply.body).await
    }

    async fn body(&mut self, body: &Body) -> io::Result<bool> {
        match body {
            Body::Whole(bytes) => self.put(bytes).await,
            Body::Made(length) => {
                let mut sent = 0;
                while sent < *length {
                    let piece = made(sent, (length - sent).min(MADE_PERIOD));
                    sent += piece.len() as u64;
                    if !self.put(&piece).await? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Body::Chunks(chunks, trailers) => {
                for chunk in chunks {
                    if !self.chunk(chunk).await? {
                        return Ok(false);
                    }
                }
                self.last_chunk(trailers).await
            }
            Body::Fed(fed) => {
                let feed = fed.lock().unwrap().take();
                let mut feed = feed.expect("a fed body answers one request");
                while let Some(piece) = feed.recv().await {
                    if !self.chunk(&piece).await? {
                        return Ok(false);
                    }
                }
                self.last_chunk(&[]).await
            }
            Body::Raw(_) | Body::WebSocket => Ok(false),
        }
    }

    async fn chunk(&mut self, piece: &Bytes) -> io::Result<bool> {
        self.wire.write(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        if !self.put(piece).await? {
            return Ok(false);
        }
        self.wire.write(b"\r\n").await?;
        Ok(true)
    }

    async fn last_chunk(&mut self, trailers: &[(String, String)]) -> io::Result<bool> {
        let mut end = "0\r\n".to_owned();
        for (name, value) in trailers {
            end += &format!("{name}: {value}\r\n");
        }
        self.wire.write(format!("{end}\r\n").as_bytes()).await?;
        Ok(true)
    }

    /// Writes bytes that count; `false` where the cut came.
    async fn put(&mut self, bytes: &Bytes) -> io::Result<bool> {
        let Some((left, how)) = self.cut else {
            self.wire.write(bytes).await?;
            return Ok(true);
        };
        if left > bytes.len() as u64 {
            self.wire.write(bytes).await?;
            self.cut = Some((left - bytes.len() as u64, how));
            return Ok(true);
        }
        self.wire.write(&bytes[..left as usize]).await?;
        match how {
            Cut::Close => {}
            Cut::Reset => self.raw.set_linger(Some(Duration::ZERO))?,
            Cut::Hang => std::future::pending().await,
        }
        Ok(false)
    }
}
