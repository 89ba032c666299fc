//! `[function.NAME] health`.

use super::{Proof, leaf::Leaf, named, table};
use crate::harness::{Gateway, Origin, Reply, Seen, eventually, gate, origin, when};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.health.consecutive_failures", consecutive_failures),
        ("function.*.health.base_ejection_time", base_ejection_time),
        ("function.*.health.max_ejection_time", max_ejection_time),
        ("function.*.health.check.path", check_path),
        ("function.*.health.check.method = HEAD", check_head),
        ("function.*.health.check.method = GET", check_get),
        ("function.*.health.check.every", check_every),
        ("function.*.health.check.timeout", check_timeout),
        ("function.*.health.check.status", check_status),
        ("function.*.health.check.status[]", check_statuses),
        ("function.*.health.check.fall", check_fall),
        ("function.*.health.check.rise", check_rise),
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

/// A function whose check answers as `answers` says; one version, so that nobody is out.
async fn checks(answers: impl Fn(&Seen) -> Reply + Send + Sync + 'static, check: &str) -> (String, Origin) {
    let function = origin().answers(answers).start().await;
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\nhealth = {{ check = {{ {check} }} }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    );
    (config, function)
}

/// Waits until the last probe of each found this.
async fn come_to(both: &[Gateway; 2], states: [&str; 2]) {
    for (gateway, state) in both.iter().zip(states) {
        eventually(state, async || {
            let status = gateway.ask_admin("/api/v1/status").await.json();
            when(status["checks"][0]["state"] == state)
        })
        .await;
    }
}

fn no_if(no: bool) -> Reply {
    Reply::text("").status(if no { 503 } else { 204 })
}

async fn check_path(leaf: Leaf) {
    let (config, _f) = checks(|seen| no_if(seen.target == "/b"), "LEAF").await;
    let both = leaf.pair(&config, "path = \"/a\"", "path = \"/b\"").start().await;
    come_to(&both, ["passes", "fails"]).await;
}

async fn check_head(leaf: Leaf) {
    let (config, _f) = checks(|seen| no_if(seen.method != "HEAD"), "path = \"/\", LEAF").await;
    let both = leaf.pair(&config, "method = \"HEAD\"", "method = \"GET\"").start().await;
    come_to(&both, ["passes", "fails"]).await;
}

async fn check_get(leaf: Leaf) {
    let (config, _f) = checks(|seen| no_if(seen.method != "GET"), "path = \"/\", LEAF").await;
    let both = leaf.pair(&config, "method = \"GET\"", "method = \"HEAD\"").start().await;
    come_to(&both, ["passes", "fails"]).await;
}

async fn check_status(leaf: Leaf) {
    let (config, _f) = checks(|_| no_if(false), "path = \"/\", LEAF").await;
    let both = leaf.pair(&config, "status = 204", "status = [200, \"3xx\"]").start().await;
    come_to(&both, ["passes", "fails"]).await;
}

async fn check_statuses(leaf: Leaf) {
    let (config, _f) = checks(|_| no_if(false), "path = \"/\", status = [200, LEAF]").await;
    let both = leaf.pair(&config, "204", "205").start().await;
    come_to(&both, ["passes", "fails"]).await;
}

async fn check_timeout(leaf: Leaf) {
    let door = gate();
    let (config, _f) = checks(move |_| no_if(false).after(&door), "path = \"/\", every = \"1h\", LEAF").await;
    let both = leaf.pair(&config, "timeout = \"100ms\"", "timeout = \"1h\"").start().await;
    come_to(&both, ["fails", "not asked yet"]).await;
}

async fn check_every(leaf: Leaf) {
    let (config, _f) = checks(|_| no_if(false), "path = \"/\", LEAF").await;
    let both = leaf.pair(&config, "every = \"1s\"", "every = \"1h\"").start().await;
    come_to(&both, ["passes", "passes"]).await;
    let probes =
        async |gateway: &Gateway| gateway.metrics().await.sum("gatepost_checks_total", &[("result", "passed")]);
    let before = [probes(&both[0]).await, probes(&both[1]).await];
    eventually("more probes", async || when(probes(&both[0]).await >= before[0] + 3.0)).await;
    assert!(probes(&both[1]).await <= before[1] + 1.0);
}

async fn check_fall(leaf: Leaf) {
    let (config, _f) = checks(|_| no_if(true), "path = \"/\", every = \"1s\", LEAF").await;
    let both = leaf.pair(&config, "fall = 1", "fall = 100").start().await;
    come_to(&both, ["fails", "fails"]).await;
    both[0].counts("gatepost_check_failing", &[], 1.0).await;
    both[1].counts("gatepost_check_failing", &[], 0.0).await;
}

async fn check_rise(leaf: Leaf) {
    let (good, canary) = (named("good").await, origin().reply(Reply::text("").status(503)).start().await);
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = \"{}\" }}\nweights = {{ v1 = \"rest\", v2 = 50 }}\n\
         health = {{ base_ejection_time = \"50ms\", check = {{ path = \"/\", every = \"1s\", fall = 1, LEAF }} }}\n\
         [route.f]\nfunction = \"f\"\n",
        good.url(),
        canary.url()
    );
    let both = leaf.pair(&config, "rise = 1", "rise = 100").start().await;
    for gateway in &both {
        gateway.says(&["v2 fails its check"]).await;
    }
    canary.now_answers(|_| Reply::text("ok"));
    for gateway in &both {
        gateway.says(&["its check passes again"]).await;
    }
    both[0].says(&["v2 is tried again"]).await;
    assert!(!both[1].stderr().contains("v2 is tried again"), "{}", both[1].stderr());
}
