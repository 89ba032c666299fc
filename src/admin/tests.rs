use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{server::Bounds, *};

const LONG: Duration = Duration::from_secs(60);

/// A backend that says what the test told it to.
struct Scripted {
    ready: Mutex<Result<(), String>>,
    degraded: Vec<DegradedStatus>,
    token: Option<Vec<u8>>,
    outcome: Outcome,
    reloads: AtomicU32,
    reload_takes: Duration,
    /// How long the server waits for a head.
    header: Duration,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            ready: Mutex::new(Ok(())),
            degraded: Vec::new(),
            token: Some(b"s3cret".to_vec()),
            outcome: Outcome::Applied,
            reloads: AtomicU32::new(0),
            reload_takes: Duration::ZERO,
            header: LONG,
        }
    }
}

fn receipt(result: Outcome) -> Receipt {
    Receipt {
        result,
        at: "2026-11-22T16:20:01.123Z".to_owned(),
        generation: 7,
        hash: "abc".to_owned(),
        changes: vec!["orders: v42 5 % -> 10 %".to_owned()],
        waiting_for_restart: Vec::new(),
        report: (result == Outcome::Rejected).then(|| "error: unknown key `wieght`".to_owned()),
    }
}

impl Backend for Scripted {
    fn ready(&self) -> Result<(), String> {
        self.ready.lock().unwrap().clone()
    }

    fn degraded(&self) -> Vec<DegradedStatus> {
        self.degraded.clone()
    }

    fn metrics(&self) -> String {
        "gatepost_config_generation 7\n".to_owned()
    }

    fn status(&self) -> Status {
        Status {
            version: "0.1.0".to_owned(),
            pid: 42,
            generation: 7,
            hash: "abc".to_owned(),
            since: "2026-11-22T16:20:01.123Z".to_owned(),
            cluster: None,
            listeners: vec![ListenerStatus {
                name: "public".to_owned(),
                address: "127.0.0.1:8080".to_owned(),
                tls: false,
                connections: 3,
                address_present: true,
            }],
            guards: Vec::new(),
            mirrors: Vec::new(),
            releases: Vec::new(),
            functions: vec![VersionStatus {
                function: "orders".to_owned(),
                version: "v42".to_owned(),
                weights_from: "file".to_owned(),
                weight: 2.5,
                in_flight: 1,
            }],
            budgets: Vec::new(),
            sources: Vec::new(),
            jwks: Vec::new(),
            certificates: Vec::new(),
            last_reload: Some(receipt(Outcome::Unchanged)),
            degraded: self.degraded.clone(),
            draining: false,
            workers: 2,
        }
    }

    fn token(&self) -> Option<Vec<u8>> {
        self.token.clone()
    }

    async fn reload(&self) -> Receipt {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.reload_takes).await;
        receipt(self.outcome)
    }
}

/// A running admin server on a thread of its own.
struct Server {
    address: SocketAddr,
    backend: Arc<Scripted>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn run(socket: Socket, backend: Arc<Scripted>) -> (oneshot::Sender<()>, std::thread::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let bounds = Bounds { header: backend.header, call: LONG };
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let listener = Listener::new(socket).unwrap();
            let ended = async {
                let _ = stopped.await;
            };
            server::serve_within(bounds, listener, backend, ended).await;
        });
    });
    (stop, thread)
}

fn server(backend: Scripted) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let backend = Arc::new(backend);
    let (stop, thread) = run(Socket::Tcp(listener), Arc::clone(&backend));
    Server { address, backend, stop: Some(stop), thread: Some(thread) }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends `head` as it is, with a Host and the end of the head added.
    fn ask(&self, head: &str) -> Reply {
        ask(self.connect(), head)
    }

    fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line.eq_ignore_ascii_case(header))
    }
}

fn ask(mut stream: impl Read + Write, head: &str) -> Reply {
    write!(stream, "{head}\r\nHost: admin\r\n\r\n").unwrap();
    read(stream)
}

