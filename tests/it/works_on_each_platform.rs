//! The configs of `conf/functions/`, before stand-ins of their platforms' edges.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    Gateway, Origin,
    dns::Dns,
    edge::{FAILURES, crowded, edge, keeps, longest},
    eventually, full, gate, gateway, get, post,
    reply::Places,
    request, when,
};

/// A shipped config as it stands, but for its listener's address and the scheme, port and addresses of its functions.
async fn shipped(platform: &str, edge: &Origin, dns: &Dns) -> Gateway {
    changed(platform, edge, dns, str::to_owned).await
}

/// The same with a change to its text.
async fn changed(platform: &str, edge: &Origin, dns: &Dns, change: impl FnOnce(&str) -> String) -> Gateway {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("conf/functions/{platform}.toml"));
    let mut text = format!("[server]\ndns = [\"{}\"]\n", dns.address());
    for part in fs::read_to_string(file).unwrap().replace("0.0.0.0:8080", "127.0.0.1:0").split_inclusive('"') {
        let url = part.strip_prefix("https://").or_else(|| part.strip_prefix("http://"));
        let Some(url) = url else {
            text += part;
            continue;
        };
        let url = url.trim_end_matches('"');
        let (authority, path) = url.split_once('/').map_or((url, ""), |(authority, path)| (authority, path));
        let host = authority.split(':').next().unwrap();
        dns.answer(host, &["127.0.0.1"], 300);
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        text += &format!("http://{host}:{}{path}\"", edge.port());
    }
    gateway(change(&text.replace("[listener.public]", "[listener.in]"))).workers(1).start().await
}

/// Platform, the status of a failed call and of a throttled one for callers, and whether the platform names its calls.
const ALL: [(&str, u16, u16, bool); 8] = [
    ("aliyun-fc3", 502, 429, true),
    ("tencent-scf", 502, 503, true),
    ("aws-lambda-url", 502, 429, true),
    ("cloud-run", 500, 503, true),
    ("azure-functions", 500, 429, true),
    ("knative", 500, 503, false),
    ("openfaas", 500, 429, true),
    ("generic", 502, 529, false),
];

#[tokio::test]
async fn each_shipped_config_serves_and_tells_failures_and_throttles_apart() {
    for (platform, failed, throttled, has_id) in ALL {
        let dns = Dns::start().await;
        let function = edge(platform).start().await;
        let gateway = shipped(platform, &function, &dns).await;
        for (path, status) in [("7", 200), ("fails", failed), ("throttled", throttled)] {
            let answer = gateway.send(get(&format!("/orders/{path}")).host("api.example.com")).await;
            assert_eq!(answer.status, status, "{platform} {path}: {answer:?}");
            assert_eq!(answer.header("content-disposition"), None, "{platform}");
            assert!(!answer.fields.0.iter().any(|(_, value)| value.contains("1-edge")), "{platform}: {answer:?}");
        }
        let lines = gateway.log(3).await;
        let classes: Vec<_> = lines.iter().map(|line| line["class"].as_str().unwrap()).collect();
        assert_eq!(classes, ["ok", "function", "throttled"], "{platform}");
        for line in lines {
            let id = line["platform_request_id"].as_str();
            assert_eq!(id, has_id.then_some("1-edge"), "{platform}: {line}");
        }
    }
}

/// What a failure is taken for, which requests `retries` may send again after it, and what callers are told where `map_status` is on.
struct Means(&'static str, &'static str, Again, u16);

#[derive(Clone, Copy, PartialEq)]
enum Again {
    Any,
    Idempotent,
    Never,
}
use Again::{Any, Idempotent, Never};

