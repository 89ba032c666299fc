//! TLS towards callers: whose certificates are believed, what is spoken, and who may come back by a ticket.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use rustls::{
    ProtocolVersion, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::harness::{
    Answer, Connection, Gateway, Origin, authority, eventually, gateway, get,
    h2::H2,
    origin,
    tls::{Agreed, Authority, ClientLeaf, TlsCaller, authority_called},
};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// A gatepost whose listener `in` has these lines, and its function.
async fn listening(listener: &str) -> (Gateway, Origin) {
    listening_with(listener, "", 1).await
}

async fn listening_with(listener: &str, route: &str, workers: usize) -> (Gateway, Origin) {
    let function = origin().echo().start().await;
    let text = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\n{listener}\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n{route}\n",
        function.url()
    );
    (gateway(text).workers(workers).start().await, function)
}

/// The lines of a listener with a certificate, and callers' authority in a file of its own.
fn asking(server: &Authority, callers: &Authority) -> String {
    let leaf = server.leaf(&["one.test"]);
    format!("tls = [{}]\nclient_ca = \"{}\"", leaf.toml(), callers.ca().display())
}

async fn shake(gateway: &Gateway, caller: &TlsCaller) -> std::io::Result<(Connection, Agreed)> {
    shake_at(gateway, "in", caller).await
}

async fn shake_at(gateway: &Gateway, listener: &str, caller: &TlsCaller) -> std::io::Result<(Connection, Agreed)> {
    let tcp = TcpStream::connect(gateway.address(listener)).await?;
    let (stream, agreed) = caller.handshake(tcp, "one.test").await?;
    Ok((Connection::over(stream), agreed))
}

/// A request on a connection of its own. In TLS 1.3 a caller learns that its certificate is refused only when it reads.
async fn ask(gateway: &Gateway, caller: &TlsCaller) -> Option<(Answer, Agreed)> {
    ask_at(gateway, "in", caller).await
}

async fn ask_at(gateway: &Gateway, listener: &str, caller: &TlsCaller) -> Option<(Answer, Agreed)> {
    let (mut connection, agreed) = shake_at(gateway, listener, caller).await.ok()?;
    let answer = connection.try_send(get("/").host("one.test")).await.ok()?;
    Some((answer, agreed))
}

