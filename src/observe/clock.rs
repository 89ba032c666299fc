//! The wall clock, and its RFC 3339 text.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, tz::Offset};

use crate::decide::Now;

/// The time, for decisions and measurements: since boot, never backwards.
pub fn now() -> Now {
    // Not `Instant`: this is asked for several times a request, and its arithmetic costs more than the clock.
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Now(part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec))
}

/// Milliseconds since 1970-01-01T00:00:00Z; 0 on a clock set before that.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Writes moments as `2026-11-22T16:20:01.123Z`, and works the calendar out once a second only.
#[derive(Debug)]
pub struct Stamp {
    second: u64,
    /// `2026-11-22T16:20:01.000Z`
    text: [u8; Self::LEN],
}

impl Stamp {
    pub const LEN: usize = 24;

    pub fn new() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00.000Z" }
    }

    /// The text of `unix_ms`, milliseconds since 1970 in UTC. Years past 9999 are written as the last moment of that year.
    pub fn format(&mut self, unix_ms: u64) -> &[u8; Self::LEN] {
        let (second, ms) = (unix_ms / 1000, unix_ms % 1000);
        if second != self.second {
            self.turn(second);
        }
        let digit = |n: u64| b'0' + u8::try_from(n % 10).unwrap_or(0);
        self.text[20] = digit(ms / 100);
        self.text[21] = digit(ms / 10);
        self.text[22] = digit(ms);
        &self.text
    }

    #[cold]
    fn turn(&mut self, second: u64) {
        let moment =
            i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok()).unwrap_or(Timestamp::MAX);
        let civil = Offset::UTC.to_datetime(moment);
        let mut put = |at: usize, width: usize, mut value: u64| {
            for place in (at..at + width).rev() {
                self.text[place] = b'0' + u8::try_from(value % 10).unwrap_or(0);
                value /= 10;
            }
        };
        put(0, 4, civil.year().unsigned_abs().into());
        put(5, 2, civil.month().unsigned_abs().into());
        put(8, 2, civil.day().unsigned_abs().into());
        put(11, 2, civil.hour().unsigned_abs().into());
        put(14, 2, civil.minute().unsigned_abs().into());
        put(17, 2, civil.second().unsigned_abs().into());
        self.second = second;
    }
}

impl Default for Stamp {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(stamp: &mut Stamp, unix_ms: u64) -> String {
        String::from_utf8(stamp.format(unix_ms).to_vec()).unwrap()
    }

    #[test]
    fn writes_known_moments() {
        let mut stamp = Stamp::new();
        assert_eq!(text(&mut stamp, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(&mut stamp, 7), "1970-01-01T00:00:00.007Z");
        assert_eq!(text(&mut stamp, 1_709_210_096_789), "2024-02-29T12:34:56.789Z");
        assert_eq!(text(&mut stamp, 1_709_210_096_001), "2024-02-29T12:34:56.001Z");
        assert_eq!(text(&mut stamp, 1_709_210_095_999), "2024-02-29T12:34:55.999Z");
    }

    #[test]
    fn a_moment_past_every_calendar_still_is_one() {
        assert!(text(&mut Stamp::new(), u64::MAX).starts_with("9999-12-3"));
    }

    #[test]
    fn the_clock_runs_in_this_century() {
        assert!(unix_ms() > 1_700_000_000_000);
    }
}
