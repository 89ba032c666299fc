//! One spelling for every path, so that a route can't be missed, or a `deny` passed, by writing it otherwise.
//!
//! Where gateways differ, this one goes by what can't be misread behind it:
//!
//! - `..` above the root is refused, as nginx does (RFC 3986 §5.2.4 would drop it): no honest client sends it.
//! - A raw backslash is refused: to some servers behind a gateway it is a slash, to others a letter.
//! - `%2F` and `%5C` are kept and flagged, and are no segment border; a `..` beside one, or after a segment with
//!   one, is refused: who decodes them first climbs from another place.
//! - `[ ] ^ |` are not allowed raw (RFC 3986 §3.3), but browsers send them so: they are escaped.

use std::borrow::Cow;

/// A path in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normal<'r> {
    /// Begins with a slash. Borrowed where the request wrote it like this.
    pub path: Cow<'r, str>,
    /// Whether `%2F` or `%5C` is in it.
    pub encoded_slash: bool,
}

/// Why a path has no normal form: answered with 400. Positions count bytes from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    #[error("the path does not begin with `/`")]
    NotAbsolute,
    #[error("the path has a `%` at byte {at} that two hex digits don't follow")]
    BadEscape { at: usize },
    #[error("the path has a NUL or a control character at byte {at}")]
    Control { at: usize },
    #[error("the path has the byte {byte:#04x} at byte {at}, which must be percent-encoded")]
    IllegalByte { byte: u8, at: usize },
    #[error("the path has a backslash at byte {at}: write `/`, or `%5C` where it is meant")]
    Backslash { at: usize },
    #[error("the path climbs above `/` with `..`")]
    AboveRoot,
    #[error("the path has `..` beside an encoded slash, or after a segment with one")]
    DotsAtEncodedSlash,
}

/// Brings the path of an origin-form target (RFC 9112 §3.2.1; without its query) into its one spelling.
///
/// `//` is merged; percent-encoded unreserved letters are decoded and other escapes get upper-case hex (RFC 3986
/// §6.2.2); then dot segments are removed (§5.2.4). A path that is normal already is borrowed, after one pass.
/// Normalising twice changes nothing.
///
/// # Errors
///
/// What can't be read in one way only: see [`PathProblem`].
pub fn normalise(raw: &str) -> Result<Normal<'_>, PathProblem> {
    if is_normal(raw.as_bytes()) {
        return Ok(Normal { path: Cow::Borrowed(raw), encoded_slash: false });
    }
    rewrite(raw)
}

/// What a byte means in a path that a request wrote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself: unreserved, sub-delims, `:` and `@` (RFC 3986 §3.3).
    Plain,
    Slash,
    Percent,
    /// Illegal, but sent by browsers; harmless once escaped.
    Escaped,
    Backslash,
    Control,
    Illegal,
}

static CLASS: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Illegal; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        table[i] = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => Class::Plain,
            b':' | b'@' => Class::Plain,
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'[' | b']' | b'^' | b'|' => Class::Escaped,
            b'\\' => Class::Backslash,
            0..=0x1f | 0x7f => Class::Control,
            _ => Class::Illegal,
        };
        i += 1;
    }
    table
}

/// Whether nothing is to do; says no in doubt, as with every encoded slash.
fn is_normal(raw: &[u8]) -> bool {
    if raw.first() != Some(&b'/') {
        return false;
    }
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        match CLASS[usize::from(byte)] {
            Class::Plain => at += 1,
            Class::Slash => {
                let next = &raw[at + 1..];
                match next.first() {
                    Some(b'/') => return false,
                    Some(b'.') if is_dots(next.split(|b| *b == b'/').next().unwrap_or(next)) => {
                        return false;
                    }
                    _ => at += 1,
                }
            }
            Class::Percent => match (raw.get(at + 1), raw.get(at + 2)) {
                (Some(&high), Some(&low)) if !high.is_ascii_lowercase() && !low.is_ascii_lowercase() => {
                    match octet(high, low) {
                        Some(value) if escape_stays(value) => at += 3,
                        _ => return false,
                    }
                }
                _ => return false,
            },
            _ => return false,
        }
    }
    true
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

