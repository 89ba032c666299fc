//! The numbers of a guard.

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::config::{
    read::{Read, Reader, Value},
    report::Problem,
};

/// A number between two bounds, or the report says so.
fn number(value: &Value<'_>, reader: &mut Reader<'_>, expected: &str, (low, high): (f64, f64)) -> Option<f64> {
    let (number, written) = match value.get_ref() {
        DeValue::Integer(number) => (number.as_str().parse().ok(), number.to_string()),
        DeValue::Float(number) => (number.as_str().parse().ok(), number.to_string()),
        _ => {
            reader.expected(expected, value);
            return None;
        }
    };
    let read = number.filter(|number: &f64| (low..=high).contains(number));
    if read.is_none() {
        let message = format!("`{}` is out of range: {written}", reader.name());
        let span = reader.span(value);
        reader.report.push(Problem::at(message, span).label(format!("expected {expected}")));
    }
    read
}

macro_rules! numbers {
    ($($(#[$about:meta])* $name:ident, $expected:literal, $low:literal, $high:literal, per $per:literal;)*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy)]
        pub(in crate::config) struct $name(pub(in crate::config) f64);

        impl Read for $name {
            fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                number(value, reader, $expected, ($low, $high)).map(|number| Self(number / $per))
            }

            fn schema() -> Json {
                json!({ "type": "number", "minimum": $low, "maximum": $high })
            }
        }
    )*};
}

numbers! {
    /// How many times as many.
    Times, "a number from 1 to 100: how many times the baseline's", 1.0, 100.0, per 1.0;
    /// Percent, as a part of 1. Lower ones would wait for ever, higher ones are no bound.
    FalseAlarm, "percent from 0.0001 to 5", 0.0001, 5.0, per 100.0;
    /// Percent, as a part of 1.
    ErrorShare, "percent from 0.1 to 100", 0.1, 100.0, per 100.0;
}
