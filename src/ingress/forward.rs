//! What a request becomes on its way to a function, and an answer on its way back.

use http::{HeaderName, HeaderValue, StatusCode, Uri, Version, header};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::reply::X_REQUEST_ID_NAME;
use crate::config::model::{Endpoint, Route};

// As they are written in HTTP/1. Names as text: pingora keeps the case of each, and takes that from here without a copy.
const X_FORWARDED_FOR: &str = "X-Forwarded-For";
const X_FORWARDED_PROTO: &str = "X-Forwarded-Proto";
const X_FORWARDED_HOST: &str = "X-Forwarded-Host";
/// Other ways of saying who called: nobody's word but gatepost's reaches a function.
const SPOOFED: [&str; 6] =
    ["forwarded", "x-real-ip", "x-forwarded-port", "x-forwarded-server", "x-client-ip", "true-client-ip"];

/// The target for the function: base path, then the normalised path less `strip_prefix`, then the query as it came.
/// `None`: what came is right as it is.
pub fn target(path: &str, raw_path: &str, query: Option<&str>, route: &Route, url: &Endpoint) -> Option<Box<str>> {
    let stripped = route.strip_prefix.as_deref().and_then(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
    if url.base_path.is_empty() && stripped == raw_path {
        return None;
    }
    let mut out = String::with_capacity(url.base_path.len() + path.len() + query.map_or(0, str::len) + 2);
    out.push_str(&url.base_path);
    // What is left empty becomes `/`.
    if !stripped.starts_with('/') {
        out.push('/');
    }
    out.push_str(stripped);
    if let Some(query) = query {
        out.push('?');
        out.push_str(query);
    }
    Some(out.into())
}

/// Who called, as a function is told.
pub struct Caller<'r> {
    /// The address.
    pub ip: HeaderValue,
    /// The connection is from a trusted proxy: what it says of the scheme is believed.
    pub is_trusted: bool,
    pub tls: bool,
    pub version: Version,
    pub request_id: &'r HeaderValue,
}

/// What is in a request that has to go, found in one pass over its names.
#[derive(Default)]
struct Seen {
    spoofed: bool,
    cookie: bool,
    proto: bool,
    via: bool,
}

impl Seen {
    fn of(request: &RequestHeader) -> Self {
        let mut seen = Self::default();
        for name in request.headers.keys() {
            match name.as_str() {
                "cookie" => seen.cookie = true,
                "via" => seen.via = true,
                "x-forwarded-proto" => seen.proto = true,
                name => seen.spoofed |= SPOOFED.contains(&name),
            }
        }
        seen
    }
}

/// Makes the request that a function gets. Hop-by-hop fields are gone already (pingora). `own_host` is the function's;
/// `None`: the caller's is kept.
///
/// # Errors
///
/// The target is no URI after all.
pub fn edit(
    request: &mut RequestHeader,
    caller: Caller<'_>,
    own_host: Option<&HeaderValue>,
    target: Option<&str>,
) -> Result<()> {
    let came_by_h2 = request.uri.authority().is_some();
    let asked_host = match request.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => request.headers.get(header::HOST).cloned(),
    };
    match target {
        Some(target) => request.set_uri(target.parse::<Uri>().or_err(ErrorType::InvalidHTTPHeader, "target")?),
        // Origin-form: the authority is in Host from here on.
        None if came_by_h2 => {
            let path = request.uri.path_and_query().cloned();
            let uri = path.map_or_else(|| Ok(Uri::from_static("/")), |p| Uri::builder().path_and_query(p).build());
            request.set_uri(uri.or_err(ErrorType::InvalidHTTPHeader, "target")?);
        }
        None => {}
    }
    let seen = Seen::of(request);
    match (own_host, &asked_host) {
        (Some(own), _) => set(request, "Host", own.clone())?,
        (None, Some(asked)) if came_by_h2 => set(request, "Host", asked.clone())?,
        (None, _) => {}
    }
    if seen.spoofed {
        for name in SPOOFED {
            request.remove_header(name);
        }
    }
    set(request, X_FORWARDED_FOR, caller.ip)?;
    let believed = seen.proto && caller.is_trusted && {
        request.headers.get("x-forwarded-proto").is_some_and(|p| p == "https" || p == "http")
    };
    if !believed {
        set(request, X_FORWARDED_PROTO, HeaderValue::from_static(if caller.tls { "https" } else { "http" }))?;
    }
    match asked_host {
        Some(host) => set(request, X_FORWARDED_HOST, host)?,
        None => drop(request.remove_header("x-forwarded-host")),
    }
    set(request, X_REQUEST_ID_NAME, caller.request_id.clone())?;
    // RFC 9110 §7.6.3: a gateway says that it was here.
    let via = HeaderValue::from_static(match caller.version {
        Version::HTTP_2 => "2 gatepost",
        Version::HTTP_10 => "1.0 gatepost",
        _ => "1.1 gatepost",
    });
    if seen.via {
        request.append_header("Via", via)?;
    } else {
        set(request, "Via", via)?;
    }
    if seen.cookie { join_cookies(request) } else { Ok(()) }
}

fn set(request: &mut RequestHeader, name: &'static str, value: HeaderValue) -> Result<()> {
    request.insert_header(name, value)
}

/// RFC 9113 §8.2.3: cookies that h2 split into several fields are one field again for whoever reads HTTP/1.
fn join_cookies(request: &mut RequestHeader) -> Result<()> {
    let mut crumbs = request.headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return Ok(());
    }
    let joined =
        request.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    let joined = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined))
        .map_err(|e| Error::because(ErrorType::InvalidHTTPHeader, "cookie", e))?;
    request.insert_header(header::COOKIE, joined)
}

/// Takes from an answer what was meant for the hop between the function and gatepost (RFC 9110 §7.6.1), and what only
/// gatepost may say.
pub fn edit_response(response: &mut ResponseHeader, to_h2: bool) {
    // RFC 9112 §2.3: the version is the sender's own, not that of whoever answered behind it.
    if response.version == Version::HTTP_10 {
        response.set_version(Version::HTTP_11);
    }
    // Nearly all answers have nothing of all this: one pass over the names tells.
    let is_switching = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let goes = |name: &HeaderName| match name.as_str() {
        "connection" | "upgrade" => !is_switching,
        "keep-alive" | "proxy-connection" | "x-gatepost-reason" => true,
        "transfer-encoding" => to_h2,
        _ => false,
    };
    let mut going: Vec<HeaderName> = Vec::new();
    for name in response.headers.keys().filter(|name| goes(name)) {
        going.push(name.clone());
        if name == header::CONNECTION {
            let named =
                response.headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
            going.extend(named.filter_map(|name| name.trim().parse().ok()));
        }
    }
    for name in going {
        response.remove_header(&name);
    }
}
