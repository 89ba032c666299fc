//! One GET of the admin's API, over TCP or a unix socket: as much HTTP/1.1 as that needs.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::place;
use crate::config::model::ListenAddress;

/// More than any answer of the admin's.
const MAX_ANSWER: u64 = 64 << 20;

/// An answer's status and body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Asks `address` for `path`; connecting and each read may take `patience`.
pub(super) fn get(address: &ListenAddress, path: &str, patience: Duration) -> anyhow::Result<Answer> {
    let mut stream =
        connect(address, patience).with_context(|| format!("no gatepost answers on {address} (its admin address)"))?;
    // HTTP/1.0, so that the answer comes unchunked and the connection's end is its end (RFC 9112 §6.3).
    write!(stream, "GET {path} HTTP/1.0\r\nHost: gatepost\r\nAccept: application/json\r\nConnection: close\r\n\r\n")
        .and_then(|()| stream.flush())
        .with_context(|| format!("cannot ask {address}"))?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes).with_context(|| format!("{address} did not finish its answer"))?;
    parse(&bytes).with_context(|| format!("{address} does not answer as a gatepost does"))
}

fn connect(address: &ListenAddress, patience: Duration) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        ListenAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&place::dialled(*address), patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            Box::new(stream)
        }
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            Box::new(stream)
        }
    })
}

fn parse(bytes: &[u8]) -> anyhow::Result<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes)? else {
        bail!("its answer breaks off");
    };
    let status = head.code.context("its answer has no status")?;
    let header = |name: &str| {
        head.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let rest = &bytes[length..];
    let body = match header("transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => unchunk(rest)?,
        _ => match header("content-length") {
            Some(declared) => {
                let declared: usize = declared.trim().parse()?;
                ensure!(rest.len() >= declared, "its answer breaks off");
                rest[..declared].to_vec()
            }
            None => rest.to_vec(),
        },
    };
    Ok(Answer { status, body: String::from_utf8(body)? })
}

/// RFC 9112 §7.1. A server may answer a 1.0 request so all the same.
fn unchunk(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((start, size)) =
            httparse::parse_chunk_size(rest).map_err(|_| anyhow::anyhow!("its chunks are broken"))?
        else {
            bail!("its answer breaks off");
        };
        if size == 0 {
            return Ok(body);
        }
        let size = usize::try_from(size)?;
        let data = rest.get(start..start + size).context("its answer breaks off")?;
        body.extend_from_slice(data);
        rest = rest.get(start + size + 2..).context("its answer breaks off")?;
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener, thread};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn answer_once(mut stream: impl Read + Write, answer: &[u8]) -> String {
        let mut asked = Vec::new();
        let mut byte = [0];
        while !asked.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            asked.push(byte[0]);
        }
        stream.write_all(answer).unwrap();
        String::from_utf8(asked).unwrap()
    }

    #[test]
    fn asks_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            answer_once(listener.accept().unwrap().0, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        });
        let answer = get(&address, "/api/v1/status", PATIENCE).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
        assert!(server.join().unwrap().starts_with("GET /api/v1/status HTTP/1.0\r\n"));
    }

    #[test]
    fn asks_over_a_unix_socket_and_reads_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let answer = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
            answer_once(listener.accept().unwrap().0, answer)
        });
        let answer = get(&ListenAddress::Unix(path), "/", PATIENCE).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "abcde"));
        server.join().unwrap();
    }

    #[test]
    fn says_when_nobody_is_there() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = get(&ListenAddress::Tcp(free), "/", PATIENCE).unwrap_err();
        assert!(format!("{error:#}").contains(&format!("no gatepost answers on {free}")), "{error:#}");
    }

    #[test]
    fn a_short_answer_is_no_answer() {
        for bytes in [&b"HTTP/1.1 200 OK\r\n"[..], b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", b"hello"] {
            assert!(parse(bytes).is_err());
        }
    }
}
