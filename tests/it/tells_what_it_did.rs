//! Every request leaves one line; counts, health and the answers themselves say what happened.

use std::{fs, process::Command};

use serde_json::json;

use crate::harness::{
    Answer, Connection, Gateway, Origin, Reply, eventually, gate, gateway, gateway::log_lines, get, origin, post,
    reply::Cut, request, when,
};

async fn telling(log: &str, function: Origin) -> (Gateway, Origin) {
    let gateway = gateway(format!(
        r#"
        [log]
        {log}
        [function.orders]
        versions = {{ v1 = "{}" }}
        [route.shop]
        path = "/*"
        function = "orders"
        "#,
        function.url()
    ))
    .workers(1)
    .start()
    .await;
    (gateway, function)
}

/// Answers 500 on `/bad`, else 200.
async fn ok_or_bad() -> Origin {
    let function = origin().answers(|seen| match seen.target.as_str() {
        "/bad" => Reply::text("bad").status(500),
        _ => Reply::text("ok"),
    });
    function.start().await
}

#[tokio::test]
async fn a_line_has_everything_that_happened() {
    let function = origin().reply(Reply::text("hello").status(201)).start().await;
    let (gateway, _function) = telling("", function).await;
    let answer = gateway.send(post("/things?secret=1").host("Shop.Test:80").body("abc")).await;
    assert_eq!(answer.status, 201);
    let line = gateway.log_line().await;
    for (field, value) in [
        ("generation", json!(1)),
        ("listener", json!("in")),
        ("client_ip", json!("127.0.0.1")),
        ("method", json!("POST")),
        ("path", json!("/things")),
        ("route", json!("shop")),
        ("function", json!("orders")),
        ("version", json!("v1")),
        ("weights_from", json!("file")),
        ("status", json!(201)),
        ("upstream_status", json!(201)),
        ("class", json!("ok")),
        ("bytes_in", json!(3)),
        ("bytes_out", json!(5)),
        ("attempts", json!(1)),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert_eq!(line["request_id"].as_str(), answer.header("x-request-id"));
    assert_eq!(line["host"].as_str().map(str::to_lowercase).as_deref(), Some("shop.test"));
    let ts = line["ts"].as_str().unwrap();
    // 2026-11-22T16:00:00.123Z
    assert!(ts.len() == 24 && ts.ends_with('Z') && ts.as_bytes()[19] == b'.', "{ts}");
    for field in ["total_ms", "connect_ms", "upstream_ms", "queue_ms"] {
        let ms = line[field].as_f64().unwrap_or_else(|| panic!("no {field}: {line}"));
        assert!((0.0..5_000.0).contains(&ms), "{field} of {line}");
    }
    assert!(!line.to_string().contains("secret"), "{line}");
}

#[tokio::test]
async fn refused_and_failed_requests_have_a_line_as_well() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/down" => Reply::text("down").status(503),
            "/missing" => Reply::text("missing").status(404),
            "/cut" => Reply::made(10_000).cut(100, Cut::Reset),
            _ => Reply::vanish(),
        })
        .start()
        .await;
    let (gateway, _function) = telling("", function).await;
    gateway.get("/down").await;
    gateway.get("/missing").await;
    let cut = gateway.connect().await.try_send("/cut").await;
    assert!(cut.is_err(), "a cut answer looks whole: {cut:?}");
    gateway.post("/vanish", "x").await.is_problem(502, "upstream_reset");
    let lines = gateway.log(4).await;
    let classes: Vec<_> = lines.iter().map(|l| l["class"].clone()).collect();
    assert_eq!(classes[0], "function");
    assert_eq!(classes[1], "client_error");
    assert_eq!((&lines[2]["status"], &lines[2]["bytes_out"]), (&json!(200), &json!(100)));
    assert_ne!(classes[2], "ok");
    assert_eq!(lines[3]["reason"], "upstream_reset");
    assert_eq!(lines[3]["status"], 502);
}

#[tokio::test]
async fn a_caller_that_leaves_is_told_apart() {
    let (reply, feed) = Reply::fed();
    let (gateway, _function) = telling("", origin().reply(reply).start().await).await;
    let mut caller = gateway.connect().await;
    caller.begin("/").await;
    feed.send("x");
    caller.piece().await.unwrap();
    drop(caller);
    eventually("the line is written", async || {
        // Whoever writes to a caller that has gone learns of it then.
        let _ = feed.try_send("y".repeat(10_000));
        when(!log_lines(&gateway.dir().join("access.log")).is_empty())
    })
    .await;
    assert_eq!(gateway.log_line().await["class"], "aborted");
}

