//! `guard` as it is written.

use super::{
    model::GuardAction,
    read::{Whole, table},
    words::{ErrorShare, FalseAlarm, Patience, PatienceOrNone, Times},
};

table! {
    struct Guard {
        /// What becomes of a canary that is worse: `rollback` (the default) or `alert`.
        action: GuardAction,
        /// How many times the baseline's errors a canary may have. Default 1.5.
        tolerate: Times,
        /// How often, in percent, a canary within that may be called worse, over its whole life. Default 0.1.
        false_alarm: FalseAlarm,
        /// From what share of failing answers on, in percent, in canary or baseline, nothing is promoted. Default 20.
        max_error_ratio: ErrorShare,
        /// What a canary must have answered since its share changed before it can be called healthy. Default 500.
        min_requests: Whole<1, 1_000_000_000>,
        /// How long ago that must be. Default 5m.
        min_time: PatienceOrNone,
        /// Within this a caller's errors count as one. Default 1m.
        window: Patience,
        /// How many times the baseline's slow answers a canary may have. Default: time isn't judged.
        latency: Times,
        /// For how long after its share has risen a canary's time isn't judged. Default 1m.
        warmup: PatienceOrNone,
    }
}
