//! CONNECT: who gets where, from which address, for how long, and what is told of it.

use tokio::io::AsyncWriteExt;

use crate::harness::{
    Gateway,
    dns::Dns,
    eventually, gateway,
    proxy::{client_hello as hello, echo, echo_on_443, mirror},
    when,
};

/// A config of which `rest` is the end: rules and sources.
fn config(dns: &Dns, rest: &str) -> String {
    format!(
        r#"
        [server]
        dns = ["{}"]
        [client.fn]
        networks = ["127.0.0.1/32"]
        owner = "payments"
        [client.two]
        networks = ["127.0.0.2/32"]
        [egress.listener.out]
        address = "127.0.0.1:0"
        {rest}
        "#,
        dns.address()
    )
}

/// One rule for `fn`, that takes it to `to` on loopback.
fn one_rule(dns: &Dns, to: &str, more: &str) -> String {
    config(
        dns,
        &format!(
            r#"
            [egress.rule.r]
            clients = ["fn"]
            to = [{to}]
            private = ["127.0.0.0/8"]
            {more}
            "#
        ),
    )
}

async fn lines(gate: &Gateway, n: usize) -> Vec<serde_json::Value> {
    gate.log(n).await
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_each_side_ends_for_itself() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    dns.answer("far.test", &["127.0.0.9"], 60);
    let to = format!("far.test:{}", far.port());
    let gate = gateway(one_rule(&dns, &format!("{to:?}"), "")).start().await;
    let mut client = gate.opened(&to).await;
    assert_eq!(client.echoes("hello").await, "hello");
    client.0.shutdown().await.unwrap();
    assert_eq!(client.rest().await, " bye");
    let line = &lines(&gate, 1).await[0];
    for (key, value) in [
        ("kind", "connect".into()),
        ("listener", "out".into()),
        ("client", "fn".into()),
        ("owner", "payments".into()),
        ("client_ip", "127.0.0.1".into()),
        ("target", to.as_str().into()),
        ("address", far.address.to_string().into()),
        ("rule", "r".into()),
        ("status", serde_json::Value::from(200)),
        ("bytes_in", 5.into()),
        ("bytes_out", 9.into()),
    ] {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    assert!(line["dns_ms"].is_number() && line["connect_ms"].is_number() && line.get("reason").is_none(), "{line}");
    let labels = [("client", "fn"), ("rule", "r")];
    gate.counts("gatepost_egress_connections_total", &[labels[0], labels[1], ("result", "ok")], 1.0).await;
    gate.counts("gatepost_egress_bytes_total", &[labels[0], labels[1], ("direction", "out")], 9.0).await;
    gate.counts("gatepost_egress_open", &labels, 0.0).await;
}

#[tokio::test]
async fn what_no_rule_allows_opens_no_socket_and_asks_no_name_server() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    for name in ["far.test", "other.test", "far.test.evil.test"] {
        dns.answer(name, &["127.0.0.9"], 60);
    }
    let port = far.port();
    let gate = gateway(one_rule(&dns, &format!("\"far.test:{port}\""), "")).start().await;
    for (to, status, reason) in [
        (format!("other.test:{port}"), 403, "destination_not_allowed"),
        (format!("far.test.evil.test:{port}"), 403, "destination_not_allowed"),
        (format!("127.0.0.9:{port}"), 403, "destination_not_allowed"),
        ("far.test:22".to_owned(), 403, "destination_not_allowed"),
        ("far.test".to_owned(), 400, "bad_request"),
        (format!("u@far.test:{port}"), 400, "bad_request"),
        ("far.test:65536".to_owned(), 400, "bad_request"),
        (format!("http://far.test:{port}/"), 400, "bad_request"),
    ] {
        let (_, said) = gate.tunnel(&to).await;
        said.is(status, reason);
    }
    assert_eq!((far.accepted(), dns.asked("other.test"), dns.asked("far.test")), (0, 0, 0));
    assert_eq!(lines(&gate, 8).await[0]["reason"], "destination_not_allowed");
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused_and_told() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let port = far.port();
    dns.answer("mixed.test", &["127.0.0.9", "10.0.0.5"], 60);
    dns.answer("private.test", &["10.0.0.5"], 60);
    dns.answer("meta.test", &["169.254.169.254"], 60);
    dns.fail("broken.test");
    let many: Vec<String> = (0..400).map(|n| format!("10.1.{}.{}", n / 200, n % 200)).collect();
    // More than a datagram holds would want TCP, which the scripted server does not speak.
    dns.answer("many.test", &many[..20].iter().map(String::as_str).collect::<Vec<_>>(), 60);
    let names =
        ["mixed", "private", "meta", "broken", "absent", "many"].map(|n| format!("\"{n}.test:{port}\"")).join(",");
    let gate = gateway(one_rule(&dns, &names, "")).start().await;
    for (name, status, reason) in [
        ("mixed", 403, "address_not_allowed"),
        ("private", 403, "address_not_allowed"),
        ("meta", 403, "address_not_allowed"),
        ("many", 403, "address_not_allowed"),
        ("broken", 502, "name_not_resolved"),
        ("absent", 502, "name_not_resolved"),
    ] {
        let (_, said) = gate.tunnel(&format!("{name}.test:{port}")).await;
        said.is(status, reason);
    }
    assert_eq!(far.accepted(), 0);
    let told = lines(&gate, 6).await;
    let why = |name: &str| {
        let line = told.iter().find(|line| line["target"] == format!("{name}.test:{port}")).expect("a line");
        line["detail"].as_str().unwrap().to_owned()
    };
    assert_eq!(why("private"), "10.0.0.5 is private (RFC 1918)");
    assert_eq!(
        why("mixed"),
        "10.0.0.5 is private (RFC 1918); the name has allowed addresses as well (`mixed_answers`)"
    );
}

