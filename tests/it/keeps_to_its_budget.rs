//! A day's budget: what is billed is counted, over restarts too, and when it is spent the config says what becomes of the callers.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Gateway, Origin, Reply, eventually, gate, gateway, origin, when};

fn with(url: &str, budget: &str, route: &str) -> String {
    format!(
        "[function.f]\nplatform = \"aliyun-fc3\"\nversions = {{ v1 = \"{url}\" }}\n[function.f.budget]\n{budget}\n\
         [route.f]\nfunction = \"f\"\n{route}\n"
    )
}

async fn budgeted(function: &Origin, budget: &str) -> Gateway {
    gateway(with(&function.url(), budget, "")).start().await
}

/// The function's row in `status`.
async fn told(gateway: &Gateway) -> Value {
    let status: Value = serde_json::from_str(&gateway.ask_admin("/api/v1/status").await.text()).unwrap();
    status["budgets"][0].clone()
}

/// What is in the file, once it has so many calls.
async fn kept(gateway: &Gateway, calls: u64) -> Value {
    let path = gateway.state_dir().join("budgets.json");
    eventually(&format!("{calls} calls are kept"), async || {
        let stored: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).unwrap();
        (stored["functions"]["f"]["calls"] == calls).then_some(stored)
    })
    .await
}

#[tokio::test]
async fn stop_lets_in_exactly_as_many_as_may_and_says_when_to_come_back() {
    let function = origin().start().await;
    let gateway = budgeted(&function, "calls_per_day = 5\naction = \"stop\"\ntimezone = \"Asia/Shanghai\"").await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let refused = gateway.get("/").await;
    refused.is_problem(503, "budget_spent");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    assert_eq!(function.requests(), 5);
    let lines = gateway.log(6).await;
    let refused = lines.iter().find(|line| line["status"] == 503).unwrap();
    assert_eq!((&refused["reason"], &refused["class"]), (&"budget_spent".into(), &"refused".into()));

    let told = told(&gateway).await;
    assert_eq!(told["used_percent"], 100.0, "{told}");
    assert_eq!((&told["calls"], &told["calls_per_day"], &told["refused"]), (&5.into(), &5.into(), &1.into()), "{told}");
    assert!(told["day_ends"].as_str().unwrap().ends_with("00:00 +08:00"), "{told}");
    gateway
        .says(&["the day's budget is spent: its requests are refused until the day ends", "percent=100", "calls=5"])
        .await;
    gateway.counts("gatepost_budget_used_ratio", &[("function", "f")], 1.0).await;
    gateway.counts("gatepost_budget_calls", &[("function", "f")], 5.0).await;
    gateway.counts("gatepost_budget_refused_total", &[("function", "f")], 1.0).await;

    // Whoever raises it opens the door at once, and what was counted stays counted.
    gateway.swap("calls_per_day = 5", "calls_per_day = 6").await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.get("/").await.is_problem(503, "budget_spent");
    // Money spent or not: an alert refuses nobody.
    gateway.swap("\"stop\"", "\"alert\"").await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn what_the_platform_does_not_bill_is_not_counted() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/throttled" => Reply::text("").status(429).header("X-Fc-Error-Type", "FcCommonError"),
            "/platform" => Reply::text("").status(500).header("X-Fc-Error-Type", "FcCommonError"),
            "/config" => Reply::text("").status(404).header("X-Fc-Error-Type", "FcCommonError"),
            "/fails" => Reply::text("").status(502).header("X-Fc-Error-Type", "UnhandledInvocationError"),
            _ => Reply::text("ok"),
        })
        .start()
        .await;
    let gateway = budgeted(&function, "calls_per_day = 2\naction = \"stop\"").await;
    for path in ["/throttled", "/platform", "/config", "/throttled"] {
        assert_ne!(gateway.get(path).await.reason(), "budget_spent", "{path}");
    }
    gateway.counts("gatepost_budget_calls", &[], 0.0).await;
    assert_eq!(gateway.get("/fails").await.status, 502, "it ran, and is billed");
    gateway.counts("gatepost_budget_calls", &[], 1.0).await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.get("/").await.is_problem(503, "budget_spent");
    // Nor what never came there.
    gateway.swap("calls_per_day = 2", "calls_per_day = 3").await;
    function.die().await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await.reason(), "upstream_unreachable");
        // It is given back once it is over, and that may be after its answer arrived.
        gateway.counts("gatepost_budget_calls", &[], 2.0).await;
    }
}

