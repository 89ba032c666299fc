//! What becomes of a release: whether a canary is worse than its baseline.

pub mod guard;
