//! `budget` of a function.

use serde_json::Value;

use super::{Proof, leaf::Leaf, named, one_function, table};
use crate::harness::{Gateway, eventually, origin};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.budget.calls_per_day", calls),
        ("function.*.budget.spend_per_day", spend),
        ("function.*.budget.price.per_million", per_million),
        ("function.*.budget.price.per_gb_second", per_gb_second),
        ("function.*.budget.memory", memory),
        ("function.*.budget.timezone", timezone),
        ("function.*.budget.warn", warn),
        ("function.*.budget.action = alert", action),
        ("function.*.budget.action = shed", shed),
        ("function.*.budget.action = fallback", fallback),
        ("function.*.budget.action = stop", action),
    ]
}

fn budgeted(url: &str, budget: &str) -> String {
    format!("{}[function.f.budget]\n{budget}\n", one_function(url, "fallback = { body = \"instead\" }"))
}

/// What the third request gets: by then two are billed.
async fn third(gateway: &Gateway) -> (u16, String) {
    gateway.get("/").await;
    gateway.get("/").await;
    eventually("both are told", async || (told(gateway).await["calls"].as_u64() >= Some(2)).then_some(())).await;
    let answer = gateway.get("/").await;
    (answer.status, answer.text())
}

async fn told(gateway: &Gateway) -> Value {
    let status: Value = serde_json::from_str(&gateway.ask_admin("/api/v1/status").await.text()).unwrap();
    status["budgets"][0].clone()
}

async fn pair(leaf: Leaf, budget: &str, one: &str, other: &str, expected: [u16; 2]) {
    let function = named("v1").await;
    let both = leaf.pair(&budgeted(&function.url(), budget), one, other).start().await;
    for (gateway, status) in both.iter().zip(expected) {
        assert_eq!(third(gateway).await.0, status);
    }
}

async fn calls(leaf: Leaf) {
    pair(leaf, "LEAF\naction = \"stop\"", "calls_per_day = 2", "calls_per_day = 9", [503, 200]).await;
}

async fn spend(leaf: Leaf) {
    let budget = "LEAF\nprice = { per_million = 1_000_000 }\naction = \"stop\"";
    pair(leaf, budget, "spend_per_day = 2", "spend_per_day = 9.5", [503, 200]).await;
}

async fn per_million(leaf: Leaf) {
    let budget = "spend_per_day = 2\nprice = { LEAF }\naction = \"stop\"";
    pair(leaf, budget, "per_million = 1_000_000", "per_million = 0.5", [503, 200]).await;
}

/// Two calls of some milliseconds each.
async fn by_time(leaf: Leaf, budget: &str, one: &str, other: &str) {
    let function = origin().start().await;
    let both = leaf.pair(&budgeted(&function.url(), budget), one, other).start().await;
    // However quick the machine: a millisecond comes together at last.
    eventually("the dear one is spent", async || (both[0].get("/").await.status == 503).then_some(())).await;
    assert_eq!(third(&both[1]).await.0, 200);
}

async fn per_gb_second(leaf: Leaf) {
    let budget = "spend_per_day = 1\nmemory = \"1GiB\"\nprice = { LEAF }\naction = \"stop\"";
    by_time(leaf, budget, "per_gb_second = 1_000_000", "per_gb_second = 0.000_1").await;
}

async fn memory(leaf: Leaf) {
    let budget = "spend_per_day = 1\nLEAF\nprice = { per_gb_second = 1_000 }\naction = \"stop\"";
    by_time(leaf, budget, "memory = \"1TiB\"", "memory = \"1KiB\"").await;
}

async fn timezone(leaf: Leaf) {
    let function = named("v1").await;
    let config = budgeted(&function.url(), "LEAF\ncalls_per_day = 2");
    let both = leaf.pair(&config, "timezone = \"+08:00\"", "timezone = \"America/Caracas\"").start().await;
    for (gateway, offset) in both.iter().zip(["00:00 +08:00", "00:00 -04:00"]) {
        eventually("its day ends there", async || {
            told(gateway).await["day_ends"].as_str().filter(|ends| ends.ends_with(offset)).map(drop)
        })
        .await;
    }
}

async fn warn(leaf: Leaf) {
    let function = named("v1").await;
    let config = budgeted(&function.url(), "LEAF\ncalls_per_day = 10");
    let both = leaf.pair(&config, "warn = [20]", "warn = [20, 30]").start().await;
    for gateway in &both {
        third(gateway).await;
    }
    both[1].says(&["30 % of the day's budget is used"]).await;
    both[0].says(&["20 % of the day's budget is used"]).await;
    assert!(!both[0].stderr().contains("30 % of"), "{}", both[0].stderr());
}

async fn action(leaf: Leaf) {
    pair(leaf, "calls_per_day = 2\nLEAF", "action = \"stop\"", "action = \"alert\"", [503, 200]).await;
}

async fn shed(leaf: Leaf) {
    pair(leaf, "calls_per_day = 2\nLEAF", "action = \"shed\"", "action = \"alert\"", [503, 200]).await;
}

async fn fallback(leaf: Leaf) {
    let function = named("v1").await;
    let config = budgeted(&function.url(), "calls_per_day = 2\nLEAF");
    let [one, other] = leaf.pair(&config, "action = \"fallback\"", "action = \"stop\"").start().await;
    assert_eq!(third(&one).await.1, "instead");
    assert_ne!(third(&other).await.1, "instead");
}
