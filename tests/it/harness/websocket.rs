//! As much WebSocket (RFC 6455) as a test needs: a handshake, and short text and close frames.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    client::{Connection, get},
    wire::Duplex,
};

/// What ends a WebSocket (RFC 6455 §5.5.1).
const CLOSE: u8 = 8;
const TEXT: u8 = 1;

/// The caller's end of an open WebSocket.
pub(crate) struct WebSocket {
    io: Box<dyn Duplex>,
}

impl WebSocket {
    /// Asks for `target` to become a WebSocket, and fails where it doesn't.
    pub(crate) async fn open(mut connection: Connection, target: &str) -> Self {
        let asks = get(target)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let head = connection.begin(asks).await;
        assert_eq!(head.status(), 101, "{head:?}");
        let (io, read) = connection.wire.into_parts();
        assert!(read.is_empty(), "bytes before any were asked for");
        Self { io }
    }

    pub(crate) async fn say(&mut self, text: &str) -> io::Result<()> {
        let mask = [7, 77, 177, 17];
        write_frame(&mut self.io, TEXT, text.as_bytes(), Some(mask)).await
    }

    /// The next message; `None` is the other side's close.
    pub(crate) async fn hear(&mut self) -> io::Result<Option<String>> {
        let (kind, bytes) = read_frame(&mut self.io).await?;
        Ok((kind == TEXT).then(|| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Closes properly, and waits for the other side to agree.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        write_frame(&mut self.io, CLOSE, &[], Some([0; 4])).await?;
        while self.hear().await?.is_some() {}
        Ok(())
    }
}

/// Sends every message back until the other side closes.
pub(crate) async fn echo(mut io: Box<dyn Duplex>) -> io::Result<()> {
    loop {
        let (kind, bytes) = read_frame(&mut io).await?;
        write_frame(&mut io, kind, &bytes, None).await?;
        if kind == CLOSE {
            return Ok(());
        }
    }
}

/// A whole unfragmented frame of at most 65,535 bytes (RFC 6455 §5.2).
async fn read_frame(io: &mut Box<dyn Duplex>) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    io.read_exact(&mut head).await?;
    let length = match head[1] & 0x7f {
        126 => usize::from(io.read_u16().await?),
        short => usize::from(short),
    };
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        io.read_exact(&mut mask).await?;
    }
    let mut bytes = vec![0; length];
    io.read_exact(&mut bytes).await?;
    apply(mask, &mut bytes);
    Ok((head[0] & 0x0f, bytes))
}

async fn write_frame(io: &mut Box<dyn Duplex>, kind: u8, bytes: &[u8], mask: Option<[u8; 4]>) -> io::Result<()> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x80 | kind];
    match u16::try_from(bytes.len()).unwrap() {
        short @ ..126 => frame.push(masked | short as u8),
        long => {
            frame.push(masked | 126);
            frame.extend(long.to_be_bytes());
        }
    }
    frame.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
    let mut bytes = bytes.to_vec();
    apply(mask.unwrap_or_default(), &mut bytes);
    frame.extend(bytes);
    io.write_all(&frame).await?;
    io.flush().await
}

fn apply(mask: [u8; 4], bytes: &mut [u8]) {
    for (byte, mask) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
