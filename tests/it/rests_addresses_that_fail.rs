//! One of a version's addresses fails while the others answer: it goes last for a while, and longer each time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use serde_json::Value;

use crate::harness::{Gateway, Origin, Reply, dns::Dns, eventually, gateway, origin, when};

/// A name with two addresses, and what is there. The second does `ill` while its switch says so.
struct Two {
    good: Origin,
    ill: Origin,
    is_ill: Arc<AtomicBool>,
    /// It has to live on.
    dns: Dns,
}

async fn two(ill: fn() -> Reply) -> Two {
    let good = origin().reply("good").at("127.0.0.1", 0).start().await;
    let is_ill = Arc::new(AtomicBool::new(true));
    let switch = is_ill.clone();
    let answers = move |_: &_| if switch.load(SeqCst) { ill() } else { Reply::text("mended") };
    let ill = origin().answers(answers).at("127.0.0.2", good.port()).start().await;
    let dns = Dns::start().await;
    dns.answer("orders.test", &["127.0.0.1", "127.0.0.2"], 300);
    Two { good, ill, is_ill, dns }
}

impl Two {
    async fn gateway(&self, lines: &str) -> Gateway {
        gateway(format!(
            "[server]\ndns = [\"{}\"]\n[function.f]\nplatform = \"aliyun-fc3\"\nversions = {{ v1 = \"{}\" }}\n{lines}\n\
             [route.f]\nfunction = \"f\"\n",
            self.dns.address(),
            self.good.url_as("orders.test")
        ))
        .workers(2)
        .start()
        .await
    }
}

fn health(base: &str, max: &str) -> String {
    format!("health = {{ consecutive_failures = 3, base_ejection_time = \"{base}\", max_ejection_time = \"{max}\" }}")
}

/// The addresses that go last, by the status.
pub(super) async fn resting(gateway: &Gateway) -> Vec<String> {
    let status = gateway.ask_admin("/api/v1/status").await.json();
    let rows = status["addresses"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| row["address"].as_str().map(str::to_owned)).collect()
}

async fn ask_until_rests(gateway: &Gateway, count: usize) {
    eventually(&format!("{count} addresses go last"), async || {
        for _ in 0..10 {
            gateway.get("/").await;
        }
        when(resting(gateway).await.len() == count)
    })
    .await;
}

#[tokio::test]
async fn an_address_that_breaks_its_connections_goes_last_and_no_caller_meets_it_any_more() {
    let platform = || Reply::text("").status(500).header("X-Fc-Error-Type", "FcCommonError");
    for (what, ill) in [("reset", Reply::vanish as fn() -> Reply), ("platform", platform)] {
        let two = two(ill).await;
        let gateway = two.gateway(&health("1h", "2h")).await;
        ask_until_rests(&gateway, 1).await;
        assert_eq!(resting(&gateway).await, [two.ill.address.to_string()], "{what}");
        let met = two.ill.requests();
        for _ in 0..40 {
            assert_eq!(gateway.get("/").await.text(), "good", "{what}");
        }
        assert_eq!(two.ill.requests(), met, "{what}");
        gateway.says(&["an address fails while others answer, and goes last for 1h", "127.0.0.2", "version=v1"]).await;
        gateway.counts("gatepost_addresses_ejected", &[("version", "v1")], 1.0).await;
        gateway.counts("gatepost_address_ejections_total", &[("version", "v1")], 1.0).await;
        // The version itself is as well as ever.
        gateway.counts("gatepost_ejected", &[("version", "v1")], 0.0).await;
        // A reload keeps that; one that asks for no health forgives.
        gateway.swap("consecutive_failures = 3", "consecutive_failures = 4").await;
        assert_eq!(resting(&gateway).await.len(), 1);
        two.is_ill.store(false, SeqCst);
        gateway
            .edit(|text| text.lines().filter(|l| !l.starts_with("health")).map(|l| format!("{l}\n")).collect())
            .await;
        eventually("both take their turns", async || when(gateway.get("/").await.text() == "mended")).await;
        eventually("the status has forgotten it", async || when(resting(&gateway).await.is_empty())).await;
    }
}

#[tokio::test]
async fn it_is_tried_by_one_request_and_rests_for_twice_as_long_until_that_goes_well() {
    let two = two(Reply::vanish).await;
    let gateway = two.gateway(&health("300ms", "1200ms")).await;
    let words = "an address fails while others answer, and goes last for ";
    for rest in ["300ms", "600ms", "1.2s"] {
        eventually(rest, async || {
            gateway.get("/").await;
            when(gateway.stderr().contains(&format!("{words}{rest}")))
        })
        .await;
    }
    two.is_ill.store(false, SeqCst);
    eventually("it is back", async || {
        gateway.get("/").await;
        when(resting(&gateway).await.is_empty())
    })
    .await;
    gateway.says(&["an address takes its turn again", "127.0.0.2"]).await;
    gateway.counts("gatepost_addresses_ejected", &[], 0.0).await;
    let met = two.ill.requests();
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!((8..=12).contains(&(two.ill.requests() - met)), "they take turns: {}", two.ill.requests() - met);
}

#[tokio::test]
async fn a_function_that_fails_at_every_address_loses_none_and_its_own_failures_say_nothing_of_one() {
    let two = two(Reply::vanish).await;
    two.good.now_answers(|_| Reply::vanish());
    let gateway = two.gateway(&health("1h", "2h")).await;
    for _ in 0..40 {
        assert_eq!(gateway.get("/").await.status, 502);
    }
    two.is_ill.store(false, SeqCst);
    two.good.now_answers(|_| Reply::text("").status(502).header("X-Fc-Error-Type", "UnhandledInvocationError"));
    for _ in 0..40 {
        gateway.get("/").await;
    }
    let classes: Vec<Value> = gateway.log(80).await.iter().map(|line| line["class"].clone()).collect();
    assert!(classes[40..].iter().filter(|class| *class == "function").count() >= 15, "{classes:?}");
    gateway.counts("gatepost_address_ejections_total", &[], 0.0).await;
    assert_eq!(resting(&gateway).await, Vec::<String>::new());
}
