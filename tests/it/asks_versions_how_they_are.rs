//! `health.check`: gatepost asks each version whether it is well. Who says no is put out, and only who says yes comes back.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering::SeqCst},
};

use serde_json::Value;

use super::rests_addresses_that_fail::resting;
use crate::harness::{Gateway, Origin, Reply, dns::Dns, eventually, gateway, origin, when};

/// A function that answers its check with the status in the cell, and callers with its name.
async fn checked(name: &'static str, status: u16) -> (Origin, Arc<AtomicU16>) {
    let says = Arc::new(AtomicU16::new(status));
    let cell = says.clone();
    let answers = move |seen: &crate::harness::Seen| match seen.target.as_str() {
        "/base/health?deep=1" => Reply::text("").status(cell.load(SeqCst)),
        _ => Reply::text(name),
    };
    (origin().answers(answers).start().await, says)
}

const CHECK: &str = "check = { path = \"/health?deep=1\", every = \"1s\", timeout = \"500ms\", fall = 1, rise = 2 }";

async fn before(v1: &str, v2: &str, health: &str, more: &str) -> Gateway {
    gateway(format!(
        "[function.f]\nversions = {{ v1 = \"{v1}/base\", v2 = \"{v2}/base\" }}\nweights = {{ v1 = \"rest\", v2 = 50 }}\n\
         health = {{ {health} }}\n{more}\n[route.f]\nfunction = \"f\"\n"
    ))
    .env("GATE_SECRET", "opens")
    .workers(1)
    .start()
    .await
}

/// The row of `version` in a part of the status.
async fn told(gateway: &Gateway, part: &str, version: &str) -> Value {
    let status = gateway.ask_admin("/api/v1/status").await.json();
    let rows = status[part].as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|row| row["version"] == version).unwrap_or(Value::Null)
}

#[tokio::test]
async fn a_canary_that_nobody_calls_is_put_out_by_its_check_and_comes_back_by_it() {
    let (good, _) = checked("v1", 200).await;
    let (canary, says) = checked("v2", 503).await;
    let health = format!("base_ejection_time = \"100ms\", {CHECK}");
    let credential = "credential = \"gate\"\n[credential.gate]\nkind = \"header\"\nheader = \"x-gate\"\nsecret = \"env:GATE_SECRET\"";
    let gateway = before(&good.url(), &canary.url(), &health, credential).await;
    eventually("it is out", async || when(told(&gateway, "releases", "v2").await["state"] == "ejected")).await;
    let row = told(&gateway, "releases", "v2").await;
    assert_eq!(row["detail"], "gets no requests for 100ms, nor before its check passes");
    gateway
        .says(&["function f: v2 fails its check, and gets no requests for 100ms, nor before its check passes"])
        .await;
    gateway.says(&["its check fails: HEAD /health?deep=1 of 127.0.0.1", "503"]).await;
    gateway.counts("gatepost_check_failing", &[("version", "v2")], 1.0).await;
    gateway.counts("gatepost_check_failing", &[("version", "v1")], 0.0).await;
    let probe = canary.last();
    assert_eq!((probe.method.as_str(), probe.target.as_str()), ("HEAD", "/base/health?deep=1"));
    let host = canary.address.to_string();
    for (name, value) in [("host", &*host), ("user-agent", "gatepost-check"), ("x-gate", "opens")] {
        assert_eq!(probe.header(name), Some(value), "{probe:?}");
    }
    // Its rest is long over; as long as its check fails, no caller meets it.
    for _ in 0..3 {
        let probes = canary.requests();
        eventually("another probe", async || when(canary.requests() > probes)).await;
        assert_eq!(gateway.get("/").await.text(), "v1");
    }
    assert!(!gateway.stderr().contains("v2 is tried again"), "{}", gateway.stderr());
    says.store(204, SeqCst);
    gateway.says(&["its check passes again: HEAD /health?deep=1 of 127.0.0.1", "204 in"]).await;
    eventually("it has its share", async || {
        for _ in 0..20 {
            gateway.get("/").await;
        }
        when(told(&gateway, "releases", "v2").await.is_null())
    })
    .await;
    gateway.says(&["function f: v2 is tried again"]).await;
    eventually("the status has it", async || when(told(&gateway, "checks", "v2").await["state"] == "passes")).await;
    let metrics = gateway.metrics().await;
    let of = |result| metrics.sum("gatepost_checks_total", &[("version", "v2"), ("result", result)]);
    assert!(of("passed") >= 2.0 && of("failed") >= 4.0);
}

