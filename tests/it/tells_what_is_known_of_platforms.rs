//! `gatepost functions` and `gatepost explain` say what is known of a function's platform, whose word that is, and what it means.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const CONFIG: &str = r#"
[listener.in]
address = "127.0.0.1:8080"
[function.orders]
platform = "aliyun-fc3"
versions = { v1 = "https://orders.cn-hangzhou.fcapp.run/base" }
max_body = "1MiB"
pool = { idle = "3s" }
classify = [{ status = 460, class = "throttled" }]
[function.plain]
versions = { v1 = "https://plain.example.com" }
[route.orders]
path = "/orders/*"
function = "orders"
[route.plain]
path = "/plain/*"
function = "plain"
"#;

fn gatepost(args: &[&str], config: Option<&str>) -> Output {
    let dir = TempDir::with_prefix("gatepost-").unwrap();
    let file = dir.path().join("gatepost.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(args);
    if let Some(config) = config {
        std::fs::write(&file, config).unwrap();
        command.arg("--config").arg(&file);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn json_of(args: &[&str], config: Option<&str>) -> Value {
    serde_json::from_slice(&gatepost(args, config).stdout).unwrap()
}

fn text_of(args: &[&str], config: Option<&str>) -> String {
    String::from_utf8(gatepost(args, config).stdout).unwrap()
}

#[test]
fn every_platform_is_there_and_each_fact_has_its_source() {
    let told = json_of(&["functions", "--json"], Some(CONFIG));
    let platforms = told["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 8);
    for platform in platforms {
        let facts = platform["facts"].as_array().unwrap();
        assert!(facts.len() > 2 || platform["name"] == "generic", "{platform}");
        for fact in facts {
            assert!(["verified", "memory", "unknown", "choice"].contains(&fact["mark"].as_str().unwrap()), "{fact}");
            assert!(
                !fact["source"].as_str().unwrap().is_empty() && !fact["value"].as_str().unwrap().is_empty(),
                "{fact}"
            );
        }
    }
    let text = text_of(&["functions", "-p", "azure-functions"], Some(CONFIG));
    assert!(text.starts_with("azure-functions: "), "{text}");
    assert!(text.contains("timeouts.first_byte") && text.contains("230 s"), "{text}");
    assert!(!text.contains("aliyun") && !text.contains("function orders"), "{text}");
}

#[test]
fn each_function_is_told_with_whose_word_every_key_is() {
    let told = json_of(&["functions", "--json"], Some(CONFIG));
    let functions = told["functions"].as_array().unwrap();
    let key = |function: usize, key: &str| {
        let keys = functions[function]["keys"].as_array().unwrap();
        let one = keys.iter().find(|one| one["key"] == key).unwrap();
        (one["value"].clone(), one["from"].clone())
    };
    assert_eq!((&functions[0]["name"], &functions[0]["platform"]), (&json!("orders"), &json!("aliyun-fc3")));
    for (name, value, from) in [
        ("max_body", "1MiB", "file"),
        ("max_headers", "8KiB", "platform"),
        ("pool.idle", "3s", "file"),
        ("pool.age", "5m", "platform"),
        ("timeouts.first_byte", "60s", "default"),
        ("map_status", "false", "default"),
        ("classify", "460 is throttled", "file"),
    ] {
        assert_eq!(key(0, name), (json!(value), json!(from)), "{name}");
    }
    assert_eq!(key(1, "pool.idle"), (json!("25s"), json!("default")));
    let text = text_of(&["functions", "-p", "aliyun-fc3"], Some(CONFIG));
    assert!(text.contains("function orders on aliyun-fc3"), "{text}");
    assert!(text.contains("as the platform has it (verified)") && text.contains("as the file says"), "{text}");
}

#[test]
fn explain_names_the_platform_and_refuses_what_it_would_refuse() {
    let explain = |url: &str, headers: &[&str]| {
        let mut args = vec!["explain", "--json", "GET", url];
        headers.iter().for_each(|header| args.extend(["-H", header]));
        json_of(&args, Some(CONFIG))
    };
    let told = explain("http://a.test/orders/7", &["X-Fc-Date: now", "x-own: 1"]);
    assert_eq!(told["platform"]["name"], "aliyun-fc3");
    assert_eq!(told["platform"]["max_headers"], 8192);
    assert_eq!(told["platform"]["dropped"], json!(["x-fc-date"]));
    assert_eq!(told["refused"], Value::Null);
    // With `/base` before it.
    let path = |bytes: usize| format!("http://a.test/orders/{}", "u".repeat(bytes - "/base/orders/".len()));
    assert_eq!(explain(&path(4096), &[])["refused"], Value::Null);
    assert_eq!(explain(&path(4097), &[])["refused"]["reason"], "uri_too_long");
    let big = format!("x-big: {}", "h".repeat(8192));
    let told = explain("http://a.test/orders/7", &[&big]);
    assert_eq!((&told["refused"]["reason"], &told["refused"]["status"]), (&json!("headers_too_large"), &json!(431)));
    assert!(told["refused"]["detail"].as_str().unwrap().contains("aliyun-fc3"), "{told}");
    let told = explain("http://a.test/orders/7", &["content-length: 1048577"]);
    assert_eq!(told["refused"]["reason"], "body_too_large");
    assert_eq!(explain("http://a.test/plain/7", &[])["platform"], Value::Null);
    let text = text_of(&["explain", "GET", "http://a.test/orders/7"], Some(CONFIG));
    assert!(text.contains("aliyun-fc3: at most 8KiB of headers, 4KiB of path and query, 1MiB of body"), "{text}");
}
