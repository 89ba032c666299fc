//! Durations and rates.

use std::{num::NonZeroU32, time::Duration};

use serde_json::{Value as Json, json};

use crate::config::{
    model::Rate,
    read::{Complaint, Word, words},
};

/// The longest time that anything here may take: longer ones are slips of the pen.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A duration above zero.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Patience(pub(in crate::config) Duration);

/// A duration, zero included.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct PatienceOrNone(pub(in crate::config) Duration);

const DURATION: &str = "a duration such as `250ms`, `10s`, `5m` or `2h`";
const DURATION_FORM: &str = "^[0-9]+(ms|s|m|h)$";

fn duration(text: &str) -> Result<Duration, Complaint> {
    let complaint = || Complaint::new(format!("`{}` is not a duration", text.escape_debug()));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(complaint());
    }
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(complaint().help(format!("write the unit: `{number}s`"))),
        "min" => return Err(complaint().help(format!("minutes are written `{number}m`"))),
        _ => return Err(complaint()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| Complaint::new(format!("`{text}` is too long: at most 24h")))
}

impl Word for Patience {
    const EXPECTED: &'static str = DURATION;

    fn parse(text: &str) -> Result<Self, Complaint> {
        match duration(text)? {
            Duration::ZERO => Err(Complaint::new(format!("`{text}` leaves no time at all"))),
            duration => Ok(Self(duration)),
        }
    }

    fn form() -> Json {
        json!({ "pattern": DURATION_FORM })
    }
}

impl Word for PatienceOrNone {
    const EXPECTED: &'static str = DURATION;

    fn parse(text: &str) -> Result<Self, Complaint> {
        duration(text).map(Self)
    }

    fn form() -> Json {
        json!({ "pattern": DURATION_FORM })
    }
}

impl Word for Rate {
    const EXPECTED: &'static str = "a rate such as `100/s`, `600/min`, `10/h` or `1/d`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let complaint = || Complaint::new(format!("`{}` is not a rate", text.escape_debug()));
        let (count, unit) = text.split_once('/').ok_or_else(complaint)?;
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "m" => return Err(complaint().help(format!("per minute is `{count}/min`"))),
            _ => return Err(complaint()),
        };
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(complaint());
        }
        let count: u32 =
            count.parse().map_err(|_| Complaint::new(format!("`{text}` is too much: at most {}", u32::MAX)))?;
        let count = NonZeroU32::new(count).ok_or_else(|| {
            Complaint::new(format!("`{text}` lets nothing through"))
                .help("the least is `1/d`; a route is closed by `deny = [\"0.0.0.0/0\", \"::/0\"]`, an egress rule by taking it out")
        })?;
        Ok(Self { count, period: Duration::from_secs(seconds) })
    }

    fn form() -> Json {
        json!({ "pattern": "^[0-9]+/(s|min|h|d)$" })
    }
}

words!(Patience, PatienceOrNone, Rate);
