use std::time::Duration;

use super::*;
use crate::{
    config::{Sources, parse},
    release::{Charge, ramp::Leave},
};

const RAMP: &str = "ramp = { version = \"v2\", steps = [1, 5, 25, 100], hold = \"8m\" }";

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

#[derive(Default)]
struct Store(BTreeMap<String, Entry>);

struct Member {
    book: Book,
    together: Together,
    config: Config,
}

impl Member {
    fn new(config: &Config) -> Self {
        let mut book = Book::default();
        book.follow(config);
        Self { book, together: Together::default(), config: config.clone() }
    }

    /// As the script does: what it has met unchanged is changed, and what is there then is met.
    fn beat(&mut self, store: &mut Store) -> Vec<String> {
        for (name, entry) in self.together.untold(&self.book, &self.config) {
            let at = store.0.entry(name).or_default();
            if at.changes == entry.changes {
                *at = Entry { changes: entry.changes + 1, common: entry.common };
            }
        }
        store.0.retain(|_, entry| entry.changes > 0);
        let events = self.together.meet(&mut self.book, &self.config, &store.0);
        events.into_iter().map(|event| event.text).collect()
    }

    fn latch(&mut self, version: &str, at: &str) {
        let charge = Charge { by: "guard".into(), reason: "errors".into(), evidence: None };
        self.book.latch(&self.config.functions[0], &version.into(), charge, at).unwrap();
    }