#[tokio::test]
async fn a_name_server_that_says_nothing_costs_no_more_than_the_resolvers_timeout() {
    let dns = Dns::start().await;
    dns.fall_silent("silent.test");
    let text = one_rule(&dns, "\"silent.test:9\"", "\n[egress]\nresolver = { timeout = \"300ms\" }");
    let gate = gateway(text).start().await;
    let (_, said) = gate.tunnel("silent.test:9").await;
    said.is(502, "name_not_resolved");
    assert!(said.body.contains("no answer within 300ms"), "{said:?}");
}

#[tokio::test]
async fn gateposts_own_listeners_are_never_reached() {
    let dns = Dns::start().await;
    dns.answer("own.test", &["127.0.0.1"], 60);
    // The port is known once it listens.
    let gate = gateway(one_rule(&dns, "\"127.0.0.1:9\"", "")).start().await;
    let ports = [gate.address("egress.out").port(), gate.admin().port(), gate.address("in").port()];
    let to = ports.map(|p| format!("\"127.0.0.1:{p}\", \"own.test:{p}\"")).join(", ");
    gate.swap("\"127.0.0.1:9\"", &to).await;
    for port in ports {
        for host in ["127.0.0.1", "own.test"] {
            let (_, said) = gate.tunnel(&format!("{host}:{port}")).await;
            said.is(403, "address_not_allowed");
        }
    }
}

#[tokio::test]
async fn each_client_leaves_from_its_own_source_and_from_no_other() {
    let (dns, far) = (Dns::start().await, mirror("127.0.0.9:0").await);
    let to = format!("127.0.0.9:{}", far.port());
    let rule = |client: &str, source: &str| {
        format!(
            "[egress.rule.{client}]\nclients = [\"{client}\"]\nto = [\"{to}\"]\nprivate = [\"127.0.0.0/8\"]\nsource = \"{source}\"\n"
        )
    };
    let text = format!(
        "[egress.source.one]\nbind = \"127.0.0.21\"\n[egress.source.two]\nbind = \"127.0.0.22\"\n{}{}",
        rule("fn", "one"),
        rule("two", "two")
    );
    let gate = gateway(config(&dns, &text)).start().await;
    let rounds = if crate::harness::full() { 25_000 } else { 100 };
    let go = async |ip: &str, sees: &str| {
        let mut kept = gate.client(ip).await;
        let forward = format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n");
        for round in 0..rounds {
            let said = kept.ask(&forward).await;
            assert_eq!((said.status, said.body.as_str()), (200, sees), "{said:?}");
            if round % 2 == 0 {
                let mut tunnel = gate.client(ip).await;
                assert_eq!(tunnel.ask(&format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await.status, 200);
                assert_eq!(tunnel.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.body, sees);
            }
        }
    };
    tokio::join!(
        go("127.0.0.1", "127.0.0.21"),
        go("127.0.0.2", "127.0.0.22"),
        go("127.0.0.1", "127.0.0.21"),
        go("127.0.0.2", "127.0.0.22")
    );
    gate.counts("gatepost_egress_open", &[], 0.0).await;
}

#[tokio::test]
async fn a_source_whose_address_is_absent_is_degraded_and_nothing_leaves_by_another() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let to = format!("127.0.0.9:{}", far.port());
    // TEST-NET-1: no machine has it.
    let more = "source = \"gone\"\n[egress.source.gone]\nbind = \"192.0.2.77\"";
    let gate = gateway(one_rule(&dns, &format!("{to:?}"), more)).start().await;
    gate.says(&["degraded", "source=gone", "192.0.2.77"]).await;
    let (_, said) = gate.tunnel(&to).await;
    said.is(503, "source_unavailable");
    assert!(said.head.contains("Retry-After: "), "{said:?}");
    assert_eq!(far.accepted(), 0);
    let labels = [("source", "gone"), ("address", "192.0.2.77")];
    gate.counts("gatepost_egress_source_up", &labels, 0.0).await;
    assert_eq!(lines(&gate, 1).await[0]["source_address"], "192.0.2.77");
}

