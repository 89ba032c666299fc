//! What a function answers: a head, and what follows it.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Version, header};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{ResponseHeader, header_value_from_raw};

use crate::decide::http1::{chunk::Chunks, head::find_end};

/// The most fields of an answer.
const FIELDS: usize = 256;
/// Up to here a piece is copied, and its buffer read into again; a larger one is handed on with its buffer.
const COPIED: usize = 4 << 10;

/// Cuts the next head out of `inbox`, if it is whole; else `searched` says how far it was looked through.
///
/// # Errors
///
/// It is no head.
pub fn next_head(inbox: &mut BytesMut, searched: &mut usize) -> Result<Option<Box<ResponseHeader>>> {
    while let Some(end) = find_end(inbox, *searched) {
        if let Some(head) = parse(&inbox[..end])? {
            inbox.advance(end);
            *searched = 0;
            return Ok(Some(head));
        }
        inbox.advance(end);
        *searched = 0;
    }
    *searched = inbox.len().saturating_sub(3);
    Ok(None)
}

/// `None`: these are only line ends before a head.
pub fn parse(bytes: &[u8]) -> Result<Option<Box<ResponseHeader>>> {
    // Of its own: the fields outlive the buffer that they were read into.
    let bytes = Bytes::copy_from_slice(bytes);
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    // Servers that nobody here runs: pingora's way takes these as well.
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    match parser.parse_response_with_uninit_headers(&mut parsed, &bytes, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            let text = format!("buf: {}", bytes.escape_ascii());
            return Err(Error::because(ErrorType::InvalidHTTPHeader, text, error));
        }
    }
    let mut head = ResponseHeader::build(parsed.code.unwrap_or_default(), Some(parsed.headers.len() + 4))?;
    head.set_version(if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 });
    head.set_reason_phrase(parsed.reason)?;
    for field in parsed.headers.iter() {
        let (name, value) = (bytes.slice_ref(field.name.as_bytes()), bytes.slice_ref(field.value));
        head.append_header(name, header_value_from_raw(value))?;
    }
    Ok(Some(Box::new(head)))
}

/// What is left of an answer's body (RFC 9112 §6.3).
pub enum Left {
    Bytes(u64),
    Chunks(Chunks),
    /// To the end of the connection.
    Rest,
}

impl Left {
    /// # Errors
    ///
    /// Its lengths contradict each other, or are none.
    pub fn of(head: &mut ResponseHeader, is_head: bool) -> Result<Self> {
        let is_chunked = head.headers.get_all(header::TRANSFER_ENCODING).iter().next_back().map(|last| {
            let last = last.as_bytes().rsplit(|b| *b == b',').next().unwrap_or_default();
            last.trim_ascii().eq_ignore_ascii_case(b"chunked")
        });
        if is_chunked.is_some() && head.headers.contains_key(header::CONTENT_LENGTH) {
            // RFC 9112 §6.3, 3.
            head.remove_header(&header::CONTENT_LENGTH);
        }
        let length = length(&head.headers)?;
        if is_head || matches!(head.status.as_u16(), 204 | 304) {
            return Ok(Self::Bytes(0));
        }
        Ok(match (is_chunked, length) {
            (Some(true), _) => Self::Chunks(Chunks::new()),
            (None, Some(length)) => Self::Bytes(length),
            _ => Self::Rest,
        })
    }

    pub fn is_over(&self) -> bool {
        match self {
            Self::Bytes(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_done(),
            Self::Rest => false,
        }
    }

    /// Whether the connection serves further requests (RFC 9112 §9.3).
    pub fn keeps(&self, head: &ResponseHeader) -> bool {
        let is_1_0 = head.version == Version::HTTP_10;
        let (mut closes, mut keeps) = (false, false);
        for value in head.headers.get_all(header::CONNECTION) {
            for option in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                closes |= option.eq_ignore_ascii_case(b"close");
                keeps |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        let is_framed = match self {
            Self::Bytes(_) => true,
            Self::Chunks(_) => !is_1_0,
            Self::Rest => false,
        };
        is_framed && !closes && (keeps || !is_1_0)
    }

    /// Takes what there is of the body out of `inbox`.
    ///
    /// # Errors
    ///
    /// The chunks are framed badly.
    pub fn take(&mut self, inbox: &mut BytesMut) -> Result<Bytes> {
        match self {
            Self::Bytes(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(inbox.len());
                *left -= n as u64;
                Ok(cut(inbox, n))
            }
            Self::Chunks(chunks) => {
                let (mut one, mut more) = (Bytes::new(), Vec::new());
                while !inbox.is_empty() && !chunks.is_done() {
                    let (framing, data) =
                        chunks.next(inbox).map_err(|bad| Error::explain(ErrorType::ConnectionClosed, bad.0))?;
                    inbox.advance(framing);
                    if data == 0 {
                        continue;
                    }
                    if one.is_empty() && more.is_empty() {
                        one = cut(inbox, data);
                    } else {
                        // Chunks that came together go on together.
                        more.extend_from_slice(&std::mem::take(&mut one));
                        more.extend_from_slice(&inbox[..data]);
                        inbox.advance(data);
                    }
                }
                Ok(if more.is_empty() { one } else { more.into() })
            }
            Self::Rest => Ok(cut(inbox, inbox.len())),
        }
    }
}

/// The first `n` bytes of a buffer.
fn cut(inbox: &mut BytesMut, n: usize) -> Bytes {
    if n <= COPIED {
        let piece = Bytes::copy_from_slice(&inbox[..n]);
        inbox.advance(n);
        piece
    } else {
        inbox.split_to(n).freeze()
    }
}

/// RFC 9110 §8.6: the same number, however often it is said.
fn length(headers: &HeaderMap) -> Result<Option<u64>> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for one in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            let is_number = !one.is_empty() && one.iter().all(u8::is_ascii_digit);
            let one = std::str::from_utf8(one).ok().filter(|_| is_number).and_then(|one| one.parse().ok());
            if one.is_none() || length.is_some_and(|length| Some(length) != one) {
                return Error::e_explain(ErrorType::InvalidHTTPHeader, "the answer's Content-Length is no one number");
            }
            length = one;
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
