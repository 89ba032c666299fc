//! Releases: what outlives a reload and a restart of how a function's versions share its requests.
//!
//! In: what has happened to versions (a ramp moved on, one was ejected, one was sent back). Out: the weights in force
//! ([`Standings`]). No sockets, and no clock of its own.

pub mod outliers;
mod standings;

pub use standings::Standings;
