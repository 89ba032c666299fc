//! The gate's look at an HTTP/1 head, before any other parser sees it: strict, so that gatepost and a function
//! cannot read two different requests from the same bytes. Pure.
//!
//! What passes here is framed in one way only: a single decimal Content-Length, `Transfer-Encoding: chunked` alone, or
//! nothing. Sources: RFC 9112 (HTTP/1.1), RFC 9110 (semantics).

use std::ops::Range;

use memchr::memchr;

use crate::decide::Reason;

/// The longest registered one has 17 letters.
const LONGEST_METHOD: usize = 64;

/// To whom a request goes, and so what its target may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// A server: a path, or a URL whose host is Host's.
    Server,
    /// A forward proxy: an authority (RFC 9112 §3.2.3) or a URL (§3.2.2), which counts where Host says otherwise. Their form is not looked at here.
    Proxy,
}

/// Bounds of a head, in bytes and lines.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    pub to: To,
    /// The whole head, its empty line included.
    pub bytes: usize,
    pub fields: usize,
    /// The request target.
    pub target: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { to: To::Server, bytes: 32 * 1024, fields: 100, target: 8 * 1024 }
    }
}

/// How the body behind a head ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// So many bytes.
    Length(u64),
    Chunked,
}

/// A head that may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where it ends in the buffer, counted from the buffer's start.
    pub end: usize,
    /// Where it begins: empty lines before a request are skipped (RFC 9112 §2.2).
    pub start: usize,
    pub method: Range<usize>,
    pub target: Range<usize>,
    pub is_1_0: bool,
    pub framing: Framing,
    /// The target of an absolute-form request up to its path, to be cut out: `http://host:80`. The rest may be empty.
    pub absolute: Option<Range<usize>>,
    /// That target is an https one: only who came by TLS may ask so (RFC 9110 §7.4).
    pub is_https: bool,
    /// Where that has the host that was asked for, if there is no Host (HTTP/1.0 may leave it out).
    pub authority: Option<Range<usize>>,
    /// The caller wants the connection closed behind the answer (RFC 9112 §9.6).
    pub closes: bool,
    /// The client waits for `100 Continue`.
    pub expects_continue: bool,
    /// In the order in which they came.
    pub fields: Vec<Field>,
}

/// Where a field's name and its trimmed value are in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: Range<u32>,
    pub value: Range<u32>,
}

impl Field {
    /// Of a head, where two parts of it are.
    fn of(head: &[u8], (name, value): (&[u8], &[u8])) -> Self {
        // The limits of a head are far below what these can say.
        let within = |part: &[u8]| {
            let start = (part.as_ptr() as usize).saturating_sub(head.as_ptr() as usize) as u32;
            start..start + part.len() as u32
        };
        Self { name: within(name), value: within(value) }
    }
}

/// Why a head may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadHead {
    pub reason: Reason,
    /// What is wrong, in words that help the sender.
    pub detail: &'static str,
}

impl BadHead {
    const fn new(detail: &'static str) -> Self {
        Self { reason: Reason::BadRequest, detail }
    }
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Not a whole head yet. The next look may start its search for the end at this offset.
    Partial(usize),
    Head(Head),
    Bad(BadHead),
}

/// Looks at `buffer`, which begins where a request should. `searched` is what the last [`Look::Partial`] said, or 0.
pub fn look(buffer: &[u8], searched: usize, limits: &HeadLimits) -> Look {
    let Some(end) = find_end(buffer, searched) else {
        if buffer.len() > limits.bytes {
            return Look::Bad(too_large(buffer, limits));
        }
        return Look::Partial(buffer.len().saturating_sub(3));
    };
    if end > limits.bytes {
        return Look::Bad(too_large(&buffer[..end], limits));
    }
    match parse(&buffer[..end], limits) {
        Ok(Some(head)) => Look::Head(head),
        // Only empty lines so far.
        Ok(None) => Look::Partial(end.saturating_sub(3)),
        Err(bad) => Look::Bad(bad),
    }
}

/// The offset behind the first empty line that ends something. Lines that end in a bare LF count here, so that a
/// head that uses them is refused at once and not waited for.
pub fn find_end(buffer: &[u8], searched: usize) -> Option<usize> {
    let mut at = searched;
    loop {
        at += memchr(b'\n', &buffer[at..])? + 1;
        match buffer.get(at..) {
            // An empty line that only other empty lines precede ends nothing.
            Some([b'\r', b'\n', ..]) if !only_line_ends(&buffer[..at]) => return Some(at + 2),
            Some([b'\n', ..]) => return Some(at + 1),
            _ => {}
        }
    }
}

