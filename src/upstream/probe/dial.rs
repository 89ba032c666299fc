//! A connection as gatepost makes it, and what was seen on the way.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection that is there.
pub struct Line {
    pub stream: Box<dyn Duplex>,
    pub speaks_h2: bool,
    /// By which of this machine's addresses it leaves.
    pub local: SocketAddr,
    pub connect: Duration,
    pub tls: Option<Duration>,
    pub certificate: Option<Shown>,
}

/// Why there is none.
pub struct Broken {
    pub what: String,
    /// The certificate was shown, and is not good enough.
    pub distrust: Option<Distrust>,
}

/// Why a certificate is not believed.
pub struct Distrust {
    pub why: rustls::CertificateError,
    pub shown: Option<Shown>,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    pub names: Vec<String>,
    pub issuer: String,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

impl Shown {
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
        let validity = parsed.validity();
        Some(Self {
            names: names.collect(),
            issuer: parsed.issuer().to_string(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|four| std::net::Ipv4Addr::from(four).to_string()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string()),
        _ => None,
    }
}

/// Whom to believe, by which name, and what to offer.
pub struct Tls {
    pub roots: Arc<RootCertStore>,
    pub name: ServerName<'static>,
    pub alpn: &'static [&'static [u8]],
}

/// Connects to `address`; TCP and TLS together may take `within`.
///
/// # Errors
///
/// What was met, for people.
pub async fn dial(address: SocketAddr, tls: Option<&Tls>, h2: bool, within: Duration) -> Result<Line, Broken> {
    let broken = |what: String| Broken { what, distrust: None };
    let late = || broken(format!("no connection within {within:?}"));
    let begun = Instant::now();
    let tcp = timeout(within, TcpStream::connect(address)).await.map_err(|_| late())?;
    let tcp = tcp.map_err(|error| broken(error.to_string()))?;
    let connect = begun.elapsed();
    let local = tcp.local_addr().map_err(|error| broken(error.to_string()))?;
    let Some(tls) = tls else {
        let stream = Box::new(tcp);
        return Ok(Line { stream, speaks_h2: h2, local, connect, tls: None, certificate: None });
    };
    let noting = Noting::new(&tls.roots).map_err(broken)?;
    let config = client(noting.clone(), tls.alpn).map_err(broken)?;
    let begun = Instant::now();
    let shaken = TlsConnector::from(config).connect(tls.name.clone(), tcp);
    let shaken = timeout(within.saturating_sub(connect), shaken).await.map_err(|_| late())?;
    let certificate = noting.shown();
    match shaken {
        Ok(stream) => {
            let speaks_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let stream = Box::new(stream);
            Ok(Line { stream, speaks_h2, local, connect, tls: Some(begun.elapsed()), certificate })
        }
        Err(error) => {
            let what = error.to_string();
            let distrust = distrust(&error).map(|why| Distrust { why, shown: certificate });
            Err(Broken { what, distrust })
        }
    }
}

fn distrust(error: &io::Error) -> Option<rustls::CertificateError> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(why) => Some(why.clone()),
        _ => None,
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client(verifier: Arc<Noting>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    // Nothing is let through that rustls' own verifier doesn't: it is asked, and what it was shown is kept.
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|word| word.to_vec()).collect();
    Ok(Arc::new(config))
}

/// rustls' verifier, and the certificate that it was shown.
#[derive(Debug)]
struct Noting {
    judge: Arc<WebPkiServerVerifier>,
    shown: Mutex<Option<CertificateDer<'static>>>,
}

impl Noting {
    fn new(roots: &Arc<RootCertStore>) -> Result<Arc<Self>, String> {
        let judge = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build();
        let judge = judge.map_err(|error| error.to_string())?;
        Ok(Arc::new(Self { judge, shown: Mutex::default() }))
    }

    fn shown(&self) -> Option<Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|der| Shown::read(der))
    }
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        self.judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}
