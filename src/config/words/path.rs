//! Path patterns. They are written in the normal form in which paths are matched.

use serde_json::{Value as Json, json};

use crate::config::{
    model::{PathPattern, PathSegment},
    read::{Complaint, Word, words},
};

/// A `path`: exact, with `{param}`s, or a prefix that ends in `/*`.
#[derive(Debug, Clone)]
pub(in crate::config) struct PathWord(pub(in crate::config) PathPattern);

impl Word for PathWord {
    const EXPECTED: &'static str = "a path such as `/report`, `/users/{id}` or `/orders/*`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if let Some(prefix) = text.strip_suffix("/*") {
            no_pattern(prefix, text)?;
            if !prefix.is_empty() {
                literal(prefix).map_err(|complaint| with_star(complaint, prefix))?;
            }
            if prefix.ends_with('/') {
                return Err(Complaint::new(format!("`{text}` has an empty segment")));
            }
            return Ok(Self(PathPattern::Prefix(prefix.to_owned())));
        }
        if !text.contains('{') && !text.contains('}') {
            if text.contains('*') {
                return Err(star(text));
            }
            literal(text)?;
            return Ok(Self(PathPattern::Exact(text.to_owned())));
        }
        params(text)
    }

    fn form() -> Json {
        json!({ "pattern": "^/[^?#]*$" })
    }
}

fn star(text: &str) -> Complaint {
    Complaint::new(format!("`{}`: a `*` is the whole last segment", text.escape_debug()))
        .help("write `/orders/*`, a `{param}` for a segment in the middle, or a `path_regex`")
}

fn no_pattern(prefix: &str, text: &str) -> Result<(), Complaint> {
    if prefix.contains('*') {
        return Err(star(text));
    }
    if prefix.contains(['{', '}']) {
        return Err(Complaint::new(format!("`{}`: `{{param}}` and `/*` do not go together", text.escape_debug()))
            .help("use a `path_regex`"));
    }
    Ok(())
}

fn with_star(mut complaint: Complaint, prefix: &str) -> Complaint {
    if let Some(normal) = normal(prefix) {
        complaint.help = Some(format!("its normal form is `{}/*`", normal.trim_end_matches('/')));
    }
    complaint
}

fn params(text: &str) -> Result<PathWord, Complaint> {
    let shown = text.escape_debug();
    let Some(rest) = text.strip_prefix('/') else {
        return Err(no_slash(text));
    };
    let mut names: Vec<&str> = Vec::new();
    let mut segments = Vec::new();
    for segment in rest.split('/') {
        let name = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
        match name {
            Some(name) => {
                let mut bytes = name.bytes();
                if name.is_empty() || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                    return Err(Complaint::new(format!("`{}` is not the name of a parameter", name.escape_debug()))
                        .help("use letters, digits and `_`"));
                }
                if names.contains(&name) {
                    return Err(Complaint::new(format!("`{shown}` has `{{{name}}}` twice")));
                }
                names.push(name);
                segments.push(PathSegment::Param(name.to_owned()));
            }
            None if segment.contains(['{', '}']) => {
                return Err(Complaint::new(format!("`{}`: a `{{param}}` is a whole segment", segment.escape_debug()))
                    .help("for a part of a segment use a `path_regex`"));
            }
            None if segment.contains('*') => return Err(star(text)),
            None => {
                segment_of(segment, text)?;
                segments.push(PathSegment::Literal(segment.to_owned()));
            }
        }
    }
    // A slash at the end is an empty last segment, and says something; others are merged away.
    let empty = |segment: &PathSegment| matches!(segment, PathSegment::Literal(text) if text.is_empty());
    if segments.iter().rev().skip(1).any(empty) {
        return Err(Complaint::new(format!("`{shown}` is never matched: paths are normalised first"))
            .help("write single slashes"));
    }
    Ok(PathWord(PathPattern::Params(segments)))
}

/// Checks one literal segment of a path with parameters.
fn segment_of(segment: &str, text: &str) -> Result<(), Complaint> {
    if segment.is_empty() {
        return Ok(());
    }
    literal(&format!("/{segment}")).map_err(|mut complaint| {
        if let Some(normal) = normal(segment).filter(|_| !matches!(segment, "." | "..")) {
            complaint.message = format!("`{}` is never matched: paths are normalised first", text.escape_debug());
            complaint.help = Some(format!(
                "the normal form of `{}` is `{}`",
                segment.escape_debug(),
                normal.trim_start_matches('/')
            ));
        }
        complaint
    })
}

