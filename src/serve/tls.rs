//! A listener's certificates → what rustls serves them with.

use std::{collections::HashMap, fmt, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        CryptoProvider,
        ring::{self, cipher_suite, kx_group},
    },
    server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    acme::Wanted,
    certificate::{Held, Served, Source},
    listener::Way,
    tickets::{HandedKey, Ticketer},
};
use crate::config::{
    Loaded, Material,
    model::{ClientAuthNeed, Listener, Name, TlsCertificate, TlsProfile},
};

/// What a listener serves TLS with.
#[derive(Debug, Clone)]
pub struct Tls {
    pub config: Arc<ServerConfig>,
    pub trust: Trust,
    /// In the order of the config.
    certificates: Arc<[Source]>,
    resumption: Resumption,
}

/// By the listener's name.
pub type AllTls = HashMap<Name, Tls>;

/// Whom a listener believes: what began under one trust means nothing under another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust(Option<[u8; 32]>);

impl Trust {
    fn of(need: ClientAuthNeed, authorities: &[CertificateDer<'_>]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update([need as u8]);
        // Their order has no meaning.
        let mut hashes: Vec<_> = authorities.iter().map(Sha256::digest).collect();
        hashes.sort_unstable();
        for hash in hashes {
            hasher.update(hash);
        }
        Self(Some(hasher.finalize().into()))
    }
}

/// How callers come back: alike for all workers, and kept over reloads for as long as the listener's trust is the same.
///
/// One per listener: a ticket holds the identity that was proved when its session began, and rustls doesn't verify it again.
/// Another listener's tickets can't be read, and so mean nothing.
#[derive(Debug, Clone)]
struct Resumption {
    ticketer: Arc<Ticketer>,
    sessions: Arc<dyn StoresServerSessions>,
}

/// TLS 1.2 sessions that a listener remembers for callers who don't take tickets.
const SESSIONS: usize = 10_240;

impl Resumption {
    fn new() -> Result<Self, rustls::Error> {
        Ok(Self { ticketer: Ticketer::new()?, sessions: ServerSessionMemoryCache::new(SESSIONS) })
    }
}

/// Builds what the listeners of a config serve TLS with; callers who know a listener of `previous` may come back to it.
///
/// # Errors
///
/// The crypto provider has no randomness, or an authority can't be used.
pub fn prepare(loaded: &Loaded, way: Way, acme: &Wanted, previous: &AllTls) -> Result<AllTls, String> {
    let (listeners, protocols): (_, &[&[u8]]) = match way {
        Way::In => (&loaded.config.listeners, &[b"h2", b"http/1.1"]),
        Way::Out => (&loaded.config.egress.listeners, &[b"http/1.1"]),
    };
    let listeners = listeners.iter().filter(|listener| !listener.tls.is_empty());
    listeners
        .map(|listener| {
            let made = one(listener, &loaded.material, acme, previous.get(&listener.name), protocols);
            let label = way.label(&listener.name);
            Ok((listener.name.clone(), made.map_err(|e| format!("listener {label}: {e}"))?))
        })
        .collect()
}

fn one(
    listener: &Listener,
    material: &Material,
    acme: &Wanted,
    previous: Option<&Tls>,
    protocols: &[&[u8]],
) -> Result<Tls, String> {
    let told = |error: rustls::Error| error.to_string();
    let provider = Arc::new(provider(listener.tls_profile));
    let (verifier, trust) = match &listener.client_auth {
        None => (WebPkiClientVerifier::no_client_auth(), Trust(None)),
        Some(auth) => {
            let authorities = material.authority(&auth.ca).ok_or("its client_ca was not read")?;
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone()).map_err(told)?;
            }
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let builder = match auth.need {
                ClientAuthNeed::Required => builder,
                ClientAuthNeed::Optional => builder.allow_unauthenticated(),
            };
            (builder.build().map_err(|e| e.to_string())?, Trust::of(auth.need, authorities))
        }
    };
    let resumption = match previous.filter(|previous| previous.trust == trust) {
        Some(previous) => previous.resumption.clone(),
        None => Resumption::new().map_err(told)?,
    };
    let source = |certificate: &TlsCertificate| match certificate {
        TlsCertificate::Files(files) => material.key(files).map(|key| Source::Files(Arc::new(Held::of_files(key)))),
        TlsCertificate::Acme(one) => acme.slot(one).cloned().map(Source::Acme),
    };
    let certificates: Arc<[Source]> = listener.tls.iter().filter_map(source).collect();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(listener.tls_profile))
        .map_err(told)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(BySni::new(&certificates)));
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    config.ticketer = resumption.ticketer.clone();
    config.session_storage = resumption.sessions.clone();
    // Mozilla leaves the choice to callers, for phones without AES of their own; auditors' tools want it here. All suites are good ones.
    config.ignore_client_order = true;
    // One ticket is what a caller uses; each more costs as much as the first.
    config.send_tls13_tickets = 1;
    Ok(Tls { config: Arc::new(config), trust, certificates, resumption })
}

