//! The keeper of a ledger: days, rates, and what is to be said. The clock is an argument.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::{ALL, Counts, Ledger, used};
use crate::config::model::{Budget, BudgetAction};

/// Under `shed`, from this share on.
pub const SHEDS_FROM: f64 = 0.8;

/// How far back a forecast looks.
const MEMORY: Duration = Duration::from_secs(300);
/// How far back shedding looks: it must follow a peak.
const SHORT: Duration = Duration::from_secs(10);
/// A forecast is told of by itself once so much was seen, and so much is used: not one of a morning's first calls.
const SEEN: Duration = Duration::from_secs(60);
const WORTH_TELLING: f64 = 0.2;

/// A day of a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    pub date: Date,
    /// When the next one begins.
    pub ends: Timestamp,
}

impl Day {
    pub fn of(now: Timestamp, zone: &TimeZone) -> Self {
        let here = now.to_zoned(zone.clone());
        let date = here.date();
        // Where that has no midnight (a change of the clocks), the next moment that it has. At the end of time, never.
        let ends = date.tomorrow().and_then(|next| next.to_zoned(zone.clone()));
        Self { date, ends: ends.map_or(Timestamp::MAX, |next| next.timestamp()) }
    }
}

/// What outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub date: Date,
    pub counts: Counts,
    /// The highest warning of that day.
    pub told: u8,
}

/// What somebody is to be told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Said {
    /// So many percent are used.
    Warning { percent: u8, gone: Option<Timestamp> },
    /// It will not last until the day's end.
    WillBeGone { at: Timestamp },
    /// A new day: so much was used on the last.
    Turned { date: Date, counts: Counts },
}

/// One function's.
#[derive(Debug)]
pub struct Book {
    ledger: Arc<Ledger>,
    day: Day,
    told: u8,
    told_of_end: bool,
    /// The share that a second uses.
    burns: Rate,
    /// Calls a second that want to be let in.
    offered: Rate,
    at: Option<Duration>,
    before: Before,
}

#[derive(Debug, Clone, Copy, Default)]
struct Before {
    used: f64,
    offered: u64,
}

impl Book {
    /// Opens it for today, going on with what was kept of the same day.
    pub fn open(ledger: Arc<Ledger>, zone: &TimeZone, kept: Option<Kept>, now: Timestamp) -> Self {
        let day = Day::of(now, zone);
        let kept = kept.filter(|kept| kept.date == day.date);
        if let Some(kept) = kept {
            ledger.restore(kept.counts);
        }
        ledger.foresee(ALL, day.ends.as_second(), None);
        Self {
            ledger,
            day,
            told: kept.map_or(0, |kept| kept.told),
            told_of_end: false,
            burns: Rate::over(MEMORY),
            offered: Rate::over(SHORT),
            at: None,
            before: Before::default(),
        }
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub fn kept(&self) -> Kept {
        Kept { date: self.day.date, counts: self.ledger.counts(), told: self.told }
    }

    /// Looks at the clocks: `now` may jump, `at` (since some start) may not.
    pub fn tick(&mut self, budget: &Budget, now: Timestamp, at: Duration) -> Vec<Said> {
        let mut said = Vec::new();
        let today = Day::of(now, &budget.zone.zone);
        if today.date > self.day.date {
            said.push(Said::Turned { date: self.day.date, counts: self.ledger.counts() });
            self.ledger.turn();
            (self.told, self.told_of_end) = (0, false);
            self.before.used = 0.0;
        }
        // A clock that was put back does not begin the day anew: what is counted stays counted.
        self.day = today;

        let counts = self.ledger.counts();
        let used = used(budget, counts);
        let (admitted, refused) = self.ledger.told();
        let offered = admitted + refused;
        if let Some(since) = self.at.and_then(|then| at.checked_sub(then)).filter(|since| !since.is_zero()) {
            // Calls that are given back make it less for a moment.
            self.burns.add((used - self.before.used).max(0.0), since);
            self.offered.add(offered.saturating_sub(self.before.offered) as f64, since);
        }
        self.at = Some(at);
        self.before = Before { used, offered };

        let left = self.day.ends.duration_since(now).as_secs_f64().max(1.0);
        let gone = forecast(used, self.burns.per_second(), left)
            .and_then(|secs| now.checked_add(jiff::SignedDuration::try_from_secs_f64(secs).ok()?).ok());
        let passes = match budget.action {
            BudgetAction::Shed => {
                let each = if counts.calls == 0 { 0.0 } else { used / counts.calls as f64 };
                passes(used, each * self.offered.per_second(), left)
            }
            _ => ALL,
        };
        self.ledger.foresee(passes, self.day.ends.as_second(), gone.map(Timestamp::as_second));
        let reached = budget.warn.iter().copied().filter(|percent| used * 100.0 >= f64::from(*percent)).max();
        if let Some(percent) = reached.filter(|percent| *percent > self.told) {
            said.push(Said::Warning { percent, gone });
            self.told = percent;
        } else if let Some(at) = gone
            && !self.told_of_end
            && (WORTH_TELLING..1.0).contains(&used)
            && self.burns.seen() >= SEEN
        {
            said.push(Said::WillBeGone { at });
            self.told_of_end = true;
        }
        said
    }
}

/// In how many seconds it is gone; `None`: not within `left`.
pub(super) fn forecast(used: f64, per_second: f64, left: f64) -> Option<f64> {
    if used >= 1.0 {
        return Some(0.0);
    }
    Some((1.0 - used) / per_second).filter(|secs| *secs < left)
}

/// How many of [`ALL`] may pass, so that the rest lasts as long as the day, where all together would use `wanted` a second.
pub(super) fn passes(used: f64, wanted: f64, left: f64) -> u32 {
    if used < SHEDS_FROM || wanted <= 0.0 {
        return ALL;
    }
    if used >= 1.0 {
        return 0;
    }
    let share = (1.0 - used) / left / wanted;
    // Never nobody while there is something left.
    ((share * f64::from(ALL)) as u32).clamp(1, ALL)
}

/// A mean over the last while, older things weighing less; from the first moment on, without a bias to zero.
#[derive(Debug, Clone, Copy)]
struct Rate {
    over: f64,
    sum: f64,
    time: f64,
    seen: Duration,
}

impl Rate {
    fn over(over: Duration) -> Self {
        Self { over: over.as_secs_f64(), sum: 0.0, time: 0.0, seen: Duration::ZERO }
    }

    fn add(&mut self, what: f64, since: Duration) {
        let secs = since.as_secs_f64();
        let keeps = (-secs / self.over).exp();
        self.sum = self.sum * keeps + what;
        self.time = self.time * keeps + secs;
        self.seen = self.seen.saturating_add(since);
    }

    fn per_second(&self) -> f64 {
        if self.time > 0.0 { self.sum / self.time } else { 0.0 }
    }

    fn seen(&self) -> Duration {
        self.seen
    }
}
