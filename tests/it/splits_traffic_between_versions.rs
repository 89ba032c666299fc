//! Shares are kept to the request: dealt evenly, or by caller for good.

use std::collections::BTreeSet;

use crate::harness::{Connection, Gateway, Origin, full, gateway, get, h2::H2, origin};

/// A function whose versions `stable` and `canary` answer with their names.
struct Released {
    gateway: Gateway,
    _versions: Vec<Origin>,
}

async fn released(workers: usize, weights: &str, more: &str) -> Released {
    let stable = origin().reply("stable").start().await;
    let canary = origin().reply("canary").start().await;
    let third = origin().reply("third").start().await;
    let gateway = gateway(format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        [function.f]
        {more}
        [function.f.versions]
        stable = "{}"
        canary = "{}"
        third = "{}"
        [function.f.weights]
        {weights}
        [route.f]
        function = "f"
        "#,
        stable.url(),
        canary.url(),
        third.url()
    ))
    .workers(workers)
    .start()
    .await;
    Released { gateway, _versions: vec![stable, canary, third] }
}

const FIVE: &str = "stable = \"rest\"\ncanary = 5";

/// How many requests the figures are taken from.
fn many() -> usize {
    if full() { 10_000 } else { 2_000 }
}

/// Who answered each of so many requests, one after the other on one connection.
async fn in_a_row(gateway: &Gateway, requests: usize) -> Vec<String> {
    let mut connection = gateway.connect().await;
    let mut answers = Vec::with_capacity(requests);
    for _ in 0..requests {
        answers.push(connection.send("/").await.text());
    }
    answers
}

fn count(answers: &[String], version: &str) -> usize {
    answers.iter().filter(|a| *a == version).count()
}

#[tokio::test]
async fn five_percent_is_five_of_every_hundred() {
    let released = released(1, FIVE, "").await;
    let answers = in_a_row(&released.gateway, many()).await;
    let canary = count(&answers, "canary");
    assert!(canary.abs_diff(many() / 20) <= 1, "{canary} of {}", many());
    for (at, window) in answers.windows(100).enumerate() {
        let canary = count(window, "canary");
        assert!((4..=6).contains(&canary), "{canary} of 100 from {at} on");
    }
}

