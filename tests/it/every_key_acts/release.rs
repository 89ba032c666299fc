//! `[function.NAME]`: which version a request reaches.

use super::{Proof, leaf::Leaf, named, table};
use crate::harness::{Gateway, Origin, Request, get};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.weights.*", weight),
        ("function.*.weights.* = rest", rest),
        ("function.*.baseline", baseline),
        ("function.*.sticky.by = header:", by_header),
        ("function.*.sticky.by = cookie:", by_cookie),
        ("function.*.sticky.by = client_ip", by_client_ip),
        ("function.*.sticky.group", group),
        ("function.*.sticky.issue_cookie", issue_cookie),
        ("function.*.override.header", override_header),
        ("function.*.override.cookie", override_cookie),
        ("function.*.override.networks", override_networks),
        ("function.*.override.client", override_client),
        ("function.*.override.from", override_from),
        ("function.*.override.version", override_version),
    ]
}

/// Versions that answer with their names; drop them last.
struct Versions(Vec<Origin>);

impl Versions {
    async fn start() -> Self {
        Self(vec![named("v1").await, named("v2").await, named("v3").await])
    }

    /// All three, with these lines of the function.
    fn config(&self, lines: &str) -> String {
        let urls: Vec<_> = self.0.iter().zip(1..).map(|(f, n)| format!("v{n} = \"{}\"", f.url())).collect();
        format!("[function.f]\nversions = {{ {} }}\n{lines}\n[route.f]\nfunction = \"f\"\n", urls.join(", "))
    }
}

/// What so many requests reached.
async fn picks(gateway: &Gateway, requests: usize, ask: impl Fn(usize) -> Request) -> Vec<String> {
    let mut caller = gateway.connect().await;
    let mut all = Vec::new();
    for n in 0..requests {
        let answer = caller.send(ask(n)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        all.push(answer.text());
    }
    all
}

fn all_alike(picks: &[String]) -> bool {
    picks.iter().all(|pick| *pick == picks[0])
}

async fn weight(leaf: Leaf) {
    let versions = Versions::start().await;
    let config = versions.config("weights = { v1 = \"rest\", LEAF }");
    let both = leaf.pair(&config, "v2 = 0", "v2 = 25.5").start().await;
    for (gateway, share, reached) in [(&both[0], 0.0, 0), (&both[1], 25.5, 51)] {
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.sum("gatepost_release_share", &[("function", "f"), ("version", "v2")]), share);
        let of_v2 = picks(gateway, 200, |_| get("/")).await.iter().filter(|pick| *pick == "v2").count();
        assert!(of_v2.abs_diff(reached) <= 1, "{of_v2}");
    }
}

/// It is what is left; a number must come to that itself.
async fn rest(leaf: Leaf) {
    let versions = Versions::start().await;
    let config = versions.config("weights = { LEAF, v2 = 40 }");
    let one = leaf.pair(&config, "v1 = \"rest\"", "v1 = 50").refuses(&["90", "100"]).await;
    let of_v1 = picks(&one, 100, |_| get("/")).await.iter().filter(|pick| *pick == "v1").count();
    assert!(of_v1.abs_diff(60) <= 1, "{of_v1}");
}

fn caller(n: usize) -> Request {
    get("/").header("x-openid", &format!("caller-{n}"))
}

/// Sticky callers lie around it: the others grow from the ends.
async fn baseline(leaf: Leaf) {
    let versions = Versions::start().await;
    let config =
        versions.config("weights = { v1 = 30, v2 = 30, v3 = 40 }\nsticky = { by = [\"header:x-openid\"] }\nLEAF");
    let both = leaf.pair(&config, "baseline = \"v1\"", "baseline = \"v3\"").start().await;
    assert_ne!(picks(&both[0], 60, caller).await, picks(&both[1], 60, caller).await);
}

/// Requests that are alike in the one key and differ in the other.
async fn by(leaf: Leaf, by: &str, ask: impl Fn(usize) -> Request) {
    let versions = Versions::start().await;
    let config = versions.config("weights = { v1 = 50, v2 = 50 }\nsticky = { LEAF }");
    let both = leaf.pair(&config, &format!("by = [\"{by}\"]"), "by = [\"header:x-other\"]").start().await;
    let ask = |n: usize| ask(n).header("x-other", &format!("n{n}"));
    assert!(all_alike(&picks(&both[0], 30, ask).await));
    assert!(!all_alike(&picks(&both[1], 30, ask).await));
}