fn only_line_ends(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| matches!(b, b'\r' | b'\n'))
}

fn too_large(buffer: &[u8], limits: &HeadLimits) -> BadHead {
    let line = memchr(b'\n', buffer).unwrap_or(buffer.len());
    if line > limits.target + 64 {
        BadHead { reason: Reason::UriTooLong, detail: "the request target is longer than 8 KiB" }
    } else {
        BadHead { reason: Reason::HeadersTooLarge, detail: "the header is larger than 32 KiB" }
    }
}

fn parse(head: &[u8], limits: &HeadLimits) -> Result<Option<Head>, BadHead> {
    let mut start = 0;
    while head[start..].starts_with(b"\r\n") {
        start += 2;
    }
    if start == head.len() {
        return Ok(None);
    }
    let mut at = start;
    let line = next_line(head, &mut at)?;
    let request = request_line(line, limits)?;

    let mut fields = Vec::with_capacity(16);
    let mut hosts = 0;
    let mut host: &[u8] = b"";
    let mut length: Option<u64> = None;
    let mut chunked = false;
    let mut expects_continue = false;
    let mut closes = false;
    loop {
        let line = next_line(head, &mut at)?;
        if line.is_empty() {
            break;
        }
        if fields.len() >= limits.fields {
            return Err(BadHead { reason: Reason::HeadersTooLarge, detail: "more than 100 header fields" });
        }
        let (name, value) = field(line)?;
        fields.push(Field::of(head, (name, value)));
        // The few names that matter here have lengths of their own: no other name is compared.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                hosts += 1;
                host = value;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                expects_continue = value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                // In any of its lines: pingora reads the first.
                closes |= value.split(|b| *b == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                // RFC 9110 §8.6: one value. A repeated one is refused even where equal: nobody honest sends it.
                if length.is_some() {
                    return Err(BadHead::new("more than one Content-Length"));
                }
                length = Some(content_length(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                // RFC 9112 §6.1: chunked must be the last coding, and is the only one that is understood here.
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadHead::new("Transfer-Encoding must be chunked, once"));
                }
                chunked = true;
            }
            _ => {}
        }
    }

    if hosts > 1 {
        return Err(BadHead::new("more than one Host")); // RFC 9112 §3.2
    }
    if hosts == 0 && !request.is_1_0 {
        return Err(BadHead::new("Host is missing")); // RFC 9112 §3.2
    }
    if memchr(b'@', host).is_some() {
        // RFC 9110 §4.2.4; pingora refuses it too, without a hook. What else is no host is decided, and logged, later.
        return Err(BadHead::new("Host has user information"));
    }
    if chunked && length.is_some() {
        return Err(BadHead::new("both Transfer-Encoding and Content-Length")); // RFC 9112 §6.3, the way of smuggling
    }
    if chunked && request.is_1_0 {
        return Err(BadHead::new("Transfer-Encoding in an HTTP/1.0 request")); // RFC 9112 §6.1
    }
    if let Some(authority) = &request.authority {
        let authority = &line[authority.clone()];
        // RFC 9112 §3.2.2: Host is to be the same, and the target would win: refuse what could be read two ways.
        if hosts == 1 && !authority.eq_ignore_ascii_case(host) {
            return Err(BadHead::new("the target's host and Host differ"));
        }
    }
    if request.method.end == CONNECT.len() && &line[request.method.clone()] == CONNECT && (chunked || length > Some(0))
    {
        // RFC 9110 §9.3.6: a body has no meaning there; what follows belongs to the tunnel.
        return Err(BadHead::new("CONNECT with a body"));
    }
    let framing = match (chunked, length) {
        (true, _) => Framing::Chunked,
        (_, Some(0) | None) => Framing::None,
        (_, Some(n)) => Framing::Length(n),
    };
    Ok(Some(Head {
        start,
        end: at,
        method: request.method.start + start..request.method.end + start,
        target: request.target.start + start..request.target.end + start,
        is_1_0: request.is_1_0,
        framing,
        absolute: request.absolute.map(|r| r.start + start..r.end + start),
        is_https: request.is_https,
        authority: request.authority.filter(|_| hosts == 0).map(|r| r.start + start..r.end + start),
        closes,
        expects_continue: expects_continue && !request.is_1_0,
        fields,
    }))
}

