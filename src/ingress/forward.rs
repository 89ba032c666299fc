//! What a request becomes on its way to a function, and an answer on its way back.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request::Parts};
use pingora_http::{RequestHeader, ResponseHeader};

use super::reply::X_REQUEST_ID;
use crate::{
    config::model::{Endpoint, EndpointHost, NamePatterns, Platform, Route},
    decide::{Reason, fill, hops, snapshot::Refusal},
    platform::headers::is_hidden,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Other ways of saying who called: nobody's word but gatepost's reaches a function.
const SPOOFED: [&str; 10] = [
    "forwarded",
    "x-real-ip",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-client-ip",
    "true-client-ip",
    // RFC 9440 §2.4: whoever could send these would choose who it is.
    "client-cert",
    "client-cert-chain",
    // A function that reads its headers as CGI variables takes it for its own `HTTP_PROXY` (CVE-2016-5385).
    "proxy",
    // A function may do less for a copy.
    MIRROR,
];
/// What marks a copy ([`mirror`](super::mirror)). Another gatepost in front says so rightly.
const MIRROR: &str = "x-gatepost-mirror";
/// RFC 9440.
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
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

/// The target for the function: base path, then the normalised path as the route edits it, then the query as it came.
/// `None`: what came is right as it is.
pub fn target(path: &str, raw_path: &str, query: Option<&str>, route: &Route, url: &Endpoint) -> Option<Box<str>> {
    let seen = fill::function_path(route, path);
    if url.base_path.is_empty() && seen == raw_path {
        return None;
    }
    let mut out = String::with_capacity(url.base_path.len() + seen.len() + query.map_or(0, str::len) + 2);
    out.push_str(&url.base_path);
    out.push_str(&seen);
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
    /// The Host that was asked for.
    pub host: Option<HeaderValue>,
    /// What [`asks_for_websocket`] said.
    pub is_websocket: bool,
    pub request_id: &'r HeaderValue,
    /// What it proved by TLS, where the route tells its function.
    pub certificate: Option<&'r HeaderValue>,
    /// How many gateposts it may pass.
    pub max_hops: u32,
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
    /// A name that some would read as another one.
    ambiguous: bool,
    hops: bool,
    gateposts: bool,
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
                "max-forwards" => seen.hops = true,
                "x-gatepost-hop" => seen.gateposts = true,
                name => {
                    seen.ambiguous |= is_ambiguous(name);
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
/// What is wrong with the request's Connection field, its count of gateposts, or its target, for the caller.
pub fn edit(
    request: &mut RequestHeader,
    caller: Caller<'_>,
    own_host: Option<&HeaderValue>,
    target: Option<&str>,
    strip: &NamePatterns,
) -> Result<(), Refusal> {
    let nothing = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts = Parts::from(std::mem::replace(request, nothing));
    let seen = Seen::of(&parts.headers, strip);
    let here = match seen.gateposts {
        true => hops::here(&parts.headers, caller.max_hops).map(HeaderValue::from),
        false => Ok(HeaderValue::from_static("1")),
    };
    let done = here.and_then(|here| {
        let done = edit_parts(&mut parts, &seen, caller, here, own_host, target, strip);
        done.map_err(|what| Refusal { detail: what.into(), ..Reason::BadRequest.into() })
    });
    *request = RequestHeader::from(parts);
    done
}

fn edit_parts(
    parts: &mut Parts,
    seen: &Seen,
    caller: Caller<'_>,
    here: HeaderValue,
    own_host: Option<&HeaderValue>,
    target: Option<&str>,
    strip: &NamePatterns,
) -> Result<(), &'static str> {
    const BAD_TARGET: &str = "the request target is no URI";
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
    if seen.hop_by_hop {
        strip_hop_by_hop(headers, caller.version, caller.is_websocket)?;
    }
    match (own_host, &caller.host) {
        (Some(host), _) | (None, Some(host)) => drop(headers.insert(header::HOST, host.clone())),
        (None, None) => {}
    }
    if seen.spoofed {
        for name in SPOOFED.into_iter().filter(|name| !(caller.is_trusted && *name == MIRROR)) {
            headers.remove(name);
        }
    }
    if seen.stripped {
        strip_names(headers, strip);
    }
    // Seven come: the map grows once, not twice.
    headers.reserve(7);
    headers.insert(X_FORWARDED_FOR, caller.ip);
    let believed =
        seen.proto && caller.is_trusted && headers.get(X_FORWARDED_PROTO).is_some_and(|p| p == "https" || p == "http");
    if !believed {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if caller.tls { "https" } else { "http" }));
    }
    match caller.host {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
    headers.insert(X_REQUEST_ID, caller.request_id.clone());
    headers.insert(hops::X_GATEPOST_HOP, here);
    if let Some(certificate) = caller.certificate {
        headers.insert(CLIENT_CERT, certificate.clone());
    }
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
    if seen.hops && parts.method == Method::OPTIONS {
        count_hop(headers);
    }
    // Last: what gatepost says is there by now.
    if seen.ambiguous {
        strip_ambiguous(headers, strip);
    }
    Ok(())
}

/// Takes out what callers may not say to a platform.
#[cold]
fn strip_names(headers: &mut HeaderMap, strip: &NamePatterns) {
    let going: Vec<HeaderName> = headers.keys().filter(|name| strip.contains(name.as_str())).cloned().collect();
    for name in going {
        headers.remove(name);
    }
}

/// Whether a name has more than letters, digits and dashes. Functions that get their headers as variables (CGI, WSGI, PHP)
/// see `X_Forwarded_For` and `X-Forwarded-For` as one.
fn is_ambiguous(name: &str) -> bool {
    !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Takes out names that can be read as one that gatepost or the platform answers for, or as another that is there. Others
/// with underscores pass: honest callers use them.
#[cold]
fn strip_ambiguous(headers: &mut HeaderMap, strip: &NamePatterns) {
    for name in aliases(headers, strip) {
        headers.remove(name);
    }
}

/// The same once the route's own fields are there.
pub fn strip_aliases(request: &mut RequestHeader, strip: &NamePatterns) {
    if request.headers.keys().any(|name| is_ambiguous(name.as_str())) {
        for name in aliases(&request.headers, strip) {
            request.remove_header(&name);
        }
    }
}

fn aliases(headers: &HeaderMap, strip: &NamePatterns) -> Vec<HeaderName> {
    let reads_as = |name: &HeaderName| -> String {
        name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    };
    let is_ours = |name: &str| {
        SPOOFED.contains(&name)
            || HOP_BY_HOP.contains(&name)
            || name.starts_with("x-forwarded-")
            || name.starts_with("x-gatepost-")
            || matches!(name, "host" | "content-length" | "transfer-encoding" | "x-request-id" | "via")
            || strip.contains(name)
    };
    let is_alias = |name: &&HeaderName| {
        let other = reads_as(name);
        is_ambiguous(name.as_str()) && (is_ours(&other) || headers.contains_key(&other))
    };
    headers.keys().filter(is_alias).cloned().collect()
}

/// RFC 9110 §7.6.2: one hop less. Not one of none: [`Ingress`](super::Ingress) has answered that.
fn count_hop(headers: &mut HeaderMap) {
    if let Some(hops @ 1..) = hops_left(headers) {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(hops - 1));
    }
}

/// How much further an OPTIONS or TRACE may go; `None`: as far as it likes.
pub fn hops_left(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::MAX_FORWARDS)?.to_str().ok()?.parse().ok()
}

