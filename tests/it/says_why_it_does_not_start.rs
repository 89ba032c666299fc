//! What can't be served is not started: an exit code that scripts can tell apart, and words that say what to mend.

use std::process::Command;

use crate::harness::gateway;

const FUNCTION: &str = "[function.f]\nversions = { v1 = \"http://127.0.0.1:9\" }\n[route.f]\nfunction = \"f\"\n";

/// Exit code 1: it failed while starting; 2: the config is wrong. Both name the thing.
async fn fails(config: &str, code: i32, words: &[&str]) {
    let (got, said) = gateway(format!("{config}\n{FUNCTION}")).fails().await;
    assert_eq!(got, Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn without_its_config_it_says_which() {
    let output = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["run", "--config", "/nowhere/gatepost.toml"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("/nowhere/gatepost.toml"), "{said}");
}

#[tokio::test]
async fn every_problem_is_told_at_once() {
    let broken = "[server]\nworkers = \"many\"\n[listener.in]\nadress = \"127.0.0.1:0\"\n";
    fails(broken, 2, &["gatepost.toml:", "workers", "did you mean `address`?"]).await;
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_named() {
    fails("[admin]\ntoken = \"file:/nowhere/token\"\n", 2, &["/nowhere/token"]).await;
    fails("[admin]\ntoken = \"env:NOT_SET_ANYWHERE\"\n", 2, &["NOT_SET_ANYWHERE"]).await;
}

#[tokio::test]
async fn a_ca_that_is_not_there_is_named() {
    let function = "[function.g]\nca = \"/nowhere/ca.pem\"\nversions = { v1 = \"https://localhost:9\" }\n";
    fails(function, 2, &["/nowhere/ca.pem"]).await;
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_is_named() {
    fails("[log]\naccess = \"/nowhere/access.log\"\n", 1, &["/nowhere/access.log"]).await;
}

#[tokio::test]
async fn an_address_that_is_not_ours_is_named() {
    // TEST-NET-1 (RFC 5737) is nobody's.
    fails("[listener.in]\naddress = \"192.0.2.1:80\"\n", 1, &["192.0.2.1:80"]).await;
}

#[tokio::test]
async fn an_admin_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(&format!("[admin]\naddress = \"{address}\"\n"), 1, &[&address]).await;
}

/// What it would keep there (history, the way back) matters less than that callers are served.
#[tokio::test]
async fn a_state_folder_that_cannot_be_made_is_named_and_does_not_keep_it_from_serving() {
    // /dev/null is no folder to make one in.
    let config = format!("[server]\nstate_dir = \"/dev/null/state\"\n{FUNCTION}");
    let gateway = gateway(config).start().await;
    gateway.says(&["degraded", "/dev/null/state"]).await;
    assert_eq!(gateway.ask_admin("/readyz").await.status, 200);
    // A reload needs no state either.
    let receipt = gateway.swap("[route.f]", "[route.f]\npath = \"/f\"").await;
    assert_eq!(receipt.generation, 2);
}
