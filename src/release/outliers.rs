//! Versions that fail, and are out of traffic for a while: outlier ejection in Envoy's words, a breaker per version.
//!
//! A version with too many failures in a row is out for `base_ejection_time`, and twice as long each further time. Then it is tried with a
//! trickle of its requests: one failure puts it out again, a few good answers bring it back. The baseline is never out: it is where the
//! others' requests go, and a canary that gets everyone would fail too.
//!
//! Where the function has a `check`, failed probes put a version out as well, also one that nobody calls; and none comes back before its probes
//! pass again. Then it is tried with requests all the same: that a probe is answered says little of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Event, Told};
use crate::{
    config::{
        changes::duration,
        model::{Function, Health, Name, VersionId},
    },
    decide::{Now, Snapshot, health::Counts},
};

/// So many good answers of the trickle bring a version back.
const ENOUGH: u32 = 3;

/// What is known of all versions, by function and version.
#[derive(Debug, Default)]
pub struct Outliers(BTreeMap<(Name, Name), Known>);

#[derive(Debug)]
struct Known {
    /// Another one is another version.
    counts: Arc<Counts>,
    stands: Stands,
    since: Now,
    /// How often it was out, less what it has made good.
    times: u32,
    /// Its check has a word.
    is_checked: bool,
}

/// How a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Well,
    /// It gets nothing for so long.
    Out(Duration),
    /// It gets a trickle.
    Tried,
}

impl Stands {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Out(_) => "ejected",
            Self::Tried => "tried again",
        }
    }
}

/// A version stands otherwise from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub function: Name,
    pub version: Name,
    pub stands: Stands,
    /// It comes back when its check passes, and not before.
    pub is_checked: bool,
    /// That was the check's word, not the requests'.
    pub by_check: bool,
}

impl Turn {
    fn well(function: Name, version: Name) -> Self {
        Self { function, version, stands: Stands::Well, is_checked: false, by_check: false }
    }

    /// For the log and the history.
    pub fn event(&self) -> Event {
        let Self { function, version, stands, is_checked, by_check } = self;
        let what = match stands {
            Stands::Out(time) => {
                let fails = if *by_check { "fails its check" } else { "fails" };
                let until = if *is_checked { ", nor before its check passes" } else { "" };
                format!("{version} {fails}, and gets no requests for {}{until}", duration(*time))
            }
            Stands::Tried => format!("{version} is tried again, with up to 5 % of the requests"),
            Stands::Well => format!("{version} gets its requests again"),
        };
        let alarming = matches!(stands, Stands::Out(_));
        Event { function: function.clone(), text: format!("function {function}: {what}"), evidence: None, alarming }
    }
}

impl Outliers {
    /// Judges what was counted since the last time. What the config no longer has is forgotten.
    pub fn look(&mut self, snapshot: &Snapshot, now: Now) -> Vec<Turn> {
        let mut turns = Vec::new();
        let mut known = std::mem::take(&mut self.0);
        for (function, counts) in snapshot.config.functions.iter().zip(&*snapshot.health) {
            let (Some(health), Some(counts)) = (&function.health, counts) else { continue };
            for ((version, counts), id) in function.versions.iter().zip(counts).zip((0..).map(VersionId)) {
                let key = (function.name.clone(), version.name.clone());
                let mut one = match known.remove(&key) {
                    Some(one) if Arc::ptr_eq(&one.counts, counts) => one,
                    gone => {
                        if gone.is_some_and(|gone| gone.stands != Stands::Well) {
                            turns.push(Turn::well(key.0.clone(), key.1.clone()));
                        }
                        let (counts, is_checked) = (Arc::clone(counts), false);
                        Known { counts, stands: Stands::Well, since: now, times: 0, is_checked }
                    }
                };
                let by_check = one.fails_its_check(health);
                one.is_checked = health.check.is_some();
                if let Some(stands) = one.turn(health, may_be_out(function, id), now) {
                    let (function, version) = key.clone();
                    turns.push(Turn { function, version, stands, is_checked: one.is_checked, by_check });
                }
                self.0.insert(key, one);
            }
        }
        for ((function, version), gone) in known {
            if gone.stands != Stands::Well {
                gone.counts.try_again(false);
                turns.push(Turn::well(function, version));
            }
        }
        turns
    }

    /// Who is not well, for the status.
    pub fn told(&self) -> impl Iterator<Item = Told> {
        self.0.iter().filter_map(|((function, version), one)| {
            let detail = match one.stands {
                Stands::Well => return None,
                Stands::Out(time) => {
                    let until = if one.is_checked { ", nor before its check passes" } else { "" };
                    format!("gets no requests for {}{until}", duration(time))
                }
                Stands::Tried => format!("gets up to 5 %, until {ENOUGH} requests in a row went well"),
            };
            let (function, version) = (function.to_string(), version.to_string());
            Some(Told { function, version, state: one.stands.as_str().to_owned(), detail })
        })
    }

    /// The function's versions that are out, and those that are tried again.
    pub fn of(&self, function: &Name) -> (BTreeSet<Name>, BTreeSet<Name>) {
        let (mut out, mut tried) = (BTreeSet::new(), BTreeSet::new());
        for ((_, version), one) in self.0.iter().filter(|((name, _), _)| name == function) {
            match one.stands {
                Stands::Well => {}
                Stands::Out(_) => drop(out.insert(version.clone())),
                Stands::Tried => drop(tried.insert(version.clone())),
            }
        }
        (out, tried)
    }
}

/// The baseline stays, and so does a version that has nobody beside it.
pub fn may_be_out(function: &Function, version: VersionId) -> bool {
    function.versions.len() > 1 && function.baseline != Some(version)
}

impl Known {
    fn turn(&mut self, health: &Health, may_be_out: bool, now: Now) -> Option<Stands> {
        let tripped = self.counts.take_trip() | self.fails_its_check(health);
        let passed = Duration::from_nanos(now.0.saturating_sub(self.since.0));
        let next = match self.stands {
            Stands::Well if tripped && may_be_out => self.out(health),
            Stands::Well => {
                // What it made good: an ejection for each time that it was well so long.
                if self.times > 0 && passed >= health.rest(self.times) {
                    self.times -= 1;
                    self.since = now;
                }
                return None;
            }
            _ if !may_be_out => Stands::Well,
            Stands::Out(time) if passed < time || !self.may_come_back(health) => return None,
            Stands::Tried if self.fails_its_check(health) => self.out(health),
            Stands::Out(_) => Stands::Tried,
            Stands::Tried => match self.counts.tried() {
                (0, well) if well >= ENOUGH => Stands::Well,
                (0, _) => return None,
                _ => self.out(health),
            },
        };
        self.counts.try_again(next == Stands::Tried);
        (self.stands, self.since) = (next, now);
        Some(next)
    }

    fn fails_its_check(&self, health: &Health) -> bool {
        health.check.as_ref().is_some_and(|check| self.counts.missed() >= check.fall)
    }

    fn may_come_back(&self, health: &Health) -> bool {
        health.check.as_ref().is_none_or(|check| self.counts.passed() >= check.rise)
    }

    fn out(&mut self, health: &Health) -> Stands {
        self.times = self.times.saturating_add(1);
        Stands::Out(health.rest(self.times))
    }
}

#[cfg(test)]
mod tests;