/// Whether this request becomes a tunnel if the function agrees: a GET without content (RFC 6455 §4.1) over HTTP/1.1 that
/// names `websocket` alone, and the connection option with it (RFC 9110 §7.8).
pub fn asks_for_websocket(request: &RequestHeader) -> bool {
    let headers = &request.headers;
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    let (Some(upgrade), None) = (upgrades.next(), upgrades.next()) else { return false };
    upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")
        && request.version == Version::HTTP_11
        && request.method == Method::GET
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
        && options_of_connection(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

fn options_of_connection(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii).filter(|o| !o.is_empty())
}

/// Takes out what is between the caller and gatepost alone, and puts in again what a WebSocket or gRPC needs.
fn strip_hop_by_hop(headers: &mut HeaderMap, version: Version, is_websocket: bool) -> Result<(), &'static str> {
    /// More are nobody's need, and each costs a look-up.
    const MOST: usize = 10;
    let mut named = Vec::new();
    for option in options_of_connection(headers) {
        let name = HeaderName::from_bytes(option).map_err(|_| "Connection names what is no header field")?;
        // A caller that could take these away would choose what a function believes, or where its body ends.
        if matches!(name, header::HOST | header::CONTENT_LENGTH | header::TRANSFER_ENCODING)
            || name.as_str().starts_with("x-forwarded-")
        {
            return Err("Connection names a field that is not the connection's");
        }
        if named.len() == MOST {
            return Err("Connection names too many fields");
        }
        named.push(name);
    }
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
/// gatepost may say, what the platform at `from` adds that is not for callers, and what would frame it in two ways.
///
/// What h2 does not have goes in [`H2Stream`](super::stream::H2Stream).
///
/// # Errors
///
/// What is wrong with the answer, so that nothing of it may go on.
pub fn edit_response(
    response: &mut ResponseHeader,
    platform: &Platform,
    from: &EndpointHost,
) -> Result<(), &'static str> {
    // RFC 9112 §2.3: the version is the sender's own, not that of whoever answered behind it.
    if response.version == Version::HTTP_10 {
        response.set_version(Version::HTTP_11);
    }
    // Nearly all answers have nothing of all this but a plain Connection, which pingora replaces: one pass tells.
    let is_switching = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let has_content = !(response.status.is_informational() || response.status == StatusCode::NO_CONTENT);
    let hides = !platform.hide.is_empty() || !platform.drop_attachment.is_empty();
    let (mut lengths, mut codings) = (0, 0);
    let mut goes = |(name, value): (&HeaderName, &HeaderValue)| match name.as_str() {
        "connection" => !is_switching && value != "keep-alive" && value != "close",
        "upgrade" => !is_switching,
        "content-length" => {
            lengths += 1;
            lengths > 1 || !has_content || value.as_bytes().contains(&b',')
        }
        "transfer-encoding" => {
            codings += 1;
            codings > 1 || !has_content || value != "chunked"
        }
        text => STRIPPED.contains(&text) || (hides && is_hidden(platform, name, value, from)),
    };
    if response.headers.iter().any(&mut goes) {
        let mut hidden = Vec::new();
        if hides {
            let of_it = response.headers.iter().filter(|(name, value)| is_hidden(platform, name, value, from));
            hidden.extend(of_it.map(|(name, _)| name.clone()));
        }
        strip(response, is_switching, has_content, hidden)
    } else {
        Ok(())
    }
}

