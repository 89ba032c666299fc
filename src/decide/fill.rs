//! Templates filled by a request: where a redirect leads, and the path that a function sees.

use std::borrow::Cow;

use super::path;
use crate::config::model::{PathEdit, PathPattern, Piece, Redirect, Route, Template};

/// Where a redirect leads. Holds nothing but visible ASCII, as paths in their normal form and parsed hosts do.
pub fn location(redirect: &Redirect, route: &Route, host: &str, path: &str, query: Option<&str>) -> String {
    let mut to = fill(&redirect.to, &route.path, host, path);
    if to.starts_with('/') {
        // RFC 3986 §4.2: `//x` would be another host, and it is the caller who filled this in.
        let slashes = to.len() - to.trim_start_matches('/').len();
        to.drain(1..slashes);
    }
    if let Some(query) = query.filter(|query| redirect.keep_query && !query.is_empty()) {
        let fragment = to.find('#').map(|at| to.split_off(at));
        to.push(if to.contains('?') { '&' } else { '?' });
        // What no URI has (RFC 3986 §3.4) is percent-encoded.
        for byte in query.bytes() {
            match byte {
                b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' => push_escaped(&mut to, byte),
                0x21..=0x7e => to.push(char::from(byte)),
                byte => push_escaped(&mut to, byte),
            }
        }
        to.extend(fragment);
    }
    to
}

fn push_escaped(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// The path that the function sees, before its URL's own: begins with a slash.
pub fn function_path<'r>(route: &Route, path: &'r str) -> Cow<'r, str> {
    match &route.handling.path {
        None => Cow::Borrowed(path),
        Some(PathEdit::Prefix { strip, add }) => {
            let stripped = strip.as_deref().and_then(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
            match add {
                Some(add) => Cow::Owned(format!("{add}{stripped}")),
                // What is left empty becomes `/`.
                None if stripped.is_empty() => Cow::Borrowed("/"),
                None => Cow::Borrowed(stripped),
            }
        }
        Some(PathEdit::Rewrite(to)) => {
            let filled = fill(to, &route.path, "", path);
            // A part may make a dot segment of what stands around it: such a path climbs nowhere.
            match path::normalise(&filled) {
                Ok(normal) => Cow::Owned(normal.path.into_owned()),
                Err(_) => Cow::Borrowed("/"),
            }
        }
    }
}

fn fill(template: &Template, pattern: &PathPattern, host: &str, path: &str) -> String {
    let mut out = String::with_capacity(template.text.len() + path.len() + host.len());
    let mut groups = None;
    for piece in &template.pieces {
        out.push_str(match piece {
            Piece::Text(text) => text,
            Piece::Host => host,
            Piece::Path => path,
            Piece::Rest => match pattern {
                PathPattern::Prefix(prefix) => {
                    let rest = path.strip_prefix(prefix.as_str()).unwrap_or(path);
                    rest.strip_prefix('/').unwrap_or(rest)
                }
                _ => "",
            },
            // The first is empty: a path begins with a slash.
            Piece::Segment(at) => path.split('/').nth(at + 1).unwrap_or(""),
            Piece::Group(name) => match pattern {
                PathPattern::Regex(regex) => {
                    let groups = groups.get_or_insert_with(|| regex.captures(path));
                    groups.as_ref().and_then(|groups| groups.name(name)).map_or("", |group| group.as_str())
                }
                _ => "",
            },
        });
    }
    out
}

#[cfg(test)]
mod tests;
