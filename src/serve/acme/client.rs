//! How an ACME directory is asked: one HTTPS request, one connection. There are a dozen per order, and an order is rare.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// No answer of an authority takes longer, or is larger: a chain of certificates has some KiB.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST: usize = 1 << 20;

type Failure = Box<dyn StdError + Send + Sync>;

#[derive(Clone)]
pub(super) struct Https {
    tls: TlsConnector,
    told: Arc<Mutex<Option<Duration>>>,
}

impl Https {
    /// A client that believes `roots`; `None`: the system's.
    pub(super) fn new(roots: Option<&[CertificateDer<'static>]>) -> Result<Self, Failure> {
        let mut store = RootCertStore::empty();
        match roots {
            Some(roots) => {
                for root in roots {
                    store.add(root.clone())?;
                }
            }
            None => {
                // Of many, one that can't be read harms nobody.
                store.add_parsable_certificates(rustls_native_certs::load_native_certs()?);
            }
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), told: Arc::default() })
    }

    /// How long the last refusal asked to wait (`Retry-After`), once.
    pub(super) fn asked_to_wait(&self) -> Option<Duration> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn exchange(&self, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, Failure> {
        let uri = request.uri();
        // RFC 8555 §6.1: whatever the directory names is asked by https.
        if uri.scheme_str() != Some("https") {
            return Err(format!("{uri} is no https URL").into());
        }
        let authority = uri.authority().ok_or("a URL without a host")?.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone())?;
        let tcp = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
        let stream = self.tls.connect(name, tcp).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
        connection.abort();
        if parts.status.is_client_error() || parts.status.is_server_error() {
            let seconds = parts.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = seconds.map(Duration::from_secs);
        }
        Ok(Response::from_parts(parts, Full::new(body)))
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            let asked = request.uri().clone();
            let answer = tokio::time::timeout(PATIENCE, this.exchange(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
            answer.map(BytesResponse::from).map_err(|e| Error::Other(format!("{asked}: {e}").into()))
        })
    }
}
