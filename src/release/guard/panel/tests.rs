use std::time::Duration;

use super::*;
use crate::{
    config::{Sources, model::Class, parse},
    decide::{PickedBy, split::Standing},
    release::guard::{Cause, Ended},
};

const SECOND: u64 = 1_000_000_000;

fn config(lines: &str) -> Config {
    let text =
        format!("[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\n{lines}\n[route.f]\nfunction = \"f\"\n");
    parse(&Sources::new([("t.toml", text)])).unwrap_or_else(|report| panic!("{report}"))
}

fn lines(url: &str, weight: &str, guard: &str) -> String {
    format!(
        "versions = {{ v1 = \"http://one.test\", v2 = \"http://{url}\" }}\nweights = {{ v1 = \"rest\", v2 = {weight} }}\nguard = {{ {guard} }}"
    )
}

/// A guarded function with a clock of its own.
struct Running {
    config: Config,
    standing: Standing,
    panel: Panel,
    now: u64,
    callers: u64,
}

impl Running {
    fn new(lines: &str) -> Self {
        let config = config(lines);
        let now = 100 * SECOND;
        let panel = Panel::of(&config, &config.functions[0], 2, None, Now(now)).unwrap();
        let mut running = Self { config, standing: Standing::default(), panel, now, callers: 0 };
        running.look();
        running
    }

    fn look(&mut self) -> Vec<(VersionId, Verdict)> {
        self.now += SECOND;
        let function = &self.config.functions[0];
        let in_force = InForce::new(function, &self.standing);
        let rulings = self.panel.look(Now(self.now), function, &in_force);
        rulings.iter().map(|ruling| (ruling.version, ruling.evidence.verdict)).collect()
    }

    /// A request that began just now.
    fn ended(&mut self, version: u32, class: Class) -> Ended {
        self.callers += 1;
        Ended {
            version: VersionId(version),
            picked_by: PickedBy::Weight,
            class,
            began: Now(self.now + 1),
            took: Some(Duration::from_millis(5)),
            caller: Some(self.callers.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3),
            client_ip: None,
        }
    }

    fn requests(&mut self, version: u32, class: Class, count: usize) {
        for n in 0..count {
            let ended = self.ended(version, class);
            self.panel.watch().count(n % 2, &ended);
        }
    }

    /// A second in which the canary fails, and nobody else.
    fn bad_second(&mut self) -> Vec<(VersionId, Verdict)> {
        self.requests(0, Class::Ok, 190);
        self.requests(1, Class::Ok, 5);
        self.requests(1, Class::Function, 5);
        self.look()
    }

    fn reload(&mut self, lines: &str) {
        let config = config(lines);
        let old = std::mem::replace(&mut self.config, config);
        let fresh = Panel::of(&old, &old.functions[0], 2, None, Now(self.now)).unwrap();
        let before = std::mem::replace(&mut self.panel, fresh);
        let previous = Some((&old, &old.functions[0], before));
        self.panel = Panel::of(&self.config, &self.config.functions[0], 2, previous, Now(self.now)).unwrap();
    }

    fn failures(&self) -> u64 {
        self.panel.evidence().map(|(_, evidence)| evidence.canary.failures).sum()
    }
}

const WORSE: [(VersionId, Verdict); 1] = [(VersionId(1), Verdict::Worse(Cause::Errors))];

#[test]
fn a_verdict_is_told_once() {
    let mut f = Running::new(&lines("two.test", "5", ""));
    assert_eq!(f.bad_second(), WORSE);
    assert_eq!(f.bad_second(), []);
    assert_eq!(f.panel.verdict(VersionId(1)), Some(Verdict::Worse(Cause::Errors)));
    assert_eq!(f.panel.verdict(VersionId(0)), None);
}

#[test]
fn throttles_pins_overrides_and_callers_who_leave_count_for_nothing() {
    let mut f = Running::new(&lines("two.test", "5", ""));
    for class in [Class::Throttled, Class::Account, Class::RateLimited, Class::Refused, Class::Aborted] {
        f.requests(1, class, 50);
    }
    for picked_by in [PickedBy::Pin, PickedBy::Override] {
        for _ in 0..50 {
            let ended = Ended { picked_by, ..f.ended(1, Class::Function) };
            f.panel.watch().count(0, &ended);
        }
    }
    f.requests(0, Class::Ok, 100);
    assert_eq!(f.look(), []);
    let (_, evidence) = f.panel.evidence().next().unwrap();
    assert_eq!((evidence.canary, evidence.baseline.requests), (Tally::default(), 100));
}

