//! `budget = { … }` of a function: what its calls may cost in a day.

use std::{fmt, num::NonZeroU64};

use jiff::tz::TimeZone;

/// `budget = { calls_per_day = 1_000_000, spend_per_day = 200, price = { per_million = 1.3 }, action = "stop" }`. At least one of the two
/// bounds is there; `spend_per_day` has a price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub calls_per_day: Option<NonZeroU64>,
    pub spend_per_day: Option<Amount>,
    pub price: Price,
    /// What the function is given, in bytes; there where `price.per_gb_second` is.
    pub memory: Option<u64>,
    /// Percent, rising. Default 50, 80 and 100.
    pub warn: Vec<u8>,
    pub action: BudgetAction,
    /// Where a day begins. Default UTC.
    pub zone: Zone,
}

/// `price = { per_million = 1.3, per_gb_second = 0.00011 }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Price {
    /// Of a million calls.
    pub per_million: Option<Amount>,
    pub per_gb_second: Option<Amount>,
}

impl Budget {
    /// What a call costs that took so long, in [`Amount`]s' parts.
    pub fn cost(&self, millis: u64) -> u64 {
        let calls = self.price.per_million.map_or(0.0, |amount| amount.0 as f64 / 1e6);
        // Platforms count a GB as 1,024 MB.
        let gigabytes = self.memory.unwrap_or(0) as f64 / f64::from(1_u32 << 30);
        let seconds = millis as f64 / 1e3;
        let time = self.price.per_gb_second.map_or(0.0, |amount| amount.0 as f64 * gigabytes * seconds);
        // Saturates.
        (calls + time).round() as u64
    }
}

/// An amount of the money that the prices are in, in millionths of a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(pub u64);

impl Amount {
    /// One whole.
    pub const WHOLE: u64 = 1_000_000_000_000;

    pub fn as_f64(self) -> f64 {
        self.0 as f64 / Self::WHOLE as f64
    }
}

impl fmt::Display for Amount {
    /// Exact, without needless zeros: `200`, `0.00011`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / Self::WHOLE, self.0 % Self::WHOLE);
        match part {
            0 => write!(f, "{whole}"),
            part => write!(f, "{whole}.{}", format!("{part:012}").trim_end_matches('0')),
        }
    }
}

/// What becomes of requests when a budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BudgetAction {
    /// Nothing: it is told. The default.
    #[default]
    Alert,
    /// From 80 % on as many are refused as it takes to make it last until the day's end; at 100 % all.
    Shed,
    /// At 100 % the route's `fallback` answers.
    Fallback,
    /// At 100 % they are refused.
    Stop,
}

impl BudgetAction {
    /// As the file has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Shed => "shed",
            Self::Fallback => "fallback",
            Self::Stop => "stop",
        }
    }
}

/// A time zone, by the name that it was written by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    pub name: String,
    pub zone: TimeZone,
}

impl Zone {
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_written_as_it_is() {
        for (parts, words) in [
            (200 * Amount::WHOLE, "200"),
            (110_000_000, "0.00011"),
            (1_300_000_000_000, "1.3"),
            (1, "0.000000000001"),
            (u64::MAX, "18446744.073709551615"),
        ] {
            assert_eq!(Amount(parts).to_string(), words);
        }
    }

    #[test]
    fn a_call_costs_its_share_of_a_million_and_its_time_in_memory() {
        let price = Price { per_million: Some(Amount(200_000_000_000)), per_gb_second: Some(Amount(16_666_700)) };
        let budget = Budget {
            calls_per_day: None,
            spend_per_day: Some(Amount(Amount::WHOLE)),
            price,
            memory: Some(512 << 20),
            warn: vec![],
            action: BudgetAction::Alert,
            zone: Zone::utc(),
        };
        assert_eq!(budget.cost(0), 200_000);
        assert_eq!(budget.cost(2_000), 200_000 + 16_666_700);
        assert_eq!(budget.cost(u64::MAX), 153_722_867_280_912_930_201_600_000_u128.min(u128::from(u64::MAX)) as u64);
        let free = Budget { price: Price::default(), memory: None, ..budget };
        assert_eq!(free.cost(60_000), 0);
    }
}
