use std::{cell::Cell, time::Duration};

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::config::model::{
    Endpoint, EndpointHost, Networks, Pool, Share, Sticky, StickyKey, UpstreamHttp, UpstreamTimeouts, Version,
};

const V: [VersionId; 4] = [VersionId(0), VersionId(1), VersionId(2), VersionId(3)];

/// A function whose versions have these weights in hundredths; the first named with a star is the baseline.
pub(super) fn function(versions: &[(&str, u16)]) -> Function {
    let second = Duration::from_secs(1);
    Function {
        name: "orders".into(),
        versions: versions
            .iter()
            .map(|(name, _)| Version {
                name: name.trim_end_matches('*').into(),
                url: Endpoint {
                    tls: false,
                    host: EndpointHost::Name("localhost".into()),
                    port: 80,
                    base_path: String::new(),
                    authority: "localhost".into(),
                },
                ca: None,
                host: None,
                credential: None,
                max_concurrency: None,
            })
            .collect(),
        weights: versions.iter().map(|(_, w)| Share(*w)).collect(),
        baseline: versions.iter().position(|(name, _)| name.ends_with('*')).map(|at| VersionId(at as u32)),
        rest: None,
        ramp: None,
        sticky: None,
        overrides: vec![],
        preserve_host: false,
        timeouts: UpstreamTimeouts { connect: second, first_byte: second, idle: second, write: second, total: None },
        http: UpstreamHttp::Auto,
        pool: Pool { idle: second, age: None },
        platform: crate::config::model::Platform::default(),
        budget: None,
        guard: None,
        mirror: None,
        concurrency: None,
        retries: None,
        health: None,
    }
}

pub(super) fn sticky(versions: &[(&str, u16)], by: Vec<StickyKey>, issue_cookie: bool) -> Function {
    Function { sticky: Some(Sticky { by, salt: "orders".into(), issue_cookie }), ..function(versions) }
}

fn uid() -> Vec<StickyKey> {
    vec![StickyKey::Header(HeaderName::from_static("x-uid"))]
}

pub(super) fn facts<'r>(headers: &'r HeaderMap, worker: usize) -> PickFacts<'r> {
    PickFacts { pin: None, client_ip: "192.0.2.7".parse().unwrap(), client: None, headers, worker, dice: &|| 7 }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
}

fn dealt(split: &Split, worker: usize, n: usize) -> Vec<VersionId> {
    let none = HeaderMap::new();
    (0..n).map(|_| split.pick(&facts(&none, worker)).unwrap().version).collect()
}

fn count(picks: &[VersionId], version: VersionId) -> usize {
    picks.iter().filter(|v| **v == version).count()
}

#[test]
fn of_10_000_requests_dealt_95_to_5_the_canary_gets_500_and_5_of_every_100() {
    for worker in 0..8 {
        let split = Split::new(&function(&[("v1*", 9_500), ("v2", 500)]), 8, None);
        let picks = dealt(&split, worker, 10_000);
        assert!((499..=501).contains(&count(&picks, V[1])));
        for window in picks.windows(100) {
            assert!((4..=6).contains(&count(window, V[1])));
        }
    }
}

#[test]
fn eight_workers_together_stay_as_even() {
    let split = Split::new(&function(&[("v1*", 9_500), ("v2", 500)]), 8, None);
    // However the requests fall to the workers.
    let mut dice = 1u64;
    let mut canary = 0;
    let none = HeaderMap::new();
    for n in 1..=10_000usize {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let worker = (dice >> 61) as usize;
        let pick = split.pick(&facts(&none, worker)).unwrap();
        canary += usize::from(pick.version == V[1]);
        assert!(canary.abs_diff(n / 20) <= 8, "{canary} of {n}");
    }
    assert!((492..=508).contains(&canary));
}

#[test]
fn a_reload_that_leaves_the_weights_alone_does_not_disturb_dealing() {
    let config = function(&[("v1*", 9_900), ("v2", 100)]);
    let mut split = Split::new(&config, 2, None);
    let mut picks = vec![];
    for _ in 0..50 {
        picks.extend(dealt(&split, 0, 37));
        // A version without weight comes in front of them, so that their ids move.
        let mut next = function(&[("v0", 0), ("v1*", 9_900), ("v2", 100)]);
        next.preserve_host = true;
        split = Split::new(&next, 2, Some(&split));
        picks.extend(dealt(&split, 0, 63).iter().map(|v| VersionId(v.0 - 1)));
        split = Split::new(&config, 2, Some(&split));
    }
    assert!(picks.windows(100).all(|w| count(w, V[1]) == 1));
}