fn header(answer: &Answer, name: &str) -> Vec<String> {
    let echoed = answer.json();
    let all = echoed["headers"].as_array().unwrap();
    let named = all.iter().filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

// Client certificates.

#[tokio::test]
async fn who_must_show_a_certificate_does_not_get_in_without_a_good_one() {
    let (server, callers, others) = (authority(), authority_called("partners"), authority_called("others"));
    let (gateway, _function) = listening(&asking(&server, &callers)).await;
    for version in BOTH {
        let caller = server.caller_with(&["http/1.1"], &[version]);
        let known = caller.showing(&callers.client("bank"));
        assert_eq!(ask(&gateway, &known).await.unwrap().0.status, 200);
        // The same over h2, whose requests share one connection.
        let known = server.caller_with(&["h2"], &[version]).showing(&callers.client("bank"));
        let (h2, _) = H2::tls(gateway.address("in"), &known, "one.test").await;
        assert_eq!(h2.send(get("/").host("one.test")).await.status, 200);

        let expired = callers.client_with("bank", |p| p.not_after = rcgen::date_time_ymd(2020, 1, 1));
        let not_yet = callers.client_with("bank", |p| p.not_before = rcgen::date_time_ymd(2120, 1, 1));
        let server_only =
            callers.client_with("bank", |p| p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
        for (leaf, why) in [
            (&others.client("bank"), "another authority's"),
            (&expired, "expired"),
            (&not_yet, "not valid yet"),
            (&server_only, "not for callers"),
        ] {
            assert!(ask(&gateway, &caller.showing(leaf)).await.is_none(), "{why}");
        }
        assert!(ask(&gateway, &caller).await.is_none(), "no certificate");
    }
    gateway.counts("gatepost_connections_total", &[("result", "handshake_failed")], 10.0).await;
}

#[tokio::test]
async fn where_it_is_optional_nobody_is_let_in_as_well_but_a_wrong_one_is_not() {
    let (server, callers, others) = (authority(), authority_called("partners"), authority_called("others"));
    let lines = format!("{}\nclient_auth = \"optional\"", asking(&server, &callers));
    let (gateway, _function) = listening(&lines).await;
    for version in BOTH {
        let caller = server.caller_with(&["http/1.1"], &[version]);
        assert_eq!(ask(&gateway, &caller).await.unwrap().0.status, 200);
        assert_eq!(ask(&gateway, &caller.showing(&callers.client("bank"))).await.unwrap().0.status, 200);
        assert!(ask(&gateway, &caller.showing(&others.client("bank"))).await.is_none());
    }
}

/// RFC 9440: the function that asks is told, in a form that nobody else can forge; every other one is told nothing.
#[tokio::test]
async fn the_certificate_is_forwarded_where_the_route_says_so_and_never_believed_from_a_caller() {
    let (server, callers) = (authority(), authority_called("partners"));
    let lines = format!("{}\nclient_auth = \"optional\"", asking(&server, &callers));
    let (telling, _function) = listening_with(&lines, "forward_client_cert = true", 1).await;
    let (silent, _function) = listening(&lines).await;
    let bank = callers.client("bank");
    let forged = || get("/").host("one.test").header("Client-Cert", ":Zm9yZ2Vk:").header("client-cert-chain", ":YQ==:");
    let nobody = server.caller(&["http/1.1"]);
    let known = nobody.showing(&bank);
    for (gateway, caller, tells) in
        [(&telling, &known, true), (&telling, &nobody, false), (&silent, &known, false), (&silent, &nobody, false)]
    {
        let (mut connection, _) = shake(gateway, caller).await.unwrap();
        for _ in 0..2 {
            let answer = connection.send(forged()).await;
            let wanted = if tells { vec![rfc_9440(&bank)] } else { vec![] };
            assert_eq!(header(&answer, "client-cert"), wanted);
            assert!(header(&answer, "client-cert-chain").is_empty());
        }
    }
    let (h2, _) = H2::tls(telling.address("in"), &server.caller(&["h2"]).showing(&bank), "one.test").await;
    assert_eq!(header(&h2.send(forged()).await, "client-cert"), [rfc_9440(&bank)]);
    assert_eq!(header(&h2.send(forged()).await, "client-cert"), [rfc_9440(&bank)]);
}

fn rfc_9440(leaf: &ClientLeaf) -> String {
    let base64: String = leaf.pem.lines().filter(|line| !line.starts_with("-----")).collect();
    format!(":{}:", base64.replace('\r', ""))
}

/// A caller whose authority was taken away does not stay because it happens to be connected, nor does it come back by a
/// ticket from before.
#[tokio::test]
async fn a_changed_authority_ends_connections_and_voids_tickets() {
    for version in BOTH {
        let (server, callers, others) = (authority(), authority_called("partners"), authority_called("others"));
        let (gateway, _function) = listening(&asking(&server, &callers)).await;
        let caller = server.caller_with(&["http/1.1"], &[version]).showing(&callers.client("bank"));
        // Three handshakes before the first ticket is read: the caller has several, each good for once.
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(shake(&gateway, &caller).await.unwrap().0);
        }
        for connection in &mut kept {
            assert_eq!(connection.send(get("/").host("one.test")).await.status, 200);
        }
        assert!(ask(&gateway, &caller).await.unwrap().1.resumed);

        // The file's content alone: it is followed.
        std::fs::rename(others.ca(), callers.ca()).unwrap();
        gateway.says(&["generation 1 applied", "certificate"]).await;
        for connection in &mut kept {
            assert_eq!(connection.until_closed().await, "");
        }
        assert!(ask(&gateway, &caller).await.is_none(), "a ticket of the old trust is taken");
        let other = server.caller_with(&["http/1.1"], &[version]).showing(&others.client("other"));
        assert_eq!(ask(&gateway, &other).await.unwrap().0.status, 200);
        // What was voided stays void, whoever is believed next.
        callers.ca();
        let back = eventually("the first authority is believed again", async || ask(&gateway, &caller).await).await;
        assert!(!back.1.resumed);
    }
}

#[tokio::test]
async fn who_came_without_a_certificate_does_not_stay_once_it_is_required() {
    for version in BOTH {
        let (server, callers) = (authority(), authority_called("partners"));
        let lines = format!("{}\nclient_auth = \"optional\"", asking(&server, &callers));
        let (gateway, _function) = listening(&lines).await;
        let nobody = server.caller_with(&["http/1.1"], &[version]);
        let (mut kept, _) = shake(&gateway, &nobody).await.unwrap();
        assert_eq!(kept.send(get("/").host("one.test")).await.status, 200);
        assert!(ask(&gateway, &nobody).await.unwrap().1.resumed);
        gateway.swap("client_auth = \"optional\"", "client_auth = \"required\"").await;
        assert_eq!(kept.until_closed().await, "");
        assert!(ask(&gateway, &nobody).await.is_none());
    }
}

// Resumption.

#[tokio::test]
async fn a_caller_comes_back_to_any_worker_and_behind_a_reload() {
    for version in BOTH {
        let (server, callers) = (authority(), authority_called("partners"));
        let (gateway, _function) = listening_with(&asking(&server, &callers), "forward_client_cert = true", 2).await;
        let bank = callers.client("bank");
        let caller = server.caller_with(&["http/1.1"], &[version]).showing(&bank);
        assert!(!ask(&gateway, &caller).await.unwrap().1.resumed);
        // Connections go to the worker with the fewest: two that stay are one on each.
        let mut open = Vec::new();
        for _ in 0..4 {
            let (mut connection, agreed) = shake(&gateway, &caller).await.unwrap();
            assert!(agreed.resumed, "{version:?}");
            let answer = connection.send(get("/").host("one.test")).await;
            // Who it is was not lost on the way.
            assert_eq!(header(&answer, "client-cert"), [rfc_9440(&bank)]);
            open.push(connection);
        }
        // A reload that touches the listener, but not whom it believes.
        gateway.swap("client_ca", "max_connections = 50\nclient_ca").await;
        let (answer, agreed) = ask(&gateway, &caller).await.unwrap();
        assert!(agreed.resumed, "{version:?} after a reload");
        assert_eq!(header(&answer, "client-cert"), [rfc_9440(&bank)]);
        for mut connection in open {
            assert_eq!(connection.send(get("/").host("one.test")).await.status, 200);
        }
    }
}

/// One listener asks for certificates, its neighbour (with the same certificate) does not, a third believes somebody
/// else: a session that began at one means nothing at another.
#[tokio::test]
async fn a_ticket_is_good_at_the_listener_that_gave_it_alone() {
    let (server, callers, others) = (authority(), authority_called("partners"), authority_called("others"));
    let leaf = server.leaf(&["one.test"]);
    let function = origin().echo().start().await;
    let listener = |name: &str, ca: Option<&Authority>| {
        let ca = ca.map_or_else(String::new, |ca| format!("client_ca = \"{}\"\n", ca.ca().display()));
        format!("[listener.{name}]\naddress = \"127.0.0.1:0\"\ntls = [{}]\n{ca}", leaf.toml())
    };
    let text = format!(
        "{}{}{}{}[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        listener("open", None),
        listener("in", Some(&callers)),
        listener("same", Some(&callers)),
        listener("other", Some(&others)),
        function.url()
    );
    let gateway = gateway(text).workers(1).start().await;
    for version in BOTH {
        // Shows its certificate at the first, which asks for none: its tickets are all that it has there.
        let caller = server.caller_with(&["http/1.1"], &[version]);
        assert!(!ask_at(&gateway, "open", &caller).await.unwrap().1.resumed);
        assert!(ask_at(&gateway, "open", &caller).await.unwrap().1.resumed);
        assert!(ask_at(&gateway, "in", &caller).await.is_none(), "let in without a certificate");

        let caller = caller.showing(&callers.client("bank"));
        assert!(!ask_at(&gateway, "in", &caller).await.unwrap().1.resumed);
        assert!(ask_at(&gateway, "in", &caller).await.unwrap().1.resumed);
        assert!(ask_at(&gateway, "other", &caller).await.is_none(), "known by another's authority");
        // Even where both believe the same, it is another listener.
        assert!(!ask_at(&gateway, "same", &caller).await.unwrap().1.resumed);
    }
}

/// OpenSSL's own client, which is most callers' library: known by its certificate, and back by its ticket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_is_known_and_comes_back() {
    let (server, callers) = (authority(), authority_called("partners"));
    let (gateway, _function) = listening_with(&asking(&server, &callers), "forward_client_cert = true", 2).await;
    let bank = callers.client("bank");
    let dir = gateway.dir();
    std::fs::write(dir.join("bank.pem"), &bank.pem).unwrap();
    std::fs::write(dir.join("bank.key"), &bank.key_pem).unwrap();
    for version in ["-tls1_3", "-tls1_2"] {
        let connects = |more: &[&str]| {
            let mut openssl = Command::new("openssl")
                .args(["s_client", "-ign_eof", "-verify_return_error", version, "-servername", "one.test", "-connect"])
                .arg(gateway.address("in").to_string())
                .arg("-CAfile")
                .arg(server.ca())
                .args(more)
                .current_dir(dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl is installed");
            let request = b"GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";
            // It may be refused before it has sent anything, and what it says is what counts.
            let _ = openssl.stdin.take().unwrap().write_all(request);
            String::from_utf8_lossy(&openssl.wait_with_output().unwrap().stdout).into_owned()
        };
        let shows = ["-cert", "bank.pem", "-key", "bank.key"];
        let said = connects(&[&shows[..], &["-sess_out", "session"]].concat());
        assert!(said.contains("New, TLSv1.") && said.contains("HTTP/1.1 200 "), "{version}: {said}");
        // A session of its own is proof enough; the certificate isn't shown again.
        let said = connects(&["-sess_in", "session"]);
        assert!(said.contains("Reused, TLSv1.") && said.contains("HTTP/1.1 200 "), "{version}: {said}");
        assert!(said.contains(&rfc_9440(&bank)), "{version}: {said}");
        let said = connects(&[]);
        assert!(!said.contains("HTTP/1.1"), "{version}: {said}");
    }
}

// Profiles.

#[tokio::test]
async fn modern_is_tls_1_3_alone_and_intermediate_takes_1_2_with_forward_secrecy() {
    let server = authority();
    let leaf = server.leaf(&["one.test"]);
    let lines = format!("tls = [{}]\ntls_profile = \"modern\"", leaf.toml());
    let (gateway, _function) = listening(&lines).await;
    let speaks = async |version| {
        let caller = server.caller_with(&["http/1.1"], &[version]);
        ask(&gateway, &caller).await.map(|(_, agreed)| agreed.version)
    };
    assert_eq!(speaks(&TLS13).await, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(speaks(&TLS12).await, None);
    gateway.swap("\"modern\"", "\"intermediate\"").await;
    assert_eq!(speaks(&TLS12).await, Some(ProtocolVersion::TLSv1_2));
    gateway.swap("\"intermediate\"", "\"modern\"").await;
    assert_eq!(speaks(&TLS12).await, None);
    assert_eq!(speaks(&TLS13).await, Some(ProtocolVersion::TLSv1_3));
}

/// The numbers are there from the start, and those that are about to end are told of.
#[tokio::test]
async fn a_certificate_that_is_about_to_expire_is_told_of() {
    let server = authority();
    let soon = SystemTime::now() + Duration::from_secs(5 * 86_400);
    let leaf = server.leaf_until(&["soon.test"], soon);
    let (gateway, _function) = listening(&format!("tls = [{}]", leaf.toml())).await;
    let labels = [("listener", "in"), ("name", "soon.test")];
    let left = gateway.metrics().await.sum("gatepost_certificate_expiry_seconds", &labels) - now();
    assert!((4.0 * DAY..=5.0 * DAY).contains(&left), "{left}");
    gateway.says(&["soon.test", "expires"]).await;
    let status: Value = gateway.ask_admin("/api/v1/status").await.json();
    let shown = &status["certificates"][0];
    assert_eq!((&shown["listener"], &shown["name"]), (&"in".into(), &"soon.test".into()));
    assert!(shown["problem"].as_str().unwrap().contains("expires"), "{status}");
}

const DAY: f64 = 86_400.0;

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}
