//! Sizes.

use serde_json::{Value as Json, json};

use crate::config::{
    model::BodyBound,
    read::{Complaint, Word, words},
};

/// Bytes above zero.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Size(pub(in crate::config) u64);

/// More than any body or buffer has: what is longer is a slip of the pen.
const LARGEST: u64 = 1 << 50;

fn size(text: &str) -> Result<u64, Complaint> {
    let complaint = || Complaint::new(format!("`{}` is not a size", text.escape_debug()));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(complaint());
    }
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => return Err(complaint().help(format!("write the unit: `{number}MiB`"))),
        "K" | "KB" | "kB" | "k" => return Err(complaint().help(format!("write `{number}KiB`"))),
        "M" | "MB" | "m" | "mb" => return Err(complaint().help(format!("write `{number}MiB`"))),
        "G" | "GB" | "g" | "gb" => return Err(complaint().help(format!("write `{number}GiB`"))),
        _ => return Err(complaint()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes <= LARGEST).ok_or_else(|| Complaint::new(format!("`{text}` is too much")))
}

impl Word for Size {
    const EXPECTED: &'static str = "a size such as `512B`, `64KiB` or `6MiB`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        size(text).map(Self)
    }

    fn form() -> Json {
        json!({ "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" })
    }
}

impl Word for BodyBound {
    const EXPECTED: &'static str = "a size such as `64KiB` or `6MiB`, or `none`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "none" => Ok(Self(None)),
            "unlimited" | "off" => Err(Complaint::new(format!("`{text}` is not a size")).help("write `none`")),
            text => size(text).map(|bytes| Self(Some(bytes))),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^([0-9]+(B|KiB|MiB|GiB)|none)$" })
    }
}

words!(Size, BodyBound);
