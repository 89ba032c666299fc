//! The sample function: a tiny HTTP/1.1 server for each version, all on one thread.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// A head may be so long.
const MAX_HEAD: usize = 64 * 1024;

/// Versions that run until this is dropped.
#[derive(Debug)]
pub(super) struct Functions {
    pub(super) versions: Vec<Version>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One version of the sample function.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    served: Arc<AtomicU64>,
}

impl Version {
    /// Requests that it has answered.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Functions {
    /// Starts a version for each name, on a free port of loopback.
    pub(super) fn start(names: &[&'static str]) -> io::Result<Self> {
        let mut versions = Vec::new();
        let mut listeners = Vec::new();
        for &name in names {
            let listener = StdListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            versions.push(Version { name, address: listener.local_addr()?, served: Arc::default() });
            listeners.push(listener);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (stop, stopped) = oneshot::channel();
        let served = versions.clone();
        let thread = thread::Builder::new().name("sample".to_owned()).spawn(move || {
            runtime.block_on(async move {
                for (listener, version) in listeners.into_iter().zip(served) {
                    if let Ok(listener) = TcpListener::from_std(listener) {
                        tokio::spawn(accept(listener, version));
                    }
                }
                let _ = stopped.await;
            });
        })?;
        Ok(Self { versions, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Functions {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, version: Version) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let version = version.clone();
                tokio::spawn(async move {
                    // Its callers are this machine's own; one that breaks off is nobody's trouble.
                    let _ = serve(stream, &version).await;
                });
            }
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn serve(mut stream: TcpStream, version: &Version) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let Some(request) = Request::read(&mut stream, &mut buffer).await? else { return Ok(()) };
        if request.expects {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let body_bytes = request.body.read(&mut stream, &mut buffer).await?;
        version.served.fetch_add(1, Ordering::Relaxed);
        stream.write_all(&request.answer(version.name, body_bytes)).await?;
    }
}

struct Request {
    method: String,
    target: String,
    headers: Map<String, Value>,
    body: Body,
    /// It waits for `100 Continue` (RFC 9110 §10.1.1).
    expects: bool,
}

impl Request {
    /// The next one on the connection; `None` at its end.
    async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Self>> {
        loop {
            if let Some((request, length)) = Self::parse(buffer)? {
                buffer.drain(..length);
                return Ok(Some(request));
            }
            if buffer.len() > MAX_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if stream.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let broken = |_| io::Error::from(io::ErrorKind::InvalidData);
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut head = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(length) = head.parse(bytes).map_err(broken)? else { return Ok(None) };
        let mut headers = Map::new();
        for field in head.headers.iter() {
            headers.insert(field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into());
        }
        let text = |name: &str| headers.get(name).and_then(Value::as_str).unwrap_or_default().trim();
        let body = if text("transfer-encoding").eq_ignore_ascii_case("chunked") {
            Body::Chunked
        } else {
            Body::Length(text("content-length").parse().unwrap_or(0))
        };
        let expects = text("expect").eq_ignore_ascii_case("100-continue");
        let request = Self {
            method: head.method.unwrap_or_default().to_owned(),
            target: head.path.unwrap_or_default().to_owned(),
            headers,
            body,
            expects,
        };
        Ok(Some((request, length)))
    }

    /// `/version` is short, for `uniq -c`; everything else says what came.
    fn answer(self, version: &str, body_bytes: u64) -> Vec<u8> {
        let path = self.target.split('?').next().unwrap_or_default();
        let said = if path.ends_with("/version") {
            json!({ "version": version })
        } else {
            json!({
                "version": version,
                "method": self.method,
                "path": self.target,
                "headers": self.headers,
                "body_bytes": body_bytes,
            })
        };
        let body = format!("{said}\n");
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-version: {version}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if self.method != "HEAD" {
            answer.push_str(&body);
        }
        answer.into_bytes()
    }
}

#[derive(Clone, Copy)]
enum Body {
    Length(u64),
    Chunked,
}

impl Body {
    /// Takes it off the connection; how long it was.
    async fn read(self, stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<u64> {
        match self {
            Self::Length(length) => skip(stream, buffer, length).await.map(|()| length),
            Self::Chunked => {
                let mut total = 0;
                loop {
                    let size = chunk_size(stream, buffer).await?;
                    // The data and its line end; the last chunk is followed by a line end alone, gatepost sends no trailers.
                    skip(stream, buffer, size + 2).await?;
                    if size == 0 {
                        return Ok(total);
                    }
                    total += size;
                }
            }
        }
    }
}

async fn chunk_size(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<u64> {
    loop {
        match httparse::parse_chunk_size(buffer) {
            Ok(httparse::Status::Complete((length, size))) => {
                buffer.drain(..length);
                return Ok(size);
            }
            Ok(httparse::Status::Partial) if stream.read_buf(buffer).await? > 0 => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

async fn skip(stream: &mut TcpStream, buffer: &mut Vec<u8>, mut length: u64) -> io::Result<()> {
    loop {
        let here = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        buffer.drain(..here);
        length -= here as u64;
        if length == 0 {
            return Ok(());
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    fn ask(to: SocketAddr, request: &str, until: &str) -> String {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        let mut part = [0; 1024];
        while !text.contains(until) {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "it ended with {text}");
            text.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        text
    }

    #[test]
    fn each_version_says_what_came_and_counts() {
        let functions = Functions::start(&["v1", "v2"]).unwrap();
        let [v1, v2] = functions.versions.as_slice() else { panic!() };
        let text = ask(v2.address, "GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-Env: prod\r\n\r\n", "}\n");
        let said: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(
            (&said["version"], &said["path"], &said["headers"]["x-env"]),
            (&json!("v2"), &json!("/a?b=c"), &json!("prod"))
        );
        assert_eq!((v1.served(), v2.served()), (0, 1));
    }

    #[test]
    fn bodies_are_taken_off_and_the_connection_goes_on() {
        let functions = Functions::start(&["v1"]).unwrap();
        let three = "POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
                     POST /two HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n\
                     GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
        let text = ask(functions.versions[0].address, three, "\r\n\r\n{\"version\":\"v1\"}\n");
        assert!(text.contains("\"body_bytes\":5") && text.contains("\"body_bytes\":4"), "{text}");
        assert_eq!(functions.versions[0].served(), 3);
    }
}
