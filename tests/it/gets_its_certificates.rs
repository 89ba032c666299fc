//! Certificates by ACME: got, served, kept and renewed without anybody's hand.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use serde_json::Value;
use tokio::net::TcpStream;

use crate::harness::{
    Connection, Gateway, Origin,
    acme::{Acme, acme},
    authority, eventually, gateway,
    gateway::{Build, log_lines},
    get, origin,
    tls::Agreed,
    when,
};

/// A listener for callers, one for the authority's questions, and a function behind both.
async fn config(tls: &str) -> (Build, Origin) {
    let function = origin().echo().start().await;
    let text = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\ntls = [{tls}]\n[listener.plain]\naddress = \"127.0.0.1:0\"\n\
         [function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    );
    (gateway(text).workers(1), function)
}

/// Starts it, and tells the authority where the names lead.
async fn start(build: Build, acme: &Acme) -> Gateway {
    let gateway = build.start().await;
    acme.state().asks_at = Some(gateway.address("plain"));
    gateway
}

async fn shake(gateway: &Gateway, acme: &Acme, name: &str) -> Option<(Connection, Agreed)> {
    let tcp = TcpStream::connect(gateway.address("in")).await.ok()?;
    let (stream, agreed) = acme.authority.caller(&["http/1.1"]).handshake(tcp, name).await.ok()?;
    Some((Connection::over(stream), agreed))
}

async fn served(gateway: &Gateway, acme: &Acme, name: &str) -> Agreed {
    let what = format!("a certificate for {name}");
    let (mut connection, agreed) = eventually(&what, async || shake(gateway, acme, name).await).await;
    assert_eq!(connection.send(get("/").host(name)).await.status, 200);
    agreed
}

async fn status(gateway: &Gateway) -> Value {
    gateway.ask_admin("/api/v1/status").await.json()["certificates"].clone()
}

#[tokio::test]
async fn a_certificate_is_got_for_all_names_and_served_without_a_reload() {
    let acme = acme().await;
    let (build, _function) = config(&acme.toml(&["one.test", "two.test"])).await;
    let gateway = start(build, &acme).await;
    let one = served(&gateway, &acme, "one.test").await;
    assert_eq!(served(&gateway, &acme, "two.test").await.peer, one.peer);
    gateway.says(&["a new certificate is served", "one.test two.test"]).await;
    assert_eq!(acme.state().orders, [["one.test", "two.test"]]);
    gateway.counts("gatepost_acme_orders_total", &[("name", "one.test"), ("result", "issued")], 1.0).await;
    let left =
        gateway.metrics().await.sum("gatepost_certificate_expiry_seconds", &[("listener", "in"), ("name", "one.test")]);
    assert!(left > 1e9, "{left}");
    let shown = status(&gateway).await;
    assert_eq!(shown[0]["name"], "one.test");
    assert!(shown[0]["problem"].is_null() && shown[0]["expires"].is_string(), "{shown}");
    // The authority's question is a request like any other: it is in the log.
    let lines = eventually("the challenges in the log", async || {
        let lines = log_lines(&gateway.dir().join("access.log"));
        let asked: Vec<Value> =
            lines.into_iter().filter(|l| l["path"].as_str().unwrap().starts_with("/.well-known/acme")).collect();
        (asked.len() == 2).then_some(asked)
    })
    .await;
    assert!(lines.iter().all(|l| l["status"] == 200 && l["listener"] == "plain" && l["route"].is_null()), "{lines:?}");
    // Keys are for the service alone.
    for file in files(&gateway.state_dir().join("acme")) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    assert!(!found.is_empty());
    found
}

/// Only the name that waits is without: others of the same listener are served, and status says what is the matter.
#[tokio::test]
async fn while_a_name_waits_the_others_are_served() {
    let (acme, own) = (acme().await, authority());
    let leaf = own.leaf(&["own.test"]);
    let (build, _function) = config(&format!("{}, {}", leaf.toml(), acme.toml(&["new.test"]))).await;
    // The authority is not told where to ask yet: it takes its time.
    let gateway = build.start().await;
    eventually("the order is made", async || when(!acme.state().orders.is_empty())).await;
    assert!(shake(&gateway, &acme, "new.test").await.is_none());
    let tcp = TcpStream::connect(gateway.address("in")).await.unwrap();
    assert_eq!(own.caller(&[]).handshake(tcp, "own.test").await.unwrap().1.peer, leaf.der);
    assert_eq!(gateway.ask_admin("/readyz").await.status, 200);
    let shown = status(&gateway).await;
    assert_eq!(shown[1]["name"], "new.test");
    assert!(shown[1]["problem"].as_str().unwrap().contains("waits for its first certificate"), "{shown}");
    acme.state().asks_at = Some(gateway.address("plain"));
    served(&gateway, &acme, "new.test").await;
}

