use super::*;

const TERMS: Terms = Terms {
    tolerate: 1.5,
    false_alarm: 0.001,
    max_error_ratio: 0.2,
    min_requests: 100,
    min_time: 60.0,
    latency: None,
    warmup: 30.0,
};

fn tally(requests: u64, errors: u64) -> Tally {
    Tally { requests, failures: errors, errors, timed: requests, ..Tally::default() }
}

/// The verdict after so many seconds like this, and when it was first that.
fn after(judge: &mut Judge, seconds: u64, canary: &Tally, baseline: &Tally) -> (Verdict, u64) {
    let mut last = (judge.verdict(), 0);
    for second in 1..=seconds {
        let verdict = judge.second(1.0, canary, baseline);
        if verdict != last.0 {
            last = (verdict, second);
        }
    }
    last
}

#[test]
fn a_canary_that_fails_is_worse_within_seconds_and_stays_so() {
    let mut judge = Judge::new(TERMS);
    let (verdict, when) = after(&mut judge, 5, &tally(10, 5), &tally(190, 0));
    assert_eq!((verdict, when), (Verdict::Worse(Cause::Errors), 1));
    after(&mut judge, 600, &tally(10, 0), &tally(190, 2));
    assert_eq!(judge.verdict(), Verdict::Worse(Cause::Errors));
    let evidence = judge.evidence();
    assert_eq!((evidence.canary.errors, evidence.needed), (25, 1000.0));
}

#[test]
fn a_canary_like_its_baseline_is_healthy_once_there_is_enough_and_not_before() {
    let mut judge = Judge::new(TERMS);
    let (verdict, when) = after(&mut judge, 600, &tally(100, 1), &tally(1900, 19));
    assert_eq!((verdict, when), (Verdict::Healthy, 60));
    // A new share is a new look.
    judge.share_changed(true);
    assert_eq!(judge.verdict(), Verdict::NotEnough);
    assert_eq!(after(&mut judge, 70, &tally(100, 1), &tally(1900, 19)), (Verdict::Healthy, 60));
}

#[test]
fn silence_is_never_healthy() {
    let mut judge = Judge::new(TERMS);
    assert_eq!(after(&mut judge, 7200, &tally(0, 0), &tally(200, 1)).0, Verdict::NotEnough);
    let mut judge = Judge::new(TERMS);
    assert_eq!(after(&mut judge, 100, &tally(1, 0), &tally(20, 0)).0, Verdict::NotEnough, "a hundred say little");
    assert_eq!(
        after(&mut judge, 7200, &tally(1, 0), &tally(20, 0)).0,
        Verdict::Healthy,
        "thousands without a failure do"
    );
}

#[test]
fn what_both_suffer_sends_nobody_back_and_promotes_nobody() {
    let mut judge = Judge::new(TERMS);
    after(&mut judge, 600, &tally(100, 1), &tally(1900, 19));
    let (verdict, _) = after(&mut judge, 60, &tally(100, 50), &tally(1900, 950));
    assert_eq!(verdict, Verdict::Unfit);
    assert!(judge.evidence().odds < 2.0, "{}", judge.evidence().odds);
    assert_eq!(after(&mut judge, 70, &tally(100, 1), &tally(1900, 19)).0, Verdict::Healthy, "it is over");
}

#[test]
fn a_canary_that_goes_bad_after_a_good_day_is_found_out_within_seconds_too() {
    let mut judge = Judge::new(TERMS);
    after(&mut judge, 86_400, &tally(10, 0), &tally(190, 1));
    let (verdict, when) = after(&mut judge, 60, &tally(10, 5), &tally(190, 0));
    assert_eq!(verdict, Verdict::Worse(Cause::Errors));
    assert!(when <= 10, "{when}");
}

#[test]
fn a_trickle_is_judged_over_longer_batches() {
    let mut judge = Judge::new(TERMS);
    // One request of the canary every 20 s, each of which fails; two of the baseline every second.
    let mut found = None;
    for second in 0..600 {
        let canary = if second % 20 == 0 { tally(1, 1) } else { tally(0, 0) };
        if judge.second(1.0, &canary, &tally(2, 0)) == Verdict::Worse(Cause::Errors) && found.is_none() {
            found = Some(second);
        }
    }
    assert!(found.is_some_and(|second| second <= 120), "{found:?}");
}

#[test]
fn a_slow_canary_is_slower_where_time_is_judged_and_not_while_it_warms_up() {
    let slow = Tally { slow: 5, ..tally(10, 0) };
    let usual = Tally { slow: 2, ..tally(190, 0) };
    let mut judge = Judge::new(TERMS);
    assert_eq!(after(&mut judge, 120, &slow, &usual).0, Verdict::Healthy, "nobody asked about its time");
    let mut judge = Judge::new(Terms { latency: Some(2.0), ..TERMS });
    let (verdict, when) = after(&mut judge, 120, &slow, &usual);
    assert_eq!(verdict, Verdict::Worse(Cause::Latency));
    assert!((31..40).contains(&when), "{when}");
}

#[test]
fn a_version_that_the_platform_refuses_is_unusable_at_once() {
    let refused = |callers| Tally { misfits: 1, misfit_callers: callers, ..tally(1, 0) };
    let mut judge = Judge::new(TERMS);
    after(&mut judge, 5, &refused(0), &tally(20, 0));
    assert_eq!(judge.verdict(), Verdict::NotEnough, "it may be the caller's request");
    assert_eq!(after(&mut judge, 2, &refused(1), &tally(20, 0)).0, Verdict::Worse(Cause::Config));
    // Signatures that the platform refuses, say: it is no matter of the version.
    let mut judge = Judge::new(TERMS);
    assert_eq!(after(&mut judge, 5, &refused(1), &Tally { misfits: 20, ..tally(20, 0) }).0, Verdict::NotEnough);
}

#[test]
fn a_new_share_drops_what_waited_under_the_old_one() {
    let mut judge = Judge::new(TERMS);
    // The baseline had nobody: its share was 0, and all that fails is the canary's.
    after(&mut judge, 60, &tally(10, 10), &tally(0, 0));
    judge.share_changed(false);
    judge.second(1.0, &tally(10, 0), &tally(190, 0));
    assert!(judge.evidence().odds <= 1.0 + 1e-9, "{}", judge.evidence().odds);
}
