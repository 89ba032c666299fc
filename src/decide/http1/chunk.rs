//! The gate's look at chunked framing (RFC 9112 §7.1), byte by byte, as it is decoded. Pure.
//!
//! Stricter than pingora 0.9.1, which takes a chunk-size line without digits for the last chunk, and would run what
//! follows as a new request.

use super::head::is_token;

/// Where in a chunked body the bytes so far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    at: At,
    /// Of the present size line or the trailers: bounded.
    line: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first digit of a size.
    Size,
    /// Behind at least one digit.
    Digits(u64),
    /// In a chunk extension, which is passed over.
    Extension(u64),
    /// Behind the CR of a size line.
    SizeLf(u64),
    /// So many bytes of data left.
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    Trailer,
    /// Within a trailer's name, behind its first byte.
    TrailerName,
    /// Within its value.
    TrailerValue,
    /// Behind the CR of a trailer line.
    TrailerLf,
    /// Behind the CR of the empty line.
    EndLf,
    Done,
}

/// The bytes are no chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChunk(pub &'static str);

/// Size lines may have so many bytes with their extensions; all trailers together as well.
const LINE: u32 = 8 * 1024;

impl Chunks {
    pub fn new() -> Self {
        Self { at: At::Size, line: 0 }
    }

    /// Whether the body's last byte was seen.
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Takes in the next bytes: says how many of them belong to this body.
    ///
    /// # Errors
    ///
    /// What is wrong with the framing; nothing of the connection may be used after that.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut i = 0;
        loop {
            let (framing, data) = self.next(&bytes[i..])?;
            i += framing + data;
            if data == 0 {
                break;
            }
        }
        Ok(i)
    }

    /// Takes in the next bytes up to a piece of the body's data: says how many of framing come before it, and how many bytes it has. Neither
    /// data nor an end: more bytes are needed.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn next(&mut self, bytes: &[u8]) -> Result<(usize, usize), BadChunk> {
        for (i, b) in bytes.iter().enumerate() {
            match self.at {
                At::Data(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - i);
                    let left = left - n as u64;
                    self.at = if left == 0 { At::DataCr } else { At::Data(left) };
                    return Ok((i, n));
                }
                At::Done => return Ok((i, 0)),
                _ => self.step(*b)?,
            }
        }
        Ok((bytes.len(), 0))
    }

    fn step(&mut self, b: u8) -> Result<(), BadChunk> {
        self.line += 1;
        if self.line > LINE {
            return Err(BadChunk("a chunk's size line or the trailers are longer than 8 KiB"));
        }
        self.at = match (self.at, b) {
            (At::Size, _) => At::Digits(digit(b).ok_or(BadChunk("a chunk size has no digits"))?),
            (At::Digits(n), b'\r') => At::SizeLf(n),
            (At::Digits(n), b';') => At::Extension(n),
            (At::Digits(n), _) => {
                let d = digit(b).ok_or(BadChunk("a chunk size has a character that is no hexadecimal digit"))?;
                // Leading zeros count: parsers behind take no more digits than 64 bits have, or drop the first ones.
                if n > u64::MAX >> 8 || self.line > 16 {
                    return Err(BadChunk("a chunk size is too large"));
                }
                At::Digits(n << 4 | d)
            }
            (At::Extension(n), b'\r') => At::SizeLf(n),
            (At::Extension(_), b'\n' | 0..=8 | 0x0b..=0x1f | 0x7f) => {
                return Err(BadChunk("a chunk extension has a control character"));
            }
            (At::Extension(n), _) => At::Extension(n),
            (At::SizeLf(0), b'\n') => {
                self.line = 0;
                At::Trailer
            }
            (At::SizeLf(n), b'\n') => {
                self.line = 0;
                At::Data(n)
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.line = 0;
                At::Size
            }
            (At::Trailer, b'\r') => At::EndLf,
            // RFC 9112 §5: a name that is a token, and a colon right behind it.
            (At::TrailerName, b':') => At::TrailerValue,
            (At::Trailer | At::TrailerName, b) if is_token(b) => At::TrailerName,
            (At::Trailer | At::TrailerName, _) => return Err(BadChunk("a trailer has no name that is a token")),
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerValue, b'\n' | 0..=8 | 0x0b..=0x1f | 0x7f) => {
                return Err(BadChunk("a trailer has a control character"));
            }
            (At::TrailerValue, _) => At::TrailerValue,
            (At::TrailerLf, b'\n') => At::Trailer,
            (At::EndLf, b'\n') => At::Done,
            (At::SizeLf(_) | At::TrailerLf | At::EndLf, _) => return Err(BadChunk("a CR without its LF")),
            (At::DataCr | At::DataLf, _) => return Err(BadChunk("a chunk is longer than its size")),
            (At::Data(_) | At::Done, _) => self.at, // never: `take` handles both
        };
        Ok(())
    }
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

fn digit(b: u8) -> Option<u64> {
    char::from(b).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8]) -> Result<(usize, bool), BadChunk> {
        let mut chunks = Chunks::new();
        let n = chunks.take(bytes)?;
        Ok((n, chunks.is_done()))
    }

    #[test]
    fn a_body_ends_where_it_says() {
        assert_eq!(take(b"5\r\nhello\r\n0\r\n\r\nGET /"), Ok((15, true)));
        assert_eq!(take(b"5;a=b\r\nhello\r\n00\r\nx: y\r\n\r\n"), Ok((26, true)));
        assert_eq!(take(b"A\r\n01234"), Ok((8, false)));
        assert_eq!(take(b"0\r\n\r\n"), Ok((5, true)));
        assert_eq!(take(b"0000000000000001\r\nx\r\n0\r\n\r\n"), Ok((26, true)));
    }

    #[test]
    fn broken_framing_is_refused() {
        for bytes in [
            &b"\r\nGET /smuggled HTTP/1.1\r\n\r\n"[..],
            b";x\r\n\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\rxhello",
            b"fffffffffffffffff\r\n",
            b"00000000000000001\r\nx\r\n0\r\n\r\n",
            b"0\r\n\n",
            b"0\r\n x\r\n\r\n",
            b"0\r\na: b\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nnocolon\r\n\r\n",
            b"0\r\na : b\r\n\r\n",
            b"0\r\na: b\r\n c\r\n\r\n",
            b"0\r\na: \0\r\n\r\n",
            b"5;a\nb\r\n",
        ] {
            assert!(take(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert!(take(format!("5;{}", "a".repeat(9000)).as_bytes()).is_err());
        assert!(take(format!("0\r\n{}", "a: b\r\n".repeat(2000)).as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn pieces_are_judged_like_the_whole(bytes in proptest::collection::vec(
            proptest::sample::select(&b"05af;\r\n\n x:"[..]), 0..60), cut in 0usize..60) {
            let cut = cut.min(bytes.len());
            let mut whole = Chunks::new();
            let one = whole.take(&bytes);
            let mut pieces = Chunks::new();
            let two = pieces.take(&bytes[..cut]).and_then(|n| {
                if pieces.is_done() { Ok(n) } else { pieces.take(&bytes[cut..]).map(|m| n + m) }
            });
            proptest::prop_assert_eq!(one, two);
            proptest::prop_assert_eq!(whole, pieces);
        }
    }
}
