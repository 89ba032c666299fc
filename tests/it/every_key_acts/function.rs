//! `[function.NAME]`: where it is, and how it is spoken to.

use super::{Proof, leaf::Leaf, named, table};
use crate::harness::{Gateway, Origin, authority, get, origin};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.versions.*", url),
        ("function.*.versions.*.url", url_in_table),
        ("function.*.versions.*.ca", version_ca),
        ("function.*.versions.*.host", host),
        ("function.*.ca", ca),
        ("function.*.preserve_host", preserve_host),
        ("function.*.http = auto", http_auto),
        ("function.*.http = 1.1", http),
        ("function.*.http = 2", http),
        ("function.*.pool.idle", pool_idle),
    ]
}

/// `[function.f]` with these lines, and a route to it.
fn function(lines: &str) -> String {
    format!("[function.f]\n{lines}\n[route.f]\nfunction = \"f\"\n")
}

async fn reaches(both: &[Gateway; 2], texts: [&str; 2]) {
    for (gateway, text) in both.iter().zip(texts) {
        assert_eq!(gateway.get("/").await.text(), text);
    }
}

async fn url(leaf: Leaf) {
    let (one, other) = (named("one").await, named("other").await);
    let urls = [&one, &other].map(|f| format!("v1 = \"{}\"", f.url()));
    let both = leaf.pair(&function("versions = { LEAF }"), &urls[0], &urls[1]).start().await;
    reaches(&both, ["one", "other"]).await;
}

async fn url_in_table(leaf: Leaf) {
    let (one, other) = (named("one").await, named("other").await);
    let urls = [&one, &other].map(|f| format!("url = \"{}\"", f.url()));
    let both = leaf.pair(&function("versions = { v1 = { LEAF } }"), &urls[0], &urls[1]).start().await;
    reaches(&both, ["one", "other"]).await;
}

/// The one authority signed for the function, the other didn't.
async fn trusts(leaf: Leaf, config: impl Fn(&Origin) -> String) {
    let (ours, theirs) = (authority(), authority());
    let function = origin().reply("v1").tls(&ours.leaf(&["127.0.0.1"])).start().await;
    let words = [&ours, &theirs].map(|authority| format!("ca = \"{}\"", authority.ca().display()));
    let [one, other] = leaf.pair(&config(&function), &words[0], &words[1]).start().await;
    assert_eq!(one.get("/").await.text(), "v1");
    let refused = other.get("/").await;
    assert_eq!((refused.status, refused.reason()), (502, "upstream_unreachable"), "{refused:?}");
    assert_eq!(function.requests(), 1);
}

async fn version_ca(leaf: Leaf) {
    trusts(leaf, |f| function(&format!("versions = {{ v1 = {{ url = \"{}\", LEAF }} }}", f.url()))).await;
}

async fn ca(leaf: Leaf) {
    trusts(leaf, |f| function(&format!("versions = {{ v1 = \"{}\" }}\nLEAF", f.url()))).await;
}

async fn host(leaf: Leaf) {
    let f = named("v1").await;
    let config = function(&format!("versions = {{ v1 = {{ url = \"{}\", LEAF }} }}", f.url()));
    let both = leaf.pair(&config, "host = \"one.test\"", "host = \"other.test\"").start().await;
    for (gateway, host) in both.iter().zip(["one.test", "other.test"]) {
        gateway.get("/").await;
        assert_eq!(f.last().header("host"), Some(host));
    }
}

async fn preserve_host(leaf: Leaf) {
    let f = named("v1").await;
    let config = function(&format!("versions = {{ v1 = \"{}\" }}\nLEAF", f.url()));
    let both = leaf.pair(&config, "preserve_host = true", "preserve_host = false").start().await;
    let own = f.address.to_string();
    for (gateway, host) in both.iter().zip(["api.test", own.as_str()]) {
        gateway.send(get("/").host("api.test")).await;
        assert_eq!(f.last().header("host"), Some(host));
    }
}

/// Over TLS both sides could do either.
async fn http(leaf: Leaf) {
    let authority = authority();
    let f = origin().tls_h2(&authority.leaf(&["127.0.0.1"])).start().await;
    let config =
        function(&format!("versions = {{ v1 = \"{}\" }}\nca = \"{}\"\nLEAF", f.url(), authority.ca().display()));
    let both = leaf.pair(&config, "http = \"1.1\"", "http = \"2\"").start().await;
    for (gateway, version) in both.iter().zip(["HTTP/1.1", "HTTP/2.0"]) {
        assert_eq!(gateway.get("/").await.status, 200);
        assert_eq!(f.last().version, version);
    }
}

/// With TLS what ALPN says, without it HTTP/1.1.
async fn http_auto(leaf: Leaf) {
    let plain = named("v1").await;
    let config = function(&format!("versions = {{ v1 = \"{}\" }}\nLEAF", plain.url()));
    let [auto, two] = leaf.pair(&config, "http = \"auto\"", "http = \"2\"").start().await;
    assert_eq!((auto.get("/").await.status, plain.last().version.as_str()), (200, "HTTP/1.1"));
    assert_eq!(two.get("/").await.status, 502);

    let authority = authority();
    let f = origin().tls_h2(&authority.leaf(&["127.0.0.1"])).start().await;
    let config =
        function(&format!("versions = {{ v1 = \"{}\" }}\nca = \"{}\"\nLEAF", f.url(), authority.ca().display()));
    let both = leaf.pair(&config, "http = \"auto\"", "http = \"1.1\"").start().await;
    for (gateway, version) in both.iter().zip(["HTTP/2.0", "HTTP/1.1"]) {
        assert_eq!(gateway.get("/").await.status, 200);
        assert_eq!(f.last().version, version);
    }
}

async fn pool_idle(leaf: Leaf) {
    for (http, two) in [("1.1", origin()), ("2", origin().h2c())] {
        let f = two.start().await;
        let config = function(&format!("versions = {{ v1 = \"{}\" }}\nhttp = \"{http}\"\npool = {{ LEAF }}", f.url()));
        let both = leaf.pair(&config, "idle = \"25s\"", "idle = \"0s\"").start().await;
        for (gateway, connections) in both.iter().zip([1, 3]) {
            let before = f.connections();
            for _ in 0..3 {
                assert_eq!(gateway.get("/").await.status, 200);
            }
            assert_eq!(f.connections() - before, connections, "http {http}");
        }
    }
}
