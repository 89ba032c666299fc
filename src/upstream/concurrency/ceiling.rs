//! How many calls a function may have at a time just now. Pure: the clock is an argument.
//!
//! The least of three: the written `max`; what the platform may have grown to by now ([`Growing`]); and what it has
//! been found to take ([`Adapting`]). The latter two move only by what is asked here, so that a request with a free place need not
//! ask: it compares with the number that came out last.

use std::time::Duration;

use crate::{
    config::model::{Adaptive, Concurrency, Growth, Rate},
    decide::Now,
};

/// A peak counts as what the platform has warm for one such time, at most two.
pub(super) const WARM: Duration = Duration::from_secs(60);
/// Who looks again within this time has been pressed all the while.
const PRESSED: Duration = Duration::from_secs(1);

/// What there is to know of the calls under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) in_flight: u32,
    /// Requests that wait for a place.
    pub(super) waiting: u32,
    /// The most in flight since the last look.
    pub(super) high: u32,
}

/// The limit in force.
#[derive(Debug)]
pub(super) struct Ceiling {
    max: u32,
    growing: Option<Growing>,
    adapting: Option<Adapting>,
}

/// No limit.
pub(super) const ANY: u32 = u32::MAX;

impl Ceiling {
    /// What `written` means. Where `previous` grew or adapted, this goes on from there.
    pub(super) fn new(written: &Concurrency, previous: Option<&Self>, now: Now) -> Self {
        let max = written.max.map_or(ANY, std::num::NonZero::get);
        let growing = written.growth.map(|growth| {
            let previous = previous.and_then(|p| p.growing.as_ref());
            Growing::new(growth, previous, now)
        });
        let adapting = written.adaptive.map(|adaptive| {
            let previous = previous.and_then(|p| p.adapting.as_ref());
            Adapting::new(adaptive, max, previous, now)
        });
        Self { max, growing, adapting }
    }

    /// No limit at all.
    pub(super) fn none() -> Self {
        Self { max: ANY, growing: None, adapting: None }
    }

    /// The limit in force now.
    pub(super) fn look(&mut self, now: Now, load: Load) -> u32 {
        let grown = self.growing.as_mut().map_or(ANY, |growing| growing.look(now, load));
        let adapted = self.adapting.as_mut().map_or(ANY, |adapting| adapting.look(now));
        self.max.min(grown).min(adapted).max(1)
    }

    /// When the limit falls by itself: who comes later must look, though no limit stands in its way.
    pub(super) fn due(&self) -> Now {
        self.growing.as_ref().map_or(Now(u64::MAX), Growing::due)
    }

    /// The platform said that a call, begun at `began`, was too much. Whether that makes the limit smaller.
    pub(super) fn throttled(&mut self, now: Now, began: Now, in_flight: u32) -> bool {
        self.adapting.as_mut().is_some_and(|adapting| adapting.throttled(now, began, in_flight))
    }

    pub(super) fn is_adaptive(&self) -> bool {
        self.adapting.is_some()
    }

    /// What adapting has come to.
    pub(super) fn adapted(&self) -> Option<u32> {
        self.adapting.as_ref().map(|adapting| adapting.limit)
    }
}

/// The time that one call more or less takes at this rate.
fn tick(rate: Rate) -> u64 {
    let period = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX);
    (period / u64::from(rate.count.get())).max(1)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A slope: the platform starts instances for `burst` calls at once, and then only so many more in a time.
///
/// The level rises while all places are taken, and only then: what nobody asked for the platform has not started. What was reached is
/// kept while instances stay warm, then the level falls to what was really in flight.
#[derive(Debug)]
struct Growing {
    tick: u64,
    burst: u32,
    level: u32,
    /// Up to when growth is counted.
    at: Now,
    looked: Now,
    is_pressed: bool,
    /// The most in flight in this window of [`WARM`], and in the one before.
    peaks: [u32; 2],
    window_ends: Now,
}

impl Growing {
    fn new(Growth { rate, burst }: Growth, previous: Option<&Self>, now: Now) -> Self {
        let (tick, burst) = (tick(rate), burst.get());
        match previous {
            // What is warm is warm, whatever the file says.
            Some(previous) => Self { tick, burst, level: previous.level.max(burst), at: now, ..*previous },
            None => Self {
                tick,
                burst,
                level: burst,
                at: now,
                looked: now,
                is_pressed: false,
                peaks: [0; 2],
                window_ends: Now(now.0.saturating_add(nanos(WARM))),
            },
        }
    }

