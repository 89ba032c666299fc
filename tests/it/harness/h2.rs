//! HTTP/2 on both sides, by hyper: a caller with many requests on one connection, and a scripted function.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap,
    body::{Body as HttpBody, Frame, Incoming},
    client::conn::http2 as client,
    header::{HeaderName, HeaderValue},
    server::conn::http2 as server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};

use super::{
    PATIENCE,
    client::{Answer, Request},
    origin::{Seen, Shared},
    reply::{Body, Cut, MADE_PERIOD, Reply, made},
    tls::{Agreed, TlsCaller},
    wire::{Duplex, Fields},
};

/// A body that somebody writes frame by frame; an `Err` resets the stream.
pub(crate) struct Frames(mpsc::Receiver<Result<Frame<Bytes>, io::Error>>);

/// The writing end of [`Frames`].
#[derive(Clone)]
pub(crate) struct FrameFeed(mpsc::Sender<Result<Frame<Bytes>, io::Error>>);

pub(crate) fn frames() -> (FrameFeed, Frames) {
    let (send, receive) = mpsc::channel(4);
    (FrameFeed(send), Frames(receive))
}

impl FrameFeed {
    /// `false` where nobody reads any more.
    pub(crate) async fn data(&self, piece: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(piece.into()))).await.is_ok()
    }

    pub(crate) async fn trailers(&self, fields: &[(String, String)]) -> bool {
        let fields = header_map(fields);
        self.0.send(Ok(Frame::trailers(fields))).await.is_ok()
    }

    async fn reset(&self) {
        let _ = self.0.send(Err(io::Error::other("scripted reset"))).await;
    }
}

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(ready!(self.0.poll_recv(context)))
    }
}

fn header_map(fields: &[(String, String)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        })
        .collect()
}

fn fields(map: &HeaderMap) -> Fields {
    Fields(
        map.iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes());
                (name.to_string(), value.into_owned())
            })
            .collect(),
    )
}

/// A caller's h2 connection; clones share it.
#[derive(Clone)]
pub(crate) struct H2 {
    send: client::SendRequest<Frames>,
    scheme: &'static str,
}

/// An answer whose body is still coming.
pub(crate) struct Coming {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    body: Incoming,
    pub(crate) trailers: Fields,
}

impl H2 {
    /// With prior knowledge, on a plain port.
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, "http").await
    }

    /// Over TLS; fails unless ALPN agrees on h2.
    pub(crate) async fn tls(address: SocketAddr, caller: &TlsCaller, name: &str) -> (Self, Agreed) {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (stream, agreed) = caller.handshake(stream, name).await.unwrap();
        assert_eq!(agreed.alpn.as_deref(), Some("h2"));
        (Self::over(stream, "https").await, agreed)
    }

    async fn over(io: impl Duplex + 'static, scheme: &'static str) -> Self {
        Self::try_over(io, scheme).await.unwrap()
    }

    /// Over anything, which may fail.
    pub(crate) async fn try_over(io: impl Duplex + 'static, scheme: &'static str) -> io::Result<Self> {
        let shaking = client::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io));
        let (send, connection) = shaking.await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self { send, scheme })
    }

    pub(crate) async fn send(&self, request: impl Into<Request>) -> Answer {
        self.try_send(request).await.unwrap()
    }

    pub(crate) async fn try_send(&self, request: impl Into<Request>) -> io::Result<Answer> {
        let request = request.into();
        let body = request.body.clone();
        let (feed, coming) = self.start(request);
        if !body.is_empty() {
            feed.data(body).await;
        }
        drop(feed);
        tokio::time::timeout(4 * PATIENCE, async { coming.await?.whole().await })
            .await
            .map_err(|_| io::Error::other("no answer came"))?
    }

    /// Sends a head; the body is the feed's, and the answer comes when it comes.
    pub(crate) fn start(&self, request: Request) -> (FrameFeed, impl Future<Output = io::Result<Coming>> + use<>) {
        let (feed, body) = frames();
        let mut head = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(format!("{}://{}{}", self.scheme, request.host, request.target))
            .body(body)
            .unwrap();
        *head.headers_mut() = header_map(&request.fields);
        let mut send = self.send.clone();
        let coming = async move {
            send.ready().await.map_err(io::Error::other)?;
            let answer = send.send_request(head).await.map_err(io::Error::other)?;
            let (head, body) = answer.into_parts();
            Ok(Coming {
                status: head.status.as_u16(),
                fields: fields(&head.headers),
                body,
                trailers: Fields::default(),
            })
        };
        (feed, coming)
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.send.is_closed()
    }
}

