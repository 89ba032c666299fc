//! In: the facts of a request and a [`Snapshot`]. Out: a [`Verdict`]. Pure: no sockets, no clock of its own, no dice.

pub mod accept;
pub mod auth;
pub mod budget;
pub mod cache;
pub mod client;
pub mod coding;
pub mod cookie;
pub mod cors;
pub mod egress;
pub mod facts;
pub mod fill;
pub mod health;
pub mod hops;
pub mod host;
pub mod http1;
pub mod limit;
pub mod mirror;
pub mod path;
pub mod retry;
pub mod route;
pub mod snapshot;
pub mod split;
pub mod verdict;

pub use facts::{ClientCertificate, Facts, San, content_length};
pub use snapshot::{Snapshot, compile, compile_as_things_stand};
pub use verdict::{Class, PickedBy, Reason, WeightsFrom};

/// A moment on a monotonic clock: nanoseconds since some start that is the same for the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(pub u64);
