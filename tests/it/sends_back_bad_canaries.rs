//! A canary that is worse than its baseline is sent back by gatepost itself, and told of.

use std::{cell::Cell, time::Duration};

use crate::harness::{Gateway, Origin, Reply, eventually, gateway, get, origin, when};

/// A function `orders` with a stable v41 and a canary v42 that keeps its callers.
struct Release {
    gateway: Gateway,
    v41: Origin,
    v42: Origin,
    callers: Cell<usize>,
}

async fn release(weight: &str, guard: &str) -> Release {
    let v41 = origin().reply("v41").start().await;
    let v42 = origin().reply("v42").start().await;
    let gateway = gateway(format!(
        "[function.orders]\nsticky = {{ by = [\"header:x-openid\"] }}\n{guard}\n\
         [function.orders.versions]\nv41 = \"{}\"\nv42 = \"{}\"\n\
         [function.orders.weights]\nv41 = \"rest\"\nv42 = {weight}\n[route.orders]\nfunction = \"orders\"\n",
        v41.url(),
        v42.url()
    ))
    .workers(2)
    .start()
    .await;
    Release { gateway, v41, v42, callers: Cell::new(0) }
}

const GUARD: &str = "guard = { action = \"rollback\", tolerate = 1.5 }";

impl Release {
    /// So many callers who were never here before, each with one request. Says how many of them v42 has answered.
    async fn callers(&self, count: usize) -> usize {
        let mut connection = self.gateway.connect().await;
        let before = self.v42.requests();
        for _ in 0..count {
            let caller = self.callers.replace(self.callers.get() + 1);
            connection.send(get("/").header("x-openid", &format!("caller-{caller}"))).await;
        }
        self.v42.requests() - before
    }

    async fn share(&self) -> f64 {
        let labels = [("function", "orders"), ("version", "v42")];
        self.gateway.metrics().await.sum("gatepost_release_share", &labels)
    }

    async fn says(&self, verdict: &str) -> bool {
        let labels = [("function", "orders"), ("version", "v42"), ("verdict", verdict)];
        self.gateway.metrics().await.sum("gatepost_guard_verdict", &labels) == 1.0
    }

    async fn alarms(&self) -> f64 {
        self.gateway.metrics().await.sum("gatepost_guard_alarms_total", &[("function", "orders"), ("version", "v42")])
    }

    /// Callers come until the guard has sent v42 back.
    async fn is_sent_back(&self) {
        eventually("v42 is sent back", async || {
            self.callers(20).await;
            when(self.share().await == 0.0)
        })
        .await;
    }