/// The keys of a listener's tickets, and whom it believes: they mean nothing to one that believes somebody else.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedTickets {
    listener: String,
    trust: Option<[u8; 32]>,
    keys: Vec<HandedKey>,
}

/// For another process.
pub fn handed(all: &AllTls, way: Way) -> Vec<HandedTickets> {
    let of = |(name, tls): (&Name, &Tls)| HandedTickets {
        listener: way.label(name).to_string(),
        trust: tls.trust.0,
        keys: tls.resumption.ticketer.handed(),
    };
    all.iter().map(of).collect()
}

/// Goes on with another process's keys.
pub fn adopt(all: &AllTls, way: Way, handed: &[HandedTickets]) {
    for (name, tls) in all {
        let label = way.label(name);
        let of = handed.iter().find(|handed| *handed.listener == *label && handed.trust == tls.trust.0);
        if let Some(of) = of {
            tls.resumption.ticketer.adopt(of.keys.clone());
        }
    }
}

fn versions(profile: TlsProfile) -> &'static [&'static SupportedProtocolVersion] {
    static MODERN: [&SupportedProtocolVersion; 1] = [&TLS13];
    static INTERMEDIATE: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match profile {
        TlsProfile::Modern => &MODERN,
        TlsProfile::Intermediate => &INTERMEDIATE,
    }
}

/// Ciphers and key exchange as Mozilla's server-side TLS guidelines 5.7 have them. Written out: what rustls comes to
/// offer by itself is another matter. Theirs has DHE too, which rustls never had.
fn provider(profile: TlsProfile) -> CryptoProvider {
    const TLS13_SUITES: [SupportedCipherSuite; 3] = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    const TLS12_SUITES: [SupportedCipherSuite; 6] = [
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let mut suites = TLS13_SUITES.to_vec();
    if profile == TlsProfile::Intermediate {
        suites.extend(TLS12_SUITES);
    }
    CryptoProvider {
        cipher_suites: suites,
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..ring::default_provider()
    }
}

/// Picks the certificate by the name that the caller asks for (RFC 6066 §3).
struct BySni {
    exact: HashMap<String, Source>,
    /// Of `*.example.com`: `example.com`.
    wildcard: HashMap<String, Source>,
    first: Option<Source>,
}

impl BySni {
    /// In the order of the config: the first is for callers without a known name.
    fn new(certificates: &[Source]) -> Self {
        let mut by = Self { exact: HashMap::new(), wildcard: HashMap::new(), first: certificates.first().cloned() };
        for source in certificates {
            for name in source.names() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by.wildcard, parent),
                    None => (&mut by.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_insert_with(|| source.clone());
            }
        }
        by
    }
}

impl fmt::Debug for BySni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BySni").field("exact", &self.exact.keys()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for BySni {
    /// `None` fails the handshake: the name waits for its first certificate.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let any = || self.first.as_ref().and_then(Source::held).map(|held| held.key.clone());
        let Some(name) = hello.server_name() else { return any() };
        // rustls has lower-cased it and dropped a dot at its end.
        let known = self
            .exact
            .get(name)
            // RFC 9525 §6.3: a wildcard stands for exactly one label.
            .or_else(|| name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)));
        match known {
            Some(Source::Files(held)) => Some(held.key.clone()),
            // It may hold one for some of its names only, until it gets its own.
            Some(Source::Acme(slot)) => slot.held().filter(|held| held.is_for(name)).map(|held| held.key.clone()),
            None => any(),
        }
    }
}

/// The certificates of all listeners, by the listeners' names.
pub fn served(all: &AllTls, way: Way) -> Vec<Served> {
    let mut listeners: Vec<_> = all.iter().collect();
    listeners.sort_by_key(|(name, _)| *name);
    let mut served = Vec::new();
    for (name, tls) in listeners {
        served
            .extend(tls.certificates.iter().map(|source| Served { listener: way.label(name), source: source.clone() }));
    }
    served
}
