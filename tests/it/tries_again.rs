//! What comes to nothing is tried again where that is safe, within a budget, and every try is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    Connection, Gateway, Origin, Reply, authority, dns::Dns, faulty::Dice, full, gateway, get, h2::H2, origin, post,
    reply::Cut, request,
};

type Field = Option<(&'static str, &'static str)>;

/// The table of `platforms.md`, B2: platform, status and field, class; attempts of a GET and a POST.
const SIGNALS: [(&str, u16, Field, &str, [u64; 2]); 26] = [
    ("aliyun-fc3", 429, FC, "throttled", [2, 2]),
    ("aliyun-fc3", 503, FC, "throttled", [2, 2]),
    ("aliyun-fc3", 500, FC, "platform", [2, 1]),
    ("aliyun-fc3", 502, Some(("X-Fc-Error-Type", "UnhandledInvocationError")), "function", [2, 1]),
    ("aliyun-fc3", 200, Some(("X-Fc-Error-Type", "InitializationError")), "function", [1, 1]),
    ("aliyun-fc3", 400, FC, "config", [1, 1]),
    ("aliyun-fc3", 403, FC, "config", [1, 1]),
    ("aliyun-fc3", 404, FC, "config", [1, 1]),
    ("tencent-scf", 429, None, "throttled", [2, 2]),
    ("tencent-scf", 432, None, "throttled", [2, 2]),
    ("tencent-scf", 430, None, "function", [1, 1]),
    ("tencent-scf", 433, None, "function", [1, 1]),
    ("tencent-scf", 434, None, "function", [1, 1]),
    ("tencent-scf", 402, None, "account", [1, 1]),
    ("tencent-scf", 410, None, "account", [1, 1]),
    ("tencent-scf", 406, None, "config", [1, 1]),
    ("tencent-scf", 435, None, "config", [1, 1]),
    ("tencent-scf", 500, Some(("X-Scf-Error-Type", "ScfSysError")), "platform", [2, 1]),
    ("tencent-scf", 502, Some(("X-Scf-Error-Type", "UnhandledInvocationErr")), "function", [2, 1]),
    ("aws-lambda-url", 429, Some(("x-amzn-ErrorType", "TooManyRequestsException")), "throttled", [2, 2]),
    ("aws-lambda-url", 502, None, "function", [1, 1]),
    ("aws-lambda-url", 200, Some(("X-Amz-Function-Error", "Unhandled")), "function", [1, 1]),
    ("cloud-run", 503, None, "throttled", [2, 2]),
    ("cloud-run", 504, None, "timeout", [1, 1]),
    ("generic", 503, None, "function", [1, 1]),
    ("generic", 404, None, "client_error", [1, 1]),
];

const FC: Field = Some(("X-Fc-Error-Type", "FcCommonError"));

/// Quick, and with more budget than any story needs.
const RETRIES: &str = "retries = { attempts = 2, budget = 10, floor = \"100/s\", backoff = \"1ms\" }";

/// A gatepost before a function at `url`, with these lines.
async fn before(url: &str, lines: &str) -> Gateway {
    gateway(format!("[function.f]\nversions = {{ v1 = \"{url}\" }}\n{lines}\n[route.f]\nfunction = \"f\"\n"))
        .workers(1)
        .start()
        .await
}

