//! `[function.NAME] retries`, and what a rule says of it.

use std::time::{Duration, Instant};

use super::{Proof, leaf::Leaf, table};
use crate::harness::{Gateway, Origin, Reply, get, origin, request};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.retries.attempts", attempts),
        ("function.*.retries.budget", budget),
        ("function.*.retries.floor", floor),
        ("function.*.retries.backoff", backoff),
        ("function.*.retries.max_wait", max_wait),
        ("function.*.classify.retry = any", any),
        ("function.*.classify.retry = idempotent", idempotent),
        ("function.*.classify.retry = never", never),
    ]
}

fn at(function: &Origin, lines: &str) -> String {
    format!("[function.f]\nversions = {{ v1 = \"{}\" }}\n{lines}\n[route.f]\nfunction = \"f\"\n", function.url())
}

async fn throttling() -> Origin {
    origin().reply(Reply::text("").status(429)).start().await
}

/// How often each asks for one request by `method`.
async fn asked(both: &[Gateway; 2], method: &str) -> [u64; 2] {
    let mut attempts = Vec::new();
    for gateway in both {
        gateway.send(request(method, "/")).await;
        attempts.push(gateway.log_line().await["attempts"].as_u64().unwrap());
    }
    attempts.try_into().unwrap()
}

async fn attempts(leaf: Leaf) {
    let f = throttling().await;
    let config = at(&f, "retries = { LEAF, backoff = \"1ms\" }");
    let both = leaf.pair(&config, "attempts = 4", "attempts = 1").start().await;
    assert_eq!(asked(&both, "POST").await, [4, 1]);
}

/// How many of 20 requests each sends again.
async fn again_of_20(both: &[Gateway; 2]) -> [u64; 2] {
    let mut again = Vec::new();
    for gateway in both {
        for _ in 0..20 {
            gateway.get("/").await;
        }
        let lines = gateway.log(20).await;
        again.push(lines.iter().filter_map(|line| line["attempts"].as_u64()).sum::<u64>() - 20);
    }
    again.try_into().unwrap()
}

async fn budget(leaf: Leaf) {
    let f = throttling().await;
    let config = at(&f, "retries = { LEAF, floor = \"1/min\", backoff = \"1ms\" }");
    let both = leaf.pair(&config, "budget = 50", "budget = 0").start().await;
    // The first of two is half a retry's worth.
    assert_eq!(again_of_20(&both).await, [10, 0]);
}

async fn floor(leaf: Leaf) {
    let f = throttling().await;
    let config = at(&f, "retries = { LEAF, budget = 0, backoff = \"1ms\" }");
    let both = leaf.pair(&config, "floor = \"100/s\"", "floor = \"1/min\"").start().await;
    assert_eq!(again_of_20(&both).await, [20, 0]);
}

async fn backoff(leaf: Leaf) {
    let f = throttling().await;
    let config = at(&f, "retries = { attempts = 5, LEAF, floor = \"100/s\", max_wait = \"1s\" }");
    let both = leaf.pair(&config, "backoff = \"1ms\"", "backoff = \"1s\"").start().await;
    let mut took = Vec::new();
    for gateway in &both {
        let started = Instant::now();
        assert_eq!(gateway.get("/").await.status, 429);
        took.push(started.elapsed());
    }
    // Four waits of up to a second each: all together as short as this with a chance of one in 200,000.
    assert!(took[1] > Duration::from_millis(100), "{took:?}");
}

async fn max_wait(leaf: Leaf) {
    let f = origin().reply(Reply::text("").status(429).header("Retry-After", "1")).start().await;
    let config = at(&f, "retries = { LEAF, backoff = \"1ms\" }");
    let both = leaf.pair(&config, "max_wait = \"1s\"", "max_wait = \"900ms\"").start().await;
    assert_eq!(asked(&both, "GET").await, [2, 1]);
}

/// What each asks by GET and by POST of a function that answers 503.
async fn after_503(leaf: Leaf, other: &str) -> [[u64; 2]; 2] {
    let word = leaf.name.split(" = ").nth(1).unwrap().to_owned();
    let f = origin().reply(Reply::text("").status(503)).start().await;
    let rule = "classify = [{ status = 503, class = \"throttled\", LEAF }]";
    let config = at(&f, &format!("{rule}\nretries = {{ floor = \"100/s\", backoff = \"1ms\" }}"));
    let words = [word.as_str(), other].map(|word| format!("retry = \"{word}\""));
    let both = leaf.pair(&config, &words[0], &words[1]).start().await;
    let mut asked = [[0; 2]; 2];
    for (gateway, asked) in both.iter().zip(&mut asked) {
        for (method, asked) in ["GET", "POST"].into_iter().zip(asked) {
            let before = f.requests();
            gateway.send(if method == "GET" { get("/") } else { request(method, "/") }).await;
            *asked = (f.requests() - before) as u64;
        }
    }
    asked
}

async fn any(leaf: Leaf) {
    assert_eq!(after_503(leaf, "idempotent").await, [[2, 2], [2, 1]]);
}

async fn idempotent(leaf: Leaf) {
    assert_eq!(after_503(leaf, "never").await, [[2, 1], [1, 1]]);
}

async fn never(leaf: Leaf) {
    assert_eq!(after_503(leaf, "any").await, [[1, 1], [2, 2]]);
}