    fn look(&mut self, now: Now, load: Load) -> u32 {
        self.turn_window(now, load);
        let wanted = load.in_flight.saturating_add(load.waiting);
        if wanted < self.level {
            self.is_pressed = false;
            (self.at, self.looked) = (now, now);
            return self.level;
        }
        if !self.is_pressed || now.0.saturating_sub(self.looked.0) > nanos(PRESSED) {
            self.at = now;
        }
        (self.is_pressed, self.looked) = (true, now);
        let grown = now.0.saturating_sub(self.at.0) / self.tick;
        self.at = Now(self.at.0.saturating_add(grown.saturating_mul(self.tick)));
        let grown = u32::try_from(grown).unwrap_or(u32::MAX);
        // Never more than a second's worth, and the one that was begun, above what is really there: those who wait may wait for something else.
        let ahead = u32::try_from(nanos(PRESSED) / self.tick + 1).unwrap_or(u32::MAX);
        let reached = self.warm().max(load.in_flight).saturating_add(ahead);
        self.level = self.level.saturating_add(grown).min(reached.max(self.level));
        self.level
    }

    /// What the platform may have warm.
    fn warm(&self) -> u32 {
        self.burst.max(self.peaks[0]).max(self.peaks[1])
    }

    fn turn_window(&mut self, now: Now, load: Load) {
        self.peaks[0] = self.peaks[0].max(load.high).max(load.in_flight);
        if now < self.window_ends {
            return;
        }
        // Nobody looked for a whole window: its peak is not known, but it was none above the level.
        let was_long = now.0 >= self.window_ends.0.saturating_add(nanos(WARM));
        self.peaks = [load.in_flight, if was_long { load.in_flight } else { self.peaks[0] }];
        self.window_ends = Now(now.0.saturating_add(nanos(WARM)));
        self.level = self.level.min(self.warm());
    }

    fn due(&self) -> Now {
        if self.level > self.burst { self.window_ends } else { Now(u64::MAX) }
    }
}

/// Additive increase, multiplicative decrease; by the platform's word that it was too much, never by how long it takes:
/// a function's times say more of its cold starts than of its load.
#[derive(Debug)]
struct Adapting {
    min: u32,
    max: u32,
    percent: u32,
    tick: u64,
    limit: u32,
    /// Up to when the increase is counted.
    at: Now,
    /// Calls that began before this say nothing of the limit that has been in force since.
    cut: Option<Now>,
}

impl Adapting {
    fn new(adaptive: Adaptive, max: u32, previous: Option<&Self>, now: Now) -> Self {
        let Adaptive { min, decrease, increase } = adaptive;
        let limit = match previous {
            // One that never had to give way goes up with `max`.
            Some(previous) if previous.limit < previous.max => previous.limit.min(max),
            _ => max,
        };
        let (at, cut) = previous.map_or((now, None), |previous| (previous.at, previous.cut));
        Self { min: min.get(), max, percent: decrease.into(), tick: tick(increase), limit, at, cut }
    }

    fn look(&mut self, now: Now) -> u32 {
        if self.limit >= self.max {
            return self.max;
        }
        let back = now.0.saturating_sub(self.at.0) / self.tick;
        self.at = Now(self.at.0.saturating_add(back.saturating_mul(self.tick)));
        self.limit = self.limit.saturating_add(u32::try_from(back).unwrap_or(u32::MAX)).min(self.max);
        self.limit
    }

    fn throttled(&mut self, now: Now, began: Now, in_flight: u32) -> bool {
        if self.cut.is_some_and(|cut| began <= cut) {
            return false;
        }
        let reached = self.look(now).min(in_flight);
        let less = (u64::from(reached) * u64::from(self.percent) / 100).max(1);
        let limit = reached.saturating_sub(u32::try_from(less).unwrap_or(u32::MAX)).max(self.min);
        let is_less = limit < self.limit;
        (self.limit, self.at, self.cut) = (limit.min(self.limit), now, Some(now));
        is_less
    }
}

#[cfg(test)]
#[path = "ceiling_tests.rs"]
mod tests;
