//! `[egress.listener.NAME]`

use std::{os::unix::fs::PermissionsExt, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::{Proof, leaf::Leaf, table};
use crate::harness::{
    Gateway,
    proxy::{Client, Destination, echo, mirror},
    tls::{TlsCaller, authority, authority_called},
};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("egress.listener.*.address", address),
        ("egress.listener.*.freebind", freebind),
        ("egress.listener.*.tls.cert", cert),
        ("egress.listener.*.tls.key", key),
        ("egress.listener.*.tls_profile = intermediate", tls_profile),
        ("egress.listener.*.tls_profile = modern", tls_profile),
        ("egress.listener.*.client_ca", client_ca),
        ("egress.listener.*.client_auth = required", client_auth),
        ("egress.listener.*.client_auth = optional", client_auth),
        ("egress.listener.*.proxy_protocol.from", proxy_protocol),
        ("egress.listener.*.max_connections", max_connections),
        ("egress.listener.*.max_connections_per_ip", max_connections_per_ip),
        ("egress.listener.*.timeouts.handshake", handshake),
        ("egress.listener.*.timeouts.header", header),
        ("egress.listener.*.timeouts.idle", idle),
        ("egress.listener.*.mode", mode),
    ]
}

const ANYWHERE: &str = "address = \"127.0.0.1:0\"";

/// A listener `out` with these lines, and a rule that takes anyone on loopback to `far`.
fn listening(far: &Destination, listener: &str) -> String {
    format!(
        "[client.fn]\nnetworks = [\"127.0.0.0/8\", \"192.0.2.0/24\"]\n[egress.listener.out]\n{listener}\n\
         [egress.rule.r]\nclients = [\"fn\"]\nto = [\"{}\"]\nprivate = [\"127.0.0.0/8\"]\n",
        far.address
    )
}

async fn far() -> Destination {
    echo("127.0.0.9:0").await
}

fn ask(far: &Destination) -> String {
    let to = far.address;
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")
}

/// What a tunnel is answered with over this stream: its first line, or nothing.
async fn asked(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, far: &Destination) -> String {
    if stream.write_all(ask(far).as_bytes()).await.is_err() {
        return String::new();
    }
    let mut said = [0; 12];
    match tokio::time::timeout(crate::harness::PATIENCE, stream.read_exact(&mut said)).await {
        Ok(Ok(_)) => String::from_utf8_lossy(&said).into_owned(),
        _ => String::new(),
    }
}

const OPEN: &str = "HTTP/1.1 200";

async fn address(leaf: Leaf) {
    let far = far().await;
    let config = listening(&far, "LEAF");
    let [one, other] = leaf.pair(&config, ANYWHERE, "address = \"127.0.0.2:0\"").start().await;
    for (gateway, ip) in [(one, "127.0.0.1"), (other, "127.0.0.2")] {
        assert_eq!(gateway.address("egress.out").ip().to_string(), ip);
        let stream = TcpStream::connect(gateway.address("egress.out")).await.unwrap();
        assert_eq!(asked(stream, &far).await, OPEN);
    }
    let [_, other] = leaf.pair(&config, ANYWHERE, "address = \"unix:@DIR@/out.sock\"").start().await;
    assert_eq!(asked(UnixStream::connect(other.dir().join("out.sock")).await.unwrap(), &far).await, OPEN);
}

/// What a tunnel is answered with over TLS.
async fn over_tls(gateway: &Gateway, caller: &TlsCaller, name: &str, far: &Destination) -> String {
    let tcp = TcpStream::connect(gateway.address("egress.out")).await.unwrap();
    match caller.handshake(tcp, name).await {
        Ok((stream, _)) => asked(stream, far).await,
        Err(_) => String::new(),
    }
}

