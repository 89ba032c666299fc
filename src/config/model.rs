//! What a config means: only valid values, every reference resolved, every default filled in.
//!
//! Built by [`parse`](super::parse) alone; whoever holds a [`Config`] has nothing left to check.

mod budget;
mod cluster;
mod concurrency;
mod guard;
mod health;
mod mirror;
mod platform;
mod retries;
mod token;

pub use budget::{Amount, Budget, BudgetAction, Price, Zone};
pub use cluster::{Cluster, LimitScope, RedisUrl};
pub use concurrency::{Adaptive, Concurrency, Criticality, Growth};
pub use guard::{Guard, GuardAction};
pub use health::{Check, Health, ProbeMethod};
pub use mirror::Mirror;
pub use platform::{Class, NamePattern, NamePatterns, Platform, PlatformName, PlatformRequestId, Rule, Sizes};
pub use retries::{Retries, RetryOf};
pub use token::IdToken;

use std::{fmt, net::IpAddr, net::SocketAddr, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::secret::SecretRef;

mod cache;
mod client;
mod egress;

pub use egress::{
    Destination, DestinationHost, Egress, EgressLimits, EgressMode, EgressRule, EgressTimeouts, MixedAnswers, OnRevoke,
    Parent, ResolvedBy, Resolver, Source, SourceCheck, TlsName,
};

pub use cache::{Cache, CacheKey, Fallback};
pub use client::{Algorithm, ApiKey, Basic, Client, JwksSource, JwksUrl, Jwt, Mtls, SanIs};
mod handling;
mod hook;
mod listener;
mod proportion;
mod ramp;

pub use handling::*;
pub use hook::Hook;
pub use listener::*;
pub use proportion::in_proportion;
pub use ramp::{DAYS, Freeze, FreezeWindow, Hours, Ramp};

/// A table's name (`orders` of `[route.orders]`): cheap to clone, safe as a metric's label.
pub type Name = Arc<str>;

/// A whole config: what one load of the file and its includes means.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub log: Log,
    /// Sorted by name; [`ListenerId`] points in here.
    pub listeners: Vec<Listener>,
    /// Sorted by name; [`ClientId`] points in here.
    pub clients: Vec<Client>,
    /// Sorted by name; [`FunctionId`] points in here.
    pub functions: Vec<Function>,
    /// Sorted by name; [`RouteId`] points in here.
    pub routes: Vec<Route>,
    /// `[limit.NAME]`, sorted by name; [`SharedLimitId`] points in here.
    pub limits: Vec<SharedLimit>,
    /// Sorted by name; [`CredentialId`] points in here.
    pub credentials: Vec<Credential>,
    pub freeze: Freeze,
    /// `None`: alone.
    pub cluster: Option<Cluster>,
    /// The way out.
    pub egress: Egress,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// Index into [`Config::listeners`].
    ListenerId,
    /// Index into [`Config::clients`].
    ClientId,
    /// Index into [`Config::functions`].
    FunctionId,
    /// Index into [`Config::routes`].
    RouteId,
    /// Index into [`Config::limits`].
    SharedLimitId,
    /// Index into [`Config::credentials`].
    CredentialId,
    /// Index into [`Egress::listeners`].
    EgressListenerId,
    /// Index into [`Egress::sources`].
    EgressSourceId,
    /// Index into [`Egress::rules`].
    EgressRuleId,
    /// Index into [`Function::versions`].
    VersionId,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Worker threads; `None` (written `0`) is one per core.
    pub workers: Option<NonZeroU32>,
    pub state_dir: PathBuf,
    /// Whose `X-Forwarded-For` and `X-Request-Id` are believed. Nobody's by default.
    pub trusted_proxies: Networks,
    /// Connections in all; `None` is (file limit − 1,024) / 2.
    pub max_connections: Option<NonZeroU32>,
    /// Requests under way in all, shared evenly among the workers; `None`: as many as connections.
    pub max_requests: Option<NonZeroU32>,
    /// Resident bytes, above 90 % of which new work is shed; `None`: the control group's limit, where there is one.
    pub max_memory: Option<u64>,
    /// Name servers to ask for the functions' names; empty: those of `/etc/resolv.conf`.
    pub dns: Vec<SocketAddr>,
    /// How long in-flight requests may take once a stop was asked for. Default 30 s.
    pub drain: Duration,
    /// Failed authentication, per address: by default 10/min, 20 at once.
    pub auth_failures: Limit,
    /// For every route that has none of its own.
    pub maintenance: Option<Maintenance>,
    /// Where a route has none. The most exact first.
    pub error_pages: Vec<ErrorPage>,
    /// Of a request, where a route says nothing else. Default 1 GiB.
    pub max_body: BodyBound,
    /// Gateposts on a request's way, this one included. Default 10.
    pub max_hops: u32,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Default `127.0.0.1:9901`.
    pub address: ListenAddress,
    /// Asked for (`Authorization: Bearer`) by calls that change something; without one they are refused.
    pub token: Option<SecretRef>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    pub access: AccessSink,
    /// Of the way out; `None`: where `access` goes.
    pub egress: Option<AccessSink>,
    pub format: LogFormat,
    /// Share (0 to 1) of successes (class `ok`) that get a line; everything else always does.
    pub sample_ok: f64,
    /// Whether the path is logged with its query. Default no.
    pub query: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessSink {
    Stdout,
    Off,
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Where a listener or the admin listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    /// Written `unix:/path`.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A set of networks: `["10.0.0.0/8", "@office"]` with the names resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Arc<[IpNet]>);

impl Networks {
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        Self(nets.into_iter().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_slice(&self) -> &[IpNet] {
        &self.0
    }

    /// An IPv4-mapped IPv6 address is judged as the IPv4 address in it (RFC 4291 §2.5.5.2).
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.longest_match(ip).is_some()
    }

    /// The length of the longest prefix that holds `ip`.
    pub fn longest_match(&self, ip: IpAddr) -> Option<u8> {
        let ip = ip.to_canonical();
        self.0.iter().filter(|net| net.contains(&ip)).map(IpNet::prefix_len).max()
    }
}

/// `[function.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    pub name: Name,
    /// In the order of their names; never empty.
    pub versions: Vec<Version>,
    /// One share per version, same order; they total [`Share::WHOLE`].
    pub weights: Vec<Share>,
    /// The `"rest"` version, the only one, or the one that `baseline` names; `None` where none of these is there.
    pub baseline: Option<VersionId>,
    /// The `"rest"` version; also the only one, where it has no number.
    pub rest: Option<VersionId>,
    pub ramp: Option<Ramp>,
    pub sticky: Option<Sticky>,
    /// In the order of the file: the first that matches wins.
    pub overrides: Vec<Override>,
    /// Send the caller's Host instead of the function's own.
    pub preserve_host: bool,
    pub timeouts: UpstreamTimeouts,
    pub http: UpstreamHttp,
    pub pool: Pool,
    pub platform: Platform,
    pub budget: Option<Box<Budget>>,
    pub guard: Option<Guard>,
    /// `None`: nobody gets copies.
    pub mirror: Option<Box<Mirror>>,
    /// `None`: as many calls as there are requests.
    pub concurrency: Option<Concurrency>,
    /// `None`: only what is always safe is tried again.
    pub retries: Option<Retries>,
    /// `None`: no version is ever out.
    pub health: Option<Health>,
}

/// A version of a function: `v1 = "https://…"` or `v1 = { url = "…", ca = "…", host = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub name: Name,
    pub url: Endpoint,
    /// PEM bundle that alone is trusted for this version (the version's own, or the function's); `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// The Host to send, where it is not the URL's own authority.
    pub host: Option<String>,
    /// What its calls are signed with (the version's own, or the function's); `None`: they are not.
    pub credential: Option<CredentialId>,
    /// Calls of it at a time; `None`: as many as the function may have.
    pub max_concurrency: Option<NonZeroU32>,
}

