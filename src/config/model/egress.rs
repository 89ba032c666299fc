//! `[egress]`: the way out.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use super::{ClientId, EgressSourceId, Endpoint, EndpointHost, Limit, Listener, Name, Networks};
use crate::config::secret::SecretRef;

/// `[egress]` and its tables. Without a listener there is no way out.
#[derive(Debug, Clone)]
pub struct Egress {
    /// For destinations that no rule takes.
    pub mode: EgressMode,
    /// Whom to ask: told to everyone who is refused.
    pub deny_message: Option<String>,
    pub on_revoke: OnRevoke,
    pub timeouts: EgressTimeouts,
    /// The percentage of connections above which no client may have more than its share. Default 80; with 100 never.
    pub fair_share: u8,
    pub resolver: Resolver,
    /// `[egress.listener.NAME]`, sorted by name; [`EgressListenerId`](super::EgressListenerId) points in here. Of a listener's keys those are at
    /// their defaults that an egress listener has not: no `h2c`, no ACME, any `min_body_rate`.
    pub listeners: Vec<Listener>,
    /// Sorted by name; [`EgressSourceId`] points in here.
    pub sources: Vec<Source>,
    /// Sorted by name; [`EgressRuleId`](super::EgressRuleId) points in here.
    pub rules: Vec<EgressRule>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            mode: EgressMode::default(),
            deny_message: None,
            on_revoke: OnRevoke::default(),
            timeouts: EgressTimeouts::default(),
            fair_share: Self::FAIR_SHARE,
            resolver: Resolver::default(),
            listeners: Vec::new(),
            sources: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl Egress {
    pub const FAIR_SHARE: u8 = 80;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EgressMode {
    /// The default.
    #[default]
    Enforce,
    /// Let through, and log that it would have been refused.
    Report,
}

/// What becomes of tunnels that a reload no longer allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnRevoke {
    /// They go on until they end. The default.
    #[default]
    Keep,
    Close,
}

/// `[egress] timeouts = { … }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EgressTimeouts {
    /// TCP to one address. Default 5 s.
    pub connect: Duration,
    /// From 200 to the whole ClientHello. Default 5 s.
    pub tls_name: Duration,
    /// From a forwarded request's end to the answer's head. Default 60 s.
    pub first_byte: Duration,
    /// Nothing moves in either direction. Default 5 min.
    pub idle: Duration,
    /// `None`: no bound.
    pub total: Option<Duration>,
}

impl Default for EgressTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            tls_name: Duration::from_secs(5),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            total: None,
        }
    }
}

/// `resolver = { servers = ["10.0.0.2"], timeout = "5s" }`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resolver {
    /// `server.dns` where nothing else is written; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// All questions about one name. Default 5 s.
    pub timeout: Duration,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: Duration::from_secs(5) }
    }
}

/// `[egress.source.NAME]`: addresses to leave from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    pub name: Name,
    /// Never empty, no address twice, none of them unspecified.
    pub bind: Vec<IpAddr>,
    /// What the world sees: empty (the same as `bind`), one, or one for each of `bind`.
    pub public: Vec<IpAddr>,
    /// `None`: nobody is asked what the world sees.
    pub check: Option<SourceCheck>,
}

/// A source's `check`: an echo, which says from where it is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceCheck {
    pub url: Endpoint,
    /// PEM bundle that alone is trusted; `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// Default 10 min.
    pub every: Duration,
}

impl Source {
    /// What a partner sees of the nth address.
    pub fn public_of(&self, n: usize) -> Option<IpAddr> {
        match &self.public[..] {
            [] => self.bind.get(n).copied(),
            [one] => Some(*one),
            many => many.get(n).copied(),
        }
    }
}

/// `[egress.rule.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRule {
    pub name: Name,
    /// Never empty.
    pub clients: Vec<ClientId>,
    /// Never empty; each once.
    pub to: Vec<Destination>,
    /// `None`: as the system chooses.
    pub source: Option<EgressSourceId>,
    /// `None`: destinations are dialled.
    pub parent: Option<Parent>,
    /// Networks that are not public, and allowed all the same.
    pub private: Networks,
    pub limits: EgressLimits,
    pub mode: EgressMode,
    pub mixed_answers: MixedAnswers,
    pub tls_name: TlsName,
    /// What is in force: the rule's own, or the egress's.
    pub timeouts: EgressTimeouts,
}

/// A rule's `parent`: the proxy that connects to destinations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parent {
    pub tls: bool,
    pub host: EndpointHost,
    pub port: u16,
    /// Basic (RFC 7617): the user, and where the password is.
    pub credentials: Option<(String, SecretRef)>,
    /// PEM bundle that alone is trusted; `None`: the system's roots.
    pub ca: Option<PathBuf>,
    pub resolve: ResolvedBy,
}

impl fmt::Display for Parent {
    /// Its URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.host {
            EndpointHost::Address(IpAddr::V6(ip)) => write!(f, "{scheme}://[{ip}]:{}", self.port),
            host => write!(f, "{scheme}://{host}:{}", self.port),
        }
    }
}

/// Who looks up the names of destinations that are reached through a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ResolvedBy {
    /// Their addresses are judged, and the parent is asked for one that is allowed. The default.
    #[default]
    Here,
    /// It is asked for the name; where that leads is its word.
    Parent,
}

/// Of a rule, for each of its clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressLimits {
    /// At once.
    pub tunnels: Option<NonZeroU32>,
    /// New ones; counted by client.
    pub rate: Option<Limit>,
    /// Bytes a second in each direction, over all tunnels.
    pub bandwidth: Option<NonZeroU64>,
}

/// What becomes of a name some of whose addresses are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MixedAnswers {
    /// It is refused. The default.
    #[default]
    Deny,
    /// The refused addresses are left out.
    Drop,
}

/// Which server name a TLS client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsName {
    /// On port 443 of a name: that name. The default.
    #[default]
    Match,
    Any,
}

/// One of a rule's `to`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    pub host: DestinationHost,
    /// Never 0.
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DestinationHost {
    /// Lower case, ASCII (RFC 5891 A-labels), no dot at its end.
    Name(String),
    /// `*.example.com` holds `.example.com`: at least one label before it.
    Suffix(String),
    /// `*`: any name, and no literal address.
    AnyName,
    /// Literal addresses.
    Net(IpNet),
}

impl fmt::Display for Destination {
    /// As the file has it, with its port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            DestinationHost::Name(name) => f.write_str(name)?,
            DestinationHost::Suffix(suffix) => write!(f, "*{suffix}")?,
            DestinationHost::AnyName => f.write_str("*")?,
            DestinationHost::Net(net) => match (net.addr(), net.prefix_len() == net.max_prefix_len()) {
                (IpAddr::V4(ip), true) => write!(f, "{ip}")?,
                (IpAddr::V6(ip), true) => write!(f, "[{ip}]")?,
                (IpAddr::V4(_), false) => write!(f, "{net}")?,
                (IpAddr::V6(_), false) => write!(f, "[{net}]")?,
            },
        }
        write!(f, ":{}", self.port)
    }
}