#[tokio::test]
async fn challenges_are_answered_while_they_live_and_belong_to_the_routes_else() {
    let acme = acme().await;
    let (build, function) = config(&acme.toml(&["one.test"])).await;
    let gateway = start(build, &acme).await;
    served(&gateway, &acme, "one.test").await;
    let before = function.requests();
    // Another's token, on a function's own path: also where no order is under way.
    let mut plain = Connection::open(gateway.address("plain")).await;
    let answer = plain.send(get("/.well-known/acme-challenge/theirs").host("one.test")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(function.requests(), before + 1);
}

#[tokio::test]
async fn a_restart_serves_what_was_kept_and_asks_nobody() {
    let acme = acme().await;
    let (build, _function) = config(&acme.toml(&["one.test"])).await;
    let mut gateway = start(build, &acme).await;
    let before = served(&gateway, &acme, "one.test").await;
    gateway.stop().await;
    let again = gateway.again().await;
    // From the first handshake on.
    let (_, agreed) = shake(&again, &acme, "one.test").await.unwrap();
    assert_eq!(agreed.peer, before.peer);
    assert_eq!(acme.state().orders.len(), 1);
    assert_eq!(acme.state().contacts.len(), 1);
}

/// Past two thirds of its life a certificate is renewed, by the account that is there; until then the old one serves.
#[tokio::test]
async fn a_certificate_is_renewed_in_time_and_the_old_one_serves_until_then() {
    let acme = acme().await;
    {
        let mut state = acme.state();
        state.ago = Duration::from_secs(70 * 86_400);
        state.life = Duration::from_secs(90 * 86_400);
    }
    let (build, _function) = config(&acme.toml(&["one.test"])).await;
    let mut gateway = start(build, &acme).await;
    let old = served(&gateway, &acme, "one.test").await;
    gateway.stop().await;
    // It was due when it came, but nobody asks twice within an hour: as if that hour were over.
    for file in files(&gateway.state_dir().join("acme")) {
        if file.extension().is_some_and(|e| e == "json") && !file.ends_with("account.json") {
            std::fs::remove_file(file).unwrap();
        }
    }
    {
        let mut state = acme.state();
        state.ago = Duration::ZERO;
        state.asks_at = None;
    }
    let again = gateway.again().await;
    eventually("the renewal is ordered", async || when(acme.state().orders.len() == 2)).await;
    assert_eq!(shake(&again, &acme, "one.test").await.unwrap().1.peer, old.peer);
    acme.state().asks_at = Some(again.address("plain"));
    eventually("the new one is served", async || {
        let (_, agreed) = shake(&again, &acme, "one.test").await.unwrap();
        when(agreed.peer != old.peer)
    })
    .await;
    assert_eq!(acme.state().contacts.len(), 1, "one account");
}

#[tokio::test]
async fn an_authority_that_says_no_is_told_of_and_left_in_peace() {
    let acme = acme().await;
    acme.state().refuses = Some(("rateLimited", 7200));
    let (build, _function) = config(&acme.toml(&["one.test"])).await;
    let mut gateway = start(build, &acme).await;
    gateway.says(&["no new certificate", "one.test", "not now"]).await;
    gateway.counts("gatepost_acme_orders_total", &[("name", "one.test"), ("result", "failed")], 1.0).await;
    let shown = status(&gateway).await;
    assert!(shown[0]["problem"].as_str().unwrap().contains("not now"), "{shown}");
    // Neither a reload nor a restart asks sooner than it asked for.
    acme.state().refuses = None;
    gateway.swap("[listener.in]", "[listener.in]\nmax_connections = 50").await;
    gateway.stop().await;
    let again = gateway.again().await;
    assert_eq!(Connection::open(again.address("plain")).await.send("/").await.status, 200);
    assert!(acme.state().orders.is_empty());
}

/// What the authority saw when it asked is told: most often it is a name that leads elsewhere.
#[tokio::test]
async fn a_name_that_leads_elsewhere_is_told_of_with_what_was_found_there() {
    let acme = acme().await;
    let elsewhere = origin().echo().start().await;
    let (build, _function) = config(&acme.toml(&["one.test"])).await;
    acme.state().asks_at = Some(elsewhere.address);
    let gateway = build.start().await;
    gateway.says(&["no new certificate", "one.test", "asked for /.well-known/acme-challenge/"]).await;
    assert_eq!(acme.state().issued, 0);
}

#[tokio::test]
async fn an_authority_that_cannot_be_reached_is_asked_again_soon() {
    let acme = acme().await;
    let (build, _function) = config(&acme.toml(&["one.test"])).await;
    // Its certificate is another's at first.
    let wrong = authority();
    let right = acme.authority.ca();
    let text = std::fs::read_to_string(&right).unwrap();
    std::fs::copy(wrong.ca(), &right).unwrap();
    let gateway = start(build, &acme).await;
    gateway.says(&["no new certificate", "one.test"]).await;
    assert!(acme.state().contacts.is_empty());
    std::fs::write(right.with_extension("new"), text).unwrap();
    std::fs::rename(right.with_extension("new"), &right).unwrap();
    served(&gateway, &acme, "one.test").await;
}

/// A name more: the certificate that is there serves the old names until the new one comes.
#[tokio::test]
async fn a_name_is_added_without_a_gap_for_the_others() {
    let acme = acme().await;
    let (build, _function) = config(&acme.toml(&["one.test"])).await;
    let gateway = start(build, &acme).await;
    let one = served(&gateway, &acme, "one.test").await;
    acme.state().asks_at = None;
    gateway.swap("[\"one.test\"]", "[\"one.test\", \"two.test\"]").await;
    assert_eq!(shake(&gateway, &acme, "one.test").await.unwrap().1.peer, one.peer);
    assert!(shake(&gateway, &acme, "two.test").await.is_none());
    acme.state().asks_at = Some(gateway.address("plain"));
    let both = served(&gateway, &acme, "two.test").await;
    assert_ne!(both.peer, one.peer);
    assert_eq!(served(&gateway, &acme, "one.test").await.peer, both.peer);
}
