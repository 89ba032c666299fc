//! The words in which a decision is told: to the caller, in the access log, in metrics. They are stable.

pub use crate::config::model::Class;

/// Why gatepost answered itself: `reason` in the problem document, the `X-Gatepost-Reason` header and the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    BadRequest,
    CredentialsMissing,
    CredentialsInvalid,
    ForbiddenAddress,
    ForbiddenClient,
    DestinationNotAllowed,
    AddressNotAllowed,
    ServerNameMismatch,
    NoRoute,
    MethodNotAllowed,
    BodyTooLarge,
    UriTooLong,
    HeadersTooLarge,
    RequestTimeout,
    RateLimited,
    TunnelsExhausted,
    UpstreamUnreachable,
    UpstreamReset,
    NameNotResolved,
    Overloaded,
    NoVersion,
    SourceUnavailable,
    CredentialUnavailable,
    Maintenance,
    UpstreamTimeout,
    LoopDetected,
    BudgetSpent,
    /// The function said so itself, and a `fallback` stands in.
    FunctionFailed,
}

impl Reason {
    pub const ALL: [Self; 28] = [
        Self::BadRequest,
        Self::CredentialsMissing,
        Self::CredentialsInvalid,
        Self::ForbiddenAddress,
        Self::ForbiddenClient,
        Self::DestinationNotAllowed,
        Self::AddressNotAllowed,
        Self::ServerNameMismatch,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::RequestTimeout,
        Self::RateLimited,
        Self::TunnelsExhausted,
        Self::UpstreamUnreachable,
        Self::UpstreamReset,
        Self::NameNotResolved,
        Self::Overloaded,
        Self::NoVersion,
        Self::SourceUnavailable,
        Self::CredentialUnavailable,
        Self::Maintenance,
        Self::UpstreamTimeout,
        Self::LoopDetected,
        Self::BudgetSpent,
        Self::FunctionFailed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::CredentialsMissing => "credentials_missing",
            Self::CredentialsInvalid => "credentials_invalid",
            Self::ForbiddenAddress => "forbidden_address",
            Self::ForbiddenClient => "forbidden_client",
            Self::DestinationNotAllowed => "destination_not_allowed",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::ServerNameMismatch => "server_name_mismatch",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::RateLimited => "rate_limited",
            Self::TunnelsExhausted => "tunnels_exhausted",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamReset => "upstream_reset",
            Self::NameNotResolved => "name_not_resolved",
            Self::Overloaded => "overloaded",
            Self::NoVersion => "no_version",
            Self::SourceUnavailable => "source_unavailable",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::Maintenance => "maintenance",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::LoopDetected => "loop_detected",
            Self::BudgetSpent => "budget_spent",
            Self::FunctionFailed => "function_failed",
        }
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::CredentialsMissing | Self::CredentialsInvalid => 401,
            Self::ForbiddenAddress
            | Self::ForbiddenClient
            | Self::DestinationNotAllowed
            | Self::AddressNotAllowed
            | Self::ServerNameMismatch => 403,
            Self::NoRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::RateLimited | Self::TunnelsExhausted => 429,
            Self::HeadersTooLarge => 431,
            Self::UpstreamUnreachable | Self::UpstreamReset | Self::NameNotResolved | Self::FunctionFailed => 502,
            Self::Overloaded
            | Self::NoVersion
            | Self::SourceUnavailable
            | Self::CredentialUnavailable
            | Self::Maintenance
            | Self::BudgetSpent => 503,
            Self::UpstreamTimeout => 504,
            // RFC 5842 §7.2.
            Self::LoopDetected => 508,
        }
    }

    /// The sentence for people, in the problem document's `title`.
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed",
            Self::CredentialsMissing => "This route is for known clients: say who you are",
            Self::CredentialsInvalid => "The credentials are not accepted",
            Self::ForbiddenAddress => "Your address may not call this",
            Self::ForbiddenClient => "This route is for known clients only",
            Self::DestinationNotAllowed => "No rule allows this destination",
            Self::AddressNotAllowed => "The destination's address is not allowed",
            Self::ServerNameMismatch => "The TLS server name is not the destination's",
            Self::NoRoute => "Nothing is served here",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::BodyTooLarge => "The body is too large",
            Self::UriTooLong => "The URI is too long",
            Self::HeadersTooLarge => "The header fields are too large",
            Self::RequestTimeout => "The request did not arrive in time",
            Self::RateLimited => "Too many requests",
            Self::TunnelsExhausted => "Too many tunnels at once",
            Self::UpstreamUnreachable => "The function cannot be reached",
            Self::UpstreamReset => "The function's answer broke off or was invalid",
            Self::NameNotResolved => "The function's name cannot be resolved",
            Self::Overloaded => "Too busy to take more work",
            Self::NoVersion => "No version of the function takes traffic",
            Self::SourceUnavailable => "The address to leave from is not available",
            Self::Maintenance => "Closed for maintenance",
            Self::CredentialUnavailable => "A credential is not available",
            Self::UpstreamTimeout => "The function did not answer in time",
            Self::LoopDetected => "The request goes in a circle",
            Self::BudgetSpent => "No more calls are made today",
            Self::FunctionFailed => "The function failed",
        }
    }

    /// Whether it tells of what is behind the gate, so that a route's `fallback` stands in for it; and not of the caller, or of
    /// what the operator meant.
    pub fn is_failure(self) -> bool {
        match self {
            Self::UpstreamUnreachable
            | Self::UpstreamReset
            | Self::NameNotResolved
            | Self::Overloaded
            | Self::NoVersion
            | Self::CredentialUnavailable
            | Self::UpstreamTimeout
            | Self::FunctionFailed => true,
            Self::BadRequest
            | Self::CredentialsMissing
            | Self::CredentialsInvalid
            | Self::ForbiddenAddress
            | Self::ForbiddenClient
            | Self::DestinationNotAllowed
            | Self::AddressNotAllowed
            | Self::ServerNameMismatch
            | Self::NoRoute
            | Self::MethodNotAllowed
            | Self::BodyTooLarge
            | Self::UriTooLong
            | Self::HeadersTooLarge
            | Self::RequestTimeout
            | Self::RateLimited
            | Self::TunnelsExhausted
            | Self::SourceUnavailable
            | Self::LoopDetected
            // Where the budget says so: `action = "fallback"`.
            | Self::BudgetSpent
            | Self::Maintenance => false,
        }
    }
}

/// What chose the version: `picked_by` in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PickedBy {
    Weight,
    Sticky,
    Override,
    Pin,
}

impl PickedBy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Sticky => "sticky",
            Self::Override => "override",
            Self::Pin => "pin",
        }
    }
}

/// Whose weights were in force: `weights_from` in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightsFrom {
    File,
    Ramp,
    Ejection,
    Latch,
}

impl WeightsFrom {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Ramp => "ramp",
            Self::Ejection => "ejection",
            Self::Latch => "latch",
        }
    }
}
