//! `health` of a function, as it is written.

use super::{
    read::{Whole, table},
    words::Patience,
};

table! {
    struct Health {
        /// So many failed requests in a row take a version out of traffic. Default `5`.
        consecutive_failures: Whole<1, 1000>,
        /// For how long, the first time; each further time twice as long. Default `30s`.
        base_ejection_time: Patience,
        /// And never longer than this. Default `5m`.
        max_ejection_time: Patience,
    }
}
