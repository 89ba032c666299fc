//! `[listener.NAME]`

use std::{os::unix::fs::PermissionsExt, time::Duration};

use tokio::net::TcpStream;

use super::{Proof, leaf::Leaf, named, one_function, table};
use crate::harness::{
    Connection, Gateway, Origin, PATIENCE,
    acme::{Acme, acme},
    authority, eventually, get,
    h2::H2,
    tls::{Agreed, Authority, TlsCaller, authority_called},
};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("listener.*.address", address),
        ("listener.*.freebind", freebind),
        ("listener.*.tls.cert", cert),
        ("listener.*.tls.key", key),
        ("listener.*.tls.acme.directory", acme_directory),
        ("listener.*.tls.acme.email", acme_email),
        ("listener.*.tls.acme.domains", acme_domains),
        ("listener.*.tls.acme.ca", acme_ca),
        ("listener.*.tls_profile = intermediate", tls_profile),
        ("listener.*.tls_profile = modern", tls_profile),
        ("listener.*.client_ca", client_ca),
        ("listener.*.client_auth = required", client_auth),
        ("listener.*.client_auth = optional", client_auth),
        ("listener.*.proxy_protocol.from", proxy_protocol),
        ("listener.*.h2c", h2c),
        ("listener.*.max_connections", max_connections),
        ("listener.*.max_connections_per_ip", max_connections_per_ip),
        ("listener.*.min_body_rate", min_body_rate),
        ("listener.*.timeouts.handshake", handshake),
        ("listener.*.timeouts.header", header),
        ("listener.*.timeouts.body", body),
        ("listener.*.timeouts.idle", idle),
        ("listener.*.mode", mode),
    ]
}

const ANYWHERE: &str = "address = \"127.0.0.1:0\"";

/// A listener `in` with these lines, and a function behind it.
fn listening(url: &str, listener: &str) -> String {
    format!("[listener.in]\n{listener}\n{}", one_function(url, ""))
}

