//! A function's `mirror` as it is written.

use super::{
    read::{Whole, table},
    source::At,
    words::{Patience, Percent, Size, Text},
};
use http::Method;

table! {
    struct Mirror {
        /// The version that gets copies of requests, and whose answers nobody sees.
        version: Text [required],
        /// Of how many requests it gets a copy, in percent of those that go to other versions.
        share: Percent [required],
        /// Whose requests are copied. Default `["GET", "HEAD", "OPTIONS"]`: what a function may do twice.
        methods: Vec<At<Method>>,
        /// Copies under way at a time; what is more is not copied. Default `10`.
        concurrency: Whole<1, 10_000>,
        /// How long a copy may take in all. Default `10s`.
        timeout: Patience,
        /// The largest body that is copied. Default `64KiB`.
        max_body: Size,
    }
}