fn no_slash(text: &str) -> Complaint {
    Complaint::new(format!("`{}` does not start with `/`", text.escape_debug()))
        .help(format!("write `/{}`", text.escape_debug()))
}

/// Checks that a path without patterns is in the form in which paths are matched.
pub(super) fn literal(text: &str) -> Result<(), Complaint> {
    let shown = text.escape_debug();
    if !text.starts_with('/') {
        return Err(no_slash(text));
    }
    if text.contains(['?', '#']) {
        return Err(Complaint::new(format!("`{shown}` holds more than a path"))
            .help("conditions on the query go into `query = { key = \"value\" }`"));
    }
    match normal(text) {
        None => Err(Complaint::new(format!("`{shown}` has a broken escape, or one of a control character"))),
        Some(normal) if normal != text => {
            Err(Complaint::new(format!("`{shown}` is never matched: paths are normalised first"))
                .help(format!("its normal form is `{normal}`")))
        }
        Some(_) => Ok(()),
    }
}

/// The normal form of a path: dot segments and empty ones gone, unreserved characters plain (RFC 3986 §6.2.2), the
/// others escaped with upper-case digits. `None` where no request can have such a path.
fn normal(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let (byte, escaped) = match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                (u8::from_str_radix(digits, 16).ok()?, true)
            }
            byte => (byte, false),
        };
        // RFC 3986 §3.3: pchar, and the slash between segments.
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let reserved = b"/!$&'()*+,;=:@".contains(&byte);
        if byte.is_ascii_control() {
            return None;
        }
        if unreserved || (reserved && !escaped) {
            plain.push(char::from(byte));
        } else {
            plain.push_str(&format!("%{byte:02X}"));
        }
    }
    let mut segments: Vec<&str> = Vec::new();
    let mut folder = false;
    for segment in plain.trim_start_matches('/').split('/') {
        folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(plain.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if folder || out.is_empty() {
        out.push('/');
    }
    Some(out)
}

/// A `strip_prefix`: a literal path without a slash at its end.
#[derive(Debug, Clone)]
pub(in crate::config) struct Strip(pub(in crate::config) String);

impl Word for Strip {
    const EXPECTED: &'static str = "the path's first segments, such as `/orders`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let trimmed = text.trim_end_matches(['/', '*']);
        if trimmed.is_empty() {
            return Err(
                Complaint::new(format!("`{}` strips nothing", text.escape_debug())).help("leave `strip_prefix` out")
            );
        }
        if trimmed != text {
            return Err(Complaint::new(format!("`{}` does not end with a segment", text.escape_debug()))
                .help(format!("write `{trimmed}`")));
        }
        if text.contains(['*', '{', '}']) {
            return Err(Complaint::new(format!(
                "`{}` is a pattern: only literal segments can be stripped",
                text.escape_debug()
            )));
        }
        literal(text)?;
        Ok(Self(text.to_owned()))
    }

    fn form() -> Json {
        json!({ "pattern": "^/[^?#*{}]*[^?#*{}/]$" })
    }
}

words!(PathWord, Strip);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PathWord, normal};
    use crate::config::{model::PathPattern, read::Word};

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(text in "/[a-z./%0-9A-F é*]{0,12}") {
            if let Some(once) = normal(&text) {
                prop_assert_eq!(normal(&once), Some(once.clone()));
                if !once.contains('*') {
                    prop_assert!(PathWord::parse(&once).is_ok(), "{}", once);
                }
            }
        }
    }

    #[test]
    fn patterns_say_what_they_are() {
        let read = |text: &str| PathWord::parse(text).ok().map(|word| word.0);
        assert!(matches!(read("/a/"), Some(PathPattern::Exact(path)) if path == "/a/"));
        assert!(matches!(read("/a/*"), Some(PathPattern::Prefix(path)) if path == "/a"));
        assert!(matches!(read("/{a}/"), Some(PathPattern::Params(parts)) if parts.len() == 2));
        assert!(read("//*").is_none());
        assert!(read("/{a}//").is_none());
    }
}
