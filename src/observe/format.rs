//! One line of the access log: JSON or text, from borrowed fields into a buffer that is used again.
//!
//! **JSON.** Keys always there, in this order among the others: `ts`, `request_id`, `generation`, `listener`, `method`, `host`, `path`,
//! `class`, `bytes_in`, `bytes_out`, `total_ms`. The other keys are left out where they mean nothing for the request: `client_ip` on a
//! unix socket, `client` where none is known, `route` where none matched, `function`, `version`, `picked_by`, `weights_from` where none
//! was picked, `status` where the caller got none, `upstream_status` where the function sent none, `reason` where gatepost did not
//! answer itself, `queue_ms`, `connect_ms`, `upstream_ms` where that did not happen, `attempts` where nothing was tried,
//! `platform_request_id` where the platform named none, `cache` where the route has none. No value is ever `null`.
//!
//! **Text.** `client_ip - client [ts] "method host path" status bytes_out`, with `-` for what is absent, and then the rest as
//! `key=value`; a value that holds a space, a quote, an `=` or a control stands in quotes.
//!
//! Both: whatever a caller sent, a line is one line of valid UTF-8. Controls, quotes and backslashes are escaped as in JSON (RFC 8259
//! §7), bytes that are no UTF-8 become U+FFFD, and a value longer than [`MAX_VALUE`] is cut there and ends in `…`. Times are
//! milliseconds with up to three decimals.

pub mod egress;
pub mod mirror;

use std::{io::Write, net::IpAddr, time::Duration};

use super::{clock::Stamp, metrics::CacheResult};
use crate::{
    config::model::LogFormat,
    decide::{Class, PickedBy, Reason, WeightsFrom},
};

/// Bytes of a single value that are logged.
pub const MAX_VALUE: usize = 8 * 1024;

/// What one line tells of a request. Bytes stand where a caller's bytes may come in unchecked.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'r> {
    /// When the request was over: [`unix_ms`](super::unix_ms). So lines are in order, and `ts` − `total_ms` is its begin.
    pub ts: u64,
    pub request_id: &'r str,
    pub generation: u64,
    pub listener: &'r str,
    /// The caller's address as decided (PROXY header, X-Forwarded-For); `None` on a unix socket.
    pub client_ip: Option<IpAddr>,
    pub client: Option<&'r str>,
    pub method: &'r str,
    pub host: &'r [u8],
    pub path: &'r [u8],
    /// Without the question mark; written only where `log.query` says so.
    pub query: Option<&'r [u8]>,
    pub route: Option<&'r str>,
    pub function: Option<&'r str>,
    pub version: Option<&'r str>,
    pub picked_by: Option<PickedBy>,
    pub weights_from: Option<WeightsFrom>,
    /// What the caller was told; `None` where the connection ended before that.
    pub status: Option<u16>,
    pub upstream_status: Option<u16>,
    pub class: Class,
    pub reason: Option<Reason>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub total: Duration,
    pub queue: Option<Duration>,
    pub connect: Option<Duration>,
    pub upstream: Option<Duration>,
    /// How often an upstream was tried; the first counts. 0: never.
    pub attempts: u32,
    pub platform_request_id: Option<&'r [u8]>,
    /// Of a route with a cache.
    pub cache: Option<CacheResult>,
}

/// Appends the line of `entry`, its newline included.
pub fn line(out: &mut Vec<u8>, format: LogFormat, query: bool, stamp: &mut Stamp, entry: &Entry<'_>) {
    match format {
        LogFormat::Json => json(out, query, stamp, entry),
        LogFormat::Text => text(out, query, stamp, entry),
    }
}

