//! A new version gets copies of requests before it gets callers, and nobody waits for it.

use std::process::Command;

use serde_json::Value;

use crate::harness::{
    Gateway, Origin, Reply, authority, eventually, gate, gateway, gateway::log_lines, get, origin,
    origin::dead_address, post, request, when,
};

async fn named(name: &'static str) -> Origin {
    origin().reply(Reply::text(name)).start().await
}

/// `f` with v1 for callers and v2 as its mirror, and lines of the function.
fn mirrored(v1: &str, v2: &str, mirror: &str, lines: &str) -> String {
    format!(
        "[function.f]\nversions = {{ v1 = \"{v1}\", v2 = {v2} }}\nweights = {{ v1 = \"rest\" }}\n\
         mirror = {{ version = \"v2\", {mirror} }}\n{lines}\n[route.f]\npath = \"/api/*\"\nstrip_prefix = \"/api\"\nfunction = \"f\"\n"
    )
}

fn url(origin: &Origin) -> String {
    format!("\"{}\"", origin.url())
}

async fn comes_to(gateway: &Gateway, result: &str, count: f64) {
    gateway.counts("gatepost_mirror_total", &[("function", "f"), ("version", "v2"), ("result", result)], count).await;
}

fn mirror_lines(gateway: &Gateway) -> Vec<Value> {
    let path = gateway.dir().join("access.log");
    let lines = log_lines(&path);
    lines.into_iter().filter(|line| line["kind"] == "mirror").collect()
}

#[tokio::test]
async fn a_share_of_the_requests_is_copied_as_the_function_gets_it_and_marked() {
    let (v1, v2) = (named("v1").await, named("v2").await);
    let to = format!("{{ url = \"{}/base\", host = \"new.example\" }}", v2.url());
    let gateway = gateway(mirrored(&v1.url(), &to, "share = 25", "")).workers(1).start().await;
    let mut caller = gateway.connect().await;
    for n in 0..20 {
        let answer = caller.send(get(&format!("/api/{n}?a=b")).header("x-mine", "yes")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "v1"));
        assert_eq!(answer.header("x-gatepost-mirror"), None);
    }
    comes_to(&gateway, "same", 5.0).await;
    let targets: Vec<_> = v2.seen().iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(targets, ["/base/0?a=b", "/base/4?a=b", "/base/8?a=b", "/base/12?a=b", "/base/16?a=b"]);
    let (copy, real) = (v2.last(), v1.seen().into_iter().find(|seen| seen.target == "/16?a=b").unwrap());
    assert_eq!((copy.header("host"), copy.header("x-gatepost-mirror")), (Some("new.example"), Some("1")));
    assert_eq!(real.header("x-gatepost-mirror"), None);
    for name in ["x-mine", "x-request-id", "x-forwarded-for", "x-forwarded-host", "x-gatepost-hop", "via"] {
        assert!(copy.header(name).is_some(), "{name}");
        assert_eq!(copy.header(name), real.header(name), "{name}");
    }
    // Connections are kept, as those of callers are.
    assert_eq!(v2.connections(), 1);
    // One line a request, and the pairs' beside them.
    eventually("a line of a pair", async || when(!mirror_lines(&gateway).is_empty())).await;
    let line = &mirror_lines(&gateway)[0];
    assert_eq!(
        (&line["result"], &line["version"], &line["real_version"]),
        (&"same".into(), &"v2".into(), &"v1".into())
    );
    assert_eq!((&line["status"], &line["real_status"]), (&200.into(), &200.into()), "{line}");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatepost_requests_total", &[("version", "v1")]), 20.0);
    assert_eq!(metrics.sum("gatepost_requests_total", &[("version", "v2")]), 0.0, "a copy is no caller's request");
    let status = gateway.ask_admin("/api/v1/status").await.json();
    assert_eq!((&status["mirrors"][0]["same"], &status["mirrors"][0]["share"]), (&5.into(), &25.0.into()), "{status}");
    assert!(status["mirrors"][0]["mirror_ms"].is_number(), "{status}");
}

