//! The caller's address is the one that trustworthy parties vouch for, and rules act on it.

use serde_json::Value;

use crate::harness::{Gateway, Origin, gateway, get, origin};

async fn echoing(server: &str, route: &str) -> (Gateway, Origin) {
    let function = origin().echo().start().await;
    let gateway = gateway(format!(
        r#"
        [server]
        {server}
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        {route}
        "#,
        function.url()
    ))
    .workers(1)
    .start()
    .await;
    (gateway, function)
}

/// The values of a header as the function saw them.
fn seen(echo: &Value, name: &str) -> Vec<String> {
    let fields = echo["headers"].as_array().unwrap();
    fields
        .iter()
        .filter(|field| field[0].as_str().unwrap().eq_ignore_ascii_case(name))
        .map(|field| field[1].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn nobody_is_believed_unless_trusted() {
    let (gateway, _function) = echoing("", "").await;
    let spoof = get("/")
        .host("api.test")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.test")
        .header("X-Request-Id", "spoofed");
    let mut connection = gateway.connect_from("127.0.0.5").await;
    let answer = connection.send(spoof).await;
    let echo = answer.json();
    assert_eq!(seen(&echo, "x-forwarded-for"), ["127.0.0.5"]);
    assert_eq!(seen(&echo, "x-forwarded-proto"), ["http"]);
    assert_eq!(seen(&echo, "x-forwarded-host"), ["api.test"]);
    assert_ne!(seen(&echo, "x-request-id"), ["spoofed"]);
    let line = gateway.log_line().await;
    assert_eq!(line["client_ip"], "127.0.0.5");
    assert_ne!(line["request_id"], "spoofed");
    assert_eq!(answer.header("x-request-id"), line["request_id"].as_str());
}

#[tokio::test]
async fn the_chain_is_walked_from_the_right() {
    let trusted = r#"trusted_proxies = ["127.0.0.0/8", "10.0.0.0/8"]"#;
    let (gateway, _function) = echoing(trusted, "").await;
    let cases: &[(&[&str], &str)] = &[
        (&["198.51.100.7"], "198.51.100.7"),
        (&["1.1.1.1, 198.51.100.7, 10.0.0.1"], "198.51.100.7"),
        (&["1.1.1.1, 198.51.100.7", "10.0.0.1, 10.0.0.2"], "198.51.100.7"),
        (&["2001:db8::7, 10.0.0.1"], "2001:db8::7"),
        // Behind what isn't an address nobody is vouched for.
        (&["198.51.100.7, garbage, 10.0.0.1"], "10.0.0.1"),
        (&[], "127.0.0.1"),
    ];
    let mut connection = gateway.connect().await;
    for (chain, client) in cases {
        let asks = chain.iter().fold(get("/"), |asks, value| asks.header("X-Forwarded-For", value));
        assert_eq!(connection.send(asks).await.status, 200);
        let _ = client;
    }
    let lines = gateway.log(cases.len()).await;
    for (line, (chain, client)) in lines.iter().zip(cases) {
        assert_eq!(line["client_ip"], *client, "{chain:?}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_names_the_request() {
    let (gateway, _function) = echoing(r#"trusted_proxies = ["127.0.0.1/32"]"#, "").await;
    let asks = get("/").header("X-Request-Id", "from-the-balancer-7");
    let answer = gateway.send(asks).await;
    assert_eq!(seen(&answer.json(), "x-request-id"), ["from-the-balancer-7"]);
    assert_eq!(answer.header("x-request-id"), Some("from-the-balancer-7"));
    assert_eq!(gateway.log_line().await["request_id"], "from-the-balancer-7");
}

#[tokio::test]
async fn allow_and_deny_act_on_the_address_found() {
    let rules = "allow = [\"198.51.100.0/24\", \"127.0.0.0/8\"]\ndeny = [\"198.51.100.66/32\", \"127.0.0.6/32\"]";
    let (gateway, function) = echoing(r#"trusted_proxies = ["127.0.0.1/32"]"#, rules).await;
    let mut proxy = gateway.connect().await;
    let from = |ip| get("/").header("X-Forwarded-For", ip);
    assert_eq!(proxy.send(from("198.51.100.7")).await.status, 200);
    proxy.send(from("198.51.100.66")).await.is_problem(403, "forbidden_address");
    proxy.send(from("203.0.113.1")).await.is_problem(403, "forbidden_address");
    let mut denied = gateway.connect_from("127.0.0.6").await;
    denied.send("/").await.is_problem(403, "forbidden_address");
    // Whoever isn't a trusted proxy can't talk himself in or out.
    denied.send(from("198.51.100.7")).await.is_problem(403, "forbidden_address");
    assert_eq!(function.requests(), 1);
}

#[tokio::test]
async fn clients_are_known_by_their_network() {
    let rules = r#"
        clients = ["narrow", "wide"]
        [networks]
        office = ["127.0.0.0/28"]
        [client.wide]
        networks = ["@office"]
        [client.narrow]
        networks = ["127.0.0.4/32"]
        [client.stranger]
        networks = ["127.0.1.0/24"]
        "#;
    let (gateway, function) = echoing("", rules).await;
    for (ip, status) in [("127.0.0.3", 200), ("127.0.0.4", 200), ("127.0.0.77", 403), ("127.0.1.1", 403)] {
        let answer = gateway.connect_from(ip).await.send("/").await;
        assert_eq!(answer.status, status, "{ip}");
        if status == 403 {
            answer.is_problem(403, "forbidden_client");
        }
    }
    assert_eq!(function.requests(), 2);
    let clients: Vec<Value> = gateway.log(4).await.iter().map(|l| l["client"].clone()).collect();
    assert_eq!(clients[..2], ["wide", "narrow"]);
}

#[tokio::test]
async fn forwarding_headers_that_a_connection_owns_stay_behind() {
    let (gateway, _function) = echoing("", "").await;
    let asks = get("/")
        .header("Connection", "keep-alive, X-Hop")
        .header("X-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "gzip")
        .header("X-End", "1");
    let echo = gateway.send(asks).await.json();
    for hop in ["x-hop", "keep-alive", "proxy-connection", "te"] {
        assert!(seen(&echo, hop).is_empty(), "{hop}: {echo}");
    }
    assert_eq!(seen(&echo, "x-end"), ["1"]);
}
