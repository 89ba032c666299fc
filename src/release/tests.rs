use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::{
    Book, Charge, Event, Verdict,
    ramp::{Leave, Meets, Moved, Progress},
    state::{self, Number, State},
};
use crate::{
    config::{
        Config, Sources,
        model::{Function, Share, VersionId},
        parse,
    },
    decide::WeightsFrom,
};

/// A config with function `f`: these weights, and these lines.
fn config(weights: &str, lines: &str) -> Config {
    let text = format!(
        r#"
        [listener.web]
        address = "127.0.0.1:0"
        [route.f]
        function = "f"
        [function.f]
        versions = {{ v1 = "http://127.0.0.1:1", v2 = "http://127.0.0.1:2", v3 = "http://127.0.0.1:3" }}
        weights = {{ {weights} }}
        {lines}
        "#
    );
    parse(&Sources::new([("gatepost.toml", text)])).unwrap_or_else(|report| panic!("{report}"))
}

const RAMP: &str = "ramp = { version = \"v2\", steps = [1, 5, 25, 100], hold = \"10m\" }";

fn function(config: &Config) -> &Function {
    &config.functions[0]
}

/// The shares in force in percent, and whose word they are.
fn in_force(book: &Book, config: &Config) -> (Vec<f64>, WeightsFrom) {
    let all = book.standings().in_force(function(config));
    (all.shares.iter().map(|share| f64::from(share.0) / 100.0).collect(), all.from)
}

fn words(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.text.strip_prefix("function f: ").unwrap()).collect()
}

fn monday_noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn pass(book: &mut Book, config: &Config, minutes: u64) -> Vec<String> {
    pass_at(book, config, minutes, monday_noon(), None)
}

fn pass_at(book: &mut Book, config: &Config, minutes: u64, at: Timestamp, verdict: Option<Verdict>) -> Vec<String> {
    let events = book.pass(config, Duration::from_secs(60 * minutes), at, &|_, _| verdict, &|_| Leave::Free);
    words(&events).into_iter().map(str::to_owned).collect()
}

fn guilty() -> Charge {
    Charge { by: "guard".into(), reason: "20 errors to 1".into(), evidence: Some(serde_json::json!({ "errors": 20 })) }
}

fn follow(book: &mut Book, config: &Config) -> Vec<String> {
    words(&book.follow(config)).into_iter().map(str::to_owned).collect()
}

