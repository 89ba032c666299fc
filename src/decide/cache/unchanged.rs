//! Whether a caller has an answer already (RFC 9110 §13).

use http::{HeaderMap, header};

use super::elements;

/// Whether the request has a condition that [`is_unchanged`] knows.
pub fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_NONE_MATCH) || headers.contains_key(header::IF_MODIFIED_SINCE)
}

/// Whether the caller of a GET or HEAD is told 304 instead of an answer with 200 and this head.
pub fn is_unchanged(request: &HeaderMap, answer: &HeaderMap) -> bool {
    // §13.2.2: who knows tags is not asked for dates.
    if request.contains_key(header::IF_NONE_MATCH) {
        let Some(tag) = answer.get(header::ETAG).map(|tag| opaque(tag.as_bytes())) else {
            // §13.1.2: there is one, whatever its tag.
            return request.get_all(header::IF_NONE_MATCH).iter().any(|line| line.as_bytes().trim_ascii() == b"*");
        };
        let mut known = request.get_all(header::IF_NONE_MATCH).iter().flat_map(|line| elements(line.as_bytes()));
        return known.any(|known| known == b"*" || opaque(known) == tag);
    }
    let time = |value: &http::HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let since = || {
        let mut lines = request.get_all(header::IF_MODIFIED_SINCE).iter();
        let since = lines.next().filter(|_| lines.next().is_none()).and_then(time)?;
        Some(answer.get(header::LAST_MODIFIED).and_then(time)? <= since)
    };
    since().unwrap_or(false)
}

/// §8.8.3.2: compared weakly, a tag is what stands in its quotes.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}
