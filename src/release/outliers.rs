//! Versions that fail, and are out of traffic for a while: outlier ejection in Envoy's words, a breaker per version.
//!
//! A version with too many failures in a row is out for `base_ejection_time`, and twice as long each further time. Then it is tried with a
//! trickle of its requests: one failure puts it out again, a few good answers bring it back. The baseline is never out: it is where the
//! others' requests go, and a canary that gets everyone would fail too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    config::model::{Function, Health, Name, VersionId},
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
                            turns.push(Turn { function: key.0.clone(), version: key.1.clone(), stands: Stands::Well });
                        }
                        Known { counts: Arc::clone(counts), stands: Stands::Well, since: now, times: 0 }
                    }
                };
                if let Some(stands) = one.turn(health, may_be_out(function, id), now) {
                    turns.push(Turn { function: key.0.clone(), version: key.1.clone(), stands });
                }
                self.0.insert(key, one);
            }
        }
        for ((function, version), gone) in known {
            if gone.stands != Stands::Well {
                gone.counts.try_again(false);
                turns.push(Turn { function, version, stands: Stands::Well });
            }
        }
        turns
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
fn may_be_out(function: &Function, version: VersionId) -> bool {
    function.versions.len() > 1 && function.baseline != Some(version)
}

impl Known {
    fn turn(&mut self, health: &Health, may_be_out: bool, now: Now) -> Option<Stands> {
        let tripped = self.counts.take_trip();
        let passed = Duration::from_nanos(now.0.saturating_sub(self.since.0));
        let next = match self.stands {
            Stands::Well if tripped && may_be_out => self.out(health),
            Stands::Well => {
                // What it made good: an ejection for each time that it was well so long.
                if self.times > 0 && passed >= time_out(health, self.times) {
                    self.times -= 1;
                    self.since = now;
                }
                return None;
            }
            _ if !may_be_out => Stands::Well,
            Stands::Out(time) if passed < time => return None,
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

    fn out(&mut self, health: &Health) -> Stands {
        self.times = self.times.saturating_add(1);
        Stands::Out(time_out(health, self.times))
    }
}

fn time_out(health: &Health, times: u32) -> Duration {
    health.base_ejection_time.saturating_mul(1 << times.saturating_sub(1).min(20)).min(health.max_ejection_time)
}

#[cfg(test)]
mod tests;
