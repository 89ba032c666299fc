//! HTTP/1 on the wire, read and written by hand: tests must see, and be able to break, every byte.

use std::{io, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Anything that bytes go in and come out of.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Header fields in the order and spelling in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// The first field of that name.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    fn parse<'l>(lines: impl Iterator<Item = &'l str>) -> Self {
        Self(
            lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }
}

/// A head: its first line and its fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) fields: Fields,
}

impl Head {
    /// The `n`th word of the first line.
    pub(crate) fn word(&self, n: usize) -> &str {
        self.start.split(' ').nth(n).unwrap_or_default()
    }

    /// The status of an answer's head; 0 where it has none.
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }

    /// How the body behind this head is framed; `answers` tells for answers what was asked.
    pub(crate) fn framing(&self, answers: Option<&str>) -> Framing {
        if let Some(method) = answers {
            let status = self.status();
            let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
            if bodiless || (method == "CONNECT" && status < 300) {
                return Framing::Done;
            }
        }
        if self.fields.has("transfer-encoding") {
            return Framing::Chunked { left: 0 };
        }
        match self.fields.first("content-length").map(str::parse) {
            Some(Ok(left)) => Framing::Length { left },
            Some(Err(_)) => Framing::Length { left: 0 },
            None if answers.is_some() => Framing::UntilClose,
            None => Framing::Done,
        }
    }
}

/// What is left of the body that is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Framing {
    Length { left: u64 },
    Chunked { left: u64 },
    UntilClose,
    Done,
}

/// A connection with what was read too far.
pub(crate) struct Wire {
    io: Box<dyn Duplex>,
    read: BytesMut,
    pub(crate) framing: Framing,
    /// Fields behind the last chunk.
    pub(crate) trailers: Fields,
}

impl Wire {
    pub(crate) fn new(io: impl Duplex + 'static) -> Self {
        Self { io: Box::new(io), read: BytesMut::new(), framing: Framing::Done, trailers: Fields::default() }
    }

    /// The stream, and what was already read from it.
    pub(crate) fn into_parts(self) -> (Box<dyn Duplex>, Bytes) {
        (self.io, self.read.freeze())
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Says that nothing more will be written.
    pub(crate) async fn half_close(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    /// Reads once more; `false` is the end.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        self.read.reserve(64 * 1024);
        Ok(self.io.read_buf(&mut self.read).await? > 0)
    }

    /// Whether bytes wait that nobody has taken yet.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.read.is_empty()
    }

    /// The next head; `None` where the peer closed before its first byte.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                let bytes = self.read.split_to(end + 4);
                let text: String = bytes[..end].iter().map(|&b| char::from(b)).collect();
                let mut lines = text.split("\r\n");
                return Ok(Some(Head {
                    start: lines.next().unwrap_or_default().to_owned(),
                    fields: Fields::parse(lines),
                }));
            }
            if !self.fill().await? {
                return match self.read.is_empty() {
                    true => Ok(None),
                    false => Err(cut("in the middle of a head")),
                };
            }
        }
    }

    /// The next piece of the body that `framing` describes; `None` is its end.
    pub(crate) async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.framing.clone() {
                Framing::Done | Framing::Length { left: 0 } => {
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                Framing::Chunked { left: 0 } => {
                    let line = self.line().await?;
                    let size = line.split(';').next().unwrap_or_default().trim();
                    let size = u64::from_str_radix(size, 16).map_err(|_| cut(&format!("chunk size {line:?}")))?;
                    if size == 0 {
                        self.trailers = self.read_trailers().await?;
                        self.framing = Framing::Done;
                    } else {
                        // With the CRLF behind the chunk.
                        self.framing = Framing::Chunked { left: size + 2 };
                    }
                }
                framing => {
                    if self.read.is_empty() && !self.fill().await? {
                        return match framing {
                            Framing::UntilClose => {
                                self.framing = Framing::Done;
                                Ok(None)
                            }
                            _ => Err(cut("in the middle of a body")),
                        };
                    }
                    if let Some(piece) = self.take(framing) {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    /// Takes what is there of the body; `None` where that was no more than a chunk's CRLF.
    fn take(&mut self, framing: Framing) -> Option<Bytes> {
        let there = self.read.len() as u64;
        let piece = match framing {
            Framing::Length { left } => {
                let n = left.min(there);
                self.framing = Framing::Length { left: left - n };
                self.read.split_to(n as usize)
            }
            Framing::Chunked { left } => {
                let n = left.min(there);
                self.framing = Framing::Chunked { left: left - n };
                let data = left.saturating_sub(2).min(there);
                let piece = self.read.split_to(data as usize);
                self.read.advance((n - data) as usize);
                piece
            }
            Framing::UntilClose | Framing::Done => self.read.split(),
        };
        (!piece.is_empty()).then(|| piece.freeze())
    }

    /// The whole body.
    pub(crate) async fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n") {
                let line = self.read.split_to(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.fill().await? {
                return Err(cut("in the middle of a line"));
            }
        }
    }

    async fn read_trailers(&mut self) -> io::Result<Fields> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(Fields::parse(lines.iter().map(String::as_str)));
            }
            lines.push(line);
        }
    }

    /// Everything until the peer closes or `patience` is over: the bytes, and whether it closed.
    pub(crate) async fn rest(&mut self, patience: Duration) -> (Vec<u8>, bool) {
        let until_close = async {
            // A reset is a close as well.
            while self.fill().await.unwrap_or(false) {}
        };
        let closed = tokio::time::timeout(patience, until_close).await.is_ok();
        (self.read.split().to_vec(), closed)
    }
}

fn cut(wher: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("ended {wher}"))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