#[test]
fn one_caller_is_one_error_by_key_or_by_address() {
    let mut f = Running::new(&lines("two.test", "5", ""));
    for n in 0..50 {
        let ended =
            Ended { caller: None, client_ip: Some("192.0.2.1".parse().unwrap()), ..f.ended(1, Class::Function) };
        f.panel.watch().count(n % 2, &ended);
        let text = format!("2001:db8::{n}");
        let ended = Ended { client_ip: Some(text.parse().unwrap()), ..ended };
        f.panel.watch().count(n % 2, &ended);
    }
    f.requests(0, Class::Ok, 1000);
    assert_eq!(f.look(), [(VersionId(1), Verdict::Unfit)], "all of its answers fail");
    let (_, evidence) = f.panel.evidence().next().unwrap();
    assert_eq!((evidence.canary.failures, evidence.canary.errors), (100, 2), "{evidence:?}");
}

#[test]
fn a_reload_keeps_the_evidence_unless_what_it_judges_changed() {
    let first = lines("two.test", "5", "");
    let mut f = Running::new(&first);
    f.requests(1, Class::Function, 1);
    f.requests(0, Class::Ok, 19);
    f.look();
    assert_eq!(f.failures(), 1);
    f.reload(&format!("{first}\ntimeouts = {{ connect = \"5s\" }}"));
    // Even of requests under way.
    f.requests(1, Class::Function, 1);
    f.look();
    assert_eq!(f.failures(), 2);
    f.reload(&lines("two.test", "10", ""));
    f.look();
    assert_eq!(f.failures(), 2, "another weight is no other version");
    f.reload(&lines("two.test", "10", "action = \"alert\""));
    assert_eq!(f.failures(), 2, "nor is another thing to do");
    f.reload(&lines("three.test", "10", ""));
    f.look();
    assert_eq!(f.failures(), 0, "another URL is");
    f.requests(1, Class::Function, 1);
    f.look();
    f.reload(&lines("three.test", "10", "tolerate = 3"));
    f.look();
    assert_eq!(f.failures(), 0, "and so are other terms");
}

#[test]
fn requests_of_other_weights_do_not_count() {
    let mut f = Running::new(&lines("two.test", "50", ""));
    let before = f.ended(1, Class::Function);
    f.reload(&lines("two.test", "1", ""));
    f.look();
    for _ in 0..50 {
        f.panel.watch().count(0, &Ended { caller: Some(f.now), ..before });
        f.now += 1;
    }
    f.requests(0, Class::Ok, 200);
    assert_eq!(f.look(), []);
    assert_eq!(f.failures(), 0);
}

#[test]
fn what_comes_back_is_another_release_but_not_after_an_ejection() {
    let mut f = Running::new(&lines("two.test", "5", ""));
    assert_eq!(f.bad_second(), WORSE);
    f.standing.latched = vec![VersionId(1)];
    assert_eq!(f.look(), []);
    assert_eq!(f.panel.evidence().count(), 0, "it takes no part");
    f.standing.latched.clear();
    f.look();
    assert_eq!(f.panel.verdict(VersionId(1)), Some(Verdict::NotEnough));
    assert_eq!(f.bad_second(), WORSE, "and is judged anew");

    let mut f = Running::new(&lines("two.test", "5", ""));
    f.requests(1, Class::Function, 1);
    f.look();
    f.standing.ejected = vec![VersionId(1)];
    f.look();
    f.standing.ejected.clear();
    f.look();
    assert_eq!(f.failures(), 1);
}

#[test]
fn slow_answers_are_counted_once_the_baseline_is_known() {
    let mut f = Running::new(&lines("two.test", "50", "latency = 2, warmup = \"0s\""));
    let mut ruled = Vec::new();
    for _ in 0..40 {
        f.requests(0, Class::Ok, 100);
        for n in 0..100 {
            let took = Some(Duration::from_millis(if n < 10 { 50 } else { 5 }));
            let ended = Ended { took, ..f.ended(1, Class::Ok) };
            f.panel.watch().count(0, &ended);
        }
        ruled.extend(f.look());
    }
    assert_eq!(ruled, [(VersionId(1), Verdict::Worse(Cause::Latency))]);
    let (_, evidence) = f.panel.evidence().next().unwrap();
    let words = evidence.words("v2", "v1");
    assert!(words.starts_with("v2 is slow in ") && words.contains("to 1, of 1000 needed"), "{words}");
}

#[test]
fn evidence_has_words_and_numbers() {
    let mut f = Running::new(&lines("two.test", "5", ""));
    f.bad_second();
    let (_, evidence) = f.panel.evidence().next().unwrap();
    let words = evidence.words("v2", "v1");
    assert!(words.starts_with("v2 fails 5 of 10 (50 %), v1 0 of 190 (0 %), in 2 s: odds "), "{words}");
    let json = evidence.json("v2", "v1");
    assert_eq!((&json["verdict"], &json["canary"]["errors_counted"]), (&"worse".into(), &5.into()));
    assert!(json["odds"].as_f64().unwrap() >= 1000.0, "{json}");
}
