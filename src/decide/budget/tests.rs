use std::{sync::Arc, thread, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use proptest::prelude::*;

use super::{
    book::{forecast, passes},
    *,
};
use crate::config::model::{Amount, Price, Zone};

fn budget(action: BudgetAction, calls: Option<u64>, spend: Option<u64>) -> Budget {
    Budget {
        calls_per_day: calls.map(|n| n.try_into().unwrap()),
        spend_per_day: spend.map(|n| Amount(n * Amount::WHOLE)),
        price: Price { per_million: Some(Amount(Amount::WHOLE * 1_000_000)), per_gb_second: None },
        memory: None,
        warn: vec![50, 80, 100],
        action,
        zone: Zone { name: "Asia/Shanghai".into(), zone: TimeZone::get("Asia/Shanghai").unwrap() },
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_call_that_is_not_billed_is_given_back_and_makes_room() {
    let (ledger, two) = (Ledger::default(), budget(BudgetAction::Stop, Some(2), None));
    let first = ledger.take(&two, 0).unwrap();
    let second = ledger.take(&two, 0).unwrap();
    assert_eq!(ledger.take(&two, 0), None);
    ledger.end(first, None);
    let third = ledger.take(&two, 0).unwrap();
    assert_eq!(ledger.take(&two, 0), None);
    ledger.end(second, Some(5));
    ledger.end(third, Some(7));
    assert_eq!(ledger.counts(), Counts { calls: 2, spend: 12 });
    assert_eq!(ledger.told(), (3, 2));
}

#[test]
fn alert_refuses_nobody_and_counts_all() {
    let (ledger, one) = (Ledger::default(), budget(BudgetAction::Alert, Some(1), Some(1)));
    for _ in 0..5 {
        let taken = ledger.take(&one, 0).unwrap();
        ledger.end(taken, Some(one.cost(0)));
    }
    assert_eq!(ledger.counts(), Counts { calls: 5, spend: 5 * Amount::WHOLE });
    assert!((used(&one, ledger.counts()) - 5.0).abs() < 1e-9);
}

#[test]
fn money_stops_as_calls_do() {
    let (ledger, budget) = (Ledger::default(), budget(BudgetAction::Fallback, None, Some(3)));
    for _ in 0..3 {
        let taken = ledger.take(&budget, 0).unwrap();
        ledger.end(taken, Some(budget.cost(10)));
    }
    assert_eq!(ledger.take(&budget, 0), None);
}

#[test]
fn spending_beyond_all_numbers_stays_beyond() {
    let (ledger, budget) = (Ledger::default(), budget(BudgetAction::Stop, None, Some(3)));
    for _ in 0..2 {
        let taken = Taken(0);
        ledger.end(taken, Some(u64::MAX - 1));
    }
    assert_eq!(ledger.counts().spend, u64::MAX);
    assert_eq!(ledger.take(&budget, 0), None);
}

#[test]
fn workers_at_once_let_in_exactly_as_many_as_may() {
    let (ledger, budget) = (Arc::new(Ledger::default()), Arc::new(budget(BudgetAction::Stop, Some(10_000), None)));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (ledger, budget) = (ledger.clone(), budget.clone());
            thread::spawn(move || (0..5_000).filter(|_| ledger.take(&budget, 0).is_some()).count())
        })
        .collect();
    let all: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!((all, ledger.counts().calls), (10_000, 10_000));
}

#[test]
fn what_platforms_throttle_or_refuse_is_not_billed() {
    for class in Class::ALL {
        let free =
            [Class::Throttled, Class::Platform, Class::Config, Class::Account, Class::Unreachable].contains(&class);
        assert_eq!(is_billed(class), !free, "{class:?}");
    }
}

#[test]
fn a_day_begins_at_midnight_of_its_zone_whatever_the_clocks_do_there() {
    let day = |now: &str, zone: &str| {
        let day = Day::of(at(now), &TimeZone::get(zone).unwrap());
        (day.date.to_string(), day.ends.to_string())
    };
    let told = |date: &str, ends: &str| (date.to_owned(), ends.to_owned());
    assert_eq!(day("2026-11-22T15:59:59Z", "Asia/Shanghai"), told("2026-11-22", "2026-11-22T16:00:00Z"));
    assert_eq!(day("2026-11-22T16:00:00Z", "Asia/Shanghai"), told("2026-11-23", "2026-11-23T16:00:00Z"));
    // 23 hours, 25 hours; and a midnight that is left out.
    assert_eq!(day("2026-03-29T12:00:00Z", "Europe/Berlin"), told("2026-03-29", "2026-03-29T22:00:00Z"));
    assert_eq!(day("2026-10-25T12:00:00Z", "Europe/Berlin"), told("2026-10-25", "2026-10-25T23:00:00Z"));
    assert_eq!(day("2018-11-03T12:00:00Z", "America/Sao_Paulo"), told("2018-11-03", "2018-11-04T03:00:00Z"));
}

#[test]
fn midnight_begins_anew_and_a_clock_that_is_put_back_does_not() {
    let budget = budget(BudgetAction::Stop, Some(10), None);
    let ledger = Arc::new(Ledger::default());
    let mut book = Book::open(ledger.clone(), &budget.zone.zone, None, at("2026-11-22T15:00:00Z"));
    let taken: Vec<_> = (0..10).map(|_| ledger.take(&budget, 0).unwrap()).collect();
    assert!(matches!(
        book.tick(&budget, at("2026-11-22T15:00:01Z"), secs(1))[..],
        [Said::Warning { percent: 100, .. }]
    ));
    // Put back over midnight, and on again.
    assert_eq!(book.tick(&budget, at("2026-11-21T15:59:00Z"), secs(2)), []);
    assert_eq!(ledger.take(&budget, 0), None);
    let said = book.tick(&budget, at("2026-11-22T16:00:00Z"), secs(3));
    assert!(matches!(said[..], [Said::Turned { counts: Counts { calls: 10, .. }, .. }]), "{said:?}");
    // What was begun yesterday is yesterday's.
    taken.into_iter().for_each(|taken| ledger.end(taken, None));
    assert_eq!(ledger.counts(), Counts::default());
    assert!(ledger.take(&budget, 0).is_some());
}

#[test]
fn a_start_goes_on_with_the_same_day_alone() {
    let budget = budget(BudgetAction::Stop, Some(10), None);
    let kept = |date: &str| Some(Kept { date: date.parse().unwrap(), counts: Counts { calls: 8, spend: 3 }, told: 80 });
    let open = |kept| {
        let mut book = Book::open(Arc::default(), &budget.zone.zone, kept, at("2026-11-22T15:00:00Z"));
        let said = book.tick(&budget, at("2026-11-22T15:00:01Z"), secs(1)).len();
        (book.ledger().counts().calls, said)
    };
    assert_eq!(open(kept("2026-11-22")), (8, 0), "80 % was told before");
    assert_eq!(open(kept("2026-11-21")), (0, 0));
    assert_eq!(open(None), (0, 0));
}

#[test]
fn each_warning_comes_once_with_when_it_will_be_gone() {
    let budget = budget(BudgetAction::Alert, Some(1_000), None);
    let ledger = Arc::new(Ledger::default());
    let start = at("2026-11-22T02:00:00Z");
    let mut book = Book::open(ledger.clone(), &budget.zone.zone, None, start);
    let mut said = Vec::new();
    // One a second: it is gone after 1,000 s.
    for second in 0..1_300 {
        let now = start + jiff::SignedDuration::from_secs(second);
        said.extend(book.tick(&budget, now, secs(second as u64)).into_iter().map(|one| (second, one)));
        ledger.take(&budget, 0).unwrap();
    }
    let seen: Vec<_> = said
        .iter()
        .map(|(second, one)| match one {
            Said::Warning { percent, gone } => {
                (*second, u64::from(*percent), gone.map(|at| at.as_second() - start.as_second()))
            }
            Said::WillBeGone { at } => (*second, 0, Some(at.as_second() - start.as_second())),
            Said::Turned { .. } => panic!("{said:?}"),
        })
        .collect();
    let near = |(second, percent, gone): (i64, u64, Option<i64>), at: i64, word: u64| {
        assert_eq!(percent, word);
        assert!((second - at).abs() <= 1, "{seen:?}");
        assert!(gone.is_some_and(|gone| (gone - 1_000).abs() <= 5), "{seen:?}");
    };
    assert_eq!(seen.len(), 4, "{seen:?}");
    near(seen[0], 200, 0);
    near(seen[1], 500, 50);
    near(seen[2], 800, 80);
    near(seen[3], 1_000, 100);
}

#[test]
fn shedding_makes_the_rest_last_until_the_days_end() {
    let budget = budget(BudgetAction::Shed, Some(100_000), None);
    let ledger = Arc::new(Ledger::default());
    // 2 hours before midnight, 80,000 used, and 20 a second want in: 144,000 for the 20,000 that are left.
    let start = at("2026-11-22T14:00:00Z");
    let kept = Kept { date: "2026-11-22".parse().unwrap(), counts: Counts { calls: 80_000, spend: 0 }, told: 100 };
    let mut book = Book::open(ledger.clone(), &budget.zone.zone, Some(kept), start);
    let mut dice = 1_u64;
    let mut by_half = 0;
    for second in 0..7_200_u64 {
        book.tick(&budget, start + jiff::SignedDuration::from_secs(second as i64), secs(second));
        for _ in 0..20 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ledger.take(&budget, dice >> 33);
        }
        if second == 3_600 {
            by_half = ledger.counts().calls;
        }
    }
    let end = ledger.counts().calls;
    assert!((88_000..92_000).contains(&by_half), "{by_half}: evenly");
    assert!((99_000..=100_000).contains(&end), "{end}: and to the end");
}

