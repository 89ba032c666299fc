//! What a request becomes on its way to a function, and an answer on its way back.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header, request::Parts};
use pingora_http::{RequestHeader, ResponseHeader};

use super::reply::X_REQUEST_ID;
use crate::{
    config::model::{Endpoint, NamePatterns, Platform, Route},
    platform::headers::is_hidden,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Other ways of saying who called: nobody's word but gatepost's reaches a function.
const SPOOFED: [&str; 6] =
    ["forwarded", "x-real-ip", "x-forwarded-port", "x-forwarded-server", "x-client-ip", "true-client-ip"];
/// Fields between the caller and gatepost alone (RFC 9110 §7.6.1), whether Connection names them or not.
/// `Transfer-Encoding` is pingora's: it frames the body anew.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
];

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

/// What is in a request that needs a closer look, found in one pass over its names.
#[derive(Default)]
struct Seen {
    spoofed: bool,
    hop_by_hop: bool,
    cookie: bool,
    proto: bool,
    via: bool,
    /// What its platform does not take from callers.
    stripped: bool,
}

impl Seen {
    fn of(headers: &HeaderMap, strip: &NamePatterns) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "host" | "accept" | "user-agent" | "content-length" | "content-type" => {}
                "cookie" => seen.cookie = true,
                "via" => seen.via = true,
                "x-forwarded-proto" => seen.proto = true,
                name => {
                    seen.spoofed |= SPOOFED.contains(&name);
                    seen.hop_by_hop |= HOP_BY_HOP.contains(&name);
                    seen.stripped |= strip.contains(name);
                }
            }
        }
        seen
    }
}

/// Makes the request that a function gets, out of the one that came. `own_host` is the function's; `None`: the caller's
/// is kept. `strip`: what callers may not say to its platform.
///
/// Its names lose their case (RFC 9110 §5.1: it has no meaning): pingora's second map for that would cost as much as all
/// the rest here.
///
/// # Errors
///
/// What is wrong with the request's Connection field, or its target, for the caller.
pub fn edit(
    request: &mut RequestHeader,
    caller: Caller<'_>,
    own_host: Option<&HeaderValue>,
    target: Option<&str>,
    strip: &NamePatterns,
) -> Result<(), &'static str> {
    let nothing = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts = Parts::from(std::mem::replace(request, nothing));
    let done = edit_parts(&mut parts, caller, own_host, target, strip);
    *request = RequestHeader::from(parts);
    done
}

fn edit_parts(
    parts: &mut Parts,
    caller: Caller<'_>,
    own_host: Option<&HeaderValue>,
    target: Option<&str>,
    strip: &NamePatterns,
) -> Result<(), &'static str> {
    const BAD_TARGET: &str = "the request target is no URI";
    let asked_host = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(header::HOST).cloned(),
    };
    match target {
        Some(target) => parts.uri = target.parse().map_err(|_| BAD_TARGET)?,
        // Origin-form: the authority is in Host from here on.
        None if caller.version == Version::HTTP_2 => {
            let path = parts.uri.path_and_query().cloned();
            let uri = path.map_or_else(|| Ok(Uri::from_static("/")), |p| Uri::builder().path_and_query(p).build());
            parts.uri = uri.map_err(|_| BAD_TARGET)?;
        }
        None => {}
    }
    let headers = &mut parts.headers;
    let seen = Seen::of(headers, strip);
    if seen.hop_by_hop {
        strip_hop_by_hop(headers, caller.version)?;
    }
    match (own_host, &asked_host) {
        (Some(host), _) | (None, Some(host)) => drop(headers.insert(header::HOST, host.clone())),
        (None, None) => {}
    }
    if seen.spoofed {
        for name in SPOOFED {
            headers.remove(name);
        }
    }
    if seen.stripped {
        strip_names(headers, strip);
    }
    // Six come: the map grows once, not twice.
    headers.reserve(6);
    headers.insert(X_FORWARDED_FOR, caller.ip);
    let believed =
        seen.proto && caller.is_trusted && headers.get(X_FORWARDED_PROTO).is_some_and(|p| p == "https" || p == "http");
    if !believed {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if caller.tls { "https" } else { "http" }));
    }
    match asked_host {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
    headers.insert(X_REQUEST_ID, caller.request_id.clone());
    // RFC 9110 §7.6.3: a gateway says that it was here.
    let via = HeaderValue::from_static(match caller.version {
        Version::HTTP_2 => "2 gatepost",
        Version::HTTP_10 => "1.0 gatepost",
        _ => "1.1 gatepost",
    });
    if seen.via {
        headers.append(header::VIA, via);
    } else {
        headers.insert(header::VIA, via);
    }
    if seen.cookie {
        join_cookies(headers)?;
    }
    Ok(())
}

