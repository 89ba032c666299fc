//! One question to a token server: bounded in time and size, no redirects.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{
    config::model::{Endpoint, EndpointHost},
    credential::gcp::LARGEST,
    serve::jwks::Trust,
    upstream::Resolver,
};

/// The whole of it.
const WHOLE: Duration = Duration::from_secs(15);
const RESOLVE: Duration = Duration::from_secs(5);
/// TCP and TLS to one address, and to so many.
const CONNECT: Duration = Duration::from_secs(4);
const ADDRESSES: usize = 3;

/// What is asked.
pub(super) struct Question {
    /// Path and query.
    pub(super) target: String,
    /// A form to post; `None`: the metadata server is asked, by GET.
    pub(super) form: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::serve) struct Failure {
    pub(in crate::serve) why: String,
    /// The server took the question for wrong (4xx): asking again soon changes nothing.
    pub(super) refused: bool,
    pub(super) retry_after: Option<Duration>,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { why, refused: false, retry_after: None }
    }
}

/// Both ways of a connection, with TLS or without.
pub(in crate::serve) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// The body of a 200.
pub(super) async fn ask(
    url: &Endpoint,
    question: Question,
    trust: &mut Trust,
    resolver: &Resolver,
) -> Result<Bytes, Failure> {
    let whole = async {
        let stream = connect(url, trust, resolver).await?;
        put(url, question, stream).await
    };
    timeout(WHOLE, whole).await.unwrap_or_else(|_| Err(format!("no answer within {WHOLE:?}").into()))
}

/// A connection to where `url` leads, by the first address that takes one.
pub(in crate::serve) async fn connect(
    url: &Endpoint,
    trust: &mut Trust,
    resolver: &Resolver,
) -> Result<Box<dyn Duplex>, Failure> {
    let (name, ips) = match &url.host {
        EndpointHost::Address(ip) => (ServerName::from(*ip), vec![*ip]),
        EndpointHost::Name(name) => {
            let watched = resolver.watch(name);
            watched.wait_first(RESOLVE).await.map_err(|error| format!("{name}: {error}"))?;
            let ips: Vec<IpAddr> = watched.current().iter().copied().take(ADDRESSES).collect();
            (ServerName::try_from(name.clone()).map_err(|error| error.to_string())?, ips)
        }
    };
    let connector = if url.tls { Some(trust.connector().await?) } else { None };
    let mut last = String::new();
    for ip in ips {
        let address = SocketAddr::new(ip, url.port);
        let dialled = async {
            let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            let stream: Box<dyn Duplex> = match &connector {
                None => Box::new(stream),
                Some(tls) => Box::new(tls.connect(name.clone(), stream).await.map_err(|error| error.to_string())?),
            };
            Ok::<_, String>(stream)
        };
        match timeout(CONNECT, dialled).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no connection within {CONNECT:?}"),
        }
    }
    Err(last.into())
}

async fn put(url: &Endpoint, question: Question, stream: Box<dyn Duplex>) -> Result<Bytes, Failure> {
    let told = |error: hyper::Error| Failure::from(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    // It ends with `sender`, or with the peer.
    let driven = tokio::spawn(connection);
    let is_metadata = question.form.is_none();
    let request = match is_metadata {
        // Whoever can have a machine send this by mistake can't set a header.
        true => Request::get(&question.target).header("metadata-flavor", "Google"),
        false => Request::post(&question.target).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded"),
    };
    let request = request
        .header(header::HOST, &url.authority)
        .header(header::ACCEPT, if is_metadata { "text/html, */*" } else { "application/json" })
        .header(header::USER_AGENT, "gatepost")
        .body(Full::new(Bytes::from(question.form.unwrap_or_default())))
        .map_err(|error| error.to_string())?;
    let result = async {
        let answer = sender.send_request(request).await.map_err(told)?;
        let status = answer.status();
        if status != 200 {
            let after = answer.headers().get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
            return Err(Failure {
                why: format!("it answered {status}"),
                refused: status.is_client_error() && status != 429,
                retry_after: after.map(Duration::from_secs),
            });
        }
        if is_metadata && answer.headers().get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
            return Err("what answered is no metadata server".to_owned().into());
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        Ok(body.map_err(|error| format!("its body: {error}"))?.to_bytes())
    }
    .await;
    driven.abort();
    result
}
