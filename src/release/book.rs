//! The book of releases: the state, what happens to it, and what follows for the weights in force.
//!
//! One owner, on the service's main thread. What it says has happened ([`Event`]) is for the log, the history and the receipt.

use std::{collections::BTreeSet, path::Path, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Standings,
    hook::Ask,
    ramp::{Leave, Meets, Moved, Progress, Verdict},
    state::{Latch, Number, OfFunction, State, Unreadable},
};
use crate::config::{
    Config,
    model::{Function, GuardAction, Name, Ramp, VersionId},
};

/// Something that happened to a function's release.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub function: Name,
    /// In words, on one line, the function's name included.
    pub text: String,
    /// In numbers, for the history.
    pub evidence: Option<Value>,
    /// Somebody should look.
    pub alarming: bool,
}

/// What somebody who sends a version back has to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    /// Who: `guard`, for instance.
    pub by: String,
    /// Why, for people, on one line.
    pub reason: String,
    /// The same in numbers.
    pub evidence: Option<Value>,
}

/// See [the module](self).
#[derive(Debug, Default)]
pub struct Book {
    pub(super) state: State,
    standings: Standings,
    /// The state is not what was written last.
    dirty: bool,
    /// Steps that somebody is to be asked for.
    asks: Vec<Ask>,
}

impl Book {
    /// Goes on from what is written. [`follow`](Self::follow) a config next.
    pub fn open(state: State) -> Self {
        let mut book = Self { state, ..Self::default() };
        let names: Vec<Name> = book.state.functions.keys().map(|name| name.as_str().into()).collect();
        for name in names {
            book.restand(&name);
        }
        book
    }

    /// For commands, which look only: by what the service has written, as this config would have it.
    ///
    /// # Errors
    ///
    /// It is there and can't be read.
    pub fn as_written(state_dir: &Path, config: &Config) -> Result<Self, Unreadable> {
        let mut book = Self::open(State::read(state_dir)?);
        // The file may lift a latch that the service has not looked at yet.
        book.follow(config);
        Ok(book)
    }

    /// Where nobody knows what had been latched: what could have been is, as for everything else would be a guess.
    pub fn mistrust(&mut self, config: &Config, at: &str, why: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for function in config.functions.iter().filter(|function| is_watched(function)) {
            for (version, id) in function.versions.iter().zip((0..).map(VersionId)) {
                if function.baseline == Some(id) || function.weights[id.index()].0 == 0 && ramps(function) != Some(id) {
                    continue;
                }
                let reason = format!("nobody knows any more whether it had been sent back: {why}");
                let charge = Charge { by: "gatepost".to_owned(), reason, evidence: None };
                events.extend(self.latch(function, &version.name, charge, at));
            }
        }
        events
    }

    /// What to write, where it is not what was written last.
    pub fn unwritten(&self) -> Option<&State> {
        self.dirty.then_some(&self.state)
    }