async fn by_header(leaf: Leaf) {
    by(leaf, "header:x-openid", |_| caller(7)).await;
}

async fn by_cookie(leaf: Leaf) {
    by(leaf, "cookie:uid", |_| get("/").header("cookie", "uid=7")).await;
}

async fn by_client_ip(leaf: Leaf) {
    by(leaf, "client_ip", |_| get("/")).await;
}

async fn group(leaf: Leaf) {
    let versions = Versions::start().await;
    let config = versions.config("weights = { v1 = 50, v2 = 50 }\nsticky = { by = [\"header:x-openid\"], LEAF }");
    let both = leaf.pair(&config, "group = \"one\"", "group = \"other\"").start().await;
    assert_ne!(picks(&both[0], 40, caller).await, picks(&both[1], 40, caller).await);
}

async fn issue_cookie(leaf: Leaf) {
    let versions = Versions::start().await;
    let config = versions.config("weights = { v1 = 50, v2 = 50 }\nsticky = { by = [\"header:x-openid\"], LEAF }");
    let both = leaf.pair(&config, "issue_cookie = true", "issue_cookie = false").start().await;
    let [with, without] = [both[0].get("/").await, both[1].get("/").await];
    let set = with.header("set-cookie").unwrap();
    assert!(!without.fields.has("set-cookie"));
    let cookie = set.split(';').next().unwrap();
    let again = picks(&both[0], 20, |_| get("/").header("cookie", cookie)).await;
    assert!(all_alike(&again) && again[0] == with.text());
}

/// An override to v2 with either line; the request meets the one alone.
async fn overridden(leaf: Leaf, rest: &str, one: &str, other: &str, ask: impl Fn(usize) -> Request) {
    let versions = Versions::start().await;
    let config = versions.config(&format!("weights = {{ v1 = 100 }}\noverride = [{{ LEAF, {rest} }}]"))
        + "[client.a]\nnetworks = [\"127.0.0.1\"]\n[client.b]\nnetworks = [\"127.0.0.2\"]\n";
    let both = leaf.pair(&config, one, other).start().await;
    assert_eq!(picks(&both[0], 3, &ask).await, ["v2", "v2", "v2"]);
    assert_eq!(picks(&both[1], 3, &ask).await, ["v1", "v1", "v1"]);
    let lines = [both[0].log(3).await, both[1].log(3).await];
    assert_eq!((&lines[0][0]["picked_by"], &lines[1][0]["picked_by"]), (&"override".into(), &"weight".into()));
}

const TO_V2: &str = "version = \"v2\"";

async fn override_header(leaf: Leaf) {
    let ask = |_| get("/").header("x-tester", "yes");
    overridden(leaf, TO_V2, "header = \"x-tester: yes\"", "header = \"x-tester: no\"", ask).await;
}

async fn override_cookie(leaf: Leaf) {
    let ask = |_| get("/").header("cookie", "canary=1");
    overridden(leaf, TO_V2, "cookie = \"canary=1\"", "cookie = \"canary=2\"", ask).await;
}

async fn override_networks(leaf: Leaf) {
    overridden(leaf, TO_V2, "networks = [\"127.0.0.1\"]", "networks = [\"127.0.0.2\"]", |_| get("/")).await;
}

async fn override_client(leaf: Leaf) {
    overridden(leaf, TO_V2, "client = \"a\"", "client = \"b\"", |_| get("/")).await;
}

async fn override_from(leaf: Leaf) {
    let rest = format!("header = \"x-tester\", {TO_V2}");
    let ask = |_| get("/").header("x-tester", "1");
    overridden(leaf, &rest, "from = [\"127.0.0.1\"]", "from = [\"127.0.0.2\"]", ask).await;
}

async fn override_version(leaf: Leaf) {
    let versions = Versions::start().await;
    let config = versions.config("weights = { v1 = 100 }\noverride = [{ header = \"x-tester\", LEAF }]");
    let both = leaf.pair(&config, "version = \"v2\"", "version = \"v3\"").start().await;
    let ask = |_| get("/").header("x-tester", "1");
    assert_eq!(picks(&both[0], 1, ask).await, ["v2"]);
    assert_eq!(picks(&both[1], 1, ask).await, ["v3"]);
}
