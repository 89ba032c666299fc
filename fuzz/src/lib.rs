//! What is tried on the parsers that are ours: each function takes any bytes, and panics where a parser breaks its word. Where another
//! parser is at hand, the two must agree.
//!
//! libFuzzer calls them, one binary each; and `tests/it/parsers_keep_their_word.rs` does, over the corpus and what it makes of it, so
//! that none is skipped where libFuzzer can't be built.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "to panic is what a fuzz target is for")]

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use bytes::BytesMut;
use gatepost::{
    config::{Sources, model::Networks, parse},
    decide::{
        Now, client, compile, cookie,
        egress::{self, Hello, HelloReader, Host},
        host, path as paths,
    },
    ingress::{
        chunk::Chunks,
        function_answer::{Left, next_head},
        head::{Framing, HeadLimits, Look, look},
        proxy_protocol::{self, ProxyHeader},
    },
};

/// Takes any bytes; panics where a parser breaks its word.
pub type Target = fn(&[u8]);

/// Every target by its name, as the corpus's folders are called.
pub const TARGETS: [(&str, Target); 10] = [
    ("head", head),
    ("chunks", chunks),
    ("answer", answer),
    ("proxy_header", proxy_header),
    ("authority", authority),
    ("path", path),
    ("caller", caller),
    ("destination", destination),
    ("hello", hello),
    ("config", config),
];

/// Where to cut some bytes in two, as they themselves say.
fn cut(data: &[u8]) -> usize {
    let sum = data.iter().fold(0usize, |sum, &b| sum.wrapping_mul(31).wrapping_add(usize::from(b)));
    sum % (data.len() + 1)
}

/// The gate's look at an HTTP/1 head: alike in pieces, and what passes is read by httparse (which pingora uses) in the same way.
pub fn head(data: &[u8]) {
    let limits = HeadLimits::default();
    let whole = look(data, 0, &limits);
    let pieces = match look(&data[..cut(data)], 0, &limits) {
        Look::Partial(searched) => look(data, searched, &limits),
        decided => decided,
    };
    assert_eq!(whole, pieces, "in one piece and in two");
    let Look::Head(head) = whole else { return };
    assert!(head.start < head.end && head.end <= data.len() && head.end - head.start <= limits.bytes);
    let bytes = &data[head.start..head.end];
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes);
    assert_eq!(parsed, Ok(httparse::Status::Complete(bytes.len())), "httparse of a head that passes");
    assert!(http::Method::from_bytes(request.method.unwrap().as_bytes()).is_ok());
    let target = request.path.unwrap();
    match &head.absolute {
        None => assert!(target.starts_with('/') || target == "*", "{target}"),
        Some(absolute) => assert!(data[absolute.clone()].to_ascii_lowercase().starts_with(b"http")),
    }
    let all = |name: &str| -> Vec<&[u8]> {
        request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value).collect()
    };
    for field in request.headers.iter() {
        assert!(http::HeaderName::from_bytes(field.name.as_bytes()).is_ok(), "{:?}", field.name);
        assert!(http::HeaderValue::from_bytes(field.value).is_ok(), "{:?}", field.value.escape_ascii().to_string());
    }
    let expected = match (&*all("transfer-encoding"), &*all("content-length")) {
        ([], []) => Framing::None,
        ([], [length]) => match str::from_utf8(length).unwrap().trim_ascii().parse().unwrap() {
            0 => Framing::None,
            length => Framing::Length(length),
        },
        ([coding], []) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        other => panic!("{other:?} passed"),
    };
    assert_eq!(head.framing, expected);
    assert!(all("host").len() <= 1);
}

/// Chunked framing: alike in pieces, and its sizes are those that httparse reads.
pub fn chunks(data: &[u8]) {
    let mut whole = Chunks::new();
    let one = whole.take(data);
    let mut pieces = Chunks::new();
    let (first, second) = data.split_at(cut(data));
    let two = pieces.take(first).and_then(|n| match pieces.is_done() {
        true => Ok(n),
        false => pieces.take(second).map(|m| n + m),
    });
    assert_eq!((&one, whole), (&two, pieces), "in one piece and in two");
    let Ok(length) = one else { return };
    if !whole.is_done() {
        assert_eq!(length, data.len(), "it wants more");
        return;
    }
    // By the book (RFC 9112 §7.1), with httparse's sizes.
    let mut at = 0;
    loop {
        let Ok(httparse::Status::Complete((used, size))) = httparse::parse_chunk_size(&data[at..]) else {
            panic!("httparse takes no chunk size at byte {at}");
        };
        at += used;
        if size == 0 {
            break;
        }
        at += usize::try_from(size).unwrap();
        assert_eq!(&data[at..at + 2], b"\r\n");
        at += 2;
    }
    let end = if data[at..].starts_with(b"\r\n") {
        at + 2
    } else {
        let mut fields = [httparse::EMPTY_HEADER; 4096];
        match httparse::parse_headers(&data[at..], &mut fields) {
            Ok(httparse::Status::Complete((used, _))) => at + used,
            other => panic!("httparse takes no trailers at byte {at}: {other:?}"),
        }
    };
    assert_eq!(length, end, "where the body ends");
}