#[tokio::test]
async fn each_outcome_is_tried_again_or_not_as_the_table_says() {
    let mut platforms: Vec<&str> = SIGNALS.iter().map(|signal| signal.0).collect();
    platforms.dedup();
    for platform in platforms {
        let function = origin().start().await;
        let gateway = before(&function.url(), &format!("platform = \"{platform}\"\n{RETRIES}")).await;
        let mut told = 0;
        for (_, status, field, class, attempts) in SIGNALS.iter().filter(|signal| signal.0 == platform) {
            for (method, attempts) in ["GET", "POST"].into_iter().zip(attempts) {
                let reply = Reply::text("its own words").status(*status);
                let reply = field.iter().fold(reply, |reply, (name, value)| reply.header(name, value));
                function.now_answers(move |_| reply.clone());
                let before = function.requests() as u64;
                let answer = gateway.send(request(method, "/")).await;
                let case = format!("{method} on {platform} {status} {field:?}");
                assert_eq!((answer.status, answer.text().as_str()), (*status, "its own words"), "{case}");
                assert_eq!(function.requests() as u64 - before, *attempts, "{case}");
                told += 1;
                let line = gateway.log(told).await.pop().unwrap();
                for (key, value) in [
                    ("class", json!(class)),
                    ("attempts", json!(attempts)),
                    ("status", json!(status)),
                    ("upstream_status", json!(status)),
                    ("reason", Value::Null),
                ] {
                    assert_eq!(line[key], value, "{key} of {case}: {line}");
                }
                let again = gateway.metrics().await.sum("gatepost_retries_total", &[("reason", class)]);
                let expected = SIGNALS
                    .iter()
                    .filter(|s| s.0 == platform && s.3 == *class)
                    .flat_map(|s| s.4)
                    .filter(|attempts| *attempts == 2);
                assert!(again <= expected.count() as f64, "{case}");
            }
        }
    }
}

/// Throttles every request the first time that it comes, then answers with its body.
fn throttles_once() -> impl Fn(&origin::Seen) -> Reply + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |seen| match count.fetch_add(1, SeqCst) % 2 {
        0 => Reply::text("too many").status(429),
        _ => Reply::text(seen.body.clone()).header("x-target", &seen.target),
    }
}

#[tokio::test]
async fn a_throttle_that_passes_is_never_seen_whatever_the_method_and_the_body_comes_whole() {
    let certificates = authority();
    let leaf = certificates.leaf(&["127.0.0.1"]);
    for (build, lines) in [
        (origin(), String::new()),
        (origin().h2c(), "http = \"2\"\n".to_owned()),
        (origin().tls_h2(&leaf), format!("ca = \"{}\"\n", certificates.ca().display())),
    ] {
        let function = build.answers(throttles_once()).start().await;
        let gateway = before(&function.url(), &format!("{lines}{RETRIES}")).await;
        // On one connection: were anything of the refused answers left, it would garble the next.
        let mut caller = gateway.connect().await;
        for (n, length) in [0, 1, 5_000, 60_000].into_iter().enumerate() {
            let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let answer = caller.send(post("/x?y").body(body.clone())).await;
            assert_eq!((answer.status, answer.body == body), (200, true), "{length} bytes: {answer:?}");
            assert_eq!(answer.header("x-target"), Some("/x?y"));
            let line = gateway.log(n + 1).await.pop().unwrap();
            assert_eq!(
                (&line["attempts"], &line["class"], &line["upstream_status"]),
                (&json!(2), &json!("ok"), &json!(200))
            );
        }
        gateway.counts("gatepost_retries_total", &[("version", "v1"), ("reason", "throttled")], 4.0).await;
        gateway.counts("gatepost_requests_total", &[("class", "ok")], 4.0).await;
    }
}

#[tokio::test]
async fn over_h2_as_well_and_a_body_that_is_no_longer_there_is_not_made_up() {
    let function = origin().answers(throttles_once()).start().await;
    let gateway = gateway(format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"{}\" }}\n{RETRIES}\n\
         [route.f]\nfunction = \"f\"\n",
        function.url()
    ))
    .workers(1)
    .start()
    .await;
    let caller = H2::plain(gateway.address("in")).await;
    let answer = caller.send(post("/").body(vec![b'x'; 10_000])).await;
    assert_eq!((answer.status, answer.body.len()), (200, 10_000));
    // pingora keeps 64 KiB of a body; of a larger one the caller is told what became of it.
    let answer = caller.send(post("/").body(vec![b'x'; 100_000])).await;
    assert_eq!(answer.status, 429);
    assert_eq!(gateway.log(2).await.iter().map(|line| line["attempts"].clone()).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn a_short_retry_after_is_waited_for_and_a_long_one_is_the_callers() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let function = origin()
        .answers(move |seen| match (counted.fetch_add(1, SeqCst), seen.target.as_str()) {
            (0, _) => Reply::text("").status(429).header("Retry-After", "1"),
            (_, "/long") => Reply::text("").status(429).header("Retry-After", "3"),
            _ => Reply::text("ok"),
        })
        .start()
        .await;
    let gateway = before(&function.url(), RETRIES).await;
    let started = Instant::now();
    assert_eq!(gateway.get("/").await.status, 200);
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let answer = gateway.get("/long").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("3")));
    assert_eq!(function.requests(), 3);
    // Nor is there a wait that the request has no time for.
    asked.store(0, SeqCst);
    gateway.swap("[route.f]", "timeouts = { total = \"800ms\" }\n[route.f]").await;
    assert_eq!(gateway.get("/").await.status, 429);
    assert_eq!(gateway.log(3).await.iter().map(|line| line["attempts"].clone()).collect::<Vec<_>>(), [2, 1, 1]);
}

