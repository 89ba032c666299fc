//! A ramp's `before_step`: what it is asked, what its answer means, and how it stands between two looks. Pure: the clock is an argument.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Told, Verdict};
use crate::{
    config::model::{Hook, Name, Share},
    decide::Now,
};

/// A step that a ramp would take now, if its hook lets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub function: Name,
    pub version: Name,
    pub from: Share,
    pub to: Share,
    /// Counted from 1.
    pub step: usize,
    pub steps: usize,
    /// What the guard says, where there is one.
    pub verdict: Option<Verdict>,
}

impl Ask {
    /// What is posted. `says`: the guard's words and numbers, where there is one.
    pub fn json(&self, generation: u64, says: Option<(&str, &Value)>) -> Value {
        let percent = |share: Share| f64::from(share.0) / 100.0;
        json!({
            "event": "before_step",
            "function": &*self.function,
            "version": &*self.version,
            "from": percent(self.from),
            "to": percent(self.to),
            "step": self.step,
            "steps": self.steps,
            "generation": generation,
            "verdict": self.verdict.map(|verdict| match verdict {
                Verdict::Healthy => "healthy",
                Verdict::Worse => "worse",
                Verdict::NotEnough => "not_enough_data",
            }),
            "guard": says.map(|(says, evidence)| json!({ "says": says, "evidence": evidence })),
        })
    }
}

/// What a hook says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    GoOn,
    /// Why, for people.
    Hold(String),
    /// It could not be asked, or made no sense: as good as a hold.
    Failed(String),
}

/// What people are told of a reason, at the most.
const LONGEST: usize = 200;

/// An answer's status and body → what it means.
pub fn answer(status: u16, body: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Said {
        hold: Option<bool>,
        reason: Option<String>,
    }
    let said = serde_json::from_slice::<Said>(body).ok();
    let reason = said.as_ref().and_then(|said| said.reason.as_deref()).map(one_line).filter(|text| !text.is_empty());
    match (status, said.and_then(|said| said.hold)) {
        (200..=299, Some(true)) => Answer::Hold(reason.unwrap_or_else(|| "it says hold".to_owned())),
        (200..=299, _) => Answer::GoOn,
        (400..=499, _) => Answer::Hold(reason.unwrap_or_else(|| format!("it answered {status}"))),
        // A proxy's or the tool's own trouble; a redirect is not followed.
        _ => Answer::Failed(
            reason.map_or_else(|| format!("it answered {status}"), |why| format!("it answered {status}: {why}")),
        ),
    }
}

/// For a log, a status, a terminal.
fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    plain.trim().to_owned()
}

/// How long a leave is good for: the ramp looks several times a second.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// How the hooks of all functions stand. What is lost by a restart is asked anew.
#[derive(Debug, Default)]
pub struct Hooks {
    asked: BTreeMap<Name, Asked>,
    /// Of the last question.
    number: u64,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    ask: Ask,
    hook: Hook,
    state: State,
    /// Why the step is held, until an answer says otherwise.
    held: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asking,
    Granted { until: Now },
    Held { until: Now },
}

impl Asked {
    /// Whether it is about that step, and by that hook.
    fn is_about(&self, ask: &Ask, hook: &Hook) -> bool {
        let step = |ask: &Ask| (ask.version.clone(), ask.from, ask.to);
        step(&self.ask) == step(ask) && self.hook == *hook
    }
}

impl Hooks {
    /// To which share the function's version may go from its present one; `None`: nobody has said so.
    pub fn granted(&self, function: &Name, version: &str, hook: &Hook, now: Now) -> Option<Share> {
        let asked = self.asked.get(function)?;
        let good = matches!(asked.state, State::Granted { until } if now < until);
        (good && *asked.ask.version == *version && asked.hook == *hook).then_some(asked.ask.to)
    }

    /// Whether the question is to be put now; if so, it counts as put, under this number.
    pub fn put(&mut self, ask: &Ask, hook: &Hook, now: Now) -> Option<u64> {
        let before = self.asked.get(&ask.function).filter(|asked| asked.is_about(ask, hook));
        match before.map(|asked| asked.state) {
            Some(State::Asking) => return None,
            Some(State::Held { until }) if now < until => return None,
            _ => {}
        }
        self.number += 1;
        let held = before.and_then(|asked| asked.held.clone());
        let asked = Asked { number: self.number, ask: ask.clone(), hook: hook.clone(), state: State::Asking, held };
        self.asked.insert(ask.function.clone(), asked);
        Some(self.number)
    }

