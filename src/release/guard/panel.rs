//! The guard of one function: its counters, a judge for each canary, and what both go on from over a reload.

use std::sync::Arc;

use super::{Evidence, Judge, Tally, Terms, Verdict, Watch, tail::Tail};
use crate::{
    config::{
        Config,
        model::{Credential, Function, Guard, Name, Share, Version, VersionId},
    },
    decide::{Now, WeightsFrom, split::InForce},
};

/// How often the line of slow answers is drawn anew.
const DRAW: u64 = 10_000_000_000;

/// Something to tell: a canary's verdict is another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruling {
    pub version: VersionId,
    pub before: Verdict,
    pub evidence: Evidence,
}

/// See [the module](self).
#[derive(Debug)]
pub struct Panel {
    watch: Arc<Watch>,
    baseline: VersionId,
    guard: Guard,
    /// By version; `None`: the baseline.
    seats: Vec<Option<Seat>>,
    /// What was read last, by version.
    read: Vec<Tally>,
    /// What was in force then.
    shares: Vec<Share>,
    tail: Tail,
    looked: Now,
    turned: Now,
    drawn: Now,
}

#[derive(Debug)]
struct Seat {
    judge: Judge,
    told: Verdict,
    /// It was taken off: when it comes back, that is another release.
    is_over: bool,
}

impl Seat {
    fn new(guard: &Guard) -> Self {
        Self { judge: Judge::new(terms(guard)), told: Verdict::NotEnough, is_over: false }
    }
}

fn terms(guard: &Guard) -> Terms {
    Terms {
        tolerate: guard.tolerate,
        false_alarm: guard.false_alarm,
        max_error_ratio: guard.max_error_ratio,
        min_requests: guard.min_requests,
        min_time: guard.min_time.as_secs_f64(),
        latency: guard.latency,
        warmup: guard.warmup.as_secs_f64(),
    }
}

impl Panel {
    /// The guard of `function`; `None` where it has none. `previous`: the same function's in the config before, which goes on where it means the same.
    pub fn of(
        config: &Config,
        function: &Function,
        workers: usize,
        previous: Option<(&Config, &Function, Self)>,
        now: Now,
    ) -> Option<Self> {
        let (guard, baseline) = (function.guard.as_ref()?, function.baseline?);
        let ids = || (0..).map(VersionId).take(function.versions.len());
        let mut panel = Self {
            watch: Arc::new(Watch::new(workers, function.versions.len(), baseline, guard.latency.is_some())),
            baseline,
            guard: guard.clone(),
            seats: ids().map(|id| (id != baseline).then(|| Seat::new(guard))).collect(),
            read: vec![Tally::default(); function.versions.len()],
            shares: Vec::new(),
            tail: Tail::default(),
            looked: now,
            turned: now,
            drawn: now,
        };
        panel.watch.begin(now);
        let Some((old_config, old, mut before)) = previous else { return Some(panel) };
        let find = |name: &Name| old.versions.iter().position(|version| version.name == *name);
        let same = |id: VersionId| {
            let version = &function.versions[id.index()];
            find(&version.name).filter(|at| is_same((old_config, &old.versions[*at]), (config, version)))
        };
        // What is judged, by what, and what it is compared with.
        let compares_as_before =
            terms(&before.guard) == terms(guard) && same(baseline).is_some_and(|at| at == before.baseline.index());
        if compares_as_before {
            for (seat, id) in panel.seats.iter_mut().zip(ids()) {
                if let (Some(seat), Some(at)) = (seat, same(id))
                    && let Some(kept) = before.seats[at].take()
                {
                    *seat = kept;
                }
            }
            let names = |function: &Function| function.versions.iter().map(|v| v.name.clone()).collect::<Vec<_>>();
            if names(old) == names(function) {
                // The counts of requests under way go on as well.
                (panel.watch, panel.read, panel.tail) = (before.watch, before.read, before.tail);
                (panel.looked, panel.turned, panel.drawn) = (before.looked, before.turned, before.drawn);
                panel.shares = before.shares;
            }
        }
        Some(panel)
    }

    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// What the config says of it.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Judges what was counted since the last look. To be called about once a second, with the weights in force.
    pub fn look(&mut self, now: Now, function: &Function, in_force: &InForce) -> Vec<Ruling> {
        let seconds = now.0.saturating_sub(self.looked.0) as f64 / 1e9;
        self.looked = now;
        let window = u64::try_from(self.guard.window.as_nanos()).unwrap_or(u64::MAX);
        if now.0.saturating_sub(self.turned.0) >= window {
            self.turned = now;
            self.watch.turn();
        }
        if now.0.saturating_sub(self.drawn.0) >= DRAW {
            self.drawn = now;
            if let Some(line) = self.watch.times().and_then(|times| self.tail.line(times)) {
                self.watch.slow_above(line);
            }
        }
        let ids: Vec<VersionId> = (0..).map(VersionId).take(self.read.len()).collect();
        let now_read: Vec<Tally> = ids.iter().map(|id| self.watch.tally(*id)).collect();
        let fresh: Vec<Tally> = now_read.iter().zip(&self.read).map(|(now, before)| now.since(before)).collect();
        self.read = now_read;
        if self.shares.is_empty() {
            // Just made: nothing was dealt by others.
            self.weights_changed(function, in_force);
        } else if self.shares != in_force.shares {
            // What was dealt by the old weights and what by the new can't be told apart in this second.
            self.watch.begin(now);
            self.weights_changed(function, in_force);
            return Vec::new();
        }
        let baseline = fresh[self.baseline.index()];
        let mut rulings = Vec::new();
        for (id, seat) in ids.iter().zip(&mut self.seats) {
            let Some(seat) = seat.as_mut().filter(|_| in_force.shares[id.index()].0 > 0) else { continue };
            let verdict = seat.judge.second(seconds, &fresh[id.index()], &baseline);
            if verdict != seat.told {
                rulings.push(Ruling { version: *id, before: seat.told, evidence: seat.judge.evidence() });
                seat.told = verdict;
            }
        }
        rulings
    }

