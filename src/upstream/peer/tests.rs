use std::io::Write;

use pingora_core::{
    connectors::{ConnectorOptions, http::Connector},
    protocols::http::client::HttpSession,
    upstreams::peer::Peer,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::NamedTempFile;
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    decide::Reason,
    upstream::{
        Phase, classify_error,
        target::tests::{function, version},
    },
};

/// An authority that signs what it is asked to.
struct Authority(Issuer<'static, KeyPair>, CertificateDer<'static>, String);

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).unwrap();
        let (der, pem) = (own.der().clone(), own.pem());
        Self(Issuer::new(params, key), der, pem)
    }

    fn certificate(&self) -> Vec<CertificateDer<'static>> {
        vec![self.1.clone()]
    }
}

/// A TLS server on loopback that shakes hands, agrees on a protocol and then only listens.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(authority: &Authority, name: &str, alpn: &[&str]) -> Self {
        Self::with(authority, name, alpn, |_| ()).await
    }

    async fn with(authority: &Authority, name: &str, alpn: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        edit(&mut params);
        let certificate = params.signed_by(&key, &authority.0).unwrap();
        let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(mut stream) = acceptor.accept(socket).await {
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                    }
                });
            }
        });
        Self { address, task }
    }

    /// The peer of a version whose URL has `host`, at this server.
    fn peer(&self, host: &str, http: UpstreamHttp, ca: Option<&[CertificateDer<'static>]>) -> HttpPeer {
        let version = version(true, host, self.address.port());
        let mut peer = template(&version, &function(http), ca).unwrap();
        peer._address = self.address.into();
        peer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connector whose own trust (`ca_file`) is `authority`'s, as the system's roots would be.
fn connector(authority: &Authority) -> Connector {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(authority.2.as_bytes()).unwrap();
    let mut options = ConnectorOptions::new(16);
    options.ca_file = Some(file.path().to_str().unwrap().to_owned());
    Connector::new(Some(options))
}

async fn spoken(connector: &Connector, peer: &HttpPeer) -> &'static str {
    match connector.get_http_session(peer).await.unwrap().0 {
        HttpSession::H1(_) => "1.1",
        HttpSession::H2(_) => "2",
        HttpSession::Custom(()) => "custom",
    }
}

async fn refused(connector: &Connector, peer: &HttpPeer) -> String {
    let Err(error) = connector.get_http_session(peer).await else {
        panic!("connected to {peer}");
    };
    let failure = classify_error(&error).unwrap();
    assert_eq!(failure.reason, Reason::UpstreamUnreachable, "{error}");
    assert_eq!(failure.phase, Phase::Connect);
    failure.detail
}

#[tokio::test]
async fn a_version_is_reached_under_its_name_with_its_authority() {
    let (system, own) = (Authority::new("system"), Authority::new("own"));
    let connector = connector(&system);
    let server = Server::start(&own, "orders.test", &["h2", "http/1.1"]).await;
    let ca = own.certificate();
    let peer = server.peer("orders.test", UpstreamHttp::Auto, Some(&ca));
    assert_eq!(spoken(&connector, &peer).await, "2");
}

#[tokio::test]
async fn without_an_authority_of_its_own_the_systems_count() {
    let system = Authority::new("system");
    let connector = connector(&system);
    let server = Server::start(&system, "orders.test", &["h2", "http/1.1"]).await;
    let peer = server.peer("orders.test", UpstreamHttp::Auto, None);
    assert_eq!(spoken(&connector, &peer).await, "2");

    let own = Authority::new("own");
    let server = Server::start(&own, "orders.test", &[]).await;
    let peer = server.peer("orders.test", UpstreamHttp::Auto, None);
    assert_eq!(
        refused(&connector, &peer).await,
        "certificate not accepted: not signed by an authority that is trusted for this version"
    );
}

#[tokio::test]
async fn an_authority_of_its_own_is_the_only_one() {
    let (system, own) = (Authority::new("system"), Authority::new("own"));
    let connector = connector(&system);
    let server = Server::start(&system, "orders.test", &[]).await;
    let ca = own.certificate();
    let peer = server.peer("orders.test", UpstreamHttp::Auto, Some(&ca));
    let detail = refused(&connector, &peer).await;
    assert!(detail.contains("not signed by"), "{detail}");
}

#[tokio::test]
async fn another_name_or_an_old_certificate_is_refused() {
    let system = Authority::new("system");
    let connector = connector(&system);
    let server = Server::start(&system, "reports.test", &[]).await;
    let peer = server.peer("orders.test", UpstreamHttp::Auto, None);
    let detail = refused(&connector, &peer).await;
    assert!(detail.starts_with("certificate not accepted: certificate not valid for name"), "{detail}");
    assert!(!detail.contains("SNI"), "{detail}");

    let server = Server::with(&system, "orders.test", &[], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    })
    .await;
    let peer = server.peer("orders.test", UpstreamHttp::Auto, None);
    let detail = refused(&connector, &peer).await;
    assert!(detail.contains("expired"), "{detail}");
}

#[tokio::test]
async fn an_address_is_verified_as_an_address() {
    let system = Authority::new("system");
    let connector = connector(&system);
    let server = Server::start(&system, "127.0.0.1", &[]).await;
    let peer = server.peer("127.0.0.1", UpstreamHttp::Auto, None);
    assert!(!peer.sni.is_empty());
    assert_eq!(spoken(&connector, &peer).await, "1.1");

    let server = Server::start(&system, "orders.test", &[]).await;
    let peer = server.peer("127.0.0.1", UpstreamHttp::Auto, None);
    let detail = refused(&connector, &peer).await;
    assert!(detail.contains("certificate not accepted"), "{detail}");
}