async fn cert(leaf: Leaf) {
    let far = far().await;
    let authority = authority();
    let one_leaf = authority.leaf(&["one.test"]);
    let other_leaf = authority.same_key(&one_leaf, &["other.test"]);
    let tls = format!("{ANYWHERE}\ntls = [{{ key = \"{}\", LEAF }}]", one_leaf.key.display());
    let words = [&one_leaf, &other_leaf].map(|leaf| format!("cert = \"{}\"", leaf.cert.display()));
    let [one, other] = leaf.pair(&listening(&far, &tls), &words[0], &words[1]).start().await;
    let caller = authority.caller(&[]);
    assert_eq!(over_tls(&one, &caller, "one.test", &far).await, OPEN);
    assert_eq!(over_tls(&other, &caller, "other.test", &far).await, OPEN);
    assert_eq!(over_tls(&other, &caller, "one.test", &far).await, "");
}

/// Another key doesn't fit the certificate.
async fn key(leaf: Leaf) {
    let far = far().await;
    let authority = authority();
    let (one_leaf, other_leaf) = (authority.leaf(&["one.test"]), authority.leaf(&["other.test"]));
    let tls = format!("{ANYWHERE}\ntls = [{{ cert = \"{}\", LEAF }}]", one_leaf.cert.display());
    let words = [&one_leaf, &other_leaf].map(|leaf| format!("key = \"{}\"", leaf.key.display()));
    let one = leaf.pair(&listening(&far, &tls), &words[0], &words[1]).refuses(&["other.test.key"]).await;
    assert_eq!(over_tls(&one, &authority.caller(&[]), "one.test", &far).await, OPEN);
}

async fn tls_profile(leaf: Leaf) {
    let far = far().await;
    let authority = authority();
    let tls = format!("{ANYWHERE}\ntls = [{}]\nLEAF", authority.leaf(&["one.test"]).toml());
    let words = ["tls_profile = \"intermediate\"", "tls_profile = \"modern\""];
    let [one, other] = leaf.pair(&listening(&far, &tls), words[0], words[1]).start().await;
    let old = authority.caller_with(&[], &[&rustls::version::TLS12]);
    assert_eq!(over_tls(&one, &old, "one.test", &far).await, OPEN);
    assert_eq!(over_tls(&other, &old, "one.test", &far).await, "");
    assert_eq!(over_tls(&other, &authority.caller(&[]), "one.test", &far).await, OPEN);
}

async fn client_ca(leaf: Leaf) {
    let far = far().await;
    let (authority, partners, others) = (authority(), authority_called("partners"), authority_called("others"));
    let tls = format!("{ANYWHERE}\ntls = [{}]\nLEAF", authority.leaf(&["one.test"]).toml());
    let words = [&partners, &others].map(|callers| format!("client_ca = \"{}\"", callers.ca().display()));
    let [one, other] = leaf.pair(&listening(&far, &tls), &words[0], &words[1]).start().await;
    let partner = authority.caller(&[]).showing(&partners.client("bank"));
    assert_eq!(over_tls(&one, &partner, "one.test", &far).await, OPEN);
    assert_eq!(over_tls(&other, &partner, "one.test", &far).await, "");
}

async fn client_auth(leaf: Leaf) {
    let far = far().await;
    let (authority, partners) = (authority(), authority_called("partners"));
    let tls = format!("tls = [{}]\nclient_ca = \"{}\"", authority.leaf(&["one.test"]).toml(), partners.ca().display());
    let config = listening(&far, &format!("{ANYWHERE}\n{tls}\nLEAF"));
    let words = ["client_auth = \"optional\"", "client_auth = \"required\""];
    let [one, other] = leaf.pair(&config, words[0], words[1]).start().await;
    assert_eq!(over_tls(&one, &authority.caller(&[]), "one.test", &far).await, OPEN);
    assert_eq!(over_tls(&other, &authority.caller(&[]), "one.test", &far).await, "");
}

async fn proxy_protocol(leaf: Leaf) {
    let far = far().await;
    let config = listening(&far, &format!("{ANYWHERE}\nproxy_protocol = {{ LEAF }}"));
    let [one, other] = leaf.pair(&config, "from = [\"127.0.0.1\"]", "from = [\"127.0.0.2\"]").start().await;
    for (gateway, opens) in [(&one, true), (&other, false)] {
        let mut stream = TcpStream::connect(gateway.address("egress.out")).await.unwrap();
        stream.write_all(b"PROXY TCP4 192.0.2.9 192.0.2.1 1 80\r\n").await.unwrap();
        assert_eq!(asked(stream, &far).await == OPEN, opens);
    }
    assert_eq!(one.log_line().await["client_ip"], "192.0.2.9");
}