/// Breaks off before an answer, on a connection that nobody used before.
#[tokio::test]
async fn a_call_that_breaks_off_is_made_again_only_if_that_means_the_same() {
    for (lines, method, broken, status, attempts) in [
        (RETRIES, "GET", 1, 200, 2),
        (RETRIES, "DELETE", 1, 200, 2),
        (RETRIES, "POST", 1, 502, 1),
        (RETRIES, "PATCH", 1, 502, 1),
        (RETRIES, "GET", 2, 502, 2),
        ("retries = { attempts = 3, backoff = \"1ms\" }", "GET", 2, 200, 3),
        ("retries = { attempts = 1 }", "GET", 1, 502, 1),
        ("", "GET", 1, 502, 1),
    ] {
        let asked = AtomicUsize::new(0);
        let function = origin()
            .answers(move |_| if asked.fetch_add(1, SeqCst) < broken { Reply::vanish() } else { Reply::text("ok") })
            .start()
            .await;
        let gateway = before(&function.url(), lines).await;
        let answer = gateway.send(request(method, "/")).await;
        let case = format!("{method}, {broken} times, {lines}");
        assert_eq!(answer.status, status, "{case}: {answer:?}");
        let line = gateway.log_line().await;
        let class = if status == 200 { "ok" } else { "function" };
        assert_eq!((&line["attempts"], &line["class"]), (&json!(attempts), &json!(class)), "{case}: {line}");
        assert_eq!(line["reason"], if status == 200 { Value::Null } else { json!("upstream_reset") }, "{case}");
        gateway.counts("gatepost_retries_total", &[("reason", "reset")], f64::from(attempts - 1)).await;
    }
}

#[tokio::test]
async fn what_has_begun_or_took_too_long_is_not_tried_again() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/begun" => Reply::text("a promise of more").cut(4, Cut::Reset),
            _ => Reply::text("").cut(0, Cut::Hang),
        })
        .start()
        .await;
    let gateway = before(&function.url(), &format!("timeouts = {{ first_byte = \"300ms\" }}\n{RETRIES}")).await;
    let broken = gateway.connect().await.try_send(get("/begun")).await;
    assert!(broken.is_err(), "{broken:?}");
    function.now_answers(|_| Reply::raw("").cut(0, Cut::Hang));
    assert_eq!(gateway.get("/").await.reason(), "upstream_timeout");
    let lines = gateway.log(2).await;
    let told: Vec<_> = lines.iter().map(|line| (line["attempts"].clone(), line["class"].clone())).collect();
    assert_eq!(told, [(json!(1), json!("function")), (json!(1), json!("timeout"))]);
    assert_eq!(function.requests(), 2);
}

#[tokio::test]
async fn nobody_listens_and_then_somebody_does() {
    let address = origin::dead_address();
    let lines = "retries = { attempts = 5, floor = \"100/s\", backoff = \"400ms\", max_wait = \"2s\" }";
    let gateway = before(&format!("http://{address}"), lines).await;
    let waiting = tokio::spawn({
        let mut caller = gateway.connect().await;
        async move { caller.send(post("/").body("hello")).await }
    });
    gateway.says(&["cannot connect to a function"]).await;
    let _function = origin().at("127.0.0.1", address.port()).echo().start().await;
    let answer = waiting.await.unwrap();
    let line = gateway.log_line().await;
    // Five random waits may all be over before it listens; then it says so.
    if answer.status == 200 {
        assert_eq!((&line["class"], &line["reason"]), (&json!("ok"), &Value::Null));
        assert!(line["attempts"].as_u64().is_some_and(|n| (2..=5).contains(&n)), "{line}");
    } else {
        assert_eq!((&line["reason"], &line["attempts"]), (&json!("upstream_unreachable"), &json!(5)));
    }
    let attempts = line["attempts"].as_f64().unwrap();
    gateway.counts("gatepost_retries_total", &[("reason", "connect")], attempts - 1.0).await;
}