/// A function's answer: alike in pieces, no field that a line could end in, and no body but the one that was framed.
pub fn answer(data: &[u8]) {
    let (first, second) = data.split_at(cut(data));
    let whole = read_answer(&[data]);
    assert_eq!(read_answer(&[first, second]), whole, "in one piece and in two");
    let Some(Answer { fields, body, behind, .. }) = whole else { return };
    assert!(fields.iter().all(|(_, value)| !value.iter().any(|b| b"\r\n\0".contains(b))), "{fields:?}");
    assert!(body.len() + behind <= data.len());
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    /// What is not of it.
    behind: usize,
}

/// `None`: it is none, or breaks off within its head.
fn read_answer(pieces: &[&[u8]]) -> Option<Answer> {
    let (mut inbox, mut searched, mut read, mut left) = (BytesMut::new(), 0, None, None);
    for piece in pieces {
        inbox.extend_from_slice(piece);
        if read.is_none() {
            let Some(mut head) = next_head(&mut inbox, &mut searched).ok()? else { continue };
            left = Some(Left::of(&mut head, false).ok()?);
            let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            let (status, fields) = (head.status.as_u16(), fields.collect());
            read = Some(Answer { status, fields, ..Answer::default() });
        }
        let (Some(answer), Some(left)) = (&mut read, &mut left) else { continue };
        answer.body.extend_from_slice(&left.take(&mut inbox).ok()?);
        answer.behind = inbox.len();
    }
    read
}

/// The PROXY header: nothing before it is whole, and nothing behind it matters.
pub fn proxy_header(data: &[u8]) {
    let told = proxy_protocol::parse(data);
    let ProxyHeader::Whole(length, address) = told else { return };
    assert!(length <= data.len());
    assert_eq!(proxy_protocol::parse(&data[..length]), told, "what is behind it");
    for shorter in [length - 1, length / 2, cut(&data[..length]).min(length - 1), 1] {
        assert_eq!(proxy_protocol::parse(&data[..shorter]), ProxyHeader::Partial, "{shorter} of {length} bytes");
    }
    if data.starts_with(b"PROXY ") {
        let line = str::from_utf8(&data[..length - 2]).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let expected = (words[1] != "UNKNOWN").then(|| {
            let ip: IpAddr = words[2].parse().unwrap();
            assert_eq!(ip.is_ipv4(), words[1] == "TCP4");
            SocketAddr::new(ip, words[4].parse().unwrap())
        });
        assert_eq!(address, expected, "{line}");
    }
}

/// Host and `:authority`: the name that comes out goes in again, and the http crate agrees.
pub fn authority(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(host) = host::parse(text) else { return };
    let again = host::parse(&host.name).unwrap();
    assert_eq!((&again.name, again.port), (&host.name, None));
    assert!(matches!(again.name, Cow::Borrowed(_)), "{text:?} is not in its one spelling");
    let other: http::uri::Authority = text.parse().unwrap();
    let name = other.host().to_ascii_lowercase();
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(ip) => assert_eq!(ip.parse::<IpAddr>().map(|ip| format!("[{ip}]")).as_deref(), Ok(&*host.name)),
        None => assert_eq!(name.strip_suffix('.').unwrap_or(&name), host.name),
    }
    assert_eq!(other.port_u16(), host.port, "{text:?}");
}