/// Whether the escape of `value` is kept with nothing to notice about it.
fn escape_stays(value: u8) -> bool {
    !is_unreserved(value) && !value.is_ascii_control() && !is_slash(value)
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a server behind may take for a segment border once it is decoded.
fn is_slash(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\')
}

fn octet(high: u8, low: u8) -> Option<u8> {
    Some(hex(high)? << 4 | hex(low)?)
}

/// The value of a hex digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn rewrite(raw: &str) -> Result<Normal<'static>, PathProblem> {
    let Some(rest) = raw.strip_prefix('/') else {
        return Err(PathProblem::NotAbsolute);
    };
    // Whole segments, each with its slash before it; never ends with a slash.
    let mut out = String::with_capacity(raw.len());
    let mut encoded_slash = false;
    let mut ends_with_slash = false;
    let mut at = 1;
    for segment in rest.split('/') {
        let start = out.len();
        out.push('/');
        encoded_slash |= push_segment(segment, at, &mut out)?;
        at += segment.len() + 1;
        ends_with_slash = true;
        match &out[start..] {
            // `//`, and the end of `/a/`.
            "/" | "/." => out.truncate(start),
            "/.." => {
                out.truncate(start);
                let parent = out.rfind('/').ok_or(PathProblem::AboveRoot)?;
                if ["%2F", "%5C"].iter().any(|slash| out[parent..].contains(slash)) {
                    return Err(PathProblem::DotsAtEncodedSlash);
                }
                out.truncate(parent);
            }
            _ => ends_with_slash = false,
        }
    }
    if ends_with_slash {
        out.push('/');
    }
    if encoded_slash && climbs_when_decoded(&out) {
        return Err(PathProblem::DotsAtEncodedSlash);
    }
    Ok(Normal { path: Cow::Owned(out), encoded_slash })
}

/// Appends a segment in its one spelling; says whether a slash is encoded in it. `at` is its place in the path.
fn push_segment(segment: &str, at: usize, out: &mut String) -> Result<bool, PathProblem> {
    let bytes = segment.as_bytes();
    let mut encoded_slash = false;
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let at = at + i;
        i += 1;
        match CLASS[usize::from(byte)] {
            Class::Plain | Class::Slash => out.push(char::from(byte)),
            Class::Escaped => push_escape(byte, out),
            Class::Percent => {
                let (Some(&high), Some(&low)) = (bytes.get(i), bytes.get(i + 1)) else {
                    return Err(PathProblem::BadEscape { at });
                };
                let value = octet(high, low).ok_or(PathProblem::BadEscape { at })?;
                i += 2;
                if value.is_ascii_control() {
                    return Err(PathProblem::Control { at });
                }
                encoded_slash |= is_slash(value);
                if is_unreserved(value) {
                    out.push(char::from(value));
                } else {
                    push_escape(value, out);
                }
            }
            Class::Backslash => return Err(PathProblem::Backslash { at }),
            Class::Control => return Err(PathProblem::Control { at }),
            Class::Illegal => return Err(PathProblem::IllegalByte { byte, at }),
        }
    }
    Ok(encoded_slash)
}

fn push_escape(value: u8, out: &mut String) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    out.push('%');
    out.push(DIGITS[usize::from(value >> 4)]);
    out.push(DIGITS[usize::from(value & 0xf)]);
}

/// Whether a `..` shows up once the encoded slashes of a normal path are taken for slashes.
fn climbs_when_decoded(path: &str) -> bool {
    path.split('/').flat_map(|segment| segment.split("%2F")).flat_map(|part| part.split("%5C")).any(|part| part == "..")
}

#[cfg(test)]
mod tests;
