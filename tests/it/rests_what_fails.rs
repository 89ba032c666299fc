//! A version that fails gets no requests for a while, and is tried again with a few.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};

use crate::harness::{Gateway, Origin, Reply, eventually, gateway, gateway::log_lines, get, origin, when};

const HEALTH: &str =
    "health = { consecutive_failures = 3, base_ejection_time = \"300ms\", max_ejection_time = \"1s\" }";

/// A function that fails while the switch says so.
async fn failing(name: &'static str) -> (Origin, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(true));
    let switch = fails.clone();
    let function = origin()
        .answers(move |_| if switch.load(SeqCst) { Reply::text("").status(500) } else { Reply::text(name) })
        .start()
        .await;
    (function, fails)
}

async fn before(v1: &str, v2: &str, lines: &str) -> Gateway {
    gateway(format!(
        "[function.f]\nversions = {{ v1 = \"{v1}\", v2 = \"{v2}\" }}\nweights = {{ v1 = \"rest\", v2 = 50 }}\n{lines}\n\
         [route.f]\nfunction = \"f\"\n"
    ))
    .workers(2)
    .start()
    .await
}

/// What the status says of a version: its weight, whose word that is, and how it stands.
async fn status(gateway: &Gateway, version: &str) -> (f64, String, Option<String>) {
    let status = gateway.ask_admin("/api/v1/status").await.json();
    let of = |key: &str| {
        let rows = status[key].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["version"] == version).unwrap_or(Value::Null)
    };
    let row = of("functions");
    let stands = of("releases")["state"].as_str().map(str::to_owned);
    (row["weight"].as_f64().unwrap(), row["weights_from"].as_str().unwrap().to_owned(), stands)
}

/// Asks until v2 stands like this.
async fn ask_until(gateway: &Gateway, stands: Option<&str>) {
    eventually(&format!("v2 is {stands:?}"), async || {
        for _ in 0..20 {
            gateway.get("/").await;
        }
        when(status(gateway, "v2").await.2.as_deref() == stands)
    })
    .await;
}

#[tokio::test]
async fn a_failing_canary_gives_its_share_to_the_baseline_and_gets_it_back_when_it_is_well() {
    let good = origin().reply("v1").start().await;
    let (bad, fails) = failing("v2").await;
    let gateway = before(&good.url(), &bad.url(), &HEALTH.replace("300ms", "2s").replace("1s", "10s")).await;
    ask_until(&gateway, Some("ejected")).await;
    assert_eq!(status(&gateway, "v2").await, (0.0, "ejection".to_owned(), Some("ejected".to_owned())));
    assert_eq!(status(&gateway, "v1").await.0, 100.0);
    gateway.says(&["function f: v2 fails, and gets no requests for 2s"]).await;
    gateway.counts("gatepost_ejected", &[("version", "v2")], 1.0).await;
    gateway.counts("gatepost_ejections_total", &[("version", "v2")], 1.0).await;
    gateway.counts("gatepost_release_share", &[("version", "v2")], 0.0).await;
    for _ in 0..50 {
        assert_eq!(gateway.get("/").await.text(), "v1");
    }
    fails.store(false, SeqCst);
    ask_until(&gateway, None).await;
    assert_eq!(status(&gateway, "v2").await, (50.0, "file".to_owned(), None));
    gateway.says(&["function f: v2 is tried again"]).await;
    gateway.says(&["function f: v2 gets its requests again"]).await;
    gateway.counts("gatepost_ejected", &[("version", "v2")], 0.0).await;
    let asked = bad.requests();
    for _ in 0..40 {
        gateway.get("/").await;
    }
    assert!((18..=22).contains(&(bad.requests() - asked)), "dealt as before: {}", bad.requests() - asked);
    let history = std::fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
    assert!(history.contains("v2 fails, and gets no requests for 2s"), "{history}");
}

