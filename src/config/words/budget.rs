//! Money and time zones.

use jiff::{fmt::temporal::DateTimeParser, tz};
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::config::{
    model::{Amount, Zone},
    read::{Complaint, Read, Reader, Value, Word, words},
    report::{Problem, nearest},
};

/// An amount above zero.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Money(pub(in crate::config) Amount);

/// More in a day is a slip of the pen; and counting has room for nearly twice as much.
const MOST: f64 = 10_000_000.0;

impl Read for Money {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const EXPECTED: &str = "an amount above 0, such as `200` or `0.00011`";
        let (number, written) = match value.get_ref() {
            DeValue::Integer(number) => (number.as_str().parse::<f64>().ok(), number.to_string()),
            DeValue::Float(number) => (number.as_str().parse().ok(), number.to_string()),
            _ => {
                reader.expected(EXPECTED, value);
                return None;
            }
        };
        let parts = number.filter(|number| (0.0..=MOST).contains(number)).map(|n| (n * Amount::WHOLE as f64).round());
        let read = parts.map(|parts| Amount(parts as u64)).filter(|amount| amount.0 > 0);
        if read.is_none() {
            let span = reader.span(value);
            let problem =
                Problem::at(format!("`{written}` is not an amount"), span).label(format!("expected {EXPECTED}"));
            reader.report.push(problem.help("at least 0.000000000001, at most 10000000"));
        }
        read.map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "number", "exclusiveMinimum": 0, "maximum": MOST })
    }
}

/// `"Asia/Shanghai"`, `"+08:00"`
#[derive(Debug, Clone)]
pub(in crate::config) struct ZoneWord(pub(in crate::config) Zone);

impl Word for ZoneWord {
    const EXPECTED: &'static str = "a time zone such as `Asia/Shanghai`, `UTC` or `+08:00`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let known = || tz::db().available().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
        match DateTimeParser::new().parse_time_zone(text) {
            Ok(zone) => Ok(Self(Zone { name: text.to_owned(), zone })),
            Err(_) => {
                let complaint = Complaint::new(format!("`{}` is not a time zone", text.escape_debug()));
                Err(match nearest(text, known().iter().map(String::as_str)) {
                    Some(near) => complaint.help(format!("did you mean `{near}`?")),
                    None => complaint,
                })
            }
        }
    }

    fn form() -> Json {
        json!({ "minLength": 1, "examples": ["UTC", "Asia/Shanghai", "+08:00"] })
    }
}

words!(ZoneWord);