#[test]
fn a_step_that_somebody_is_asked_for_waits_for_his_leave() {
    let config = config(
        "v1 = \"rest\"",
        "ramp = { version = \"v2\", steps = [10, 40], before_step = { url = \"http://gate.test\" } }",
    );
    let mut book = Book::default();
    book.follow(&config);
    let pass = |book: &mut Book, leave: Option<u16>| {
        let leave = Leave::For(leave.map(Share));
        let events = book.pass(&config, Duration::from_secs(600), monday_noon(), &|_, _| None, &|_| leave);
        words(&events).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(pass(&mut book, None).is_empty());
    let asks = book.take_asks();
    assert_eq!(asks.len(), 1);
    assert_eq!((asks[0].from, asks[0].to, asks[0].step, asks[0].steps), (Share(0), Share(1000), 1, 2));
    assert!(pass(&mut book, Some(4000)).is_empty(), "a leave for another step is none");
    assert_eq!(pass(&mut book, Some(1000)), ["ramp of v2 0 % → 10 % (step 1 of 2)"]);
    assert!(book.take_asks().is_empty());
    assert!(pass(&mut book, Some(1000)).is_empty(), "each step wants its own");
    assert_eq!(book.take_asks()[0].to, Share(4000));
    book.pause(&"f".into(), "lunch", false);
    assert!(pass(&mut book, None).is_empty() && book.take_asks().is_empty(), "nobody is asked for nothing");
}

#[test]
fn a_ramp_goes_step_by_step_and_takes_from_the_baseline() {
    let config = config("v1 = \"rest\", v3 = 10", RAMP);
    let mut book = Book::default();
    assert!(follow(&mut book, &config).is_empty());
    // From nothing the first step is a move like the others, and needs no hold.
    assert_eq!(pass(&mut book, &config, 0), ["ramp of v2 0 % → 1 % (step 1 of 4)"]);
    assert_eq!(in_force(&book, &config), (vec![89.0, 1.0, 10.0], WeightsFrom::Ramp));
    assert!(pass(&mut book, &config, 9).is_empty());
    assert_eq!(pass(&mut book, &config, 1), ["ramp of v2 1 % → 5 % (step 2 of 4)"]);
    // Once, however long nobody looked.
    assert_eq!(pass(&mut book, &config, 1_000), ["ramp of v2 5 % → 25 % (step 3 of 4)"]);
    assert_eq!(pass(&mut book, &config, 10), ["ramp of v2 25 % → 100 % (step 4 of 4)"]);
    assert_eq!(in_force(&book, &config), (vec![0.0, 100.0, 0.0], WeightsFrom::Ramp));
    assert!(book.runs());
    let over = pass(&mut book, &config, 10);
    assert!(over[0].starts_with("ramp of v2 is over at 100 %"), "{over:?}");
    assert!(!book.runs());
    assert_eq!(in_force(&book, &config), (vec![0.0, 100.0, 0.0], WeightsFrom::Ramp));
}

#[test]
fn it_starts_at_its_first_step_not_below_the_files_weight() {
    for (weight, next) in [("5", "5 % → 25 %"), ("7.5", "7.5 % → 25 %"), ("0.5", "0.5 % → 1 %")] {
        let config = config(&format!("v1 = \"rest\", v2 = {weight}"), RAMP);
        let mut book = Book::default();
        book.follow(&config);
        let mut moved = pass(&mut book, &config, 0);
        if weight == "5" {
            assert!(moved.is_empty(), "5 is a step, and is held");
            moved = pass(&mut book, &config, 10);
        }
        assert!(moved[0].contains(next), "{moved:?}");
    }
}

#[test]
fn a_reload_in_the_middle_changes_nothing_that_it_did_not_name() {
    let before = config("v1 = \"rest\", v3 = 10", RAMP);
    let mut book = Book::default();
    book.follow(&before);
    pass(&mut book, &before, 0);
    pass(&mut book, &before, 6);
    // Another version's weight, and another hold.
    let after = config("v1 = \"rest\", v3 = 20", &RAMP.replace("10m", "8m"));
    assert!(follow(&mut book, &after).is_empty());
    assert_eq!(in_force(&book, &after), (vec![79.0, 1.0, 20.0], WeightsFrom::Ramp));
    assert_eq!(pass(&mut book, &after, 2), ["ramp of v2 1 % → 5 % (step 2 of 4)"]);
    // Steps it has not come to.
    let after = config("v1 = \"rest\", v3 = 20", "ramp = { version = \"v2\", steps = [2, 7], hold = \"8m\" }");
    assert!(follow(&mut book, &after).is_empty());
    assert_eq!(in_force(&book, &after).0, [75.0, 5.0, 20.0]);
    assert_eq!(pass(&mut book, &after, 8), ["ramp of v2 5 % → 7 % (step 2 of 2)"]);
    // Out of the file, out of force.
    let after = config("v1 = \"rest\", v3 = 20", "");
    assert_eq!(follow(&mut book, &after), ["the ramp of v2 is gone: the file's weights are in force"]);
    assert_eq!(in_force(&book, &after), (vec![80.0, 0.0, 20.0], WeightsFrom::File));
    assert_eq!(book.state().functions.len(), 0);
}

#[test]
fn the_files_number_is_intent() {
    let at = |n| config(&format!("v1 = \"rest\", v2 = {n}"), RAMP);
    let mut book = Book::default();
    book.follow(&at(1));
    pass(&mut book, &at(1), 10);
    assert_eq!(in_force(&book, &at(1)).0, [95.0, 5.0, 0.0]);
    // Raised above the step: that counts at once, and the next step is the first not below it.
    assert!(follow(&mut book, &at(10)).is_empty());
    assert_eq!(in_force(&book, &at(10)), (vec![90.0, 10.0, 0.0], WeightsFrom::File));
    assert!(pass(&mut book, &at(10), 9).is_empty());
    assert_eq!(pass(&mut book, &at(10), 1), ["ramp of v2 10 % → 25 % (step 3 of 4)"]);
    // Raised, and still below the step.
    let said = follow(&mut book, &at(20));
    assert_eq!(said, ["ramp of v2 stays at 25 %, above its weight of 20 % in the file"]);
    // Lowered: somebody wants less, so less it is, at once, until somebody wants more.
    let said = follow(&mut book, &at(0));
    assert_eq!(said, ["ramp of v2 paused and set back: its weight was lowered to 0 % in the file"]);
    assert_eq!(in_force(&book, &at(0)), (vec![100.0, 0.0, 0.0], WeightsFrom::File));
    assert!(pass(&mut book, &at(0), 100).is_empty());
    // Only `resume` lets it go on.
    assert!(follow(&mut book, &at(2)).is_empty());
    assert!(pass(&mut book, &at(2), 100).is_empty());
    assert_eq!(words(&book.resume(&"f".into())), ["ramp of v2 goes on from 2 %"]);
    assert_eq!(pass(&mut book, &at(2), 0), ["ramp of v2 2 % → 5 % (step 2 of 4)"]);
}

#[test]
fn paused_it_stays_where_it_is_and_rolled_back_it_gives_everything_away() {
    let config = config("v1 = \"rest\"", RAMP);
    let mut book = Book::default();
    book.follow(&config);
    pass(&mut book, &config, 0);
    let paused = book.pause(&"f".into(), "ines: lunch", false).unwrap();
    assert_eq!(words(&[paused]), ["ramp of v2 paused: ines: lunch"]);
    assert!(pass(&mut book, &config, 100).is_empty());
    assert_eq!(in_force(&book, &config).0, [99.0, 1.0, 0.0]);
    book.resume(&"f".into());
    // What had been held before does not count.
    assert!(pass(&mut book, &config, 9).is_empty());
    assert_eq!(pass(&mut book, &config, 1), ["ramp of v2 1 % → 5 % (step 2 of 4)"]);
    assert!(book.pause(&"f".into(), "errors", true).is_some());
    assert!(book.pause(&"f".into(), "errors", true).is_none(), "nothing new");
    assert_eq!(in_force(&book, &config), (vec![100.0, 0.0, 0.0], WeightsFrom::File));
    assert!(book.resume(&"g".into()).is_empty());
}

#[test]
fn it_moves_in_its_hours_and_not_in_a_freeze() {
    let lines = "ramp = { version = \"v2\", steps = [1, 5], hold = \"1m\", hours = \"09:00-18:00\", \
                 days = [\"mon-fri\"], timezone = \"Asia/Shanghai\" }\n\
                 [freeze]\ntimezone = \"Asia/Shanghai\"\n\
                 windows = [{ from = \"2026-12-24\", to = \"2027-01-02\", reason = \"year end\" }]";
    let config = config("v1 = \"rest\"", lines);
    let moves = |at: &str| {
        let mut book = Book::default();
        book.follow(&config);
        let at: jiff::Zoned = at.parse().unwrap();
        !pass_at(&mut book, &config, 1, at.timestamp(), None).is_empty()
    };
    assert!(moves("2026-11-23T09:00[Asia/Shanghai]"));
    assert!(moves("2026-11-23T17:59[Asia/Shanghai]"));
    assert!(!moves("2026-11-23T18:00[Asia/Shanghai]"));
    assert!(!moves("2026-11-23T08:59[Asia/Shanghai]"));
    assert!(!moves("2026-11-22T12:00[Asia/Shanghai]"), "a Sunday");
    assert!(!moves("2026-12-24T12:00[Asia/Shanghai]"));
    assert!(!moves("2027-01-01T12:00[Asia/Shanghai]"));
    assert!(moves("2026-12-23T12:00[Asia/Shanghai]"));
    assert!(moves("2027-01-04T12:00[Asia/Shanghai]"));
}

#[test]
fn hours_may_go_over_midnight_and_the_night_belongs_to_the_day_before() {
    let lines = "ramp = { version = \"v2\", hours = \"22:00-06:00\", days = [\"fri\"], timezone = \"Europe/Berlin\" }";
    let config = config("v1 = \"rest\"", lines);
    let when = &function(&config).ramp.as_ref().unwrap().when;
    let contain = |at: &str| when.contain(at.parse::<jiff::Zoned>().unwrap().timestamp());
    assert!(contain("2026-11-27T22:00[Europe/Berlin]"));
    assert!(contain("2026-11-28T05:59[Europe/Berlin]"));
    assert!(!contain("2026-11-28T06:00[Europe/Berlin]"));
    assert!(!contain("2026-11-28T22:00[Europe/Berlin]"));
    assert!(!contain("2026-11-27T05:00[Europe/Berlin]"));
}

#[test]
fn a_guard_that_does_not_say_healthy_holds_it() {
    let config = config("v1 = \"rest\"", RAMP);
    let mut book = Book::default();
    book.follow(&config);
    let pass = |book: &mut Book, verdict| pass_at(book, &config, 10, monday_noon(), Some(verdict));
    // Without a share there is nothing to judge by.
    assert_eq!(pass(&mut book, Verdict::NotEnough).len(), 1);
    for silence in [Verdict::NotEnough, Verdict::Worse, Verdict::NotEnough] {
        assert!(pass(&mut book, silence).is_empty());
    }
    assert_eq!(pass(&mut book, Verdict::Healthy), ["ramp of v2 1 % → 5 % (step 2 of 4)"]);
}

#[test]
fn an_ejected_version_does_not_rise_and_holds_anew() {
    let config = config("v1 = \"rest\"", RAMP);
    let mut book = Book::default();
    book.follow(&config);
    pass(&mut book, &config, 0);
    pass(&mut book, &config, 9);
    book.standings_mut().eject(&"f".into(), ["v2".into()].into());
    assert_eq!(in_force(&book, &config), (vec![100.0, 0.0, 0.0], WeightsFrom::Ejection));
    assert!(pass(&mut book, &config, 100).is_empty());
    book.standings_mut().eject(&"f".into(), [].into());
    assert!(pass(&mut book, &config, 9).is_empty());
    assert_eq!(pass(&mut book, &config, 1), ["ramp of v2 1 % → 5 % (step 2 of 4)"]);
}

#[test]
fn a_latch_sends_everyone_back_until_resume() {
    let config = config("v1 = \"rest\", v2 = 5", RAMP);
    let mut book = Book::default();
    book.follow(&config);
    pass(&mut book, &config, 10);
    let event = book.latch(function(&config), &"v2".into(), guilty(), "2026-11-23T12:00:00Z").unwrap();
    assert_eq!(event.text, "function f: v2 is sent back and latched by guard: 20 errors to 1");
    assert!(event.alarming && event.evidence.is_some());
    assert!(book.latch(function(&config), &"v2".into(), guilty(), "").is_none(), "it is latched already");
    assert!(book.latch(function(&config), &"v9".into(), guilty(), "").is_none(), "there is no such version");
    assert_eq!(in_force(&book, &config), (vec![100.0, 0.0, 0.0], WeightsFrom::Latch));
    assert!(pass(&mut book, &config, 100).is_empty(), "its ramp is paused");
    let lifted = book.resume(&"f".into());
    assert_eq!(words(&lifted), ["v2 is no longer latched", "ramp of v2 goes on from 5 %"]);
    assert_eq!(in_force(&book, &config), (vec![95.0, 5.0, 0.0], WeightsFrom::File));
}

#[test]
fn only_a_rise_of_the_versions_own_number_lifts_a_latch() {
    let of = |v2: &str, v3: &str| config(&format!("v1 = \"rest\", v2 = {v2}, v3 = {v3}"), "");
    let mut book = Book::default();
    book.latch(function(&of("5", "10")), &"v2".into(), guilty(), "");
    for (v2, v3) in [("5", "10"), ("5", "20"), ("5", "0"), ("2", "0"), ("0", "0"), ("0", "5")] {
        assert!(follow(&mut book, &of(v2, v3)).is_empty(), "{v2} {v3}");
    }
    // It was lowered to 0: any number is a rise now.
    assert_eq!(follow(&mut book, &of("0.5", "5")), ["v2 is no longer latched: its weight rose to 0.5 %"]);
    // The rest rises by the numbers of others, which is nobody's word for it.
    let rest = |v2: &str| config(&format!("v1 = \"rest\", v2 = {v2}"), "baseline = \"v2\"");
    let mut book = Book::default();
    book.latch(function(&rest("50")), &"v1".into(), guilty(), "");
    assert!(follow(&mut book, &rest("10")).is_empty());
    let named = config("v1 = 95, v2 = 5", "baseline = \"v2\"");
    assert_eq!(follow(&mut book, &named), ["v1 is no longer latched: its weight rose to 95 %"]);
}

#[test]
fn a_latch_outlives_a_version_that_is_out_of_the_file_for_a_while() {
    let with = config("v1 = \"rest\", v2 = 5", "");
    let mut without = with.clone();
    without.functions[0].versions.remove(1);
    without.functions[0].weights = vec![Share::WHOLE, Share(0)];
    let mut book = Book::default();
    book.latch(function(&with), &"v2".into(), guilty(), "");
    assert!(follow(&mut book, &without).is_empty());
    without.functions.clear();
    assert!(follow(&mut book, &without).is_empty());
    assert!(follow(&mut book, &with).is_empty());
    assert_eq!(in_force(&book, &with).1, WeightsFrom::Latch);
}

#[test]
fn what_is_written_is_what_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("v1 = \"rest\", v3 = 5", RAMP);
    let mut book = Book::default();
    book.follow(&config);
    pass(&mut book, &config, 0);
    pass(&mut book, &config, 9);
    book.latch(function(&config), &"v3".into(), guilty(), "2026-11-23T12:00:00Z");
    book.unwritten().unwrap().write(dir.path()).unwrap();
    book.written();
    assert!(book.unwritten().is_none());
    let mut again = Book::open(State::read(dir.path()).unwrap());
    assert!(follow(&mut again, &config).is_empty());
    assert!(again.unwritten().is_none(), "nothing is news to it");
    assert_eq!(in_force(&again, &config), in_force(&book, &config));
    assert_eq!(pass(&mut again, &config, 1), ["ramp of v2 1 % → 5 % (step 2 of 4)"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left there");
}

#[test]
fn a_state_that_cannot_be_understood_is_said_and_latches_what_may_have_been() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(State::read(dir.path()).unwrap(), State::default());
    for (text, says) in [
        ("{", "is damaged"),
        ("{\"format\":1,\"functions\":{},\"x\":1}", "is damaged"),
        ("{\"format\":2}", "has format 2"),
    ] {
        std::fs::write(state::path(dir.path()), text).unwrap();
        let error = State::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let config = config("v1 = \"rest\", v3 = 5", RAMP);
    let mut book = Book::default();
    let events = book.mistrust(&config, "2026-11-23T12:00:00Z", "it is damaged");
    assert_eq!(events.len(), 2, "the ramp's version, and the one with a share: {events:?}");
    book.follow(&config);
    assert!(pass(&mut book, &config, 100).is_empty());
    assert_eq!(in_force(&book, &config).0, [100.0, 0.0, 0.0]);
    let aside = state::put_aside(dir.path(), "1").unwrap();
    assert!(aside.exists() && State::read(dir.path()).unwrap() == State::default());
}

proptest! {
    /// Whatever the clocks do, whatever is said: it never skips a step, never moves outside of its hours, in a freeze, against the
    /// guard or before a step was held; and only a word from outside makes it fall.
    #[test]
    fn a_ramp_keeps_its_word(
        moments in prop::collection::vec((0u64..400, -1_000_000i64..1_000_000, any::<bool>(), 0u8..4, 0u8..12), 1..120),
    ) {
        let lines = "ramp = { version = \"v2\", steps = [1, 5, 25, 100], hold = \"10m\", hours = \"09:00-18:00\", \
                     timezone = \"Europe/Berlin\" }";
        let config = config("v1 = \"rest\"", lines);
        let ramp = function(&config).ramp.clone().unwrap();
        prop_assert_eq!(ramp.version, VersionId(1));
        let mut progress = Progress::begin("v2", Number { share: 0, rest: false });
        let mut held = 0;
        for (minutes, jump, frozen, verdict, word) in moments {
            match word {
                0 => progress.pause("x", false),
                1 => progress.pause("x", true),
                2 | 3 => drop(progress.resume()),
                4 => drop(progress.renumber(Number { share: 300, rest: false })),
                5 => drop(progress.renumber(Number { share: 0, rest: false })),
                _ => {}
            }
            let at = monday_noon() + jiff::SignedDuration::from_secs(jump);
            let verdict = [None, Some(Verdict::Healthy), Some(Verdict::Worse), Some(Verdict::NotEnough)][usize::from(verdict)];
            let (was, runs) = (progress.share, progress.runs());
            // At the start it goes to its first step at once.
            let at_once = progress.fresh && !ramp.steps.contains(&Share(was));
            if progress.held_ms == 0 {
                held = 0;
            }
            let elapsed = Duration::from_secs(minutes);
            let moved = progress.pass(&ramp, Meets { elapsed, at, frozen, fit: true, verdict, leave: Leave::Free });
            held += minutes;
            match moved {
                Some(Moved::To { from, to, step }) => {
                    prop_assert!(runs && !frozen && ramp.when.contain(at));
                    prop_assert!(was == 0 || verdict.is_none_or(|v| v == Verdict::Healthy));
                    prop_assert!(at_once || held >= 600, "{held} s");
                    prop_assert_eq!((from.0, to), (was, ramp.steps[step - 1]));
                    prop_assert!(ramp.steps.iter().all(|other| other.0 <= was || *other >= to));
                    held = 0;
                }
                Some(Moved::Asks { .. }) => prop_assert!(false, "nobody is to be asked"),
                Some(Moved::Over) => prop_assert!(runs && progress.next(&ramp).is_none()),
                None => prop_assert_eq!(progress.share, was),
            }
            // What it puts in force is never less than what the file says.
            prop_assert!(progress.in_force().is_none_or(|share| share.0 > progress.number.share));
        }
    }
}
