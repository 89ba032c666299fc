//! `[cluster]`, and limits of it.

use super::{Proof, credential::places, leaf::Leaf, named, table};
use crate::harness::{Gateway, Origin, authority, eventually, redis::Redis, when};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("cluster.redis", redis),
        ("cluster.username", username),
        ("cluster.password = env:", password),
        ("cluster.password = file:", password),
        ("cluster.password = credential:", password),
        ("cluster.ca", ca),
        ("cluster.prefix", prefix),
        ("cluster.member", member),
        ("limit.*.scope = cluster", scope),
        ("limit.*.scope = instance", scope),
        ("route.*.limits.scope = cluster", scope),
        ("route.*.limits.scope = instance", scope),
    ]
}

/// What a gatepost in a cluster has: these lines of `[cluster]`.
fn config(f: &Origin, lines: &str) -> String {
    format!("[cluster]\n{lines}\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n", f.url())
}

async fn answers(gateway: &Gateway, answers: bool) {
    gateway.counts("gatepost_cluster_up", &[], f64::from(u8::from(answers))).await;
}

/// All keys that a store has.
async fn keys(redis: &Redis) -> String {
    redis.ask(&["KEYS *"]).await
}

async fn redis(leaf: Leaf) {
    let (f, one, other) = (named("v1").await, Redis::start().await, Redis::start().await);
    let [a, b] = [&one, &other].map(|redis| format!("redis = \"{}/3\"", redis.url()));
    let both = leaf.pair(&config(&f, "LEAF"), &a, &b).start().await;
    for (gateway, redis) in both.iter().zip([&one, &other]) {
        answers(gateway, true).await;
        // In the database that the URL names.
        assert!(redis.ask(&["SELECT 3", "KEYS *"]).await.contains("gatepost:members"));
        assert!(!keys(redis).await.contains("gatepost:members"));
    }
}

async fn prefix(leaf: Leaf) {
    let (f, redis) = (named("v1").await, Redis::start().await);
    let lines = format!("redis = \"{}\"\nLEAF", redis.url());
    let both = leaf.pair(&config(&f, &lines), "prefix = \"red\"", "prefix = \"blue:1\"").start().await;
    for gateway in &both {
        gateway.counts("gatepost_cluster_members", &[], 1.0).await;
        answers(gateway, true).await;
    }
    let keys = keys(&redis).await;
    assert!(keys.contains("red:members") && keys.contains("blue:1:members"), "{keys}");
}

async fn member(leaf: Leaf) {
    let (f, redis) = (named("v1").await, Redis::start().await);
    let lines = format!("redis = \"{}\"\nLEAF", redis.url());
    let both = leaf.pair(&config(&f, &lines), "member = \"east-1\"", "member = \"west-1\"").start().await;
    for (gateway, name) in both.iter().zip(["east-1", "west-1"]) {
        eventually(&format!("it calls itself {name}"), async || {
            let status: serde_json::Value =
                serde_json::from_str(&gateway.ask_admin("/api/v1/status").await.text()).unwrap();
            let rows = status["cluster"]["members"].as_array().cloned().unwrap_or_default();
            when(rows.iter().any(|row| row["here"] == true && row["name"] == name))
        })
        .await;
    }
}

async fn password(leaf: Leaf) {
    let (f, redis) = (named("v1").await, Redis::with(&["requirepass open".to_owned()]).await);
    let (lines, also) = places(&leaf, ["open", "hunter2"]);
    let text = config(&f, &format!("redis = \"{}\"\nLEAF", redis.url()));
    let both = leaf.pair(&text, &lines[0], &lines[1]).also(also).start().await;
    answers(&both[0], true).await;
    answers(&both[1], false).await;
    both[1].says(&["does not answer", "Password authentication failed"]).await;
    assert!(!both[1].stderr().contains("hunter2"));
}

async fn username(leaf: Leaf) {
    let users = ["user gate on >open ~* +@all".to_owned(), "user default off".to_owned()];
    let (f, redis) = (named("v1").await, Redis::with(&users).await);
    let lines = format!("redis = \"{}\"\npassword = \"env:RIGHT\"\nLEAF", redis.url());
    let pair = leaf.pair(&config(&f, &lines), "username = \"gate\"", "username = \"post\"");
    let both = pair.also(|build| build.env("RIGHT", "open")).start().await;
    answers(&both[0], true).await;
    answers(&both[1], false).await;
}

async fn ca(leaf: Leaf) {
    let (f, right, wrong) = (named("v1").await, authority(), authority());
    let own = right.leaf(&["127.0.0.1"]);
    let redis = Redis::with_tls(&own.cert, &own.key).await;
    let lines = format!("redis = \"rediss://{}\"\nLEAF", redis.address);
    let [a, b] = [&right, &wrong].map(|authority| format!("ca = \"{}\"", authority.ca().display()));
    let both = leaf.pair(&config(&f, &lines), &a, &b).start().await;
    answers(&both[0], true).await;
    answers(&both[1], false).await;
    both[1].says(&["does not answer", "certificate"]).await;
}

/// A third gatepost uses the limit up: of the cluster nothing is left for others, who know of it.
async fn scope(leaf: Leaf) {
    let (f, redis) = (named("v1").await, Redis::start().await);
    let limit = "rate = \"1/h\"\nburst = 3\nLEAF";
    let rules = match leaf.name.starts_with("limit.") {
        true => format!("limits = [{{ use = \"one\" }}]\n[limit.one]\n{limit}\n"),
        false => format!("limits = [{{ {} }}]\n", limit.replace('\n', ", ")),
    };
    let text = config(&f, &format!("redis = \"{}\"", redis.url())) + &rules;
    let third = crate::harness::gateway(text.replace("LEAF", "scope = \"cluster\"")).start().await;
    answers(&third, true).await;
    let mut passed = 0;
    eventually("the third has used it up", async || {
        passed += usize::from(third.get("/").await.status == 200);
        when(passed == 3)
    })
    .await;
    let both = leaf.pair(&text, "scope = \"cluster\"", "scope = \"instance\"").start().await;
    let mut counted = [0, 0];
    for (gateway, counted) in both.iter().zip(&mut counted) {
        for _ in 0..9 {
            *counted += usize::from(gateway.get("/").await.status == 200);
        }
    }
    // Of the cluster's a lease at most, which is one of three among three.
    assert_eq!(counted[1], 3);
    assert!(counted[0] < 3, "{counted:?}");
}
