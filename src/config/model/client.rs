//! `[client.NAME]`: who may call, and how it shows who it is.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use http::HeaderName;

use super::{EndpointHost, Name, Networks};
use crate::config::secret::SecretRef;

/// `[client.NAME]`: networks (where given) and any one of its kinds of credentials (where given). It has at least one
/// of all these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Client {
    pub name: Name,
    pub owner: Option<String>,
    /// Empty: from anywhere; then it has credentials.
    pub networks: Networks,
    pub api_key: Option<ApiKey>,
    pub basic: Option<Basic>,
    pub jwt: Option<Jwt>,
    pub mtls: Option<Mtls>,
}

impl Client {
    /// Whether it is known by where it calls from alone.
    pub fn by_network_alone(&self) -> bool {
        self.api_key.is_none() && self.basic.is_none() && self.jwt.is_none() && self.mtls.is_none()
    }
}

/// `api_key = { sha256 = "file:…", header = "x-api-key" }`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiKey {
    pub header: HeaderName,
    /// Where the SHA-256 of the key is; several keys may be good at once.
    pub sha256: SecretRef,
}

/// `basic = { user = "…", sha256 = "file:…" }` (RFC 7617)
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Basic {
    /// Without a colon or a control character.
    pub user: String,
    /// Where the SHA-256 of the password is; several may be good at once.
    pub sha256: SecretRef,
}

/// `jwt = { issuer = "…", audience = "…", jwks = "…", algorithms = […] }` (RFC 7519)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    pub issuer: String,
    /// The token must be for one of them; never empty.
    pub audience: Vec<String>,
    pub keys: JwksSource,
    /// Never empty.
    pub algorithms: Vec<Algorithm>,
    /// `sub` must be one of them; empty: any.
    pub subject: Vec<String>,
    /// Claims that the token must have, sorted by name; without a value, any will do.
    pub claims: Vec<(String, Option<String>)>,
    /// How far clocks may be apart. Default 30 s.
    pub leeway: Duration,
}

/// `mtls = { subject = "…", san = "…", sha256 = "…" }`: each that is given must hold, and one is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Mtls {
    /// RFC 4514; one of these. Empty: any.
    pub subject: Vec<String>,
    /// The certificate is for one of these. Empty: for any.
    pub san: Vec<SanIs>,
    /// SHA-256 over the certificate's DER; one of these. Empty: any.
    pub sha256: Vec<[u8; 32]>,
}

/// A name that a certificate is for (RFC 5280 §4.2.1.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SanIs {
    /// Lower case.
    Dns(String),
    Uri(String),
    Email(String),
}

impl fmt::Display for SanIs {
    /// As the file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Email(email) => write!(f, "email:{email}"),
        }
    }
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JwksSource {
    /// Followed when its content changes.
    File(PathBuf),
    /// Fetched, kept and refreshed.
    Url(JwksUrl),
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => url.fmt(f),
        }
    }
}

/// An https URL of a key set, taken apart, and whom to trust for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JwksUrl {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query, as written; starts with a slash.
    pub target: String,
    /// PEM bundle that alone is trusted; `None`: the system's roots.
    pub ca: Option<PathBuf>,
}

impl JwksUrl {
    /// Host and port as the Host field and the URL write them (RFC 3986 §3.2.2).
    pub fn authority(&self) -> String {
        let host = match self.endpoint() {
            EndpointHost::Address(IpAddr::V6(ip)) => format!("[{ip}]"),
            host => host.to_string(),
        };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }

    pub fn endpoint(&self) -> EndpointHost {
        match self.host.parse() {
            Ok(ip) => EndpointHost::Address(ip),
            Err(_) => EndpointHost::Name(self.host.clone()),
        }
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.target)
    }
}

macro_rules! algorithms {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        /// How a token is signed: those of RFC 7518 §3.1 and RFC 8037 whose keys are public. `none` and the symmetric ones
        /// are not here, so that no token can ask for them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Algorithm {
            $($(#[$doc])* $name),*
        }

        impl Algorithm {
            pub const ALL: &[Self] = &[$(Self::$name),*];
            pub const WORDS: &[&str] = &[$($word),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word),*
                }
            }

            /// Case matters (RFC 7515 §4.1.1).
            pub fn named(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

algorithms! {
    Rs256 = "RS256",
    Rs384 = "RS384",
    Rs512 = "RS512",
    Ps256 = "PS256",
    Ps384 = "PS384",
    Ps512 = "PS512",
    Es256 = "ES256",
    Es384 = "ES384",
    /// Ed25519 alone.
    EdDsa = "EdDSA",
}