#[tokio::test]
async fn who_is_unknown_gets_407_and_nothing_that_it_sent_along_goes_on() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let to = format!("127.0.0.9:{}", far.port());
    // `printf secret | sha256sum`
    let text = format!(
        r#"
        [client.basic]
        basic = {{ user = "orders", sha256 = "file:@DIR@/hash" }}
        [egress.rule.b]
        clients = ["basic"]
        to = ["{to}"]
        private = ["127.0.0.0/8"]
        "#
    );
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let gate = gateway(config(&dns, &text)).file("hash", hash).start().await;
    let ask = |credential: &str| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{credential}\r\n");
    let mut unknown = gate.client("127.0.0.3").await;
    let said = unknown.ask(&(ask("") + "GET /smuggled HTTP/1.1\r\n\r\n")).await;
    said.is(407, "credentials_missing");
    assert!(said.head.contains("Proxy-Authenticate: Basic realm=\"gatepost\""), "{said:?}");
    assert_eq!(unknown.rest().await, "");
    // `orders:wrong`, `orders:secret`
    let wrong = gate.client("127.0.0.3").await.ask(&ask("Proxy-Authorization: Basic b3JkZXJzOndyb25n\r\n")).await;
    wrong.is(407, "credentials_invalid");
    assert_eq!((far.accepted(), far.bytes()), (0, 0));
    let mut known = gate.client("127.0.0.3").await;
    let said = known.ask(&ask("Proxy-Authorization: Basic b3JkZXJzOnNlY3JldA==\r\n")).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(known.echoes("in").await, "in");
    // The tunnel that stands has no line yet.
    let told = lines(&gate, 2).await;
    assert!(told.iter().any(|l| l["reason"] == "credentials_missing" && l["status"] == 407), "{told:#?}");
}

#[tokio::test]
async fn tunnels_and_rate_are_bounded_per_client_and_rule() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let to = format!("127.0.0.9:{}", far.port());
    let limits = "limits = { tunnels = 2, rate = \"6/h\", burst = 3 }";
    let gate = gateway(one_rule(&dns, &format!("{to:?}"), limits)).start().await;
    let (one, two) = (gate.opened(&to).await, gate.opened(&to).await);
    for _ in 0..3 {
        let (_, said) = gate.tunnel(&to).await;
        said.is(429, "tunnels_exhausted");
        assert!(said.body.contains("all 2 tunnels that rule r allows a client are open"), "{said:?}");
        assert!(said.head.contains("Retry-After: 1\r\n"), "{said:?}");
    }
    drop((one, two));
    gate.counts("gatepost_egress_open", &[("rule", "r")], 0.0).await;
    // Who was refused has taken nothing of the rate.
    let _three = gate.opened(&to).await;
    let (_, said) = gate.tunnel(&to).await;
    said.is(429, "rate_limited");
    assert!(said.head.contains("RateLimit-Policy: \"egress-r\";q=3;w=1800\r\n"), "{said:?}");
    assert!(said.head.contains("RateLimit: \"egress-r\";r=0;t="), "{said:?}");
    assert!(said.body.contains("above the rate that rule r allows a client"), "{said:?}");
    gate.counts("gatepost_egress_connections_total", &[("result", "rate_limited")], 1.0).await;
}

