//! The survey's other list: what must be let through, on a machine that has every address there is. So whoever is dialled is seen, and whoever is
//! not dialled is seen as well.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Gateway,
    dns::Dns,
    eventually, gateway,
    hosts::where_every_address_is_here,
    proxy::{Everywhere, Visit, client_hello},
    when,
};

const PUBLIC: &str = "93.184.216.34";

/// 127.0.0.1 may go where the list says; 127.0.0.2 to any name, and to no address; 127.0.0.3 anywhere that is public.
async fn world() -> (Dns, Gateway) {
    let dns = Dns::start().await;
    for (name, ips) in [
        ("allowed.test", &[PUBLIC][..]),
        ("api.allowed.test", &[PUBLIC, "93.184.216.35", "2606:2800:220:1::25"]),
        ("a.b.allowed.test", &[PUBLIC]),
        ("xn--bcher-kva.test", &[PUBLIC]),
        ("plain.test", &[PUBLIC]),
        ("six.test", &["2606:2800:220:1::25"]),
        ("second.test", &["93.184.216.40", "93.184.216.41"]),
        ("erp.corp.test", &["10.20.0.7"]),
        ("erp2.corp.test", &["10.20.1.7"]),
        ("evil.test", &[PUBLIC]),
    ] {
        dns.answer(name, ips, 60);
    }
    let text = format!(
        r#"
        [server]
        dns = ["{}"]
        [client.listed]
        networks = ["127.0.0.1/32"]
        [client.names]
        networks = ["127.0.0.2/32"]
        [client.anywhere]
        networks = ["127.0.0.3/32"]
        [egress.listener.out]
        address = "127.0.0.1:0"
        [egress.rule.partners]
        clients = ["listed"]
        to = [
            "allowed.test", "allowed.test:80", "*.allowed.test", "bücher.test", "plain.test:80", "six.test", "second.test:8443",
            "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.5.5.5",
            "[2606:4700:4700::1111]", "[2400:3200::1]",
        ]
        [egress.rule.own]
        clients = ["listed"]
        to = ["erp.corp.test", "erp2.corp.test"]
        private = ["10.20.0.0/24"]
        [egress.rule.names]
        clients = ["names"]
        to = ["*", "*:80"]
        [egress.rule.all]
        clients = ["anywhere"]
        to = ["*", "*:80", "*:8081", "0.0.0.0/0", "0.0.0.0/0:80", "0.0.0.0/0:8081", "::/0", "[::/0]:80", "[::/0]:8081"]
        "#,
        dns.address()
    );
    (dns, gateway(text).workers(1).start().await)
}

#[test]
fn what_must_be_let_through_arrives_at_the_address_that_was_judged() {
    where_every_address_is_here(async || {
        let (dns, gate) = world().await;
        let far = Everywhere::start(&[443, 80]);
        let mut visits = 0;
        for (target, name, address) in [
            ("ALLOWED.test:443", Some("allowed.test"), PUBLIC),
            ("allowed.test.:443", Some("ALLOWED.test"), PUBLIC),
            ("allowed.test:443", Some("allowed.test"), PUBLIC),
            ("xn--bcher-kva.test:443", Some("xn--bcher-kva.test"), PUBLIC),
            ("api.allowed.test:443", Some("api.allowed.test"), PUBLIC),
            ("a.b.allowed.test:443", Some("a.b.allowed.test"), PUBLIC),
            ("six.test:443", Some("six.test"), "2606:2800:220:1::25"),
            ("erp.corp.test:443", Some("erp.corp.test"), "10.20.0.7"),
            // A destination that is an address has no name to ask for (RFC 6066 section 3), and whatever is said goes.
            ("8.8.8.8:443", None, "8.8.8.8"),
            ("8.8.8.8:443", Some("dns.test"), "8.8.8.8"),
            ("[::ffff:8.8.8.8]:443", None, "8.8.8.8"),
            ("100.63.255.255:443", None, "100.63.255.255"),
            ("100.128.0.1:443", None, "100.128.0.1"),
            ("172.32.0.1:443", None, "172.32.0.1"),
            ("192.0.1.1:443", None, "192.0.1.1"),
            ("198.20.0.1:443", None, "198.20.0.1"),
            ("223.5.5.5:443", None, "223.5.5.5"),
            ("[2606:4700:4700::1111]:443", None, "2606:4700:4700::1111"),
            ("[2606:4700:4700:0:0:0:0:1111]:443", None, "2606:4700:4700::1111"),
            ("[2400:3200::1]:443", None, "2400:3200::1"),
        ] {
            let mut client = gate.opened(target).await;
            // In records of three bytes, and in two writes.
            let hello = client_hello(name, 3);
            let (one, two) = hello.split_at(hello.len() / 2);
            client.say(one).await;
            client.say(two).await;
            let mut back = vec![0; hello.len()];
            client.0.read_exact(&mut back).await.unwrap();
            assert_eq!(back, hello, "{target}");
            // Half of it may end by itself.
            client.0.shutdown().await.unwrap();
            assert_eq!(client.rest().await, " bye", "{target}");
            visits += 1;
            let seen = far.visits();
            assert_eq!((seen.len(), seen[visits - 1].at), (visits, at(address, 443)), "{target}: {seen:?}");
        }
        // Plain HTTP by CONNECT, as older undici does it; and in absolute form.
        for target in ["plain.test:80", "allowed.test:80"] {
            let mut client = gate.opened(target).await;
            assert_eq!(client.echoes("GET / HTTP/1.1\r\n\r\n").await, "GET / HTTP/1.1\r\n\r\n");
            visits += 1;
            assert_eq!(far.visits()[visits - 1].at, at(PUBLIC, 80));
        }
        for line in gate.log(visits).await {
            assert!(line["status"] == 200 && line.get("reason").is_none(), "{line}");
        }
        // The same name in other letters is the same to the cache: one question for each family.
        assert!(dns.asked("allowed.test") <= 2, "{}", dns.asked("allowed.test"));
    });
}

