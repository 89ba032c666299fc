//! A function's answer: whether a shared cache may keep it (RFC 9111 §3), and for how long (§4.2).

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use super::{directives, elements};

/// How an answer may be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// For how long by the function's own word; `None`: it says nothing.
    pub lifetime: Option<Duration>,
    /// For how long after that it may stand in for an error by the function's own word; `None`: it says nothing.
    pub stale: Option<Duration>,
    /// What its answers differ by: sorted, each once.
    pub vary: Vec<HeaderName>,
    /// How old it was when it came.
    pub age: Duration,
}

/// More would make a key of the whole request.
const MOST_NAMES: usize = 16;

/// Whether an answer to a GET, that came `delay` after it was asked for, may be given to others as well.
///
/// # Errors
///
/// Why not.
pub fn judge(status: u16, headers: &HeaderMap, delay: Duration) -> Result<Keep, &'static str> {
    // RFC 9110 §15.1, less what is an error, or a part.
    if !matches!(status, 200 | 203 | 204 | 300 | 301 | 308) {
        return Err("its status is not one that is kept");
    }
    if headers.contains_key(header::SET_COOKIE) {
        return Err("it sets a cookie");
    }
    if headers.contains_key(header::CONTENT_RANGE) || headers.contains_key(header::TRAILER) {
        return Err("it is a part, or has trailers");
    }
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let is_kind = |of: &[u8]| kind.get(..of.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(of));
    if is_kind(b"text/event-stream") || is_kind(b"multipart/x-mixed-replace") || is_kind(b"application/grpc") {
        return Err("it is a stream");
    }
    let mut said = Said::default();
    for (name, value) in directives(headers) {
        said.read(name, value)?;
    }
    let age = headers.get(header::AGE).map_or(Some(0), |age| seconds(age.as_bytes()));
    let age = Duration::from_secs(age.unwrap_or(MOST_SECONDS)).saturating_add(delay);
    let lifetime = said.shared.or(said.any).or_else(|| expires(headers));
    if lifetime.is_some_and(|lifetime| lifetime <= age) {
        return Err("it is old as it comes");
    }
    let stale = if said.revalidates { Some(Duration::ZERO) } else { said.stale };
    Ok(Keep { lifetime, stale, vary: vary(headers)?, age })
}

#[derive(Default)]
struct Said {
    shared: Option<Duration>,
    any: Option<Duration>,
    stale: Option<Duration>,
    revalidates: bool,
}

impl Said {
    fn read(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), &'static str> {
        // §4.2.1: of two the shorter counts, and what can't be read is none.
        let least = |place: &mut Option<Duration>| {
            let said = Duration::from_secs(value.and_then(seconds).unwrap_or(0));
            *place = Some(place.map_or(said, |before| before.min(said)));
        };
        match name.to_ascii_lowercase().as_slice() {
            b"no-store" => return Err("it says no-store"),
            // §5.2.2.4, §5.2.2.7: with names of fields as well, which a cache may take for all.
            b"no-cache" => return Err("it says no-cache"),
            b"private" => return Err("it says private"),
            b"s-maxage" => {
                least(&mut self.shared);
                // §5.2.2.10.
                self.revalidates = true;
            }
            b"max-age" => least(&mut self.any),
            b"must-revalidate" | b"proxy-revalidate" => self.revalidates = true,
            // RFC 5861 §4.
            b"stale-if-error" => least(&mut self.stale),
            _ => {}
        }
        Ok(())
    }
}

/// RFC 9111 §1.2.2: what is more counts as this.
const MOST_SECONDS: u64 = 1 << 31;

fn seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    Some(text.parse().map_or(MOST_SECONDS, |seconds: u64| seconds.min(MOST_SECONDS)))
}

/// RFC 9111 §5.3: from Date to Expires. What is no date, `0` for instance, is over; and so is all without a Date to count from.
fn expires(headers: &HeaderMap) -> Option<Duration> {
    let expires = headers.get(header::EXPIRES)?;
    let time = |value: &http::HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let of = || time(expires)?.duration_since(time(headers.get(header::DATE)?)?).ok();
    Some(of().unwrap_or_default())
}

fn vary(headers: &HeaderMap) -> Result<Vec<HeaderName>, &'static str> {
    let mut names = Vec::new();
    for element in headers.get_all(header::VARY).iter().flat_map(|line| elements(line.as_bytes())) {
        if element == b"*" {
            return Err("it says Vary: *");
        }
        names.push(HeaderName::from_bytes(element).map_err(|_| "its Vary is malformed")?);
        if names.len() > MOST_NAMES {
            return Err("its Vary names too many headers");
        }
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Ok(names)
}
