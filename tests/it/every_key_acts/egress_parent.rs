//! `parent` of `[egress.rule]`.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    Proof,
    egress::{FN, far, is, out, says},
    leaf::{Leaf, Pair},
    table,
};
use crate::harness::{Gateway, authority, dns::Dns};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("egress.rule.*.parent", url),
        ("egress.rule.*.parent.url", url),
        ("egress.rule.*.parent.user", user),
        ("egress.rule.*.parent.password = env:", password),
        ("egress.rule.*.parent.password = file:", password),
        ("egress.rule.*.parent.password = credential:", password),
        ("egress.rule.*.parent.ca", ca),
        ("egress.rule.*.parent.resolve = here", resolve),
        ("egress.rule.*.parent.resolve = parent", resolve),
    ]
}

/// What a parent is sent by a gatepost that is asked for a tunnel.
async fn heard(gateway: &Gateway, to: &str, parent: &TcpListener) -> String {
    let mut client = gateway.client("127.0.0.1").await;
    client.say(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await;
    let (mut stream, _) = parent.accept().await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await.unwrap()));
    }
    head
}

async fn parent() -> (TcpListener, SocketAddr) {
    let parent = TcpListener::bind("127.0.0.9:0").await.unwrap();
    let address = parent.local_addr().unwrap();
    (parent, address)
}

async fn url(leaf: Leaf) {
    let (_far, to) = far().await;
    let parents = [parent().await, parent().await];
    let urls = parents.each_ref().map(|(_, at)| match leaf.name.ends_with("url") {
        true => format!("parent = {{ url = \"http://{at}\" }}"),
        false => format!("parent = \"http://{at}\""),
    });
    let config = out("", &format!("{to:?}"), &format!("{FN}LEAF"));
    let both = leaf.pair(&config, &urls[0], &urls[1]).start().await;
    for (gateway, (parent, _)) in both.iter().zip(&parents) {
        assert!(heard(gateway, &to, parent).await.starts_with(&format!("CONNECT {to} ")));
    }
}

/// The credentials that a parent is shown.
async fn shown(pair: Pair, parent: &TcpListener) -> [String; 2] {
    let both = pair.start().await;
    let mut shown = [String::new(), String::new()];
    for (gateway, shown) in both.iter().zip(&mut shown) {
        let head = heard(gateway, "127.0.0.9:1", parent).await;
        let value = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: Basic "));
        *shown = value.unwrap_or_else(|| panic!("{head}")).to_owned();
    }
    shown
}

fn with(url: SocketAddr, keys: &str) -> String {
    out("", "\"127.0.0.9:1\"", &format!("{FN}parent = {{ url = \"http://{url}\", {keys} }}"))
}

async fn user(leaf: Leaf) {
    let (parent, at) = parent().await;
    let config = with(at, "password = \"file:@DIR@/p\", LEAF");
    let pair = leaf.pair(&config, "user = \"u\"", "user = \"v\"").also(|build| build.file("p", "1"));
    // `u:1` and `v:1`.
    assert_eq!(shown(pair, &parent).await, ["dTox", "djox"]);
}

async fn password(leaf: Leaf) {
    let (parent, at) = parent().await;
    let kind = leaf.name.rsplit(' ').next().unwrap();
    let place = if kind == "file:" { "@DIR@/" } else { "" };
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("one", "1"), ("other", "2")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let credentials = folder.path().display().to_string();
    let words = ["one", "other"].map(|name| format!("password = \"{kind}{place}{name}\""));
    let pair = leaf.pair(&with(at, "user = \"u\", LEAF"), &words[0], &words[1]).also(move |build| {
        let build = build.env("CREDENTIALS_DIRECTORY", &credentials);
        [("one", "1"), ("other", "2")].iter().fold(build, |build, (name, text)| build.env(name, text).file(name, text))
    });
    // `u:1` and `u:2`.
    assert_eq!(shown(pair, &parent).await, ["dTox", "dToy"]);
}

async fn ca(leaf: Leaf) {
    let (trusted, other) = (authority(), authority());
    let certificate = trusted.leaf(&["127.0.0.9"]);
    let (listener, at) = parent().await;
    let acceptor = certificate.acceptor(&[]);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.write_all(b"HTTP/1.1 403 no\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let config = out("", "\"127.0.0.9:1\"", &format!("{FN}parent = {{ url = \"https://{at}\", LEAF }}"));
    let words = [&trusted, &other].map(|one| format!("ca = \"{}\"", one.ca().display()));
    let [one, other] = leaf.pair(&config, &words[0], &words[1]).start().await;
    assert_eq!(says(&one, "127.0.0.9:1").await, is(403, "destination_not_allowed"));
    assert_eq!(says(&other, "127.0.0.9:1").await, is(502, "upstream_unreachable"));
    task.abort();
}

async fn resolve(leaf: Leaf) {
    let (dns, (parent, at)) = (Dns::start().await, parent().await);
    dns.answer("far.test", &["8.8.8.8"], 60);
    let resolver = format!("resolver = {{ servers = [\"{}\"] }}", dns.address());
    let rule = format!("{FN}parent = {{ url = \"http://{at}\", LEAF }}");
    let config = out(&resolver, "\"far.test:9\"", &rule).replace("private = [\"127.0.0.0/8\"]", "");
    let [here, there] = leaf.pair(&config, "resolve = \"here\"", "resolve = \"parent\"").start().await;
    assert!(heard(&here, "far.test:9", &parent).await.starts_with("CONNECT 8.8.8.8:9 "));
    assert!(heard(&there, "far.test:9", &parent).await.starts_with("CONNECT far.test:9 "));
}
