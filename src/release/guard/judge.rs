//! One canary against its baseline: what each second brought → a verdict.

use super::{
    calm::Calm,
    ratio::{Count, Excess, Pair, Upper, stays_under},
};

/// What a guard was told to tolerate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// How many times the baseline's errors the canary may have.
    pub tolerate: f64,
    /// How probable it may be that a canary within that is sent back all the same: over its whole life.
    pub false_alarm: f64,
    /// From which share of failing answers on, in either version, nothing is promoted.
    pub max_error_ratio: f64,
    /// How many requests the canary must have answered since its share last changed before it can be called healthy.
    pub min_requests: u64,
    /// How long ago that must be, in seconds.
    pub min_time: f64,
    /// How many times the baseline's slow answers the canary may have; `None`: time isn't judged.
    pub latency: Option<f64>,
    /// For how many seconds after its share has risen its time isn't judged.
    pub warmup: f64,
}

/// What one version did within a second, or over all its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers that say something of the version: neither throttled nor given up by the caller.
    pub requests: u64,
    /// Those among them that failed.
    pub failures: u64,
    /// Those of them that count: one per caller and window.
    pub errors: u64,
    /// Failures of the class `config`: the platform says that the version isn't there, or may not be called so.
    pub misfits: u64,
    /// Those of them that count.
    pub misfit_callers: u64,
    /// Answers whose time says something.
    pub timed: u64,
    /// Those that took longer than 99 in 100 of the baseline's, one per caller and window.
    pub slow: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.errors += other.errors;
        self.misfits += other.misfits;
        self.misfit_callers += other.misfit_callers;
        self.timed += other.timed;
        self.slow += other.slow;
    }

    /// What was added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            failures: self.failures.saturating_sub(before.failures),
            errors: self.errors.saturating_sub(before.errors),
            misfits: self.misfits.saturating_sub(before.misfits),
            misfit_callers: self.misfit_callers.saturating_sub(before.misfit_callers),
            timed: self.timed.saturating_sub(before.timed),
            slow: self.slow.saturating_sub(before.slow),
        }
    }

    fn failing(&self) -> f64 {
        self.failures as f64 / self.requests.max(1) as f64
    }
}

/// What the guard says of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is as good as the baseline, as far as was asked: it may be promoted.
    Healthy,
    /// Neither is known. What waits for a verdict goes on waiting.
    NotEnough,
    /// So many answers fail, here or in the baseline, that nothing should be promoted.
    Unfit,
    /// It is worse than tolerated.
    Worse(Cause),
}

impl Verdict {
    pub const ALL: [Self; 6] = [
        Self::NotEnough,
        Self::Healthy,
        Self::Unfit,
        Self::Worse(Cause::Errors),
        Self::Worse(Cause::Latency),
        Self::Worse(Cause::Config),
    ];

    /// The word for it: in the log, in metrics, in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::NotEnough => "not_enough_data",
            Self::Unfit => "too_many_errors",
            Self::Worse(Cause::Errors) => "worse",
            Self::Worse(Cause::Latency) => "slower",
            Self::Worse(Cause::Config) => "unusable",
        }
    }
}

/// In what a canary is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    Errors,
    Latency,
    /// The platform refuses every call of it, and those of the baseline not.
    Config,
}

/// The numbers behind a verdict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    pub verdict: Verdict,
    /// Over how many seconds.
    pub seconds: f64,
    pub canary: Tally,
    pub baseline: Tally,
    /// The odds against a canary that is within what is tolerated: so many to one, at the least.
    pub odds: f64,
    /// What the odds must reach.
    pub needed: f64,
    /// How many times the baseline's errors the canary has at the most, in 19 of 20 lives.
    pub at_most: Option<f64>,
}

/// Of "healthy", how often it may be said wrongly. The test for "worse" goes on after it, so that this is no last word.
const FALSE_HEALTH: f64 = 0.05;

/// A canary is healthy when its ratio stays under so many times what is tolerated: closer up, a good one could not be told from one at the bound.
const CLEARANCE: f64 = 2.0;

