//! `[egress]`, its sources and rules.

use std::{net::SocketAddr, process::Command, time::Duration};

use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::{
    Proof,
    leaf::{Leaf, Way},
    table,
};
use crate::harness::{
    Gateway,
    dns::Dns,
    eventually,
    gateway::log_lines,
    proxy::{Destination, echo, echo_on_443, mirror},
    when,
};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("log.egress", log_egress),
        ("egress.mode = enforce", mode),
        ("egress.mode = report", mode),
        ("egress.deny_message", deny_message),
        ("egress.on_revoke = keep", on_revoke),
        ("egress.on_revoke = close", on_revoke),
        ("egress.timeouts.connect", connect),
        ("egress.timeouts.tls_name", hello_in_time),
        ("egress.timeouts.first_byte", first_byte),
        ("egress.timeouts.idle", idle),
        ("egress.timeouts.total", idle),
        ("egress.fair_share", fair_share),
        ("egress.resolver.servers", servers),
        ("egress.resolver.timeout", patience_with_servers),
        ("egress.source.*.bind", bind),
        ("egress.source.*.bind[]", bind),
        ("egress.source.*.public", public),
        ("egress.source.*.public[]", public),
        ("egress.source.*.check.url", check_url),
        ("egress.source.*.check.every", check_every),
        ("egress.source.*.check.ca", check_ca),
        ("egress.rule.*.clients", clients),
        ("egress.rule.*.to", to),
        ("egress.rule.*.source", source),
        ("egress.rule.*.private", private),
        ("egress.rule.*.limits.tunnels", tunnels),
        ("egress.rule.*.limits.rate", rate),
        ("egress.rule.*.limits.burst", burst),
        ("egress.rule.*.limits.bandwidth", bandwidth),
        ("egress.rule.*.mode = enforce", rules_mode),
        ("egress.rule.*.mode = report", rules_mode),
        ("egress.rule.*.mixed_answers = deny", mixed_answers),
        ("egress.rule.*.mixed_answers = drop", mixed_answers),
        ("egress.rule.*.tls_name = match", tls_name),
        ("egress.rule.*.tls_name = any", tls_name),
        ("egress.rule.*.timeouts.connect", connect),
        ("egress.rule.*.timeouts.idle", idle),
        ("egress.rule.*.timeouts.total", idle),
    ]
}

/// A way out with these keys of `[egress]`, and a rule that takes `fn` to `to` on loopback with these lines.
pub(super) fn out(egress: &str, to: &str, rule: &str) -> String {
    format!(
        "[client.fn]\nnetworks = [\"127.0.0.1\"]\n[client.two]\nnetworks = [\"127.0.0.2\"]\n[egress]\n{egress}\n\
         [egress.listener.out]\naddress = \"127.0.0.1:0\"\n\
         [egress.rule.r]\nto = [{to}]\nprivate = [\"127.0.0.0/8\"]\n{rule}\n"
    )
}

pub(super) const FN: &str = "clients = [\"fn\"]\n";

/// Where the leaf stands: in `[egress]`, or in the rule.
fn either(leaf: &Leaf, to: &str, keys: &str) -> String {
    match leaf.name.starts_with("egress.rule.") {
        true => out("", to, &format!("{FN}{keys}")),
        false => out(keys, to, FN),
    }
}

pub(super) async fn far() -> (Destination, String) {
    let far = echo("127.0.0.9:0").await;
    let to = far.address.to_string();
    (far, to)
}

/// What a tunnel there is answered with: status and reason.
pub(super) async fn says(gateway: &Gateway, to: &str) -> (u16, String) {
    let (_, said) = gateway.tunnel(to).await;
    let body: Value = serde_json::from_str(&said.body).unwrap_or_default();
    (said.status, body["reason"].as_str().unwrap_or_default().to_owned())
}

