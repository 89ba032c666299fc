//! `health` of a function, as it is written.

use super::{
    model::ProbeMethod,
    read::{Whole, table},
    words::{Patience, ProbePath, Statuses},
};

table! {
    struct Health {
        /// So many failed requests in a row take a version, or an address of it, out of traffic. Default `5`.
        consecutive_failures: Whole<1, 1000>,
        /// For how long, the first time; each further time twice as long. Default `30s`.
        base_ejection_time: Patience,
        /// And never longer than this. Default `5m`.
        max_ejection_time: Patience,
        /// Ask each version whether it is well, and let back only who says so. Each probe is a call that the platform bills.
        check: Check,
    }
}

table! {
    struct Check {
        /// What is asked for, behind the path of the version's URL.
        path: ProbePath [required],
        /// `HEAD` (the default) or `GET`.
        method: ProbeMethod,
        /// How often. At least `1s`. Default `30s`.
        every: Patience,
        /// How long an answer may take, its connection included. Default `5s`, or `every` where that is less.
        timeout: Patience,
        /// What a good answer has: `204`, `"2xx"`, or a list. Default `["2xx", "3xx"]`.
        status: Statuses,
        /// So many failed probes in a row put it out. Default `3`.
        fall: Whole<1, 100>,
        /// So many good ones in a row let it back. Default `2`.
        rise: Whole<1, 100>,
    }
}