fn read(mut stream: impl Read) -> Reply {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
    Reply { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
}

#[test]
fn what_is_degraded_is_named_and_it_is_ready_all_the_same() {
    let part = DegradedStatus { what: "access_log".to_owned(), why: "the disk is full".to_owned() };
    let server = server(Scripted { degraded: vec![part], ..Scripted::default() });
    let ready = server.ask("GET /readyz HTTP/1.1");
    assert_eq!((ready.status, &*ready.body), (200, "ready\ndegraded: access_log: the disk is full\n"));
}

const RELOAD: &str = "POST /api/v1/reload HTTP/1.1\r\nAuthorization: Bearer s3cret";

#[test]
fn it_is_healthy_while_it_lives_and_ready_while_it_serves() {
    let server = server(Scripted::default());
    let healthy = server.ask("GET /healthz HTTP/1.1");
    assert_eq!((healthy.status, &*healthy.body), (200, "ok\n"));
    assert_eq!(server.ask("GET /readyz HTTP/1.1").status, 200);

    *server.backend.ready.lock().unwrap() = Err("draining".to_owned());
    let not_ready = server.ask("GET /readyz HTTP/1.1");
    assert_eq!((not_ready.status, &*not_ready.body), (503, "draining\n"));
    assert_eq!(server.ask("GET /healthz HTTP/1.1").status, 200);
}

#[test]
fn metrics_come_as_prometheus_wants_them() {
    let server = server(Scripted::default());
    let reply = server.ask("GET /metrics?x=1 HTTP/1.1");
    assert_eq!(reply.body, "gatepost_config_generation 7\n");
    assert!(reply.has("content-type: text/plain; version=0.0.4; charset=utf-8"));
}

#[test]
fn the_status_can_be_read_back() {
    let server = server(Scripted::default());
    let reply = server.ask("GET /api/v1/status HTTP/1.1");
    assert!(reply.has("content-type: application/json"));
    let status: Status = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(status, server.backend.status());
    assert_eq!(reply.json()["last_reload"]["result"], "unchanged");
}

#[test]
fn head_is_get_without_a_body() {
    let server = server(Scripted::default());
    let reply = server.ask("HEAD /healthz HTTP/1.1");
    assert_eq!((reply.status, &*reply.body), (200, ""));
    assert!(reply.has("content-length: 3"), "{}", reply.head);
}

#[test]
fn a_reload_wants_the_token() {
    let server = server(Scripted::default());
    let missing = server.ask("POST /api/v1/reload HTTP/1.1");
    assert_eq!(missing.status, 401);
    assert_eq!(missing.json()["reason"], "credentials_missing");
    assert!(missing.has("www-authenticate: Bearer"));
    for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "Bearer", "Basic s3cret", "s3cret", ""] {
        let head = format!("POST /api/v1/reload HTTP/1.1\r\nAuthorization: {wrong}");
        let reply = server.ask(&head);
        assert_eq!(reply.status, 401, "{wrong}");
        assert_eq!(reply.json()["reason"], "credentials_invalid");
    }
    assert_eq!(server.backend.reloads.load(Ordering::Relaxed), 0);

    let reply = server.ask(RELOAD);
    assert_eq!(reply.status, 200);
    let told: Receipt = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(told, receipt(Outcome::Applied));
    let lower = server.ask("POST /api/v1/reload HTTP/1.1\r\nauthorization: bearer s3cret");
    assert_eq!(lower.status, 200);
    assert_eq!(server.backend.reloads.load(Ordering::Relaxed), 2);
}

#[test]
fn without_a_token_in_the_config_a_reload_is_refused() {
    for token in [None, Some(Vec::new())] {
        let server = server(Scripted { token, ..Scripted::default() });
        for head in [RELOAD, "POST /api/v1/reload HTTP/1.1\r\nAuthorization: Bearer "] {
            let reply = server.ask(head);
            assert_eq!(reply.status, 403);
            assert_eq!(reply.json()["reason"], "admin_token_not_configured");
        }
        assert_eq!(server.backend.reloads.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_rejected_config_is_told_with_its_report() {
    let server = server(Scripted { outcome: Outcome::Rejected, ..Scripted::default() });
    let reply = server.ask(RELOAD);
    assert_eq!(reply.status, 422);
    assert_eq!(reply.json()["report"], "error: unknown key `wieght`");
}

#[test]
fn other_paths_and_methods_are_problems() {
    let server = server(Scripted::default());
    let unknown = server.ask("GET / HTTP/1.1");
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["reason"], "not_found");
    assert!(unknown.has("content-type: application/problem+json"));

    let posted = server.ask("POST /metrics HTTP/1.1\r\nContent-Length: 0");
    assert_eq!(posted.status, 405);
    assert!(posted.has("allow: GET, HEAD"));
    let got = server.ask("GET /api/v1/reload HTTP/1.1");
    assert_eq!(got.status, 405);
    assert!(got.has("allow: POST"));
    assert_eq!(got.json()["status"], 405);
}

#[test]
fn a_body_is_thrown_away_and_a_large_one_refused() {
    let server = server(Scripted::default());
    let mut stream = server.connect();
    write!(stream, "{RELOAD}\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}").unwrap();
    assert_eq!(read(stream).status, 200);

    let mut stream = server.connect();
    write!(stream, "{RELOAD}\r\nHost: a\r\nContent-Length: 65537\r\n\r\n").unwrap();
    stream.write_all(&[b'x'; 65_537]).unwrap();
    assert_eq!(read(stream).status, 413);
    assert_eq!(server.backend.reloads.load(Ordering::Relaxed), 1);
}

#[test]
fn callers_that_say_nothing_are_cut_and_let_others_in() {
    let server = server(Scripted { header: Duration::from_millis(300), ..Scripted::default() });
    let mut silent: Vec<_> = (0..64).map(|_| server.connect()).collect();
    silent[0].write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    // The 65th waits until the first places are free again.
    assert_eq!(server.ask("GET /healthz HTTP/1.1").status, 200);
    // The connection is closed, with or without a word.
    let mut rest = Vec::new();
    let _ = silent[0].read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn a_call_under_way_outlives_the_stop() {
    let mut server = server(Scripted { reload_takes: Duration::from_millis(300), ..Scripted::default() });
    let mut stream = server.connect();
    write!(stream, "{RELOAD}\r\nHost: a\r\n\r\n").unwrap();
    while server.backend.reloads.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    server.stop();
    assert_eq!(read(stream).status, 200);
}

#[test]
fn what_is_no_http_ends_that_connection_only() {
    let server = server(Scripted::default());
    let mut stream = server.connect();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(server.ask("GET /healthz HTTP/1.1").status, 200);
}

#[test]
fn a_unix_socket_answers_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (stop, thread) = run(Socket::Unix(listener), Arc::default());
    let reply = ask(UnixStream::connect(&path).unwrap(), "GET /healthz HTTP/1.1");
    assert_eq!(reply.status, 200);
    let _ = stop.send(());
    thread.join().unwrap();
}
