//! `gatepost diff`: what another config would change, in words, and for the requests of a log.

use std::{fmt::Write, path::Path, process::Command};

use serde_json::{Value, json};

const OLD: &str = r#"
[listener.in]
address = "127.0.0.1:0"
[client.partner]
networks = ["10.9.0.0/16"]
[function.orders]
versions = { v41 = "http://a.test", v42 = "http://b.test" }
weights = { v41 = "rest", v42 = 5 }
[route.orders]
path = "/orders/*"
function = "orders"
[route.report]
path = "/report"
function = "orders"
[route.old]
path = "/old/*"
respond = { status = 410 }
"#;

fn new() -> String {
    OLD.replace("v42 = 5", "v42 = 25")
        .replace("[route.report]", "[route.report]\nclients = [\"partner\"]")
        .replace("path = \"/orders/*\"", "path = \"/orders/*\"\nlimits = [{ rate = \"10/s\", burst = 10 }]")
        .replace("path = \"/old/*\"", "path = \"/older/*\"")
}

/// Ten seconds with 20 orders each, 10 reports of which 3 are the partner's, and 5 calls of what is gone.
fn log() -> String {
    let mut text = String::new();
    for second in 0..10 {
        let mut line = |path: String, client: Option<&str>| {
            let mut line = json!({
                "ts": format!("2026-11-22T10:00:{second:02}.500Z"), "listener": "in", "client_ip": "192.0.2.7",
                "method": "GET", "host": "api.test", "path": path, "class": "ok",
            });
            if let Some(client) = client {
                line["client"] = client.into();
                line["client_ip"] = "10.9.0.1".into();
            }
            writeln!(text, "{line}").unwrap();
        };
        for n in 0..20 {
            line(format!("/orders/{n}"), None);
        }
        if second == 0 {
            (0..7).for_each(|_| line("/report".to_owned(), None));
            (0..3).for_each(|_| line("/report".to_owned(), Some("partner")));
            (0..5).for_each(|_| line("/old/x".to_owned(), None));
        }
    }
    text
}

fn diff(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    let output = command.arg("diff").arg(dir.join("old.toml")).arg(dir.join("new.toml")).args(more).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn in_words_and_in_numbers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("old.toml"), OLD).unwrap();
    std::fs::write(dir.path().join("new.toml"), new()).unwrap();
    let log_file = dir.path().join("access.log");
    std::fs::write(&log_file, log()).unwrap();

    let (code, said, warned) = diff(dir.path(), &[]);
    assert_eq!((code, warned.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("function orders: v42 5 % → 25 %, v41 95 % → 75 %"), "{said}");
    assert!(said.contains("route report: clients"), "{said}");

    let (code, said, warned) = diff(dir.path(), &["--traffic", log_file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{warned}");
    assert!(said.contains("of 215 requests 103 would fare as before"), "{said}");
    let orders =
        "function orders by route orders → limited by limits[0] of route orders, such as GET api.test/orders/10";
    assert!(said.contains(&format!("     100  {orders}")), "{said}");
    assert!(
        said.contains("       7  function orders by route report → refused (forbidden_client) by route report"),
        "{said}"
    );
    assert!(
        said.contains("       5  answered by route old → refused (no_route), such as GET api.test/old/x"),
        "{said}"
    );
    assert!(
        said.contains("function orders: v42 has about 10 → 26 of them") || said.contains("v42 has about 11 → 26"),
        "{said}"
    );

    let (_, said, _) = diff(dir.path(), &["--json", "--traffic", log_file.to_str().unwrap()]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&told["traffic"]["requests"], &told["traffic"]["moved"][0]["requests"]), (&215.into(), &100.into()));
}

#[test]
fn the_same_meaning_is_said_to_be_the_same_and_a_broken_one_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("old.toml"), OLD).unwrap();
    std::fs::write(dir.path().join("new.toml"), format!("# a word\n{OLD}")).unwrap();
    let (code, said, _) = diff(dir.path(), &[]);
    assert_eq!((code, said.as_str()), (Some(0), "the two mean the same\n"));
    std::fs::write(dir.path().join("new.toml"), OLD.replace("v42 = 5", "v42 = 500")).unwrap();
    let (code, _, report) = diff(dir.path(), &[]);
    assert_eq!(code, Some(2));
    assert!(report.contains("is not a weight"), "{report}");
}