#[test]
fn the_next_address_is_tried_where_one_refuses() {
    where_every_address_is_here(async || {
        let (_dns, gate) = world().await;
        let only = tokio::net::TcpListener::bind("93.184.216.41:8443").await.unwrap();
        let mut client = gate.opened("second.test:8443").await;
        let (mut far, _) = only.accept().await.unwrap();
        far.write_all(b"the second").await.unwrap();
        drop(far);
        client.0.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "the second");
        assert_eq!(gate.log(1).await[0]["address"], "93.184.216.41:8443");
    });
}

#[test]
fn what_is_close_to_the_list_is_refused_and_nobody_sees_it() {
    where_every_address_is_here(async || {
        let (dns, gate) = world().await;
        let far = Everywhere::start(&[443, 80, 22, 25, 6379, 8081]);
        let mut count = 0;
        for (client, target, status, reason) in [
            ("127.0.0.1", "8.8.4.4:443", 403, "destination_not_allowed"),
            ("127.0.0.1", "8.8.8.8:80", 403, "destination_not_allowed"),
            ("127.0.0.1", "100.64.0.0:443", 403, "destination_not_allowed"),
            ("127.0.0.1", "evil.test:443", 403, "destination_not_allowed"),
            ("127.0.0.1", "allowed.test:22", 403, "destination_not_allowed"),
            ("127.0.0.1", "plain.test:443", 403, "destination_not_allowed"),
            ("127.0.0.1", "xn--bcher-kva.test.evil.test:443", 403, "destination_not_allowed"),
            // Exempted is one network, by one rule.
            ("127.0.0.1", "erp2.corp.test:443", 403, "address_not_allowed"),
            ("127.0.0.1", "10.20.0.7:443", 403, "destination_not_allowed"),
            ("127.0.0.3", "10.20.0.7:443", 403, "address_not_allowed"),
            ("127.0.0.3", "erp.corp.test:443", 403, "address_not_allowed"),
            // Any name is no address.
            ("127.0.0.2", "8.8.8.8:443", 403, "destination_not_allowed"),
            ("127.0.0.2", "[2606:4700:4700::1111]:443", 403, "destination_not_allowed"),
            ("127.0.0.4", "allowed.test:443", 403, "forbidden_client"),
            // Edges of what is public.
            ("127.0.0.3", "100.64.0.0:443", 403, "address_not_allowed"),
            ("127.0.0.3", "100.127.255.255:443", 403, "address_not_allowed"),
            ("127.0.0.3", "172.16.0.0:443", 403, "address_not_allowed"),
            ("127.0.0.3", "172.31.255.255:443", 403, "address_not_allowed"),
            ("127.0.0.3", "192.0.0.255:443", 403, "address_not_allowed"),
            ("127.0.0.3", "198.19.255.255:443", 403, "address_not_allowed"),
            ("127.0.0.3", "[1fff:ffff::1]:443", 403, "address_not_allowed"),
            ("127.0.0.3", "[4000::1]:443", 403, "address_not_allowed"),
            ("127.0.0.3", "[::ffff:169.254.169.254]:80", 403, "address_not_allowed"),
            ("127.0.0.3", "[::ffff:a9fe:a9fe]:80", 403, "address_not_allowed"),
            ("127.0.0.3", "[2002:a00:1::1]:443", 403, "address_not_allowed"),
        ] {
            let mut caller = gate.client(client).await;
            let said = caller.ask(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")).await;
            said.is(status, reason);
            count += 1;
        }
        for line in gate.log(count).await {
            assert!(line.get("address").is_none() && line.get("connect_ms").is_none(), "dialled: {line}");
        }
        assert_eq!(far.visits(), []);
        for name in ["evil.test", "plain.test", "xn--bcher-kva.test.evil.test", "allowed.test"] {
            assert_eq!(dns.asked(name), 0, "{name}");
        }
    });
}

/// 72: an answer that sends its reader elsewhere is the reader's to follow, and elsewhere is judged then as any destination is.
#[test]
fn a_redirect_is_passed_back_and_followed_by_nobody() {
    where_every_address_is_here(async || {
        let (_dns, gate) = world().await;
        let far = Everywhere::start(&[80]);
        let mut client = gate.client("127.0.0.1").await;
        let ask = |url: &str| format!("GET {url} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic dTpw\r\n\r\n");
        let said = client.ask(&ask("http://allowed.test/moved")).await;
        assert_eq!(said.status, 302, "{said:?}");
        assert!(said.head.contains("Location: http://169.254.169.254/latest/\r\n"), "{said:?}");
        client.ask(&ask("http://169.254.169.254/latest/")).await.is(403, "destination_not_allowed");
        let visits = far.visits();
        let [Visit { at: dialled, sent }] = &visits[..] else { panic!("{visits:?}") };
        assert_eq!(*dialled, at(PUBLIC, 80));
        assert!(sent.contains("\r\nHost: allowed.test\r\n") && !sent.contains("Proxy-Authorization"), "{sent}");
        // Whom addresses are allowed to is refused for what it is.
        let mut anywhere = gate.client("127.0.0.3").await;
        anywhere.ask(&ask("http://169.254.169.254/latest/")).await.is(403, "address_not_allowed");
        eventually("three lines", async || when(gate.log_lines().len() == 3)).await;
        assert_eq!(far.visits().len(), 1);
    });
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}
