//! The 72 hostile inputs of the survey of forward proxies, by number, sent to the real binary by a client whom one rule takes anywhere, and by one
//! whom it takes to partners alone. For each: the answer, that nothing was dialled (on a machine that has every address there is, so that it would
//! be seen), and that no name server was asked where a name was refused. 72 is among what is let through (`reaches_what_it_may`).

use crate::harness::{
    Gateway,
    dns::Dns,
    gateway,
    hosts::where_every_address_is_here,
    proxy::{Everywhere, Said, echo},
};

/// At 127.0.0.1 anything is allowed, at 127.0.0.2 partners alone are.
async fn world() -> (Dns, Gateway) {
    let dns = Dns::start().await;
    for (name, ips) in [
        ("mixed.allowed.test", &["93.184.216.34", "10.0.0.5"][..]),
        ("mixed6.allowed.test", &["93.184.216.34", "::1"]),
        ("chain.allowed.test", &["10.0.0.5"]),
        ("127-0-0-1.allowed.test", &["127.0.0.1"]),
        ("mapped.allowed.test", &["::ffff:10.0.0.1"]),
        ("me.allowed.test", &["127.0.0.1"]),
        ("eip.allowed.test", &["127.0.0.61"]),
        ("localhost", &["127.0.0.1"]),
        ("foo.localhost", &["127.0.0.1"]),
        ("metadata.google.internal", &["169.254.169.254"]),
        ("allowed.test", &["10.9.9.9"]),
    ] {
        dns.answer(name, ips, 60);
    }
    let many: Vec<String> = (0..20).map(|n| format!("93.184.216.{n}")).chain(["10.0.0.1".to_owned()]).collect();
    dns.answer("many.allowed.test", &many.iter().map(String::as_str).collect::<Vec<_>>(), 60);
    dns.fail("broken.allowed.test");
    dns.fall_silent("silent.allowed.test");
    let text = format!(
        r#"
        [server]
        dns = ["{}"]
        [client.anywhere]
        networks = ["127.0.0.1/32"]
        [client.listed]
        networks = ["127.0.0.2/32"]
        [egress]
        resolver = {{ timeout = "400ms" }}
        timeouts = {{ tls_name = "400ms", connect = "400ms" }}
        [egress.listener.out]
        address = "127.0.0.1:0"
        [egress.source.bank]
        bind = "127.0.0.41"
        public = "127.0.0.61"
        [egress.rule.all]
        clients = ["anywhere"]
        to = ["*", "*:80", "0.0.0.0/0", "0.0.0.0/0:80", "::/0", "[::/0]:80"]
        source = "bank"
        [egress.rule.partners]
        clients = ["listed"]
        to = ["allowed.test", "allowed.test:80", "*.allowed.test"]
        source = "bank"
        "#,
        dns.address()
    );
    (dns, gateway(text).workers(1).start().await)
}

async fn say(gate: &Gateway, ip: &str, bytes: &[u8]) -> Said {
    let mut client = gate.client(ip).await;
    client.say(bytes).await;
    client.ask("").await
}

