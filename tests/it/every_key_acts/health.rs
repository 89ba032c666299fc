//! `[function.NAME] health`.

use super::{Proof, leaf::Leaf, named, table};
use crate::harness::{Gateway, Origin, Reply, eventually, origin, when};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.health.consecutive_failures", consecutive_failures),
        ("function.*.health.base_ejection_time", base_ejection_time),
        ("function.*.health.max_ejection_time", max_ejection_time),
    ]
}

/// Half of the requests go to a version that fails.
async fn half_fails(health: &str) -> (String, Origin, Origin) {
    let (good, bad) = (named("good").await, origin().reply(Reply::text("").status(500)).start().await);
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = \"{}\" }}\nweights = {{ v1 = \"rest\", v2 = 50 }}\n\
         health = {{ {health} }}\n[route.f]\nfunction = \"f\"\n",
        good.url(),
        bad.url()
    );
    (config, good, bad)
}

/// Asks until the service log has these words so many times.
async fn ask_until(gateway: &Gateway, words: &str, times: usize) {
    eventually(words, async || {
        for _ in 0..20 {
            gateway.get("/").await;
        }
        when(gateway.stderr().matches(words).count() >= times)
    })
    .await;
}

async fn consecutive_failures(leaf: Leaf) {
    let (config, _good, _bad) = half_fails("LEAF").await;
    let pair = leaf.pair(&config, "consecutive_failures = 2", "consecutive_failures = 1000");
    let both = pair.start().await;
    ask_until(&both[0], "v2 fails, and gets no requests", 1).await;
    for _ in 0..100 {
        both[1].get("/").await;
    }
    assert!(!both[1].stderr().contains("v2 fails"), "{}", both[1].stderr());
}

async fn base_ejection_time(leaf: Leaf) {
    let (config, _good, _bad) = half_fails("consecutive_failures = 1, LEAF, max_ejection_time = \"2h\"").await;
    let both = leaf.pair(&config, "base_ejection_time = \"50ms\"", "base_ejection_time = \"1h\"").start().await;
    ask_until(&both[1], "v2 fails, and gets no requests for 1h", 1).await;
    ask_until(&both[0], "v2 is tried again", 1).await;
    assert!(!both[1].stderr().contains("tried again"));
}

async fn max_ejection_time(leaf: Leaf) {
    let (config, _good, _bad) = half_fails("consecutive_failures = 1, base_ejection_time = \"50ms\", LEAF").await;
    let both = leaf.pair(&config, "max_ejection_time = \"50ms\"", "max_ejection_time = \"1h\"").start().await;
    ask_until(&both[1], "v2 fails, and gets no requests for 100ms", 1).await;
    ask_until(&both[0], "v2 fails, and gets no requests for 50ms", 3).await;
    assert!(!both[0].stderr().contains("100ms"));
}
