//! HTTP/2 on the wire, frame by frame, by hand: for callers that no library would be.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// RFC 9113 §6.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

// RFC 9113 §7.
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const SETTINGS_TIMEOUT: u32 = 4;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// What gatepost said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The `:status` of HEADERS, which always comes first. Of those that came before on its connection: not for the second time.
    pub(crate) fn status(&self) -> u16 {
        let mut block = &self.payload[..];
        while block[0] >> 5 == 1 {
            block = &block[1..];
        }
        match block[0] {
            // RFC 7541 appendix A.
            indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            _ if block[1] & 0x80 == 0 => std::str::from_utf8(&block[2..5]).unwrap().parse().unwrap(),
            // RFC 7541 appendix B: 0 to 2 have five bits, and the others six.
            _ => {
                let bits = u32::from(block[2]) << 16 | u32::from(block[3]) << 8 | u32::from(block[4]);
                let mut at = 24;
                (0..3).fold(0, |status, _| {
                    let five = bits >> (at - 5) & 0x1f;
                    let digit = if five < 3 {
                        at -= 5;
                        five
                    } else {
                        at -= 6;
                        (bits >> at & 0x3f) - 0x19 + 3
                    };
                    status * 10 + digit as u16
                })
            }
        }
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// One setting.
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A field, literal and not indexed (RFC 7541 §6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        length(&mut out, 0, 7, text.len());
        out.extend(text.as_bytes());
    }
    out
}

/// RFC 7541 §5.1.
pub(crate) fn length(out: &mut Vec<u8>, bits: u8, prefix: u8, mut n: usize) {
    let most = (1 << prefix) - 1;
    if n < most {
        out.push(bits | n as u8);
        return;
    }
    out.push(bits | most as u8);
    n -= most;
    while n >= 128 {
        out.push((n % 128) as u8 | 0x80);
        n /= 128;
    }
    out.push(n as u8);
}

/// A header block.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The block of a request with that method and path, and more fields.
pub(crate) fn asks(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut out = block(&[(":method", method), (":scheme", "http"), (":authority", "gate.test"), (":path", path)]);
    out.extend(block(more));
    out
}

/// A whole request without a body.
pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &asks("GET", "/", &[]))
}

/// A request whose body is to come.
pub(crate) fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &asks("POST", "/", more))
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

pub(crate) fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A caller that says what it is told to.
pub(crate) struct Raw {
    stream: TcpStream,
    read: BytesMut,
    /// Read, and not asked for yet.
    seen: VecDeque<Frame>,
    is_closed: bool,
}

impl Raw {
    /// Says nothing by itself.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: BytesMut::new(), seen: VecDeque::new(), is_closed: false }
    }

    /// Preface and empty settings.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::with(address, &[]).await
    }

    /// Preface and settings.
    pub(crate) async fn with(address: SocketAddr, settings: &[u8]) -> Self {
        let mut raw = Self::silent(address).await;
        raw.say(PREFACE).await;
        raw.say(frame(SETTINGS, 0, 0, settings)).await;
        raw
    }

    /// Whether it could still be said.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.is_ok_and(|done| done.is_ok())
    }

    /// Says it again and again until gatepost closes, or that many times: how often it was said.
    pub(crate) async fn flood(&mut self, bytes: &[u8], times: usize) -> usize {
        for n in 0..times {
            if !self.say(bytes).await {
                return n;
            }
            // What was said to it is taken: it is not that which ends the connection. And there is much room in the sockets: it is
            // given the time to say so.
            if n % 16 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if self.take_what_is_there() {
                    return n;
                }
            }
        }
        times
    }

    /// Reads without waiting; `true`: there is a GOAWAY, or the end.
    fn take_what_is_there(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.try_read(&mut bytes) {
                Ok(0) => self.is_closed = true,
                Ok(n) => {
                    self.read.extend_from_slice(&bytes[..n]);
                    self.parse();
                    continue;
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => self.is_closed = true,
            }
            return self.is_closed || self.seen.iter().any(|frame| frame.kind == GOAWAY);
        }
    }

    fn parse(&mut self) {
        while self.read.len() >= 9 {
            let length = (&self.read[..]).get_uint(3) as usize;
            if self.read.len() < 9 + length {
                return;
            }
            let head = self.read.split_to(9);
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            let payload = self.read.split_to(length).to_vec();
            self.seen.push_back(Frame { kind: head[3], flags: head[4], stream, payload });
        }
    }

    /// The next frame; `None` where gatepost closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.seen.pop_front() {
                return Some(frame);
            }
            if self.is_closed {
                return None;
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            if read.expect("nothing comes, and it does not close").unwrap_or(0) == 0 {
                self.is_closed = true;
            }
            self.parse();
        }
    }

    /// The next frame of that kind; those before it are forgotten.
    #[track_caller]
    pub(crate) fn hear(&mut self, kind: u8) -> impl Future<Output = Frame> {
        let caller = std::panic::Location::caller();
        async move {
            let mut before = Vec::new();
            while let Some(frame) = self.next().await {
                if frame.kind == kind {
                    return frame;
                }
                before.push(frame);
            }
            panic!("{caller}: closed without a frame of kind {kind}, after {before:?}")
        }
    }

    /// The status of the next answer.
    pub(crate) async fn status(&mut self) -> u16 {
        self.hear(HEADERS).await.status()
    }

    /// The code with which gatepost sends this caller away; it closes behind that.
    pub(crate) async fn goaway(&mut self) -> u32 {
        let code = self.hear(GOAWAY).await.code();
        while self.next().await.is_some() {}
        code
    }

    /// Whether gatepost closes within that time, whatever it says before.
    pub(crate) async fn closes_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, async { while self.next().await.is_some() {} }).await.is_ok()
    }
}