#[tokio::test]
async fn the_next_address_is_asked_and_what_is_always_safe_needs_no_retries() {
    let dns = Dns::start().await;
    dns.answer("fn.test", &["127.0.0.1", "127.0.0.2"], 300);
    let bad = origin().reply(Reply::text("").status(429)).start().await;
    let good = origin().at("127.0.0.2", bad.port()).start().await;
    let config = |lines: &str| {
        gateway(format!(
            "[server]\ndns = [\"{}\"]\n[function.f]\nversions = {{ v1 = \"{}\" }}\n{lines}\n[route.f]\nfunction = \"f\"\n",
            dns.address(),
            bad.url_as("fn.test")
        ))
        .workers(1)
    };
    let gateway = config(RETRIES).start().await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!((bad.requests(), good.requests()), (5, 10));
    // A dead address costs an attempt, and neither budget nor `attempts`.
    bad.die().await;
    let gateway = config("").start().await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let attempts: f64 = gateway.log(2).await.iter().filter_map(|line| line["attempts"].as_f64()).sum();
    assert_eq!(attempts, 3.0);
    gateway.counts("gatepost_retries_total", &[("reason", "connect")], 1.0).await;
}

#[tokio::test]
async fn a_kept_connection_that_died_is_told_as_such_and_costs_budget_only_if_it_was_busy() {
    let function = origin().start().await;
    let stingy = "retries = { budget = 0, floor = \"1/min\", backoff = \"1ms\" }";
    for (lines, waits, status, reason) in
        [("", 0, 200, "stale"), (RETRIES, 0, 200, "reset"), (stingy, 0, 502, "reset"), (stingy, 1_100, 200, "stale")]
    {
        function.now_answers(|_| Reply::text("ok"));
        let gateway = before(&function.url(), lines).await;
        gateway.get("/").await;
        tokio::time::sleep(Duration::from_millis(waits)).await;
        // It is closed while the request is on its way, as far as anybody can tell.
        let asked = AtomicUsize::new(0);
        function.now_answers(move |_| match asked.fetch_add(1, SeqCst) {
            0 => Reply::vanish(),
            _ => Reply::text("ok"),
        });
        assert_eq!(gateway.get("/").await.status, status, "{lines} {waits}");
        let again = u8::from(status == 200);
        assert_eq!(gateway.log(2).await[1]["attempts"], 1 + again);
        gateway.counts("gatepost_retries_total", &[("reason", reason)], again.into()).await;
        gateway.counts("gatepost_retry_budget_exhausted_total", &[("version", "v1")], (1 - again).into()).await;
    }
}

/// 3,000 requests, 16 at a time, of which `fails` may spoil some.
async fn storm(
    lines: &str,
    fails: impl Fn(usize) -> Option<Reply> + Send + Sync + 'static,
) -> (Gateway, Origin, usize) {
    let asked = AtomicUsize::new(0);
    let function =
        origin().answers(move |_| fails(asked.fetch_add(1, SeqCst)).unwrap_or_else(|| Reply::text("ok"))).start().await;
    let gateway = before(&function.url(), lines).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut caller = gateway.connect().await;
        let address = gateway.address("in");
        callers.spawn(async move {
            let mut ok = 0;
            for _ in 0..OFFERED / 16 {
                match caller.try_send(get("/")).await {
                    Ok(answer) => {
                        ok += usize::from(answer.status == 200);
                        if answer.header("connection") == Some("close") {
                            caller = Connection::open(address).await;
                        }
                    }
                    Err(broken) => panic!("{broken}"),
                }
            }
            ok
        });
    }
    let ok = callers.join_all().await.into_iter().sum();
    (gateway, function, ok)
}

const OFFERED: usize = 3_200;

