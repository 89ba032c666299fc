//! Percentages, hours, days and time zones.

use jiff::{
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::config::{
    model::{DAYS, Share},
    read::{Complaint, Read, Reader, Value, Word, words},
    report::{Problem, nearest},
};

/// Above 0, up to 100, with at most two decimals.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Percent(pub(in crate::config) Share);

impl Read for Percent {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const EXPECTED: &str = "a percentage above 0 and up to 100 with at most two decimals";
        let (read, written) = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => (Share::percent(number.as_str()), number.to_string()),
            DeValue::Float(number) => (Share::percent(number.as_str()), number.to_string()),
            _ => {
                reader.expected(EXPECTED, value);
                return None;
            }
        };
        let read = read.filter(|share| share.0 > 0);
        if read.is_none() {
            let span = reader.span(value);
            let problem = Problem::at(format!("`{written}` is not a share"), span);
            reader.report.push(problem.label(format!("expected {EXPECTED}")));
        }
        read.map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 100, "multipleOf": 0.01 })
    }
}

/// `"09:00-18:00"`; `"24:00"` is the end of the day.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct HoursWord(pub(in crate::config) Time, pub(in crate::config) Time);

impl Word for HoursWord {
    const EXPECTED: &'static str = "hours such as `09:00-18:00`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let complaint = || Complaint::new(format!("`{}` are not hours", text.escape_debug()));
        let (from, to) = text.split_once('-').ok_or_else(complaint)?;
        let from = clock(from).ok_or_else(complaint)?;
        let to = if to == "24:00" { Time::midnight() } else { clock(to).ok_or_else(complaint)? };
        if from == to && to != Time::midnight() {
            return Err(complaint().help("they begin and end at once: leave `hours` out for the whole day"));
        }
        Ok(Self(from, to))
    }

    fn form() -> Json {
        json!({ "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$" })
    }
}

/// `09:00`
fn clock(text: &str) -> Option<Time> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |part: &str| (part.len() == 2).then(|| part.parse::<u8>().ok()).flatten();
    Time::new(i8::try_from(two(hours)?).ok()?, i8::try_from(two(minutes)?).ok()?, 0, 0).ok()
}

/// `"mon"`, or `"mon-fri"`: from Monday on.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct DaysWord(pub(in crate::config) [bool; 7]);

impl Word for DaysWord {
    const EXPECTED: &'static str = "a day such as `mon`, or several such as `mon-fri`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let complaint = || Complaint::new(format!("`{}` is no day of the week", text.escape_debug()));
        let day = |text: &str| DAYS.iter().position(|day| *day == text);
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to) = day(from).zip(day(to)).ok_or_else(|| {
            let near = nearest(text.get(..3).unwrap_or(text).to_ascii_lowercase().as_str(), DAYS);
            near.map_or_else(complaint, |near| complaint().help(format!("did you mean `{near}`?")))
        })?;
        let mut days = [false; 7];
        let mut at = from;
        while at != to {
            days[at] = true;
            at = (at + 1) % 7;
        }
        days[to] = true;
        Ok(Self(days))
    }

    fn form() -> Json {
        let day = DAYS.join("|");
        json!({ "pattern": format!("^({day})(-({day}))?$") })
    }
}

/// A name of the IANA database.
#[derive(Debug, Clone)]
pub(in crate::config) struct Zone(pub(in crate::config) TimeZone);

impl Word for Zone {
    const EXPECTED: &'static str = "a time zone such as `Asia/Shanghai`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        // From the system's database, or where it has none from the one in the binary: `check` elsewhere says the same.
        if let Ok(zone) = TimeZone::get(text) {
            return Ok(Self(zone));
        }
        let complaint = Complaint::new(format!("no time zone is called `{}`", text.escape_debug()));
        let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        Err(match nearest(text, known.iter().map(String::as_str)) {
            Some(near) => complaint.help(format!("did you mean `{near}`?")),
            None => complaint.help("names are those of the IANA database"),
        })
    }

    fn form() -> Json {
        json!({ "minLength": 1, "examples": ["Asia/Shanghai", "UTC"] })
    }
}

/// A day, or a moment of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) enum Moment {
    Day(Date),
    Time(DateTime),
}

impl Moment {
    /// The day's first moment.
    pub(in crate::config) fn first(self) -> DateTime {
        match self {
            Self::Day(day) => day.into(),
            Self::Time(at) => at,
        }
    }

    /// The first moment after the day.
    pub(in crate::config) fn end(self) -> DateTime {
        match self {
            Self::Day(day) => day.tomorrow().unwrap_or(day).into(),
            Self::Time(at) => at,
        }
    }
}

impl Word for Moment {
    const EXPECTED: &'static str = "a day such as `2026-12-24`, or a moment such as `2026-12-24 18:00`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let complaint = || Complaint::new(format!("`{}` is not a day", text.escape_debug()));
        let (day, time) = match text.split_once(' ') {
            Some((day, time)) => (day, Some(time)),
            None => (text, None),
        };
        // jiff would take other forms as well.
        let plain = day.len() == 10 && day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let day: Date = Some(day).filter(|_| plain).and_then(|day| day.parse().ok()).ok_or_else(complaint)?;
        match time {
            None => Ok(Self::Day(day)),
            Some(time) => Ok(Self::Time(day.to_datetime(clock(time).ok_or_else(complaint)?))),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}( ([01][0-9]|2[0-3]):[0-5][0-9])?$" })
    }
}

words!(HoursWord, DaysWord, Zone, Moment);
