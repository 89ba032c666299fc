//! A request, as a question that another's answer may fit.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, header};

use super::directives;
use crate::config::model::{Cache, CacheKey, STICKY_COOKIE, StickyKey};

/// What a request asks: as its function gets it, after every edit.
#[derive(Clone, Copy)]
pub struct Question<'r> {
    pub method: &'r Method,
    /// Path and query.
    pub target: &'r str,
    pub headers: &'r HeaderMap,
    /// The client's name, where the route lets in known clients alone.
    pub client: Option<&'r str>,
    pub client_ip: IpAddr,
    /// By which its function keeps callers on a version.
    pub sticky: &'r [StickyKey],
    /// The function is told the caller's certificate.
    pub shows_certificate: bool,
}

/// Why nothing that is kept may answer a request, nor its answer others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass<'r> {
    Method,
    Body,
    Upgrade,
    Range,
    /// If-Match, If-Unmodified-Since: about what the function has, not about what was kept.
    Precondition,
    Certificate,
    Authorization,
    /// The name of a cookie.
    Cookie(&'r [u8]),
    /// A header by which callers are told apart.
    Sticky(&'r HeaderName),
}

impl Bypass<'_> {
    /// For people.
    pub fn sentence(self) -> String {
        match self {
            Self::Method => "only GET and HEAD are answered so".to_owned(),
            Self::Body => "the request has a body".to_owned(),
            Self::Upgrade => "the request asks for a tunnel".to_owned(),
            Self::Range => "it asks for a range".to_owned(),
            Self::Precondition => "it has a precondition on what the function has".to_owned(),
            Self::Certificate => "the function is told the caller's certificate".to_owned(),
            Self::Authorization => "it has Authorization, which `cache.key` does not name".to_owned(),
            Self::Cookie(name) => {
                format!(
                    "it has cookie {}, which `cache.key` does not name",
                    String::from_utf8_lossy(name).escape_debug()
                )
            }
            Self::Sticky(name) => {
                format!("it has {name}, by which `sticky` tells callers apart, and `cache.key` does not name it")
            }
        }
    }
}

/// What a request may do with the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It may be answered by it, and its answer may be kept.
    Both,
    /// It may be answered by it. HEAD has no body to keep; and who says `no-store` (RFC 9111 §5.2.1.5) has nothing of its
    /// own kept.
    ///
    /// What else callers say in Cache-Control is not heeded: `no-cache`, `max-age` and `only-if-cached` are wishes
    /// (§5.2.1), and whoever reloads a page is not to spend the function's calls for all.
    Read,
}

/// Whether the cache has a part in this request.
///
/// # Errors
///
/// Why it has none.
pub fn judge<'r>(cache: &Cache, question: &Question<'r>) -> Result<Use, Bypass<'r>> {
    let headers = question.headers;
    let has = |name: HeaderName| headers.contains_key(name);
    let named = |name: &HeaderName| cache.key.iter().any(|key| matches!(key, CacheKey::Header(n) if n == name));
    let unnamed = |name: HeaderName| headers.contains_key(&name) && !named(&name);
    let is_get = *question.method == Method::GET;
    if !is_get && *question.method != Method::HEAD {
        return Err(Bypass::Method);
    }
    let is_empty = headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0");
    if !is_empty || has(header::TRANSFER_ENCODING) {
        return Err(Bypass::Body);
    }
    if has(header::UPGRADE) {
        return Err(Bypass::Upgrade);
    }
    if unnamed(header::RANGE) || has(header::IF_RANGE) {
        return Err(Bypass::Range);
    }
    if has(header::IF_MATCH) || has(header::IF_UNMODIFIED_SINCE) {
        return Err(Bypass::Precondition);
    }
    if question.shows_certificate && unnamed(HeaderName::from_static("client-cert")) {
        return Err(Bypass::Certificate);
    }
    if unnamed(header::AUTHORIZATION) {
        return Err(Bypass::Authorization);
    }
    if unnamed(header::COOKIE)
        && let Some(name) = cookies(headers).map(|(name, _)| name).find(|name| !is_named_cookie(cache, name))
    {
        return Err(Bypass::Cookie(name));
    }
    for key in question.sticky {
        if let StickyKey::Header(name) = key
            && headers.contains_key(name)
            && !named(name)
        {
            return Err(Bypass::Sticky(name));
        }
    }
    let keeps_nothing = || directives(headers).any(|(name, _)| name.eq_ignore_ascii_case(b"no-store"));
    Ok(if is_get && !keeps_nothing() { Use::Both } else { Use::Read })
}

