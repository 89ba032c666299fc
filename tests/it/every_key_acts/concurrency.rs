//! `concurrency` of a function and a version, and `criticality` of a route.

use super::{Proof, leaf::Leaf, table};
use crate::harness::{Connection, Gateway, Origin, Reply, get, origin, origin::Seen, reply::Gate};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.concurrency.max", max),
        ("function.*.concurrency.queue", queue),
        ("function.*.concurrency.wait", wait),
        ("function.*.concurrency.growth.rate", growth_rate),
        ("function.*.concurrency.growth.burst", growth_burst),
        ("function.*.concurrency.adaptive.min", adaptive_min),
        ("function.*.concurrency.adaptive.decrease", adaptive_decrease),
        ("function.*.concurrency.adaptive.increase", adaptive_increase),
        ("function.*.versions.*.concurrency.max", version_max),
        ("route.*.criticality = critical", critical),
        ("route.*.criticality = normal", not_critical),
        ("route.*.criticality = bulk", not_critical),
    ]
}

/// A function that answers when the gate opens, and at once to `/quick`, and with 429 to `/throttle`.
async fn slow(never: &Gate) -> Origin {
    let never = never.clone();
    let script = move |seen: &Seen| match seen.target.as_str() {
        "/quick" => Reply::text("ok"),
        "/throttle" => Reply::text("too many").status(429),
        _ => Reply::text("ok").after(&never),
    };
    origin().answers(script).start().await
}

fn function(f: &Origin, concurrency: &str) -> String {
    format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\nconcurrency = {{ {concurrency} }}\n[route.f]\nfunction = \"f\"\n",
        f.url()
    )
}

/// Begins a request that the function answers never, and waits until it is under way, or in the queue.
async fn holds(gateway: &Gateway, target: &str) -> Connection {
    let held = |metrics: crate::harness::gateway::Metrics| {
        let sum = |name| metrics.sum(name, &[("function", "f")]);
        sum("gatepost_concurrency_in_use") + sum("gatepost_queue_length")
    };
    let before = held(gateway.metrics().await);
    let mut connection = gateway.connect().await;
    connection.write(get(target).bytes()).await;
    crate::harness::eventually("it is held", async || crate::harness::when(held(gateway.metrics().await) > before))
        .await;
    connection
}

async fn refuses_and_serves([one, other]: &[Gateway; 2]) {
    one.get("/quick").await.is_problem(503, "overloaded");
    assert_eq!(other.get("/quick").await.text(), "ok");
}

/// With one call under way there is room for another, or not.
async fn has_room(leaf: Leaf, concurrency: &str, words: [&str; 2]) {
    let never = crate::harness::gate();
    let f = slow(&never).await;
    let both = leaf.pair(&function(&f, concurrency), words[0], words[1]).start().await;
    let _held = [holds(&both[0], "/").await, holds(&both[1], "/").await];
    refuses_and_serves(&both).await;
}

async fn max(leaf: Leaf) {
    has_room(leaf, "queue = 0, LEAF", ["max = 1", "max = 2"]).await;
}

async fn growth_burst(leaf: Leaf) {
    has_room(leaf, "queue = 0, growth = { rate = \"1/d\", LEAF }", ["burst = 1", "burst = 2"]).await;
}

async fn growth_rate(leaf: Leaf) {
    let words = ["rate = \"1/d\"", "rate = \"100/s\""];
    has_room(leaf, "wait = \"1s\", growth = { burst = 1, LEAF }", words).await;
}

async fn version_max(leaf: Leaf) {
    let never = crate::harness::gate();
    let f = slow(&never).await;
    let config = format!(
        "[function.f]\nversions = {{ v1 = {{ url = \"{}\", concurrency = {{ LEAF }} }} }}\nconcurrency = {{ max = 9, queue = 0 }}\n\
         [route.f]\nfunction = \"f\"\n",
        f.url()
    );
    let both = leaf.pair(&config, "max = 1", "max = 2").start().await;
    let _held = [holds(&both[0], "/").await, holds(&both[1], "/").await];
    refuses_and_serves(&both).await;
}

