use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;

fn n(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn rate(count: u32, seconds: u64) -> Rate {
    Rate { count: n(count), period: Duration::from_secs(seconds) }
}

fn at_ms(ms: u64) -> Now {
    Now(ms * 1_000_000)
}

fn load(in_flight: u32, waiting: u32) -> Load {
    Load { in_flight, waiting, high: in_flight }
}

fn slope(burst: u32, per_minute: u32) -> Concurrency {
    Concurrency { growth: Some(Growth { rate: rate(per_minute, 60), burst: n(burst) }), ..Concurrency::default() }
}

fn adaptive(max: Option<u32>, min: u32, decrease: u8, per_second: u32) -> Concurrency {
    Concurrency {
        max: max.and_then(NonZeroU32::new),
        adaptive: Some(Adaptive { min: n(min), decrease, increase: rate(per_second, 1) }),
        ..Concurrency::default()
    }
}

/// Sets `written` in force where nothing was before.
fn fresh(written: &Concurrency) -> Ceiling {
    Ceiling::new(written, None, at_ms(0))
}

#[test]
fn the_cap_is_the_cap() {
    let mut ceiling = fresh(&Concurrency { max: Some(n(300)), ..Concurrency::default() });
    assert_eq!(ceiling.look(at_ms(0), load(0, 0)), 300);
    assert_eq!(ceiling.look(at_ms(60_000), load(300, 1000)), 300);
    assert_eq!(fresh(&Concurrency::default()).look(at_ms(0), load(9, 9)), ANY);
}

#[test]
fn under_pressure_it_grows_by_the_rate_and_to_the_cap() {
    let mut ceiling = fresh(&Concurrency { max: Some(n(420)), ..slope(300, 500) });
    let mut limit = ceiling.look(at_ms(0), load(300, 200));
    assert_eq!(limit, 300);
    for ms in (0..12_000).step_by(40) {
        limit = ceiling.look(at_ms(ms), load(limit, 200));
    }
    // 500 a minute are 8.33 a second: after 11.96 s 99 more.
    assert_eq!(limit, 399);
    for ms in (12_000..60_000).step_by(40) {
        limit = ceiling.look(at_ms(ms), load(limit, 200));
    }
    assert_eq!(limit, 420);
}

#[test]
fn what_nobody_asked_for_does_not_grow() {
    let mut ceiling = fresh(&slope(300, 500));
    for ms in (0..600_000).step_by(250) {
        assert_eq!(ceiling.look(at_ms(ms), load(200, 0)), 300);
    }
    // The first who finds all taken does not find ten minutes' growth.
    assert_eq!(ceiling.look(at_ms(600_000), load(300, 1)), 300);
    assert_eq!(ceiling.look(at_ms(600_130), load(300, 1)), 301);
}

#[test]
fn those_who_wait_for_something_else_let_it_grow_a_second_ahead_and_no_more() {
    let mut ceiling = fresh(&slope(10, 120));
    let mut limit = 0;
    for ms in (0..60_000).step_by(100) {
        limit = ceiling.look(at_ms(ms), load(10, 50));
    }
    assert_eq!(limit, 13, "two a second, and one that was begun");
}

#[test]
fn what_was_reached_is_kept_for_a_minute_or_two_and_then_forgotten() {
    let mut ceiling = fresh(&slope(100, 600));
    let mut limit = 100;
    for ms in (0..10_000).step_by(50) {
        limit = ceiling.look(at_ms(ms), load(limit, 10));
    }
    assert_eq!(limit, 199);
    assert!(ceiling.due() < at_ms(130_000), "it is to be looked at though nobody is in its way: {:?}", ceiling.due());
    assert_eq!(ceiling.look(at_ms(50_000), load(5, 0)), 199);
    assert_eq!(ceiling.look(at_ms(70_000), load(5, 0)), 199, "of the window before");
    assert_eq!(ceiling.look(at_ms(131_000), load(5, 0)), 100);
    assert_eq!(ceiling.due(), Now(u64::MAX), "no need to look any more");
}

#[test]
fn a_throttled_answer_takes_its_share_and_the_calls_of_the_same_moment_take_no_more() {
    let mut ceiling = fresh(&adaptive(Some(1000), 10, 5, 10));
    assert_eq!(ceiling.look(at_ms(0), load(400, 0)), 1000);
    assert!(ceiling.throttled(at_ms(100), at_ms(90), 400));
    assert_eq!(ceiling.look(at_ms(100), load(400, 0)), 380);
    // They were under way already.
    for ms in 95..100 {
        assert!(!ceiling.throttled(at_ms(101), at_ms(ms), 400));
    }
    assert_eq!(ceiling.look(at_ms(101), load(400, 0)), 380);
    assert!(ceiling.throttled(at_ms(110), at_ms(105), 380));
    assert_eq!(ceiling.look(at_ms(110), load(380, 0)), 361);
}

#[test]
fn it_never_falls_below_its_floor_and_comes_back_by_its_rate_up_to_the_cap() {
    let mut ceiling = fresh(&adaptive(Some(100), 20, 50, 10));
    for n in 1..20_u64 {
        ceiling.throttled(at_ms(n * 10), at_ms(n * 10 - 1), 100);
    }
    assert_eq!(ceiling.look(at_ms(190), load(20, 0)), 20);
    assert_eq!(ceiling.look(at_ms(1_190), load(20, 0)), 30);
    assert_eq!(ceiling.look(at_ms(60_000), load(20, 0)), 100);
    assert_eq!(ceiling.look(at_ms(600_000), load(20, 0)), 100);
}

#[test]
fn without_a_cap_it_begins_where_the_platform_complained() {
    let mut ceiling = fresh(&adaptive(None, 10, 10, 1));
    assert_eq!(ceiling.look(at_ms(0), load(500, 0)), ANY);
    assert!(ceiling.throttled(at_ms(10), at_ms(5), 500));
    assert_eq!(ceiling.look(at_ms(10), load(500, 0)), 450);
}

#[test]
fn another_cap_keeps_what_was_learned() {
    let mut ceiling = fresh(&adaptive(Some(1000), 10, 10, 1));
    ceiling.throttled(at_ms(10), at_ms(5), 500);
    let mut next = Ceiling::new(&adaptive(Some(2000), 10, 10, 1), Some(&ceiling), at_ms(20));
    assert_eq!(next.look(at_ms(20), load(450, 0)), 450);
    // One that never gave way has learned nothing.
    let mut next =
        Ceiling::new(&adaptive(Some(2000), 10, 10, 1), Some(&fresh(&adaptive(Some(1000), 10, 10, 1))), at_ms(20));
    assert_eq!(next.look(at_ms(20), load(0, 0)), 2000);
    let grown = {
        let mut ceiling = fresh(&slope(100, 600));
        let mut limit = 100;
        for ms in (0..10_000).step_by(50) {
            limit = ceiling.look(at_ms(ms), load(limit, 10));
        }
        ceiling
    };
    let mut next = Ceiling::new(&slope(50, 60), Some(&grown), at_ms(10_000));
    assert_eq!(next.look(at_ms(10_000), load(150, 0)), 199);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The naive word for the slope: whatever happens when, there is never more in flight than `burst` (or what is warm) and what the rate
    /// has given in the time under pressure.
    #[test]
    fn the_slope_is_never_outrun(
        burst in 1_u32..400,
        per_minute in 1_u32..6_000,
        steps in prop::collection::vec((1_u64..3_000, 0_u32..800), 1..200),
    ) {
        let mut ceiling = fresh(&slope(burst, per_minute));
        let (mut ms, mut in_flight) = (0, 0_u32);
        let most = |ms: u64| f64::from(burst) + ms as f64 * f64::from(per_minute) / 60_000.0 + 1.0;
        for (wait, wanted) in steps {
            ms += wait;
            let waiting = wanted.saturating_sub(in_flight);
            let limit = ceiling.look(at_ms(ms), load(in_flight, waiting));
            // As many as want and may; who is there stays.
            in_flight = if wanted > in_flight { wanted.min(limit.max(in_flight)) } else { wanted };
            prop_assert!(limit >= burst);
            prop_assert!(f64::from(in_flight) <= most(ms), "{in_flight} after {ms} ms");
        }
    }

    /// Under unbroken pressure it is `burst + rate × time`, to one call.
    #[test]
    fn under_unbroken_pressure_the_slope_is_the_rate(
        burst in 1_u32..400,
        per_minute in 1_u32..6_000,
        waits in prop::collection::vec(1_u64..900, 1..200),
    ) {
        let mut ceiling = fresh(&slope(burst, per_minute));
        let (mut ms, mut limit) = (0, ceiling.look(at_ms(0), load(burst, 1)));
        for wait in waits {
            ms += wait;
            limit = ceiling.look(at_ms(ms), load(limit, 1));
            let exact = f64::from(burst) + ms as f64 * f64::from(per_minute) / 60_000.0;
            prop_assert!((f64::from(limit) - exact).abs() <= 1.01, "{limit}, not {exact} after {ms} ms");
        }
    }

    /// Against floating point: the limit is `max(min, reached × share)` after each decrease that counts, and rises by the rate between.
    #[test]
    fn adapting_is_what_a_naive_model_says(
        min in 1_u32..50,
        decrease in 1_u8..=90,
        per_second in 1_u32..100,
        steps in prop::collection::vec((1_u64..2_000, any::<bool>(), 0_u64..50, 1_u32..600), 1..100),
    ) {
        let max = 500;
        let mut ceiling = fresh(&adaptive(Some(max), min, decrease, per_second));
        let (mut ms, mut naive, mut cut) = (0_u64, f64::from(max), None::<u64>);
        for (wait, throttles, took, in_flight) in steps {
            ms += wait;
            naive = (naive + wait as f64 * f64::from(per_second) / 1000.0).min(f64::from(max));
            if throttles {
                let began = ms.saturating_sub(took);
                let counts = cut.is_none_or(|cut| began > cut);
                ceiling.throttled(at_ms(ms), at_ms(began), in_flight);
                if counts {
                    let reached = naive.min(f64::from(in_flight));
                    let less = (reached * f64::from(decrease) / 100.0).max(1.0);
                    naive = (reached - less).max(f64::from(min)).min(naive);
                    cut = Some(ms);
                }
            }
            let limit = ceiling.look(at_ms(ms), load(in_flight, 0));
            prop_assert!((f64::from(limit) - naive).abs() <= 2.5, "{limit}, not {naive}");
            prop_assert!((1..=max).contains(&limit));
            // Whole calls fall behind by rounding: not further and further.
            naive = f64::from(limit);
        }
    }
}