#[tokio::test]
async fn the_query_is_logged_when_asked_for() {
    let (gateway, _function) = telling("query = true", origin().start().await).await;
    gateway.get("/a?b=c").await;
    assert_eq!(gateway.log_line().await["path"], "/a?b=c");
}

#[tokio::test]
async fn hostile_values_stay_within_their_line() {
    let (gateway, _function) = telling("", origin().start().await).await;
    gateway.send(get("/%22%5C%F0%9F%A6%80\u{e9}").host("x.test")).await;
    gateway.log_line().await;
}

#[tokio::test]
async fn successes_may_be_sampled_and_errors_never() {
    let (gateway, _function) = telling("sample_ok = 0.0", ok_or_bad().await).await;
    let mut connection = gateway.connect().await;
    for _ in 0..20 {
        connection.send("/").await;
    }
    connection.send("/bad").await;
    connection.send("/").await;
    connection.send("/bad").await;
    let lines = gateway.log(2).await;
    assert!(lines.iter().all(|line| line["status"] == 500));
}

#[tokio::test]
async fn lines_go_to_stdout_or_nowhere() {
    let (gateway, _function) = telling("access = \"stdout\"", origin().start().await).await;
    gateway.get("/").await;
    let line = eventually("a line on stdout", async || gateway.stdout_lines().first().cloned()).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["route"], "shop");

    let (mut gateway, _function) = telling("access = \"off\"", origin().start().await).await;
    gateway.get("/").await;
    gateway.stop().await;
    assert!(gateway.stdout_lines().is_empty(), "{:?}", gateway.stdout_lines());
    assert!(!gateway.dir().join("access.log").exists());
}

#[tokio::test]
async fn lines_may_be_text() {
    let (gateway, _function) = telling("format = \"text\"", origin().start().await).await;
    gateway.get("/words").await;
    let path = gateway.dir().join("access.log");
    let text =
        eventually("a line of text", async || fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))).await;
    assert_eq!(text.lines().count(), 1);
    for word in ["/words", "GET", "200", "shop", "v1"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(!text.starts_with('{'));
}

#[tokio::test]
async fn a_rotated_log_is_opened_anew() {
    let (gateway, _function) = telling("", origin().start().await).await;
    let path = gateway.dir().join("access.log");
    gateway.get("/before").await;
    gateway.log(1).await;
    let rotated = gateway.dir().join("access.log.1");
    fs::rename(&path, &rotated).unwrap();
    eventually("the new file has lines", async || {
        gateway.get("/after").await;
        when(fs::read_to_string(&path).is_ok_and(|text| text.contains("/after")))
    })
    .await;
    // Between the two files no line is lost.
    let before = fs::read_to_string(&rotated).unwrap();
    let after = fs::read_to_string(&path).unwrap();
    let asked = gateway.metrics().await.sum("gatepost_requests_total", &[]) as usize;
    eventually("every request has its line", async || {
        let lines =
            fs::read_to_string(&rotated).unwrap().lines().count() + fs::read_to_string(&path).unwrap().lines().count();
        when(lines == asked)
    })
    .await;
    assert!(before.contains("/before") && after.contains("/after"));
}

