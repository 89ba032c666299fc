//! `gatepost replay-guard`: what the guard would have said of a release, from its access log.

use std::{fmt::Write, path::Path, process::Command};

use serde_json::{Value, json};

/// A log of five minutes from 10:00 on, 20 requests a second, one of them to v42, which fails from the second minute on.
fn log() -> String {
    let mut text = String::new();
    for second in 0..300 {
        for n in 0..20 {
            let version = if n == 7 { "v42" } else { "v41" };
            let fails = version == "v42" && second >= 60;
            let line = json!({
                "ts": format!("2026-11-22T10:{:02}:{:02}.{n:02}0Z", second / 60, second % 60),
                "function": "orders", "version": version, "picked_by": "sticky", "weights_from": "file",
                "class": if fails { "function" } else { "ok" }, "upstream_ms": 12.5,
                "client_ip": format!("10.0.{}.{}", second % 250, n),
            });
            writeln!(text, "{line}").unwrap();
        }
    }
    text + "no line of a log\n"
}

fn replay(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    let output = command.arg("replay-guard").arg(dir.join("access.log")).args(more).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_says_when_the_guard_would_have_sent_the_canary_back_and_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("access.log"), log()).unwrap();
    let (code, said, warned) = replay(dir.path(), &[]);
    assert_eq!(code, Some(0), "{warned}");
    assert!(warned.contains("1 lines are no JSON lines"), "{warned}");
    assert!(said.contains("function orders, compared with v41, by a guard with its defaults"), "{said}");
    let worse = said.lines().find(|line| line.contains(" worse ")).unwrap_or_else(|| panic!("{said}"));
    assert!(worse.trim().starts_with("2026-11-22T10:01:0") && worse.contains("v42 fails"), "{said}");

    let (_, said, _) = replay(dir.path(), &["--json"]);
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["verdict"], &lines[0]["version"]), (&"worse".into(), &"v42".into()), "{said}");
    assert_eq!(lines.last().unwrap()["at_the_end"]["canary"]["requests"], 300, "{said}");
}

#[test]
fn the_config_s_own_guard_may_be_more_patient() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("access.log"), log()).unwrap();
    let config = "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.orders]\nversions = { v41 = \"http://a.test\", v42 = \"http://b.test\" }\n\
                  weights = { v41 = \"rest\" }\nguard = { tolerate = 100, false_alarm = 0.0001 }\n[route.orders]\nfunction = \"orders\"\n";
    let file = dir.path().join("gatepost.toml");
    std::fs::write(&file, config).unwrap();
    let (code, said, warned) = replay(dir.path(), &["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{warned}");
    assert!(said.contains("by the config's guard"), "{said}");
    // A fifth of all in a minute fails: nothing is promoted; but 80 s of it are no proof of a hundredfold.
    let first = said.lines().nth(1).unwrap();
    assert!(first.contains("too_many_errors"), "{said}");
}

#[test]
fn a_log_with_nothing_to_compare_is_said_to_be_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("access.log"), "{}\n").unwrap();
    let (code, _, said) = replay(dir.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no function with two versions"), "{said}");
    std::fs::write(dir.path().join("access.log"), log()).unwrap();
    let (code, _, said) = replay(dir.path(), &["--function", "nobody"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no request of function `nobody`"), "{said}");
    let (code, _, said) = replay(dir.path(), &["--baseline", "v40"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no request of the baseline `v40`"), "{said}");
}