#[tokio::test]
async fn a_tunnel_ends_when_nothing_moves_and_when_it_is_old() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let to = format!("127.0.0.9:{}", far.port());
    let gate = gateway(one_rule(&dns, &format!("{to:?}"), "timeouts = { idle = \"500ms\" }")).start().await;
    let mut client = gate.opened(&to).await;
    assert_eq!(client.echoes("hi").await, "hi");
    assert_eq!(client.rest().await, "");
    lines(&gate, 1).await;
    gate.swap("idle = \"500ms\"", "total = \"500ms\"").await;
    let mut client = gate.opened(&to).await;
    assert_eq!(client.rest().await, "");
    // The first had its line before the second began.
    let lines = lines(&gate, 2).await;
    assert_eq!((&lines[0]["ended"], &lines[1]["ended"]), (&"idle".into(), &"total".into()));
}

#[tokio::test]
async fn a_reload_cuts_a_tunnel_only_where_it_is_told_to() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let to = format!("127.0.0.9:{}", far.port());
    let gate = gateway(one_rule(&dns, &format!("{to:?}, \"127.0.0.9:1\""), "")).start().await;
    let mut kept = gate.opened(&to).await;
    gate.swap(&format!("{to:?}, "), "").await;
    let (_, said) = gate.tunnel(&to).await;
    said.is(403, "destination_not_allowed");
    assert_eq!(kept.echoes("still").await, "still");
    drop(kept);

    gate.swap("\"127.0.0.9:1\"", &format!("\"127.0.0.9:1\", {to:?}")).await;
    gate.edit(|text| format!("{text}\n[egress]\non_revoke = \"close\"\n")).await;
    let mut cut = gate.opened(&to).await;
    gate.edit(|text| format!("{text}\n# nothing that concerns it\n")).await;
    assert_eq!(cut.echoes("allowed").await, "allowed");
    gate.swap(&format!(", {to:?}"), "").await;
    assert_eq!(cut.rest().await, "");
    eventually("a line that tells so", async || {
        when(gateway::log_lines(&gate.dir().join("access.log")).iter().any(|l| l["ended"] == "revoked"))
    })
    .await;
}

#[tokio::test]
async fn in_report_mode_all_goes_through_and_the_log_says_what_would_not() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let port = far.port();
    dns.answer("far.test", &["127.0.0.9"], 60);
    let more = "mode = \"report\"\n[egress]\nmode = \"report\"";
    let gate = gateway(one_rule(&dns, &format!("\"far.test:{port}\""), more)).start().await;
    let mut client = gate.opened(&format!("far.test:{port}")).await;
    assert_eq!(client.echoes("hi").await, "hi");
    drop(client);
    // No rule has it, and so nothing exempts its address.
    let (_, said) = gate.tunnel(&format!("127.0.0.9:{port}")).await;
    said.is(403, "address_not_allowed");
    let lines = lines(&gate, 2).await;
    assert!(lines.iter().all(|l| l["would_refuse"] == "destination_not_allowed"), "{lines:#?}");
}

#[tokio::test]
async fn no_byte_goes_out_until_the_tls_client_asks_for_the_name_it_was_let_through_for() {
    let Some(far) = echo_on_443("127.0.0.31").await else { return };
    let dns = Dns::start().await;
    dns.answer("far.test", &["127.0.0.31"], 60);
    let text = one_rule(&dns, "\"far.test\", \"127.0.0.31\"", "\n[egress]\ntimeouts = { tls_name = \"500ms\" }");
    let gate = gateway(text).start().await;
    let whole = hello(Some("far.test"), 9000);
    for bad in [
        hello(Some("evil.test"), 9000),
        hello(None, 9000),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        whole[..20].to_vec(),
        Vec::new(),
    ] {
        let mut client = gate.opened("far.test:443").await;
        client.say(&bad).await;
        assert_eq!(client.rest().await, "");
    }
    assert_eq!((far.accepted(), far.bytes()), (5, 0), "dialled, and sent nothing");
    let told = lines(&gate, 5).await;
    assert!(told.iter().all(|l| l["reason"] == "server_name_mismatch" && l["status"] == 200), "{told:#?}");
    let detail = |wanted: &str| told.iter().filter(|l| l["detail"] == wanted).count();
    assert_eq!(detail("the TLS hello asks for evil.test"), 1, "{told:#?}");
    assert_eq!(detail("the TLS hello asks for no name"), 1, "{told:#?}");
    assert_eq!(detail("what the client sends is not TLS"), 1, "{told:#?}");
    assert_eq!(detail("no whole TLS hello came in time"), 2, "{told:#?}");

    // One that leaves before it has said anything is refused nothing.
    drop(gate.opened("far.test:443").await);
    let left = &lines(&gate, 6).await[5];
    assert_eq!((&left["ended"], &left["reason"]), (&"client_gone".into(), &serde_json::Value::Null), "{left}");

    for good in [whole, hello(Some("FAR.test"), 3)] {
        let mut client = gate.opened("far.test:443").await;
        // In pieces, too.
        let (one, two) = good.split_at(10);
        client.say(one).await;
        assert!(client.is_silent().await);
        client.say(two).await;
        let mut back = vec![0; good.len()];
        tokio::io::AsyncReadExt::read_exact(&mut client.0, &mut back).await.unwrap();
        assert_eq!(back, good);
    }
    // An address has no name to ask for (RFC 6066 §3).
    let mut client = gate.opened("127.0.0.31:443").await;
    assert_eq!(client.echoes("anything").await, "anything");
}