/// Nobody says of each answer whether it is billed; whoever has seen his bill can.
#[tokio::test]
async fn a_rule_says_what_is_billed_where_its_class_does_not() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/flow" => Reply::text("").status(503).header("X-Fc-Error-Type", "FcCommonError"),
            "/sleeps" => Reply::text("").status(299),
            _ => Reply::text("ok"),
        })
        .start()
        .await;
    let rules = "[{ status = 503, class = \"throttled\", retry = \"any\", billed = true }, { status = 299, class = \"ok\", billed = false }]";
    let gateway = gateway(
        with(&function.url(), "calls_per_day = 3\naction = \"stop\"", "")
            .replace("[function.f.budget]", &format!("classify = {rules}\n[function.f.budget]")),
    )
    .start()
    .await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/sleeps").await.status, 299);
    }
    gateway.counts("gatepost_budget_calls", &[], 0.0).await;
    assert_eq!(gateway.get("/flow").await.status, 503);
    gateway.counts("gatepost_budget_calls", &[], 1.0).await;
    // Each attempt is billed; and what is forgotten with an attempt is its rule as well.
    let retries = "retries = { attempts = 2, budget = 100, floor = \"1000/s\", backoff = \"1ms\" }";
    gateway.swap("[function.f.budget]", &format!("{retries}\n[function.f.budget]")).await;
    assert_eq!(gateway.get("/flow").await.status, 503);
    gateway.counts("gatepost_budget_calls", &[], 3.0).await;
    gateway.get("/").await.is_problem(503, "budget_spent");
}

#[tokio::test]
async fn money_is_counted_by_calls_and_by_time_in_memory() {
    let door = gate();
    let waits = door.clone();
    let function = origin()
        .answers(move |seen| if seen.target == "/slow" { Reply::text("late").after(&waits) } else { Reply::text("ok") })
        .start()
        .await;
    // 2 a call, and 1,000 a GB and second, of 1 GB.
    let price = "price = { per_million = 2_000_000, per_gb_second = 1_000 }\nmemory = \"1GiB\"";
    let gateway = budgeted(&function, &format!("spend_per_day = 100\n{price}\naction = \"stop\"")).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let mut slow = gateway.connect().await;
    slow.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it is under way", async || when(function.requests() == 2)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    door.open();
    assert_eq!(slow.answer().await.status, 200);
    let spent = eventually("both are paid", async || {
        let told = told(&gateway).await;
        let spend = told["spend"].as_f64().unwrap();
        (spend >= 2.0 + 2.0 + 200.0).then_some(told)
    })
    .await;
    assert_eq!(spent["calls"], 2);
    assert!(spent["used_percent"].as_f64().unwrap() >= 204.0, "{spent}");
    gateway.get("/").await.is_problem(503, "budget_spent");
}

#[tokio::test]
async fn fallback_has_the_route_answer_and_other_failures_stay_what_they_are() {
    let function = origin().start().await;
    let gateway = gateway(with(
        &function.url(),
        "calls_per_day = 1\naction = \"fallback\"",
        "fallback = { status = 200, body = \"sold out\" }",
    ))
    .start()
    .await;
    assert_eq!(gateway.get("/").await.text(), "ok");
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.reason()), (200, "sold out", "budget_spent"));
    gateway.says(&["its routes' fallbacks answer until the day ends"]).await;
    // Who says stop means stop.
    gateway.swap("action = \"fallback\"", "action = \"stop\"").await;
    gateway.get("/").await.is_problem(503, "budget_spent");
    assert_eq!(function.requests(), 1);
}

