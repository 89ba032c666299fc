//! Whether a canary is worse than its baseline.
//!
//! In: requests that are over, counted by the workers ([`Watch`]). Out, about once a second: a [`Verdict`] for each canary, with its
//! numbers ([`Panel`], [`Judge`]). Pure but for atomic counters: the clock is an argument.

mod calm;
mod judge;
mod panel;
mod ratio;
mod replay;
mod seen;
mod tail;
mod watch;
mod words;

pub use judge::{Cause, Evidence, Judge, Tally, Terms, Verdict};
pub use panel::{Panel, Ruling};
pub use replay::{Line, Replay};
pub use seen::Seen;
pub use watch::{Ended, Watch};