    /// Callers come for so many seconds in which the guard looks.
    async fn seconds(&self, seconds: usize) {
        for _ in 0..seconds {
            self.callers(40).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn fails(origin: &Origin, status: u16) {
    origin.now_answers(move |_| Reply::text("no").status(status));
}

#[tokio::test]
async fn a_canary_that_fails_loses_its_callers_and_everybody_hears_why() {
    let release = release("20", GUARD).await;
    assert!(release.callers(40).await > 0, "v42 has callers");
    fails(&release.v42, 500);
    release.is_sent_back().await;
    assert_eq!(release.callers(100).await, 0, "nobody reaches v42 any more");
    // Two workers write: the last line need not be the last request's.
    let lines = release.gateway.all_told(release.callers.get()).await;
    let latched: Vec<_> = lines.iter().filter(|line| line["weights_from"] == "latch").collect();
    assert!(latched.len() >= 100 && latched.iter().all(|line| line["version"] == "v41"), "{}", latched.len());
    let told = release.gateway.says(&["function orders: v42 is sent back and latched by guard: v42 fails"]).await;
    assert!(told.contains("ERROR"), "{told}");
    let history = std::fs::read_to_string(release.gateway.state_dir().join("history.jsonl")).unwrap();
    let entry: serde_json::Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    assert!(entry.to_string().contains("errors_counted"), "{entry}");
    assert_eq!(release.alarms().await, 1.0);
}

#[tokio::test]
async fn who_is_told_only_keeps_the_share() {
    let release = release("20", "guard = { action = \"alert\" }").await;
    fails(&release.v42, 502);
    eventually("the alarm", async || {
        release.callers(20).await;
        when(release.alarms().await == 1.0)
    })
    .await;
    release.gateway.says(&["guard: v42 fails", "it keeps its share"]).await;
    assert!(release.says("worse").await);
    assert_eq!(release.share().await, 20.0);
    let status = release.gateway.ask_admin("/api/v1/status").await.json();
    let guard = &status["guards"][0];
    assert_eq!((&guard["version"], &guard["verdict"]), (&"v42".into(), &"worse".into()), "{status}");
    assert!(guard["says"].as_str().unwrap().starts_with("v42 fails"), "{status}");
}

#[tokio::test]
async fn what_both_versions_suffer_sends_nobody_back() {
    let release = release("50", GUARD).await;
    fails(&release.v41, 500);
    fails(&release.v42, 500);
    eventually("it is too much for a promotion", async || {
        release.callers(40).await;
        when(release.says("too_many_errors").await)
    })
    .await;
    release.seconds(2).await;
    assert_eq!((release.share().await, release.alarms().await), (50.0, 0.0));
}

#[tokio::test]
async fn throttles_are_not_the_canary_s_fault() {
    let release = release("50", GUARD).await;
    fails(&release.v42, 429);
    release.seconds(3).await;
    assert_eq!((release.share().await, release.alarms().await), (50.0, 0.0));
}

#[tokio::test]
async fn one_caller_who_tries_again_and_again_is_one() {
    let release = release("50", GUARD).await;
    fails(&release.v42, 500);
    let mut connection = release.gateway.connect().await;
    // The first whose version is v42.
    let mut caller = 0;
    while connection.send(get("/").header("x-openid", &format!("c{caller}"))).await.status == 200 {
        caller += 1;
    }
    for _ in 0..3 {
        for _ in 0..40 {
            connection.send(get("/").header("x-openid", &format!("c{caller}"))).await;
        }
        release.v42.now_answers(|_| "v42".into());
        release.callers(40).await;
        fails(&release.v42, 500);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((release.share().await, release.alarms().await), (50.0, 0.0));
}

#[tokio::test]
async fn evidence_outlives_a_reload_that_is_about_something_else() {
    let release = release("50", GUARD).await;
    fails(&release.v42, 500);
    let counted = async || {
        let status = release.gateway.ask_admin("/api/v1/status").await.json();
        status["guards"][0]["evidence"]["canary"]["errors_counted"].as_u64().unwrap_or(0)
    };
    while release.v42.requests() == 0 {
        release.callers(1).await;
    }
    eventually("one error is counted", async || when(counted().await == 1)).await;
    release.gateway.edit(|text| text.replace("[route.orders]", "[route.orders]\npriority = 1")).await;
    release.callers(0).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(counted().await, 1, "and kept");
    release.is_sent_back().await;
}

#[tokio::test]
async fn a_restart_forgets_nothing_and_a_higher_number_gives_another_chance() {
    let mut release = release("20", GUARD).await;
    fails(&release.v42, 500);
    release.is_sent_back().await;
    release.gateway.stop().await;
    release.gateway = release.gateway.again().await;
    assert_eq!(release.callers(50).await, 0);
    assert_eq!(release.share().await, 0.0);
    release.gateway.swap("v42 = 20", "v42 = 10").await;
    assert_eq!(release.callers(50).await, 0, "a lower number is no new try");
    release.v42.now_answers(|_| "v42".into());
    release.gateway.swap("v42 = 10", "v42 = 30").await;
    assert!(release.callers(50).await > 0);
    assert_eq!(release.share().await, 30.0);
    release.seconds(2).await;
    assert_eq!(release.share().await, 30.0, "it is judged anew");
    fails(&release.v42, 500);
    release.is_sent_back().await;
}

#[tokio::test]
async fn whoever_reaches_the_canary_by_an_override_is_no_sample() {
    let lines = "guard = {}\noverride = [{ header = \"x-tester\", version = \"v42\" }]";
    let release = release("20", lines).await;
    fails(&release.v42, 500);
    let mut connection = release.gateway.connect().await;
    for n in 0..60 {
        let ask = get("/").header("x-tester", "1").header("x-openid", &format!("tester-{n}"));
        assert_eq!(connection.send(ask).await.status, 500);
    }
    release.v42.now_answers(|_| "v42".into());
    release.seconds(2).await;
    assert_eq!((release.share().await, release.alarms().await), (20.0, 0.0));
}

#[tokio::test]
async fn nobody_meets_the_canary_after_the_verdict_and_only_resume_or_a_higher_number_lifts_it() {
    let mut release = release("20", GUARD).await;
    fails(&release.v42, 500);
    release.is_sent_back().await;
    release.callers(50).await;
    let history = std::fs::read_to_string(release.gateway.state_dir().join("history.jsonl")).unwrap();
    let verdict: serde_json::Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    let at = |of: &serde_json::Value| of.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let verdict = at(&verdict["at"]);
    let late: Vec<_> = (release.gateway.all_told(release.callers.get()).await.into_iter())
        .filter(|line| line["version"] == "v42")
        .filter(|line| {
            let took = jiff::SignedDuration::from_millis(line["total_ms"].as_f64().unwrap() as i64);
            at(&line["ts"]) - took > verdict + jiff::SignedDuration::from_secs(1)
        })
        .collect();
    assert!(late.is_empty(), "began a second after the verdict, and later: {late:#?}");
    // Whatever else is edited, and a restart, leave it alone.
    release.gateway.edit(|text| text.replace("[route.orders]", "[route.orders]\npriority = 1")).await;
    release.gateway.swap("v42 = 20", "v42 = 15").await;
    release.gateway.swap("tolerate = 1.5", "tolerate = 2.0").await;
    release.gateway.stop().await;
    release.gateway = release.gateway.again().await;
    assert_eq!(release.callers(50).await, 0);
    release.v42.now_answers(|_| "v42".into());
    let resume = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["resume", "orders", "-m", "it is mended", "--config"])
        .arg(&release.gateway.config)
        .output()
        .unwrap();
    assert!(resume.status.success(), "{resume:?}");
    assert!(release.callers(100).await > 0, "in force when the command is back");
    assert_eq!(release.share().await, 15.0);
}
