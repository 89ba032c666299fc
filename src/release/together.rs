//! Releases of several gateposts that share a store: what one sends back, lifts, pauses or moves on, the others do as well.
//!
//! Of each function the store has what it came to last ([`Common`]) and how often that changed. A member remembers what it met there last. Where
//! it is still so, it puts its own in its place; where others were quicker, both come together first ([`Common::with`]): what either sent back
//! is sent back, and only what somebody lifted, as it was met, is lifted.
//!
//! Pure: the store is asked elsewhere. Of each member the state in its own directory stays in force, whether the store answers or not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Book, Event,
    book::{event, number},
    ramp::Pause,
    state::{Latch, Number},
};
use crate::config::{
    Config,
    model::{Function, Share},
};

/// What members share of a function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Common {
    /// By the names of versions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    latches: BTreeMap<String, Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ramp: Option<Step>,
}

/// Why a version was sent back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Word {
    at: String,
    by: String,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence: Option<Value>,
}

/// How far a ramp has got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Step {
    version: String,
    share: u16,
    /// In steps of the ramp's own unit, so that it does not change all the time.
    held_ms: u64,
    fresh: bool,
    done: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused: Option<Pause>,
}

/// A function in the store: how often it changed, and what it came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub changes: u64,
    pub common: Common,
}

impl Common {
    /// This member's, and theirs, both from `base`.
    fn with(&self, theirs: &Self, base: &Self) -> Self {
        let mut latches = theirs.latches.clone();
        // What this one lifted, unless it was sent back anew.
        latches.retain(|version, word| self.latches.contains_key(version) || base.latches.get(version) != Some(word));
        for (version, word) in &self.latches {
            if base.latches.get(version) != Some(word) {
                latches.entry(version.clone()).or_insert_with(|| word.clone());
            }
        }
        let mut ramp = theirs.ramp.clone().or_else(|| self.ramp.clone());
        if let (Some(ramp), Some(own)) = (&mut ramp, &self.ramp)
            && ramp.version == own.version
        {
            let met = base.ramp.as_ref().filter(|base| base.version == own.version);
            if met.is_none() && own.share > ramp.share {
                // Both began by themselves: the one who comes later does not set the other back.
                *ramp = Step { paused: ramp.paused.take(), ..own.clone() };
            }
            if own.paused.is_some() && met.map(|met| &met.paused) != Some(&own.paused) {
                // Whoever wants it held has it held.
                ramp.paused.clone_from(&own.paused);
            }
        }
        Self { latches, ramp }
    }
}

/// What a member remembers of the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Together {
    met: BTreeMap<String, Entry>,
}

impl Together {
    /// What the store has now: it is taken over, or comes together with what happened here. Says what that did.
    pub fn meet(&mut self, book: &mut Book, config: &Config, store: &BTreeMap<String, Entry>) -> Vec<Event> {
        let mut events = Vec::new();
        // A store that has forgotten is told anew.
        self.met.retain(|name, _| store.contains_key(name));
        for function in &config.functions {
            let Some(entry) = store.get(&*function.name) else { continue };
            let met = self.met.get(&*function.name).cloned().unwrap_or_default();
            if met == *entry {
                continue;
            }
            let own = book.common(function, &met.common);
            let next = if own == met.common { entry.common.clone() } else { own.with(&entry.common, &met.common) };
            events.extend(book.adopt(function, &next));
            self.met.insert(function.name.to_string(), entry.clone());
        }
        events
    }

    /// What the store does not have yet, each with how often it had changed when it was met last.
    pub fn untold(&self, book: &Book, config: &Config) -> BTreeMap<String, Entry> {
        let mut untold = BTreeMap::new();
        for function in &config.functions {
            let none = Entry::default();
            let met = self.met.get(&*function.name).unwrap_or(&none);
            let common = book.common(function, &met.common);
            if common != met.common {
                untold.insert(function.name.to_string(), Entry { changes: met.changes, common });
            }
        }
        untold
    }
}

impl Book {
    /// What others should know; `met`: what is said of a ramp that is not in this one's config.
    fn common(&self, function: &Function, met: &Common) -> Common {
        let Some(here) = self.state.functions.get(&*function.name) else {
            return Common { latches: BTreeMap::new(), ramp: met.ramp.clone().filter(|_| function.ramp.is_none()) };
        };
        let word = |latch: &Latch| {
            let Latch { at, by, reason, evidence, number: _ } = latch.clone();
            Word { at, by, reason, evidence }
        };
        let own = here.ramp.as_ref().zip(function.ramp.as_ref()).map(|(progress, ramp)| {
            let unit = super::book::unit(ramp);
            Step {
                version: progress.version.clone(),
                share: progress.share,
                held_ms: progress.held_ms / unit * unit,
                fresh: progress.fresh,
                done: progress.done,
                paused: progress.paused.clone(),
            }
        });
        let latches = here.latches.iter().map(|(version, latch)| (version.clone(), word(latch))).collect();
        Common { latches, ramp: own.or_else(|| met.ramp.clone().filter(|_| function.ramp.is_none())) }
    }

    /// Makes it so here.
    fn adopt(&mut self, function: &Function, common: &Common) -> Vec<Event> {
        let name = &function.name;
        if !self.state.functions.contains_key(&**name) && common.latches.is_empty() {
            return Vec::new();
        }
        let mut events = Vec::new();
        let here = self.of(name);
        let before = here.clone();
        here.latches.retain(|version, _| {
            let stays = common.latches.contains_key(version);
            if !stays {
                events.push(event(name, &format!("{version} is no longer latched, on another member's word")));
            }
            stays
        });
        for (version, word) in &common.latches {
            let Word { at, by, reason, evidence } = word.clone();
            // Of a version that is not in this config the latch waits, whatever number it comes with.
            let number = number(function, version).unwrap_or(Number { share: Share::WHOLE.0, rest: false });
            let number = here.latches.get(version).map_or(number, |latch| latch.number);
            let latch = Latch { at, by, reason, evidence, number };
            if !here.latches.contains_key(version) {
                let (by, reason) = (&latch.by, &latch.reason);
                let text = format!(
                    "function {name}: {version} is sent back and latched, on another member's word, by {by}: {reason}"
                );
                let evidence = latch.evidence.clone();
                events.push(Event { function: name.clone(), text, evidence, alarming: true });
            }
            here.latches.insert(version.clone(), latch);
        }
        if let (Some(progress), Some(step)) = (&mut here.ramp, &common.ramp)
            && progress.version == step.version
        {
            if progress.share != step.share {
                let share = Share(step.share);
                events.push(event(name, &format!("ramp of {} is at {share} %, as the cluster has it", step.version)));
            }
            if progress.paused != step.paused {
                let how = match &step.paused {
                    Some(pause) => format!("is held, on another member's word: {}", pause.why),
                    None => "goes on, on another member's word".to_owned(),
                };
                events.push(event(name, &format!("ramp of {} {how}", step.version)));
            }
            (progress.share, progress.held_ms) = (step.share, step.held_ms);
            (progress.fresh, progress.done) = (step.fresh, step.done);
            progress.paused.clone_from(&step.paused);
        }
        let (same, empty) = (before == *here, here.is_empty());
        if empty {
            self.state.functions.remove(&**name);
        }
        if !same || empty {
            self.changed(name);
        }
        events
    }
}

#[cfg(test)]
mod tests;