fn json(out: &mut Vec<u8>, query: bool, stamp: &mut Stamp, e: &Entry<'_>) {
    /// `,"key":"` … `"`, where the value is a caller's or an operator's.
    macro_rules! string {
        ($key:literal, $value:expr) => {{
            out.extend_from_slice(concat!(",\"", $key, "\":\"").as_bytes());
            escape(out, $value.as_ref());
            out.push(b'"');
        }};
    }
    /// The same for a word of ours, which needs no escape.
    macro_rules! word {
        ($key:literal, $value:expr) => {{
            out.extend_from_slice(concat!(",\"", $key, "\":\"").as_bytes());
            out.extend_from_slice($value.as_bytes());
            out.push(b'"');
        }};
    }
    macro_rules! number {
        ($key:literal, $value:expr) => {{
            out.extend_from_slice(concat!(",\"", $key, "\":").as_bytes());
            integer(out, $value.into());
        }};
    }
    macro_rules! time {
        ($key:literal, $value:expr) => {{
            out.extend_from_slice(concat!(",\"", $key, "\":").as_bytes());
            milliseconds(out, $value);
        }};
    }

    out.extend_from_slice(b"{\"ts\":\"");
    out.extend_from_slice(stamp.format(e.ts));
    out.push(b'"');
    string!("request_id", e.request_id);
    number!("generation", e.generation);
    string!("listener", e.listener);
    if let Some(ip) = e.client_ip {
        out.extend_from_slice(b",\"client_ip\":\"");
        address(out, ip);
        out.push(b'"');
    }
    if let Some(client) = e.client {
        string!("client", client);
    }
    string!("method", e.method);
    string!("host", e.host);
    out.extend_from_slice(b",\"path\":\"");
    path(out, query, e);
    out.push(b'"');
    if let Some(route) = e.route {
        string!("route", route);
    }
    if let Some(function) = e.function {
        string!("function", function);
    }
    if let Some(version) = e.version {
        string!("version", version);
    }
    if let Some(picked_by) = e.picked_by {
        word!("picked_by", picked_by.as_str());
    }
    if let Some(weights_from) = e.weights_from {
        word!("weights_from", weights_from.as_str());
    }
    if let Some(status) = e.status {
        number!("status", status);
    }
    if let Some(status) = e.upstream_status {
        number!("upstream_status", status);
    }
    word!("class", e.class.as_str());
    if let Some(reason) = e.reason {
        word!("reason", reason.as_str());
    }
    number!("bytes_in", e.bytes_in);
    number!("bytes_out", e.bytes_out);
    time!("total_ms", e.total);
    if let Some(queue) = e.queue {
        time!("queue_ms", queue);
    }
    if let Some(connect) = e.connect {
        time!("connect_ms", connect);
    }
    if let Some(upstream) = e.upstream {
        time!("upstream_ms", upstream);
    }
    if e.attempts > 0 {
        number!("attempts", e.attempts);
    }
    if let Some(id) = e.platform_request_id {
        string!("platform_request_id", id);
    }
    if let Some(cache) = e.cache {
        word!("cache", cache.as_str());
    }
    out.extend_from_slice(b"}\n");
}

fn text(out: &mut Vec<u8>, query: bool, stamp: &mut Stamp, e: &Entry<'_>) {
    match e.client_ip {
        Some(ip) => address(out, ip),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" - ");
    value(out, e.client.unwrap_or("-").as_bytes());
    out.extend_from_slice(b" [");
    out.extend_from_slice(stamp.format(e.ts));
    out.extend_from_slice(b"] \"");
    escape(out, e.method.as_bytes());
    out.push(b' ');
    escape(out, e.host);
    out.push(b' ');
    path(out, query, e);
    out.extend_from_slice(b"\" ");
    match e.status {
        Some(status) => integer(out, status.into()),
        None => out.push(b'-'),
    }
    out.push(b' ');
    integer(out, e.bytes_out);

    let words = [
        ("class", Some(e.class.as_str())),
        ("reason", e.reason.map(Reason::as_str)),
        ("listener", Some(e.listener)),
        ("route", e.route),
        ("function", e.function),
        ("version", e.version),
        ("picked_by", e.picked_by.map(PickedBy::as_str)),
        ("weights_from", e.weights_from.map(WeightsFrom::as_str)),
        ("request_id", Some(e.request_id)),
        ("cache", e.cache.map(CacheResult::as_str)),
    ];
    for (key, word) in words {
        if let Some(word) = word {
            pair(out, key);
            value(out, word.as_bytes());
        }
    }
    if let Some(id) = e.platform_request_id {
        pair(out, "platform_request_id");
        value(out, id);
    }
    let numbers = [
        ("generation", Some(e.generation)),
        ("upstream_status", e.upstream_status.map(u64::from)),
        ("bytes_in", Some(e.bytes_in)),
        ("attempts", (e.attempts > 0).then_some(e.attempts.into())),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            pair(out, key);
            integer(out, number);
        }
    }
    let times =
        [("total_ms", Some(e.total)), ("queue_ms", e.queue), ("connect_ms", e.connect), ("upstream_ms", e.upstream)];
    for (key, time) in times {
        if let Some(time) = time {
            pair(out, key);
            milliseconds(out, time);
        }
    }
    out.push(b'\n');
}

