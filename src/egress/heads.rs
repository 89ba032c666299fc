//! The heads of a forwarded request and of its answer, as they go on: what is between two neighbours alone stays there.

use http::{HeaderName, header};

use super::{forward::Asked, parent, record::Record};
use crate::decide::{
    egress::via,
    http1::{
        answer::{Answer, Ends},
        head::Framing,
    },
};

/// Fields that are between two neighbours (RFC 9110 §7.6.1), and those by which a client might speak for the proxy.
fn stays(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "forwarded"
    ) || name.starts_with("proxy-")
        || name.starts_with("x-forwarded-")
        || name == "x-upstream-https-proxy"
}

/// Whether the sender named a field as one for its neighbour. What frames a message is not for it to take away.
fn is_named<'v>(mut connection: impl Iterator<Item = &'v [u8]>, name: &str) -> bool {
    !matches!(name, "host" | "content-length" | "via" | "authorization")
        && connection.any(|value| {
            value.split(|b| *b == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
        })
}

/// What the origin is sent before the body; `by_parent`: it is a parent proxy, and hears of the whole URL.
pub fn request_head(record: &Record, asked: &Asked<'_>, by_parent: bool) -> Vec<u8> {
    let path = asked.absolute.origin_form(asked.method == b"OPTIONS");
    let host = asked.absolute.host();
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(asked.method);
    out.push(b' ');
    if by_parent {
        out.extend_from_slice(format!("http://{host}").as_bytes());
    }
    // RFC 9112 §3.2.4: the last proxy makes `*` of it.
    let path = if by_parent && path == "*" { "" } else { &path };
    // RFC 9112 §2.3: the version is the sender's own.
    out.extend_from_slice(format!("{path} HTTP/1.1\r\nHost: {host}\r\n").as_bytes());
    if by_parent {
        parent::credentials(record, &mut out);
    }
    let connection = || asked.headers.get_all(header::CONNECTION).iter().map(http::HeaderValue::as_bytes);
    for (name, value) in asked.headers {
        let is_ours = *name == header::HOST || *name == header::VIA;
        if is_ours || stays(name.as_str()) || is_named(connection(), name.as_str()) {
            continue;
        }
        let hops = (*name == header::MAX_FORWARDS).then(|| hops_left(asked.method, value.as_bytes())).flatten();
        match hops {
            Some(left) => field(&mut out, name, left.saturating_sub(1).to_string().as_bytes()),
            None => field(&mut out, name, value.as_bytes()),
        }
    }
    if asked.head.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(&via::with_ours(asked.headers, asked.head.is_1_0, &parent::OWN_NAME));
    out.extend_from_slice(b"\r\n");
    out
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What a client is told beside an origin's answer.
#[derive(Default)]
pub struct Told<'r> {
    /// No further request is read.
    pub closes: bool,
    /// It came in chunks, and goes on without them.
    pub unchunks: bool,
    /// Where the origin gave none.
    pub request_id: Option<&'r str>,
}

/// What the client is sent before the body. The head was looked at before: its lines are whole.
pub fn answer_head(bytes: &[u8], found: &Answer, told: &Told<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    out.extend_from_slice(b"HTTP/1.1");
    out.extend_from_slice(&bytes[8..found.fields]);
    let lines = || {
        bytes[found.fields..found.end].split(|b| *b == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = memchr::memchr(b':', line)?;
            Some((line, std::str::from_utf8(&line[..colon]).ok()?.to_ascii_lowercase(), line[colon + 1..].trim_ascii()))
        })
    };
    let connection: Vec<&[u8]> = lines().filter(|(_, name, _)| name == "connection").map(|(.., value)| value).collect();
    // RFC 9110 §8.6: there is none, and whoever believes it waits for a body.
    let has_no_length = found.status < 200 || found.status == 204;
    let mut request_id = told.request_id;
    for (line, name, _) in lines() {
        // An origin's own is what its support asks for.
        request_id = request_id.filter(|_| name != "x-request-id");
        let goes = !(has_no_length && name == "content-length");
        if goes && !stays(&name) && !is_named(connection.iter().copied(), &name) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    if found.ends == Ends::By(Framing::Chunked) && !told.unchunks {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(id) = request_id {
        out.extend_from_slice(format!("X-Request-Id: {id}\r\n").as_bytes());
    }
    out.extend_from_slice(b"Via: ");
    out.extend_from_slice(&bytes[5..8]);
    out.extend_from_slice(b" gatepost\r\n");
    if told.closes {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// How many more may pass an OPTIONS on (RFC 9110 §7.6.2); of other methods nobody counts.
pub fn hops_left(method: &[u8], max_forwards: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(max_forwards).ok().filter(|_| method == b"OPTIONS")?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().unwrap_or(u32::MAX))
}