#[tokio::test]
async fn a_mirror_that_hangs_fails_or_is_not_there_is_no_callers_matter() {
    let (v1, v2) = (named("v1").await, named("v2").await);
    let held = gate();
    let hangs = held.clone();
    v2.now_answers(move |_| Reply::text("").after(&hangs));
    let gateway = gateway(mirrored(&v1.url(), &url(&v2), "share = 100, concurrency = 2", "")).workers(1).start().await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/api/").await.text(), "v1");
    }
    comes_to(&gateway, "dropped", 3.0).await;
    gateway.counts("gatepost_mirror_in_flight", &[("function", "f")], 2.0).await;
    held.open();
    comes_to(&gateway, "same", 2.0).await;
    gateway.counts("gatepost_mirror_in_flight", &[("function", "f")], 0.0).await;
    v2.now_answers(|_| Reply::text("oh").status(500));
    assert_eq!(gateway.get("/api/").await.text(), "v1");
    comes_to(&gateway, "different", 1.0).await;
    eventually("the line of the pair", async || {
        when(mirror_lines(&gateway).iter().any(|line| line["status"] == 500 && line["real_status"] == 200))
    })
    .await;
    v2.now_answers(|_| Reply::vanish());
    assert_eq!(gateway.get("/api/").await.text(), "v1");
    comes_to(&gateway, "failed", 1.0).await;
    let text = gateway.config_text().replace(&v2.url(), &format!("http://{}", dead_address()));
    gateway.edit(|_| text).await;
    assert_eq!(gateway.get("/api/").await.text(), "v1");
    comes_to(&gateway, "failed", 2.0).await;
    eventually("why it failed", async || when(mirror_lines(&gateway).iter().any(|line| line["error"].is_string())))
        .await;
}

#[tokio::test]
async fn only_safe_methods_are_copied_unless_others_are_named_and_bodies_up_to_a_size() {
    let (v1, v2) = (origin().echo().start().await, named("v2").await);
    let gateway =
        gateway(mirrored(&v1.url(), &url(&v2), "share = 100, max_body = \"100KiB\"", "")).workers(1).start().await;
    let large = "x".repeat(90 << 10);
    for method in ["GET", "HEAD", "OPTIONS"] {
        gateway.send(request(method, "/api/")).await;
    }
    assert_eq!(gateway.post("/api/", "hello").await.json()["body"], "hello");
    comes_to(&gateway, "same", 3.0).await;
    assert_eq!(v2.requests(), 3, "the POST went to callers' version alone");
    gateway.swap("share = 100", "share = 100, methods = [\"POST\"]").await;
    assert_eq!(gateway.post("/api/", &large).await.json()["body"], large);
    comes_to(&gateway, "same", 4.0).await;
    let copy = v2.last();
    assert_eq!((copy.method.as_str(), copy.body.len()), ("POST", large.len()));
    // In chunks nobody knows how much there will be.
    let chunked = |size: usize| {
        let piece = "y".repeat(size);
        format!(
            "POST /api/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{size:x}\r\n{piece}\r\n0\r\n\r\n"
        )
    };
    assert!(gateway.raw(chunked(50 << 10)).await.starts_with("HTTP/1.1 200"));
    comes_to(&gateway, "same", 5.0).await;
    assert_eq!(v2.last().header("content-length"), Some("51200"));
    assert!(gateway.raw(chunked(120 << 10)).await.starts_with("HTTP/1.1 200"));
    comes_to(&gateway, "too_large", 1.0).await;
    gateway.post("/api/", &"z".repeat(101 << 10)).await;
    comes_to(&gateway, "too_large", 2.0).await;
    gateway.counts("gatepost_mirror_in_flight", &[("function", "f")], 0.0).await;
    assert_eq!(v2.requests(), 5);
}

#[tokio::test]
async fn who_reaches_the_mirror_anyway_is_not_copied_and_no_caller_can_say_that_he_is_a_copy() {
    let (v1, v2) = (named("v1").await, named("v2").await);
    let lines = "override = [{ header = \"x-tester\", version = \"v2\" }]";
    let gateway = gateway(mirrored(&v1.url(), &url(&v2), "share = 100", lines)).workers(1).start().await;
    let answer = gateway.send(get("/api/").header("x-tester", "1").header("x-gatepost-mirror", "1")).await;
    assert_eq!(answer.text(), "v2");
    assert_eq!(v2.last().header("x-gatepost-mirror"), None);
    assert_eq!(gateway.send(get("/api/").header("x-gatepost-mirror", "1")).await.text(), "v1");
    assert_eq!(v1.last().header("x-gatepost-mirror"), None);
    comes_to(&gateway, "same", 1.0).await;
    assert_eq!(v2.requests(), 2);
}

#[tokio::test]
async fn a_copy_goes_by_the_mirrors_own_tls_and_credential() {
    let authority = authority();
    let v1 = named("v1").await;
    let v2 = origin().reply("v2").tls(&authority.leaf(&["127.0.0.1"])).start().await;
    let ca = authority.ca().display().to_string();
    let to = format!("{{ url = \"{}\", ca = \"{ca}\", credential = \"shared\" }}", v2.url());
    let credential = "[credential.shared]\nkind = \"header\"\nheader = \"x-secret\"\nsecret = \"env:SHARED\"\n";
    let config = mirrored(&v1.url(), &to, "share = 100", "") + credential;
    let gateway = gateway(config).workers(1).env("SHARED", "sesame").start().await;
    for sent in [1.0, 2.0] {
        assert_eq!(gateway.send(get("/api/").header("x-secret", "guessed")).await.text(), "v1");
        // The next copy finds the connection of the last one, not both under way.
        comes_to(&gateway, "same", sent).await;
    }
    assert_eq!((v2.last().header("x-secret"), v2.connections()), (Some("sesame"), 1));
    assert_eq!(v1.last().header("x-secret"), Some("guessed"), "it is v2's alone");
    // Nobody there is trusted any more: nothing goes out.
    gateway.edit(|text| text.replace(&format!("ca = \"{ca}\", "), "")).await;
    assert_eq!(gateway.get("/api/").await.text(), "v1");
    comes_to(&gateway, "failed", 1.0).await;
    assert_eq!(v2.requests(), 2);
}