#[tokio::test]
async fn the_baseline_serves_on_whatever_its_check_says_and_a_throttle_says_nothing() {
    let (baseline, _) = checked("v1", 500).await;
    let (canary, says) = checked("v2", 429).await;
    let gateway = before(&baseline.url(), &canary.url(), CHECK, "").await;
    gateway.says(&["its check fails", "version=v1", "500", "it serves on, for nobody stands in for it"]).await;
    eventually("the canary was asked", async || when(told(&gateway, "checks", "v2").await["state"] == "not known"))
        .await;
    assert!(told(&gateway, "checks", "v2").await["detail"].as_str().unwrap().ends_with("(throttled)"));
    eventually("the status has it", async || when(told(&gateway, "checks", "v1").await["state"] == "fails")).await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!(baseline.seen().iter().any(|seen| seen.target == "/base/"), "callers reach it");
    assert!(!gateway.stderr().contains("gets no requests"), "{}", gateway.stderr());
    // A redirect is an answer, unless somebody asks for more.
    says.store(302, SeqCst);
    eventually("it passes", async || when(told(&gateway, "checks", "v2").await["state"] == "passes")).await;
    gateway.swap("every = \"1s\"", "status = \"2xx\", every = \"1s\"").await;
    eventually("it is out", async || when(told(&gateway, "releases", "v2").await["state"] == "ejected")).await;
    // Without a check it is as its requests say.
    gateway.edit(|text| text.lines().filter(|l| !l.starts_with("health")).map(|l| format!("{l}\n")).collect()).await;
    eventually("nothing is told", async || when(told(&gateway, "checks", "v1").await.is_null())).await;
    assert!(told(&gateway, "releases", "v2").await.is_null());
}

#[tokio::test]
async fn probes_are_calls_of_the_budget_and_end_with_it() {
    let (v1, _) = checked("v1", 200).await;
    let budget = "[function.f.budget]\ncalls_per_day = 3\naction = \"stop\"";
    let gateway = before(&v1.url(), &v1.url(), CHECK, budget).await;
    eventually("it is spent", async || {
        let row = told(&gateway, "checks", "v2").await;
        when(
            row["state"] == "not known"
                && row["detail"].as_str().unwrap().contains("the function's budget of the day is spent"),
        )
    })
    .await;
    let status = gateway.ask_admin("/api/v1/status").await.json();
    let calls = status["budgets"][0]["calls"].as_u64().unwrap();
    // Two versions are asked at a time.
    assert!((3..=4).contains(&calls), "{status}");
    assert_eq!(v1.requests() as u64, calls);
    gateway.get("/").await.is_problem(503, "budget_spent");
    assert!(told(&gateway, "releases", "v2").await.is_null(), "who is not asked is not ill");
}

#[tokio::test]
async fn an_address_that_fails_its_probes_goes_last_until_it_passes_them() {
    let good = origin().reply("good").at("127.0.0.1", 0).start().await;
    let ill = origin().reply(Reply::text("ill").status(503)).at("127.0.0.2", good.port()).start().await;
    let dns = Dns::start().await;
    dns.answer("orders.test", &["127.0.0.1", "127.0.0.2"], 300);
    let check = "check = { path = \"/\", method = \"GET\", every = \"1s\", fall = 1, rise = 1 }";
    let gateway = gateway(format!(
        "[server]\ndns = [\"{}\"]\n[function.f]\nversions = {{ v1 = \"{}\" }}\n\
         health = {{ base_ejection_time = \"100ms\", {check} }}\n[route.f]\nfunction = \"f\"\n",
        dns.address(),
        good.url_as("orders.test")
    ))
    .start()
    .await;
    eventually("it goes last", async || when(resting(&gateway).await == [ill.address.to_string()])).await;
    let callers = ill.seen().iter().filter(|seen| seen.header("user-agent") != Some("gatepost-check")).count();
    assert_eq!(callers, 0, "no caller has met it");
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.text(), "good");
    }
    ill.now_answers(|_| Reply::text("mended"));
    eventually("a probe brings it back", async || when(resting(&gateway).await.is_empty())).await;
    eventually("callers meet it", async || when(gateway.get("/").await.text() == "mended")).await;
}
