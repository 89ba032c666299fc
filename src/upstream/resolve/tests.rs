use std::{
    io::{self, Write},
    time::Duration,
};

use tempfile::NamedTempFile;

use super::*;
use crate::upstream::NotResolved;

#[path = "../../../tests/it/harness/dns.rs"]
pub(super) mod dns;
use dns::Dns;

const PATIENCE: Duration = Duration::from_secs(20);

/// The real pace, a hundred times as fast.
fn quick() -> Pace {
    Pace {
        least: Duration::from_millis(50),
        most: Duration::from_millis(600),
        retry_least: Duration::from_millis(10),
        retry_most: Duration::from_millis(300),
        keep: Duration::from_secs(36),
        lookup: Duration::from_millis(500),
    }
}

fn no_files() -> Files {
    Files { hosts: "/nonexistent/hosts".into(), resolv_conf: "/nonexistent/resolv.conf".into() }
}

fn resolver(servers: &[SocketAddr], pace: Pace) -> Resolver {
    Resolver::paced(Handle::current(), servers, pace, no_files())
}

fn shown(addresses: &Addresses) -> Vec<String> {
    addresses.current().iter().map(ToString::to_string).collect()
}

async fn becomes(addresses: &Addresses, wanted: &[&str]) {
    until(|| shown(addresses) == wanted, || format!("{wanted:?}, is {:?}", shown(addresses))).await;
}

async fn until(mut holds: impl FnMut() -> bool, what: impl Fn() -> String) {
    let waited = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, waited).await.is_ok(), "never {}", what());
}

#[tokio::test]
async fn a_changed_answer_is_followed() {
    let dns = Dns::start().await;
    dns.answer("orders.test", &["10.0.0.1", "2001:db8::1"], 0);
    let addresses = resolver(&[dns.address()], quick()).watch("orders.test");

    addresses.wait_first(PATIENCE).await.unwrap();
    assert_eq!(shown(&addresses), ["2001:db8::1", "10.0.0.1"]);

    dns.answer("orders.test", &["10.0.0.2"], 0);
    becomes(&addresses, &["10.0.0.2"]).await;
}

#[tokio::test]
async fn a_ttl_is_clamped_at_both_ends() {
    let dns = Dns::start().await;
    dns.answer("short.test", &["10.0.0.1"], 0);
    dns.answer("long.test", &["10.0.0.1"], 86_400);
    let pace = Pace { least: Duration::from_secs(3600), ..quick() };
    let seldom = resolver(&[dns.address()], pace).watch("short.test");
    let often = resolver(&[dns.address()], quick()).watch("long.test");
    seldom.wait_first(PATIENCE).await.unwrap();
    often.wait_first(PATIENCE).await.unwrap();
    until(|| dns.asked("long.test") >= 6, || "asked again".into()).await;
    assert_eq!(dns.asked("short.test"), 2, "one query per record type");
}

#[tokio::test]
async fn a_name_that_stops_resolving_keeps_its_last_addresses() {
    let dns = Dns::start().await;
    let resolver = resolver(&[dns.address()], quick());
    for stop in [Dns::forget, Dns::fail, Dns::fall_silent] {
        dns.answer("orders.test", &["10.0.0.1"], 0);
        let addresses = resolver.watch("orders.test");
        addresses.wait_first(PATIENCE).await.unwrap();
        stop(&dns, "orders.test");
        let before = dns.asked("orders.test");
        until(|| dns.asked("orders.test") > before + 6, || "asked again".into()).await;
        assert_eq!(shown(&addresses), ["10.0.0.1"]);

        dns.answer("orders.test", &["10.0.0.9"], 0);
        becomes(&addresses, &["10.0.0.9"]).await;
    }
}

#[tokio::test]
async fn last_addresses_do_not_serve_for_ever() {
    let dns = Dns::start().await;
    dns.answer("orders.test", &["10.0.0.1"], 0);
    let pace = Pace { keep: Duration::from_millis(100), ..quick() };
    let addresses = resolver(&[dns.address()], pace).watch("orders.test");
    addresses.wait_first(PATIENCE).await.unwrap();
    dns.forget("orders.test");
    becomes(&addresses, &[]).await;
}