proptest! {
    #[test]
    fn a_forecast_is_never_past_the_days_end_nor_in_the_past(used in 0.0..2.0, rate in 0.0..0.1, left in 1.0..90_000.0) {
        if let Some(secs) = forecast(used, rate, left) {
            prop_assert!(secs >= 0.0 && secs < left);
            prop_assert!(used + secs * rate >= 1.0 - 1e-6);
        }
    }

    #[test]
    fn fewer_pass_the_more_is_used_and_wanted(used in 0.0..1.2, more in 0.0..0.2, wanted in 0.0..1.0, times in 1.0..5.0, left in 1.0..90_000.0) {
        let now = passes(used, wanted, left);
        prop_assert!(now <= ALL);
        prop_assert!(passes(used + more, wanted, left) <= now);
        prop_assert!(passes(used, wanted * times, left) <= now);
        prop_assert!(used >= 1.0 || now > 0);
        prop_assert!(used < SHEDS_FROM || used < 1.0 || wanted <= 0.0 || now == 0);
        // What passes does not use more than is left, but for the one in ten thousand.
        if (SHEDS_FROM..1.0).contains(&used) && now > 1 {
            prop_assert!(f64::from(now) / f64::from(ALL) * wanted * left <= 1.0 - used + 1e-9);
        }
    }

    #[test]
    fn every_moment_is_in_its_day(second in 0_i64..4_000_000_000, zone in 0_usize..5) {
        let zones = ["UTC", "Asia/Shanghai", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia"];
        let zone = TimeZone::get(zones[zone]).unwrap();
        let now = Timestamp::from_second(second).unwrap();
        let day = Day::of(now, &zone);
        prop_assert!(day.ends > now);
        // 24 hours, and what zones skip or repeat: Samoa left out a whole day.
        prop_assert!(day.ends.as_second() - second <= 49 * 3600);
        let next = Day::of(day.ends, &zone);
        prop_assert!(next.date > day.date);
    }
}
