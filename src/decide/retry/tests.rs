use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::config::model::Rate;

fn retries(budget: u8, floor: u32) -> Retries {
    let floor = Rate { count: NonZeroU32::new(floor).unwrap(), period: Duration::from_secs(1) };
    let (backoff, max_wait) = (Duration::from_millis(100), Duration::from_secs(1));
    Retries { attempts: 3, budget, floor, backoff, max_wait }
}

fn seconds(at: f64) -> Now {
    Now((at * 1e9) as u64)
}

fn taken(budget: &Budget, retries: &Retries, now: Now) -> usize {
    (0..100_000).take_while(|_| budget.take(retries, now)).count()
}

#[test]
fn a_tenth_of_the_requests_of_the_last_ten_seconds() {
    let budget = Budget::new(2);
    let ten = retries(10, 1);
    for n in 0..1_000 {
        budget.request(n % 2, seconds(100.0 + n as f64 / 500.0));
    }
    assert_eq!(taken(&budget, &ten, seconds(102.0)), 100);
    assert_eq!(taken(&budget, &ten, seconds(105.0)), 0, "they are spent");
    for _ in 0..50 {
        budget.request(0, seconds(105.0));
    }
    assert_eq!(taken(&budget, &ten, seconds(105.0)), 5);
    // The requests of second 100 go, and those of 101 a second later; the retries stay longer.
    assert_eq!(taken(&budget, &ten, seconds(111.0)), 0);
    assert_eq!(taken(&budget, &ten, seconds(1_000.0)), 10, "the floor: a second's worth for each second");
}

#[test]
fn the_floor_is_for_those_that_are_rarely_called() {
    let budget = Budget::new(1);
    budget.request(0, seconds(5.0));
    assert_eq!(taken(&budget, &retries(10, 1), seconds(5.0)), 10);
    let rarely = Retries { floor: Rate { count: NonZeroU32::MIN, period: Duration::from_secs(60) }, ..retries(10, 1) };
    assert_eq!(taken(&Budget::new(1), &rarely, seconds(5.0)), 0, "a sixth of one is none");
    let budget = Budget::new(1);
    assert_eq!(taken(&budget, &retries(0, 2), Now(0)), 20, "also right after the machine's start");
}

#[test]
fn a_reload_keeps_the_counts_and_takes_the_new_numbers() {
    let text = |retries: &str| {
        format!(
            "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = {{ v1 = \"http://f.test\" }}\n{retries}\n\
             [route.f]\nfunction = \"f\"\n"
        )
    };
    let compiled = |retries: &str, previous: Option<&Snapshot>| {
        let sources = crate::config::Sources::new([("t.toml", text(retries))]);
        let config = crate::config::parse(&sources).unwrap_or_else(|report| panic!("{report}"));
        crate::decide::compile(config, 1, String::new(), 1, previous, Now(0))
    };
    let first = compiled("retries = { budget = 10 }", None);
    let budget = first.budgets[0].as_ref().unwrap();
    for _ in 0..1_000 {
        budget.request(0, Now(0));
    }
    let second = compiled("retries = { budget = 20 }", Some(&first));
    let policy = second.config.functions[0].retries.unwrap();
    assert_eq!(taken(second.budgets[0].as_ref().unwrap(), &policy, Now(0)), 200);
    assert!(compiled("", Some(&second)).budgets[0].is_none());
}

#[test]
fn retry_after_in_seconds_or_as_a_date() {
    let after = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers, || 784_111_777_000)
    };
    let secs = |n| Some(Duration::from_secs(n));
    assert_eq!(after("2"), secs(2));
    assert_eq!(after(" 0 "), secs(0));
    assert_eq!(after("Sun, 06 Nov 1994 08:49:40 GMT"), secs(3));
    assert_eq!(after("Sun, 06 Nov 1994 08:49:30 GMT"), secs(0), "it is past");
    assert_eq!(after("99999999999999999999"), secs(u64::MAX));
    for nothing in ["", "soon", "-1", "1.5", "2s"] {
        assert_eq!(after(nothing), None, "{nothing}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), || 0), None);
}

#[test]
fn a_long_retry_after_or_too_little_time_ends_the_retrying() {
    let policy = retries(10, 1);
    let secs = |n| Some(Duration::from_secs(n));
    assert_eq!(wait(&policy, 1, 0, secs(1), None), secs(1));
    assert_eq!(wait(&policy, 1, 0, secs(2), None), None);
    assert_eq!(wait(&policy, 1, 0, secs(1), secs(1)), None);
    assert_eq!(wait(&policy, 1, 0, None, secs(1)), secs(0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes when: no window of ten seconds has more retries than it is worth.
    #[test]
    fn no_window_has_more_than_its_share(
        steps in proptest::collection::vec((0u64..1_500, 0u32..40, 0u32..20), 1..60), percent in 0u8..=100,
    ) {
        let policy = retries(percent, 1);
        let budget = Budget::new(3);
        let (mut ms, mut requests, mut given) = (1_000_000u64, Vec::new(), Vec::new());
        for (step, asked, again) in steps {
            ms += step;
            let now = Now(ms * 1_000_000);
            for n in 0..asked {
                budget.request(n as usize, now);
                requests.push(ms / 1_000);
            }
            for _ in 0..again {
                if budget.take(&policy, now) {
                    given.push(ms / 1_000);
                }
            }
            let within = |all: &[u64]| all.iter().filter(|s| **s + 10 > ms / 1_000).count() as u64;
            // What was given when there were more requests in sight may be more than those left are worth; never more is given then.
            if again > 0 && given.last() == Some(&(ms / 1_000)) {
                let worth = (within(&requests) * u64::from(percent) / 100).max(10);
                prop_assert!(within(&given) <= worth, "{} of {worth}", within(&given));
            }
        }
    }

    #[test]
    fn no_wait_is_longer_than_the_longest(nth in 0u32..100, dice: u64) {
        let policy = retries(10, 1);
        let wait = backoff(&policy, nth, dice);
        prop_assert!(wait <= policy.max_wait);
        prop_assert!(wait <= policy.backoff * (1 << nth.saturating_sub(1).min(10)));
    }
}
