use std::collections::HashSet;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{
    tests::{facts, function, sticky},
    *,
};
use crate::{
    config::model::{Share, StickyKey},
    decide::WeightsFrom,
};

const V1: VersionId = VersionId(0);
const V2: VersionId = VersionId(1);
const V3: VersionId = VersionId(2);

fn ramp(version: VersionId, share: u16) -> Standing {
    Standing { ramp: Some((version, Share(share))), ..Standing::default() }
}

fn ejected(versions: &[VersionId]) -> Standing {
    Standing { ejected: versions.to_vec(), ..Standing::default() }
}

fn latched(versions: &[VersionId]) -> Standing {
    Standing { latched: versions.to_vec(), ..Standing::default() }
}

fn in_force(weights: &[(&str, u16)], standing: &Standing) -> (Vec<u16>, WeightsFrom) {
    let in_force = InForce::new(&function(weights), standing);
    (in_force.shares.iter().map(|share| share.0).collect(), in_force.from)
}

#[test]
fn the_file_says_it_while_nothing_has_happened() {
    let weights = [("v1*", 9_500), ("v2", 500)];
    assert_eq!(in_force(&weights, &Standing::default()), (vec![9_500, 500], WeightsFrom::File));
}

#[test]
fn a_ramp_takes_from_the_baseline_and_then_from_the_others_in_proportion() {
    let weights = [("v1*", 5_500), ("v2", 500), ("v3", 4_000)];
    assert_eq!(in_force(&weights, &ramp(V2, 2_500)), (vec![3_500, 2_500, 4_000], WeightsFrom::Ramp));
    assert_eq!(in_force(&weights, &ramp(V2, 8_000)), (vec![0, 8_000, 2_000], WeightsFrom::Ramp));
    assert_eq!(in_force(&weights, &ramp(V2, 10_000)), (vec![0, 10_000, 0], WeightsFrom::Ramp));
    assert_eq!(in_force(&weights, &ramp(V2, 100)), (vec![5_900, 100, 4_000], WeightsFrom::Ramp));
    // Where it is what the file says, the file says it.
    assert_eq!(in_force(&weights, &ramp(V2, 500)), (vec![5_500, 500, 4_000], WeightsFrom::File));
}

#[test]
fn what_a_removed_version_had_goes_to_the_baseline() {
    let weights = [("v1*", 6_000), ("v2", 1_000), ("v3", 3_000)];
    assert_eq!(in_force(&weights, &ejected(&[V2])), (vec![7_000, 0, 3_000], WeightsFrom::Ejection));
    assert_eq!(in_force(&weights, &latched(&[V2, V3])), (vec![10_000, 0, 0], WeightsFrom::Latch));
    let both = Standing { latched: vec![V3], ..ejected(&[V2]) };
    assert_eq!(in_force(&weights, &both), (vec![10_000, 0, 0], WeightsFrom::Latch));
}

#[test]
fn a_latch_is_over_a_ramp() {
    let standing = Standing { latched: vec![V2], ..ramp(V2, 5_000) };
    assert_eq!(in_force(&[("v1*", 9_900), ("v2", 100)], &standing), (vec![10_000, 0], WeightsFrom::Latch));
}

#[test]
fn a_latch_on_a_version_without_a_share_changes_nothing() {
    assert_eq!(in_force(&[("v1*", 10_000), ("v2", 0)], &latched(&[V2])), (vec![10_000, 0], WeightsFrom::File));
}

#[test]
fn without_a_fit_baseline_the_others_share_it_in_proportion() {
    let weights = [("v1*", 6_000), ("v2", 1_000), ("v3", 3_000)];
    assert_eq!(in_force(&weights, &ejected(&[V1])), (vec![0, 2_500, 7_500], WeightsFrom::Ejection));
    let nameless = [("v1", 6_000), ("v2", 1_000), ("v3", 3_000)];
    assert_eq!(in_force(&nameless, &latched(&[V3])), (vec![8_571, 1_429, 0], WeightsFrom::Latch));
}

#[test]
fn the_last_version_is_never_removed() {
    let weights = [("v1*", 9_500), ("v2", 500)];
    assert_eq!(in_force(&weights, &ejected(&[V1, V2])), (vec![9_500, 500], WeightsFrom::File));
    // A latched version is worse than one that is ejected for a while.
    let both = Standing { latched: vec![V2], ..ejected(&[V1]) };
    assert_eq!(in_force(&weights, &both), (vec![10_000, 0], WeightsFrom::Latch));
    assert_eq!(in_force(&[("v1", 10_000)], &latched(&[V1])), (vec![10_000], WeightsFrom::File));
}

#[test]
fn dealing_begins_anew_only_where_the_weights_changed() {
    let config = function(&[("v1*", 5_000), ("v2", 5_000)]);
    let none = HeaderMap::new();
    let one = |split: &Split| split.pick(&facts(&none, 0)).unwrap();
    let first = Split::new(&config, 1, None);
    let dealt_first = one(&first).version;
    let same = Split::by(&config, InForce::new(&config, &ejected(&[VersionId(7)])), 1, Some(&first));
    let dealt_next = one(&same);
    assert_ne!(dealt_next.version, dealt_first);
    assert_eq!(dealt_next.weights_from, WeightsFrom::File);
    let latched = Split::by(&config, InForce::new(&config, &latched(&[V2])), 1, Some(&same));
    for _ in 0..10 {
        let pick = one(&latched);
        assert_eq!((pick.version, pick.weights_from), (V1, WeightsFrom::Latch));
    }
}