/// The next line without its CRLF.
fn next_line<'h>(head: &'h [u8], at: &mut usize) -> Result<&'h [u8], BadHead> {
    let rest = &head[*at..];
    let Some(lf) = memchr(b'\n', rest) else {
        return Err(BadHead::new("the header breaks off"));
    };
    // RFC 9112 §2.2 lets a recipient take a bare LF for a line's end: others read on, so this one refuses.
    if lf == 0 || rest[lf - 1] != b'\r' {
        return Err(BadHead::new("a line ends in a bare LF"));
    }
    *at += lf + 1;
    Ok(&rest[..lf - 1])
}

const CONNECT: &[u8] = b"CONNECT";

struct RequestLine {
    is_1_0: bool,
    /// Within the line, as are the others.
    method: Range<usize>,
    target: Range<usize>,
    absolute: Option<Range<usize>>,
    is_https: bool,
    authority: Option<Range<usize>>,
}

fn request_line(line: &[u8], limits: &HeadLimits) -> Result<RequestLine, BadHead> {
    let method_end = memchr(b' ', line).ok_or(BadHead::new("the request line has no target"))?;
    let method = &line[..method_end];
    if method.is_empty() || method.len() > LONGEST_METHOD || !method.iter().all(|&b| is_token(b)) {
        return Err(BadHead::new("the method is not a token, or longer than 64 letters"));
    }
    let rest = &line[method_end + 1..];
    let target_end = memchr(b' ', rest).ok_or(BadHead::new("the request line has no version"))?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    let is_1_0 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(BadHead::new("the version must be HTTP/1.1 or HTTP/1.0")),
    };
    if target.len() > limits.target {
        return Err(BadHead { reason: Reason::UriTooLong, detail: "the request target is longer than 8 KiB" });
    }
    // RFC 3986 §2: a URI is of printable ASCII; a fragment is never sent.
    if !target.iter().all(|&b| b.is_ascii_graphic() && b != b'#') {
        return Err(BadHead::new("the request target has a character that must be percent-encoded"));
    }
    let from = method_end + 1;
    let is = |absolute, is_https, authority| {
        Ok(RequestLine {
            is_1_0,
            method: 0..method_end,
            target: from..from + target_end,
            absolute,
            is_https,
            authority,
        })
    };
    let plain = || is(None, false, None);
    if limits.to == To::Proxy {
        // What it is, `egress::authority` says.
        return plain();
    }
    if method == CONNECT {
        return Err(BadHead { reason: Reason::MethodNotAllowed, detail: "CONNECT is not served here" });
    }
    match target {
        [b'/', ..] => plain(),
        b"*" if method == b"OPTIONS" => plain(),
        _ => {
            // RFC 9112 §3.2.2: absolute-form must be taken; it goes on in origin-form.
            let scheme = [&b"http://"[..], b"https://"]
                .into_iter()
                .find(|s| target.len() > s.len() && target[..s.len()].eq_ignore_ascii_case(s))
                .ok_or(BadHead::new("the request target must begin with a slash"))?;
            let rest = &target[scheme.len()..];
            let authority_end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
            let authority = &rest[..authority_end];
            if authority.is_empty() || authority.contains(&b'@') {
                return Err(BadHead::new("the request target's host is empty or has user information"));
            }
            let end = from + scheme.len() + authority_end;
            is(Some(from..end), scheme == b"https://", Some(from + scheme.len()..end))
        }
    }
}

/// Name and trimmed value of a field line (RFC 9112 §5).
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), BadHead> {
    let colon = memchr(b':', line).ok_or(BadHead::new("a header line has no colon"))?;
    let name = &line[..colon];
    // This refuses folded lines and white space before the colon too (RFC 9112 §5.1, §5.2).
    if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
        return Err(BadHead::new("a header name is not a token"));
    }
    let value = trim_blanks(&line[colon + 1..]);
    // No early way out: the whole value in one vectorised pass.
    let bad = value.iter().fold(false, |bad, &b| bad | ((b < 0x20 && b != b'\t') | (b == 0x7f)));
    if bad {
        return Err(BadHead::new("a header value has a control character"));
    }
    Ok((name, value))
}

/// Without the blanks around it: SP and HTAB alone (RFC 9110 §5.6.3). `trim_ascii` would take form feeds as well, which parsers behind refuse.
fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