/// The URL of a version, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub tls: bool,
    pub host: EndpointHost,
    pub port: u16,
    /// Put before every forwarded path: `""` or `/base`, never with a slash at its end.
    pub base_path: String,
    /// What to send as Host: the host, and the port where the URL wrote one that isn't the scheme's own.
    pub authority: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointHost {
    /// Lower case, ASCII (RFC 5891 A-labels), no dot at its end.
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for EndpointHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(ip) => ip.fmt(f),
        }
    }
}

/// A share of traffic in hundredths of a percent: 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Share(pub u16);

impl Share {
    pub const WHOLE: Self = Self(10_000);
}

impl fmt::Display for Share {
    /// In percent, without needless zeros: `5`, `0.5`, `12.34`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => write!(f, "{whole}"),
            p if p % 10 == 0 => write!(f, "{whole}.{}", p / 10),
            p => write!(f, "{whole}.{p:02}"),
        }
    }
}

/// `sticky = { by = ["header:x-openid", "cookie:uid", "client_ip"], group = "checkout", issue_cookie = true }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// The first that the request has decides.
    pub by: Vec<StickyKey>,
    /// What the hash is salted with: `group`, or else the function's name.
    pub salt: String,
    /// Hand a cookie ([`STICKY_COOKIE`]) to callers that have none of the keys. It counts as the last key.
    pub issue_cookie: bool,
}

