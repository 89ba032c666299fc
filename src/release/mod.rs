//! Releases: what outlives a reload and a restart of how a function's versions share its requests.
//!
//! In: what has happened to versions (a ramp moved on, one was ejected, one was sent back). Out: the weights in force
//! ([`Standings`]); and whether a canary is worse than its baseline ([`guard`]). No sockets, and no clock of its own.

pub mod guard;
mod standings;

pub use standings::Standings;
