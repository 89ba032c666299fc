//! What a request becomes on its way to a function, and an answer on its way back.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, StatusCode, Uri, Version, header};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::reply::X_REQUEST_ID;
use crate::config::model::{Endpoint, Function, Route, Version as FunctionVersion};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
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
    pub ip: IpAddr,
    /// The connection is from a trusted proxy: what it says of the scheme is believed.
    pub is_trusted: bool,
    pub tls: bool,
    pub version: Version,
    pub request_id: &'r HeaderValue,
}

/// Makes the request that a function gets. Hop-by-hop fields are gone already (pingora).
///
/// # Errors
///
/// The target is no URI after all.
pub fn edit(
    request: &mut RequestHeader,
    caller: &Caller<'_>,
    function: &Function,
    version: &FunctionVersion,
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
    if !function.preserve_host || asked_host.is_none() {
        let own = version.host.as_deref().unwrap_or(&version.url.authority);
        request.insert_header(header::HOST, own)?;
    } else if let Some(host) = asked_host.clone().filter(|_| came_by_h2) {
        request.insert_header(header::HOST, host)?;
    }

    for name in SPOOFED {
        if request.headers.contains_key(name) {
            request.remove_header(name);
        }
    }
    request.insert_header(X_FORWARDED_FOR, ip_value(caller.ip)?)?;
    let believed = caller.is_trusted.then(|| request.headers.get(X_FORWARDED_PROTO)).flatten();
    if !believed.is_some_and(|p| p == "https" || p == "http") {
        request.insert_header(X_FORWARDED_PROTO, if caller.tls { "https" } else { "http" })?;
    }
    match asked_host {
        Some(host) => request.insert_header(X_FORWARDED_HOST, host)?,
        None => drop(request.remove_header(&X_FORWARDED_HOST)),
    }
    request.insert_header(X_REQUEST_ID, caller.request_id.clone())?;
    // RFC 9110 §7.6.3: a gateway says that it was here.
    let via = match caller.version {
        Version::HTTP_2 => "2 gatepost",
        Version::HTTP_10 => "1.0 gatepost",
        _ => "1.1 gatepost",
    };
    request.append_header(header::VIA, via)?;
    join_cookies(request)
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

fn ip_value(ip: IpAddr) -> Result<HeaderValue> {
    HeaderValue::try_from(ip.to_string()).or_err(ErrorType::InternalError, "an address")
}

/// Takes from an answer what was meant for the hop between the function and gatepost (RFC 9110 §7.6.1).
///
/// # Errors
///
/// Never, as far as known.
pub fn edit_response(response: &mut ResponseHeader, to_h2: bool) -> Result<()> {
    // RFC 9112 §2.3: the version is the sender's own, not that of whoever answered behind it.
    if response.version == Version::HTTP_10 {
        response.set_version(Version::HTTP_11);
    }
    if response.headers.contains_key(header::CONNECTION) && response.status.as_u16() != 101 {
        let named: Vec<HeaderName> = response
            .headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            response.remove_header(&name);
        }
        response.remove_header(&header::CONNECTION);
    }
    if response.status.as_u16() != 101 && response.headers.contains_key(header::UPGRADE) {
        response.remove_header(&header::UPGRADE);
    }
    for name in ["keep-alive", "proxy-connection"] {
        if response.headers.contains_key(name) {
            response.remove_header(name);
        }
    }
    one_length(response)?;
    if to_h2 && response.headers.contains_key(header::TRANSFER_ENCODING) {
        response.remove_header(&header::TRANSFER_ENCODING);
    }
    Ok(())
}

/// RFC 9110 §8.6, RFC 9112 §6.1: a 204 has neither length nor coding, and no answer has two lengths (pingora has seen that
/// they are equal).
fn one_length(response: &mut ResponseHeader) -> Result<()> {
    if response.status == StatusCode::NO_CONTENT {
        response.remove_header(&header::TRANSFER_ENCODING);
        response.remove_header(&header::CONTENT_LENGTH);
        return Ok(());
    }
    let mut lengths = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(()) };
    if lengths.next().is_none() && !first.as_bytes().contains(&b',') {
        return Ok(());
    }
    let one = first.as_bytes().split(|b| *b == b',').next().unwrap_or_default().trim_ascii();
    let one = HeaderValue::from_bytes(one).or_err(ErrorType::InvalidHTTPHeader, "Content-Length")?;
    response.insert_header(header::CONTENT_LENGTH, one)
}