/// The tables of `docs/functions.md`, row by row.
const MEANINGS: [(&str, &[Means]); 8] = [
    (
        "aliyun-fc3",
        &[
            Means("fails", "function", Never, 502),
            Means("handled", "function", Never, 502),
            Means("init", "function", Never, 502),
            Means("crash", "function", Idempotent, 502),
            Means("throttled", "throttled", Any, 429),
            Means("flow", "throttled", Any, 503),
            Means("internal", "platform", Idempotent, 500),
            Means("argument", "config", Never, 502),
            Means("denied", "config", Never, 502),
            Means("missing", "config", Never, 502),
        ],
    ),
    (
        "tencent-scf",
        &[
            Means("fails", "function", Never, 502),
            Means("timeout", "function", Never, 502),
            Means("memory", "function", Never, 502),
            Means("throttled", "throttled", Any, 503),
            Means("burst", "throttled", Any, 429),
            Means("suspended", "account", Never, 503),
            // The shipped file takes it for the function's own word.
            Means("balance", "client_error", Never, 410),
            Means("asked-too-much", "config", Never, 502),
            Means("said-too-much", "config", Never, 502),
            Means("missing", "config", Never, 502),
            Means("common", "throttled", Any, 429),
            Means("internal", "platform", Idempotent, 500),
            Means("crash", "function", Idempotent, 502),
        ],
    ),
    (
        "aws-lambda-url",
        &[
            Means("fails", "function", Never, 502),
            Means("handled", "function", Never, 502),
            Means("throttled", "throttled", Any, 429),
            Means("denied", "config", Never, 502),
        ],
    ),
    (
        "cloud-run",
        &[
            Means("fails", "function", Never, 500),
            Means("throttled", "throttled", Any, 503),
            Means("rate", "throttled", Any, 429),
            Means("timeout", "timeout", Never, 504),
        ],
    ),
    (
        "azure-functions",
        &[
            Means("fails", "function", Never, 500),
            Means("throttled", "throttled", Any, 429),
            Means("timeout", "timeout", Never, 504),
        ],
    ),
    (
        "knative",
        &[
            Means("fails", "function", Never, 500),
            Means("throttled", "throttled", Any, 503),
            Means("rate", "throttled", Any, 429),
            Means("timeout", "timeout", Never, 504),
        ],
    ),
    (
        "openfaas",
        &[
            Means("fails", "function", Never, 500),
            Means("throttled", "throttled", Any, 429),
            Means("timeout", "timeout", Never, 504),
        ],
    ),
    (
        "generic",
        &[
            Means("fails", "function", Never, 502),
            Means("throttled", "throttled", Any, 529),
            Means("busy", "throttled", Any, 503),
        ],
    ),
];

#[tokio::test]
async fn each_failure_of_each_edge_has_its_class_its_retry_its_status_and_its_line() {
    for ((platform, failures), (same, meanings)) in FAILURES.iter().zip(MEANINGS) {
        assert_eq!(*platform, same);
        let words: Vec<_> = failures.iter().map(|fails| fails.word).collect();
        assert_eq!(
            words,
            meanings.iter().map(|Means(word, ..)| *word).collect::<Vec<_>>(),
            "{platform}: all are driven"
        );
        for maps in [false, true] {
            let (dns, edge) = (Dns::start().await, edge(platform).start().await);
            let retries = "retries = { attempts = 2, budget = 100, floor = \"1000/s\", backoff = \"1ms\" }";
            let gateway = changed(platform, &edge, &dns, |text| {
                let text = text.replace("map_status = true\n", "");
                let head = "[function.orders]\n";
                text.replace(head, &format!("{head}map_status = {maps}\n{retries}\n"))
            })
            .await;
            let mut asked = 0;
            for (fails, Means(word, class, again, honest)) in failures.iter().zip(meanings) {
                for method in ["GET", "POST"] {
                    let attempts = match (again, method) {
                        (Any, _) | (Idempotent, "GET") => 2,
                        _ => 1,
                    };
                    let before = edge.requests();
                    let told = if maps { *honest } else { fails.status };
                    let asks = request(method, &format!("/orders/{word}")).host("api.example.com");
                    let answer = gateway.send(asks).await;
                    let at = format!("{method} {word} of {platform}, map_status {maps}");
                    assert_eq!((answer.status, answer.reason()), (told, ""), "{at}: {answer:?}");
                    assert_eq!(edge.requests() - before, attempts, "{at}");
                    asked += 1;
                    let line = gateway.log(asked).await.pop().unwrap();
                    for (key, value) in [
                        ("class", json!(class)),
                        ("status", json!(told)),
                        ("upstream_status", json!(fails.status)),
                        ("attempts", json!(attempts)),
                        ("reason", Value::Null),
                    ] {
                        assert_eq!(line[key], value, "{key} of {at}: {line}");
                    }
                }
            }
        }
    }
}

