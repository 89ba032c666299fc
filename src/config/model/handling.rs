//! What a route does with a request and its answer beside sending it on.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{Config, Fallback, FunctionId, Networks, Route};

/// What answers a route's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serves {
    Function(FunctionId),
    Redirect(Redirect),
    Respond(Respond),
}

/// `redirect = { to = "https://{host}{path}", status = 308 }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub to: Template,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Whether the request's query goes with it. Default yes.
    pub keep_query: bool,
}

/// A path or URL with places that the request fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// As it was written.
    pub text: String,
    pub pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// `{host}`: what the caller asked for, without its port.
    Host,
    /// `{path}`: the normalised path, with its slash.
    Path,
    /// `{rest}`: what `/*` stood for, without a slash before it.
    Rest,
    /// `{name}` of a path with parameters: the segment's number.
    Segment(usize),
    /// `{name}` of a `path_regex` with such a group.
    Group(String),
}

/// `respond = { status = 200, body = "ok" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    pub status: StatusCode,
    pub content: Option<Content>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A body that stands in the config, or in a file beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Where it was read from; its bytes come with the rest of what the config points to.
    pub file: Option<PathBuf>,
    pub bytes: Bytes,
    pub kind: HeaderValue,
}

/// A body's file may be so large: it stays in memory.
pub const LARGEST_CONTENT: u64 = 1 << 20;

/// `maintenance = { status = 503, retry_after = "10m", body = "…", allow = ["@office"] }`, or `true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    pub status: StatusCode,
    pub retry_after: Duration,
    pub content: Option<Content>,
    /// Who gets through all the same.
    pub allow: Networks,
}

/// `set`, `add` and `remove` of `request_headers` and `response_headers`: no name is in two of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
    /// `x-debug-*`, less the star; lower case.
    pub remove_prefixes: Vec<String>,
}

/// How a function's path comes of the request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEdit {
    /// `strip_prefix` (a segment-border prefix of `path`) and `add_prefix`, neither with a slash at its end.
    Prefix { strip: Option<String>, add: Option<String> },
    /// `rewrite`
    Rewrite(Template),
}

/// `security_headers = "strict"`, or `{ preset = "strict", replace = true }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecurityHeaders {
    pub preset: SecurityPreset,
    /// Whether what the function says of these goes. Default no: it knows best.
    pub replace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityPreset {
    /// For sites that frame their own pages.
    Basic,
    /// For APIs and whatever is never framed.
    Strict,
}

/// `cors = { allow_origins = ["https://app.example.com"], … }` (WHATWG Fetch, §3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    pub origins: Origins,
    /// What a preflight is told; never empty.
    pub methods: Vec<Method>,
    pub headers: CorsHeaders,
    /// For `Access-Control-Expose-Headers`.
    pub expose: Option<HeaderValue>,
    pub credentials: bool,
    /// How long a browser may remember a preflight's answer.
    pub max_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// `"*"`: never with credentials.
    Any,
    These(Vec<Origin>),
}

/// An origin as browsers write it: `https://app.example.com`, or `https://*.example.com` for any name below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Exact(String),
    /// What stands before and after the labels: `https://` and `.example.com:8443`.
    Below(String, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsHeaders {
    /// `"*"`: whatever is asked for, `Authorization` included.
    Asked,
    These(Vec<HeaderName>),
}

/// `compression = true`, or `{ codings = ["br", "gzip"], min_size = "1KiB", types = ["text/*"] }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// The best first; never empty.
    pub codings: Vec<Coding>,
    /// Answers known to be smaller go as they are.
    pub min_size: u64,
    pub types: Vec<MediaPattern>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Zstd,
    Br,
    Gzip,
}

impl Coding {
    /// As Content-Encoding has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaPattern {
    Exact(String),
    /// `text/*` holds `text/`.
    Type(String),
    /// `*+json` holds `+json`.
    Suffix(String),
}

/// One of `error_pages = { 404 = { file = "404.html" }, 5xx = { file = "5xx.html", intercept = true } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    pub on: PageFor,
    pub content: Content,
    /// Whether it stands for the function's answers with that status, too.
    pub intercept: bool,
}

/// Sorts the more exact first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageFor {
    Status(u16),
    /// 4 or 5.
    Class(u16),
}

impl PageFor {
    pub fn is_for(self, status: u16) -> bool {
        match self {
            Self::Status(one) => one == status,
            Self::Class(class) => status / 100 == class,
        }
    }
}

/// `max_body = "6MiB"`: so many bytes of a request's body; `None` (written `none`): no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyBound(pub Option<u64>);

impl BodyBound {
    /// What holds where nothing is said: 1 GiB.
    pub const DEFAULT: Self = Self(Some(1 << 30));
}

/// What a route does beside sending requests on. All of it is off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handling {
    pub path: Option<PathEdit>,
    pub request_headers: Option<HeaderEdits>,
    pub response_headers: Option<HeaderEdits>,
    pub security_headers: Option<SecurityHeaders>,
    pub maintenance: Option<Maintenance>,
    /// `None`: the server's.
    pub max_body: Option<BodyBound>,
    pub cors: Option<Cors>,
    pub compression: Option<Compression>,
    /// The most exact first.
    pub error_pages: Vec<ErrorPage>,
    pub fallback: Option<Fallback>,
}

impl Handling {
    /// The one of all routes that ask for nothing special, if this is it: ten thousand routes have no need of as many.
    pub(in crate::config) fn shared(self) -> Arc<Self> {
        static PLAIN: LazyLock<Arc<Handling>> = LazyLock::new(Arc::default);
        if self == **PLAIN { PLAIN.clone() } else { Arc::new(self) }
    }
}

impl Config {
    /// How much of a request's body this route takes; `None`: no bound.
    pub fn body_bound(&self, route: &Route) -> Option<u64> {
        route.handling.max_body.unwrap_or(self.server.max_body).0
    }

    /// The page for an error: the route's, or else everyone's. `intercepted`: for a function's answer.
    pub fn error_page<'c>(&'c self, route: Option<&'c Route>, status: u16, intercepted: bool) -> Option<&'c ErrorPage> {
        let of_route = route.map(|route| route.handling.error_pages.as_slice()).unwrap_or_default();
        let all = of_route.iter().chain(&self.server.error_pages);
        all.into_iter().find(|page| page.on.is_for(status)).filter(|page| page.intercept || !intercepted)
    }

    /// Calls `fill` with every body of an answer.
    pub(in crate::config) fn each_content(&mut self, mut fill: impl FnMut(&mut Content)) {
        let of_server = self.server.maintenance.iter_mut().filter_map(|m| m.content.as_mut());
        of_server.for_each(&mut fill);
        self.server.error_pages.iter_mut().for_each(|page| fill(&mut page.content));
        for route in &mut self.routes {
            if let Serves::Respond(Respond { content: Some(content), .. }) = &mut route.serves {
                fill(content);
            }
            let has_content = |h: &Handling| {
                let in_maintenance = h.maintenance.as_ref().is_some_and(|m| m.content.is_some());
                !h.error_pages.is_empty() || h.fallback.is_some() || in_maintenance
            };
            if has_content(&route.handling) {
                let handling = Arc::make_mut(&mut route.handling);
                handling.error_pages.iter_mut().for_each(|page| fill(&mut page.content));
                handling.maintenance.iter_mut().filter_map(|m| m.content.as_mut()).for_each(&mut fill);
                handling.fallback.iter_mut().for_each(|fallback| fill(&mut fallback.content));
            }
        }
    }
}