/// Or when fewer than this part of its answers fail: where hardly anything ever fails, there is no ratio.
const FEW: f64 = 0.01;

/// While the odds against a canary are above this, it isn't called healthy.
const DOUBT: f64 = 5.0;

/// How long requests of one version wait for some of the other, to be compared with.
const PATIENCE: f64 = 120.0;

/// What part of the bound on false alarms is for errors, where time is judged too.
const FOR_ERRORS: f64 = 0.75;

/// How many stretches of [`STRETCH`] seconds are "of late".
const STRETCHES: usize = 6;
const STRETCH: f64 = 10.0;

/// Fewer answers than this say nothing of a share.
const SOME: u64 = 20;

/// Counts that wait until both versions have some.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Batch {
    pair: Pair,
    seconds: f64,
}

impl Batch {
    /// Adds a second; what it makes whole, if both have been asked by now.
    fn add(&mut self, seconds: f64, canary: (u64, u64), baseline: (u64, u64)) -> Option<Pair> {
        let add = |count: &mut Count, (requests, errors): (u64, u64)| {
            count.requests += requests as f64;
            count.errors += errors as f64;
        };
        add(&mut self.pair.canary, canary);
        add(&mut self.pair.baseline, baseline);
        self.seconds += seconds;
        // By the numbers of requests and the clock alone, never by how they ended.
        let whole = self.pair.is_comparable().then_some(self.pair);
        if whole.is_some() || self.seconds > PATIENCE {
            *self = Self::default();
        }
        whole
    }
}

/// What the judge of one canary remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct Judge {
    terms: Terms,
    errors: Excess,
    slow: Option<Excess>,
    upper: Upper,
    /// How much a second's errors count.
    calm: Calm,
    /// The same of the batch that waits: chosen when it began.
    weight: f64,
    waiting: Batch,
    waiting_slow: Batch,
    /// For the upper bound, which nobody needs every second: ten batches at a time.
    coarse: (Pair, u32),
    seconds: f64,
    canary: Tally,
    baseline: Tally,
    /// Since its share changed.
    at_share: (f64, u64),
    warming: f64,
    /// Of late: a ring of canary and baseline.
    late: [(Tally, Tally); STRETCHES],
    stretch: f64,
    worse: Option<Cause>,
}