#[test]
fn changed_weights_start_a_new_sequence() {
    let split = Split::new(&function(&[("v1*", 9_500), ("v2", 500)]), 1, None);
    dealt(&split, 0, 13);
    let changed = Split::new(&function(&[("v1*", 9_000), ("v2", 1_000)]), 1, Some(&split));
    let fresh = Split::new(&function(&[("v1*", 9_000), ("v2", 1_000)]), 1, None);
    assert_eq!(dealt(&changed, 0, 100), dealt(&fresh, 0, 100));
}

#[test]
fn a_lone_version_gets_all_and_no_weight_means_no_version() {
    let none = HeaderMap::new();
    let split = Split::new(&function(&[("v1*", 10_000), ("v2", 0)]), 1, None);
    assert_eq!(count(&dealt(&split, 0, 100), V[0]), 100);
    let empty = Split::new(&function(&[("v1", 0), ("v2", 0)]), 1, None);
    assert_eq!(empty.pick(&facts(&none, 0)), None);
    let empty = Split::new(&sticky(&[("v1", 0)], vec![StickyKey::ClientIp], true), 1, None);
    assert_eq!(empty.pick(&facts(&none, 0)), None);
}

/// Weights that total 10,000, some of them zero.
fn weights(versions: usize) -> impl Strategy<Value = Vec<u16>> {
    let coarse = prop_oneof![Just(1u16), Just(100)];
    (prop::collection::vec(0..=10_000u16, versions - 1), coarse).prop_map(|(mut cuts, unit)| {
        cuts.iter_mut().for_each(|c| *c -= *c % unit);
        cuts.extend([0, 10_000]);
        cuts.sort_unstable();
        cuts.windows(2).map(|w| w[1] - w[0]).collect()
    })
}