/// Fields of an answer that never go on.
const STRIPPED: [&str; 5] = ["keep-alive", "proxy-connection", "proxy-authenticate", "te", "x-gatepost-reason"];

#[cold]
fn strip(
    response: &mut ResponseHeader,
    is_switching: bool,
    has_content: bool,
    mut going: Vec<HeaderName>,
) -> Result<(), &'static str> {
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // RFC 9112 §6.1: nothing but chunked was asked for, so that nothing else can be read, by the caller neither.
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("its Transfer-Encoding is not chunked, once");
        }
    }
    if !is_switching {
        let named = response.headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
        let named = named.flat_map(|v| v.split(',')).filter_map(|name| name.trim().parse().ok());
        going.extend(named.filter(|name| *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING));
        going.extend([header::CONNECTION, header::UPGRADE]);
    }
    if !has_content {
        going.push(header::TRANSFER_ENCODING);
    }
    if !has_content {
        // RFC 9110 §8.6, RFC 9112 §6.1: neither of them where there is no content.
        going.push(header::CONTENT_LENGTH);
    }
    for name in going {
        response.remove_header(&name);
    }
    for name in STRIPPED {
        response.remove_header(name);
    }
    one_length(response)
}

/// RFC 9112 §6.3: what is said twice alike goes on once. That they are alike pingora has seen to.
fn one_length(response: &mut ResponseHeader) -> Result<(), &'static str> {
    const BAD: &str = "its Content-Length is not one number";
    let mut lengths = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(()) };
    let first = first.as_bytes().split(|b| *b == b',').next().unwrap_or_default().trim_ascii();
    let first = HeaderValue::from_bytes(first).map_err(|_| BAD)?;
    response.insert_header(header::CONTENT_LENGTH, first).map_err(|_| BAD)
}
