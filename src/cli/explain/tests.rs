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
    explained_of(CONFIG, args)
}

fn explained_of(config: &str, args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gatepost.toml");
    std::fs::write(&file, config).unwrap();
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

#[test]
fn a_credential_says_which_client_it_is_or_why_it_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("partner");
    // SHA-256 of `key`.
    std::fs::write(&secret, "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683").unwrap();
    let config = format!(
        "{CONFIG}\n[client.partner]\nowner = \"Bo\"\napi_key = {{ sha256 = \"file:{}\" }}\n\
         [client.lost]\nbasic = {{ user = \"u\", sha256 = \"file:{}.not\" }}\n\
         [route.partner]\nhost = \"api.example.com\"\npath = \"/partner\"\nfunction = \"orders\"\nclients = [\"partner\", \"lost\"]\n",
        secret.display(),
        secret.display(),
    );
    let of = |args: &[&str]| explained_of(&config, &[&["GET", "http://api.example.com/partner"][..], args].concat());
    let text = of(&["-H", "X-Api-Key: key"]);
    assert!(text.contains("partner") && text.contains("Bo") && text.contains("goes to"), "{text}");
    for (args, why) in [
        (
            &[][..],
            "401 credentials_missing: it shows nothing that this route reads: expected Basic credentials or an API key in x-api-key",
        ),
        (
            &["-H", "x-api-key: kee"],
            "401 credentials_invalid: api_key: no client has this one; route partner is for partner, lost",
        ),
        (&["-H", "x-api-key: key", "-H", "x-api-key: key"], "api_key: it is there twice, empty, too long or malformed"),
        // Its secret cannot be read here, so nobody is it.
        (&["-H", "authorization: Basic dTp4"], "401 credentials_invalid: basic: no client has this one"),
    ] {
        let text = of(args);
        assert!(text.contains(why), "`{why}` is not in\n{text}");
    }
}

#[test]
fn it_says_where_a_request_would_wait() {
    let config =
        CONFIG.replace("[function.orders]\n", "[function.orders]\nconcurrency = { max = 300, wait = \"800ms\" }\n");
    assert_ne!(config, CONFIG);
    let args = ["GET", "http://api.example.com/orders/7"];
    let text = explained_of(&config, &args);
    assert!(text.contains("calls     at most 300 at a time, 1000 wait up to 800ms\n"), "{text}");
    assert!(text.contains("waits as normal\n"), "{text}");
    let text = explained(&args);
    assert!(!text.contains("waits as"), "{text}");
}