#[tokio::test]
async fn when_one_family_fails_only_that_one_falls_back() {
    let dns = Dns::start().await;
    dns.answer("orders.test", &["10.0.0.1", "2001:db8::1"], 0);
    let addresses = resolver(&[dns.address()], quick()).watch("orders.test");
    addresses.wait_first(PATIENCE).await.unwrap();
    // The other family has no records now: nothing is left to go on with but the last good answer.
    dns.fail_only("orders.test", dns::AAAA);
    let before = dns.asked("orders.test");
    until(|| dns.asked("orders.test") > before + 4, || "asked again".into()).await;
    assert_eq!(shown(&addresses), ["2001:db8::1", "10.0.0.1"]);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told_at_once() {
    let dns = Dns::start().await;
    let addresses = resolver(&[dns.address()], Pace::default()).watch("nobody.test");
    assert_eq!(addresses.wait_first(PATIENCE).await, Err(NotResolved));
    let second = timeout(Duration::from_secs(1), addresses.wait_first(PATIENCE)).await;
    assert_eq!(second, Ok(Err(NotResolved)), "the second one does not wait");
}

#[tokio::test]
async fn without_any_name_server_nothing_hangs_and_one_that_comes_is_found() {
    let mut resolv_conf = NamedTempFile::new().unwrap();
    let files = Files { resolv_conf: resolv_conf.path().into(), ..no_files() };
    let resolver = Resolver::paced(Handle::current(), &[], quick(), files);
    let addresses = resolver.watch("orders.test");
    assert_eq!(addresses.wait_first(PATIENCE).await, Err(NotResolved));

    // Someone who does not answer is there now: still no hang.
    writeln!(resolv_conf, "nameserver 127.0.0.1").unwrap();
    assert_eq!(addresses.wait_first(PATIENCE).await, Err(NotResolved));

    // And now the config names one.
    let dns = Dns::start().await;
    dns.answer("orders.test", &["10.0.0.1"], 60);
    resolver.use_servers(&[dns.address()]);
    becomes(&addresses, &["10.0.0.1"]).await;
}

#[tokio::test]
async fn a_silent_name_server_costs_a_request_no_more_than_it_gives() {
    let dns = Dns::start().await;
    dns.fall_silent("orders.test");
    let addresses = resolver(&[dns.address()], Pace::default()).watch("orders.test");
    let waited = timeout(PATIENCE, addresses.wait_first(Duration::from_millis(50))).await;
    assert_eq!(waited, Ok(Err(NotResolved)));
}

#[tokio::test]
async fn other_name_servers_take_over_and_the_old_answer_serves_meanwhile() {
    let (old, new) = (Dns::start().await, Dns::start().await);
    old.answer("orders.test", &["10.0.0.1"], 3600);
    new.fall_silent("orders.test");
    let pace = Pace { most: Duration::from_secs(3600), ..quick() };
    let resolver = resolver(&[old.address()], pace);
    let addresses = resolver.watch("orders.test");
    addresses.wait_first(PATIENCE).await.unwrap();

    resolver.use_servers(&[new.address()]);
    until(|| new.asked("orders.test") > 0, || "asked".into()).await;
    assert_eq!(shown(&addresses), ["10.0.0.1"]);
    new.answer("orders.test", &["10.0.0.2"], 3600);
    becomes(&addresses, &["10.0.0.2"]).await;
}

#[tokio::test]
async fn hosts_come_first_and_are_followed_and_localhost_is_always_there() {
    let dns = Dns::start().await;
    dns.answer("orders.test", &["10.0.0.1"], 0);
    let mut hosts = NamedTempFile::new().unwrap();
    writeln!(hosts, "10.9.9.9 orders.test orders # by hand").unwrap();
    let files = Files { hosts: hosts.path().into(), ..no_files() };
    let resolver = Resolver::paced(Handle::current(), &[dns.address()], quick(), files);
    let addresses = resolver.watch("orders.test");
    addresses.wait_first(PATIENCE).await.unwrap();
    assert_eq!(shown(&addresses), ["10.9.9.9"]);
    assert_eq!(dns.asked("orders.test"), 0);

    hosts.as_file().set_len(0).unwrap();
    becomes(&addresses, &["10.0.0.1"]).await;

    let loopback = resolver.watch("localhost");
    loopback.wait_first(PATIENCE).await.unwrap();
    assert_eq!(shown(&loopback), ["::1", "127.0.0.1"]);
}

#[tokio::test]
async fn a_name_is_followed_only_while_somebody_holds_it() {
    let dns = Dns::start().await;
    dns.answer("orders.test", &["10.0.0.1"], 0);
    let resolver = resolver(&[dns.address()], quick());
    let addresses = resolver.watch("orders.test");
    let same = resolver.watch("orders.test");
    assert!(Arc::ptr_eq(&addresses, &same));
    addresses.wait_first(PATIENCE).await.unwrap();
    drop((addresses, same));

    until(|| Handle::current().metrics().num_alive_tasks() <= 1, || "ended: more is alive than the name server".into())
        .await;
}

#[tokio::test]
async fn the_resolver_may_go_before_its_answers() {
    let dns = Dns::start().await;
    dns.answer("orders.test", &["10.0.0.1"], 0);
    let addresses = {
        let resolver = resolver(&[dns.address()], quick());
        resolver.watch("orders.test")
    };
    addresses.wait_first(PATIENCE).await.unwrap();
    dns.answer("orders.test", &["10.0.0.2"], 0);
    becomes(&addresses, &["10.0.0.2"]).await;
}

/// What is logged on this thread while it lives.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn with(&self, word: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|l| l.contains("orders.test") && l.contains(word)).count()
    }
}

