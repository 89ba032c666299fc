//! For the way out: clients that ask for tunnels, and destinations that say who they see.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::{Gateway, PATIENCE};

/// A destination that counts who comes, and does with each connection what it was made for; dropped, it listens no more.
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Destination {
    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    /// Bytes that reached it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

/// Sends back what it gets, and ends when its caller does, with ` bye`.
pub(crate) async fn echo(at: &str) -> Destination {
    serve(at, |mut stream, _, bytes| async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            bytes.fetch_add(n, Relaxed);
            if stream.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
        let _ = stream.write_all(b" bye").await;
        let _ = stream.shutdown().await;
    })
    .await
}

/// Answers every request with the address that it sees, on kept connections.
pub(crate) async fn mirror(at: &str) -> Destination {
    serve(at, |mut stream, peer, bytes| async move {
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            bytes.fetch_add(n, Relaxed);
            got.extend_from_slice(&buffer[..n]);
            while let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
                got.drain(..end + 4);
                let body = peer.ip().to_string();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

async fn serve<F: Future<Output = ()> + Send + 'static>(
    at: &str,
    act: impl Fn(TcpStream, SocketAddr, Arc<AtomicUsize>) -> F + Send + Sync + 'static,
) -> Destination {
    try_serve(at, act).await.unwrap()
}

async fn try_serve<F: Future<Output = ()> + Send + 'static>(
    at: &str,
    act: impl Fn(TcpStream, SocketAddr, Arc<AtomicUsize>) -> F + Send + Sync + 'static,
) -> std::io::Result<Destination> {
    let at: SocketAddr = at.parse().unwrap();
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    let listener = socket.listen(1024)?;
    let address = listener.local_addr()?;
    let (accepted, bytes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (count, sum) = (accepted.clone(), bytes.clone());
    let task = tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            tokio::spawn(act(stream, peer, sum.clone()));
        }
    });
    Ok(Destination { address, accepted, bytes, task })
}

/// The port that TLS names are compared on, at an address of loopback; `None` where this user may not have it.
pub(crate) async fn echo_on_443(ip: &str) -> Option<Destination> {
    let act = |mut stream: TcpStream, _, bytes: Arc<AtomicUsize>| async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            bytes.fetch_add(n, Relaxed);
            if stream.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    match try_serve(&format!("{ip}:443"), act).await {
        Ok(destination) => Some(destination),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
        Err(error) => panic!("{ip}:443: {error}"),
    }
}

/// A ClientHello that asks for `name`, in records of at most `record` bytes.
pub(crate) fn client_hello(name: Option<&str>, record: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let n = name.len() as u16;
        extensions.extend([0, 0]);
        extensions.extend((n + 5).to_be_bytes());
        extensions.extend((n + 3).to_be_bytes());
        extensions.push(0);
        extensions.extend(n.to_be_bytes());
        extensions.extend(name.as_bytes());
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    message
        .chunks(record)
        .flat_map(|part| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat())
        .collect()
}

/// Who came to [`Everywhere`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    /// The address that was dialled.
    pub(crate) at: SocketAddr,
    /// What was sent up to now.
    pub(crate) sent: String,
}

/// A destination at every address of this machine, where it has every one: sends back what it gets and then ` bye`; but to requests for `/moved` it
/// says that the answer is elsewhere.
pub(crate) struct Everywhere {
    visits: Arc<Mutex<Vec<Visit>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Everywhere {
    /// With `ports` open.
    pub(crate) fn start(ports: &[u16]) -> Self {
        let visits = Arc::<Mutex<Vec<Visit>>>::default();
        let listen = |port: &u16| {
            // Both families: Linux lets a socket of IPv6 have IPv4's as well.
            let listener = std::net::TcpListener::bind(("::", *port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let (listener, visits) = (TcpListener::from_std(listener).unwrap(), visits.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(receive(stream, visits.clone()));
                }
            })
        };
        let tasks = ports.iter().map(listen).collect();
        Self { visits, tasks }
    }

    /// Who came so far.
    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap().clone()
    }
}

async fn receive(mut stream: TcpStream, visits: Arc<Mutex<Vec<Visit>>>) {
    let at = stream.local_addr().unwrap();
    let at = SocketAddr::new(at.ip().to_canonical(), at.port());
    let place = {
        let mut visits = visits.lock().unwrap();
        visits.push(Visit { at, sent: String::new() });
        visits.len() - 1
    };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let is_moved = {
            let sent = &mut visits.lock().unwrap()[place].sent;
            sent.push_str(&String::from_utf8_lossy(&buffer[..n]));
            sent.contains(" /moved ") && sent.ends_with("\r\n\r\n")
        };
        let answer: &[u8] = if is_moved {
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n"
        } else {
            &buffer[..n]
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
    let _ = stream.write_all(b" bye").await;
    let _ = stream.shutdown().await;
}

/// A connection of a client's to the proxy.
pub(crate) struct Client(pub(crate) TcpStream);

/// What the proxy said: its head, and the body that its Content-Length counts.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn is(&self, status: u16, reason: &str) {
        assert!(
            self.status == status && self.head.contains(&format!("X-Gatepost-Reason: {reason}\r\n")),
            "not {status} {reason}: {self:?}"
        );
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body["reason"], reason, "{self:?}");
    }
}

impl Gateway {
    /// A client of the way out, at an address of loopback.
    pub(crate) async fn client(&self, ip: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
        Client(socket.connect(self.address("egress.out")).await.unwrap())
    }

    /// Asks for a tunnel.
    pub(crate) async fn tunnel(&self, to: &str) -> (Client, Said) {
        let mut client = self.client("127.0.0.1").await;
        let said = client.ask(&format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await;
        (client, said)
    }

    /// One that must stand.
    pub(crate) async fn opened(&self, to: &str) -> Client {
        let (client, said) = self.tunnel(to).await;
        assert_eq!(said.status, 200, "{said:?}");
        client
    }
}

impl Client {
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request, and reads the answer's head and body.
    pub(crate) async fn ask(&mut self, request: &str) -> Said {
        self.say(request).await;
        let said = tokio::time::timeout(PATIENCE, self.hear(request.starts_with("HEAD"))).await;
        said.unwrap_or_else(|_| panic!("no answer to {request:?}"))
    }

    async fn hear(&mut self, to_head: bool) -> Said {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if self.0.read(&mut byte).await.unwrap_or(0) == 0 {
                break;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.filter(|_| !to_head).unwrap_or(0)];
        self.0.read_exact(&mut body).await.unwrap();
        Said { status, head, body: String::from_utf8_lossy(&body).into_owned() }
    }

    /// Sends, and reads as many bytes back.
    pub(crate) async fn echoes(&mut self, text: &str) -> String {
        self.say(text).await;
        let mut back = vec![0; text.len()];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut back)).await.unwrap().unwrap();
        String::from_utf8(back).unwrap()
    }

    /// Everything until the end.
    pub(crate) async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        // A reset is an end, too.
        let _ = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut all)).await.expect("it never ends");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Whether nothing comes for a while, and it does not end.
    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.0.read_u8()).await.is_err()
    }
}