pub(super) fn content_length(value: &[u8]) -> Result<u64, BadHead> {
    let bad = BadHead::new("Content-Length is not one decimal number");
    // 19 digits always fit.
    if value.is_empty() || value.len() > 19 {
        return Err(bad);
    }
    value.iter().try_fold(0u64, |n, b| if b.is_ascii_digit() { Ok(n * 10 + u64::from(b - b'0')) } else { Err(bad) })
}

/// `tchar` of RFC 9110 §5.6.2.
pub(super) fn is_token(b: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut b = 0;
        while b < 256 {
            let c = b as u8;
            table[b] = c.is_ascii_alphanumeric()
                || matches!(
                    c,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
            b += 1;
        }
        table
    };
    TABLE[usize::from(b)]
}

/// Method, host and target of a head that may be broken, as far as they can be told: for the log alone.
pub fn describe(buffer: &[u8]) -> (String, String, String) {
    let text = String::from_utf8_lossy(&buffer[..buffer.len().min(4096)]).into_owned();
    let mut lines = text.trim_start_matches(['\r', '\n']).split('\n').map(|l| l.trim_end_matches('\r'));
    let mut words = lines.next().unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default().chars().take(32).collect();
    let target = words.next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let host = lines
        .filter_map(|l| l.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.trim().chars().take(256).collect())
        .unwrap_or_default();
    (method, host, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(bytes: &[u8]) -> Look {
        look(bytes, 0, &HeadLimits::default())
    }

    fn head(bytes: &[u8]) -> Head {
        match see(bytes) {
            Look::Head(head) => head,
            other => panic!("{other:?} for {}", bytes.escape_ascii()),
        }
    }

    fn bad(bytes: &[u8]) -> BadHead {
        match see(bytes) {
            Look::Bad(bad) => bad,
            other => panic!("{other:?} for {}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn an_ordinary_request_passes() {
        let h = head(b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\nrest");
        assert_eq!((h.start, h.end, h.framing), (0, 45, Framing::None));
        let h = head(b"\r\nPOST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello");
        assert_eq!((h.start, h.framing), (2, Framing::Length(5)));
        let h = head(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!((h.framing, h.expects_continue), (Framing::Chunked, true));
        head(b"GET / HTTP/1.0\r\n\r\n");
        head(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    }

    #[test]
    fn absolute_form_is_recognised_and_must_agree_with_host() {
        let bytes = b"GET http://x.test:80/a HTTP/1.1\r\nHost: X.test:80\r\n\r\n";
        let h = head(bytes);
        assert_eq!((&bytes[h.absolute.unwrap()], h.is_https), (&b"http://x.test:80"[..], false));
        assert!(head(b"GET HTTPS://x.test/ HTTP/1.1\r\nHost: x.test\r\n\r\n").is_https);
        bad(b"GET http://x/ HTTP/1.1\r\nHost: y\r\n\r\n");
        bad(b"GET http://u@x/ HTTP/1.1\r\nHost: u@x\r\n\r\n");
        bad(b"GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n");
    }

    #[test]
    fn http_1_0_may_name_its_host_in_the_target_alone() {
        let bytes = b"GET http://x.test/a HTTP/1.0\r\n\r\n";
        assert_eq!(&bytes[head(bytes).authority.unwrap()], b"x.test");
        assert_eq!(head(b"GET http://x/ HTTP/1.0\r\nHost: x\r\n\r\n").authority, None);
        bad(b"GET http://x/ HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_close_in_any_line_counts() {
        for (lines, closes) in [
            (&b"Connection: keep-alive\r\nconnection: Close"[..], true),
            (b"Connection: x , close", true),
            (b"Connection: keep-alive", false),
            (b"Connection: closed\r\nX: close", false),
        ] {
            let bytes = [b"GET / HTTP/1.1\r\nHost: x\r\n", lines, b"\r\n\r\n"].concat();
            assert_eq!(head(&bytes).closes, closes, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_head_that_arrives_in_pieces_is_partial_until_its_end() {
        let bytes = b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut searched = 0;
        for n in 0..bytes.len() {
            match look(&bytes[..n], searched, &HeadLimits::default()) {
                Look::Partial(at) => searched = at,
                other => panic!("{other:?} at {n}"),
            }
        }
        assert!(matches!(look(bytes, searched, &HeadLimits::default()), Look::Head(_)));
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\nHost: x\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: x\n\n",
            b"GET / HTTP/1.1\r\nHost: x\n\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: a\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA:\x0ca\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: a\x0c\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \x0c5\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
            b"GET /\r\nHost: x\r\n\r\n",
            b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
            b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert_eq!(bad(bytes).reason, Reason::BadRequest, "{}", bytes.escape_ascii());
        }
        assert_eq!(bad(b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n").reason, Reason::MethodNotAllowed);
    }

    #[test]
    fn what_a_proxy_is_asked_for_is_told_and_not_judged() {
        let see = |bytes: &[u8]| look(bytes, 0, &HeadLimits { to: To::Proxy, ..HeadLimits::default() });
        let good = |bytes: &[u8]| match see(bytes) {
            Look::Head(head) => [head.method, head.target].map(|r| String::from_utf8_lossy(&bytes[r]).into_owned()),
            other => panic!("{other:?} for {}", bytes.escape_ascii()),
        };
        let connect = good(b"\r\nCONNECT x.test:443 HTTP/1.1\r\nHost: y\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(connect, ["CONNECT", "x.test:443"]);
        good(b"CONNECT x.test:443 HTTP/1.0\r\n\r\n");
        let get = good(b"GET http://x.test/a HTTP/1.1\r\nHost: evil.test\r\n\r\n");
        assert_eq!(get, ["GET", "http://x.test/a"]);
        for bytes in [
            &b"CONNECT x:443 HTTP/1.1\r\n\r\n"[..],
            b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
            b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"CONNECT x\xe2\x91\xa0:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET http://x/#a HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert!(matches!(see(bytes), Look::Bad(b) if b.reason == Reason::BadRequest), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn too_much_is_told_apart() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000));
        assert_eq!(bad(long.as_bytes()).reason, Reason::UriTooLong);
        let endless = format!("GET /{}", "a".repeat(40_000));
        assert_eq!(bad(endless.as_bytes()).reason, Reason::UriTooLong);
        let large = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "a".repeat(40_000));
        assert_eq!(bad(large.as_bytes()).reason, Reason::HeadersTooLarge);
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(100));
        assert_eq!(bad(many.as_bytes()).reason, Reason::HeadersTooLarge);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic_and_alike_in_pieces(bytes in proptest::collection::vec(
            proptest::sample::select(&b"\r\n\n :aGET /HTTP/1.1Host5,\t\0"[..]), 0..200), cut in 0usize..200) {
            let limits = HeadLimits::default();
            let whole = look(&bytes, 0, &limits);
            let cut = cut.min(bytes.len());
            let pieces = match look(&bytes[..cut], 0, &limits) {
                Look::Partial(at) => look(&bytes, at, &limits),
                decided => decided,
            };
            proptest::prop_assert_eq!(whole, pieces);
        }

        /// Another parser, which is not as strict, finds the same in what passes.
        #[test]
        fn what_passes_is_read_alike_by_another_parser(
            method in "(GET|POST|OPTIONS|X-[a-z]{1,3})", target in "(/[a-z%?=&0-9]{0,12}|http://a/b)", minor in 0u8..2,
            fields in proptest::collection::vec(("[A-Za-z!#-]{1,12}", "[ \t]{0,2}", "[ -~\t]{0,20}"), 0..12),
            empty in "(\r\n){0,2}") {
            let mut text = format!("{empty}{method} {target} HTTP/1.{minor}\r\nHost: a\r\n");
            for (name, blanks, value) in &fields {
                text += &format!("{name}:{blanks}{value}\r\n");
            }
            text += "\r\nbehind";
            let bytes = text.as_bytes();
            if let Look::Head(head) = see(bytes) {
                let mut found = [httparse::EMPTY_HEADER; 32];
                let mut other = httparse::Request::new(&mut found);
                let end = other.parse(bytes).unwrap().unwrap();
                proptest::prop_assert_eq!(head.end, end);
                proptest::prop_assert_eq!(other.method.unwrap().as_bytes(), &bytes[head.method.clone()]);
                proptest::prop_assert_eq!(other.path.unwrap().as_bytes(), &bytes[head.target.clone()]);
                proptest::prop_assert_eq!(head.is_1_0, other.version == Some(0));
                let part = |range: &Range<u32>| &bytes[range.start as usize..range.end as usize];
                let ours: Vec<_> = head.fields.iter().map(|f| (part(&f.name), part(&f.value))).collect();
                let theirs: Vec<_> = other.headers.iter().map(|h| (h.name.as_bytes(), h.value)).collect();
                proptest::prop_assert_eq!(ours, theirs);
            } else {
                // Each of these may be refused for what it says, but none waits for more.
                proptest::prop_assert!(matches!(see(bytes), Look::Bad(_)));
            }
        }
    }
}
