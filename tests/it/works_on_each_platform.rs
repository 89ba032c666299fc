//! The configs of `conf/functions/`, before stand-ins of their platforms' edges.

use std::{fs, path::Path};

use crate::harness::{Gateway, Origin, dns::Dns, edge::edge, gateway, get, post};

/// A shipped config as it stands, but for its listener's address and the scheme, port and addresses of its functions.
async fn shipped(platform: &str, edge: &Origin, dns: &Dns) -> Gateway {
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
    gateway(text.replace("[listener.public]", "[listener.in]")).workers(1).start().await
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
    ("generic", 200, 200, false),
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
            assert!(!answer.fields.0.iter().any(|(_, value)| value == "1-edge"), "{platform}: {answer:?}");
        }
        let lines = gateway.log(3).await;
        let classes: Vec<_> = lines.iter().map(|line| line["class"].as_str().unwrap()).collect();
        let expected = if platform == "generic" { ["ok"; 3] } else { ["ok", "function", "throttled"] };
        assert_eq!(classes, expected, "{platform}");
        for line in lines {
            let id = line["platform_request_id"].as_str();
            assert_eq!(id, has_id.then_some("1-edge"), "{platform}: {line}");
        }
    }
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