/// The cookie that `issue_cookie` hands out.
pub const STICKY_COOKIE: &str = "gatepost_sticky";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StickyKey {
    Header(HeaderName),
    Cookie(String),
    ClientIp,
}

/// One of `override = [{ header = "x-tester: yes", from = ["@office"], version = "v42" }]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pub by: OverrideBy,
    /// Only for callers from here; `None`: anyone.
    pub from: Option<Networks>,
    pub version: VersionId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverrideBy {
    /// `header = "name: value"`; without `: value`, its presence is enough.
    Header(HeaderName, Option<String>),
    /// `cookie = "name=value"`; without `=value`, its presence is enough.
    Cookie(String, Option<String>),
    Networks(Networks),
    Client(ClientId),
}

/// `timeouts = { connect, first_byte, idle, write, total }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamTimeouts {
    /// TCP and TLS to one address. Default 3 s.
    pub connect: Duration,
    /// Request sent to the answer's head. Default 60 s.
    pub first_byte: Duration,
    /// Between two reads of an answer's body; of an upgraded connection, in both directions. Default 60 s.
    pub idle: Duration,
    /// Between two writes that the function takes. Default 30 s.
    pub write: Duration,
    /// The whole request, from its head to the answer's last byte. `None`: no bound.
    pub total: Option<Duration>,
}

/// `http = "auto" | "1.1" | "2"`: what to speak to the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UpstreamHttp {
    /// TLS: what ALPN agrees on. Plain: HTTP/1.1. The default.
    #[default]
    Auto,
    Http1,
    /// TLS: h2 or nothing. Plain: h2 with prior knowledge.
    Http2,
}

/// `pool = { idle = "25s", age = "5m" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool {
    /// How long a connection may wait for the next request; zero: connections are not kept. Default 25 s.
    pub idle: Duration,
    /// How old a connection may be that gets another request. `None`: any age.
    pub age: Option<Duration>,
}

/// `[route.NAME]`
#[derive(Debug, Clone)]
pub struct Route {
    pub name: Name,
    /// `None`: all.
    pub listeners: Option<Vec<ListenerId>>,
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    pub path: PathPattern,
    /// `None`: any.
    pub methods: Option<Vec<Method>>,
    pub headers: Vec<HeaderCondition>,
    pub query: Vec<QueryCondition>,
    /// Only where two routes would match alike; higher wins. Default 0.
    pub priority: i32,
    pub serves: Serves,
    /// The pinned version.
    pub version: Option<VersionId>,
    /// `None`: anyone.
    pub clients: Option<Vec<ClientId>>,
    /// `None`: anyone.
    pub allow: Option<Networks>,
    pub deny: Networks,
    pub limits: Vec<LimitUse>,
    pub encoded_slash: EncodedSlash,
    /// Whether the function is told the caller's verified certificate (RFC 9440).
    pub forward_client_cert: bool,
    /// Who goes first where requests wait for the function.
    pub criticality: Criticality,
    /// Shared by all that ask for nothing special.
    pub handling: Arc<Handling>,
}