fn named(weights: &[u16]) -> Vec<(&'static str, u16)> {
    const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
    NAMES.iter().copied().zip(weights.iter().copied()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_versions_are_within_one_of_their_share_in_any_run(
        w in weights(2), worker in 0usize..16, run in 1usize..3_000,
    ) {
        let split = Split::new(&function(&named(&w)), 16, None);
        let picks = dealt(&split, worker, 10_000 + run);
        let mut have = count(&picks[..run], V[1]) as i64;
        for start in 0..10_000 {
            let off = have * 10_000 - i64::from(w[1]) * run as i64;
            prop_assert!(off.abs() < 10_000, "{have} in {run} from {start}");
            have += i64::from(picks[start + run] == V[1]) - i64::from(picks[start] == V[1]);
        }
    }

    #[test]
    fn more_versions_are_within_one_of_their_share_from_the_start(
        w in (3usize..=7).prop_flat_map(weights), worker in 0usize..4,
    ) {
        let split = Split::new(&function(&named(&w)), 4, None);
        let mut have = vec![0i64; w.len()];
        for (n, version) in (1i64..).zip(dealt(&split, worker, 20_500)) {
            have[version.index()] += 1;
            for (have, weight) in have.iter().zip(&w) {
                prop_assert!((have * 10_000 - i64::from(*weight) * n).abs() < 10_000);
            }
        }
    }

    #[test]
    fn sticky_shares_are_exact_to_the_bucket(w in (1usize..=7).prop_flat_map(weights), baseline in 0u32..7) {
        let mut config = sticky(&named(&w), uid(), false);
        config.baseline = (baseline < w.len() as u32).then_some(VersionId(baseline));
        let owners = owners(&config);
        for (version, weight) in (0u32..).zip(&w) {
            prop_assert_eq!(count(&owners, VersionId(version)), usize::from(*weight));
        }
    }

    #[test]
    fn raising_a_version_never_moves_a_caller_off_it(
        w in (2usize..=6).prop_flat_map(weights), which in 1usize..6, by in 1u16..10_000,
    ) {
        // The first is the baseline and pays.
        prop_assume!(w[0] > 0);
        let (which, by) = (1 + which % (w.len() - 1), 1 + by % w[0]);
        let mut raised = w.clone();
        raised[which] += by;
        raised[0] -= by;
        let split = |w: &[u16]| {
            let mut config = sticky(&named(w), uid(), false);
            config.baseline = Some(V[0]);
            owners(&config)
        };
        let moves: Vec<_> = split(&w)
            .into_iter()
            .zip(split(&raised))
            .filter(|(before, after)| before != after)
            .collect();
        prop_assert!(moves.iter().all(|(before, _)| before.index() != which));
        if w.len() <= 3 {
            prop_assert_eq!(moves.len(), usize::from(by));
        }
    }
}

fn owners(config: &Function) -> Vec<VersionId> {
    let split = Split::new(config, 1, None);
    let buckets = split.sticky.unwrap();
    (0..10_000).map(|b| buckets.version(b).unwrap()).collect()
}

#[test]
fn of_100_000_sticky_callers_nobody_leaves_the_canary_on_its_way_up() {
    let none = vec![V[0]; 100_000];
    let mut before = none;
    for percent in [5u16, 10, 25] {
        let config = sticky(&[("v1*", 10_000 - percent * 100), ("v2", percent * 100)], uid(), false);
        let split = Split::new(&config, 1, None);
        let after: Vec<VersionId> = (0..100_000)
            .map(|n| {
                let headers = headers(&[("x-uid", &format!("caller-{n}"))]);
                let pick = split.pick(&facts(&headers, n % 3)).unwrap();
                assert_eq!(pick.picked_by, PickedBy::Sticky);
                pick.version
            })
            .collect();
        let share = count(&after, V[1]) as f64 / 1_000.0;
        assert!((share - f64::from(percent)).abs() < 0.6, "{share} %");
        assert!(before.iter().zip(&after).all(|(b, a)| *b == V[0] || *a == V[1]));
        before = after;
    }
}

#[test]
fn the_ends_stay_with_their_versions() {
    let of = |versions: &[(&str, u16)]| {
        let o = owners(&sticky(versions, uid(), false));
        (o[0], o[5_000], o[9_999])
    };
    // The first by name grows from the bottom, the second from the top, the baseline lies between.
    assert_eq!(of(&[("a", 100), ("b*", 9_700), ("c", 200)]), (V[0], V[1], V[2]));
    // At weight 0 the first still holds the bottom, so that the second doesn't move.
    assert_eq!(of(&[("a", 0), ("b*", 9_800), ("c", 200)]), (V[1], V[1], V[2]));
    // A third one disturbs neither.
    assert_eq!(of(&[("a", 100), ("b*", 9_600), ("c", 200), ("d", 100)]), (V[0], V[3], V[2]));
    // No baseline: the first by name stands in.
    assert_eq!(of(&[("a", 5_000), ("b", 5_000)]), (V[1], V[0], V[0]));
}

/// Changing these moves every sticky caller of every user: don't.
#[test]
fn the_hash_is_the_same_everywhere_and_for_ever() {
    // Computed by a separate program, written from the description of XXH64.
    assert_eq!(bucket("orders", b"alice"), 4050);
    assert_eq!(bucket("orders", b"bob"), 6332);
    assert_eq!(bucket("checkout", b"alice"), 1657);
    assert_eq!(bucket("orders", b"192.0.2.7"), 9018);
    assert_eq!(bucket("orders", b"2001:db8::1"), 1377);
    assert_eq!(bucket("orders", b"a value that is longer than thirty-two bytes"), 3502);
}

#[test]
fn the_first_sticky_key_present_decides() {
    let by =
        vec![StickyKey::Header(HeaderName::from_static("x-uid")), StickyKey::Cookie("uid".into()), StickyKey::ClientIp];
    let split = Split::new(&sticky(&[("v1*", 5_000), ("v2", 5_000)], by, true), 1, None);
    let placed = |lines: &[(&'static str, &str)]| {
        let headers = headers(lines);
        let placed = split.placed(&facts(&headers, 0)).unwrap();
        (placed.bucket, placed.key.cloned())
    };
    let (alice, bob) = (bucket("orders", b"alice"), bucket("orders", b"bob"));
    let ip = bucket("orders", b"192.0.2.7");
    let cookie = Some(StickyKey::Cookie("uid".into()));
    assert_eq!(placed(&[("x-uid", "alice"), ("cookie", "uid=bob")]).0, alice);
    assert_eq!(placed(&[("cookie", "uid=bob")]), (bob, cookie.clone()));
    assert_eq!(placed(&[("x-uid", ""), ("cookie", "uid=bob")]), (bob, cookie));
    assert_eq!(placed(&[]), (ip, Some(StickyKey::ClientIp)));

    let none = HeaderMap::new();
    let v6 = |text: &str| {
        let facts = PickFacts { client_ip: text.parse().unwrap(), ..facts(&none, 0) };
        split.placed(&facts).unwrap().bucket
    };
    assert_eq!(v6("2001:0db8:0::1"), bucket("orders", b"2001:db8::1"));
    assert_eq!(v6("::ffff:192.0.2.7"), ip);
}

#[test]
fn a_caller_without_a_key_gets_a_cookie_and_stays_where_it_put_him() {
    let split = Split::new(&sticky(&[("v1*", 5_000), ("v2", 5_000)], uid(), true), 1, None);
    let none = HeaderMap::new();
    for roll in 0..200u128 {
        let thrown = Cell::new(0);
        let dice = || {
            thrown.set(thrown.get() + 1);
            roll * 0x0123_4567_89ab_cdef_0123_4567_89ab
        };
        let first = split.pick(&PickFacts { dice: &dice, ..facts(&none, 0) }).unwrap();
        let id = first.issue_cookie.unwrap();
        assert_eq!((first.picked_by, thrown.get()), (PickedBy::Sticky, 1));

        let back = headers(&[("cookie", &format!("x=1; gatepost_sticky={id}"))]);
        let second = split.pick(&PickFacts { dice: &dice, ..facts(&back, 0) }).unwrap();
        assert_eq!((second.version, second.issue_cookie), (first.version, None));
        assert_eq!(thrown.get(), 1);
    }
    assert_eq!(
        StickyId(0xab).set_cookie(true),
        "gatepost_sticky=000000000000000000000000000000ab; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax; Secure"
    );
}

#[test]
fn without_any_key_callers_are_dealt() {
    let split = Split::new(&sticky(&[("v1*", 5_000), ("v2", 5_000)], uid(), false), 1, None);
    // A cookie that it doesn't issue means nothing to it.
    let headers = headers(&[("cookie", "gatepost_sticky=1")]);
    let picks: Vec<Pick> = (0..100).map(|_| split.pick(&facts(&headers, 0)).unwrap()).collect();
    assert!(picks.iter().all(|p| p.picked_by == PickedBy::Weight));
    assert_eq!(picks.iter().filter(|p| p.version == V[1]).count(), 50);
}

#[test]
fn a_pin_beats_an_override_beats_the_weights_and_neither_counts() {
    let mut config = function(&[("v1*", 10_000), ("v2", 0), ("v3", 0)]);
    config.overrides = vec![
        Override {
            by: OverrideBy::Header(HeaderName::from_static("x-tester"), Some("yes".into())),
            from: Some(Networks::new(["192.0.2.0/24".parse().unwrap()])),
            version: V[1],
        },
        Override { by: OverrideBy::Cookie("beta".into(), None), from: None, version: V[2] },
        Override { by: OverrideBy::Client(ClientId(4)), from: None, version: V[2] },
        Override {
            by: OverrideBy::Networks(Networks::new(["10.0.0.0/8".parse().unwrap()])),
            from: None,
            version: V[1],
        },
    ];
    let split = Split::new(&config, 1, None);
    let tester = headers(&[("x-tester", "yes"), ("cookie", "beta=")]);
    let liar = headers(&[("x-tester", "yesno")]);
    let picked = |facts: PickFacts| {
        let pick = split.pick(&facts).unwrap();
        (pick.version, pick.picked_by)
    };
    let outside = "203.0.113.1".parse().unwrap();
    assert_eq!(picked(facts(&tester, 0)), (V[1], PickedBy::Override));
    assert_eq!(picked(facts(&liar, 0)), (V[0], PickedBy::Weight));
    // From outside the header doesn't count, and the next override has its turn.
    let from = |client_ip, headers| PickFacts { client_ip, ..facts(headers, 0) };
    assert_eq!(picked(from(outside, &tester)), (V[2], PickedBy::Override));
    let inside = "10.1.1.1".parse().unwrap();
    assert_eq!(picked(from(inside, &liar)), (V[1], PickedBy::Override));
    let client = PickFacts { client: Some(ClientId(4)), ..facts(&liar, 0) };
    assert_eq!(picked(client), (V[2], PickedBy::Override));
    let pinned = PickFacts { pin: Some(V[0]), ..facts(&tester, 0) };
    assert_eq!(picked(pinned), (V[0], PickedBy::Pin));
}

#[test]
fn overrides_do_not_advance_dealing() {
    let mut config = function(&[("v1*", 5_000), ("v2", 5_000)]);
    config.overrides =
        vec![Override { by: OverrideBy::Header(HeaderName::from_static("x-tester"), None), from: None, version: V[0] }];
    let split = Split::new(&config, 1, None);
    let tester = headers(&[("x-tester", "")]);
    let mut picks = vec![];
    for n in 0..100 {
        for _ in 0..n % 3 {
            split.pick(&facts(&tester, 0)).unwrap();
        }
        picks.extend(dealt(&split, 0, 1));
    }
    assert!(picks.windows(2).all(|w| w[0] != w[1]));
}
