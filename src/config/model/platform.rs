//! What a function platform does, as data: the preset's word, or the function's own where that says another.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName};

use super::{HostPattern, RetryOf};

/// `platform = "…"`: whose function it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum PlatformName {
    AliyunFc3,
    TencentScf,
    AwsLambdaUrl,
    CloudRun,
    AzureFunctions,
    Knative,
    OpenFaas,
    /// Nothing is known of it, and nothing is done. The default.
    #[default]
    Generic,
}

impl PlatformName {
    pub const ALL: [Self; 8] = [
        Self::AliyunFc3,
        Self::TencentScf,
        Self::AwsLambdaUrl,
        Self::CloudRun,
        Self::AzureFunctions,
        Self::Knative,
        Self::OpenFaas,
        Self::Generic,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AliyunFc3 => "aliyun-fc3",
            Self::TencentScf => "tencent-scf",
            Self::AwsLambdaUrl => "aws-lambda-url",
            Self::CloudRun => "cloud-run",
            Self::AzureFunctions => "azure-functions",
            Self::Knative => "knative",
            Self::OpenFaas => "openfaas",
            Self::Generic => "generic",
        }
    }
}

/// What is in force for a function: each key its own, or its preset's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Platform {
    pub name: PlatformName,
    /// How an answer's outcome is told: the function's rules, then the preset's; the first that matches.
    pub classify: Arc<[Rule]>,
    /// Give callers an honest status where a failure came with another.
    pub map_status: bool,
    pub request_id: PlatformRequestId,
    pub sizes: Sizes,
    /// What callers may not send.
    pub strip: NamePatterns,
    /// What callers are not to see.
    pub hide: NamePatterns,
    /// Versions at these hosts have a bare `Content-Disposition: attachment` taken off.
    pub drop_attachment: Arc<[HostPattern]>,
    /// The keys that the function itself wrote, for `gatepost functions`.
    pub own: Vec<&'static str>,
}

/// `platform_request_id = { header, expose }`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlatformRequestId {
    /// The first that the answer has is logged.
    pub headers: Arc<[HeaderName]>,
    /// The caller gets it too, as `X-Platform-Request-Id`.
    pub expose: bool,
}

/// What the platform takes; more is refused here, before a call is made that is billed. `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// All header fields together, as HTTP/1.1 writes them.
    pub headers: Option<u64>,
    /// Path and query.
    pub uri: Option<u64>,
    pub body: Option<u64>,
}

/// One of `classify = [{ status = 430, header = "x-error: type", class = "function", answer = 502 }]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Inclusive ranges; empty: any status.
    pub statuses: Vec<(u16, u16)>,
    /// The answer has this header, with this value where one is given.
    pub header: Option<(HeaderName, Option<String>)>,
    pub class: Class,
    /// What callers are told under `map_status`, where the class's own status does not fit.
    pub answer: Option<u16>,
    /// Which requests `retries` may send again, where that is not what the class says.
    pub retry: Option<RetryOf>,
    /// Whether the platform bills such a call, where that is not what the class says.
    pub billed: Option<bool>,
}

impl Rule {
    pub fn matches(&self, status: u16, headers: &HeaderMap) -> bool {
        (self.statuses.is_empty() || self.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status)))
            && self.header.as_ref().is_none_or(|(name, value)| match value {
                None => headers.contains_key(name),
                Some(value) => headers.get_all(name).iter().any(|v| v.as_bytes() == value.as_bytes()),
            })
    }
}

/// Header names, exact or by their beginning: `x-scf-*`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamePatterns(Arc<[NamePattern]>);

/// Lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    Exact(String),
    /// Written with a `*` behind it.
    Prefix(String),
}

impl NamePatterns {
    pub fn new(patterns: impl IntoIterator<Item = NamePattern>) -> Self {
        Self(patterns.into_iter().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_slice(&self) -> &[NamePattern] {
        &self.0
    }

    /// `name` is in lower case.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            NamePattern::Exact(exact) => exact == name,
            NamePattern::Prefix(prefix) => name.starts_with(prefix.as_str()),
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// How a request ended, in one word: `class` in the access log and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    Ok,
    ClientError,
    RateLimited,
    Refused,
    Throttled,
    Function,
    Platform,
    Config,
    Account,
    Timeout,
    Unreachable,
    Aborted,
}

impl Class {
    /// In the order of their discriminants: `ALL[class as usize] == class`.
    pub const ALL: [Self; 12] = [
        Self::Ok,
        Self::ClientError,
        Self::RateLimited,
        Self::Refused,
        Self::Throttled,
        Self::Function,
        Self::Platform,
        Self::Config,
        Self::Account,
        Self::Timeout,
        Self::Unreachable,
        Self::Aborted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::RateLimited => "rate_limited",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Function => "function",
            Self::Platform => "platform",
            Self::Config => "config",
            Self::Account => "account",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
        }
    }
}
