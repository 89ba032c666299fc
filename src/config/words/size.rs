//! Sizes, and bytes per second.

use std::num::NonZeroU32;

use serde_json::{Value as Json, json};

use crate::config::{
    model::BodyBound,
    read::{Complaint, Word, words},
};

/// Bytes, above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Size(pub(in crate::config) u64);

/// Bytes per second; `None`: `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct ByteRate(pub(in crate::config) Option<NonZeroU32>);

/// More than any machine has: a slip of the pen.
const LARGEST: u64 = 1 << 50;

fn size(text: &str, what: &str) -> Result<u64, Complaint> {
    let complaint = || Complaint::new(format!("`{}` is not a {what}", text.escape_debug()));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(complaint());
    }
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        "" => return Err(complaint().help(format!("write the unit: `{number}B`, `{number}KiB`, `{number}MiB`"))),
        _ => {
            let letter = unit.chars().next().unwrap_or_default().to_ascii_uppercase();
            return Err(match letter {
                'K' | 'M' | 'G' | 'T' => complaint().help(format!("sizes count by 1,024: `{number}{letter}iB`")),
                _ => complaint(),
            });
        }
    };
    (number.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes <= LARGEST)
        .ok_or_else(|| Complaint::new(format!("`{text}` is too much: at most 1024TiB")))
}

impl Word for Size {
    const EXPECTED: &'static str = "a size such as `64KiB`, `6MiB` or `2GiB`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match size(text, "size")? {
            0 => Err(Complaint::new(format!("`{text}` leaves no room at all"))),
            bytes => Ok(Self(bytes)),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$" })
    }
}

impl Word for ByteRate {
    const EXPECTED: &'static str = "bytes per second such as `500B/s` or `1KiB/s`, or `off`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text == "off" {
            return Ok(Self(None));
        }
        let Some(bytes) = text.strip_suffix("/s") else {
            return Err(Complaint::new(format!("`{}` is not a number of bytes per second", text.escape_debug())));
        };
        let bytes = u32::try_from(size(bytes, "size")?)
            .map_err(|_| Complaint::new(format!("`{text}` is too much: less than 4GiB/s")))?;
        match NonZeroU32::new(bytes) {
            Some(bytes) => Ok(Self(Some(bytes))),
            None => Err(Complaint::new(format!("`{text}` asks for nothing"))
                .help("to let bodies be as slow as they like write `\"off\"`")),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^(off|[0-9]+(B|KiB|MiB|GiB)/s)$" })
    }
}

impl Word for BodyBound {
    const EXPECTED: &'static str = "a size such as `64KiB` or `6MiB`, or `none`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "none" => Ok(Self(None)),
            "unlimited" | "off" => Err(Complaint::new(format!("`{text}` is not a size")).help("write `none`")),
            text => size(text, "size").map(|bytes| Self(Some(bytes))),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^([0-9]+(B|KiB|MiB|GiB|TiB)|none)$" })
    }
}

words!(Size, ByteRate, BodyBound);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        let read = |text| Size::parse(text).ok().map(|size| size.0);
        assert_eq!([read("512B"), read("64KiB"), read("6MiB")], [Some(512), Some(65_536), Some(6 << 20)]);
        for wrong in ["", "6", "6MB", "6 MiB", "-6MiB", "0MiB", "1.5MiB", "6mib", "99999999TiB"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates_are_sizes_a_second_or_off() {
        let read = |text| ByteRate::parse(text).ok().map(|rate| rate.0.map(u32::from));
        assert_eq!([read("500B/s"), read("1KiB/s"), read("off")], [Some(Some(500)), Some(Some(1024)), Some(None)]);
        for wrong in ["", "500", "500B", "0B/s", "500/s", "1KiB/min", "5GiB/s"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