#[tokio::test]
async fn in_report_mode_who_says_nothing_or_no_tls_is_told_of_and_goes_through() {
    let Some(far) = echo_on_443("127.0.0.32").await else { return };
    let dns = Dns::start().await;
    dns.answer("far.test", &["127.0.0.32"], 60);
    let more = "mode = \"report\"\n[egress]\ntimeouts = { tls_name = \"300ms\" }";
    let gate = gateway(one_rule(&dns, "\"far.test\"", more)).start().await;
    let mut silent = gate.opened("far.test:443").await;
    // Not even a whole record: what there is of it is held until the wait is over.
    silent.say(&hello(Some("far.test"), 9000)[..20]).await;
    eventually("what it has said, at the destination", async || when(far.bytes() == 20)).await;
    silent.say("and more").await;
    eventually("the rest", async || when(far.bytes() == 28)).await;
    drop(silent);
    let line = &lines(&gate, 1).await[0];
    assert_eq!((&line["would_refuse"], &line["reason"]), (&"server_name_mismatch".into(), &serde_json::Value::Null));
    assert_eq!(line["detail"], "no whole TLS hello came in time");
}

#[tokio::test]
async fn a_source_without_an_address_of_the_family_is_what_is_short() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let to = format!("127.0.0.9:{}", far.port());
    let more = "source = \"six\"\n[egress.source.six]\nbind = \"::1\"";
    let gate = gateway(one_rule(&dns, &format!("{to:?}"), more)).start().await;
    let (_, said) = gate.tunnel(&to).await;
    said.is(503, "source_unavailable");
    assert!(said.head.contains("Retry-After: "), "{said:?}");
    assert_eq!(lines(&gate, 1).await[0]["source"], "six");
}

#[tokio::test]
async fn a_stop_waits_for_tunnels_as_long_as_drain_says() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let to = format!("127.0.0.9:{}", far.port());
    let text = one_rule(&dns, &format!("{to:?}"), "").replace("[server]", "[server]\ndrain = \"30s\"");
    let mut gate = gateway(text).start().await;
    let mut idle = gate.client("127.0.0.1").await;
    let mut tunnel = gate.opened(&to).await;
    gate.terminate();
    gate.says(&["draining"]).await;
    // Who waits with no request is told so; who is in a tunnel goes on.
    assert_eq!(idle.rest().await, "");
    assert_eq!(tunnel.echoes("still here").await, "still here");
    drop(tunnel);
    assert!(gate.exit().await.success());
    assert!(gate.stderr().contains("cut=0"), "{}", gate.stderr());
}

/// Buffers are held while bytes move, and not longer.
#[tokio::test]
async fn a_tunnel_that_waits_holds_some_kibibytes() {
    const MOST: u64 = 12;
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let to = format!("127.0.0.9:{}", far.port());
    // One client alone has them all.
    let text = one_rule(&dns, &format!("{to:?}"), "\n[egress]\nfair_share = 100");
    let gate = gateway(text).start().await;
    let mut held = Vec::new();
    let mut open = async |n: usize| {
        while held.len() < n {
            let mut client = gate.opened(&to).await;
            assert_eq!(client.echoes("hello").await, "hello");
            held.push(client);
        }
        gate.counts("gatepost_egress_open", &[], n as f64).await;
    };
    // What the first ones make the process take once is nobody's in particular.
    open(100).await;
    let before = gate.process().anonymous();
    // Two sockets each here, and two there, of the 20,000 that a process may have.
    let n = if crate::harness::full() { 9_000 } else { 500 };
    open(100 + n).await;
    let each = gate.process().anonymous().saturating_sub(before) / 1024 / n as u64;
    println!("{each} KiB for each of {n} tunnels that wait");
    assert!(each <= MOST, "{each} KiB for each of {n} tunnels");
}
