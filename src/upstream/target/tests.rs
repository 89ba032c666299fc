use std::time::Duration;

use super::*;
use crate::{
    config::model::{Platform, Pool, Share, UpstreamHttp, UpstreamTimeouts},
    upstream::resolve::{Files, Pace},
};

pub(in crate::upstream) fn url(tls: bool, host: &str, port: u16) -> Endpoint {
    Endpoint {
        tls,
        host: host.parse().map_or_else(|_| EndpointHost::Name(host.to_owned()), EndpointHost::Address),
        port,
        base_path: String::new(),
        authority: host.to_owned(),
    }
}

pub(in crate::upstream) fn version(tls: bool, host: &str, port: u16) -> Version {
    Version {
        name: "v1".into(),
        url: url(tls, host, port),
        ca: None,
        host: None,
        credential: None,
        max_concurrency: None,
    }
}

pub(in crate::upstream) fn function(http: UpstreamHttp) -> Function {
    Function {
        name: "orders".into(),
        versions: vec![version(false, "127.0.0.1", 80)],
        weights: vec![Share::WHOLE],
        baseline: None,
        rest: None,
        ramp: None,
        sticky: None,
        overrides: Vec::new(),
        preserve_host: false,
        timeouts: UpstreamTimeouts {
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(20),
            idle: Duration::from_secs(40),
            write: Duration::from_secs(30),
            total: None,
        },
        http,
        pool: Pool { idle: Duration::from_secs(25), age: None },
        platform: Platform::default(),
        budget: None,
        guard: None,
        mirror: None,
        concurrency: None,
        retries: None,
        health: None,
    }
}

fn no_names() -> Resolver {
    let files = Files { hosts: "/nonexistent/hosts".into(), resolv_conf: "/nonexistent/resolv.conf".into() };
    Resolver::paced(tokio::runtime::Handle::current(), &[], Pace::default(), files)
}

fn places(ips: &[&str]) -> Places {
    let (addresses, _) = Addresses::unknown("orders.test");
    let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    addresses.store(&ips);
    Places {
        host: EndpointHost::Name("orders.test".into()),
        port: 443,
        addresses: Arc::new(addresses),
        turn: AtomicUsize::new(0),
        resting: Resting::default(),
    }
}

fn seconds(s: u64) -> Now {
    Now(s * 1_000_000_000)
}

fn order(places: &Places, now: Now) -> Vec<String> {
    places.candidates(now).map(|a| a.ip().to_string()).collect()
}

fn fail(places: &Places, address: SocketAddr, now: Now) {
    places.resting.unconnected(address, now, &places.all());
}

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 443)
}

#[test]
fn addresses_take_turns() {
    let places = places(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(order(&places, seconds(0)), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(order(&places, seconds(0)), ["10.0.0.2", "10.0.0.3", "10.0.0.1"]);
    assert_eq!(order(&places, seconds(0)), ["10.0.0.3", "10.0.0.1", "10.0.0.2"]);
    assert_eq!(order(&places, seconds(0)), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
}

#[test]
fn a_failed_address_goes_last_for_ten_seconds() {
    let places = places(&["10.0.0.1", "10.0.0.2"]);
    fail(&places, at("10.0.0.1"), seconds(100));
    for _ in 0..10 {
        assert_eq!(order(&places, seconds(109)), ["10.0.0.2", "10.0.0.1"]);
    }
    // Then one request, and only one, tries it first.
    assert_eq!(order(&places, seconds(110)), ["10.0.0.1", "10.0.0.2"]);
    for _ in 0..10 {
        assert_eq!(order(&places, seconds(111)), ["10.0.0.2", "10.0.0.1"]);
    }
    // It went well: back to turns.
    places.resting.connected(at("10.0.0.1"));
    let firsts: Vec<_> = (0..4).map(|_| order(&places, seconds(111)).remove(0)).collect();
    assert_eq!(firsts.iter().filter(|ip| *ip == "10.0.0.1").count(), 2);
}

#[test]
fn a_probe_that_fails_or_never_ends_costs_another_ten_seconds() {
    let places = places(&["10.0.0.1", "10.0.0.2"]);
    fail(&places, at("10.0.0.1"), seconds(0));
    assert_eq!(order(&places, seconds(10))[0], "10.0.0.1");
    assert_eq!(order(&places, seconds(19))[0], "10.0.0.2");
    assert_eq!(order(&places, seconds(20))[0], "10.0.0.1");
    fail(&places, at("10.0.0.1"), seconds(23));
    assert_eq!(order(&places, seconds(32))[0], "10.0.0.2");
    assert_eq!(order(&places, seconds(33))[0], "10.0.0.1");
}

#[test]
fn where_all_failed_all_are_still_tried() {
    let places = places(&["10.0.0.1", "10.0.0.2"]);
    fail(&places, at("10.0.0.1"), seconds(0));
    fail(&places, at("10.0.0.2"), seconds(0));
    let mut tried = order(&places, seconds(1));
    tried.sort();
    assert_eq!(tried, ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn addresses_that_vanish_are_no_longer_tried_nor_remembered() {
    let places = places(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    fail(&places, at("10.0.0.1"), seconds(0));
    places.addresses.store(&["10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()]);
    assert!(!order(&places, seconds(1)).contains(&"10.0.0.1".to_owned()));
    fail(&places, at("10.0.0.2"), seconds(1));
    assert_eq!(places.resting.len(), 1);
}

#[test]
fn a_request_tries_four_addresses_at_most_of_both_families() {
    let many = [
        "2001:db8::1",
        "2001:db8::2",
        "2001:db8::3",
        "2001:db8::4",
        "2001:db8::5",
        "2001:db8::6",
        "2001:db8::7",
        "10.0.0.1",
    ];
    let places = places(&many);
    for _ in 0..many.len() {
        let tried = order(&places, seconds(0));
        assert_eq!(tried.len(), Candidates::MOST);
        assert!(tried.contains(&"10.0.0.1".to_owned()), "{tried:?}");
        let mut distinct = tried.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), tried.len());
    }
}

#[test]
fn a_name_without_addresses_has_no_candidates() {
    assert!(places(&[]).candidates(seconds(0)).is_empty());
}

#[tokio::test]
async fn a_literal_address_needs_no_resolver() {
    let target = Target::new(&version(false, "::1", 8080), &function(UpstreamHttp::Auto), None, &no_names()).unwrap();
    let tried: Vec<_> = target.candidates(Now(0)).collect();
    assert_eq!(tried, ["[::1]:8080".parse().unwrap()]);
    target.wait_first(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_changed_function_goes_on_with_what_is_known_of_its_addresses() {
    let resolver = no_names();
    let plain = function(UpstreamHttp::Auto);
    let old = Target::new(&version(false, "localhost", 80), &plain, None, &resolver).unwrap();
    old.wait_first(Duration::from_secs(5)).await.unwrap();
    let loopback = "127.0.0.1:80".parse().unwrap();
    old.failed(loopback, seconds(0), None);

    let h2 = function(UpstreamHttp::Http2);
    let same_place = Target::carried(Some(&old), &version(true, "localhost", 80), &h2, None, &resolver).unwrap();
    assert_eq!(same_place.candidates(seconds(1)).last(), Some(loopback));
    assert!(Arc::ptr_eq(&old.places, &same_place.places));

    let elsewhere = Target::carried(Some(&old), &version(false, "localhost", 81), &plain, None, &resolver).unwrap();
    assert_eq!(elsewhere.places.resting.len(), 0);
    // The name is looked up once for both.
    assert!(Arc::ptr_eq(&old.places.addresses, &elsewhere.places.addresses));
}