#[tokio::test]
async fn shed_refuses_a_share_of_what_is_too_much_for_the_rest_of_the_day() {
    let function = origin().start().await;
    let gateway = budgeted(&function, "calls_per_day = 1000\naction = \"shed\"\nwarn = []").await;
    let mut caller = gateway.connect().await;
    // Up to 80 % nobody is refused.
    for _ in 0..800 {
        assert_eq!(caller.send("/").await.status, 200);
    }
    // From there on, as many as come in a second would be far too much for the day (unless it ends this very minute).
    let refused = eventually("some are refused", async || {
        let answer = caller.send("/").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert_eq!(refused.reason(), "budget_spent");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}: some still get through");
    let told = told(&gateway).await;
    assert!(told["used_percent"].as_f64().unwrap() < 100.0, "{told}");
}

#[tokio::test]
async fn what_is_counted_outlives_a_stop_and_all_but_seconds_a_kill() {
    let function = origin().start().await;
    let mut first = budgeted(&function, "calls_per_day = 3\naction = \"stop\"\nwarn = [60]").await;
    assert_eq!(first.get("/").await.status, 200);
    assert_eq!(first.get("/").await.status, 200);
    first.says(&["60 % of the day's budget is used"]).await;
    first.terminate();
    assert!(first.exit().await.success());
    assert_eq!(kept(&first, 2).await["complete"], true);

    let mut second = first.again().await;
    assert_eq!(second.get("/").await.status, 200);
    second.get("/").await.is_problem(503, "budget_spent");
    assert_eq!(kept(&second, 3).await["complete"], false);
    assert!(!second.stderr().contains("out of order"), "{}", second.stderr());
    assert!(!second.stderr().contains("60 % of"), "told before: {}", second.stderr());
    second.signal(Signal::KILL);
    second.exit().await;

    let third = second.again().await;
    third.says(&["the last process ended out of order", "5 s"]).await;
    third.get("/").await.is_problem(503, "budget_spent");
    // Whatever happens to the file: it is said, and it serves.
    let mut third = third;
    third.terminate();
    third.exit().await;
    std::fs::write(third.state_dir().join("budgets.json"), "{\"complete\": tr").unwrap();
    let fourth = third.again().await;
    fourth.says(&["cannot read what was counted of budgets: today begins at 0", "budgets.json"]).await;
    assert_eq!(fourth.get("/").await.status, 200);
}

#[tokio::test]
async fn yesterdays_calls_are_yesterdays_and_a_function_may_lose_its_budget_and_get_it_back() {
    let function = origin().start().await;
    let mut gateway = budgeted(&function, "calls_per_day = 2\naction = \"stop\"").await;
    assert_eq!(gateway.get("/").await.status, 200);
    let budget = "[function.f.budget]\ncalls_per_day = 2\naction = \"stop\"\n";
    gateway.edit(|text| text.replace(budget, "")).await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.edit(|text| format!("{text}\n{budget}")).await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.get("/").await.is_problem(503, "budget_spent");
    gateway.terminate();
    gateway.exit().await;
    let path = gateway.state_dir().join("budgets.json");
    let stored = json!({ "complete": true, "functions": { "f": { "date": "2020-01-01", "calls": 2, "spend": 0, "told_percent": 100 } } });
    std::fs::write(path, stored.to_string()).unwrap();
    let again = gateway.again().await;
    assert_eq!(again.get("/").await.status, 200);
}

#[tokio::test]
async fn each_attempt_that_is_billed_is_a_call() {
    let function = origin()
        .answers(|seen| match (seen.target.as_str(), seen.number % 2) {
            ("/throttled", 0) => Reply::text("").status(429).header("X-Fc-Error-Type", "FcCommonError"),
            ("/fails", _) => Reply::text("").status(502).header("X-Fc-Error-Type", "UnhandledInvocationError"),
            ("/breaks", 0) => Reply::vanish(),
            _ => Reply::text("ok"),
        })
        .start()
        .await;
    let text = with(&function.url(), "calls_per_day = 6\naction = \"stop\"", "");
    let retries =
        "retries = { attempts = 4, budget = 100, floor = \"100/s\", backoff = \"1ms\" }\npool = { idle = \"0s\" }";
    let gateway =
        gateway(text.replace("[function.f.budget]", &format!("{retries}\n[function.f.budget]"))).start().await;
    // The first attempt was not billed: one call of two.
    assert_eq!(gateway.get("/throttled").await.status, 200);
    gateway.counts("gatepost_budget_calls", &[], 1.0).await;
    // A connection that broke may have had its request run.
    assert_eq!(gateway.get("/breaks").await.status, 200);
    gateway.counts("gatepost_budget_calls", &[], 3.0).await;
    // It ran each time; for a fourth there is no money left, and the caller gets the answer that there is.
    assert_eq!(gateway.get("/fails").await.status, 502);
    gateway.counts("gatepost_budget_calls", &[], 6.0).await;
    assert_eq!((function.requests(), gateway.log(3).await[2]["attempts"].as_u64()), (2 + 2 + 3, Some(3)));
    gateway.get("/").await.is_problem(503, "budget_spent");
    gateway.counts("gatepost_budget_refused_total", &[], 1.0).await;
}

#[tokio::test]
async fn a_spent_budget_refuses_nobody_whom_the_cache_can_answer() {
    let function = origin().reply(Reply::text("page")).start().await;
    let cache = "cache = { ttl = \"1h\" }";
    // One worker: the log's lines are in the order of the requests.
    let config = with(&function.url(), "calls_per_day = 1\naction = \"stop\"", cache);
    let gateway = gateway(config).workers(1).start().await;
    assert_eq!(gateway.get("/page").await.text(), "page");
    for _ in 0..20 {
        assert_eq!(gateway.get("/page").await.text(), "page");
    }
    gateway.get("/other").await.is_problem(503, "budget_spent");
    assert_eq!(function.requests(), 1);
    gateway.counts("gatepost_budget_calls", &[], 1.0).await;
    gateway.counts("gatepost_budget_refused_total", &[], 1.0).await;
    // Those who ask at once for what nobody has are refused at once, and none waits for the other.
    let ask = || gateway.get("/none");
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    for answer in [one, two, three] {
        answer.is_problem(503, "budget_spent");
    }
    // What has gone stale costs nothing either.
    gateway.swap("ttl = \"1h\"", "ttl = \"1ms\", stale_if_error = \"1h\"").await;
    assert_eq!(gateway.get("/page").await.text(), "page");
    assert_eq!((function.requests(), &gateway.log(26).await[25]["cache"]), (1, &"stale".into()));
}
