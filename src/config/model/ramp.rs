//! `ramp = { … }` of a function, and `[freeze]`: when weights may rise by themselves.

use std::{fmt, sync::Arc, time::Duration};

use jiff::{
    Timestamp,
    civil::{DateTime, Time, Weekday},
    tz::TimeZone,
};

use super::{Hook, Share, VersionId};

/// `ramp = { version = "v42", steps = [1, 5, 25, 50, 100], hold = "10m", hours = "09:00-18:00", days = ["mon"], timezone = "Asia/Shanghai" }`
#[derive(Debug, Clone, PartialEq)]
pub struct Ramp {
    /// Whose weight rises. Never the baseline.
    pub version: VersionId,
    /// Rising, each above zero; never empty.
    pub steps: Arc<[Share]>,
    /// How long each step is held.
    pub hold: Duration,
    /// When it may move.
    pub when: Hours,
    /// Who is asked before each step.
    pub before_step: Option<Box<Hook>>,
}

impl Ramp {
    /// What `steps` is where nothing is written.
    pub const STEPS: [Share; 5] = [Share(100), Share(500), Share(2_500), Share(5_000), Share(10_000)];
    pub const HOLD: Duration = Duration::from_secs(600);
}

/// Hours of days of the week.
#[derive(Debug, Clone, PartialEq)]
pub struct Hours {
    /// From the first (included) to the second (not); one that ends before it begins goes over midnight, and belongs to the day
    /// on which it begins. `None`: the whole day.
    pub hours: Option<(Time, Time)>,
    /// From Monday on.
    pub days: [bool; 7],
    pub timezone: TimeZone,
}

impl Hours {
    pub const ANY: Self = Self { hours: None, days: [true; 7], timezone: TimeZone::UTC };

    pub fn contain(&self, at: Timestamp) -> bool {
        let there = self.timezone.to_datetime(at);
        let on = |day: Weekday| self.days[usize::from(day.to_monday_zero_offset().unsigned_abs())];
        let (today, now) = (there.date().weekday(), there.time());
        match self.hours {
            None => on(today),
            Some((from, to)) if from < to => on(today) && from <= now && now < to,
            // `00:00-00:00`, or over midnight.
            Some((from, to)) => (on(today) && from <= now) || (on(today.previous()) && now < to),
        }
    }
}

/// The days' names, as they are written.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hours.is_none() && self.days == [true; 7] {
            return f.write_str("any time");
        }
        if let Some((from, to)) = self.hours {
            write!(f, "{}-{} ", from.strftime("%H:%M"), to.strftime("%H:%M"))?;
        }
        if self.days != [true; 7] {
            let days: Vec<_> = DAYS.iter().zip(self.days).filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            write!(f, "{} ", days.join(", "))?;
        }
        write!(f, "{}", self.timezone.iana_name().unwrap_or("UTC"))
    }
}

/// `[freeze]`: no ramp moves in these windows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Freeze {
    pub windows: Vec<FreezeWindow>,
}

impl Freeze {
    /// The window in which `at` is.
    pub fn window(&self, at: Timestamp) -> Option<&FreezeWindow> {
        self.windows.iter().find(|window| window.contains(at))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct FreezeWindow {
    /// The first moment.
    pub from: DateTime,
    /// The first moment after it.
    pub to: DateTime,
    /// Of `[freeze]`.
    pub timezone: TimeZone,
    /// For people.
    pub reason: Option<String>,
}

impl FreezeWindow {
    pub fn contains(&self, at: Timestamp) -> bool {
        let there = self.timezone.to_datetime(at);
        self.from <= there && there < self.to
    }
}

impl fmt::Display for FreezeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.timezone.iana_name().unwrap_or("UTC");
        write!(f, "{} to {} {zone}", self.from.strftime("%Y-%m-%d %H:%M"), self.to.strftime("%Y-%m-%d %H:%M"))?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}