impl Coming {
    /// The next piece of the body; `None` is its proper end, trailers read.
    pub(crate) async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            match frame.map_err(io::Error::other)?.into_data() {
                // An end of its own is an empty frame (RFC 9113 §6.1).
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Ok(Some(piece)),
                Err(other) => {
                    if let Ok(trailers) = other.into_trailers() {
                        self.trailers = fields(&trailers);
                    }
                }
            }
        }
        Ok(None)
    }

    pub(crate) async fn whole(mut self) -> io::Result<Answer> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status: self.status, fields: self.fields, body, trailers: self.trailers })
    }
}

/// Serves one connection of a scripted function.
pub(crate) async fn serve(io: impl Duplex + 'static, shared: Arc<Shared>, sni: Option<String>) -> io::Result<()> {
    let service = service_fn(move |request| {
        let (shared, sni) = (shared.clone(), sni.clone());
        async move { Ok::<_, Infallible>(answer(request, &shared, sni).await) }
    });
    server::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(io), service)
        .await
        .map_err(io::Error::other)
}

async fn answer(request: hyper::Request<Incoming>, shared: &Shared, sni: Option<String>) -> hyper::Response<Frames> {
    let (head, mut body) = request.into_parts();
    let mut seen = Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: format!("{:?}", head.version),
        fields: fields(&head.headers),
        sni,
        ..Seen::default()
    };
    if let Some(authority) = head.uri.authority() {
        seen.fields.0.push((":authority".to_owned(), authority.to_string()));
    }
    if !shared.early() {
        while let Some(Ok(frame)) = body.frame().await {
            match frame.into_data() {
                Ok(piece) => seen.take_piece(&piece),
                Err(other) => {
                    if let Ok(trailers) = other.into_trailers() {
                        seen.trailers = fields(&trailers);
                    }
                }
            }
        }
    }
    let reply = shared.take(seen);
    if let Some(gate) = &reply.wait {
        gate.passed().await;
    }
    let mut head = hyper::Response::builder().status(reply.status);
    for (name, value) in &reply.fields {
        head = head.header(name, value);
    }
    let (feed, frames) = frames();
    tokio::spawn(async move {
        write(&reply, &feed).await;
        // Read only now, and thrown away: of a function that answers early.
        while let Some(Ok(_)) = body.frame().await {}
    });
    head.body(frames).unwrap()
}

async fn write(reply: &Reply, feed: &FrameFeed) {
    match &reply.body {
        Body::Whole(bytes) => {
            feed.data(bytes.clone()).await;
        }
        Body::Made(length) => {
            let mut sent = 0;
            while sent < *length {
                let piece = made(sent, (length - sent).min(MADE_PERIOD));
                sent += piece.len() as u64;
                if !feed.data(piece).await {
                    return;
                }
            }
        }
        Body::Chunks(chunks, trailers) => {
            for chunk in chunks {
                feed.data(chunk.clone()).await;
            }
            if !trailers.is_empty() {
                feed.trailers(trailers).await;
            }
        }
        Body::Fed(fed) => {
            let pieces = fed.lock().unwrap().take();
            let mut pieces = pieces.expect("a fed body answers one request");
            while let Some(piece) = pieces.recv().await {
                feed.data(piece).await;
            }
        }
        Body::Raw(_) | Body::WebSocket => feed.reset().await,
    }
    match reply.cut {
        Some((_, Cut::Hang)) => std::future::pending().await,
        Some(_) => feed.reset().await,
        None => {}
    }
}
