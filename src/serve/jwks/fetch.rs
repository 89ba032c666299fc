//! One GET of a key set: https with names that resolve now, bounded in time and size, no redirects.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    config::{
        jwks::MOST_BYTES,
        model::{EndpointHost, JwksUrl},
    },
    serve::client_tls::client,
    upstream::Resolver,
};

/// The whole of it.
const WHOLE: Duration = Duration::from_secs(15);
const RESOLVE: Duration = Duration::from_secs(5);
/// TCP and TLS to one address, and to so many.
const CONNECT: Duration = Duration::from_secs(4);
const ADDRESSES: usize = 3;

pub(super) struct Fetched {
    pub(super) body: Vec<u8>,
    /// `Cache-Control: max-age` (RFC 9111 §5.2.2.1); zero where the answer is not to be kept.
    pub(super) max_age: Option<Duration>,
}

/// Whom to trust; made when it is needed first, since the system's roots take a while.
pub struct Trust {
    ca: Option<Vec<CertificateDer<'static>>>,
    made: Option<TlsConnector>,
}

impl Trust {
    pub fn new(ca: Option<Vec<CertificateDer<'static>>>) -> Self {
        Self { ca, made: None }
    }

    pub(in crate::serve) async fn connector(&mut self) -> Result<TlsConnector, String> {
        if let Some(made) = &self.made {
            return Ok(made.clone());
        }
        let ca = self.ca.clone();
        // The system's roots are read from the disk.
        let config = tokio::task::spawn_blocking(move || client(ca.as_deref())).await;
        let config = config.map_err(|error| error.to_string())??;
        let made = TlsConnector::from(Arc::new(config));
        self.made = Some(made.clone());
        Ok(made)
    }
}

/// Fetches a key set.
///
/// # Errors
///
/// What went wrong, for the log.
pub(super) async fn fetch(url: &JwksUrl, trust: &mut Trust, resolver: &Resolver) -> Result<Fetched, String> {
    let connector = trust.connector().await?;
    match timeout(WHOLE, get(url, &connector, resolver)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {WHOLE:?}")),
    }
}

async fn get(url: &JwksUrl, connector: &TlsConnector, resolver: &Resolver) -> Result<Fetched, String> {
    let (name, addresses) = match url.endpoint() {
        EndpointHost::Address(ip) => (ServerName::from(ip), vec![ip]),
        EndpointHost::Name(name) => {
            let watched = resolver.watch(&name);
            watched.wait_first(RESOLVE).await.map_err(|error| format!("{name}: {error}"))?;
            let addresses: Vec<IpAddr> = watched.current().iter().copied().take(ADDRESSES).collect();
            (ServerName::try_from(name).map_err(|error| error.to_string())?, addresses)
        }
    };
    let mut last = String::new();
    for ip in addresses {
        let address = SocketAddr::new(ip, url.port);
        let connect = async {
            let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            connector.connect(name.clone(), stream).await.map_err(|error| error.to_string())
        };
        match timeout(CONNECT, connect).await {
            Ok(Ok(stream)) => return ask(url, TokioIo::new(stream)).await,
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no connection within {CONNECT:?}"),
        }
    }
    Err(last)
}

async fn ask<T>(url: &JwksUrl, stream: TokioIo<T>) -> Result<Fetched, String>
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(stream).await.map_err(told)?;
    // It ends with `sender`, or with the peer.
    let driven = tokio::spawn(connection);
    let request = Request::get(&url.target)
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, "gatepost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let result = async {
        let answer = sender.send_request(request).await.map_err(told)?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(format!("it answered {status}: write the URL that it leads to"));
        }
        if status != 200 {
            return Err(format!("it answered {status}"));
        }
        let controls = answer.headers().get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        let max_age = max_age(controls.flat_map(|value| value.split(',')));
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| format!("its body: {error}"))?.to_bytes();
        Ok(Fetched { body: body.into(), max_age })
    }
    .await;
    driven.abort();
    result
}

fn max_age<'v>(directives: impl Iterator<Item = &'v str>) -> Option<Duration> {
    let mut found = None;
    for directive in directives {
        let directive = directive.trim().to_ascii_lowercase();
        match directive.split_once('=') {
            None if directive == "no-store" || directive == "no-cache" => return Some(Duration::ZERO),
            Some(("max-age", seconds)) => found = seconds.trim_matches('"').parse().ok().map(Duration::from_secs),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_may_be_kept_is_said_in_cache_control() {
        let age = |value: &str| max_age(value.split(',')).map(|age| age.as_secs());
        assert_eq!(age("public, max-age=3600, must-revalidate"), Some(3600));
        assert_eq!(age("Max-Age=\"5\""), Some(5));
        assert_eq!(age("max-age=3600, no-store"), Some(0));
        assert_eq!(age("no-cache"), Some(0));
        assert_eq!(age("private"), None);
        assert_eq!(age("max-age=-1"), None);
        assert_eq!(age("max-age=99999999999999999999"), None);
    }
}