/// Names and pairs of all Cookie lines (RFC 6265 §4.2.1); what has no `=` is a name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).map(|pair| {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
        (name.trim_ascii(), pair)
    })
}

fn is_named_cookie(cache: &Cache, name: &[u8]) -> bool {
    // What gatepost has issued means a version, which is in every key.
    name == STICKY_COOKIE.as_bytes()
        || cache.key.iter().any(|key| matches!(key, CacheKey::Cookie(known) if known.as_bytes() == name))
}

/// Writes the key of a question: two questions have the same only if an answer to one may answer the other. `meaning` stands for
/// what the key leaves out: the version and all that makes the request what its function gets.
pub fn write_key(out: &mut Vec<u8>, meaning: u64, cache: &Cache, question: &Question<'_>) {
    out.clear();
    out.extend_from_slice(&meaning.to_le_bytes());
    // What a function may make its links of.
    for name in ["x-forwarded-proto", "x-forwarded-host"] {
        put_all(out, question.headers.get_all(name).iter().map(|value| value.as_bytes()));
    }
    let (path, query) = question.target.split_once('?').map_or((question.target, None), |(p, q)| (p, Some(q)));
    put(out, path.as_bytes());
    let by_names = cache.key.iter().any(|key| matches!(key, CacheKey::Query(_)));
    // A `;` parts parameters for some functions: what we would leave out may be what they read.
    let is_whole = !by_names || query.is_some_and(|query| query.contains(';'));
    out.push(is_whole.into());
    if is_whole {
        put_all(out, query.map(str::as_bytes).into_iter());
    }
    for key in &cache.key {
        match key {
            CacheKey::Header(name) => put_all(out, question.headers.get_all(name).iter().map(|value| value.as_bytes())),
            CacheKey::Cookie(name) => {
                let pairs = cookies(question.headers).filter(|(n, _)| *n == name.as_bytes());
                put_all(out, pairs.map(|(_, pair)| pair));
            }
            CacheKey::Query(name) if !is_whole => {
                let pairs = query.unwrap_or_default().split('&').filter(|pair| is_parameter(pair, name));
                put_all(out, pairs.map(str::as_bytes));
            }
            CacheKey::Query(_) => {}
            CacheKey::Client => put_all(out, question.client.map(str::as_bytes).into_iter()),
            CacheKey::ClientIp => match question.client_ip.to_canonical() {
                IpAddr::V4(ip) => put(out, &ip.octets()),
                IpAddr::V6(ip) => put(out, &ip.octets()),
            },
        }
    }
}

/// A text, with its length before it, so that none runs into the next.
fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text);
}

fn put_all<'t>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'t [u8]>) {
    for text in texts {
        out.push(1);
        put(out, text);
    }
    out.push(0);
}

/// Whether some function may read this pair of the query as that parameter: `ID`, `id[]`, `i%64` and `id.x` are all `id` to
/// somebody. One too many parts answers that could be shared; one too few would hand a caller another's.
fn is_parameter(pair: &str, name: &str) -> bool {
    let written = pair.split('=').next().unwrap_or_default();
    let mut read = plain(written.as_bytes());
    plain(name.as_bytes()).all(|byte| read.next() == Some(byte))
}

/// Percent-decoded, lower case, with `_` for what is no letter or digit.
fn plain(mut text: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let digit = |b: u8| (b as char).to_digit(16);
        let byte = match text {
            [b'%', high, low, rest @ ..] if digit(*high).is_some() && digit(*low).is_some() => {
                text = rest;
                (digit(*high)? * 16 + digit(*low)?) as u8
            }
            [first, rest @ ..] => {
                text = rest;
                *first
            }
            [] => return None,
        };
        Some(if byte.is_ascii_alphanumeric() || !byte.is_ascii() { byte.to_ascii_lowercase() } else { b'_' })
    })
}

/// What the request says of the headers that an answer's Vary names (RFC 9111 §4.1).
pub fn write_variant(out: &mut Vec<u8>, names: &[HeaderName], headers: &HeaderMap) {
    for name in names {
        let mut is_first = true;
        let mut value = Vec::new();
        let mut is_there = false;
        for line in headers.get_all(name) {
            is_there = true;
            for element in line.as_bytes().split(|b| *b == b',') {
                if !is_first {
                    value.push(b',');
                }
                is_first = false;
                value.extend_from_slice(element.trim_ascii());
            }
        }
        out.push(is_there.into());
        put(out, &value);
    }
}
