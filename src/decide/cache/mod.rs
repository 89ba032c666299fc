//! What a shared cache may keep, and for whom (RFC 9111): the glue, without the memory.
//!
//! [`question`]: a request → what it asks, as bytes, or why nothing kept may answer it. [`answer`]: a function's answer → how long
//! it may be kept. [`unchanged`]: whether a caller has it already.

pub mod answer;
pub mod question;
pub mod unchanged;

use std::iter;

use http::{HeaderMap, header};

/// The directives of Cache-Control (RFC 9111 §5.2) over all its lines: each name as it came, and its argument without quotes.
fn directives(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    headers.get_all(header::CACHE_CONTROL).iter().flat_map(|line| elements(line.as_bytes())).map(|element| {
        let equals = element.iter().position(|b| *b == b'=');
        let Some(at) = equals else { return (element, None) };
        let value = element[at + 1..].trim_ascii();
        let value = value.strip_prefix(b"\"").map_or(value, |v| v.strip_suffix(b"\"").unwrap_or(v));
        (element[..at].trim_ascii(), Some(value))
    })
}

/// The elements of a list (RFC 9110 §5.6.1), without blanks around them; a comma in a quoted string (§5.6.4) parts nothing.
fn elements(mut line: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        if line.is_empty() {
            return None;
        }
        let (mut quoted, mut escaped) = (false, false);
        let end = line.iter().position(|b| {
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => return true,
                _ => {}
            }
            false
        });
        let (element, rest) = match end {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &line[..0]),
        };
        line = rest;
        Some(element.trim_ascii())
    })
    .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests;