async fn queue(leaf: Leaf) {
    let never = crate::harness::gate();
    let f = slow(&never).await;
    let config = function(&f, "max = 1, wait = \"50s\", LEAF");
    let both = leaf.pair(&config, "queue = 0", "queue = 1").start().await;
    let _held = [holds(&both[0], "/").await, holds(&both[1], "/").await];
    both[0].get("/quick").await.is_problem(503, "overloaded");
    let mut waits = holds(&both[1], "/quick").await;
    never.open();
    assert_eq!(waits.answer().await.text(), "ok");
}

async fn wait(leaf: Leaf) {
    let never = crate::harness::gate();
    let f = slow(&never).await;
    let both = leaf.pair(&function(&f, "max = 1, LEAF"), "wait = \"50ms\"", "wait = \"50s\"").start().await;
    let _held = [holds(&both[0], "/").await, holds(&both[1], "/").await];
    let mut waits = holds(&both[1], "/quick").await;
    both[0].get("/quick").await.is_problem(503, "overloaded");
    never.open();
    assert_eq!(waits.answer().await.text(), "ok");
}

/// The limit in force.
async fn limits(both: &[Gateway; 2], limits: [f64; 2]) {
    for (gateway, limit) in both.iter().zip(limits) {
        for name in ["gatepost_concurrency_limit", "gatepost_concurrency_adaptive_limit"] {
            gateway.counts(name, &[("function", "f")], limit).await;
        }
    }
}

async fn adaptive_min(leaf: Leaf) {
    let never = crate::harness::gate();
    let f = slow(&never).await;
    let config = function(&f, "max = 100, queue = 0, adaptive = { increase = \"1/d\", LEAF }");
    let both = leaf.pair(&config, "min = 1", "min = 2").start().await;
    for gateway in &both {
        assert_eq!(gateway.get("/throttle").await.status, 429);
    }
    limits(&both, [1.0, 2.0]).await;
    let _held = [holds(&both[0], "/").await, holds(&both[1], "/").await];
    refuses_and_serves(&both).await;
}

async fn adaptive_decrease(leaf: Leaf) {
    let never = crate::harness::gate();
    let f = slow(&never).await;
    let config = function(&f, "max = 100, queue = 0, adaptive = { min = 1, increase = \"1/d\", LEAF }");
    let both = leaf.pair(&config, "decrease = 90", "decrease = 40").start().await;
    for gateway in &both {
        let _held = [holds(gateway, "/").await, holds(gateway, "/").await, holds(gateway, "/").await];
        let _more = holds(gateway, "/").await;
        // The fifth.
        assert_eq!(gateway.get("/throttle").await.status, 429);
    }
    limits(&both, [1.0, 3.0]).await;
}

async fn adaptive_increase(leaf: Leaf) {
    let never = crate::harness::gate();
    let f = slow(&never).await;
    let config = function(&f, "max = 100, queue = 0, adaptive = { min = 1, LEAF }");
    let both = leaf.pair(&config, "increase = \"1/d\"", "increase = \"1000/s\"").start().await;
    for gateway in &both {
        assert_eq!(gateway.get("/throttle").await.status, 429);
    }
    limits(&both, [1.0, 100.0]).await;
    let _held = [holds(&both[0], "/").await, holds(&both[1], "/").await];
    refuses_and_serves(&both).await;
}

/// A queue that holds one, who is of the usual kind.
async fn displaces(leaf: Leaf, words: [&str; 2], which: usize) {
    let never = crate::harness::gate();
    let f = slow(&never).await;
    let config = format!(
        "{}[route.mine]\npath = \"/quick\"\nfunction = \"f\"\nLEAF\n",
        function(&f, "max = 1, queue = 1, wait = \"50s\"")
    );
    let both = leaf.pair(&config, words[0], words[1]).start().await;
    for (n, gateway) in both.iter().enumerate() {
        let _held = holds(gateway, "/").await;
        let mut waits = holds(gateway, "/").await;
        if n == which {
            let mut mine = gateway.connect().await;
            mine.write(get("/quick").bytes()).await;
            waits.answer().await.is_problem(503, "overloaded");
        } else {
            gateway.get("/quick").await.is_problem(503, "overloaded");
        }
    }
}

async fn critical(leaf: Leaf) {
    displaces(leaf, ["criticality = \"critical\"", "criticality = \"normal\""], 0).await;
}

async fn not_critical(leaf: Leaf) {
    let word = leaf.name.rsplit(' ').next().unwrap_or_default();
    let word = format!("criticality = \"{word}\"");
    displaces(leaf, [&word, "criticality = \"critical\""], 1).await;
}