#[tokio::test]
async fn the_function_says_what_is_spoken() {
    let system = Authority::new("system");
    let connector = connector(&system);
    let both = Server::start(&system, "orders.test", &["h2", "http/1.1"]).await;
    let old = Server::start(&system, "orders.test", &["http/1.1"]).await;
    for (server, http, wanted) in [
        (&both, UpstreamHttp::Auto, "2"),
        (&both, UpstreamHttp::Http1, "1.1"),
        (&both, UpstreamHttp::Http2, "2"),
        (&old, UpstreamHttp::Auto, "1.1"),
        (&old, UpstreamHttp::Http1, "1.1"),
    ] {
        let peer = server.peer("orders.test", http, None);
        assert_eq!(spoken(&connector, &peer).await, wanted, "{http:?}");
    }
    let peer = old.peer("orders.test", UpstreamHttp::Http2, None);
    let detail = refused(&connector, &peer).await;
    assert!(detail.contains("handshake failed"), "{detail}");
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_in_time() {
    let system = Authority::new("system");
    let connector = connector(&system);
    // Accepts (the kernel does), and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut function = function(UpstreamHttp::Auto);
    function.timeouts.connect = Duration::from_millis(50);
    let version = version(true, "orders.test", address.port());
    let mut peer = template(&version, &function, None).unwrap();
    peer._address = address.into();
    let detail = refused(&connector, &peer).await;
    assert!(detail.starts_with("connecting took too long"), "{detail}");
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let system = Authority::new("system");
    let connector = connector(&system);
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let version = version(false, "127.0.0.1", address.port());
    let mut peer = template(&version, &function(UpstreamHttp::Auto), None).unwrap();
    peer._address = address.into();
    let detail = refused(&connector, &peer).await;
    assert!(detail.starts_with("connection refused"), "{detail}");
}

#[test]
fn connections_are_not_shared_across_authorities_protocols_and_names() {
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let (one, other) = (one.certificate(), other.certificate());
    let peer = |tls, host, http, ca: Option<&[_]>| template(&version(tls, host, 443), &function(http), ca).unwrap();
    let (auto, h1, h2) = (UpstreamHttp::Auto, UpstreamHttp::Http1, UpstreamHttp::Http2);
    let peers = [
        peer(true, "orders.test", auto, None),
        peer(true, "orders.test", auto, Some(&one)),
        peer(true, "orders.test", auto, Some(&other)),
        peer(true, "orders.test", h1, Some(&one)),
        peer(true, "orders.test", h2, Some(&one)),
        peer(true, "reports.test", auto, None),
        peer(false, "orders.test", auto, None),
        peer(false, "orders.test", h2, None),
    ];
    for (at, peer) in peers.iter().enumerate() {
        for another in &peers[at + 1..] {
            assert_ne!(peer.reuse_hash(), another.reuse_hash(), "{peer} {another}");
        }
    }
    // The same words after a reload: the pooled connections stay in use.
    let again = peer(true, "orders.test", auto, Some(&one));
    assert_eq!(again.reuse_hash(), peers[1].reuse_hash());
}

#[test]
fn every_option_that_has_a_bad_default_is_set() {
    let peer = template(&version(true, "orders.test", 443), &function(UpstreamHttp::Auto), None).unwrap();
    let options = &peer.options;
    assert!(options.verify_cert && options.verify_hostname);
    assert_eq!(options.connection_timeout, Some(Duration::from_secs(3)));
    assert_eq!(options.total_connection_timeout, Some(Duration::from_secs(3)));
    assert_eq!(options.read_timeout, Some(Duration::from_secs(40)));
    assert_eq!(options.write_timeout, Some(Duration::from_secs(30)));
    assert_eq!(options.idle_timeout, Some(Duration::from_secs(25)));
    assert_eq!(options.max_h2_streams, 100);
    assert!(options.tcp_keepalive.is_some());
}

#[test]
fn a_bad_authority_is_an_error_and_not_a_panic() {
    let function = function(UpstreamHttp::Auto);
    let version = version(true, "orders.test", 443);
    let build = |ca: &[CertificateDer<'static>]| template(&version, &function, Some(ca)).map(drop);
    assert_eq!(build(&[]), Err(BadCa::Empty));
    let mut ca = Authority::new("own").certificate();
    ca.push(CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x00]));
    let Err(BadCa::Certificate { number, .. }) = build(&ca) else {
        panic!("accepted");
    };
    assert_eq!(number, 2);
}

#[test]
fn a_connection_waits_no_longer_than_it_may_grow_old() {
    let version = version(false, "127.0.0.1", 80);
    let idle = |idle, age: Option<u64>| {
        let mut function = function(UpstreamHttp::Auto);
        function.pool.idle = Duration::from_secs(idle);
        function.pool.age = age.map(Duration::from_secs);
        template(&version, &function, None).unwrap().options.idle_timeout
    };
    assert_eq!(idle(25, None), Some(Duration::from_secs(25)));
    assert_eq!(idle(25, Some(60)), Some(Duration::from_secs(25)));
    assert_eq!(idle(25, Some(5)), Some(Duration::from_secs(5)));
    assert_eq!(idle(0, Some(5)), Some(SHORTEST_IDLE));
}
