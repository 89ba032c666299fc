//! In: the bytes of the config file and its includes. Out: a [`Config`], or a report of every problem in them.
//!
//! `bytes → raw (serde mirror with spans) → parse (gathers every problem) → Config (only valid values)`.
//! `check`, start-up, reload and `explain` all come in by the same door.

pub mod changes;
pub mod model;
pub mod secret;

pub use model::Config;