fn connect(target: &[u8]) -> Vec<u8> {
    [b"CONNECT ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat()
}

/// Number, target of CONNECT, and what the client whom all is allowed is told: `address`, `destination`, `bad`, `name`.
const TARGETS: &[(u32, &[u8], &str)] = &[
    (1, b"127.0.0.1:443", "address"),
    (2, b"127.255.255.254:443", "address"),
    (3, b"0.0.0.0:443", "address"),
    (4, b"0.0.0.1:443", "address"),
    (5, b"10.1.2.3:443", "address"),
    (6, b"172.31.255.255:443", "address"),
    (7, b"192.168.0.1:443", "address"),
    (8, b"169.254.169.254:80", "address"),
    (9, b"169.254.0.23:80", "address"),
    (10, b"100.100.100.200:80", "address"),
    (11, b"100.64.0.1:443", "address"),
    (12, b"192.0.0.192:80", "address"),
    (13, b"168.63.129.16:80", "address"),
    (14, b"198.18.0.1:443", "address"),
    (15, b"192.0.2.1:443", "address"),
    (15, b"198.51.100.1:443", "address"),
    (15, b"203.0.113.1:443", "address"),
    (16, b"224.0.0.1:443", "address"),
    (16, b"239.255.255.250:443", "address"),
    (17, b"240.0.0.1:443", "address"),
    (17, b"255.255.255.255:443", "address"),
    (18, b"[::1]:443", "address"),
    (18, b"[::]:443", "address"),
    (19, b"[::ffff:127.0.0.1]:443", "address"),
    (20, b"[::127.0.0.1]:443", "address"),
    (20, b"[::169.254.169.254]:443", "address"),
    (21, b"[::ffff:0:127.0.0.1]:443", "address"),
    (22, b"[64:ff9b::7f00:1]:443", "address"),
    (22, b"[64:ff9b:1::7f00:1]:443", "address"),
    (23, b"[2002:7f00:1::]:443", "address"),
    (24, b"[2001:0:1234::1]:443", "address"),
    (25, b"[fe80::1]:443", "address"),
    (25, b"[fe80::1%25eth0]:443", "address"),
    (26, b"[fc00::1]:443", "address"),
    (26, b"[fd00:ec2::254]:443", "address"),
    (27, b"[fec0::1]:443", "address"),
    (27, b"[ff02::1]:443", "address"),
    (27, b"[100::1]:443", "address"),
    (27, b"[2001:db8::1]:443", "address"),
    (28, b"127.1:443", "destination"),
    (29, b"2130706433:443", "destination"),
    (30, b"0177.0.0.1:443", "destination"),
    (31, b"0x7f.0.0.1:443", "destination"),
    (31, b"0x7f000001:443", "destination"),
    (32, b"127.0.0.1.:443", "destination"),
    (33, "①②⑦.0.0.1:443".as_bytes(), "bad"),
    (33, "127。0。0。1:443".as_bytes(), "bad"),
    (34, b"1.2.3.4.5:443", "destination"),
    (34, b"256.1.1.1:443", "destination"),
    (35, "all\u{ad}owed.test:443".as_bytes(), "bad"),
    (35, "allowed\u{ff0e}test:443".as_bytes(), "bad"),
    (35, b"\xffallowed.test:443", "bad"),
    (36, b"mixed.allowed.test:443", "address"),
    (36, b"mixed6.allowed.test:443", "address"),
    (38, b"chain.allowed.test:443", "address"),
    (39, b"127-0-0-1.allowed.test:443", "address"),
    (40, b"mapped.allowed.test:443", "address"),
    (41, b"empty.allowed.test:443", "name"),
    (41, b"broken.allowed.test:443", "name"),
    (41, b"silent.allowed.test:443", "name"),
    (42, b"many.allowed.test:443", "address"),
    (43, b"localhost:443", "address"),
    (43, b"LOCALHOST.:443", "address"),
    (43, b"foo.localhost:443", "address"),
    (44, b"metadata.google.internal:80", "address"),
    (47, b"allowed.test:22", "destination"),
    (47, b"allowed.test:25", "destination"),
    (47, b"allowed.test:6379", "destination"),
    (47, b"allowed.test:0", "destination"),
    (48, b"allowed.test:65536", "bad"),
    (48, b"allowed.test:65616", "bad"),
    (48, b"allowed.test:-1", "bad"),
    (48, b"allowed.test:+443", "bad"),
    (48, b"allowed.test:0443", "bad"),
    (48, b"allowed.test:https", "bad"),
    (48, b"allowed.test:", "bad"),
    (49, b"allowed.test", "bad"),
    (50, b"user:pw@allowed.test:443", "bad"),
    (51, b"allowed.test:443/path", "bad"),
    (51, b"allowed.test:443?x", "bad"),
    (51, b"allowed.test:443#x", "bad"),
    (52, b"[allowed.test]:443", "bad"),
    (52, b"[[::1]]:443", "bad"),
    (52, b"[127.0.0.1]:443", "bad"),
    (53, b"evil.test,allowed.test:443", "bad"),
    (53, b"evil.test allowed.test:443", "bad"),
    (53, b"evil.test\tallowed.test:443", "bad"),
    (53, b"evil.test\rallowed.test:443", "bad"),
    (53, b"evil.test\nallowed.test:443", "bad"),
    (53, b"evil.test\0allowed.test:443", "bad"),
    (53, b"evil.test\\allowed.test:443", "bad"),
    (56, "\u{430}llowed.test:443".as_bytes(), "bad"),
    (57, b"a..b:443", "destination"),
    (57, b".a:443", "destination"),
    (57, b"-:443", "destination"),
    (58, b"allowed%00.evil.test:443", "destination"),
    (58, b"allowed%2eevil.test:443", "destination"),
];

/// To whom partners alone are listed, these are refused for their name, whatever it leads to.
const LOOKALIKES: [(u32, &str); 6] = [
    (54, "allowed.evil.test:443"),
    (54, "evilallowed.test:443"),
    (54, "allowed.test.evil.test:443"),
    (55, "a.allowed.test.evil.test:443"),
    (47, "allowed.test:22"),
    (47, "x.allowed.test:80"),
];

fn told(word: &str) -> (u16, &'static str) {
    match word {
        "address" => (403, "address_not_allowed"),
        "destination" => (403, "destination_not_allowed"),
        "bad" => (400, "bad_request"),
        "name" => (502, "name_not_resolved"),
        other => panic!("{other}"),
    }
}

/// Of those that anything is asked for at.
const PORTS: [u16; 6] = [443, 80, 22, 25, 6379, 8081];

#[test]
fn targets_are_refused_and_nothing_is_dialled() {
    where_every_address_is_here(targets);
}

async fn targets() {
    let far = Everywhere::start(&PORTS);
    let (dns, gate) = world().await;
    let long = format!("{}.test:443", "a".repeat(64));
    let longer = format!("{}test:443", "abcdefgh.".repeat(28));
    let own = gate.address("egress.out").port();
    let numbered: Vec<(u32, Vec<u8>, &str)> = TARGETS
        .iter()
        .map(|(number, target, word)| (*number, target.to_vec(), *word))
        .chain([(57, long.into_bytes(), "destination"), (57, longer.into_bytes(), "destination")])
        .collect();
    let mut count = 0;
    for (number, target, word) in &numbered {
        let shown = target.escape_ascii();
        let (status, reason) = told(word);
        let said = say(&gate, "127.0.0.1", &connect(target)).await;
        assert!(said.status == status && said.head.contains(reason), "{number}: {shown} is not {word}: {said:?}");
        count += 1;
        // Whom partners alone are listed to: the same; or no rule takes it there. A zone is refused by the parser.
        let is_listed = target.ends_with(b".allowed.test:443") || target.contains(&b'%');
        let want = if *word == "address" && !is_listed { told("destination") } else { told(word) };
        let said = say(&gate, "127.0.0.2", &connect(target)).await;
        assert!(said.status == want.0 && said.head.contains(want.1), "{number}: {shown}, listed: {said:?}");
        count += 1;
    }
    for (number, target) in LOOKALIKES {
        say(&gate, "127.0.0.2", &connect(target.as_bytes())).await.is(403, "destination_not_allowed");
        assert_eq!(dns.asked(target.split(':').next().unwrap()), 0, "{number}: {target}");
        count += 1;
    }
    // 45, 46: itself, by address, by name, and by the public address of a source.
    let itself =
        [own, gate.admin().port()].map(|port| [("127.0.0.1", port), ("127.0.0.61", port), ("me.allowed.test", port)]);
    for (host, port) in itself.into_iter().flatten() {
        let said = say(&gate, "127.0.0.1", &connect(format!("{host}:{port}").as_bytes())).await;
        assert_eq!(said.status, 403, "45: {host}:{port}: {said:?}");
        count += 1;
    }
    let lines = gate.log(count).await;
    for line in &lines {
        assert!(line.get("address").is_none() && line.get("connect_ms").is_none(), "dialled: {line}");
    }
    gate.counts("gatepost_egress_source_open", &[], 0.0).await;
    assert_eq!(far.visits(), []);
    // Names that nothing allows were never asked for, by either; those that are listed once for both clients (the cache of one worker).
    for name in
        ["127.1", "2130706433", "0x7f.0.0.1", "a..b", "allowed.evil.test", "evilallowed.test", "allowed.test.evil.test"]
    {
        assert_eq!(dns.asked(name), 0, "{name}");
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_leads_where_it_was_judged() {
    // 37: rebinding. Loopback stands for the public address, by an exemption; what comes second is not exempted.
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    dns.answer("rebind.test", &["127.0.0.9"], 0);
    let text = format!(
        "[server]\ndns = [\"{}\"]\n[client.fn]\nnetworks = [\"127.0.0.1/32\"]\n[egress.listener.out]\naddress = \"127.0.0.1:0\"\n\
         [egress.rule.r]\nclients = [\"fn\"]\nto = [\"rebind.test:{}\"]\nprivate = [\"127.0.0.9/32\"]\n",
        dns.address(),
        far.port()
    );
    let gate = gateway(text).workers(1).start().await;
    let mut client = gate.opened(&format!("rebind.test:{}", far.port())).await;
    let asked = dns.asked("rebind.test");
    dns.answer("rebind.test", &["127.0.0.1"], 0);
    assert_eq!(client.echoes("where it was judged").await, "where it was judged");
    assert_eq!((dns.asked("rebind.test"), far.accepted()), (asked, 1), "asked once for a tunnel");
    drop(client);
    // An answer is kept for a second at least: then the new one is judged, and refused.
    crate::harness::eventually("the new answer", async || {
        let (_, said) = gate.tunnel(&format!("rebind.test:{}", far.port())).await;
        crate::harness::when(said.status == 403)
    })
    .await;
}

/// 59 to 66, 70 and 71: what is asked in absolute form, and around it. Whole requests, and what they are answered.
#[test]
fn requests_in_absolute_form_are_refused_and_nothing_is_dialled() {
    where_every_address_is_here(requests);
}

async fn requests() {
    let far = Everywhere::start(&PORTS);
    let (dns, gate) = world().await;
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\n{fields}\r\n");
    let cases: Vec<(u32, String, u16)> = vec![
        // Host says nothing: the target does, and leads to a private address.
        (59, get("http://allowed.test/", "Host: evil.test\r\n"), 403),
        (60, get("http://allowed.test/", "Host: a\r\nHost: b\r\n"), 400),
        (60, get("http://allowed.test/", ""), 400),
        (61, get("http://allowed.test/", "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400),
        (61, get("http://allowed.test/", "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n"), 400),
        (61, get("http://allowed.test/", "Host: a\r\nX: a\r\n b\r\n"), 400),
        (61, get("http://allowed.test/", "Host: a\r\nX: a\n"), 400),
        (62, get("https://allowed.test/", "Host: a\r\n"), 403),
        (63, get("ftp://allowed.test/", "Host: a\r\n"), 403),
        (63, get("gopher://allowed.test/", "Host: a\r\n"), 403),
        (63, get("file:///etc/passwd", "Host: a\r\n"), 403),
        (63, get("//evil.test/", "Host: a\r\n"), 400),
        (63, get("*", "Host: a\r\n"), 400),
        (64, get("/", "Host: a\r\n"), 400),
        (64, get("/", "Host: allowed.test\r\n"), 400),
        // Nobody is led elsewhere by a field.
        (
            65,
            get(
                "http://10.0.0.5/",
                "Host: a\r\nX-Upstream-Https-Proxy: http://allowed.test\r\nForwarded: for=8.8.8.8\r\n",
            ),
            403,
        ),
        (66, get("http://10.0.0.5/", "Host: a\r\nConnection: authorization, connection\r\n"), 403),
        (70, get("http://allowed.test/", "Host: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"), 400),
        (70, "TRACE http://allowed.test/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n".to_owned(), 405),
        (70, "GET http://allowed.test/\r\n\r\n".to_owned(), 400),
        (71, get("http://allowed.test/wx/../other", "Host: a\r\n"), 403),
        (71, get("http://evil.test/%2e%2e", "Host: a\r\n"), 502),
    ];
    let count = cases.len();
    for (number, request, status) in cases {
        let said = say(&gate, "127.0.0.1", request.as_bytes()).await;
        assert_eq!(said.status, status, "{number}: {request:?}: {said:?}");
    }
    for line in gate.log(count).await {
        assert!(line.get("address").is_none() && line.get("connect_ms").is_none(), "dialled: {line}");
    }
    assert_eq!(far.visits(), []);
    assert!(dns.asked("evil.test") > 0, "anything is allowed to this client, and this name was asked for");
}