pub(super) fn is(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

async fn mode(leaf: Leaf) {
    let config = out("LEAF", "\"127.0.0.9:1\"", FN);
    let [enforce, report] = leaf.pair(&config, "mode = \"enforce\"", "mode = \"report\"").start().await;
    // What nobody listed goes on, and comes as far as its address.
    assert_eq!(says(&enforce, "127.0.0.9:2").await, is(403, "destination_not_allowed"));
    assert_eq!(says(&report, "127.0.0.9:2").await, is(403, "address_not_allowed"));
    assert_eq!(report.log_line().await["would_refuse"], "destination_not_allowed");
}

/// In a place of their own, or among the others; what is there already stays.
async fn log_egress(leaf: Leaf) {
    let (_far, to) = far().await;
    let config = format!("[log]\nLEAF\n{}", out("", &format!("{to:?}"), FN));
    let words = ["egress = \"@DIR@/one.log\"", "egress = \"@DIR@/other.log\""];
    let [one, other] = leaf.pair(&config, words[0], words[1]).start().await;
    let lines = |gateway: &Gateway, name: &str| log_lines(&gateway.dir().join(name)).len();
    for (gateway, here, there) in [(&one, "one.log", "other.log"), (&other, "other.log", "one.log")] {
        assert_eq!(says(gateway, "127.0.0.9:1").await.0, 403);
        assert_eq!(gateway.get("/").await.status, 404);
        eventually("the line", async || when(lines(gateway, here) == 1)).await;
        assert_eq!((gateway.log(1).await.len(), lines(gateway, there)), (1, 0));
    }
    // A tunnel that began before the place was changed is told in the new one.
    let held = one.opened(&to).await;
    one.swap("egress = ", "# egress = ").await;
    drop(held);
    eventually("the tunnel's line", async || when(lines(&one, "access.log") == 2)).await;
    one.swap("# egress = ", "egress = ").await;
    one.swap(&format!("egress = \"{}/one.log\"", one.dir().display()), "egress = \"off\"").await;
    assert_eq!(says(&one, "127.0.0.9:1").await.0, 403);
    one.swap("egress = \"off\"", "").await;
    assert_eq!(says(&one, "127.0.0.9:1").await.0, 403);
    eventually("the next line", async || when(lines(&one, "access.log") == 3)).await;
    assert_eq!(lines(&one, "one.log"), 1);
}

async fn deny_message(leaf: Leaf) {
    let config = out("LEAF", "\"127.0.0.9:1\"", FN);
    let words = ["deny_message = \"ask the one\"", "deny_message = \"ask the other\""];
    let both = leaf.pair(&config, words[0], words[1]).start().await;
    for (gateway, message) in both.iter().zip(["ask the one", "ask the other"]) {
        let (_, said) = gateway.tunnel("127.0.0.9:2").await;
        assert!(said.body.contains(message), "{said:?}");
    }
}

async fn on_revoke(leaf: Leaf) {
    let (_far, to) = far().await;
    let config = out("LEAF", &format!("{to:?}, \"127.0.0.9:1\""), FN);
    let [keep, close] = leaf.pair(&config, "on_revoke = \"keep\"", "on_revoke = \"close\"").start().await;
    let (mut kept, mut closed) = (keep.opened(&to).await, close.opened(&to).await);
    for gateway in [&keep, &close] {
        gateway.swap(&format!("{to:?}, "), "").await;
    }
    assert_eq!(closed.rest().await, "");
    assert_eq!(kept.echoes("still").await, "still");
}

/// A port whose queue is full: whoever dials it waits.
struct Full {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Full {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // On loopback who is taken is taken at once.
        while let Ok(stream) = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
            waiting.push(stream.unwrap());
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

const SHORT: &str = "\"400ms\"";
const LONG: &str = "\"50s\"";

fn hasty(key: &str) -> [String; 2] {
    [SHORT, LONG].map(|time| format!("timeouts = {{ {key} = {time} }}"))
}

async fn connect(leaf: Leaf) {
    let full = Full::new().await;
    let to = full.address.to_string();
    let config = either(&leaf, &format!("{to:?}"), "LEAF");
    let words = hasty("connect");
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    let mut patient = other.client("127.0.0.1").await;
    patient.say(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await;
    assert_eq!(says(&one, &to).await.1, "upstream_timeout");
    assert!(patient.is_silent().await, "the other one gave up as well");
}

/// An address with port 443 that nobody else has.
async fn tls_destination(leaf: &Leaf, n: u8) -> (Option<Destination>, String, Dns) {
    let ip = format!("127.0.{n}.{}", if leaf.way == Way::Start { 1 } else { 2 });
    let dns = Dns::start().await;
    dns.answer("far.test", &[&ip], 60);
    (echo_on_443(&ip).await, format!("resolver = {{ servers = [\"{}\"] }}", dns.address()), dns)
}

async fn hello_in_time(leaf: Leaf) {
    let (far, resolver, _dns) = tls_destination(&leaf, 101).await;
    let config = out(&format!("{resolver}\nLEAF"), "\"far.test\"", FN);
    let words = hasty("tls_name");
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    // Where this user may not have the port, the configs are compared, and that is all.
    let Some(_far) = far else { return };
    let mut patient = other.opened("far.test:443").await;
    let mut hasty = one.opened("far.test:443").await;
    hasty.say([22]).await;
    patient.say([22]).await;
    assert_eq!(hasty.rest().await, "");
    assert_eq!(one.log_line().await["reason"], "server_name_mismatch");
    assert!(patient.is_silent().await, "the other one gave up as well");
}

async fn first_byte(leaf: Leaf) {
    let silent = TcpListener::bind("127.0.0.9:0").await.unwrap();
    let to = silent.local_addr().unwrap().to_string();
    let config = out("LEAF", &format!("{to:?}"), FN);
    let words = hasty("first_byte");
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    let request = format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let mut patient = other.client("127.0.0.1").await;
    patient.say(&request).await;
    let said = one.client("127.0.0.1").await.ask(&request).await;
    said.is(504, "upstream_timeout");
    assert!(patient.is_silent().await, "the other one gave up as well");
}

/// The tunnel of the one ends though neither side ended it; that of the other goes on.
async fn idle(leaf: Leaf) {
    let (_far, to) = far().await;
    let config = either(&leaf, &format!("{to:?}"), "LEAF");
    let words = hasty(leaf.key());
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    let mut patient = other.opened(&to).await;
    let mut hasty = one.opened(&to).await;
    assert_eq!(hasty.rest().await, "");
    assert_eq!(one.log_line().await["ended"], leaf.key());
    assert_eq!(patient.echoes("still").await, "still");
}

async fn servers(leaf: Leaf) {
    let (one_far, other_far) = (echo("127.0.0.9:0").await, mirror("127.0.0.9:0").await);
    let (one_dns, other_dns) = (Dns::start().await, Dns::start().await);
    one_dns.answer("far.test", &["127.0.0.9"], 60);
    let to = format!("far.test:{}", one_far.port());
    let config = out("resolver = { LEAF }", &format!("{to:?}"), FN);
    let words = [&one_dns, &other_dns].map(|dns| format!("servers = [\"{}\"]", dns.address()));
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    assert_eq!(says(&one, &to).await.0, 200);
    assert_eq!(says(&other, &to).await, is(502, "name_not_resolved"));
    assert_eq!(other_far.accepted(), 0);
}

async fn patience_with_servers(leaf: Leaf) {
    let dns = Dns::start().await;
    dns.fall_silent("far.test");
    let config = out(&format!("resolver = {{ servers = [\"{}\"], LEAF }}", dns.address()), "\"far.test:9\"", FN);
    let words = [SHORT, LONG].map(|time| format!("timeout = {time}"));
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    let mut patient = other.client("127.0.0.1").await;
    patient.say("CONNECT far.test:9 HTTP/1.1\r\nHost: far.test:9\r\n\r\n").await;
    assert_eq!(says(&one, "far.test:9").await, is(502, "name_not_resolved"));
    assert!(patient.is_silent().await, "the other one gave up as well");
}

/// The address that a destination sees.
async fn seen(gateway: &Gateway, to: &str) -> String {
    let mut client = gateway.opened(to).await;
    client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body
}

async fn bind(leaf: Leaf) {
    let far = mirror("127.0.0.9:0").await;
    let to = far.address.to_string();
    let config = out("", &format!("{to:?}"), &format!("{FN}source = \"s\"\n[egress.source.s]\nLEAF"));
    let word = |ip: &str| match leaf.name.ends_with("[]") {
        true => format!("bind = [\"{ip}\"]"),
        false => format!("bind = \"{ip}\""),
    };
    let [one, other] = leaf.pair(&config, &word("127.0.0.51"), &word("127.0.0.52")).start().await;
    assert_eq!([seen(&one, &to).await, seen(&other, &to).await], ["127.0.0.51", "127.0.0.52"]);
}

/// What partners are told; and nobody is sent there on a port of gatepost's.
async fn public(leaf: Leaf) {
    let rule = format!("{FN}source = \"s\"\n[egress.source.s]\nbind = \"127.0.0.51\"\nLEAF");
    let config = out("timeouts = { connect = \"300ms\" }", "\"127.0.0.61:1\", \"127.0.0.62:1\"", &rule);
    let word = |ip: &str| match leaf.name.ends_with("[]") {
        true => format!("public = [\"{ip}\"]"),
        false => format!("public = \"{ip}\""),
    };
    let both = leaf.pair(&config, &word("127.0.0.61"), &word("127.0.0.62")).start().await;
    for (gateway, (public, other)) in both.iter().zip([("127.0.0.61", "127.0.0.62"), ("127.0.0.62", "127.0.0.61")]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        let config = gateway.dir().join("gatepost.toml");
        let told = command.args(["egress", "addresses", "--json", "--config"]).arg(config).output().unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|e| panic!("{e}: {told:?}"));
        assert_eq!(told["addresses"][0]["public"], public);
        let port = gateway.address("egress.out").port();
        gateway.swap(".61:1\", \"127.0.0.62:1\"", &format!(".61:{port}\", \"127.0.0.62:{port}\"")).await;
        assert_eq!(says(gateway, &format!("{public}:{port}")).await, is(403, "address_not_allowed"));
        assert_eq!(says(gateway, &format!("{other}:{port}")).await, is(502, "upstream_unreachable"));
    }
}

async fn clients(leaf: Leaf) {
    let (_far, to) = far().await;
    let config = out("", &format!("{to:?}"), "LEAF");
    let [one, other] = leaf.pair(&config, "clients = [\"fn\"]", "clients = [\"two\"]").start().await;
    assert_eq!(says(&one, &to).await.0, 200);
    assert_eq!(says(&other, &to).await, is(403, "forbidden_client"));
}

async fn to(leaf: Leaf) {
    let (_far, to) = far().await;
    let config = format!(
        "[client.fn]\nnetworks = [\"127.0.0.1\"]\n[egress.listener.out]\naddress = \"127.0.0.1:0\"\n\
         [egress.rule.r]\n{FN}private = [\"127.0.0.0/8\"]\nLEAF\n"
    );
    let words = [format!("to = [{to:?}]"), "to = [\"127.0.0.9:1\"]".to_owned()];
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    assert_eq!(says(&one, &to).await.0, 200);
    assert_eq!(says(&other, &to).await, is(403, "destination_not_allowed"));
}

async fn source(leaf: Leaf) {
    let far = mirror("127.0.0.9:0").await;
    let to = far.address.to_string();
    let sources = "[egress.source.a]\nbind = \"127.0.0.51\"\n[egress.source.b]\nbind = \"127.0.0.52\"";
    let config = out("", &format!("{to:?}"), &format!("{FN}LEAF\n{sources}"));
    let [one, other] = leaf.pair(&config, "source = \"a\"", "source = \"b\"").start().await;
    assert_eq!([seen(&one, &to).await, seen(&other, &to).await], ["127.0.0.51", "127.0.0.52"]);
}

async fn private(leaf: Leaf) {
    let far = echo("127.0.0.9:0").await;
    let dns = Dns::start().await;
    dns.answer("far.test", &["127.0.0.9"], 60);
    let to = format!("far.test:{}", far.port());
    let resolver = format!("resolver = {{ servers = [\"{}\"] }}", dns.address());
    let config = out(&resolver, &format!("{to:?}"), FN).replace("private = [\"127.0.0.0/8\"]", "LEAF");
    let words = ["private = [\"127.0.0.0/8\"]", "private = [\"10.0.0.0/8\"]"];
    let [one, other] = leaf.pair(&config, words[0], words[1]).start().await;
    assert_eq!(says(&one, &to).await.0, 200);
    assert_eq!(says(&other, &to).await, is(403, "address_not_allowed"));
    assert_eq!(far.accepted(), 1);
}

/// The second of two tunnels is refused by the one, and stands with the other.
async fn second(leaf: &Leaf, limits: &str, words: [&str; 2], reason: &str) {
    let (_far, to) = far().await;
    let config = out("", &format!("{to:?}"), &format!("{FN}limits = {{ {limits}LEAF }}"));
    let [one, other] = leaf.pair(&config, words[0], words[1]).start().await;
    let _held = [one.opened(&to).await, other.opened(&to).await];
    assert_eq!(says(&one, &to).await, is(429, reason));
    assert_eq!(says(&other, &to).await.0, 200);
}

async fn tunnels(leaf: Leaf) {
    second(&leaf, "", ["tunnels = 1", "tunnels = 2"], "tunnels_exhausted").await;
}

async fn rate(leaf: Leaf) {
    second(&leaf, "", ["rate = \"1/h\"", "rate = \"1000/s\""], "rate_limited").await;
}

async fn burst(leaf: Leaf) {
    second(&leaf, "rate = \"1/h\", ", ["burst = 1", "burst = 2"], "rate_limited").await;
}

/// What the one has through, the other has hardly begun.
async fn bandwidth(leaf: Leaf) {
    const ALL: usize = 1 << 20;
    let ((fast_far, fast_to), (slow_far, slow_to)) = (far().await, far().await);
    let config = out("", &format!("{fast_to:?}, {slow_to:?}"), &format!("{FN}limits = {{ LEAF }}"));
    let [fast, slow] = leaf.pair(&config, "bandwidth = \"1GiB/s\"", "bandwidth = \"4KiB/s\"").start().await;
    let mut writers = Vec::new();
    for (gateway, to) in [(&slow, &slow_to), (&fast, &fast_to)] {
        let (mut read, mut write) = gateway.opened(to).await.0.into_split();
        writers.push(tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await.map(drop) }));
        writers.push(tokio::spawn(async move { write.write_all(&[b'x'; ALL]).await }));
    }
    eventually("all through", async || when(fast_far.bytes() == ALL)).await;
    assert!(slow_far.bytes() < ALL, "the other is as fast");
    writers.iter().for_each(|writer| writer.abort());
}

async fn rules_mode(leaf: Leaf) {
    let (_far, to) = far().await;
    let config = out("", &format!("{to:?}"), &format!("{FN}LEAF"));
    let [enforce, report] = leaf.pair(&config, "mode = \"enforce\"", "mode = \"report\"").start().await;
    for gateway in [&enforce, &report] {
        drop(gateway.opened(&to).await);
    }
    assert_eq!(enforce.log_line().await.get("would_refuse"), None);
    assert_eq!(report.log_line().await["would_refuse"], "destination_not_allowed");
}

async fn mixed_answers(leaf: Leaf) {
    let far = echo("127.0.0.9:0").await;
    let dns = Dns::start().await;
    dns.answer("far.test", &["10.0.0.5", "127.0.0.9"], 60);
    let to = format!("far.test:{}", far.port());
    let resolver = format!("resolver = {{ servers = [\"{}\"] }}", dns.address());
    let config = out(&resolver, &format!("{to:?}"), &format!("{FN}LEAF"));
    let [deny, drops] = leaf.pair(&config, "mixed_answers = \"deny\"", "mixed_answers = \"drop\"").start().await;
    assert_eq!(says(&deny, &to).await, is(403, "address_not_allowed"));
    assert_eq!(says(&drops, &to).await.0, 200);
}

async fn tls_name(leaf: Leaf) {
    let word = if leaf.name.ends_with("any") { 103 } else { 102 };
    let (far, resolver, _dns) = tls_destination(&leaf, word).await;
    let config = out(&resolver, "\"far.test\"", &format!("{FN}LEAF"));
    let [matches, any] = leaf.pair(&config, "tls_name = \"match\"", "tls_name = \"any\"").start().await;
    let Some(_far) = far else { return };
    let mut refused = matches.opened("far.test:443").await;
    refused.say("no TLS").await;
    assert_eq!(refused.rest().await, "");
    assert_eq!(any.opened("far.test:443").await.echoes("no TLS").await, "no TLS");
}

/// Six connections of ten: the one refuses what the other still gives.
async fn fair_share(leaf: Leaf) {
    let (_far, to) = far().await;
    let config = out("LEAF", &format!("{to:?}"), FN)
        .replace("address = \"127.0.0.1:0\"", "address = \"127.0.0.1:0\"\nmax_connections = 10");
    let [half, whole] = leaf.pair(&config, "fair_share = 50", "fair_share = 100").start().await;
    let mut held = Vec::new();
    for gateway in [&half, &whole] {
        for _ in 0..5 {
            held.push(gateway.opened(&to).await);
        }
    }
    assert_eq!(says(&half, &to).await, is(429, "tunnels_exhausted"));
    assert_eq!(says(&whole, &to).await.0, 200);
}

/// A source that asks an echo; what it leaves by is what it sees.
fn checked(check: &str) -> String {
    let source = format!("{FN}source = \"s\"\n[egress.source.s]\nbind = \"127.0.0.51\"\ncheck = {{ {check} }}");
    out("", "\"127.0.0.9:1\"", &source)
}

const AGREES: &str = "gatepost_egress_source_agrees";
const CHECKS: &str = "gatepost_egress_source_checks_total";

async fn check_url(leaf: Leaf) {
    let echo = mirror("127.0.0.9:0").await;
    let urls = [format!("url = \"http://{}\"", echo.address), "url = \"http://127.0.0.9:1\"".to_owned()];
    let [one, other] = leaf.pair(&checked("LEAF"), &urls[0], &urls[1]).start().await;
    one.counts(AGREES, &[("source", "s"), ("address", "127.0.0.51")], 1.0).await;
    eventually("a failure", async || when(other.metrics().await.sum(CHECKS, &[("result", "failed")]) > 0.0)).await;
}

async fn check_every(leaf: Leaf) {
    let echo = mirror("127.0.0.9:0").await;
    let config = checked(&format!("url = \"http://{}\", LEAF", echo.address));
    let [often, seldom] = leaf.pair(&config, "every = \"1s\"", "every = \"1h\"").start().await;
    eventually("three answers", async || when(often.metrics().await.sum(CHECKS, &[]) >= 3.0)).await;
    // After a reload it may have begun as the other.
    let count = seldom.metrics().await.sum(CHECKS, &[]);
    assert!((1.0..=2.0).contains(&count), "{count}");
}

async fn check_ca(leaf: Leaf) {
    let (authority, other) = (crate::harness::authority(), crate::harness::authority());
    let certificate = authority.leaf(&["127.0.0.1"]);
    let echo =
        crate::harness::origin().tls(&certificate).answers(|_| crate::harness::Reply::text("127.0.0.51")).start().await;
    let config = checked(&format!("url = \"https://127.0.0.1:{}\", LEAF", echo.port()));
    let words = [&authority, &other].map(|one| format!("ca = \"{}\"", one.ca().display()));
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    one.counts(AGREES, &[("source", "s")], 1.0).await;
    eventually("a failure", async || when(other.metrics().await.sum(CHECKS, &[("result", "failed")]) > 0.0)).await;
}
