use std::{collections::HashMap, num::NonZeroU32, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    config::model::{LimitKey, Rate},
    decide::limit::{Ask, KeyFacts, take_all},
};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_000 * SECOND;

fn limit(count: u32, burst: u32, per: LimitKey) -> Limit {
    Limit {
        rate: Rate { count: NonZeroU32::new(count).unwrap(), period: Duration::from_secs(1) },
        burst: NonZeroU32::new(burst).unwrap(),
        per,
        max_keys: NonZeroU32::new(1_000).unwrap(),
        dry_run: false,
        scope: LimitScope::Cluster,
    }
}

fn key(n: u64) -> KeyHash {
    KeyHash::new(n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The store, as the script has it: microseconds, and a key is gone when its bucket is full.
#[derive(Default)]
struct Store(HashMap<KeyHash, f64>);

impl Store {
    fn charge(&mut self, key: KeyHash, charge: f64, most: f64, now: u64) -> u64 {
        let now = now as f64 / 1_000.0;
        let tat = self.0.entry(key).or_insert(0.0);
        *tat = (tat.max(now) + charge).min(now + most);
        ((*tat - now) * 1_000.0) as u64
    }
}

struct Members {
    all: Vec<Arc<Limiter>>,
    store: Store,
}

impl Members {
    fn new(count: usize, limit: &Limit) -> Self {
        let all = (0..count).map(|_| {
            let standing = Arc::new(Standing::default());
            standing.set_members(count as u64);
            standing.set_linked(true);
            Limiter::within(&standing, "limit", limit, "l".into(), None, Now(0))
        });
        Self { all: all.collect(), store: Store::default() }
    }

    fn passes(&self, member: usize, key: KeyHash, now: u64) -> bool {
        take_all(&[Ask { limiter: &self.all[member], key }], Now(now)).is_ok()
    }

    fn settle(&mut self, member: usize, now: u64) {
        let limiter = &self.all[member];
        let mut due = Vec::new();
        limiter.due(|one| due.push(one));
        for Due { key, used } in due {
            let ahead = self.store.charge(key, limiter.micros(used), limiter.most_micros(), now);
            limiter.settle(key, ahead, Now(now));
        }
    }
}

#[test]
fn three_members_offered_five_times_the_rate_unevenly_pass_just_the_rate() {
    for (burst, offered) in [(1_000, [4_000, 800, 200]), (1_000, [5_000, 0, 0]), (200, [3_000, 1_500, 500])] {
        let mut members = Members::new(3, &limit(1_000, burst, LimitKey::Route));
        let mut passed = 0;
        // Steps of a tenth of a millisecond; each settles every 25 ms, not at the same time as the others.
        for step in 0..100_000u64 {
            let now = START + step * 100_000;
            for (member, offered) in offered.iter().enumerate() {
                let due = |step: u64| step * offered / 10_000;
                for _ in due(step)..due(step + 1) {
                    passed += u64::from(members.passes(member, KeyHash::ANY, now));
                }
                if (step + 83 * member as u64).is_multiple_of(250) {
                    members.settle(member, now);
                }
            }
        }
        let expected = 10_000 + u64::from(burst);
        assert!(passed.abs_diff(expected) * 50 <= expected, "{passed} of {expected}, offered {offered:?}");
    }
}

#[test]
fn a_caller_of_one_member_gets_all_of_a_slow_limit_and_no_more() {
    let mut members = Members::new(3, &limit(1, 10, LimitKey::ClientIp));
    let mut now = START;
    let mut passed = 0;
    for _ in 0..60 {
        passed += usize::from(members.passes(1, key(7), now));
        now += 30_000_000;
        members.settle(1, now);
    }
    // 1.8 seconds: the burst and one more.
    assert_eq!(passed, 11);
    // Elsewhere he has a lease, and that is all.
    let more = (0..20).filter(|_| members.passes(0, key(7), now)).count();
    assert_eq!(more, 3);
    members.settle(0, now);
    assert_eq!((0..20).filter(|_| members.passes(0, key(7), now)).count(), 0);
}

#[test]
fn alone_a_member_counts_exactly() {
    let mut members = Members::new(1, &limit(10, 5, LimitKey::Route));
    let passed = |members: &Members, now| (0..50).filter(|_| members.passes(0, KeyHash::ANY, now)).count();
    assert_eq!(passed(&members, START), 5);
    members.settle(0, START);
    assert_eq!(passed(&members, START), 0);
    assert_eq!(passed(&members, START + SECOND / 5), 2);
}

#[test]
fn without_the_store_each_has_its_part() {
    let members = Members::new(4, &limit(100, 40, LimitKey::Route));
    for limiter in &members.all {
        limiter.shared.as_ref().unwrap().standing.set_linked(false);
    }
    for member in 0..4 {
        let passed = (0..10_000u64).filter(|n| members.passes(member, KeyHash::ANY, START + n * 1_000_000)).count();
        // 10 at once, and 25 a second for ten seconds.
        assert!((259..=260).contains(&passed), "{passed}");
    }
}

#[test]
fn who_is_refused_hears_when_the_cluster_has_room_and_without_it_when_he_has() {
    let mut members = Members::new(3, &limit(1, 3, LimitKey::Route));
    let refused = |members: &Members, now: u64| {
        let ask = [Ask { limiter: &members.all[0], key: KeyHash::ANY }];
        take_all(&ask, Now(now)).unwrap_err().wait
    };
    assert!(members.passes(0, KeyHash::ANY, START));
    // The others may have left some: that is known soon.
    assert_eq!(refused(&members, START), Duration::from_millis(25));
    members.settle(0, START);
    for _ in 0..2 {
        assert!(members.passes(0, KeyHash::ANY, START));
        members.settle(0, START);
    }
    assert_eq!(refused(&members, START), Duration::from_secs(1));
    members.all[0].shared.as_ref().unwrap().standing.set_linked(false);
    assert_eq!(refused(&members, START), Duration::from_secs(3));
}

#[test]
fn what_is_certainly_refused_asks_nobody() {
    let mut members = Members::new(2, &limit(1, 2, LimitKey::ClientIp));
    for _ in 0..4 {
        members.passes(0, key(1), START);
        members.settle(0, START);
    }
    for _ in 0..1_000 {
        assert!(!members.passes(0, key(1), START));
    }
    let mut asked = 0;
    members.all[0].due(|_| asked += 1);
    assert_eq!(asked, 0);
}

#[test]
fn notes_are_bounded_and_none_is_lost_below_the_bound() {
    let open = Open::new(64);
    for n in 0..1_000 {
        open.note(key(n), 1);
        open.note(key(n), 2);
    }
    let mut noted = 0;
    open.drain(&mut |due| noted += due.used);
    assert!(noted >= 64);
    assert_eq!(noted + open.lost.load(Ordering::Relaxed), 3_000);
    open.drain(&mut |due| panic!("{due:?} is still there"));
}

#[test]
fn notes_of_many_threads_add_up_while_they_are_taken() {
    let open = Open::new(256);
    let mut noted = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let open = &open;
                scope.spawn(move || (0..20_000).for_each(|n| open.note(key(n % 50), 1)))
            })
            .collect();
        while !threads.iter().all(|thread| thread.is_finished()) {
            open.drain(&mut |due| noted += due.used);
        }
    });
    open.drain(&mut |due| noted += due.used);
    assert_eq!(noted + open.lost.load(Ordering::Relaxed), 80_000);
    assert_eq!(open.lost.load(Ordering::Relaxed), 0);
}