#[tokio::test]
async fn what_still_fails_is_tried_with_a_trickle_only_and_rests_longer() {
    let good = origin().reply("v1").start().await;
    let (bad, _) = failing("v2").await;
    let gateway = before(&good.url(), &bad.url(), HEALTH).await;
    ask_until(&gateway, Some("ejected")).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let before = bad.requests();
    eventually("it rests for the longest time", async || {
        for _ in 0..20 {
            gateway.get("/").await;
            asked.fetch_add(1, SeqCst);
        }
        when(gateway.stderr().matches("v2 fails, and gets no requests for 1s").count() >= 2)
    })
    .await;
    let (asked, came) = (asked.load(SeqCst), bad.requests() - before);
    // 5 % while it is tried, nothing while it rests; a few may be dealt together until the look.
    assert!(came * 10 <= asked + 100, "{came} of {asked} came to it");
    assert!(gateway.stderr().contains("no requests for 600ms"), "{}", gateway.stderr());
    eventually("the trickle is told", async || {
        let lines = log_lines(&gateway.dir().join("access.log"));
        when(lines.iter().any(|line| line["version"] == "v2" && line["weights_from"] == "ejection"))
    })
    .await;
}

#[tokio::test]
async fn sticky_callers_of_a_failing_canary_go_to_the_baseline_and_come_back() {
    let good = origin().reply("v1").start().await;
    let (bad, fails) = failing("v2").await;
    let lines =
        format!("sticky = {{ by = [\"header:x-uid\"] }}\n{}", HEALTH.replace("300ms", "2s").replace("1s", "10s"));
    let gateway = before(&good.url(), &bad.url(), &lines).await;
    fails.store(false, SeqCst);
    let who = async || {
        let mut of_v2 = Vec::new();
        for n in 0..40 {
            let uid = n.to_string();
            if gateway.send(get("/").header("x-uid", &uid)).await.text() == "v2" {
                of_v2.push(uid);
            }
        }
        of_v2
    };
    let own = who().await;
    assert!(own.len() > 5);
    fails.store(true, SeqCst);
    eventually("it is out", async || {
        who().await;
        when(status(&gateway, "v2").await.2.as_deref() == Some("ejected"))
    })
    .await;
    fails.store(false, SeqCst);
    assert_eq!(gateway.send(get("/").header("x-uid", &own[0])).await.text(), "v1");
    // Who comes during the trickle may be any of its own, and nobody else.
    eventually("it is back", async || {
        assert!(who().await.iter().all(|uid| own.contains(uid)));
        for n in 0..400 {
            gateway.send(get("/").header("x-uid", &n.to_string())).await;
        }
        when(status(&gateway, "v2").await.2.is_none())
    })
    .await;
    assert_eq!(who().await, own);
}

#[tokio::test]
async fn the_baseline_serves_whatever_it_does_and_an_override_reaches_who_rests() {
    let (bad, _) = failing("v1").await;
    let (canary, _) = failing("v2").await;
    let lines = format!(
        "override = [{{ header = \"x-tester\", version = \"v2\" }}]\n{}",
        HEALTH.replace("300ms", "1h").replace("1s", "1h")
    );
    let gateway = before(&bad.url(), &canary.url(), &lines).await;
    ask_until(&gateway, Some("ejected")).await;
    assert_eq!(status(&gateway, "v1").await, (100.0, "ejection".to_owned(), None));
    let asked = canary.requests();
    assert_eq!(gateway.send(get("/").header("x-tester", "1")).await.status, 500);
    assert_eq!(canary.requests(), asked + 1);
    // A reload keeps it, unless the version is another or nobody asks for health any more.
    gateway.swap("v2 = 50", "v2 = 40").await;
    assert_eq!(status(&gateway, "v2").await, (0.0, "ejection".to_owned(), Some("ejected".to_owned())));
    gateway
        .edit(|text| text.lines().filter(|line| !line.starts_with("health")).map(|line| format!("{line}\n")).collect())
        .await;
    eventually("it has its share", async || when(status(&gateway, "v2").await == (40.0, "file".to_owned(), None)))
        .await;
}

#[tokio::test]
async fn throttles_and_callers_mistakes_say_nothing_of_a_version() {
    let good = origin().reply("v1").start().await;
    let canary = origin().reply(Reply::text("").status(404)).start().await;
    let gateway = before(&good.url(), &canary.url(), HEALTH).await;
    for status in [404, 429] {
        canary.now_answers(move |_| Reply::text("").status(status));
        for _ in 0..40 {
            gateway.get("/").await;
        }
    }
    assert!(gateway.log(80).await.iter().all(|line| line["weights_from"] == json!("file")));
    canary.now_answers(|_| Reply::text("").status(500));
    ask_until(&gateway, Some("ejected")).await;
    gateway.counts("gatepost_ejections_total", &[("version", "v2")], 1.0).await;
}