    pub fn written(&mut self) {
        self.dirty = false;
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn standings(&self) -> &Standings {
        &self.standings
    }

    /// For those who know of other things than this book: ejections.
    pub fn standings_mut(&mut self) -> &mut Standings {
        &mut self.standings
    }

    /// Sends a version back: it has no share until the latch is lifted, and its ramp is paused. `None`: it was latched already, or
    /// there is no such version.
    pub fn latch(&mut self, function: &Function, version: &Name, charge: Charge, at: &str) -> Option<Event> {
        let number = number(function, version)?;
        let Charge { by, reason, evidence } = charge;
        let here = self.of(&function.name);
        if here.latches.contains_key(&**version) {
            return None;
        }
        let text = format!("function {}: {version} is sent back and latched by {by}: {reason}", function.name);
        if let Some(ramp) = here.ramp.as_mut().filter(|ramp| *ramp.version == **version) {
            ramp.pause(&format!("{version} was sent back by {by}"), true);
        }
        here.latches
            .insert(version.to_string(), Latch { at: at.to_owned(), by, reason, evidence: evidence.clone(), number });
        self.changed(&function.name);
        Some(Event { function: function.name.clone(), text, evidence, alarming: true })
    }

    /// Lifts the latches of a function and lets its ramp go on. Nothing: there was nothing to resume.
    pub fn resume(&mut self, function: &Name) -> Vec<Event> {
        let Some(here) = self.state.functions.get_mut(&**function) else { return Vec::new() };
        let lifted = std::mem::take(&mut here.latches).into_keys();
        let mut said: Vec<_> = lifted.map(|version| format!("{version} is no longer latched")).collect();
        if let Some(ramp) = here.ramp.as_mut()
            && ramp.resume()
        {
            said.push(format!("ramp of {} goes on from {} %", ramp.version, crate::config::model::Share(ramp.share)));
        }
        if said.is_empty() {
            return Vec::new();
        }
        self.changed(function);
        said.into_iter().map(|what| event(function, &what)).collect()
    }

    /// Holds the function's ramp where it is, or, set back, gives its share away. `None`: it has no ramp that this changes.
    pub fn pause(&mut self, function: &Name, why: &str, set_back: bool) -> Option<Event> {
        let ramp = self.state.functions.get_mut(&**function)?.ramp.as_mut()?;
        let was_back = ramp.paused.as_ref().is_some_and(|pause| pause.set_back);
        let before = ramp.paused.clone();
        ramp.pause(why, set_back);
        self.dirty |= before != ramp.paused;
        // Somebody may give another reason for what is so already.
        if was_back || before == ramp.paused {
            return None;
        }
        let how = if set_back { "paused and set back" } else { "paused" };
        let text = format!("ramp of {} {how}: {why}", ramp.version);
        self.changed(function);
        Some(event(function, &text))
    }

    /// A config comes into force: latches lift where their version's own number rose, and ramps follow the file.
    pub fn follow(&mut self, config: &Config) -> Vec<Event> {
        let mut events = Vec::new();
        for function in &config.functions {
            let known = self.state.functions.contains_key(&*function.name);
            if !known && function.ramp.is_none() {
                continue;
            }
            let before = self.state.functions.get(&*function.name).cloned();
            let here = self.of(&function.name);
            let mut said = Vec::new();
            here.latches.retain(|version, latch| {
                let Some(now) = number(function, version) else { return true };
                let rose = latch.number.rose(now);
                latch.number = now;
                if rose {
                    said.push(format!("{version} is no longer latched: its weight rose to {} %", now.as_share()));
                }
                !rose
            });
            said.extend(follow_ramp(here, function));
            let empty = here.is_empty();
            if before.as_ref() != Some(here) {
                if empty {
                    self.state.functions.remove(&*function.name);
                }
                self.changed(&function.name);
            }
            events.extend(said.into_iter().map(|what| event(&function.name, &what)));
        }
        events
    }

    /// Time has passed: ramps move.
    ///
    /// `elapsed` is by a clock that never jumps, `at` the time of day. `judge` says what a guard thinks of a version, `None` where
    /// there is no guard; `leave`, to which share its hook has let it go.
    pub fn pass(
        &mut self,
        config: &Config,
        elapsed: Duration,
        at: Timestamp,
        judge: &dyn Fn(&Function, VersionId) -> Option<Verdict>,
        leave: &dyn Fn(&Function) -> Leave,
    ) -> Vec<Event> {
        self.asks.clear();
        let frozen = config.freeze.window(at).is_some();
        let mut events = Vec::new();
        for function in config.functions.iter().filter(|function| function.ramp.is_some()) {
            let Some(ramp) = &function.ramp else { continue };
            let standing = self.standings.standing(function);
            let fit = !standing.ejected.contains(&ramp.version) && !standing.latched.contains(&ramp.version);
            let Some(progress) = self.state.functions.get_mut(&*function.name).and_then(|here| here.ramp.as_mut())
            else {
                continue;
            };
            let verdict = if progress.runs() { judge(function, ramp.version) } else { None };
            let held = progress.held_ms;
            let leave = leave(function);
            let moved = progress.pass(ramp, Meets { elapsed, at, frozen, fit, verdict, leave });
            // A kill forgets no more than this of what was held.
            let unit = unit(ramp);
            self.dirty |= held / unit != progress.held_ms / unit;
            let Some(moved) = moved else { continue };
            let (name, steps) = (&progress.version, ramp.steps.len());
            let text = match moved {
                Moved::Asks { from, to, step } => {
                    let (function, version) = (function.name.clone(), name.as_str().into());
                    self.asks.push(Ask { function, version, from, to, step, steps, verdict });
                    continue;
                }
                Moved::To { from, to, step } => format!("ramp of {name} {from} % → {to} % (step {step} of {steps})"),
                Moved::Over => {
                    let share = crate::config::model::Share(progress.share);
                    format!(
                        "ramp of {name} is over at {share} %: that stays in force; write it into the file and take `ramp` out"
                    )
                }
            };
            self.changed(&function.name);
            events.push(event(&function.name, &text));
        }
        events
    }

    /// The steps that ramps would have taken in the last [`pass`](Self::pass), had somebody let them.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    /// Whether time changes anything.
    pub fn runs(&self) -> bool {
        self.state.functions.values().any(|here| here.ramp.as_ref().is_some_and(Progress::runs))
    }

    pub(super) fn of(&mut self, function: &Name) -> &mut OfFunction {
        self.state.functions.entry(function.to_string()).or_default()
    }

    pub(super) fn changed(&mut self, function: &Name) {
        self.dirty = true;
        self.restand(function);
    }

    fn restand(&mut self, function: &Name) {
        let none = OfFunction::default();
        let here = self.state.functions.get(&**function).unwrap_or(&none);
        let latched: BTreeSet<Name> = here.latches.keys().map(|name| name.as_str().into()).collect();
        let ramp = here.ramp.as_ref().and_then(|ramp| Some((ramp.version.as_str().into(), ramp.in_force()?)));
        self.standings.latch(function, latched);
        self.standings.ramp(function, ramp);
    }
}

pub(super) fn event(function: &Name, what: &str) -> Event {
    Event { function: function.clone(), text: format!("function {function}: {what}"), evidence: None, alarming: false }
}

/// In what steps the time that a ramp was held is kept, in milliseconds.
pub(super) fn unit(ramp: &Ramp) -> u64 {
    (u64::try_from(ramp.hold.as_millis()).unwrap_or(u64::MAX) / 8).clamp(1, 30_000)
}

/// The ramp's progress as the file wants it; says what that changes.
fn follow_ramp(here: &mut OfFunction, function: &Function) -> Option<String> {
    let Some(ramp) = &function.ramp else {
        let gone = here.ramp.take()?;
        let text = format!("the ramp of {} is gone: the file's weights are in force", gone.version);
        return gone.in_force().map(|_| text);
    };
    let name = &function.versions[ramp.version.index()].name;
    let number = number(function, name)?;
    match here.ramp.as_mut().filter(|progress| *progress.version == **name) {
        Some(progress) => {
            let said = progress.renumber(number);
            // Steps were added behind the last.
            progress.done &= progress.next(ramp).is_none();
            said
        }
        None => {
            let mut progress = Progress::begin(name, number);
            if here.latches.contains_key(&**name) {
                progress.pause(&format!("{name} is latched"), true);
            }
            here.ramp = Some(progress);
            None
        }
    }
}

/// Whether versions of it may be latched by gatepost itself.
fn is_watched(function: &Function) -> bool {
    function.ramp.is_some() || function.guard.as_ref().is_some_and(|guard| guard.action == GuardAction::Rollback)
}

fn ramps(function: &Function) -> Option<VersionId> {
    function.ramp.as_ref().map(|ramp| ramp.version)
}

/// What the file says of a version; `None`: nothing, for it is not there.
pub(super) fn number(function: &Function, version: &str) -> Option<Number> {
    let at = function.versions.iter().position(|v| &*v.name == version)?;
    let rest = function.rest.is_some_and(|rest| rest.index() == at);
    Some(Number { share: function.weights[at].0, rest })
}
