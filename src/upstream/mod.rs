//! In: a version's URL. Out: an address to try next, and a peer that pingora connects to.
//!
//! Names are resolved in the background ([`Resolver`]); a request only reads what was found ([`Target::candidates`]), marks what it
//! met ([`Target::failed`], [`Target::address_answered`]), and takes a kept connection ([`lines`]) or copies a prepared peer ([`Target::peer`]) to connect
//! by. None of this takes a lock.

pub mod addresses;
mod classify;
pub mod concurrency;
pub mod lines;
mod peer;
pub mod probe;
pub mod resolve;
pub mod resting;
pub mod target;

pub use addresses::{Addresses, NotResolved};
pub use classify::{Failure, Phase, classify_error};
pub use resolve::Resolver;
pub use target::{BadCa, Candidates, SHORTEST_IDLE, Target};
