//! `[listener.NAME]`: where callers come in, and what they must show.

use std::{path::PathBuf, time::Duration};

use super::*;

/// `[listener.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub name: Name,
    pub address: ListenAddress,
    /// Whether it listens although this machine has not the address now: it is to come.
    pub freebind: bool,
    /// Empty: plain HTTP. Chosen by SNI; the first is for callers without a (known) name.
    pub tls: Vec<TlsCertificate>,
    pub tls_profile: TlsProfile,
    /// `None`: callers are asked for no certificate.
    pub client_auth: Option<ClientAuth>,
    /// Peers that must send the PROXY header; all others may not.
    pub proxy_protocol: Option<Networks>,
    /// HTTP/2 with prior knowledge on a plain listener (RFC 9113 §3.3).
    pub h2c: bool,
    /// Connections on this listener; `None`: only the total counts.
    pub max_connections: Option<NonZeroU32>,
    /// Connections from one address, or from one /64 of IPv6; `None`: any number.
    pub max_connections_per_ip: Option<NonZeroU32>,
    pub timeouts: ListenerTimeouts,
    /// Permission bits of a unix socket. Default `0660`.
    pub mode: u32,
}

/// One of a listener's `tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsCertificate {
    /// `{ cert = "…", key = "…" }`
    Files(CertificateFiles),
    /// `{ acme = { domains = […] } }`
    Acme(Acme),
}

/// A certificate that gatepost gets itself (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Acme {
    /// The directory's https URL.
    pub directory: String,
    /// Where the authority may write to.
    pub email: Option<String>,
    /// In the order of the file, lower case; never empty.
    pub domains: Vec<String>,
    /// PEM bundle that alone vouches for the directory; `None`: the system's roots.
    pub ca: Option<PathBuf>,
}

/// Let's Encrypt's.
pub const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `tls_profile = "modern" | "intermediate"`: Mozilla's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsProfile {
    /// TLS 1.3 alone.
    Modern,
    /// TLS 1.2 with ECDHE and AEAD, and 1.3. The default.
    #[default]
    Intermediate,
}

/// `client_ca = "…"` and `client_auth = "required" | "optional"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM bundle that alone vouches for callers.
    pub ca: PathBuf,
    pub need: ClientAuthNeed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientAuthNeed {
    /// No handshake without a good certificate. The default.
    #[default]
    Required,
    /// A caller may come without one; a wrong one is refused.
    Optional,
}

/// `[listener.NAME] timeouts = { … }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// PROXY header and TLS handshake, and the h2 preface. Default 10 s.
    pub handshake: Duration,
    /// First byte of a request's head to its last. Default 10 s.
    pub header: Duration,
    /// Between two reads of a request's body, or two writes of an answer that nobody takes. Default 30 s.
    pub body: Duration,
    /// A kept connection without a request. Default 75 s.
    pub idle: Duration,
    /// `min_body_rate`, beside `timeouts`: bytes a second that a body must come at, and an answer be taken at, while the
    /// caller is waited for; `None`: any. Default 500.
    pub min_body_rate: Option<NonZeroU32>,
}