/// Six megabytes and one byte: the function ran, and that is billed, whatever class it is of.
#[tokio::test]
async fn an_answer_that_the_edge_does_not_let_through_is_a_failure_that_is_billed() {
    for (platform, class, told) in
        [("tencent-scf", "config", 502), ("aws-lambda-url", "function", 502), ("cloud-run", "function", 500)]
    {
        let most = longest(platform).unwrap();
        let (dns, edge) = (Dns::start().await, edge(platform).start().await);
        let head = "[function.orders]\n";
        let gateway =
            changed(platform, &edge, &dns, |text| text.replace(head, &format!("{head}budget.calls_per_day = 9\n")))
                .await;
        let orders = |bytes: u64| get(&format!("/orders/bytes-{bytes}")).host("api.example.com");
        let whole = gateway.send(orders(most)).await;
        assert_eq!((whole.status, whole.body.len() as u64), (200, most), "{platform}");
        gateway.counts("gatepost_budget_calls", &[], 1.0).await;
        let answer = gateway.send(orders(most + 1)).await;
        assert_eq!((answer.status, answer.reason()), (told, ""), "{platform}: {answer:?}");
        assert_eq!(gateway.log(2).await[1]["class"], class, "{platform}");
        gateway.counts("gatepost_budget_calls", &[], 2.0).await;
    }
}

/// The edges throttle by how many calls are under way; who waits for his turn here is not throttled there.
#[tokio::test]
async fn a_platform_that_is_full_throttles_in_its_own_words_and_a_cap_keeps_callers_from_it() {
    for (platform, _, throttled, _) in ALL {
        let (dns, places, door) = (Dns::start().await, Places::of(3), gate());
        let edge = crowded(platform, &places, &door).start().await;
        let head = "[function.orders]\n";
        let capped = "concurrency = { max = 4, wait = \"1m\" }\n";
        let gateway = changed(platform, &edge, &dns, |text| text.replace(head, &format!("{head}{capped}"))).await;
        let mut callers = Vec::new();
        for _ in 0..3 {
            let mut caller = gateway.connect().await;
            caller.write("GET /orders/waits HTTP/1.1\r\nHost: api.example.com\r\n\r\n").await;
            callers.push(caller);
        }
        eventually(&format!("{platform} is full"), async || when(places.taken() == 3)).await;
        let orders = || get("/orders/7").host("api.example.com");
        let answer = gateway.send(orders()).await;
        assert_eq!((answer.status, answer.reason()), (throttled, ""), "{platform}: {answer:?}");
        assert_eq!(gateway.log(1).await[0]["class"], "throttled", "{platform}");

        gateway.swap("max = 4", "max = 3").await;
        let mut waiting = gateway.connect().await;
        waiting.write("GET /orders/7 HTTP/1.1\r\nHost: api.example.com\r\n\r\n").await;
        gateway.counts("gatepost_queue_length", &[("function", "orders")], 1.0).await;
        assert_eq!(edge.requests(), 4, "{platform}: it waits here");
        door.open();
        for mut caller in callers {
            assert_eq!(caller.answer().await.status, 200, "{platform}");
        }
        assert_eq!(waiting.answer().await.text().rsplit('/').next(), Some("7"), "{platform}");
        assert_eq!(places.taken(), 0, "{platform}");
    }
}

/// The largest body of each, as far as it is known.
#[tokio::test]
async fn a_body_that_the_edge_would_refuse_is_refused_by_its_length_alone() {
    for (platform, most) in [
        ("aliyun-fc3", 32 << 20),
        ("tencent-scf", 6 << 20),
        ("aws-lambda-url", 6 << 20),
        ("cloud-run", 32 << 20),
        ("azure-functions", 100 << 20),
        ("generic", 4 << 20),
    ] {
        let (dns, edge) = (Dns::start().await, edge(platform).start().await);
        let gateway = shipped(platform, &edge, &dns).await;
        let head = |length: u64| {
            format!("POST /orders/7 HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {length}\r\n\r\n")
        };
        let mut caller = gateway.connect().await;
        caller.write(head(most + 1)).await;
        let answer = caller.answer().await;
        assert_eq!((answer.status, answer.reason()), (413, "body_too_large"), "{platform}: {answer:?}");
        assert!(answer.text().contains(&format!("at most {most} bytes")), "{platform}: {answer:?}");
        assert_eq!(edge.connections(), 0, "{platform}: no call was made");
    }
}

/// The words by which callers could steer an edge, or say what is the platform's to say.
#[tokio::test]
async fn no_caller_steers_an_edge() {
    for (platform, word) in [
        ("aliyun-fc3", "X-Fc-Invocation-Type"),
        ("tencent-scf", "X-Scf-Remote-Addr"),
        ("aws-lambda-url", "X-Amz-Invocation-Type"),
        ("azure-functions", "x-ms-routing-name"),
        ("knative", "Knative-Serving-Tag"),
        ("openfaas", "X-Callback-Url"),
    ] {
        let (dns, edge) = (Dns::start().await, edge(platform).start().await);
        let gateway = shipped(platform, &edge, &dns).await;
        let steering =
            get("/orders/7").host("api.example.com").header(word, "v1").header(&word.replace('-', "_"), "v1");
        let answer = gateway.send(steering).await;
        assert!(answer.status == 200 && answer.text().ends_with("/7"), "{platform}: {answer:?}");
    }
}

