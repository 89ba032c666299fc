//! A function's budget as it is written.

use super::{
    model::BudgetAction,
    read::{Whole, table},
    source::At,
    words::{Money, Size, ZoneWord},
};

table! {
    struct Budget {
        /// Calls in a day, of those that the platform bills.
        calls_per_day: Whole<1, 1_000_000_000_000>,
        /// Money in a day, in whatever `price` is in.
        spend_per_day: Money,
        /// What calls cost.
        price: Price,
        /// What the function is given, for `price.per_gb_second`.
        memory: Size,
        /// Where a day begins: a name such as `Asia/Shanghai`, or `+08:00`. Default `UTC`.
        timezone: ZoneWord,
        /// At how many percent it is told. Default `[50, 80, 100]`.
        warn: Vec<At<Whole<1, 100>>>,
        /// What becomes of requests when it is spent: `alert` (the default: nothing), `shed`, `fallback` or `stop`.
        action: BudgetAction,
    }
}

table! {
    struct Price {
        /// Of a million calls.
        per_million: Money,
        /// Of a second with 1 GB of memory; it needs `memory`.
        per_gb_second: Money,
    }
}
