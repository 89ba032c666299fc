//! Whether a canary is worse than its baseline: pure, the clock is an argument.

mod judge;
mod ratio;
mod seen;

pub use judge::{Cause, Evidence, Judge, Tally, Terms, Verdict};
pub use seen::Seen;