impl Judge {
    pub fn new(terms: Terms) -> Self {
        Self {
            errors: Excess::new(terms.tolerate),
            slow: terms.latency.map(Excess::new),
            upper: Upper::new(),
            calm: Calm::new(),
            weight: 1.0,
            waiting: Batch::default(),
            waiting_slow: Batch::default(),
            coarse: Default::default(),
            seconds: 0.0,
            canary: Tally::default(),
            baseline: Tally::default(),
            at_share: (0.0, 0),
            warming: terms.warmup,
            late: Default::default(),
            stretch: 0.0,
            worse: None,
            terms,
        }
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The canary's share has changed. What was counted under the old one must not be compared under the new.
    pub fn share_changed(&mut self, has_risen: bool) {
        self.others_changed();
        self.at_share = (0.0, 0);
        if has_risen {
            self.warming = self.terms.warmup;
        }
    }

    /// Another version's share has changed: what waits was counted beside another baseline.
    pub fn others_changed(&mut self) {
        self.waiting = Batch::default();
        self.waiting_slow = Batch::default();
        self.coarse = Default::default();
    }

    /// Takes in what both versions did within the last second, or however long it was.
    pub fn second(&mut self, seconds: f64, canary: &Tally, baseline: &Tally) -> Verdict {
        self.seconds += seconds;
        self.at_share.0 += seconds;
        self.at_share.1 += canary.requests;
        self.canary.add(canary);
        self.baseline.add(baseline);
        self.remember(seconds, canary, baseline);

        let (of_canary, of_baseline) = ((canary.requests, canary.errors), (baseline.requests, baseline.errors));
        if self.waiting == Batch::default() {
            // Before anything of the batch is seen: what it brings is not to choose how much it counts.
            self.weight = self.calm.weight();
        }
        let batch = self.waiting.add(seconds, of_canary, of_baseline);
        self.errors.take(seconds, &batch.unwrap_or_default(), self.weight);
        let (requests, errors) = (baseline.requests as f64, baseline.errors as f64);
        self.calm.take(seconds, Count { requests, errors });
        if let Some(pair) = batch {
            self.coarse.0.add(&pair);
            self.coarse.1 += 1;
        }
        if self.coarse.1 >= 10 {
            self.upper.take(&self.coarse.0);
            self.coarse = Default::default();
        }
        self.warming -= seconds;
        if let Some(slow) = self.slow.as_mut().filter(|_| self.warming < 0.0) {
            let batch = self.waiting_slow.add(seconds, (canary.timed, canary.slow), (baseline.timed, baseline.slow));
            slow.take(seconds, &batch.unwrap_or_default(), 1.0);
        }
        if self.worse.is_none() {
            self.worse = self.cause();
        }
        self.verdict()
    }

    fn remember(&mut self, seconds: f64, canary: &Tally, baseline: &Tally) {
        self.stretch += seconds;
        if self.stretch >= STRETCH {
            self.stretch = 0.0;
            self.late.rotate_right(1);
            self.late[0] = Default::default();
        }
        self.late[0].0.add(canary);
        self.late[0].1.add(baseline);
    }

    /// Both versions over the last minute.
    fn late(&self) -> (Tally, Tally) {
        self.late.iter().fold(Default::default(), |mut sum: (Tally, Tally), (canary, baseline)| {
            sum.0.add(canary);
            sum.1.add(baseline);
            sum
        })
    }

    /// The odds against the canary: a mean of two supermartingales is one.
    fn odds(&self) -> f64 {
        match &self.slow {
            None => self.errors.value(),
            Some(slow) => FOR_ERRORS * self.errors.value() + (1.0 - FOR_ERRORS) * slow.value(),
        }
    }

    fn cause(&self) -> Option<Cause> {
        if self.odds() >= 1.0 / self.terms.false_alarm {
            let by_time = self.slow.as_ref().is_some_and(|slow| slow.value() > self.errors.value());
            return Some(if by_time { Cause::Latency } else { Cause::Errors });
        }
        let (canary, baseline) = self.late();
        // A caller alone can have his requests refused by the platform as malformed; two, and nobody else answered, can't.
        let is_unusable = canary.misfit_callers >= 2 && canary.misfits == canary.requests;
        let is_its_own = baseline.misfits * 10 < baseline.requests;
        (is_unusable && is_its_own).then_some(Cause::Config)
    }

    pub fn verdict(&self) -> Verdict {
        if let Some(cause) = self.worse {
            return Verdict::Worse(cause);
        }
        let (canary, baseline) = self.late();
        let is_unfit = |late: &Tally| late.requests >= SOME && late.failing() >= self.terms.max_error_ratio;
        if is_unfit(&canary) || is_unfit(&baseline) {
            return Verdict::Unfit;
        }
        if self.is_healthy() { Verdict::Healthy } else { Verdict::NotEnough }
    }

    fn is_healthy(&self) -> bool {
        let (seconds, requests) = self.at_share;
        if seconds < self.terms.min_time || requests < self.terms.min_requests || self.odds() > DOUBT {
            return false;
        }
        // One error per caller hides how many there were: what the plain counts say must fit as well.
        let fits = self.canary.failing() <= self.bound() * self.baseline.failing();
        let few = stays_under(FEW, self.canary.requests as f64, self.canary.failures as f64) >= 2.0 / FALSE_HEALTH;
        let beside = || self.upper.bound(FALSE_HEALTH / 2.0).is_some_and(|ratio| ratio <= self.bound());
        few || (fits && beside())
    }

    fn bound(&self) -> f64 {
        CLEARANCE * self.terms.tolerate
    }

    pub fn evidence(&self) -> Evidence {
        Evidence {
            verdict: self.verdict(),
            seconds: self.seconds,
            canary: self.canary,
            baseline: self.baseline,
            odds: self.odds(),
            needed: 1.0 / self.terms.false_alarm,
            at_most: self.upper.bound(FALSE_HEALTH),
        }
    }
}

#[cfg(test)]
mod tests;
