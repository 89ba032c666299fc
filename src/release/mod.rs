//! Releases: what outlives a reload and a restart of how a function's versions share its requests.
//!
//! In: what has happened to versions (a ramp moved on, one was ejected, one was sent back). Out: the weights in force
//! ([`Standings`]), and the state that a restart goes on from; and whether a canary is worse than its baseline ([`guard`]). No sockets,
//! and no clock of its own.

mod book;
pub mod guard;
pub mod hook;
pub mod outliers;
pub mod ramp;
mod standings;
pub mod state;
mod together;
mod told;

#[cfg(test)]
mod tests;

pub use book::{Book, Charge, Event};
pub use ramp::Verdict;
pub use standings::Standings;
pub use state::State;
pub use together::{Common, Entry, Together};
pub use told::Told;