    fn weights_changed(&mut self, function: &Function, in_force: &InForce) {
        for (at, seat) in self.seats.iter_mut().enumerate() {
            let (Some(seat), Some(share)) = (seat, in_force.shares.get(at)) else { continue };
            let before = self.shares.get(at).copied().unwrap_or_default();
            if share.0 > 0 && seat.is_over {
                *seat = Seat::new(&self.guard);
            } else if *share != before {
                seat.judge.share_changed(*share > before);
            } else {
                // The baseline's share changed, which is compared with.
                seat.judge.others_changed();
            }
            // Who is ejected for a while comes back as the same release.
            let is_away = in_force.from == WeightsFrom::Ejection && function.weights[at].0 > 0;
            seat.is_over = share.0 == 0 && !is_away;
        }
        self.shares.clone_from(&in_force.shares);
    }

    /// What is known of each canary that has a share.
    pub fn evidence(&self) -> impl Iterator<Item = (VersionId, Evidence)> {
        (0..).map(VersionId).zip(&self.seats).filter_map(|(id, seat)| {
            let seat = seat.as_ref().filter(|seat| !seat.is_over && !self.shares.is_empty())?;
            Some((id, seat.judge.evidence()))
        })
    }

    /// What is thought of a version; `None`: nothing, for it is the baseline.
    pub fn verdict(&self, version: VersionId) -> Option<Verdict> {
        self.seats.get(version.index())?.as_ref().map(|seat| seat.judge.verdict())
    }
}

/// Whether a version is what it was: the same place, reached and signed in the same way.
fn is_same((old_config, old): (&Config, &Version), (config, new): (&Config, &Version)) -> bool {
    fn credential<'c>(config: &'c Config, version: &Version) -> Option<&'c Credential> {
        version.credential.map(|id| &config.credentials[id.index()])
    }
    (&old.url, &old.ca, &old.host) == (&new.url, &new.ca, &new.host)
        && credential(old_config, old) == credential(config, new)
}

#[cfg(test)]
mod tests;