#[tokio::test]
async fn the_status_shows_functions_and_weights_and_what_they_are_working_on() {
    let door = gate();
    let function = origin().reply(Reply::text("late").after(&door)).start().await;
    let (gateway, function) = telling("", function).await;
    gateway
        .edit(|text| {
            text.replace(
                "versions = { v1",
                "weights = { v1 = 97.5, v2 = 2.5 }\nversions = { v2 = \"http://127.0.0.1:1\", v1",
            )
        })
        .await;
    let mut caller = gateway.connect().await;
    caller.write(get("/").bytes()).await;
    eventually("it reached the function", async || when(function.requests() == 1)).await;
    let status = || {
        let told = Command::new(env!("CARGO_BIN_EXE_gatepost"))
            .args(["status", "--admin", &gateway.admin().to_string()])
            .output()
            .unwrap();
        assert!(told.status.success(), "{told:?}");
        String::from_utf8(told.stdout).unwrap()
    };
    let rows = |text: &str| {
        let rows =
            text.lines().skip_while(|line| *line != "functions").skip(1).take_while(|line| line.starts_with("  "));
        rows.map(|row| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let told = status();
    let mut sorted = rows(&told)[1..].to_vec();
    sorted.sort();
    assert_eq!(rows(&told)[0], ["function", "in_flight", "version", "weight", "weights_from"], "{told}");
    assert_eq!(sorted, [["orders", "0", "v2", "2.5", "file"], ["orders", "1", "v1", "97.5", "file"]], "{told}");
    door.open();
    assert_eq!(caller.answer().await.text(), "late");
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let (gateway, _function) = telling("", ok_or_bad().await).await;
    let mut connection = gateway.connect().await;
    for path in ["/", "/", "/bad"] {
        connection.send(path).await;
    }
    gateway.log(3).await;
    let metrics = gateway.metrics().await;
    let of = |class| {
        let labels = [("route", "shop"), ("function", "orders"), ("version", "v1"), ("class", class)];
        metrics.sum("gatepost_requests_total", &labels)
    };
    assert_eq!((of("ok"), of("function")), (2.0, 1.0));
    let labels = [("route", "shop"), ("function", "orders"), ("version", "v1")];
    assert_eq!(metrics.sum("gatepost_request_seconds_count", &labels), 3.0);
    assert_eq!(metrics.sum("gatepost_in_flight", &labels[1..]), 0.0);
    assert_eq!(metrics.sum("gatepost_config_generation", &[]), 1.0);
    assert!(metrics.names().iter().all(|name| name.starts_with("gatepost_") || name.starts_with("process_")));
}

#[tokio::test]
async fn what_is_under_way_is_counted() {
    let (reply, feed) = Reply::fed();
    let (gateway, _function) = telling("", origin().reply(reply).start().await).await;
    let mut download = gateway.connect().await;
    download.begin("/").await;
    let labels = [("function", "orders"), ("version", "v1")];
    assert_eq!(gateway.metrics().await.sum("gatepost_in_flight", &labels), 1.0);
    drop(feed);
    assert!(download.piece().await.unwrap().is_none());
    eventually("nothing is under way", async || {
        when(gateway.metrics().await.sum("gatepost_in_flight", &labels) == 0.0)
    })
    .await;
}

#[tokio::test]
async fn no_caller_can_invent_a_label() {
    let (gateway, _function) = telling("", origin().start().await).await;
    let mut connection = gateway.connect().await;
    connection.send("/").await;
    gateway.log(1).await;
    let before = gateway.metrics().await.names().len();
    for n in 0..50 {
        let asks = request(&format!("M{n}"), &format!("/x{n}"));
        connection.send(asks.host(&format!("h{n}.test"))).await;
    }
    gateway.log(51).await;
    assert_eq!(gateway.metrics().await.names().len(), before);
}

#[tokio::test]
async fn the_admin_says_how_it_is_and_nothing_else() {
    let (gateway, function) = telling("", origin().start().await).await;
    assert_eq!(gateway.ask_admin("/healthz").await.status, 200);
    assert_eq!(gateway.ask_admin("/readyz").await.status, 200);
    assert_eq!(gateway.ask_admin("/nothing").await.status, 404);
    let mut admin = Connection::open(gateway.admin()).await;
    let answer = admin.send(post("/metrics").body("x")).await;
    assert_eq!(answer.status, 405);
    assert_eq!(function.requests(), 0);
}

#[tokio::test]
async fn every_answer_carries_an_id_of_its_own_and_no_software() {
    let function = origin().reply(Reply::text("ok").header("Server", "my-function/1")).start().await;
    let (gateway, function) = telling("", function).await;
    let one = gateway.get("/").await;
    let two = gateway.get("/").await;
    let id = |answer: &Answer| answer.header("x-request-id").unwrap().to_owned();
    assert_ne!(id(&one), id(&two));
    assert_eq!(function.last().header("x-request-id"), Some(id(&two).as_str()));
    assert_eq!(one.header("server"), Some("my-function/1"));
    let refused = gateway.raw("GET / HTTP/1.1\r\n\r\n").await;
    let all = refused.to_lowercase();
    assert!(!all.contains("pingora") && !all.contains("\r\nserver:"), "{refused}");
}

#[tokio::test]
async fn a_full_disk_blocks_nobody() {
    let (gateway, _function) = telling("access = \"/dev/full\"", origin().start().await).await;
    let mut connection = gateway.connect().await;
    for _ in 0..200 {
        assert_eq!(connection.send("/").await.status, 200);
    }
}

#[tokio::test]
async fn a_reload_may_be_asked_for_with_the_token() {
    let function = origin().start().await;
    let gateway = gateway(format!(
        "[admin]\ntoken = \"env:GATE_TOKEN\"\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    ))
    .env("GATE_TOKEN", "open sesame")
    .start()
    .await;
    // The admin answers one call a connection.
    let ask = async |request| Connection::open(gateway.admin()).await.send(request).await;
    let asks = post("/api/v1/reload");
    assert_eq!(ask(asks.clone()).await.status, 401);
    let wrong = asks.clone().header("Authorization", "Bearer open");
    assert_eq!(ask(wrong).await.status, 401);
    let right = asks.header("Authorization", "Bearer open sesame");
    let answer = ask(right).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["result"], "unchanged");
    let said = gateway.stderr();
    assert!(!said.contains("sesame"), "{said}");
}
