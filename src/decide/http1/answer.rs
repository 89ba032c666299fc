//! An answer's head (RFC 9112 §4), as strictly as a request's: it comes from servers that nobody here runs, and is passed on.

use memchr::memchr;

use super::head::{Framing, content_length, field, find_end};

/// The whole head, its empty line included.
const BYTES: usize = 64 * 1024;
const FIELDS: usize = 200;

/// How an answer's body ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    By(Framing),
    /// With the connection.
    WithConnection,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where its head ends in the buffer.
    pub end: usize,
    /// Where its first field begins.
    pub fields: usize,
    pub status: u16,
    pub ends: Ends,
    /// The connection serves no further request.
    pub closes: bool,
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookAnswer {
    /// Not a whole head yet. The next look may start its search for the end at this offset.
    Partial(usize),
    Answer(Answer),
    Bad(&'static str),
}

/// Looks at `buffer`, which begins where an answer should. `to_head`: the request was one with HEAD, so that no body follows.
pub fn look(buffer: &[u8], searched: usize, to_head: bool) -> LookAnswer {
    let Some(end) = find_end(buffer, searched) else {
        if buffer.len() > BYTES {
            return LookAnswer::Bad("its header is larger than 64 KiB");
        }
        return LookAnswer::Partial(buffer.len().saturating_sub(3));
    };
    match parse(&buffer[..end], to_head) {
        Ok(answer) => LookAnswer::Answer(answer),
        Err(why) => LookAnswer::Bad(why),
    }
}

fn parse(head: &[u8], to_head: bool) -> Result<Answer, &'static str> {
    if head.len() > BYTES {
        return Err("its header is larger than 64 KiB");
    }
    let mut at = 0;
    let line = next_line(head, &mut at)?;
    let fields = at;
    let (version, rest) = line.split_at_checked(9).ok_or("its status line is malformed")?;
    let is_1_0 = match version {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return Err("its version is not HTTP/1.1 or HTTP/1.0"),
    };
    // RFC 9112 §4 wants a blank behind the status even where no reason follows; many leave it out.
    let status = match rest {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
        | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err("its status line is malformed"),
    };
    // A CR of its own (RFC 9112 §2.2) or another control character is read in two ways, or by a terminal.
    if rest.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err("its status line has a control character");
    }
    let (mut length, mut chunked, mut closes, mut keeps, mut count) = (None, false, false, false, 0);
    loop {
        let line = next_line(head, &mut at)?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > FIELDS {
            return Err("it has more than 200 header fields");
        }
        let (name, value) = field(line).map_err(|bad| bad.detail)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err("it has more than one Content-Length");
            }
            length = Some(content_length(value).map_err(|bad| bad.detail)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err("its Transfer-Encoding is not chunked, once");
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                closes |= option.eq_ignore_ascii_case(b"close");
                keeps |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }
    if chunked && (length.is_some() || is_1_0) {
        return Err("it is framed in two ways");
    }
    // RFC 9112 §6.3, 1.
    let has_none = to_head || status < 200 || matches!(status, 204 | 304);
    let ends = match (has_none, chunked, length) {
        (true, ..) | (_, false, Some(0)) => Ends::By(Framing::None),
        (_, true, _) => Ends::By(Framing::Chunked),
        (_, _, Some(n)) => Ends::By(Framing::Length(n)),
        (_, _, None) => Ends::WithConnection,
    };
    let closes = closes || ends == Ends::WithConnection || (is_1_0 && !keeps);
    Ok(Answer { end: head.len(), fields, status, ends, closes })
}

fn next_line<'h>(head: &'h [u8], at: &mut usize) -> Result<&'h [u8], &'static str> {
    let rest = &head[*at..];
    let lf = memchr(b'\n', rest).ok_or("its header breaks off")?;
    let line = rest[..lf].strip_suffix(b"\r").ok_or("a line of its header ends in a bare LF")?;
    *at += lf + 1;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(bytes: &[u8]) -> LookAnswer {
        look(bytes, 0, false)
    }

    fn ends(bytes: &[u8]) -> (u16, Ends, bool) {
        match see(bytes) {
            LookAnswer::Answer(answer) => (answer.status, answer.ends, answer.closes),
            other => panic!("{other:?} for {}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn bodies_end_in_one_way_each() {
        use Framing::{Chunked, Length, None};
        assert_eq!(ends(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), (200, Ends::By(Length(5)), false));
        assert_eq!(ends(b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n"), (200, Ends::By(Chunked), false));
        assert_eq!(ends(b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n"), (304, Ends::By(None), false));
        assert_eq!(ends(b"HTTP/1.1 200 OK\r\n\r\n"), (200, Ends::WithConnection, true));
        assert_eq!(ends(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"), (200, Ends::By(None), true));
        assert_eq!(
            ends(b"HTTP/1.1 200 OK\r\nConnection: a, Close\r\nContent-Length: 1\r\n\r\n"),
            (200, Ends::By(Length(1)), true)
        );
        assert!(matches!(
            look(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0, true),
            LookAnswer::Answer(answer) if answer.ends == Ends::By(None)
        ));
        assert_eq!(see(b"HTTP/1.1 200 OK\r\nA: b\r\n"), LookAnswer::Partial(20));
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\rX-Evil: 1\r\n\r\n",
            b"HTTP/1.1 200 O\0K\x1b[31m\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"hello\r\n\r\n",
        ] {
            assert!(matches!(see(bytes), LookAnswer::Bad(_)), "{}", bytes.escape_ascii());
        }
    }
}
