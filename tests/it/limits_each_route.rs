//! A limit lets through exactly what it says, tells the others when to come again, and is kept over a reload.

use std::time::{Duration, Instant};

use crate::harness::{Connection, Gateway, Origin, gateway, get, h2::H2, origin};

async fn limited(limits: &str, more: &str) -> (Gateway, Origin) {
    let function = origin().start().await;
    let gateway = gateway(format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        path = "/*"
        function = "f"
        limits = {limits}
        {more}
        "#,
        function.url()
    ))
    .start()
    .await;
    (gateway, function)
}

/// How many of so many requests in a row pass.
async fn passes(connection: &mut Connection, requests: usize, ask: impl Fn(usize) -> crate::harness::Request) -> usize {
    let mut passed = 0;
    for n in 0..requests {
        passed += usize::from(connection.send(ask(n)).await.status == 200);
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_a_second_with_a_burst_of_fifty_is_just_that() {
    let (gateway, function) = limited(r#"[{ rate = "100/s", burst = 50 }]"#, "").await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(gateway.connect().await);
    }
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for mut connection in connections {
        callers.spawn(async move {
            let (mut sent, mut passed) = (0, 0);
            let mut tick = tokio::time::interval(Duration::from_millis(8));
            while start.elapsed() < Duration::from_secs(3) {
                tick.tick().await;
                sent += 1;
                passed += usize::from(connection.send("/").await.status == 200);
            }
            (sent, passed)
        });
    }
    let tallies = callers.join_all().await;
    let spent = start.elapsed().as_secs_f64();
    let sent: usize = tallies.iter().map(|t| t.0).sum();
    let passed: usize = tallies.iter().map(|t| t.1).sum();
    // The first request came a little after `start`, the last a little before `spent`.
    let most = 50.0 + spent * 100.0 + 1.0;
    let least = 50.0 + (spent - 0.3) * 100.0;
    assert!((passed as f64) <= most, "{passed} of {sent} in {spent} s");
    assert!((passed as f64) >= least, "{passed} of {sent} in {spent} s");
    assert_eq!(function.requests(), passed);
}

#[tokio::test]
async fn a_refused_caller_hears_why_and_when_to_come_again() {
    let (gateway, function) = limited(r#"[{ rate = "1/s", burst = 1 }]"#, "").await;
    let mut connection = gateway.connect().await;
    let first = connection.send("/").await;
    assert_eq!(first.status, 200);
    let refused = connection.send("/").await;
    refused.is_problem(429, "rate_limited");
    assert!(refused.header("ratelimit-policy").is_some(), "{refused:?}");
    assert!(refused.header("ratelimit").is_some(), "{refused:?}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(wait, 1);
    assert_eq!(function.requests(), 1);
    // Obeyed, it means accepted.
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(connection.send("/").await.status, 200);
    let lines = gateway.log(3).await;
    assert_eq!(lines[1]["class"], "rate_limited");
    assert_eq!(lines[1]["reason"], "rate_limited");
    assert_eq!(lines[1]["status"], 429);
    gateway.counts("gatepost_limited_total", &[("route", "f")], 1.0).await;
}

#[tokio::test]
async fn retry_after_is_at_most_five_minutes() {
    let (gateway, _function) = limited(r#"[{ rate = "1/h", burst = 1 }]"#, "").await;
    gateway.get("/").await;
    let refused = gateway.get("/").await;
    assert_eq!(refused.header("retry-after"), Some("300"));
}

#[tokio::test]
async fn every_key_counts_for_itself() {
    let slow = |per: &str| format!("[{{ rate = \"1/h\", burst = 2, per = \"{per}\" }}]");
    type Ask = fn(usize) -> crate::harness::Request;
    let keys: [(&str, Ask); 3] = [
        ("header:x-partner", |n| get("/").header("x-partner", &format!("p{}", n % 3))),
        ("cookie:uid", |n| get("/").header("cookie", &format!("uid=u{}", n % 3))),
        ("query:key", |n| get(&format!("/?a=b&key=k{}", n % 3))),
    ];
    for (per, ask) in keys {
        let (gateway, _function) = limited(&slow(per), "").await;
        let mut connection = gateway.connect().await;
        assert_eq!(passes(&mut connection, 12, ask).await, 6, "{per}");
        // Whoever has no key is counted by address, never unlimited.
        assert_eq!(passes(&mut connection, 5, |_| get("/")).await, 2, "{per}");
        let mut other = gateway.connect_from("127.0.0.2").await;
        assert_eq!(passes(&mut other, 5, |_| get("/")).await, 2, "{per}");
    }
}

#[tokio::test]
async fn addresses_count_apart_and_a_route_as_one() {
    let (by_ip, _f1) = limited(r#"[{ rate = "1/h", burst = 3, per = "client_ip" }]"#, "").await;
    let (by_route, _f2) = limited(r#"[{ rate = "1/h", burst = 3 }]"#, "").await;
    let mut passed = (0, 0);
    for ip in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        let mut connection = by_ip.connect_from(ip).await;
        passed.0 += passes(&mut connection, 5, |_| get("/")).await;
        let mut connection = by_route.connect_from(ip).await;
        passed.1 += passes(&mut connection, 5, |_| get("/")).await;
    }
    assert_eq!(passed, (9, 3));
}

#[tokio::test]
async fn a_refused_request_takes_nothing_from_any_limit() {
    let limits = r#"[
            { rate = "1/h", burst = 1, per = "header:x-one" },
            { rate = "1/h", burst = 3 },
        ]"#;
    let (gateway, _function) = limited(limits, "").await;
    let mut connection = gateway.connect().await;
    let greedy = |_| get("/").header("x-one", "greedy");
    assert_eq!(passes(&mut connection, 50, greedy).await, 1);
    // The shared bucket still has its other two.
    let others = |n| get("/").header("x-one", &format!("other-{n}"));
    assert_eq!(passes(&mut connection, 10, others).await, 2);
}

#[tokio::test]
async fn routes_may_share_a_limit() {
    let more = r#"
        [route.g]
        path = "/g"
        function = "f"
        limits = [{ use = "both" }]
        [limit.both]
        rate = "1/h"
        burst = 4
        "#;
    let (gateway, _function) = limited(r#"[{ use = "both" }]"#, more).await;
    let mut connection = gateway.connect().await;
    let ask = |n: usize| get(if n.is_multiple_of(2) { "/f" } else { "/g" });
    assert_eq!(passes(&mut connection, 10, ask).await, 4);
}

#[tokio::test]
async fn a_dry_run_only_counts() {
    let (gateway, _function) = limited(r#"[{ rate = "1/h", burst = 1, dry_run = true }]"#, "").await;
    let mut connection = gateway.connect().await;
    assert_eq!(passes(&mut connection, 5, |_| get("/")).await, 5);
    gateway.counts("gatepost_limit_dry_run_total", &[("route", "f")], 4.0).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatepost_limited_total", &[]), 0.0);
}

#[tokio::test]
async fn counts_outlive_a_reload_and_a_raised_rate_acts() {
    let (gateway, _function) = limited(r#"[{ rate = "1/h", burst = 5 }]"#, "").await;
    let mut connection = gateway.connect().await;
    assert_eq!(passes(&mut connection, 3, |_| get("/")).await, 3);
    gateway.swap("path = \"/*\"", "path = \"/*\"\npriority = 1").await;
    assert_eq!(passes(&mut connection, 9, |_| get("/")).await, 2);
    gateway.swap("rate = \"1/h\"", "rate = \"1000000/s\"").await;
    assert_eq!(passes(&mut connection, 50, |_| get("/")).await, 50);
}

#[tokio::test]
async fn h2_callers_are_limited_alike() {
    let (gateway, _function) = limited(r#"[{ rate = "1/h", burst = 3 }]"#, "").await;
    let h2 = H2::plain(gateway.address("in")).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(h2.send("/").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[tokio::test]
async fn invented_keys_do_not_eat_memory_and_known_ones_keep_their_count() {
    let limits = r#"[{ rate = "1/h", burst = 2, per = "header:x-key", max_keys = 1000 }]"#;
    let (gateway, _function) = limited(limits, "").await;
    let mut connection = gateway.connect().await;
    let known = |_| get("/").header("x-key", "known");
    assert_eq!(passes(&mut connection, 1, known).await, 1);
    let before = gateway.process().rss();
    passes(&mut connection, 4_000, |n| get("/").header("x-key", &format!("invented-{n}"))).await;
    let grown = gateway.process().rss().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for 4,000 invented keys");
    assert_eq!(passes(&mut connection, 5, known).await, 1);
}
