//! `retries` of a function, as it is written.

use super::{
    model::Rate,
    read::{Whole, table},
    words::Patience,
};

table! {
    struct Retries {
        /// How often a request is sent in all, the first time counted. Default `2`; `1`: no answer is asked for again.
        attempts: Whole<1, 5>,
        /// How many retries the function gets, in percent of its requests of the last 10 seconds. Default `10`.
        budget: Whole<0, 100>,
        /// So many retries it may have whatever its traffic. Default `1/s`.
        floor: Rate,
        /// A retry waits for a random time up to this; the next up to twice as long, and so on. Default `25ms`.
        backoff: Patience,
        /// The longest wait before a retry: a longer `Retry-After` ends the retrying. Default `2s`.
        max_wait: Patience,
    }
}