#[test]
fn keys_are_hashed_alike_where_the_salt_is_the_same() {
    let headers = http::HeaderMap::new();
    let facts = KeyFacts { client_ip: "192.0.2.1".parse().unwrap(), client: None, headers: &headers, query: None };
    let members = Members::new(2, &limit(1, 1, LimitKey::ClientIp));
    let hashed = |n: usize, salt| {
        members.all[n].shared.as_ref().unwrap().standing.set_salt(salt);
        members.all[n].key(&facts)
    };
    assert_eq!(hashed(0, 7), hashed(1, 7));
    assert_ne!(hashed(0, 7), hashed(1, 8));
    // The value is a part of the protocol between members of different versions.
    assert_eq!(hashed(0, 7).number(), PINNED);
}

const PINNED: u64 = 7_289_265_694_645_088_983;

#[test]
fn a_reload_keeps_what_is_noted_and_another_scope_leaves_it() {
    let standing = Arc::new(Standing::default());
    let within = |limit: &Limit, previous: Option<&Arc<Limiter>>| {
        Limiter::within(&standing, "limit", limit, "l".into(), previous, Now(START))
    };
    let old = within(&limit(10, 10, LimitKey::Route), None);
    take_all(&[Ask { limiter: &old, key: KeyHash::ANY }], Now(START)).unwrap();
    assert!(Arc::ptr_eq(&old, &within(&limit(10, 10, LimitKey::Route), Some(&old))));
    let faster = within(&limit(20, 10, LimitKey::Route), Some(&old));
    let mut due = Vec::new();
    faster.due(|one| due.push(one));
    assert_eq!(due, [Due { key: KeyHash::ANY, used: 1 }]);
    let alone = within(&Limit { scope: LimitScope::Instance, ..limit(20, 10, LimitKey::Route) }, Some(&faster));
    assert_eq!((alone.shared_name(), faster.shared_name()), (None, Some("limit.l")));
    // Its counts are the same.
    assert!(Arc::ptr_eq(&alone.counts, &faster.counts));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Pass { member: usize, times: u32 },
    Settle { member: usize },
    Wait { micros: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4usize, 1..30u32).prop_map(|(member, times)| Step::Pass { member, times }),
        3 => (0..4usize).prop_map(|member| Step::Settle { member }),
        3 => (0..200_000u64).prop_map(|micros| Step::Wait { micros }),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    /// The bound of the module's proof, in whatever order members are asked and settle.
    #[test]
    fn never_more_passes_than_rate_and_burst_and_a_lease_for_each(
        steps in steps(),
        count in 1..200u32,
        burst in 1..100u32,
        members in 1..5usize,
    ) {
        let mut all = Members::new(members, &limit(count, burst, LimitKey::Route));
        let (mut now, mut passed) = (START, 0u64);
        let mut settled = vec![START; members];
        let mut longest = 0;
        for step in steps {
            match step {
                Step::Pass { member, times } => {
                    for _ in 0..times {
                        passed += u64::from(all.passes(member % members, KeyHash::ANY, now));
                    }
                }
                Step::Settle { member } => {
                    all.settle(member % members, now);
                    settled[member % members] = now;
                }
                Step::Wait { micros } => now += micros * 1_000,
            }
            longest = settled.iter().map(|at| now - at).fold(longest, u64::max);
            let seconds = |nanos: u64| nanos as f64 / SECOND as f64;
            let (rate, n) = (f64::from(count), members as f64);
            let lease = (f64::from(burst) / n).max(1.0) + rate * seconds(longest) / n;
            let most = f64::from(burst) + rate * seconds(now - START) + n * lease;
            prop_assert!(passed as f64 <= most + 1e-3, "{passed} of at most {most}");
        }
    }
}
