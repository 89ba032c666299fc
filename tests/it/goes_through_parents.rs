//! A rule's parent proxy: another gatepost, a tinyproxy, and scripted ones that misbehave.

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::harness::{
    Gateway, authority,
    dns::Dns,
    eventually, gateway,
    ports::free,
    proxy::{echo, mirror},
    when,
};

/// A parent that answers each connection's head with bytes of the test's, and says what it was sent.
struct Scripted {
    address: std::net::SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// `None`: it answers nothing, and holds the connection. Behind a 2xx it echoes.
    async fn start(at: &str, answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let told = heads.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::serve(stream, answer, told.clone()));
            }
        });
        Self { address, heads, task }
    }

    async fn serve(mut stream: TcpStream, answer: Option<&'static str>, told: Arc<Mutex<Vec<String>>>) {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        told.lock().unwrap().push(String::from_utf8(head).unwrap());
        let Some(answer) = answer else {
            let _ = stream.read(&mut byte).await;
            return;
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || !answer.contains(" 200 ") {
            return;
        }
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// A way out with one rule, whose parent this is.
fn config(dns: &Dns, to: &str, parent: &str, more: &str) -> String {
    format!(
        r#"
        [server]
        dns = ["{}"]
        [client.fn]
        networks = ["127.0.0.1/32"]
        [egress]
        timeouts = {{ connect = "2s", first_byte = "700ms" }}
        [egress.listener.out]
        address = "127.0.0.1:0"
        [egress.source.s]
        bind = "127.0.0.41"
        [egress.rule.r]
        clients = ["fn"]
        to = [{to}]
        source = "s"
        parent = {parent}
        {more}
        "#,
        dns.address()
    )
}

const PRIVATE: &str = "private = [\"127.0.0.0/8\"]";
const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[tokio::test]
async fn a_parent_is_asked_for_the_address_that_was_judged_and_sees_the_rules_source() {
    let dns = Dns::start().await;
    dns.answer("far.test", &["127.0.0.9"], 60);
    let parent = Scripted::start("127.0.0.8:0", Some("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nahead")).await;
    let url = format!("\"http://{}\"", parent.address);
    let gate = gateway(config(&dns, "\"far.test:9000\", \"127.0.0.7:9000\"", &url, PRIVATE)).start().await;
    let mut client = gate.opened("FAR.test:9000").await;
    // What it says behind its answer is the destination's, whatever Content-Length says (RFC 9110 §9.3.6).
    assert_eq!(client.echoes("hello").await, "ahead");
    drop(client);
    drop(gate.opened("127.0.0.7:9000").await);
    let heads = parent.heads();
    assert!(
        heads[0].starts_with("CONNECT 127.0.0.9:9000 HTTP/1.1\r\nHost: 127.0.0.9:9000\r\nVia: 1.1 gatepost-"),
        "{heads:?}"
    );
    assert!(heads[1].starts_with("CONNECT 127.0.0.7:9000 "), "{heads:?}");
    let lines = gate.log(2).await;
    let line = lines.iter().find(|line| line["target"] == "far.test:9000").unwrap();
    for (key, value) in [
        ("target", "far.test:9000".to_owned()),
        ("address", parent.address.to_string()),
        ("parent", format!("http://{}", parent.address)),
        ("asked", "127.0.0.9:9000".to_owned()),
        ("source_address", "127.0.0.41".to_owned()),
    ] {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    // A name that leads where it may not is never told to the parent.
    dns.answer("meta.test", &["169.254.169.254"], 60);
    gate.swap("\"far.test:9000\"", "\"meta.test:9000\"").await;
    let (_, said) = gate.tunnel("meta.test:9000").await;
    said.is(403, "address_not_allowed");
    assert_eq!(parent.heads().len(), 2);
}

#[tokio::test]
async fn what_only_a_parent_has_looked_up_does_not_stand_where_names_are_judged_here() {
    let dns = Dns::start().await;
    let parent = Scripted::start("127.0.0.8:0", Some(ESTABLISHED)).await;
    let table = format!("{{ url = \"http://{}\", resolve = \"parent\" }}", parent.address);
    let text = config(&dns, "\"far.test:9000\"", &table, "").replace("[egress]", "[egress]\non_revoke = \"close\"");
    let gate = gateway(text).start().await;
    let mut client = gate.opened("far.test:9000").await;
    gate.edit(|text| format!("{text}# nothing that concerns it\n")).await;
    assert_eq!(client.echoes("still").await, "still");
    gate.swap("resolve = \"parent\"", "resolve = \"here\"").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn names_are_left_to_the_parent_where_the_rule_says_so_and_nobody_is_asked_here() {
    let dns = Dns::start().await;
    let parent = Scripted::start("127.0.0.8:0", Some(ESTABLISHED)).await;
    let table = format!("{{ url = \"http://{}\", resolve = \"parent\" }}", parent.address);
    let gate = gateway(config(&dns, "\"far.test:9000\", \"far.test:80\"", &table, "")).start().await;
    let mut client = gate.opened("far.test:9000").await;
    assert_eq!(client.echoes("hello").await, "hello");
    assert!(parent.heads()[0].starts_with("CONNECT far.test:9000 HTTP/1.1\r\n"), "{:?}", parent.heads());
    assert_eq!(dns.asked("far.test"), 0);
    // What no rule takes is told to nobody either.
    let (_, said) = gate.tunnel("other.test:9000").await;
    said.is(403, "destination_not_allowed");
    assert_eq!(parent.heads().len(), 1);
    drop(client);
    let line = &gate.log(2).await;
    assert!(line.iter().any(|line| line["asked"] == "far.test:9000" && line.get("dns_ms").is_none()), "{line:#?}");
}

#[tokio::test]
async fn what_a_parent_says_instead_of_yes_becomes_a_reason_that_tells_whose_it_is() {
    const LARGE: usize = 70_000;
    let dns = Dns::start().await;
    let oversize: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(LARGE)).into_boxed_str());
    for (answer, status, reason, detail) in [
        (
            Some("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"p\"\r\n\r\n"),
            503,
            "credential_unavailable",
            "wants other credentials",
        ),
        (
            Some("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            403,
            "destination_not_allowed",
            "it refuses 127.0.0.7:9000 (403)",
        ),
        (Some("HTTP/1.1 404 Not Found\r\n\r\n"), 403, "destination_not_allowed", "(404)"),
        (Some("HTTP/1.1 500 x\r\n\r\n"), 502, "upstream_unreachable", "did not connect to 127.0.0.7:9000 (500)"),
        (Some("HTTP/1.1 503 x\r\n\r\n"), 502, "upstream_unreachable", "(503)"),
        (Some("HTTP/1.1 429 x\r\n\r\n"), 502, "upstream_unreachable", "(429)"),
        (Some("HTTP/1.1 504 x\r\n\r\n"), 504, "upstream_timeout", "(504)"),
        (Some("HTTP/1.1 508 x\r\n\r\n"), 508, "loop_detected", "(508)"),
        (Some("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n"), 502, "upstream_reset", "302"),
        (Some("SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502, "upstream_reset", "its version is not HTTP/1.1"),
        (Some(""), 502, "upstream_reset", "closed the connection without an answer"),
        (Some(oversize), 502, "upstream_reset", "larger than 64 KiB"),
        (None, 504, "upstream_timeout", "no answer to CONNECT within 700ms"),
    ] {
        let parent = Scripted::start("127.0.0.8:0", answer).await;
        let url = format!("\"http://{}\"", parent.address);
        let gate = gateway(config(&dns, "\"127.0.0.7:9000\"", &url, PRIVATE)).start().await;
        let (_, said) = gate.tunnel("127.0.0.7:9000").await;
        said.is(status, reason);
        assert!(said.body.contains(detail) && said.body.contains("the parent proxy http://127.0.0.8:"), "{said:?}");
        assert!(!said.head.contains("Proxy-Authenticate"), "{said:?}");
        gate.counts("gatepost_egress_source_open", &[("source", "s")], 0.0).await;
        assert_eq!(gate.log_line().await["reason"], reason);
    }
    // One that is not there, and one that is ourselves.
    let gate = gateway(config(&dns, "\"127.0.0.7:9000\"", "\"http://127.0.0.8:1\"", PRIVATE)).start().await;
    let (_, said) = gate.tunnel("127.0.0.7:9000").await;
    said.is(502, "upstream_unreachable");
    assert!(said.body.contains("the parent proxy http://127.0.0.8:1: Connection refused"), "{said:?}");
    gate.swap("127.0.0.8:1", &gate.address("egress.out").to_string()).await;
    let (_, said) = gate.tunnel("127.0.0.7:9000").await;
    said.is(508, "loop_detected");
}

#[tokio::test]
async fn the_next_address_is_asked_for_when_the_parent_cannot_reach_one() {
    let dns = Dns::start().await;
    dns.answer("far.test", &["127.0.0.7", "127.0.0.8"], 60);
    let parent = Scripted::start("127.0.0.8:0", Some("HTTP/1.1 502 x\r\n\r\n")).await;
    let url = format!("\"http://{}\"", parent.address);
    let gate = gateway(config(&dns, "\"far.test:9000\"", &url, PRIVATE)).start().await;
    let (_, said) = gate.tunnel("far.test:9000").await;
    said.is(502, "upstream_unreachable");
    let asked: Vec<_> = parent.heads().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(asked, ["127.0.0.7:9000", "127.0.0.8:9000"]);
}

/// Another gatepost as a parent, over TLS and with credentials: `user:secret`.
async fn as_a_parent(to: &str, tls: &str) -> Gateway {
    // `printf secret | sha256sum`
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let text = format!(
        r#"
        [client.below]
        basic = {{ user = "user", sha256 = "file:@DIR@/hash" }}
        [egress.listener.out]
        address = "127.0.0.1:0"
        {tls}
        [egress.rule.r]
        clients = ["below"]
        to = [{to}]
        private = ["127.0.0.0/8"]
        "#
    );
    gateway(text).file("hash", hash).start().await
}

#[tokio::test]
async fn tunnels_and_requests_go_through_a_parent_over_tls_with_its_credentials() {
    let (authority, dns) = (authority(), Dns::start().await);
    let leaf = authority.leaf(&["parent.test"]);
    let (far, plain) = (echo("127.0.0.9:0").await, mirror("127.0.0.9:0").await);
    dns.answer("parent.test", &["127.0.0.1"], 60);
    dns.answer("far.test", &["127.0.0.9"], 60);
    let to = format!("\"127.0.0.9:{}\", \"127.0.0.9:{}\"", far.port(), plain.port());
    let above = as_a_parent(&to, &format!("tls = [{}]", leaf.toml())).await;
    let table = format!(
        "{{ url = \"https://parent.test:{}\", ca = \"{}\", user = \"user\", password = \"file:@DIR@/password\" }}",
        above.address("egress.out").port(),
        authority.ca().display()
    );
    let own = format!("{to}, \"far.test:{}\"", plain.port());
    let gate = gateway(config(&dns, &own, &table, PRIVATE)).file("password", "secret\n").start().await;
    let mut client = gate.opened(&format!("127.0.0.9:{}", far.port())).await;
    assert_eq!(client.echoes("through both").await, "through both");
    client.0.shutdown().await.unwrap();
    assert_eq!(client.rest().await, " bye", "each side ends for itself");
    // A name: by a tunnel to the judged address. An address: in absolute form. Both on kept connections.
    for (at, host) in ["far.test", "127.0.0.9"].into_iter().enumerate() {
        let mut client = gate.client("127.0.0.1").await;
        for _ in 0..3 {
            let request = format!("GET http://{host}:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", plain.port());
            let said = client.ask(&request).await;
            assert_eq!((said.status, said.body.as_str()), (200, "127.0.0.1"), "{said:?}");
        }
        assert_eq!(plain.accepted(), at + 1, "the connection is kept");
    }
    let kinds: Vec<_> = above.log(4).await.iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "forward").count(), 3, "{kinds:?}");
    // With another password: the client is told whose fault it is, and is not asked for credentials.
    fs::write(gate.dir().join("password"), "other\n").unwrap();
    gate.hup().await;
    for request in [
        format!("CONNECT 127.0.0.9:{} HTTP/1.1\r\nHost: x\r\n\r\n", far.port()),
        format!("GET http://127.0.0.9:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", plain.port()),
    ] {
        let said = gate.client("127.0.0.1").await.ask(&request).await;
        said.is(503, "credential_unavailable");
        assert!(!said.head.contains("Proxy-Authenticate"), "{said:?}");
    }
    // Whom nobody vouches for is no parent.
    let other = crate::harness::authority();
    gate.swap(&authority.ca().display().to_string(), &other.ca().display().to_string()).await;
    let (_, said) = gate.tunnel(&format!("127.0.0.9:{}", far.port())).await;
    said.is(502, "upstream_unreachable");
    assert!(said.body.contains("TLS: "), "{said:?}");
}

#[tokio::test]
async fn two_gateposts_with_each_other_for_a_parent_answer_508() {
    let dns = Dns::start().await;
    let to = "\"127.0.0.7:9000\"";
    let one = gateway(config(&dns, to, "\"http://127.0.0.8:1\"", PRIVATE).replace("127.0.0.1/32", "127.0.0.0/8"))
        .start()
        .await;
    let at = format!("\"http://{}\"", one.address("egress.out"));
    let other = gateway(config(&dns, to, &at, PRIVATE).replace("127.0.0.1/32", "127.0.0.0/8")).start().await;
    one.swap("127.0.0.8:1", &other.address("egress.out").to_string()).await;
    let (_, said) = one.tunnel("127.0.0.7:9000").await;
    said.is(508, "loop_detected");
    let forward = "GET http://127.0.0.7:9000/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let said = one.client("127.0.0.1").await.ask(forward).await;
    assert_eq!(said.status, 508, "{said:?}");
    // Each has sent it on once. A parent's answer to a request in absolute form is passed back as it is.
    let lines = [one.log(4).await, other.log(2).await].concat();
    assert_eq!(
        (lines.len(), lines.iter().filter(|line| line["reason"] == "loop_detected").count()),
        (6, 4),
        "{lines:#?}"
    );
    // Nobody's own name is believed to be another's.
    let via = "GET http://127.0.0.7:9000/ HTTP/1.1\r\nHost: x\r\nVia: 1.1 gatepost-00000000\r\n\r\n";
    assert_eq!(one.client("127.0.0.1").await.ask(via).await.status, 508);
    assert!(lines.iter().all(|line| line["status"] == 508), "{lines:#?}");
}

struct Tinyproxy(Child);

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_tinyproxy_serves_as_a_parent() {
    let dns = Dns::start().await;
    let (far, plain) = (echo("127.0.0.9:0").await, mirror("127.0.0.9:0").await);
    let dir = tempfile::tempdir().unwrap();
    // tinyproxy can't say which port it was given.
    let at = free("127.0.0.8");
    let file = dir.path().join("tinyproxy.conf");
    let text = format!(
        "Port {}\nListen 127.0.0.8\nTimeout 60\nMaxClients 20\nBasicAuth user secret\nAllow 127.0.0.0/8\nConnectPort {}\nLogLevel Error\n",
        at.port(),
        far.port()
    );
    fs::write(&file, text).unwrap();
    let child =
        Command::new("tinyproxy").arg("-d").arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _running = Tinyproxy(child.expect("tinyproxy (Debian's package tinyproxy-bin)"));
    eventually("tinyproxy listens", async || when(TcpStream::connect(at).await.is_ok())).await;
    let table = format!("{{ url = \"http://{at}\", user = \"user\", password = \"file:@DIR@/password\" }}");
    let to = format!("\"127.0.0.9:{}\", \"127.0.0.9:{}\", \"127.0.0.9:1\"", far.port(), plain.port());
    let gate = gateway(config(&dns, &to, &table, PRIVATE)).file("password", "secret").start().await;
    let mut client = gate.opened(&format!("127.0.0.9:{}", far.port())).await;
    assert_eq!(client.echoes("hello").await, "hello");
    let forward = format!("GET http://127.0.0.9:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", plain.port());
    assert_eq!(gate.client("127.0.0.1").await.ask(&forward).await.status, 200);
    // Its own rules: no CONNECT to that port.
    let (_, said) = gate.tunnel("127.0.0.9:1").await;
    said.is(403, "destination_not_allowed");
    fs::write(gate.dir().join("password"), "wrong").unwrap();
    gate.hup().await;
    let (_, said) = gate.tunnel(&format!("127.0.0.9:{}", far.port())).await;
    said.is(503, "credential_unavailable");
}
