//! Ramps: a version's share rises step by step. Pure: time that has passed, the time of day and the guard's verdict are
//! arguments.
//!
//! The file is intent: where its own number for the version is above the ramp's share, it counts. A ramp starts from that number,
//! and goes at once to its first step not below it. A step, or a number that somebody raises meanwhile, is held for `hold` of time in which it was in force: neither a stopped gatepost
//! nor a clock that jumps counts. Then, within its hours and outside of freezes, it moves on, unless the guard (where there is
//! one) says anything but that the version is healthy. Held at the last step, it is over: the share stays in force until the file
//! says as much itself, or the ramp is taken out of it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::Number;
use crate::config::model::{Ramp, Share};

/// What a guard says of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    Worse,
    /// It can't be told yet. Silence is no health.
    NotEnough,
}

/// How far a ramp has got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Whose ramp it is.
    pub version: String,
    /// Its share now, in hundredths of a percent.
    pub share: u16,
    /// How long that has been in force.
    pub held_ms: u64,
    /// What the file says of the version.
    pub(super) number: Number,
    /// It has not moved yet: to its first step it goes at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) fresh: bool,
    /// `None`: it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// The last step was held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

/// A ramp that goes on only when somebody says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// For people.
    pub why: String,
    /// It has lost its share: the file's weights are in force.
    pub set_back: bool,
}

/// What a ramp did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// To a step, counted from 1.
    To { from: Share, to: Share, step: usize },
    /// The last step was held.
    Over,
    /// It would take this step, and nobody has let it yet.
    Asks { from: Share, to: Share, step: usize },
}

/// What the ramp meets at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Meets {
    /// How long it is since the last moment, by a clock that never jumps.
    pub elapsed: Duration,
    /// The time of day.
    pub at: Timestamp,
    /// In a window of `[freeze]`.
    pub frozen: bool,
    /// Neither ejected nor latched.
    pub fit: bool,
    /// `None`: there is no guard, and time alone decides.
    pub verdict: Option<Verdict>,
    pub leave: Leave,
}

/// Whether somebody is asked before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Nobody.
    Free,
    /// Somebody, who has let it go to that share.
    For(Option<Share>),
}

impl Progress {
    /// A ramp of this version that begins.
    pub(super) fn begin(version: &str, number: Number) -> Self {
        Self {
            version: version.to_owned(),
            share: number.share,
            held_ms: 0,
            number,
            fresh: true,
            paused: None,
            done: false,
        }
    }

    /// The share that it puts in force; `None`: what the file says.
    pub fn in_force(&self) -> Option<Share> {
        let set_back = self.paused.as_ref().is_some_and(|pause| pause.set_back);
        (!set_back && self.share > self.number.share).then_some(Share(self.share))
    }

    /// Whether time changes anything.
    pub fn runs(&self) -> bool {
        self.paused.is_none() && !self.done
    }

    /// Time has passed.
    pub(super) fn pass(&mut self, ramp: &Ramp, meets: Meets) -> Option<Moved> {
        if !self.runs() {
            return None;
        }
        if !meets.fit {
            self.held_ms = 0;
            return None;
        }
        // With a share of nothing it serves nobody: there is nothing to hold, and nothing to judge by.
        let serves = self.share > 0;
        if serves {
            self.held_ms = self.held_ms.saturating_add(meets.elapsed.as_millis().try_into().unwrap_or(u64::MAX));
        }
        let at_once = self.fresh && !ramp.steps.contains(&Share(self.share));
        let held = Duration::from_millis(self.held_ms) >= ramp.hold;
        if !at_once && !held {
            return None;
        }
        let Some((step, to)) = self.next(ramp) else {
            self.done = true;
            return Some(Moved::Over);
        };
        let judged = meets.verdict.is_none_or(|verdict| verdict == Verdict::Healthy);
        if serves && !judged {
            return None;
        }
        if meets.frozen || !ramp.when.contain(meets.at) {
            return None;
        }
        let from = Share(self.share);
        if meets.leave != Leave::Free && meets.leave != Leave::For(Some(to)) {
            return Some(Moved::Asks { from, to, step });
        }
        (self.share, self.held_ms, self.fresh) = (to.0, 0, false);
        Some(Moved::To { from, to, step })
    }

    /// The step after this, with its number.
    pub fn next(&self, ramp: &Ramp) -> Option<(usize, Share)> {
        (1..).zip(ramp.steps.iter().copied()).find(|(_, step)| step.0 > self.share)
    }

    /// The file's own number for the version is another: says what that means to the ramp, where it means something.
    pub(super) fn renumber(&mut self, number: Number) -> Option<String> {
        let old = std::mem::replace(&mut self.number, number);
        if old.fell(number) {
            let already = self.paused.as_ref().is_some_and(|pause| pause.set_back);
            let why = format!("its weight was lowered to {} % in the file", number.as_share());
            self.paused = Some(Pause { why: why.clone(), set_back: true });
            return (!already).then(|| format!("ramp of {} paused and set back: {why}", self.version));
        }
        if number.share > self.share {
            (self.share, self.held_ms, self.fresh) = (number.share, 0, false);
            return None;
        }
        // Whoever raised it should not wonder.
        let share = self.in_force().filter(|_| old.rose(number))?;
        Some(format!(
            "ramp of {} stays at {share} %, above its weight of {} % in the file",
            self.version,
            number.as_share()
        ))
    }

    pub(super) fn pause(&mut self, why: &str, set_back: bool) {
        let set_back = set_back || self.paused.as_ref().is_some_and(|pause| pause.set_back);
        self.paused = Some(Pause { why: why.to_owned(), set_back });
    }

    /// Goes on where it stood, or, set back, from the file's number. Says whether it had been paused.
    pub(super) fn resume(&mut self) -> bool {
        let Some(pause) = self.paused.take() else { return false };
        if pause.set_back {
            *self = Self::begin(&self.version, self.number);
        }
        self.held_ms = 0;
        true
    }
}