/// What this thread logs while the guards live.
fn logged() -> (Lines, (tracing::subscriber::DefaultGuard, tracing::Dispatch)) {
    // While only one subscriber exists, tracing lets the thread that comes first decide for all whether a line is of interest, and
    // that may be another test's thread, which has none.
    let second = tracing::Dispatch::new(tracing_subscriber::fmt().finish());
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    (lines, (tracing::subscriber::set_default(subscriber), second))
}

#[tokio::test]
async fn a_name_that_never_resolved_keeps_nothing_and_does_not_say_so() {
    let (lines, _guards) = logged();
    let dns = Dns::start().await;
    let addresses = resolver(&[dns.address()], quick()).watch("orders.test");
    addresses.wait_first(PATIENCE).await.unwrap_err();
    until(|| lines.with("WARN") == 1, || "warned".into()).await;
    assert_eq!(lines.with("refused until it does"), 1);
    assert_eq!(lines.with("stay in use") + lines.with("kept="), 0);
}

#[tokio::test]
async fn only_changes_are_logged() {
    let (lines, _guards) = logged();
    let dns = Dns::start().await;
    dns.answer("orders.test", &["10.0.0.1"], 0);
    let addresses = resolver(&[dns.address()], quick()).watch("orders.test");
    addresses.wait_first(PATIENCE).await.unwrap();
    let asked_again = async || {
        let before = dns.asked("orders.test");
        let what = || "asked again".into();
        until(|| dns.asked("orders.test") > before + 6, what).await;
    };
    asked_again().await;
    dns.answer("orders.test", &["10.0.0.2"], 0);
    becomes(&addresses, &["10.0.0.2"]).await;
    dns.forget("orders.test");
    asked_again().await;
    dns.answer("orders.test", &["10.0.0.2"], 0);
    asked_again().await;

    assert_eq!(lines.with("old=[] new=[10.0.0.1]"), 1);
    assert_eq!(lines.with("old=[10.0.0.1] new=[10.0.0.2]"), 1);
    assert_eq!(lines.with("WARN"), 1);
    assert_eq!(lines.with(r#"reason="the name does not exist" kept=[10.0.0.2]"#), 1);
    assert_eq!(lines.with("name resolves again"), 1);
    assert_eq!(lines.with(""), 4);
}