#[test]
fn an_override_still_reaches_a_latched_version() {
    let mut config = function(&[("v1*", 9_500), ("v2", 500)]);
    config.overrides =
        vec![Override { by: OverrideBy::Header(HeaderName::from_static("x-release"), None), from: None, version: V2 }];
    let split = Split::by(&config, InForce::new(&config, &latched(&[V2])), 1, None);
    let headers: HeaderMap =
        [(HeaderName::from_static("x-release"), HeaderValue::from_static("v2"))].into_iter().collect();
    assert_eq!(split.pick(&facts(&headers, 0)).unwrap().version, V2);
    let pinned = PickFacts { pin: Some(V2), ..facts(&headers, 0) };
    assert_eq!(split.pick(&pinned).unwrap().version, V2);
}

/// Whose each of some sticky callers is.
fn owners(config: &Function, standing: &Standing) -> Vec<VersionId> {
    let split = Split::by(config, InForce::new(config, standing), 1, None);
    (0..2_000u32)
        .map(|caller| {
            let client_ip = std::net::Ipv4Addr::from(0x0a00_0000 + caller).into();
            let none = HeaderMap::new();
            split.pick(&PickFacts { client_ip, ..facts(&none, 0) }).unwrap().version
        })
        .collect()
}

#[test]
fn a_ramp_moves_sticky_callers_one_way_and_a_latch_moves_its_own_only() {
    let config = sticky(&[("v1*", 8_000), ("v2", 100), ("v3", 1_900)], vec![StickyKey::ClientIp], false);
    let mut before = owners(&config, &Standing::default());
    for share in [100, 500, 2_500, 8_000] {
        let after = owners(&config, &ramp(V2, share));
        for (was, is) in before.iter().zip(&after) {
            assert!(was == is || (*was == V1 && *is == V2), "{was:?} → {is:?} at {share}");
        }
        before = after;
    }
    let standing = Standing { latched: vec![V2], ..ramp(V2, 8_000) };
    for (was, is) in before.iter().zip(&owners(&config, &standing)) {
        assert!(was == is || (*was == V2 && *is == V1));
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_shares_are_whole_and_the_removed_have_none(
        raw in prop::collection::vec(0u32..1_000, 1..6),
        baseline in prop::option::of(0usize..6),
        ramp in prop::option::of((0u32..6, 0u16..=10_000)),
        ejected in prop::collection::hash_set(0u32..6, 0..5),
        latched in prop::collection::hash_set(0u32..6, 0..5),
    ) {
        let total: u32 = raw.iter().sum();
        prop_assume!(total > 0);
        let mut weights: Vec<u16> = raw.iter().map(|w| (w * 10_000 / total) as u16).collect();
        weights[0] += 10_000 - weights.iter().sum::<u16>();
        let names = ["a", "b", "c", "d", "e", "f"];
        let named: Vec<(&str, u16)> = names.into_iter().zip(weights).collect();
        let mut config = function(&named);
        config.baseline = baseline.filter(|at| *at < named.len()).map(|at| VersionId(at as u32));
        let ids = |set: &HashSet<u32>| set.iter().copied().map(VersionId).collect::<Vec<_>>();
        let standing = Standing {
            ramp: ramp.map(|(version, share)| (VersionId(version), Share(share))),
            ejected: ids(&ejected),
            latched: ids(&latched),
            ..Standing::default()
        };
        let in_force = InForce::new(&config, &standing);
        prop_assert_eq!(in_force.shares.iter().map(|share| u32::from(share.0)).sum::<u32>(), 10_000);
        let ramped = InForce::new(&config, &Standing { ramp: standing.ramp, ..Standing::default() });
        let has = |set: &HashSet<u32>| set.iter().any(|at| in_force.shares.get(*at as usize).is_some_and(|s| s.0 > 0));
        let lives = |set: &HashSet<u32>| {
            config.baseline.is_some_and(|b| !set.contains(&b.0))
                || (0u32..).zip(&ramped.shares).any(|(at, share)| share.0 > 0 && !set.contains(&at))
        };
        if lives(&latched) {
            prop_assert!(!has(&latched));
        }
        let all: HashSet<u32> = ejected.union(&latched).copied().collect();
        if lives(&all) {
            prop_assert!(!has(&all));
        }
    }
}

#[test]
fn who_is_tried_again_gets_a_trickle_of_what_is_its_own() {
    let shares = |weights: &[(&str, u16)], standing: Standing| {
        let in_force = InForce::new(&function(weights), &standing);
        (in_force.shares.iter().map(|share| share.0).collect::<Vec<_>>(), in_force.from)
    };
    let tried = |ids: &[u32]| Standing { tried: ids.iter().copied().map(VersionId).collect(), ..Standing::default() };
    assert_eq!(shares(&[("a*", 6_000), ("b", 4_000)], tried(&[1])), (vec![9_500, 500], WeightsFrom::Ejection));
    assert_eq!(shares(&[("a*", 9_900), ("b", 100)], tried(&[1])), (vec![9_900, 100], WeightsFrom::File));
    let one_out = Standing { ejected: vec![VersionId(1)], ..tried(&[2]) };
    assert_eq!(shares(&[("a*", 2_000), ("b", 4_000), ("c", 4_000)], one_out.clone()).0, [9_500, 0, 500]);
    let latched = Standing { latched: vec![VersionId(2)], ..one_out };
    assert_eq!(shares(&[("a*", 2_000), ("b", 4_000), ("c", 4_000)], latched).0, [10_000, 0, 0]);
    assert_eq!(shares(&[("a", 10_000), ("b", 0)], tried(&[0])).0, [10_000, 0], "somebody serves");
}
