//! `mirror` of a function.

use super::{Proof, leaf::Leaf, named, table};
use crate::harness::{Gateway, Origin, Reply, eventually, gate, origin, request, when};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.mirror.version", version),
        ("function.*.mirror.share", share),
        ("function.*.mirror.methods", methods),
        ("function.*.mirror.concurrency", concurrency),
        ("function.*.mirror.timeout", timeout),
        ("function.*.mirror.max_body", max_body),
    ]
}

fn mirrored(v1: &Origin, v2: &Origin, v3: &Origin, mirror: &str) -> String {
    format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = \"{}\", v3 = \"{}\" }}\nweights = {{ v1 = \"rest\" }}\n\
         mirror = {{ {mirror} }}\n[route.f]\nfunction = \"f\"\n",
        v1.url(),
        v2.url(),
        v3.url()
    )
}

async fn comes_to(gateway: &Gateway, result: &str, count: f64) {
    gateway.counts("gatepost_mirror_total", &[("function", "f"), ("result", result)], count).await;
}

async fn version(leaf: Leaf) {
    let (v1, v2, v3) = (named("v1").await, named("v2").await, named("v3").await);
    let config = mirrored(&v1, &v2, &v3, "LEAF, share = 100");
    let both = leaf.pair(&config, "version = \"v2\"", "version = \"v3\"").start().await;
    for (gateway, (count, copies)) in both.iter().zip([(3, &v2), (5, &v3)]) {
        for _ in 0..count {
            assert_eq!(gateway.get("/").await.text(), "v1");
        }
        comes_to(gateway, "same", count as f64).await;
        assert_eq!(copies.requests(), count);
    }
}

async fn share(leaf: Leaf) {
    let (v1, v2, v3) = (named("v1").await, named("v2").await, named("v3").await);
    let config = mirrored(&v1, &v2, &v3, "version = \"v2\", LEAF");
    let both = leaf.pair(&config, "share = 20", "share = 60").start().await;
    for (gateway, copies) in both.iter().zip([2.0, 6.0]) {
        for _ in 0..10 {
            gateway.get("/").await;
        }
        comes_to(gateway, "same", copies).await;
    }
}

async fn methods(leaf: Leaf) {
    let (v1, v2, v3) = (named("v1").await, named("v2").await, named("v3").await);
    let config = mirrored(&v1, &v2, &v3, "version = \"v2\", share = 100, LEAF");
    let both = leaf.pair(&config, "methods = [\"POST\"]", "methods = [\"GET\", \"POST\"]").start().await;
    for (gateway, copies) in both.iter().zip([1.0, 2.0]) {
        gateway.get("/").await;
        gateway.send(request("POST", "/")).await;
        comes_to(gateway, "same", copies).await;
    }
}

async fn concurrency(leaf: Leaf) {
    let (v1, v3) = (named("v1").await, named("v3").await);
    let held = gate();
    let v2 = origin().reply(Reply::text("").after(&held)).start().await;
    let config = mirrored(&v1, &v2, &v3, "version = \"v2\", share = 100, LEAF");
    let both = leaf.pair(&config, "concurrency = 1", "concurrency = 3").start().await;
    for (gateway, dropped) in both.iter().zip([3.0, 1.0]) {
        for _ in 0..4 {
            gateway.get("/").await;
        }
        comes_to(gateway, "dropped", dropped).await;
    }
}

async fn timeout(leaf: Leaf) {
    let (v1, v3) = (named("v1").await, named("v3").await);
    let held = gate();
    let v2 = origin().reply(Reply::text("").after(&held)).start().await;
    let config = mirrored(&v1, &v2, &v3, "version = \"v2\", share = 100, LEAF");
    let both = leaf.pair(&config, "timeout = \"50ms\"", "timeout = \"20s\"").start().await;
    for (gateway, result) in both.iter().zip(["failed", "same"]) {
        gateway.get("/").await;
        if result == "same" {
            held.open();
        }
        comes_to(gateway, result, 1.0).await;
    }
}

async fn max_body(leaf: Leaf) {
    let (v1, v2, v3) = (named("v1").await, named("v2").await, named("v3").await);
    let config = mirrored(&v1, &v2, &v3, "version = \"v2\", share = 100, methods = [\"POST\"], LEAF");
    let both = leaf.pair(&config, "max_body = \"3B\"", "max_body = \"4B\"").start().await;
    for (gateway, result) in both.iter().zip(["too_large", "same"]) {
        gateway.post("/", "four").await;
        comes_to(gateway, result, 1.0).await;
    }
    eventually("the copy is whole", async || when(v2.requests() == 1 && v2.last().body == b"four")).await;
}
