//! Times as the schemes write them. Signing happens per request: no calendar library's detours.

use super::Unsignable;

const DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z.
const LAST: u64 = 253_402_300_799;

/// A moment in UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    year: u64,
    month: u64,
    day: u64,
    /// Of the day.
    second: u64,
}

impl Moment {
    /// `now` is in seconds since 1970.
    pub(super) fn at(now: u64) -> Result<Self, Unsignable> {
        if now > LAST {
            return Err(Unsignable::Clock);
        }
        // Days since 0000-03-01: a leap day is then the last of its year, and months follow a fixed rhythm of 153 days in five.
        let days = now / DAY + 719_468;
        let of_era = days % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Ok(Self {
            year: days / 146_097 * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * march_month + 2) / 5 + 1,
            second: now % DAY,
        })
    }

    /// `20150830`
    pub(super) fn date(self) -> String {
        format!("{:04}{:02}{:02}", self.year, self.month, self.day)
    }

    /// `2015-08-30`
    pub(super) fn date_with_hyphens(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// `20150830T123600Z`
    pub(super) fn basic(self) -> String {
        let (hour, minute, second) = self.clock();
        format!("{}T{hour:02}{minute:02}{second:02}Z", self.date())
    }

    /// `2015-08-30T12:36:00Z`
    pub(super) fn extended(self) -> String {
        let (hour, minute, second) = self.clock();
        format!("{}T{hour:02}:{minute:02}:{second:02}Z", self.date_with_hyphens())
    }

    fn clock(self) -> (u64, u64, u64) {
        (self.second / 3_600, self.second / 60 % 60, self.second % 60)
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_time() {
        assert_eq!(Moment::at(0).map(Moment::extended), Ok("1970-01-01T00:00:00Z".to_owned()));
        assert_eq!(Moment::at(LAST).map(Moment::basic), Ok("99991231T235959Z".to_owned()));
        assert_eq!(Moment::at(LAST + 1).map(Moment::date), Err(Unsignable::Clock));
    }

    proptest! {
        #[test]
        fn agrees_with_a_calendar_library(now in 0..LAST - DAY) {
            let theirs = Timestamp::from_second(now as i64).unwrap().to_zoned(TimeZone::UTC);
            let ours = Moment::at(now).unwrap();
            prop_assert_eq!(ours.basic(), theirs.strftime("%Y%m%dT%H%M%SZ").to_string());
            prop_assert_eq!(ours.extended(), theirs.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
    }
}
