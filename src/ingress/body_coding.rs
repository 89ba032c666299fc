//! Answers compressed on their way: a piece comes in, its compressed form goes out at once, so that nothing waits.

use std::{
    cell::Cell,
    io::{self, Write},
};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::{HeaderValue, Method, StatusCode, Version, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use super::answer::vary;
use crate::{
    config::model::{Coding, Compression},
    decide::coding,
};

/// A body that is being compressed. By measurement it holds 0.5 MiB (gzip), 1.3 (zstd) or 2 (br), however long it gets.
pub(super) struct Coder {
    state: State,
    _place: Place,
}

enum State {
    Gzip(GzEncoder<Vec<u8>>),
    /// `None`: it has ended.
    Br(Option<Box<brotli::CompressorWriter<Vec<u8>>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Levels at which an answer costs about as much time as its way through the kernel.
const GZIP_LEVEL: u32 = 4;
const BR_QUALITY: i32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// The logarithm of the window: 256 KiB. RFC 9659 would allow zstd 8 MiB, of which every stream would have its own.
const WINDOW: u32 = 18;

/// So many bodies are compressed at once by a worker: half a GiB at most. What comes beside them goes as it is.
const MOST: usize = 256;

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

/// One of the [`MOST`]. A request stays on its worker, so what is taken is given back there.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        UNDER_WAY.with(|n| {
            (n.get() < MOST).then(|| {
                n.set(n.get() + 1);
                Self
            })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.with(|n| n.set(n.get().saturating_sub(1)));
    }
}

impl State {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
            Coding::Br => {
                let params = brotli::enc::BrotliEncoderParams {
                    quality: BR_QUALITY,
                    lgwin: WINDOW as i32,
                    ..brotli::enc::BrotliEncoderParams::default()
                };
                Self::Br(Some(Box::new(brotli::CompressorWriter::with_params(Vec::new(), 4096, &params))))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn code(&mut self, piece: &[u8], end: bool) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                if end {
                    encoder.try_finish()?
                } else {
                    encoder.flush()?
                }
                std::mem::take(encoder.get_mut())
            }
            Self::Br(place) => {
                let Some(mut encoder) = place.take() else { return Ok(Vec::new()) };
                encoder.write_all(piece)?;
                if end {
                    encoder.into_inner()
                } else {
                    encoder.flush()?;
                    let out = std::mem::take(encoder.get_mut());
                    *place = Some(encoder);
                    out
                }
            }
            Self::Zstd(encoder) => {
                encoder.write_all(piece)?;
                if end {
                    encoder.do_finish()?
                } else {
                    encoder.flush()?
                }
                std::mem::take(encoder.get_mut())
            }
        })
    }
}

impl Coder {
    /// `None`: too many are under way.
    fn new(coding: Coding) -> Option<Self> {
        let place = Place::take()?;
        Some(Self { state: State::new(coding).ok()?, _place: place })
    }

    /// The next piece, compressed so that the caller can read all of it; and at the `end` the last of the coding.
    pub(super) fn code(&mut self, piece: &[u8], end: bool) -> io::Result<Bytes> {
        if piece.is_empty() && !end {
            return Ok(Bytes::new());
        }
        self.state.code(piece, end).map(Bytes::from)
    }
}

/// What a caller of a route with `compression` may have.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    coding: Option<Coding>,
}

impl Wish {
    /// Read before the request is edited: what the operator takes out there is for the function.
    pub(super) fn of(request: &RequestHeader, compression: &Compression) -> Self {
        // RFC 9110 §15.2, RFC 9112 §7: an HTTP/1.0 caller can't be told where a body of unknown length ends.
        let can = request.version != Version::HTTP_10 && !coding::forbids(&request.headers);
        Self { coding: if can { coding::choose(&request.headers, &compression.codings) } else { None } }
    }
}