async fn address(leaf: Leaf) {
    let function = named("v1").await;
    let config = listening(&function.url(), "LEAF");
    let [one, other] = leaf.pair(&config, ANYWHERE, "address = \"127.0.0.2:0\"").start().await;
    for (gateway, ip) in [(one, "127.0.0.1"), (other, "127.0.0.2")] {
        assert_eq!(gateway.address("in").ip().to_string(), ip);
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let [_, other] = leaf.pair(&config, ANYWHERE, "address = \"unix:@DIR@/in.sock\"").start().await;
    assert_eq!(Connection::unix(&other.dir().join("in.sock")).await.send("/").await.status, 200);
}

/// An address of documentation (RFC 5737), which no machine has.
async fn freebind(leaf: Leaf) {
    let function = named("v1").await;
    let config = listening(&function.url(), "address = \"192.0.2.77:0\"\nLEAF");
    let pair = leaf.pair(&config, "freebind = true", "freebind = false");
    let one = pair.refuses_with(1, &["listener in: cannot listen on 192.0.2.77:0", "freebind"]).await;
    one.counts("gatepost_listener_address_present", &[("listener", "in")], 0.0).await;
}

async fn shake(gateway: &Gateway, authority: &Authority, name: &str) -> Agreed {
    let tcp = TcpStream::connect(gateway.address("in")).await.unwrap();
    authority.caller(&[]).handshake(tcp, name).await.unwrap().1
}

async fn cert(leaf: Leaf) {
    let function = named("v1").await;
    let authority = authority();
    let one_leaf = authority.leaf(&["one.test"]);
    let other_leaf = authority.same_key(&one_leaf, &["other.test"]);
    let config =
        listening(&function.url(), &format!("{ANYWHERE}\ntls = [{{ key = \"{}\", LEAF }}]", one_leaf.key.display()));
    let words = [&one_leaf, &other_leaf].map(|leaf| format!("cert = \"{}\"", leaf.cert.display()));
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    assert_eq!(shake(&one, &authority, "one.test").await.peer, one_leaf.der);
    assert_eq!(shake(&other, &authority, "other.test").await.peer, other_leaf.der);
}

/// Another key doesn't fit the certificate.
async fn key(leaf: Leaf) {
    let function = named("v1").await;
    let authority = authority();
    let (one_leaf, other_leaf) = (authority.leaf(&["one.test"]), authority.leaf(&["other.test"]));
    let config =
        listening(&function.url(), &format!("{ANYWHERE}\ntls = [{{ cert = \"{}\", LEAF }}]", one_leaf.cert.display()));
    let words = [&one_leaf, &other_leaf].map(|leaf| format!("key = \"{}\"", leaf.key.display()));
    let one = leaf.pair(&config, &words[0], &words[1]).refuses(&["other.test.key"]).await;
    assert_eq!(shake(&one, &authority, "one.test").await.peer, one_leaf.der);
}

/// Whether a request comes through.
async fn gets_in(gateway: &Gateway, caller: &TlsCaller) -> bool {
    let tcp = TcpStream::connect(gateway.address("in")).await.unwrap();
    let Ok((stream, _)) = caller.handshake(tcp, "one.test").await else { return false };
    // In TLS 1.3 a caller hears that it is refused only when it reads.
    Connection::over(stream).try_send(get("/").host("one.test")).await.is_ok()
}

/// A listener `in` with a certificate by ACME that has these keys, and one that answers the authority.
fn by_acme(url: &str, keys: &str) -> String {
    let tls = format!("{ANYWHERE}\ntls = [{{ acme = {{ {keys} }} }}]");
    format!("{}[listener.plain]\n{ANYWHERE}\n", listening(url, &tls))
}

/// Waits until it serves a certificate of that authority for that name.
async fn gets(gateway: &Gateway, acme: &Acme, name: &str) {
    eventually(&format!("a certificate for {name}"), async || {
        acme.state().names.insert(name.to_owned(), gateway.address("plain"));
        let tcp = TcpStream::connect(gateway.address("in")).await.ok()?;
        acme.authority.caller(&[]).handshake(tcp, name).await.ok()
    })
    .await;
}

async fn acme_directory(leaf: Leaf) {
    let function = named("v1").await;
    let (here, there) = (acme().await, acme().await);
    let config =
        by_acme(&function.url(), &format!("LEAF, ca = \"{}\", domains = [\"a.test\"]", here.authority.ca().display()));
    let words = [&here, &there].map(|acme| format!("directory = \"{}\"", acme.directory()));
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    gets(&one, &here, "a.test").await;
    // Its certificate is by another authority than `ca`.
    other.says(&["no new certificate", &there.directory()]).await;
}

async fn acme_email(leaf: Leaf) {
    let function = named("v1").await;
    let acme = acme().await;
    let config = by_acme(&function.url(), &format!("{}, LEAF, domains = [\"a.test\"]", acme.keys()));
    let words = ["email = \"one@a.test\"", "email = \"other@a.test\""];
    let [_one, _other] = leaf.pair(&config, words[0], words[1]).start().await;
    for email in ["one@a.test", "other@a.test"] {
        eventually(&format!("an account of {email}"), async || {
            acme.state().contacts.iter().any(|c| c[0] == format!("mailto:{email}")).then_some(())
        })
        .await;
    }
}

async fn acme_domains(leaf: Leaf) {
    let function = named("v1").await;
    let acme = acme().await;
    let config = by_acme(&function.url(), &format!("{}, LEAF", acme.keys()));
    let words = ["domains = [\"a.test\"]", "domains = [\"b.test\"]"];
    let [one, other] = leaf.pair(&config, words[0], words[1]).start().await;
    gets(&one, &acme, "a.test").await;
    gets(&other, &acme, "b.test").await;
}

async fn acme_ca(leaf: Leaf) {
    let function = named("v1").await;
    let (acme, wrong) = (acme().await, authority());
    let config =
        by_acme(&function.url(), &format!("directory = \"{}\", LEAF, domains = [\"a.test\"]", acme.directory()));
    let words = [&wrong, &acme.authority].map(|authority| format!("ca = \"{}\"", authority.ca().display()));
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    gets(&other, &acme, "a.test").await;
    one.says(&["no new certificate", "a.test"]).await;
    assert_eq!(acme.state().orders.len(), 1);
}

async fn tls_profile(leaf: Leaf) {
    let function = named("v1").await;
    let authority = authority();
    let certificate = authority.leaf(&["one.test"]);
    let config = listening(&function.url(), &format!("{ANYWHERE}\ntls = [{}]\nLEAF", certificate.toml()));
    let words = ["tls_profile = \"intermediate\"", "tls_profile = \"modern\""];
    let [one, other] = leaf.pair(&config, words[0], words[1]).start().await;
    let old = authority.caller_with(&[], &[&rustls::version::TLS12]);
    assert!(gets_in(&one, &old).await);
    assert!(!gets_in(&other, &old).await);
    assert!(gets_in(&other, &authority.caller(&[])).await);
}

async fn client_ca(leaf: Leaf) {
    let function = named("v1").await;
    let (authority, partners, others) = (authority(), authority_called("partners"), authority_called("others"));
    let certificate = authority.leaf(&["one.test"]);
    let config = listening(&function.url(), &format!("{ANYWHERE}\ntls = [{}]\nLEAF", certificate.toml()));
    let words = [&partners, &others].map(|callers| format!("client_ca = \"{}\"", callers.ca().display()));
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    let partner = authority.caller(&[]).showing(&partners.client("bank"));
    assert!(gets_in(&one, &partner).await);
    assert!(!gets_in(&other, &partner).await);
}

async fn client_auth(leaf: Leaf) {
    let function = named("v1").await;
    let (authority, partners) = (authority(), authority_called("partners"));
    let certificate = authority.leaf(&["one.test"]);
    let tls = format!("tls = [{}]\nclient_ca = \"{}\"", certificate.toml(), partners.ca().display());
    let config = listening(&function.url(), &format!("{ANYWHERE}\n{tls}\nLEAF"));
    let words = ["client_auth = \"optional\"", "client_auth = \"required\""];
    let [one, other] = leaf.pair(&config, words[0], words[1]).start().await;
    assert!(gets_in(&one, &authority.caller(&[])).await);
    assert!(!gets_in(&other, &authority.caller(&[])).await);
}

async fn proxy_protocol(leaf: Leaf) {
    let function = named("v1").await;
    let config = listening(&function.url(), &format!("{ANYWHERE}\nproxy_protocol = {{ LEAF }}"));
    let [one, other] = leaf.pair(&config, "from = [\"127.0.0.1\"]", "from = [\"127.0.0.2\"]").start().await;
    for (gateway, status) in [(&one, "HTTP/1.1 200 "), (&other, "HTTP/1.1 400 ")] {
        let said = gateway
            .raw("PROXY TCP4 192.0.2.9 192.0.2.1 1 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert!(said.starts_with(status), "{said}");
    }
    assert_eq!(one.log_line().await["client_ip"], "192.0.2.9");
}

async fn h2c(leaf: Leaf) {
    let function = named("v1").await;
    let config = listening(&function.url(), &format!("{ANYWHERE}\nLEAF"));
    let [with, without] = leaf.pair(&config, "h2c = true", "h2c = false").start().await;
    assert_eq!(H2::plain(with.address("in")).await.send("/").await.status, 200);
    assert!(H2::plain(without.address("in")).await.try_send("/").await.is_err());
}

async fn max_connections(leaf: Leaf) {
    let function = named("v1").await;
    let config = listening(&function.url(), &format!("{ANYWHERE}\nLEAF"));
    let [one, other] = leaf.pair(&config, "max_connections = 1", "max_connections = 2").start().await;
    for (gateway, status) in [(one, 503), (other, 200)] {
        let mut first = gateway.connect().await;
        assert_eq!(first.send("/").await.status, 200);
        assert_eq!(gateway.get("/").await.status, status);
    }
}

async fn max_connections_per_ip(leaf: Leaf) {
    let function = named("v1").await;
    let config = listening(&function.url(), &format!("{ANYWHERE}\nLEAF"));
    let [one, other] = leaf.pair(&config, "max_connections_per_ip = 1", "max_connections_per_ip = 2").start().await;
    for (gateway, status) in [(one, 503), (other, 200)] {
        let mut first = gateway.connect().await;
        assert_eq!(first.send("/").await.status, 200);
        assert_eq!(gateway.get("/").await.status, status);
        assert_eq!(gateway.connect_from("127.0.0.2").await.send("/").await.status, 200);
    }
}

async fn min_body_rate(leaf: Leaf) {
    let function = named("v1").await;
    let config = listening(&function.url(), &format!("{ANYWHERE}\ntimeouts = {{ body = \"1s\" }}\nLEAF"));
    let [paced, patient] = leaf.pair(&config, "min_body_rate = \"1KiB/s\"", "min_body_rate = \"off\"").start().await;
    let mut callers = [paced.connect().await, patient.connect().await];
    for caller in &mut callers {
        caller.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    }
    // Neither makes a pause as long as `timeouts.body`.
    let [hasty, patient] = &mut callers;
    let trickle = async {
        loop {
            hasty.write("x").await;
            patient.write("x").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let told = paced.log(1);
    let lines = tokio::select! {
        () = trickle => unreachable!(),
        lines = told => lines,
    };
    assert_eq!(lines[0]["reason"], "request_timeout", "{lines:?}");
    assert!(!callers[1].closes_within(Duration::from_millis(10)).await);
}

/// Both gateposts get the same bytes: the one gives up, and then the other still waits. What the one said.
async fn gives_up(both: [Gateway; 2], bytes: &[u8]) -> String {
    let mut callers = Vec::new();
    // The patient one first.
    for gateway in both.iter().rev() {
        let mut caller = gateway.connect().await;
        caller.write(bytes).await;
        callers.push(caller);
    }
    let said = callers[1].until_closed().await;
    let (_, closed) = callers[0].wire.rest(Duration::from_millis(10)).await;
    assert!(!closed, "the other one gave up as well");
    said
}

const SHORT: &str = "\"400ms\"";
const LONG: &str = "\"60s\"";

async fn hasty(leaf: &Leaf, listener: &str) -> ([Gateway; 2], Origin) {
    let function = named("v1").await;
    let config = listening(&function.url(), &format!("{ANYWHERE}\n{listener}\ntimeouts = {{ LEAF }}"));
    let key = leaf.key();
    let both = leaf.pair(&config, &format!("{key} = {SHORT}"), &format!("{key} = {LONG}")).start().await;
    if listener.is_empty() {
        for gateway in &both {
            assert_eq!(gateway.get("/").await.status, 200);
        }
    }
    (both, function)
}

async fn handshake(leaf: Leaf) {
    let authority = authority();
    let certificate = authority.leaf(&["one.test"]);
    let (both, _function) = hasty(&leaf, &format!("tls = [{}]", certificate.toml())).await;
    assert_eq!(gives_up(both, b"").await, "");
}

async fn header(leaf: Leaf) {
    let (both, _function) = hasty(&leaf, "").await;
    let said = gives_up(both, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow").await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

async fn body(leaf: Leaf) {
    let (both, _function) = hasty(&leaf, "").await;
    let said = gives_up(both, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

async fn idle(leaf: Leaf) {
    let (both, _function) = hasty(&leaf, "").await;
    let said = gives_up(both, &get("/").bytes()).await;
    // It was answered, and the end came without a word.
    assert!(said.starts_with("HTTP/1.1 200 ") && said.matches("HTTP/1.1").count() == 1, "{said}");
    // The same over h2.
    let ([one, other], _function) = hasty(&leaf, "h2c = true").await;
    let (one, other) = (H2::plain(one.address("in")).await, H2::plain(other.address("in")).await);
    for h2 in [&one, &other] {
        let _ = h2.try_send("/").await.unwrap();
    }
    let ends = async {
        while !one.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, ends).await.is_ok(), "an idle h2 connection stays");
    assert!(!other.is_closed());
}

async fn mode(leaf: Leaf) {
    let function = named("v1").await;
    let config = listening(&function.url(), "address = \"unix:@DIR@/in.sock\"\nLEAF");
    let both = leaf.pair(&config, "mode = \"0600\"", "mode = \"0666\"").start().await;
    for (gateway, mode) in both.iter().zip([0o600, 0o666]) {
        let about = std::fs::metadata(gateway.dir().join("in.sock")).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, mode);
    }
}
