//! A listener's certificates → what rustls serves them with.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    ServerConfig,
    server::{ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{config::Loaded, observe::metrics::CertificateExpiry};

/// What survives every reload: tickets and sessions of callers who come back.
struct Resumption {
    ticketer: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

/// TLS 1.2 sessions that are remembered for callers who don't take tickets.
const SESSIONS: usize = 10_240;

fn resumption() -> Result<&'static Resumption, rustls::Error> {
    static ONE: OnceLock<Resumption> = OnceLock::new();
    if let Some(one) = ONE.get() {
        return Ok(one);
    }
    // Keys of its own, changed every six hours, alike for all listeners and workers: a caller may come back anywhere.
    let ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(ONE.get_or_init(|| Resumption { ticketer, sessions: ServerSessionMemoryCache::new(SESSIONS) }))
}

/// Builds what a listener serves TLS with. `keys` in the order of the config: the first is for callers without a known name.
///
/// # Errors
///
/// The crypto provider has no randomness, or does not know a protocol version.
pub fn server_config(keys: Vec<Arc<CertifiedKey>>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let resumption = resumption()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni::new(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = resumption.ticketer.clone();
    config.session_storage = resumption.sessions.clone();
    // One ticket is what a caller uses; each more costs as much as the first.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Picks the certificate by the name that the caller asks for (RFC 6066 §3).
struct BySni {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// Of `*.example.com`: `example.com`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl BySni {
    fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut by = Self { exact: HashMap::new(), wildcard: HashMap::new(), first: keys.first().cloned() };
        for key in keys {
            for name in names(&key) {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by.wildcard, parent),
                    None => (&mut by.exact, name.as_str()),
                };
                map.entry(name.to_ascii_lowercase()).or_insert_with(|| key.clone());
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
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name() else { return self.first.clone() };
        // rustls has lower-cased it and dropped a dot at its end.
        self.exact
            .get(name)
            // RFC 9525 §6.3: a wildcard stands for exactly one label.
            .or_else(|| name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)))
            .or(self.first.as_ref())
            .cloned()
    }
}

/// The DNS names that a certificate is for.
fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = key.cert.first() else { return Vec::new() };
    match webpki::EndEntityCert::try_from(leaf) {
        Ok(cert) => cert.valid_dns_names().map(str::to_owned).collect(),
        // It still serves callers who are given no choice.
        Err(_) => Vec::new(),
    }
}

/// When the certificates of all listeners end to be valid, for the metrics.
pub fn expiries(loaded: &Loaded) -> Vec<CertificateExpiry> {
    let mut all = Vec::new();
    for listener in &loaded.config.listeners {
        for key in listener.tls.iter().filter_map(|files| loaded.material.key(files)) {
            let Some(Ok((_, cert))) = key.cert.first().map(|leaf| X509Certificate::from_der(leaf)) else { continue };
            all.push(CertificateExpiry {
                listener: listener.name.to_string(),
                name: names(key).into_iter().next().unwrap_or_default(),
                not_after: cert.validity().not_after.timestamp(),
            });
        }
    }
    all
}