#[tokio::test]
async fn a_storm_of_failures_never_adds_more_than_the_budget_to_the_load() {
    type Fails = fn(usize) -> Option<Reply>;
    let kinds: [(&str, Fails); 3] = [
        ("throttled", |_| Some(Reply::text("").status(429))),
        ("platform", |_| Some(Reply::text("").status(500).header("X-Fc-Error-Type", "FcCommonError"))),
        ("reset", |_| Some(Reply::vanish())),
    ];
    for (kind, reply) in kinds {
        // The default floor as well: what it gives to the first few requests is part of the budget of all.
        let retries = "retries = { attempts = 4, backoff = \"1ms\" }";
        let lines = &format!("platform = \"aliyun-fc3\"\n{retries}");
        let (gateway, function, ok) = storm(lines, move |n| (n % 10 < 3).then(|| reply(n)).flatten()).await;
        let load = function.requests() as f64 / OFFERED as f64;
        println!("{kind}: {load:.3} x the offered load, {ok} of {OFFERED} answered well");
        assert!(load <= 1.1, "{kind}: {load}");
        assert!(load > 1.0, "{kind}: the budget is used: {load}");
        let metrics = gateway.metrics().await;
        let again = metrics.sum("gatepost_retries_total", &[]);
        assert_eq!(again as usize, function.requests() - OFFERED, "{kind}: every one is told");
        assert!(metrics.sum("gatepost_retry_budget_exhausted_total", &[("version", "v1")]) > 0.0);
        let lines = gateway.all_told(OFFERED).await;
        let attempts: u64 = lines.iter().filter_map(|line| line["attempts"].as_u64()).sum();
        assert_eq!(attempts as usize, function.requests());
    }
}

/// 10,000 GETs in bursts, with pauses about as long as the function keeps connections: how many were not answered well.
async fn bursts(gateway: &Gateway, pause: Duration) -> usize {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..40_u64 {
        let address = gateway.address("in");
        callers.spawn(async move {
            let mut dice = Dice::new(caller);
            let mut connection = Connection::open(address).await;
            let mut bad = 0;
            for n in 0..250 {
                if n % 50 == 49 {
                    // Right when connections close.
                    tokio::time::sleep(pause.mul_f64(0.98 + 0.04 * dice.below(1_000) as f64 / 1e3)).await;
                }
                let answer = connection.try_send(get("/")).await.unwrap();
                bad += usize::from(answer.status != 200);
                if answer.header("connection") == Some("close") {
                    connection = Connection::open(address).await;
                }
            }
            bad
        });
    }
    callers.join_all().await.into_iter().sum()
}

#[tokio::test]
async fn an_edge_that_closes_idle_connections_and_sometimes_busy_ones_is_nobodys_error() {
    // A platform's edge keeps them for 15 s.
    let keeps = if full() { Duration::from_secs(15) } else { Duration::from_millis(1_300) };
    for (lines, is_on) in [("retries = { attempts = 3, budget = 10, backoff = \"5ms\" }", true), ("", false)] {
        let asked = AtomicUsize::new(0);
        let function = origin()
            .keeps(keeps)
            .answers(move |_| match asked.fetch_add(1, SeqCst) % 100 {
                50 => Reply::vanish(),
                51 => Reply::raw("").cut(0, Cut::Reset),
                _ => Reply::text("ok"),
            })
            .start()
            .await;
        let gateway = before(&function.url(), lines).await;
        let bad = bursts(&gateway, keeps).await;
        let metrics = gateway.metrics().await;
        let [stale, reset] =
            ["stale", "reset"].map(|reason| metrics.sum("gatepost_retries_total", &[("reason", reason)]));
        let refused = metrics.sum("gatepost_retry_budget_exhausted_total", &[]);
        println!(
            "retries {is_on}: {bad} of 10000 failed; again {stale} stale, {reset} reset, {refused} without budget; \
             {} requests on {} connections",
            function.requests(),
            function.connections()
        );
        if is_on {
            assert_eq!(bad, 0);
        } else {
            // What broke on a fresh connection is nobody's to repeat.
            assert_eq!(reset, 0.0);
            assert!(bad <= 200, "{bad}");
        }
        assert!(stale > 0.0 || is_on, "what breaks on a kept connection is always sent again");
    }
}