    fn latched(&self) -> Vec<&str> {
        let here = self.book.state.functions.get("f");
        here.map(|here| here.latches.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// In percent.
    fn share(&self) -> f64 {
        let all = self.book.standings().in_force(&self.config.functions[0]);
        f64::from(all.shares[1].0) / 100.0
    }

    fn pass(&mut self, minutes: u64) {
        let noon = "2026-11-23T12:00:00Z".parse().unwrap();
        self.book.pass(&self.config, Duration::from_secs(60 * minutes), noon, &|_, _| None, &|_| Leave::Free);
    }
}

fn all(members: &mut [Member], store: &mut Store) {
    for _ in 0..3 {
        for member in &mut *members {
            member.beat(store);
        }
    }
    for member in &mut *members {
        assert_eq!(member.together.untold(&member.book, &member.config), BTreeMap::new(), "they have settled");
    }
}

#[test]
fn what_one_sends_back_all_send_back_and_what_one_lifts_is_lifted() {
    let config = config("v1 = \"rest\", v2 = 50", "");
    let mut members: Vec<Member> = (0..3).map(|_| Member::new(&config)).collect();
    let mut store = Store::default();
    members[0].latch("v2", "noon");
    members[0].beat(&mut store);
    let said = members[1].beat(&mut store);
    assert_eq!(said, ["function f: v2 is sent back and latched, on another member's word, by guard: errors"]);
    all(&mut members, &mut store);
    assert!(members.iter().all(|member| member.latched() == ["v2"] && member.share() == 0.0));
    assert_eq!(members[1].book.resume(&"f".into()).len(), 1);
    all(&mut members, &mut store);
    assert!(members.iter().all(|member| member.latched().is_empty() && member.share() == 50.0));
}

#[test]
fn of_what_happens_at_once_nothing_is_lost_and_a_latch_wins() {
    let config = config("v1 = \"rest\", v2 = 20, v3 = 20", "");
    let mut members: Vec<Member> = (0..2).map(|_| Member::new(&config)).collect();
    let mut store = Store::default();
    members[0].latch("v2", "noon");
    all(&mut members, &mut store);
    // One lifts what was sent back, the other sends another back.
    members[0].book.resume(&"f".into());
    members[1].latch("v3", "later");
    all(&mut members, &mut store);
    assert_eq!((members[0].latched(), members[1].latched()), (vec!["v3"], vec!["v3"]));
    // One lifts, and the other lifts and sends back anew.
    members[0].book.resume(&"f".into());
    members[1].book.resume(&"f".into());
    members[1].latch("v3", "much later");
    all(&mut members, &mut store);
    assert_eq!((members[0].latched(), members[1].latched()), (vec!["v3"], vec!["v3"]));
}

#[test]
fn a_number_that_rises_in_one_file_lifts_for_all() {
    let before = config("v1 = \"rest\", v2 = 5", "");
    let mut members: Vec<Member> = (0..2).map(|_| Member::new(&before)).collect();
    let mut store = Store::default();
    members[0].latch("v2", "noon");
    all(&mut members, &mut store);
    members[1].config = config("v1 = \"rest\", v2 = 10", "");
    let after = members[1].config.clone();
    members[1].book.follow(&after);
    all(&mut members, &mut store);
    assert!(members.iter().all(|member| member.latched().is_empty()));
}

#[test]
fn one_moves_a_ramp_and_the_others_follow_even_those_who_come_later() {
    let config = config("v1 = \"rest\"", RAMP);
    let mut members: Vec<Member> = (0..2).map(|_| Member::new(&config)).collect();
    let mut store = Store::default();
    members[0].pass(0);
    members[0].pass(8);
    all(&mut members, &mut store);
    assert_eq!((members[0].share(), members[1].share()), (5.0, 5.0));
    // Half of a step is not held once more by who moves it next.
    members[0].pass(4);
    all(&mut members, &mut store);
    members.push(Member::new(&config));
    all(&mut members, &mut store);
    members[2].pass(4);
    all(&mut members, &mut store);
    assert!(members.iter().all(|member| member.share() == 25.0));
    members[1].book.pause(&"f".into(), "lunch", false);
    all(&mut members, &mut store);
    members[0].pass(100);
    assert_eq!(members[0].share(), 25.0);
    members[2].book.resume(&"f".into());
    all(&mut members, &mut store);
    members[0].pass(8);
    assert_eq!(members[0].share(), 100.0);
}

#[test]
fn a_latch_on_one_takes_the_ramp_back_on_all() {
    let config = config("v1 = \"rest\"", RAMP);
    let mut members: Vec<Member> = (0..2).map(|_| Member::new(&config)).collect();
    let mut store = Store::default();
    members[0].pass(0);
    all(&mut members, &mut store);
    members[1].latch("v2", "noon");
    all(&mut members, &mut store);
    assert!(members.iter().all(|member| member.share() == 0.0 && !member.book.runs()));
}

#[test]
fn a_store_that_has_forgotten_is_told_anew_and_who_has_never_met_it_keeps_its_latches() {
    let config = config("v1 = \"rest\", v2 = 5, v3 = 5", "");
    let mut members: Vec<Member> = (0..2).map(|_| Member::new(&config)).collect();
    let mut store = Store::default();
    members[0].latch("v2", "noon");
    all(&mut members, &mut store);
    store = Store::default();
    let mut late = Member::new(&config);
    late.latch("v3", "before it came");
    members.push(late);
    all(&mut members, &mut store);
    assert!(members.iter().all(|member| member.latched() == ["v2", "v3"]));
}

#[test]
fn who_lacks_a_version_or_a_function_lifts_nothing() {
    let with = config("v1 = \"rest\", v2 = 5", "");
    let text = r#"
        [listener.web]
        address = "127.0.0.1:0"
        [route.f]
        function = "f"
        [function.f]
        versions = { v1 = "http://127.0.0.1:1" }
    "#;
    let without = parse(&Sources::new([("gatepost.toml", text.to_owned())])).unwrap();
    let other = text.replace("function.f", "function.g").replace("\"f\"", "\"g\"");
    let other = parse(&Sources::new([("gatepost.toml", other)])).unwrap();
    let mut members = vec![Member::new(&with), Member::new(&without), Member::new(&other)];
    let mut store = Store::default();
    members[0].latch("v2", "noon");
    all(&mut members, &mut store);
    assert_eq!(members[0].latched(), ["v2"]);
    // When it gets the version, it is latched.
    members[1].config = with.clone();
    members[1].book.follow(&with);
    all(&mut members, &mut store);
    assert_eq!((members[1].latched(), members[1].share()), (vec!["v2"], 0.0));
    assert_eq!(members[2].latched(), Vec::<&str>::new());
}

#[test]
fn what_was_met_outlives_the_process() {
    let config = config("v1 = \"rest\", v2 = 5", "");
    let mut members: Vec<Member> = (0..2).map(|_| Member::new(&config)).collect();
    let mut store = Store::default();
    members[0].latch("v2", "noon");
    all(&mut members, &mut store);
    // One is away, with its latch in its state; meanwhile it is lifted.
    let mut away = members.pop().unwrap();
    members[0].book.resume(&"f".into());
    all(&mut members, &mut store);
    let kept = serde_json::to_string(&away.together).unwrap();
    away.together = serde_json::from_str(&kept).unwrap();
    members.push(away);
    all(&mut members, &mut store);
    assert!(members.iter().all(|member| member.latched().is_empty()));
}
