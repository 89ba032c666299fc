//! The tables about concurrency as they are written.

use super::{
    model::Rate,
    raw::Connections,
    read::{Whole, table},
    words::Patience,
};

/// Requests that wait: each holds its connection's memory.
pub(super) type Waiting = Whole<0, 1_000_000>;

table! {
    struct Concurrency {
        /// Calls of the function at a time, over all workers. Default: any number.
        max: Connections,
        /// Requests that may wait for a place; `0`: none. Default `1000`.
        queue: Waiting,
        /// How long one may wait. Default `1s`.
        wait: Patience,
        /// How fast calls may become more. Default: at once.
        growth: Growth,
        /// Whether there are fewer calls while the platform throttles. Default: no.
        adaptive: Adaptive,
    }
}

table! {
    struct Growth {
        /// Calls at a time that come on top while all that may be are, per `s`, `min`, `h` or `d`.
        rate: Rate [required],
        /// Calls at a time that may be at once. Default: what `rate` gives in a minute.
        burst: Connections,
    }
}

table! {
    struct Adaptive {
        /// Never fewer calls at a time than this. Default `10`.
        min: Connections,
        /// Percent of the calls at a time that a throttled answer takes away. Default `5`.
        decrease: Whole<1, 90>,
        /// How fast they come back. Default: a hundredth of `max` a second, at least `1/s`; without `max` `10/s`.
        increase: Rate,
    }
}

table! {
    struct VersionConcurrency {
        /// Calls of this version at a time, over all workers.
        max: Connections [required],
    }
}