impl Route {
    /// The function that answers, where one does.
    pub fn function(&self) -> Option<FunctionId> {
        match self.serves {
            Serves::Function(id) => Some(id),
            Serves::Redirect(_) | Serves::Respond(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Lower case, no port.
    Exact(String),
    /// `*.example.com`: holds `.example.com`. Any number of labels before it, at least one.
    Wildcard(String),
}

#[derive(Debug, Clone)]
pub enum PathPattern {
    /// Normalised, e.g. `/report`.
    Exact(String),
    /// At least one `{param}`; each matches one whole non-empty segment.
    Params(Vec<PathSegment>),
    /// `/orders/*` holds `/orders`; `/*` (and a route without a path) holds the empty string.
    Prefix(String),
    /// `path_regex`: anchored at both ends, on the normalised path.
    Regex(regex::Regex),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathSegment {
    Literal(String),
    /// The name between the braces.
    Param(String),
}

/// `headers = { x-env = "prod" }`: the header is there with exactly this value; `"*"`: it is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderCondition {
    pub name: HeaderName,
    pub value: Option<String>,
}

/// `query = { debug = "1" }`: the key is there with exactly this (percent-decoded) value; `"*"`: it is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueryCondition {
    pub name: String,
    pub value: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodedSlash {
    /// `%2F` in a path is answered with 400. The default.
    #[default]
    Refuse,
    /// It is forwarded as it came, and is no segment border.
    Keep,
}

/// One entry of a route's `limits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitUse {
    /// `{ rate = "100/s", … }`
    Own(Limit),
    /// `{ use = "partners" }`
    Shared(SharedLimitId),
}

/// `[limit.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLimit {
    pub name: Name,
    pub limit: Limit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub rate: Rate,
    /// The bucket's size. Default: one second's worth, at least 1.
    pub burst: NonZeroU32,
    pub per: LimitKey,
    /// Default 1,000,000.
    pub max_keys: NonZeroU32,
    /// Only count, never refuse.
    pub dry_run: bool,
    /// Among whom it counts.
    pub scope: LimitScope,
}

impl Limit {
    /// What `server.auth_failures` is where nothing is written.
    pub const AUTH_FAILURES: Self = Self {
        rate: Rate { count: NonZeroU32::MIN.saturating_add(9), period: Duration::from_secs(60) },
        burst: NonZeroU32::MIN.saturating_add(19),
        per: LimitKey::ClientIp,
        max_keys: NonZeroU32::MIN.saturating_add(99_999),
        dry_run: false,
        scope: LimitScope::Instance,
    };
}

/// `"100/s"`, `"600/min"`, `"10/h"`, `"1/d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    pub count: NonZeroU32,
    pub period: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// One bucket for the route; of a shared limit, one for all its routes.
    Route,
    /// IPv4 whole, IPv6 by /64.
    ClientIp,
    /// The `[client]`; callers without one by address.
    Client,
    Header(HeaderName),
    Cookie(String),
    Query(String),
}

/// `[credential.NAME]`: how calls are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub name: Name,
    pub kind: CredentialKind,
    /// The largest body that is kept for its hash, where the signature covers it. Default 6 MiB.
    pub sign_body_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// AWS Signature Version 4.
    SigV4 {
        keys: AccessKey,
        region: String,
        /// Default `lambda`.
        service: String,
        /// Default yes: Lambda takes no unsigned body.
        sign_body: bool,
    },
    /// ACS3-HMAC-SHA256.
    Acs3 {
        keys: AccessKey,
        /// Default no: HTTP triggers of Function Compute sign no body.
        sign_body: bool,
    },
    /// TC3-HMAC-SHA256.
    Tc3 {
        keys: AccessKey,
        /// Default `scf`.
        service: String,
        /// The account that the key belongs to, for function URLs.
        uin: Option<String>,
        /// Default yes.
        sign_body: bool,
    },
    /// A secret in a header field.
    Header {
        header: HeaderName,
        secret: SecretRef,
        /// Sent beside it, in `HEADER-previous`, while functions are moved from one secret to the next.
        previous: Option<SecretRef>,
    },
    /// A token that Google signs.
    GcpIdToken(Box<IdToken>),
}

impl CredentialKind {
    /// As the file has it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::SigV4 { .. } => "sigv4",
            Self::Acs3 { .. } => "acs3",
            Self::Tc3 { .. } => "tc3",
            Self::Header { .. } => "header",
            Self::GcpIdToken(_) => "gcp_id_token",
        }
    }
}

/// A cloud account's key: who signs, by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    pub id: SecretRef,
    pub secret: SecretRef,
    /// Of temporary keys.
    pub token: Option<SecretRef>,
}