fn pair(out: &mut Vec<u8>, key: &str) {
    out.push(b' ');
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
}

/// A value of the text format: bare where it can't be misread, else in quotes.
fn value(out: &mut Vec<u8>, value: &[u8]) {
    let bare = |b: &u8| PLAIN[usize::from(*b)] && !matches!(b, b' ' | b'=');
    if !value.is_empty() && value.len() <= MAX_VALUE && value.iter().all(bare) {
        out.extend_from_slice(value);
    } else {
        out.push(b'"');
        escape(out, value);
        out.push(b'"');
    }
}

fn path(out: &mut Vec<u8>, query: bool, e: &Entry<'_>) {
    escape(out, e.path);
    if let (true, Some(query)) = (query, e.query) {
        out.push(b'?');
        escape(out, query);
    }
}

fn integer(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Milliseconds with as many of three decimals as are needed: `0`, `12`, `0.25`, `1.007`.
fn milliseconds(out: &mut Vec<u8>, time: Duration) {
    let seconds = time.as_secs().saturating_mul(1000);
    integer(out, seconds.saturating_add(time.subsec_millis().into()));
    let part = time.subsec_micros() % 1000;
    if part == 0 {
        return;
    }
    let digit = |n: u32| b'0' + (n % 10) as u8;
    let decimals = [b'.', digit(part / 100), digit(part / 10), digit(part)];
    // The cases one by one, for then each is a copy of known length.
    if !part.is_multiple_of(10) {
        out.extend_from_slice(&decimals);
    } else if !part.is_multiple_of(100) {
        out.extend_from_slice(&decimals[..3]);
    } else {
        out.extend_from_slice(&decimals[..2]);
    }
}

fn address(out: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            octet(out, a);
            for byte in [b, c, d] {
                out.push(b'.');
                octet(out, byte);
            }
        }
        // Writing to memory can't fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

fn octet(out: &mut Vec<u8>, n: u8) {
    let (hundreds, tens, ones) = (b'0' + n / 100, b'0' + n / 10 % 10, b'0' + n % 10);
    match n {
        100.. => out.extend_from_slice(&[hundreds, tens, ones]),
        10.. => out.extend_from_slice(&[tens, ones]),
        _ => out.push(ones),
    }
}

/// Bytes that stand for themselves in a JSON string: printable ASCII less the quote and the backslash.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte < 0x7f {
        plain[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    plain
};

fn escape(out: &mut Vec<u8>, value: &[u8]) {
    if value.len() <= MAX_VALUE && is_plain(value) {
        out.extend_from_slice(value);
    } else {
        escape_slowly(out, value);
    }
}

/// Whether every byte is in [`PLAIN`]. Eight at a time: a line has some 150 bytes of values, and one by one they are a quarter of its cost.
fn is_plain(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    words.iter().all(|word| is_plain_word(u64::from_ne_bytes(*word)))
        && rest.iter().all(|byte| PLAIN[usize::from(*byte)])
}

/// The same for the eight bytes of a word. In a subtraction, a byte below 128 gets its high bit only by a borrow: it was too small, or one
/// before it in the word was, and then the answer is no already. A byte from 128 on has that bit itself.
fn is_plain_word(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let equals = |byte: u8| (word ^ (u64::from(byte) * ONES)).wrapping_sub(ONES);
    let control = word.wrapping_sub(u64::from(b' ') * ONES);
    (word | control | equals(b'"') | equals(b'\\') | equals(0x7f)) & HIGH == 0
}

#[cold]
#[inline(never)]
fn escape_slowly(out: &mut Vec<u8>, value: &[u8]) {
    let kept = &value[..cut(value)];
    for chunk in kept.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // C1 controls and the line separators too: a terminal or a line reader may act on them.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    drop(write!(out, "\\u{:04x}", u32::from(c)));
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if kept.len() < value.len() {
        out.extend_from_slice("…".as_bytes());
    }
}

/// Where to cut `value`: at [`MAX_VALUE`], or up to three bytes before it, where a character would be split.
fn cut(value: &[u8]) -> usize {
    if value.len() <= MAX_VALUE {
        return value.len();
    }
    let inside = |at: usize| value[at] & 0b1100_0000 == 0b1000_0000;
    (MAX_VALUE - 3..=MAX_VALUE).rev().find(|&at| !inside(at)).unwrap_or(MAX_VALUE)
}

#[cfg(test)]
mod tests;
