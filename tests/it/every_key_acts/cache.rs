//! What a route answers out of memory: `cache` and `fallback`.

use super::{Proof, leaf::Leaf, table};
use crate::harness::{Gateway, origin::dead_address};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("route.*.fallback.status", fallback_status),
        ("route.*.fallback.body", fallback_body),
        ("route.*.fallback.file", fallback_file),
        ("route.*.fallback.content_type", fallback_type),
    ]
}

/// Two gateposts whose function is gone.
async fn gone(leaf: &Leaf, route: &str, one: &str, other: &str) -> [Gateway; 2] {
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"http://{}\" }}\n[route.f]\nfunction = \"f\"\nfallback = {{ {route} }}\n",
        dead_address()
    );
    let pair = leaf.pair(&config, one, other);
    pair.also(|build| build.file("a.html", "file a").file("b.html", "file b")).start().await
}

async fn fallback_status(leaf: Leaf) {
    let both = gone(&leaf, "body = \"x\", LEAF", "status = 200", "status = 503").await;
    for (gateway, status) in both.iter().zip([200, 503]) {
        assert_eq!(gateway.get("/").await.status, status);
    }
}

async fn fallback_body(leaf: Leaf) {
    let both = gone(&leaf, "LEAF", "body = \"one\"", "body = \"other\"").await;
    for (gateway, text) in both.iter().zip(["one", "other"]) {
        assert_eq!(gateway.get("/").await.text(), text);
    }
}

async fn fallback_file(leaf: Leaf) {
    let both = gone(&leaf, "LEAF", "file = \"a.html\"", "file = \"b.html\"").await;
    for (gateway, text) in both.iter().zip(["file a", "file b"]) {
        assert_eq!(gateway.get("/").await.text(), text);
    }
}

async fn fallback_type(leaf: Leaf) {
    let both = gone(&leaf, "body = \"x\", LEAF", "content_type = \"text/css\"", "content_type = \"text/csv\"").await;
    for (gateway, kind) in both.iter().zip(["text/css", "text/csv"]) {
        assert_eq!(gateway.get("/").await.header("content-type"), Some(kind));
    }
}