async fn bounded(leaf: &Leaf, words: [&str; 2]) -> ([Gateway; 2], [Client; 2], Destination) {
    let far = far().await;
    let config = listening(&far, &format!("{ANYWHERE}\nLEAF"));
    let [one, other] = leaf.pair(&config, words[0], words[1]).start().await;
    let mut held = Vec::new();
    for (gateway, more) in [(&one, false), (&other, true)] {
        let mut first = gateway.client("127.0.0.1").await;
        assert_eq!(first.ask(&ask(&far)).await.status, 200);
        held.push(first);
        let second = TcpStream::connect(gateway.address("egress.out")).await.unwrap();
        assert_eq!(asked(second, &far).await == OPEN, more);
    }
    let held = held.try_into().unwrap_or_else(|_| panic!("two"));
    ([one, other], held, far)
}

async fn max_connections(leaf: Leaf) {
    // Of two the second would be kept for another client: its fair share.
    bounded(&leaf, ["max_connections = 1", "max_connections = 3"]).await;
}

async fn max_connections_per_ip(leaf: Leaf) {
    let words = ["max_connections_per_ip = 1", "max_connections_per_ip = 2"];
    let ([one, _other], _held, far) = bounded(&leaf, words).await;
    assert_eq!(one.client("127.0.0.2").await.ask(&ask(&far)).await.status, 200);
}

/// Both get the same bytes: the one gives up, and then the other still waits. What the one said.
async fn gives_up(leaf: &Leaf, listener: &str, bytes: &str) -> String {
    gives_up_on(leaf, listener, &far().await, bytes).await
}

async fn gives_up_on(leaf: &Leaf, listener: &str, far: &Destination, bytes: &str) -> String {
    let config = listening(far, &format!("{ANYWHERE}\n{listener}\ntimeouts = {{ LEAF }}"));
    let key = leaf.key();
    let words = ["400ms", "60s"].map(|time| format!("{key} = \"{time}\""));
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    let (mut patient, mut hasty) = (other.client("127.0.0.1").await, one.client("127.0.0.1").await);
    for client in [&mut patient, &mut hasty] {
        client.say(bytes).await;
    }
    let said = hasty.rest().await;
    // What it was answered may be there; its end is not.
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_millis(50), patient.0.read_to_end(&mut rest)).await;
    assert!(end.is_err(), "the other one gave up as well");
    said
}

async fn handshake(leaf: Leaf) {
    let authority = authority();
    let tls = format!("tls = [{}]", authority.leaf(&["one.test"]).toml());
    assert_eq!(gives_up(&leaf, &tls, "").await, "");
}

async fn header(leaf: Leaf) {
    let said = gives_up(&leaf, "", "CONNECT a.example:443 HTTP/1.1\r\nX-Slow").await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

/// A kept connection, after an answer.
async fn idle(leaf: Leaf) {
    let far = mirror("127.0.0.9:0").await;
    let to = far.address;
    let said = gives_up_on(&leaf, "", &far, &format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n")).await;
    assert!(said.starts_with("HTTP/1.1 200 ") && said.matches("HTTP/1.1").count() == 1, "{said}");
}

async fn mode(leaf: Leaf) {
    let far = far().await;
    let config = listening(&far, "address = \"unix:@DIR@/out.sock\"\nLEAF");
    let both = leaf.pair(&config, "mode = \"0600\"", "mode = \"0666\"").start().await;
    for (gateway, mode) in both.iter().zip([0o600, 0o666]) {
        let about = std::fs::metadata(gateway.dir().join("out.sock")).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, mode);
    }
}

/// An address of documentation (RFC 5737), which no machine has.
async fn freebind(leaf: Leaf) {
    let config = listening(&far().await, "address = \"192.0.2.77:0\"\nLEAF");
    let pair = leaf.pair(&config, "freebind = true", "freebind = false");
    let one = pair.refuses_with(1, &["listener egress.out: cannot listen on 192.0.2.77:0", "freebind"]).await;
    one.counts("gatepost_listener_address_present", &[("listener", "egress.out")], 0.0).await;
}
