//! `[cluster]`: several gateposts that share limits and releases.

use std::{fmt, path::PathBuf};

use super::EndpointHost;
use crate::config::secret::SecretRef;

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub redis: RedisUrl,
    /// `None`: the server's default user.
    pub username: Option<String>,
    pub password: Option<SecretRef>,
    /// `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// What the keys there begin with. Default `gatepost`.
    pub prefix: String,
    /// `None`: the host's name.
    pub member: Option<String>,
}

/// `redis://10.0.0.9:6379/2`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Written `rediss://`.
    pub tls: bool,
    pub host: EndpointHost,
    /// Default 6379.
    pub port: u16,
    pub database: u32,
}

impl fmt::Display for RedisUrl {
    /// As the file may have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.host {
            EndpointHost::Address(ip) if ip.is_ipv6() => write!(f, "{scheme}://[{ip}]:{}", self.port)?,
            host => write!(f, "{scheme}://{host}:{}", self.port)?,
        }
        match self.database {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}

/// Among whom a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitScope {
    /// This gatepost's requests alone: exactly.
    #[default]
    Instance,
    /// Those of all members together.
    Cluster,
}

impl LimitScope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Cluster => "cluster",
        }
    }
}