#[tokio::test]
async fn each_preset_lets_go_of_a_connection_before_its_edge_does() {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_gatepost")).args(["functions", "--json"]).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    for platform in told["platforms"].as_array().unwrap() {
        let name = platform["name"].as_str().unwrap();
        let idle = platform["facts"].as_array().unwrap().iter().find(|fact| fact["key"] == "pool.idle");
        // Of `generic` nothing is known, and the default holds.
        let idle = idle.map_or("25s", |fact| fact["value"].as_str().unwrap());
        let seconds: u64 = idle.strip_suffix('s').unwrap().parse().unwrap();
        assert!(u128::from(seconds) * 1000 < keeps(name).as_millis(), "{name}: {idle}");
    }
}

/// With it a call that may not run twice meets no connection that is just being closed.
#[tokio::test]
async fn a_pool_below_the_edges_time_spares_even_what_cannot_be_sent_again() {
    let (kept, pause, own) = if full() {
        (keeps("aliyun-fc3"), Duration::from_secs(12), "")
    } else {
        (Duration::from_secs(3), Duration::from_millis(1_500), "pool = { idle = \"1s\" }\n")
    };
    let (dns, edge) = (Dns::start().await, edge("aliyun-fc3").keeps(kept).start().await);
    let head = "[function.orders]\n";
    let gateway = changed("aliyun-fc3", &edge, &dns, |text| text.replace(head, &format!("{head}{own}"))).await;
    let mut caller = gateway.connect().await;
    for _ in 0..3 {
        for _ in 0..20 {
            let answer = caller.send(post("/orders/7").host("api.example.com").body("order")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        tokio::time::sleep(pause).await;
    }
    gateway.counts("gatepost_retries_total", &[], 0.0).await;
    // Whoever pauses longer than the pool gets a fresh one each time.
    assert!(edge.connections() >= 3, "{}", edge.connections());
}

/// What the edge would have answered with a 400 after a call, and what it would have been steered by.
#[tokio::test]
async fn nothing_reaches_the_edge_that_it_would_refuse_or_be_steered_by() {
    let dns = Dns::start().await;
    let fc = edge("aliyun-fc3").start().await;
    let gateway = shipped("aliyun-fc3", &fc, &dns).await;
    let orders = |rest: &str| get(&format!("/orders/{rest}")).host("api.example.com");
    for size in [3000, 4000, 4080, 4090, 4100, 5000, 8000] {
        for request in [orders(&"u".repeat(size)), orders("7").header("x-big", &"h".repeat(2 * size))] {
            let status = gateway.send(request).await.status;
            assert!([200, 414, 431].contains(&status), "{size}: {status}");
        }
    }
    let steering = orders("7").header("X-Fc-Invocation-Type", "Async").header("x_fc_invocation_type", "Async");
    assert_eq!(gateway.send(steering).await.status, 200);
    assert!(fc.seen().iter().all(|seen| !seen.fields.0.iter().any(|(name, _)| name.contains("fc"))));

    let scf = edge("tencent-scf").start().await;
    let gateway = shipped("tencent-scf", &scf, &dns).await;
    let spoofing = orders("7").header("X-Scf-Remote-Addr", "10.0.0.1").header("x_scf_remote_addr", "10.0.0.1");
    assert_eq!(gateway.send(spoofing).await.text(), "/orders/7");
    let large = post("/orders/7").host("api.example.com").body(vec![0; (6 << 20) + 1]);
    let answer = gateway.send(large).await;
    assert_eq!((answer.status, answer.reason()), (413, "body_too_large"));
    assert_eq!(scf.requests(), 1);
}

/// The edge closes what is idle; a call that meets such a connection goes again on a fresh one.
#[tokio::test]
async fn idle_connections_that_the_edge_closed_cost_no_caller_anything() {
    let dns = Dns::start().await;
    let fc = edge("aliyun-fc3").start().await;
    let gateway = shipped("aliyun-fc3", &fc, &dns).await;
    let mut caller = gateway.connect().await;
    for _ in 0..20 {
        assert_eq!(caller.send(get("/orders/7").host("api.example.com")).await.status, 200);
        fc.close_idle().await;
    }
    assert_eq!(fc.connections(), 20);
}
