//! What the schemes have in common: percent-encoding, sorted queries, lists of header fields, HMAC, and keys that last a day.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ring::{digest, hmac};

pub(super) const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]].map(char::from);
    bytes.iter().flat_map(digits).collect()
}

pub(super) fn sha256_hex(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

pub(super) fn hmac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// Percent-encodes all but what RFC 3986 §2.3 leaves free, and slashes where they separate.
pub(super) fn encode(out: &mut String, bytes: &[u8], slashes: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' if slashes => out.push('/'),
            _ => {
                out.push('%');
                out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                out.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
}

/// Undoes percent-encoding; what isn't a valid one stays. A plus is a plus.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|d| char::from(*d).to_digit(16));
        match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// A path with each segment encoded in the one way that RFC 3986 prefers, however it came.
pub(super) fn path(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 16);
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            out.push('/');
        }
        encode(&mut out, &decode(segment), false);
    }
    if out.is_empty() {
        out.push('/');
    }
    out
}

/// A query's pairs, encoded in the one way and sorted by key and then value; `a` is `a=`, and `&&` holds nothing.
pub(super) fn query(query: Option<&str>) -> String {
    let encoded = |text: &str| {
        let mut out = String::with_capacity(text.len() + 8);
        encode(&mut out, &decode(text), false);
        out
    };
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (encoded(key), encoded(value)))
        .collect();
    pairs.sort_unstable();
    let mut out = String::with_capacity(query.map_or(0, str::len) + 16);
    for (at, (key, value)) in pairs.iter().enumerate() {
        if at > 0 {
            out.push('&');
        }
        out.push_str(key);
        out.push('=');
        out.push_str(value);
    }
    out
}

/// Header fields as they are signed: `name:value\n` for each, and the names between semicolons. `fields` have names in lower case;
/// those of one name are one, their values in order and between commas.
pub(super) fn headers(mut fields: Vec<(&str, String)>) -> (String, String) {
    fields.sort_by(|a, b| a.0.cmp(b.0));
    let (mut list, mut names) = (String::with_capacity(256), String::with_capacity(64));
    let mut last = None;
    for (name, value) in &fields {
        if last == Some(*name) {
            list.pop();
            list.push(',');
        } else {
            if last.is_some() {
                names.push(';');
            }
            names.push_str(name);
            list.push_str(name);
            list.push(':');
        }
        list.push_str(value);
        list.push('\n');
        last = Some(name);
    }
    (list, names)
}

/// A value without blanks at its ends, and with one where there were several.
pub(super) fn folded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for word in value.split_ascii_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// A key that is derived from the secret once a day: four HMACs that no other request of the day pays for.
#[derive(Default)]
pub(super) struct DayKey(ArcSwapOption<(String, hmac::Key)>);

impl DayKey {
    /// HMAC of `text` by the key of `date`, in hex.
    pub(super) fn sign(&self, date: &str, text: &str, derive: impl FnOnce() -> hmac::Key) -> String {
        let known = self.0.load();
        let tag = match known.as_deref() {
            Some((day, key)) if day == date => hmac::sign(key, text.as_bytes()),
            _ => {
                let key = derive();
                let tag = hmac::sign(&key, text.as_bytes());
                self.0.store(Some(Arc::new((date.to_owned(), key))));
                tag
            }
        };
        hex(tag.as_ref())
    }
}

/// `HMAC(HMAC(… HMAC(secret, first), …), last)` as a key.
pub(super) fn chain(secret: &str, words: &[&str]) -> hmac::Key {
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    for word in words {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, word.as_bytes()).as_ref());
    }
    key
}