#[tokio::test]
async fn three_versions_stay_within_one_of_their_shares() {
    let weights = "stable = \"rest\"\ncanary = 12.5\nthird = 33.34";
    let released = released(1, weights, "").await;
    let answers = in_a_row(&released.gateway, 1_000).await;
    for (version, share) in [("canary", 12.5), ("third", 33.34), ("stable", 54.16)] {
        let mut got = 0.0;
        for (n, answer) in answers.iter().enumerate() {
            if answer == version {
                got += 1.0;
            }
            let due = (n + 1) as f64 * share / 100.0;
            assert!((got - due).abs() <= 1.0, "{version}: {got} of {} requests", n + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_workers_keep_the_share_over_many_connections() {
    let released = released(8, FIVE, "").await;
    let each = many() / 16;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut connection = released.gateway.connect().await;
        callers.spawn(async move {
            let mut canary = 0;
            for _ in 0..each {
                canary += usize::from(connection.send("/").await.text() == "canary");
            }
            canary
        });
    }
    let canary: usize = callers.join_all().await.into_iter().sum();
    // Each worker deals for itself, and may be within one of its own share.
    assert!(canary.abs_diff(each * 16 / 20) <= 8, "{canary} of {}", each * 16);
}

#[tokio::test]
async fn the_share_holds_over_h2() {
    let released = released(2, FIVE, "").await;
    let h2 = H2::plain(released.gateway.address("in")).await;
    let mut canary = 0;
    for _ in 0..many() / 20 {
        let mut batch = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let h2 = h2.clone();
            batch.spawn(async move { h2.send("/").await.text() });
        }
        canary += count(&batch.join_all().await, "canary");
    }
    assert!(canary.abs_diff(many() / 20) <= 8, "{canary} of {}", many());
}

#[tokio::test]
async fn a_reload_that_leaves_the_weights_alone_does_not_disturb_the_dealing() {
    let released = released(1, FIVE, "").await;
    let gateway = &released.gateway;
    let mut answers = Vec::new();
    for n in 0..8 {
        // Never a whole round of the dealing.
        answers.extend(in_a_row(gateway, 37).await);
        let receipt =
            gateway.edit(|text| format!("{text}\n[route.more-{n}]\npath = \"/more-{n}\"\nfunction = \"f\"\n")).await;
        assert_eq!(receipt.result, "applied");
    }
    for window in answers.windows(100) {
        assert!((4..=6).contains(&count(window, "canary")), "{}", count(window, "canary"));
    }
}

#[tokio::test]
async fn a_changed_weight_acts_at_once() {
    let released = released(1, FIVE, "").await;
    released.gateway.swap("canary = 5", "canary = 50").await;
    let canary = count(&in_a_row(&released.gateway, 100).await, "canary");
    assert!((49..=51).contains(&canary), "{canary}");
    released.gateway.swap("canary = 50", "canary = 0").await;
    assert_eq!(count(&in_a_row(&released.gateway, 100).await, "canary"), 0);
}

/// The callers, of so many, that get the canary.
async fn canary_callers(connection: &mut Connection, callers: usize) -> BTreeSet<usize> {
    let mut canary = BTreeSet::new();
    for caller in 0..callers {
        let asks = get("/").header("x-openid", &format!("caller-{caller}"));
        if connection.send(asks).await.text() == "canary" {
            canary.insert(caller);
        }
    }
    canary
}

#[tokio::test]
async fn raising_a_sticky_share_moves_nobody_off_the_canary() {
    let sticky = "sticky = { by = [\"header:x-openid\"] }";
    let one = released(2, FIVE, sticky).await;
    let callers = 2_000;
    let mut before = BTreeSet::new();
    let mut now = 5;
    for percent in [5, 10, 25] {
        if percent != now {
            let (from, to) = (format!("canary = {now}"), format!("canary = {percent}"));
            one.gateway.swap(&from, &to).await;
            now = percent;
        }
        let canary = canary_callers(&mut one.gateway.connect().await, callers).await;
        assert!(before.is_subset(&canary), "somebody left at {percent} %");
        // Five standard deviations of a fair hash over 2,000 callers.
        let share = percent as f64 / 100.0;
        let spread = 5.0 * (callers as f64 * share * (1.0 - share)).sqrt();
        let off = (canary.len() as f64 - callers as f64 * share).abs();
        assert!(off <= spread, "{} of {callers} at {percent} %", canary.len());
        before = canary;
    }
    // Another gatepost, another process, other ports: the same callers.
    let other = released(1, "stable = \"rest\"\ncanary = 25", sticky).await;
    let canary = canary_callers(&mut other.gateway.connect().await, callers).await;
    assert_eq!(canary, before);
}

#[tokio::test]
async fn the_first_key_that_a_caller_has_decides() {
    let sticky = "sticky = { by = [\"header:x-openid\", \"cookie:uid\", \"client_ip\"] }";
    let released = released(2, "stable = \"rest\"\ncanary = 50", sticky).await;
    let gateway = &released.gateway;
    let by_header = canary_callers(&mut gateway.connect().await, 200).await;
    let mut by_cookie = BTreeSet::new();
    let mut by_both = BTreeSet::new();
    let mut connection = gateway.connect().await;
    for caller in 0..200 {
        let cookie = format!("a=b; uid=caller-{caller}");
        let asks = get("/").header("cookie", &cookie);
        if connection.send(asks.clone()).await.text() == "canary" {
            by_cookie.insert(caller);
        }
        let asks = asks.header("x-openid", "always the same");
        if connection.send(asks).await.text() == "canary" {
            by_both.insert(caller);
        }
    }
    assert!((60..=140).contains(&by_cookie.len()), "{}", by_cookie.len());
    assert!((60..=140).contains(&by_header.len()), "{}", by_header.len());
    assert!(by_both.is_empty() || by_both.len() == 200, "the cookie decided");
    // Without either, the address decides: always alike for one caller.
    let first = connection.send("/").await.text();
    assert!(in_a_row(gateway, 20).await.iter().all(|a| *a == first));
}

#[tokio::test]
async fn a_caller_without_a_key_gets_a_cookie_and_stays() {
    let sticky = "sticky = { by = [\"cookie:uid\"], issue_cookie = true }";
    let released = released(2, "stable = \"rest\"\ncanary = 50", sticky).await;
    let mut connection = released.gateway.connect().await;
    let mut versions = BTreeSet::new();
    for _ in 0..40 {
        let first = connection.send("/").await;
        let set = first.header("set-cookie").expect("no cookie").to_owned();
        let cookie = set.split(';').next().unwrap();
        assert!(cookie.starts_with("gatepost_sticky="), "{set}");
        for _ in 0..3 {
            let again = connection.send(get("/").header("cookie", cookie)).await;
            assert_eq!(again.text(), first.text());
            assert_eq!(again.header("set-cookie"), None);
        }
        versions.insert(first.text());
    }
    assert_eq!(versions.len(), 2, "all cookies lead to one version");
    let known = connection.send(get("/").header("cookie", "uid=7")).await;
    assert_eq!(known.header("set-cookie"), None);
}

#[tokio::test]
async fn an_override_reaches_a_version_with_no_share() {
    let more = r#"override = [
            { header = "x-tester: yes", version = "canary" },
            { cookie = "beta", version = "canary" },
            { header = "x-inside", from = ["127.0.0.9/32"], version = "third" },
            { networks = ["127.0.0.8/32"], version = "third" },
        ]"#;
    let released = released(1, "stable = 100", more).await;
    let gateway = &released.gateway;
    let tester = get("/").header("x-tester", "yes");
    assert_eq!(gateway.send(tester).await.text(), "canary");
    let other = get("/").header("x-tester", "no");
    assert_eq!(gateway.send(other).await.text(), "stable");
    let beta = get("/").header("cookie", "beta=whatever");
    assert_eq!(gateway.send(beta).await.text(), "canary");
    let inside = get("/").header("x-inside", "1");
    assert_eq!(gateway.send(inside.clone()).await.text(), "stable");
    let mut from = gateway.connect_from("127.0.0.9").await;
    assert_eq!(from.send(inside).await.text(), "third");
    let mut from = gateway.connect_from("127.0.0.8").await;
    assert_eq!(from.send("/").await.text(), "third");
}

#[tokio::test]
async fn a_pinned_route_reaches_its_version_and_the_log_says_what_picked() {
    let more = "override = [{ header = \"x-tester\", version = \"canary\" }]";
    let released = released(1, "stable = 100", more).await;
    let gateway = &released.gateway;
    gateway
        .edit(|text| format!("{text}\n[route.test]\npath = \"/test\"\nfunction = \"f\"\nversion = \"third\"\n"))
        .await;
    // A pin comes before an override.
    let pinned = get("/test").header("x-tester", "yes");
    assert_eq!(gateway.send(pinned).await.text(), "third");
    gateway.send(get("/").header("x-tester", "yes")).await;
    gateway.get("/").await;
    let picked: Vec<_> = gateway
        .log(3)
        .await
        .iter()
        .map(|line| format!("{} {} {}", line["version"], line["picked_by"], line["weights_from"]).replace('"', ""))
        .collect();
    assert_eq!(picked[0].split(' ').take(2).collect::<Vec<_>>(), ["third", "pin"]);
    assert_eq!(picked[1].split(' ').take(2).collect::<Vec<_>>(), ["canary", "override"]);
    assert_eq!(picked[2], "stable weight file");
}
