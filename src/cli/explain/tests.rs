use clap::Parser;

use super::*;
use crate::cli::{Command, CommandLine};

const CONFIG: &str = r#"
[server]
trusted_proxies = ["10.0.0.0/8"]

[listener.plain]
address = "127.0.0.1:8080"

[listener.side]
address = "127.0.0.1:8081"

[client.office]
owner = "Ada Wang, ext. 7"
networks = ["192.0.2.0/24"]

[function.orders]
sticky = { by = ["header:x-openid"] }
override = [{ header = "x-tester: yes", version = "v42" }]
[function.orders.versions]
v41 = "https://orders-v41.example.com/base"
v42 = "https://orders-v42.example.com"
[function.orders.weights]
v41 = "rest"
v42 = 5

[route.orders]
host = "api.example.com"
path = "/orders/*"
function = "orders"
methods = ["GET"]
strip_prefix = "/orders"
limits = [{ rate = "100/s", burst = 50, per = "client_ip" }, { use = "partners" }]

[route.office]
host = "api.example.com"
path = "/office"
function = "orders"
version = "v42"
clients = ["office"]

[route.side]
listeners = ["side"]
path = "/orders/*"
function = "orders"

[limit.partners]
rate = "600/min"
per = "header:x-partner-id"
"#;

/// What `gatepost explain ARGS` prints.
fn explained(args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gatepost.toml");
    std::fs::write(&file, CONFIG).unwrap();
    let words = ["gatepost", "explain", "--config", file.to_str().unwrap()];
    let line = CommandLine::try_parse_from(words.iter().chain(args)).unwrap();
    let Command::Explain(options) = line.command else { panic!("not explain") };
    let (mut term, out, _) = Terminal::on_pads();
    run(&options, &mut term).unwrap();
    out.text()
}

#[test]
fn a_sticky_caller_meets_one_version() {
    let url = "http://api.example.com:8080/orders//7?a=b";
    let text = explained(&["GET", url, "-H", "x-openid: alice", "-H", "X-Partner-Id: acme", "--from", "198.51.100.9"]);
    for part in [
        "GET api.example.com/orders/7\n",
        "listener  plain (127.0.0.1:8080)\n",
        "caller    198.51.100.9\n",
        "route     orders\n",
        "100/s, burst 50, per client_ip, counted by 198.51.100.9\n",
        "600/min, burst 10, per header:x-partner-id, counted by acme (shared: partners)\n",
        "(sticky by header:x-openid, bucket ",
        "goes to   https://orders-v4",
        "2 other routes are for another host, path or listener",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(text.contains("/7?a=b"), "{text}");
}

#[test]
fn a_caller_without_a_key_is_dealt() {
    let text = explained(&["GET", "http://api.example.com/orders"]);
    assert!(text.contains("version   dealt by weight\n"), "{text}");
    assert!(
        text.contains("v41 95 %  https://orders-v41.example.com/base/  with Host orders-v41.example.com\n"),
        "{text}"
    );
    assert!(text.contains("v42 5 %  https://orders-v42.example.com/  with"), "{text}");
}

#[test]
fn an_override_beats_the_weights() {
    let text = explained(&["GET", "http://api.example.com/orders", "-H", "x-tester: yes"]);
    assert!(text.contains("version   v42 (by override, whatever the weights)\n"), "{text}");
}

#[test]
fn a_refusal_says_why() {
    let text = explained(&["POST", "http://api.example.com/orders/7"]);
    assert!(text.contains("not     orders: everything holds but the method\n"), "{text}");
    assert!(text.contains("405 method_not_allowed: allowed here: GET, HEAD"), "{text}");
    let text = explained(&["GET", "http://api.example.com/office", "--from", "198.51.100.9"]);
    assert!(text.contains("403 forbidden_client: 198.51.100.9 is not let in by `clients` of route office"), "{text}");
    let text = explained(&["GET", "/nothing", "-H", "Host: api.example.com", "--all"]);
    assert!(text.contains("404 no_route") && text.contains("orders: another path"), "{text}");
    let text = explained(&["GET", "http://api.example.com/orders/a%2fb"]);
    assert!(text.contains("400 bad_request"), "{text}");
    let text = explained(&["CONNECT", "api.example.com:443"]);
    assert!(text.contains("405 method_not_allowed: CONNECT is not served here"), "{text}");
}

#[test]
fn a_url_that_is_none_is_told_how_to_be_one() {
    assert_eq!(url("localhost/orders").unwrap_err(), "write it whole: `http://localhost/orders`");
    assert!(url("http://x/a b").unwrap_err().contains("must be percent-encoded"));
}

#[test]
fn trusted_proxies_tell_who_calls() {
    let args = ["GET", "http://api.example.com/office", "--from", "10.0.0.1", "-H", "x-forwarded-for: 192.0.2.7"];
    let text = explained(&args);
    assert!(text.contains("caller    192.0.2.7, told by 10.0.0.1, client office (Ada Wang, ext. 7)\n"), "{text}");
    assert!(text.contains("version   v42 (pinned by the route)\n"), "{text}");
}

#[test]
fn json_says_the_same() {
    let text = explained(&["GET", "http://api.example.com/orders/7", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["route"], "orders");
    assert_eq!(told["picked_by"], "weight");
    assert_eq!(told["destinations"][1]["percent"], "5");
    assert_eq!(told["others"].as_array().unwrap().len(), 2);
}