    /// The answer to a question; says what is news: the step, and why it is held. An answer that nobody waits for any more is none.
    pub fn answered(
        &mut self,
        function: &Name,
        number: u64,
        answer: &Answer,
        now: Now,
    ) -> Option<(Ask, Option<String>)> {
        let asked = self.asked.get_mut(function).filter(|asked| asked.number == number)?;
        let later = |time: Duration| Now(now.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)));
        match answer {
            Answer::GoOn => {
                asked.state = State::Granted { until: later(GOOD_FOR) };
                asked.held = None;
                Some((asked.ask.clone(), None))
            }
            Answer::Hold(why) | Answer::Failed(why) => {
                asked.state = State::Held { until: later(asked.hook.again) };
                // Said once.
                let is_news = asked.held.as_ref() != Some(why);
                asked.held = Some(why.clone());
                is_news.then(|| (asked.ask.clone(), Some(why.clone())))
            }
        }
    }

    /// Forgets what no ramp asks any more: `stands` says of a function which version ramps, and from which share.
    pub fn keep(&mut self, stands: impl Fn(&Name) -> Option<(Name, Share)>) {
        self.asked.retain(|function, asked| {
            stands(function).is_some_and(|(version, share)| version == asked.ask.version && share == asked.ask.from)
        });
    }

    /// Nobody was asked, or nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Steps that are held: function, version.
    pub fn held(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.asked.values().filter(|asked| asked.held.is_some()).map(|asked| (&asked.ask.function, &asked.ask.version))
    }

    /// Says of those that are held that they are, and why.
    pub fn tell(&self, told: &mut [Told], now: Now) {
        for told in told.iter_mut().filter(|told| told.state == "ramp") {
            let Some(asked) = self.asked.get(&*told.function).filter(|asked| *asked.ask.version == *told.version)
            else {
                continue;
            };
            let Some(why) = &asked.held else { continue };
            let then = match asked.state {
                State::Held { until } => {
                    let left = Duration::from_nanos(until.0.saturating_sub(now.0)).as_secs() + 1;
                    format!("asked again in {left} s")
                }
                _ => "asked again now".to_owned(),
            };
            told.state = "held".to_owned();
            told.detail = format!("before {} % by `before_step`: {why}; {then}; {}", asked.ask.to, told.detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, parse};

    fn hook() -> Hook {
        let text = "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = { v1 = \"http://a.test\", v2 = \"http://b.test\" }\n\
                    weights = { v1 = \"rest\" }\nramp = { version = \"v2\", before_step = { url = \"http://c.test\" } }\n[route.f]\nfunction = \"f\"\n";
        let config = parse(&Sources::new([("t.toml", text)])).unwrap_or_else(|report| panic!("{report}"));
        *config.functions[0].ramp.clone().unwrap().before_step.unwrap()
    }

    fn ask(from: u16, to: u16) -> Ask {
        let (function, version) = ("f".into(), "v2".into());
        Ask { function, version, from: Share(from), to: Share(to), step: 2, steps: 3, verdict: None }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_answer_is_a_leave_only_where_it_says_so() {
        let hold = |why: &str| Answer::Hold(why.to_owned());
        assert_eq!(answer(204, b""), Answer::GoOn);
        assert_eq!(answer(200, b"OK"), Answer::GoOn);
        assert_eq!(answer(200, br#"{"hold": false, "reason": "fine"}"#), Answer::GoOn);
        assert_eq!(answer(200, br#"{"hold": true, "reason": "the tests\nare red"}"#), hold("the tests are red"));
        assert_eq!(answer(409, br#"{"reason": "not on Fridays"}"#), hold("not on Fridays"));
        assert_eq!(answer(404, b"<html>"), hold("it answered 404"));
        assert_eq!(answer(302, b""), Answer::Failed("it answered 302".to_owned()));
        assert_eq!(answer(503, b""), Answer::Failed("it answered 503".to_owned()));
        let long = format!("{{\"hold\": true, \"reason\": \"{}\"}}", "x".repeat(5000));
        assert_eq!(answer(200, long.as_bytes()), hold(&"x".repeat(200)));
    }

    #[test]
    fn a_step_is_asked_for_once_and_again_after_a_while_and_its_leave_ends() {
        let (mut hooks, hook, name) = (Hooks::default(), hook(), Name::from("f"));
        let number = hooks.put(&ask(100, 500), &hook, Now(0)).unwrap();
        assert_eq!(hooks.put(&ask(100, 500), &hook, Now(SECOND)), None, "it is being asked");
        let hold = Answer::Hold("no".to_owned());
        assert!(hooks.answered(&name, number, &hold, Now(SECOND)).is_some());
        assert_eq!(hooks.put(&ask(100, 500), &hook, Now(60 * SECOND)), None);
        let number = hooks.put(&ask(100, 500), &hook, Now(61 * SECOND)).unwrap();
        assert_eq!(hooks.answered(&name, number, &hold, Now(61 * SECOND)), None, "the same is no news");
        assert_eq!(hooks.held().count(), 1);
        let number = hooks.put(&ask(100, 500), &hook, Now(200 * SECOND)).unwrap();
        assert_eq!(hooks.granted(&name, "v2", &hook, Now(200 * SECOND)), None);
        assert!(hooks.answered(&name, number, &Answer::GoOn, Now(200 * SECOND)).is_some());
        assert_eq!(hooks.granted(&name, "v2", &hook, Now(201 * SECOND)), Some(Share(500)));
        assert_eq!(hooks.granted(&name, "v3", &hook, Now(201 * SECOND)), None);
        assert_eq!(
            hooks.granted(&name, "v2", &hook, Now(211 * SECOND)),
            None,
            "whoever said so may think otherwise by now"
        );
        assert_eq!(hooks.held().count(), 0);
        // Another step, or another hook, is another question; an answer to the old one is nobody's.
        let next = hooks.put(&ask(500, 2500), &hook, Now(201 * SECOND)).unwrap();
        assert_eq!(hooks.answered(&name, number, &Answer::GoOn, Now(202 * SECOND)), None);
        let other = Hook { again: Duration::from_secs(1), ..hook.clone() };
        assert!(hooks.put(&ask(500, 2500), &other, Now(202 * SECOND)).is_some());
        assert_eq!(hooks.answered(&name, next, &Answer::GoOn, Now(202 * SECOND)), None);
        hooks.keep(|_| Some(("v2".into(), Share(100))));
        assert!(hooks.put(&ask(500, 2500), &other, Now(202 * SECOND)).is_some());
    }
}