/// Makes the head that of a compressed answer, where it is to be one.
pub(super) fn begin(
    head: &mut ResponseHeader,
    request: &RequestHeader,
    compression: &Compression,
    wish: Wish,
) -> Result<Option<Box<Coder>>> {
    let Some(coding) = fitting(head, request, compression, wish)? else { return Ok(None) };
    let Some(coder) = Coder::new(coding) else { return Ok(None) };
    mark(head, coding)?;
    if request.method == Method::HEAD {
        return Ok(None);
    }
    if request.version != Version::HTTP_2 {
        head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ok(Some(Box::new(coder)))
}

/// The coding that this caller gets of this answer; `None`: it goes as it is. Says in either case that others may get another.
pub(super) fn fitting(
    head: &mut ResponseHeader,
    request: &RequestHeader,
    compression: &Compression,
    wish: Wish,
) -> Result<Option<Coding>> {
    if head.status == StatusCode::NOT_MODIFIED {
        not_modified(head, request)?;
        return Ok(None);
    }
    if !coding::suits(head.status, &head.headers, compression) {
        return Ok(None);
    }
    // Also where it goes as it is: another caller would get another body (RFC 9110 §12.5.5).
    vary(head, "Accept-Encoding")?;
    Ok(wish.coding)
}

/// Says of an answer's head that its body is coded.
pub(super) fn mark(head: &mut ResponseHeader, coding: Coding) -> Result<()> {
    head.insert_header(header::CONTENT_ENCODING, coding.as_str())?;
    head.remove_header(&header::CONTENT_LENGTH);
    // RFC 9110 §14.2: a range would be one of these bytes, which the function doesn't know.
    head.remove_header(&header::ACCEPT_RANGES);
    weaken(head)
}

/// A whole body, compressed. `None`: too many are under way.
pub(super) fn whole(coding: Coding, body: &[u8]) -> Option<Bytes> {
    Coder::new(coding)?.code(body, true).ok()
}

/// RFC 9110 §8.8.1: bytes differ from coding to coding, so the tag is weak from here on.
fn weaken(head: &mut ResponseHeader) -> Result<()> {
    let Some(tag) = head.headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else {
        return Ok(());
    };
    let weak = [b"W/", tag.as_bytes()].concat();
    match HeaderValue::from_bytes(&weak) {
        Ok(weak) => head.insert_header(header::ETAG, weak),
        Err(_) => Ok(()),
    }
}

/// RFC 9110 §15.4.5: a 304 says of Vary and ETag what the 200 would have said: the tag is weak for who has it so.
fn not_modified(head: &mut ResponseHeader, request: &RequestHeader) -> Result<()> {
    vary(head, "Accept-Encoding")?;
    let Some(tag) = head.headers.get(header::ETAG) else { return Ok(()) };
    let weak = [b"W/", tag.as_bytes()].concat();
    let known = request.headers.get_all(header::IF_NONE_MATCH).iter();
    let mut known = known.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    if known.any(|known| known.trim_ascii() == weak) { weaken(head) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap()),
            Coding::Br => drop(brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap()),
            Coding::Zstd => out = zstd::stream::decode_all(bytes).unwrap(),
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_comes_out_is_what_went_in(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..6)) {
            for coding in [Coding::Gzip, Coding::Br, Coding::Zstd] {
                let mut coder = Coder::new(coding).unwrap();
                let mut coded = Vec::new();
                for piece in &pieces {
                    coded.extend_from_slice(&coder.code(piece, false).unwrap());
                }
                coded.extend_from_slice(&coder.code(b"", true).unwrap());
                prop_assert_eq!(decoded(coding, &coded), pieces.concat());
            }
        }
    }

    /// A body of many pieces leaves nothing behind in the coder but its window.
    #[test]
    fn each_piece_goes_out_at_once() {
        for coding in [Coding::Gzip, Coding::Br, Coding::Zstd] {
            let mut coder = Coder::new(coding).unwrap();
            for n in 0..200 {
                let out = coder.code(format!("event {n}\n").as_bytes(), false).unwrap();
                assert!(!out.is_empty() && out.len() < 64, "{coding:?}: {}", out.len());
            }
        }
    }

    /// More than so many at once go out as they are.
    #[test]
    fn the_coders_of_a_worker_are_bounded() {
        let some: Vec<_> = std::iter::from_fn(|| Coder::new(Coding::Gzip)).take(2 * MOST).collect();
        assert_eq!(some.len(), MOST);
        assert!(Coder::new(Coding::Gzip).is_none());
        drop(some);
        assert!(Coder::new(Coding::Gzip).is_some());
    }
}