/// Takes out what callers may not say to a platform.
fn strip_names(headers: &mut HeaderMap, strip: &NamePatterns) {
    let going: Vec<HeaderName> = headers.keys().filter(|name| strip.contains(name.as_str())).cloned().collect();
    for name in going {
        headers.remove(name);
    }
}

/// Takes out what is between the caller and gatepost alone, and puts in again what a WebSocket or gRPC needs.
fn strip_hop_by_hop(headers: &mut HeaderMap, version: Version) -> Result<(), &'static str> {
    /// More are nobody's need, and each costs a look-up.
    const MOST: usize = 10;
    let mut named = Vec::new();
    let mut wants_upgrade = false;
    for token in headers.get_all(header::CONNECTION).iter().flat_map(|v| v.as_bytes().split(|b| *b == b',')) {
        let token = token.trim_ascii();
        if token.is_empty() {
            continue;
        }
        wants_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
        let name = HeaderName::from_bytes(token).map_err(|_| "Connection names what is no header field")?;
        // A caller that could take these away would choose what a function believes.
        if name == header::HOST || name.as_str().starts_with("x-forwarded-") || name == header::CONTENT_LENGTH {
            return Err("Connection names a field that is not the connection's");
        }
        if named.len() == MOST {
            return Err("Connection names too many fields");
        }
        named.push(name);
    }
    let is_websocket = wants_upgrade
        && version == Version::HTTP_11
        && headers.get(header::UPGRADE).is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
    // RFC 9113 §8.2.2: the one value that h2 allows; gRPC asks for it.
    let trailers = version == Version::HTTP_2 && headers.get(header::TE).is_some_and(|te| te == "trailers");
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if is_websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(())
}

/// RFC 9113 §8.2.3: cookies that h2 split into several fields are one field again for whoever reads HTTP/1.
fn join_cookies(headers: &mut HeaderMap) -> Result<(), &'static str> {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return Ok(());
    }
    let joined = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    let joined = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)).map_err(|_| "a cookie is malformed")?;
    headers.insert(header::COOKIE, joined);
    Ok(())
}

/// Takes from an answer what was meant for the hop between the function and gatepost (RFC 9110 §7.6.1), what only
/// gatepost may say, and what the platform at `from` adds that is not for callers.
pub fn edit_response(response: &mut ResponseHeader, to_h2: bool, platform: &Platform, from: &Endpoint) {
    // RFC 9112 §2.3: the version is the sender's own, not that of whoever answered behind it.
    if response.version == Version::HTTP_10 {
        response.set_version(Version::HTTP_11);
    }
    // Nearly all answers have nothing of all this but a plain Connection, which pingora replaces: one pass tells.
    let is_switching = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let hides = !platform.hide.is_empty() || !platform.drop_attachment.is_empty();
    let goes = |(name, value): (&HeaderName, &HeaderValue)| match name.as_str() {
        "connection" => !is_switching && (to_h2 || (value != "keep-alive" && value != "close")),
        "upgrade" => !is_switching,
        "keep-alive" | "proxy-connection" | "x-gatepost-reason" => true,
        "transfer-encoding" => to_h2,
        _ => hides && is_hidden(platform, name, value, &from.host),
    };
    if response.headers.iter().any(goes) {
        strip(response, is_switching, to_h2, platform, from);
    }
}

#[cold]
fn strip(response: &mut ResponseHeader, is_switching: bool, to_h2: bool, platform: &Platform, from: &Endpoint) {
    let hidden = |(name, value): &(&HeaderName, &HeaderValue)| is_hidden(platform, name, value, &from.host);
    let mut going: Vec<HeaderName> = response.headers.iter().filter(hidden).map(|(name, _)| name.clone()).collect();
    if !is_switching {
        let named = response.headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
        going.extend(named.flat_map(|v| v.split(',')).filter_map(|name| name.trim().parse().ok()));
        going.extend([header::CONNECTION, header::UPGRADE]);
    }
    if to_h2 {
        going.push(header::TRANSFER_ENCODING);
    }
    for name in going {
        response.remove_header(&name);
    }
    for name in ["keep-alive", "proxy-connection", "x-gatepost-reason"] {
        response.remove_header(name);
    }
}
