//! Certificates made on the spot, and TLS on both sides.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tempfile::TempDir;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use super::wire::Duplex;

/// A certificate authority that only this test trusts.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    dir: TempDir,
}

/// A certificate with its key, in files and in memory.
pub(crate) struct Leaf {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

/// What a caller proves by.
#[derive(Clone)]
pub(crate) struct ClientLeaf {
    pub(crate) pem: String,
    pub(crate) key_pem: String,
    pub(crate) der: CertificateDer<'static>,
    key: Vec<u8>,
}

pub(crate) fn authority() -> Authority {
    authority_called("gatepost test authority")
}

pub(crate) fn authority_called(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    Authority {
        pem: cert.pem(),
        der: cert.der().clone(),
        issuer: Issuer::new(params, key),
        dir: TempDir::new().unwrap(),
    }
}

impl Authority {
    /// The file that holds the authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        let path = self.dir.path().join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// A certificate for these names and addresses, in `FIRST.pem` and `FIRST.key`.
    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf {
        let (cert_pem, key_pem, der, key_der) = self.issue(names);
        let stem = names[0].replace('*', "any");
        let cert = self.dir.path().join(format!("{stem}.pem"));
        let key = self.dir.path().join(format!("{stem}.key"));
        std::fs::write(&cert, cert_pem).unwrap();
        std::fs::write(&key, key_pem).unwrap();
        Leaf { cert, key, der, key_der }
    }

    /// A further certificate for the key of `leaf`.
    pub(crate) fn same_key(&self, leaf: &Leaf, names: &[&str]) -> Leaf {
        let key = KeyPair::from_pem(&std::fs::read_to_string(&leaf.key).unwrap()).unwrap();
        let (cert_pem, _, der, key_der) = self.issue_for(key, names);
        let cert = self.dir.path().join(format!("{}.pem", names[0]));
        std::fs::write(&cert, cert_pem).unwrap();
        Leaf { cert, key: leaf.key.clone(), der, key_der }
    }

    /// A certificate of a caller's own, called so.
    pub(crate) fn client(&self, name: &str) -> ClientLeaf {
        self.client_with(name, |_| {})
    }

    pub(crate) fn client_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> ClientLeaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        ClientLeaf { pem: cert.pem(), key_pem: key.serialize_pem(), der: cert.der().clone(), key: key.serialize_der() }
    }

    fn issue(&self, names: &[&str]) -> (String, String, CertificateDer<'static>, Vec<u8>) {
        self.issue_for(KeyPair::generate().unwrap(), names)
    }

    fn issue_for(&self, key: KeyPair, names: &[&str]) -> (String, String, CertificateDer<'static>, Vec<u8>) {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let chain = format!("{}{}", cert.pem(), self.pem);
        (chain, key.serialize_pem(), cert.der().clone(), key.serialize_der())
    }

    /// Signs what a certificate request asks for, valid so long from a moment so long ago.
    pub(crate) fn sign(&self, mut request: CertificateSigningRequestParams, ago: Duration, life: Duration) -> String {
        request.params.not_before = (SystemTime::now() - ago).into();
        request.params.not_after = (SystemTime::now() - ago + life).into();
        request.params.use_authority_key_identifier_extension = true;
        let cert = request.signed_by(&self.issuer).unwrap();
        format!("{}{}", cert.pem(), self.pem)
    }

    /// The same as [`leaf`](Self::leaf), valid until then.
    pub(crate) fn leaf_until(&self, names: &[&str], until: SystemTime) -> Leaf {
        let leaf = self.leaf(names);
        let mut params = CertificateParams::new(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_after = until.into();
        let key = KeyPair::from_pem(&std::fs::read_to_string(&leaf.key).unwrap()).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(&leaf.cert, cert.pem()).unwrap();
        Leaf { der: cert.der().clone(), ..leaf }
    }

    /// A caller that trusts this authority alone, and offers `alpn`.
    pub(crate) fn caller(&self, alpn: &[&str]) -> TlsCaller {
        self.caller_with(alpn, rustls::DEFAULT_VERSIONS)
    }

    pub(crate) fn caller_with(
        &self,
        alpn: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsCaller {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        TlsCaller { config: Arc::new(config) }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Leaf {
    /// `tls = [{ cert = …, key = … }]` in a config's words.
    pub(crate) fn toml(&self) -> String {
        format!("{{ cert = \"{}\", key = \"{}\" }}", self.cert.display(), self.key.display())
    }

    /// Puts `other`'s certificate and key where this one's are.
    pub(crate) fn replace_with(&self, other: &Self) {
        // The key first: whoever looks in between sees a pair that does not match, and must wait for the second half.
        std::fs::rename(&other.key, &self.key).unwrap();
        std::fs::rename(&other.cert, &self.cert).unwrap();
    }

    /// A server with this certificate, for origins.
    pub(crate) fn acceptor(&self, alpn: &[&str]) -> TlsAcceptor {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// One caller's TLS settings and session cache.
#[derive(Clone)]
pub(crate) struct TlsCaller {
    config: Arc<ClientConfig>,
}

/// What a handshake agreed on.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    pub(crate) alpn: Option<String>,
    pub(crate) version: ProtocolVersion,
    pub(crate) resumed: bool,
    pub(crate) peer: CertificateDer<'static>,
}

impl TlsCaller {
    /// The same caller with a certificate to show, and nothing remembered.
    pub(crate) fn showing(&self, leaf: &ClientLeaf) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.key.clone()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        let certified = Arc::new(rustls::sign::CertifiedKey::new(vec![leaf.der.clone()], key));
        let mut config = (*self.config).clone();
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        config.resumption = rustls::client::Resumption::default();
        Self { config: Arc::new(config) }
    }

    /// Shakes hands on `io`, asking for `name`.
    pub(crate) async fn handshake(
        &self,
        io: impl Duplex + 'static,
        name: &str,
    ) -> io::Result<(client::TlsStream<Box<dyn Duplex>>, Agreed)> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let io: Box<dyn Duplex> = Box::new(io);
        let stream = TlsConnector::from(self.config.clone()).connect(name, io).await?;
        let (_, session) = stream.get_ref();
        let agreed = Agreed {
            alpn: session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned()),
            version: session.protocol_version().unwrap(),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            peer: session.peer_certificates().unwrap()[0].clone().into_owned(),
        };
        Ok((stream, agreed))
    }

    /// The same caller without the names' extension: as one that knows no SNI.
    pub(crate) fn without_sni(&self) -> Self {
        let mut config = (*self.config).clone();
        config.enable_sni = false;
        Self { config: Arc::new(config) }
    }
}