/// Destinations of the way out: what is read means itself, and the url crate, which is more lenient, sees no other host in it.
pub fn destination(data: &[u8]) {
    if let Ok(to) = egress::connect(data) {
        let again = to.to_string();
        assert_eq!(egress::connect(again.as_bytes()), Ok(to.clone()), "{}", data.escape_ascii());
        assert_ne!(to.port, 0);
        let Host::Name(name) = &to.host else { return };
        assert!(name.parse::<IpAddr>().is_err() && name.len() <= 253);
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)), "{name}");
    }
    if let Ok(absolute) = egress::absolute(data) {
        let text = str::from_utf8(data).unwrap();
        let path = absolute.origin_form(false);
        assert!(path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#'), "{path}");
        // It knows more of names in Punycode, and refuses what is malformed there.
        let Ok(other) = url::Url::parse(text) else { return };
        assert_eq!(other.port_or_known_default(), Some(absolute.authority.port), "{text}");
        let seen = match other.host().unwrap() {
            url::Host::Domain(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
            url::Host::Ipv4(ip) => ip.to_string(),
            url::Host::Ipv6(ip) => Host::Address(IpAddr::V6(ip).to_canonical()).to_string(),
        };
        assert_eq!(seen, absolute.authority.host.to_string(), "{text}");
    }
}

/// A TLS client's hello: the same in pieces, and a name that is read is one.
pub fn hello(data: &[u8]) {
    let whole = HelloReader::default().feed(data);
    let mut reader = HelloReader::default();
    let (first, second) = data.split_at(cut(data));
    let early = reader.feed(first);
    let late = reader.feed(second);
    assert_eq!(late, whole, "in one piece and in two");
    assert!(early == Hello::NeedMore || early == late);
    if let Hello::Name(name) = whole {
        assert!(egress::connect(format!("{name}:443").as_bytes()).is_ok_and(|to| to.host == Host::Name(name.into())));
    }
}

/// Paths: normal once is normal for ever, and browsers' parser (the url crate) sees no other path in it.
pub fn path(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(normal) = paths::normalise(text) else { return };
    let again = paths::normalise(&normal.path).unwrap();
    assert_eq!((&again.path, again.encoded_slash), (&normal.path, normal.encoded_slash));
    assert!(normal.path.starts_with('/') && !normal.path.contains("//"));
    assert!(!normal.path.split('/').any(|segment| segment == "." || segment == ".."));
    assert!(normal.path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\\".contains(&b)), "{:?}", normal.path);
    let other = url::Url::parse(&format!("http://h{}", normal.path)).unwrap();
    assert_eq!((other.host_str(), other.path(), other.query()), (Some("h"), &*normal.path, None));
}

/// What is read of who calls: X-Forwarded-For's walk finds an address that stands there or the peer, and cookies never panic.
pub fn caller(data: &[u8]) {
    let mut headers = http::HeaderMap::new();
    for line in data.split(|&b| b == b'\n') {
        if let Ok(value) = http::HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value.clone());
            headers.append("cookie", value);
        }
    }
    let peer = IpAddr::from([10, 0, 0, 1]);
    let nobody = Networks::new([]);
    assert_eq!(client::address(peer, &headers, &nobody), peer, "nobody is trusted");
    let ours = Networks::new(["10.0.0.0/8".parse().unwrap()]);
    let everybody = Networks::new(["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
    for trusted in [&ours, &everybody] {
        let found = client::address(peer, &headers, trusted);
        assert_eq!(found, found.to_canonical());
        let stands = || {
            let elements =
                headers.get_all("x-forwarded-for").iter().flat_map(|line| line.as_bytes().split(|&b| b == b','));
            elements
                .filter_map(|element| element_by_the_book(str::from_utf8(element).ok()?.trim_ascii()))
                .any(|ip| ip == found)
        };
        assert!(found == peer || stands(), "{found} stands nowhere");
    }
    for name in ["a", "uid", "\u{e9}"] {
        let value = cookie::value(&headers, name);
        let lines = headers.get_all("cookie").iter().map(|line| line.as_bytes());
        assert!(value.is_none_or(|value| lines.into_iter().any(|line| contains(line, value.as_bytes()))));
    }
}

fn element_by_the_book(element: &str) -> Option<IpAddr> {
    let ip = element.parse::<IpAddr>().ok();
    let with_port = || element.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || element.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    ip.or_else(with_port).or_else(in_brackets).map(|ip| ip.to_canonical())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

/// A config: either one that is whole, or a report whose every place lies in the text.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse(&Sources::new([("gatepost.toml", &*text)])) {
        Ok(config) => {
            for function in &config.functions {
                let total: u32 = function.weights.iter().map(|share| u32::from(share.0)).sum();
                assert_eq!((total, function.weights.len()), (10_000, function.versions.len()), "{}", function.name);
            }
            // What is whole compiles.
            compile(config, 1, String::new(), 2, None, Now(1));
        }
        Err(report) => {
            assert!(!report.is_empty());
            for problem in report.problems() {
                assert!(!problem.message.is_empty());
                let Some(span) = problem.span else { continue };
                let place = report.place(span);
                assert!(place.line >= 1 && place.column >= 1, "{place:?}");
                assert!(place.line <= text.lines().count().max(1) + 1, "{place:?}");
            }
            assert!(!report.to_string().is_empty());
            assert!(report.to_json().is_array());
        }
    }
}
