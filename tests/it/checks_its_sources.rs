//! What the world sees of the addresses to leave from, by an echo that is asked from each.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Gateway, Reply, eventually, gateway, origin, proxy::mirror, when};

fn config(url: &str, bind: &str, public: &str) -> String {
    format!(
        r#"
        [client.fn]
        networks = ["127.0.0.1/32"]
        [egress.listener.out]
        address = "127.0.0.1:0"
        [egress.source.s]
        bind = {bind}
        {public}
        check = {{ url = "{url}", every = "1s" }}
        [egress.rule.r]
        clients = ["fn"]
        to = ["127.0.0.9:1"]
        private = ["127.0.0.0/8"]
        source = "s"
        "#
    )
}

const AGREES: &str = "gatepost_egress_source_agrees";
const CHECKS: &str = "gatepost_egress_source_checks_total";

/// What the status page says the world sees.
async fn seen(gate: &Gateway) -> Value {
    gate.ask_admin("/api/v1/status").await.json()["sources"][0]["seen"].clone()
}

/// What `gatepost egress addresses --check` says, and whether it ends well.
async fn addresses(gate: &Gateway) -> (Value, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(["egress", "addresses", "--check", "--json", "--config"]).arg(gate.dir().join("gatepost.toml"));
    // The echo is on this thread, and has to answer meanwhile.
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    (told["addresses"][0].clone(), done.status.success())
}

#[tokio::test]
async fn an_echo_is_asked_from_each_address_and_what_differs_is_told_and_refuses_nothing() {
    let echo = mirror("127.0.0.9:0").await;
    let url = format!("http://{}/ip", echo.address);
    let gate = gateway(config(&url, "[\"127.0.0.21\", \"127.0.0.22\"]", "")).start().await;
    for address in ["127.0.0.21", "127.0.0.22"] {
        gate.counts(AGREES, &[("source", "s"), ("address", address)], 1.0).await;
    }
    gate.says(&["the world sees the source's address as partners were told", "127.0.0.22"]).await;
    assert_eq!(seen(&gate).await, "as public");
    let (told, well) = addresses(&gate).await;
    assert_eq!((&told["seen"], &told["agrees"], well), (&"127.0.0.21".into(), &true.into(), true));

    // A NAT that was told of, and is not there.
    gate.swap("check =", "public = \"203.0.113.11\"\n        check =").await;
    gate.counts(AGREES, &[("address", "127.0.0.21")], 0.0).await;
    gate.says(&["the world sees another address than `public`", "public=203.0.113.11", "seen=127.0.0.21"]).await;
    assert_eq!(seen(&gate).await, "127.0.0.21, which is not its public address");
    let (told, well) = addresses(&gate).await;
    assert_eq!((&told["agrees"], well), (&false.into(), false));
    // It dials all the same: nobody listens there.
    let (_, said) = gate.tunnel("127.0.0.9:1").await;
    said.is(502, "upstream_unreachable");

    // Whom nobody asks, of him nothing is said.
    gate.edit(|text| text.lines().filter(|line| !line.contains("check =")).collect::<Vec<_>>().join("\n")).await;
    eventually("no gauge", async || when(!gate.metrics().await.names().contains(&AGREES))).await;
    assert_eq!(seen(&gate).await, Value::Null);
}

#[tokio::test]
async fn an_echo_that_does_not_answer_is_told_and_found_again() {
    let echo = origin().answers(|_| Reply::text("<html>sign in, from 10.0.0.1 or 10.0.0.2</html>")).start().await;
    let url = format!("http://127.0.0.1:{}", echo.port());
    let gate = gateway(config(&url, "\"127.0.0.21\"", "public = \"198.51.100.7\"")).start().await;
    gate.says(&["cannot ask what the world sees", "its answer does not hold one address"]).await;
    let names = gate.metrics().await;
    assert!(names.sum(CHECKS, &[("result", "failed")]) > 0.0 && !names.names().contains(&AGREES));
    echo.now_answers(|_| Reply::text(r#"{"ip":"198.51.100.7"}"#));
    gate.counts(AGREES, &[("source", "s")], 1.0).await;
    // No redirect is followed.
    echo.now_answers(|_| Reply::text("").status(302).header("Location", "http://127.0.0.1:1/"));
    gate.says(&["it answered 302"]).await;
    assert_eq!(seen(&gate).await, "not known: it answered 302 Found");
}