#[tokio::test]
async fn where_a_function_speaks_h2_alone_so_does_its_mirror() {
    let v1 = origin().echo().h2c().start().await;
    let v2 = origin().echo().h2c().start().await;
    let mirror = "share = 100, methods = [\"GET\", \"POST\"]";
    let gateway = gateway(mirrored(&v1.url(), &url(&v2), mirror, "http = \"2\"")).workers(1).start().await;
    assert_eq!(gateway.post("/api/a", "hello").await.json()["body"], "hello");
    gateway.get("/api/b").await;
    comes_to(&gateway, "same", 2.0).await;
    let seen = v2.seen();
    assert_eq!((seen[0].version.as_str(), seen[0].body.as_slice()), (seen[1].version.as_str(), &b"hello"[..]));
    assert_eq!(v2.connections(), 1);
}

#[tokio::test]
async fn a_copy_counts_in_the_functions_budget_and_ends_before_callers_are_refused() {
    let (v1, v2) = (named("v1").await, named("v2").await);
    let lines = "budget = { calls_per_day = 5, action = \"stop\" }";
    let gateway = gateway(mirrored(&v1.url(), &url(&v2), "share = 100", lines)).workers(1).start().await;
    gateway.get("/api/").await;
    gateway.get("/api/").await;
    comes_to(&gateway, "same", 2.0).await;
    assert_eq!(gateway.metrics().await.sum("gatepost_budget_calls", &[("function", "f")]), 4.0, "a copy is billed too");
    assert_eq!(gateway.get("/api/").await.status, 200);
    comes_to(&gateway, "over_budget", 1.0).await;
    assert_eq!(gateway.get("/api/").await.status, 503);
    assert_eq!(gateway.metrics().await.sum("gatepost_budget_refused_total", &[("function", "f")]), 1.0);
}

#[tokio::test]
async fn a_guard_and_health_hear_nothing_of_a_mirror() {
    let (v1, v2) = (named("v1").await, origin().reply(Reply::text("").status(500)).start().await);
    let lines = "guard = {}\nhealth = { consecutive_failures = 1 }";
    let gateway = gateway(mirrored(&v1.url(), &url(&v2), "share = 100", lines)).workers(1).start().await;
    for _ in 0..5 {
        gateway.get("/api/").await;
    }
    comes_to(&gateway, "different", 5.0).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatepost_ejections_total", &[]), 0.0);
    assert_eq!(metrics.sum("gatepost_guard_alarms_total", &[]), 0.0);
}

#[tokio::test]
async fn a_mirror_comes_changes_and_goes_by_a_reload_and_its_counts_go_on() {
    let (v1, v2) = (named("v1").await, named("v2").await);
    let gateway = gateway(mirrored(&v1.url(), &url(&v2), "share = 100", "")).workers(2).start().await;
    gateway.get("/api/").await;
    comes_to(&gateway, "same", 1.0).await;
    let receipt = gateway.swap("share = 100", "share = 50").await;
    assert!(receipt.line.contains("mirror.share 100 % → 50 %"), "{}", receipt.line);
    comes_to(&gateway, "same", 1.0).await;
    let receipt = gateway.edit(|text| text.replace("mirror =", "#mirror =")).await;
    assert!(receipt.line.contains("mirror.version v2 → no mirror"), "{}", receipt.line);
    gateway.get("/api/").await;
    assert!(gateway.metrics().await.names().iter().all(|name| *name != "gatepost_mirror_total"));
    let explained = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.arg("explain").args(args).arg("--config").arg(&gateway.config);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(!explained(&["GET", "http://a/api/"]).contains("mirror"));
    gateway.edit(|text| text.replace("#mirror =", "mirror =")).await;
    let said = explained(&["GET", "http://a/api/"]);
    assert!(said.contains("mirror    v2 gets a copy of 50 % of what goes to other versions"), "{said}");
    let said = explained(&["POST", "http://a/api/"]);
    assert!(said.contains("POST is not among its methods"), "{said}");
    assert_eq!(gateway.send(post("/api/").body("a")).await.text(), "v1");
}
