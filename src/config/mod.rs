//! In: the bytes of the config file and its includes. Out: a [`Config`], or a report of every problem in them.
//!
//! `bytes → raw (tables as written, each value with its place) → parse (gathers every problem) → Config (only valid
//! values)`. `check`, start-up, reload and `explain` all come in by the same door.
//!
//! A relative path in the config starts from the folder of the file that it stands in; the globs of `include` from
//! that of the main file.

pub mod changes;
pub mod edit;
pub mod model;
pub mod preset;
pub mod secret;
pub mod special;

pub mod jwks;

mod digest;
mod load;
mod material;
mod overlap;
mod parse;
mod raw;
mod raw_budget;
mod raw_cache;
mod raw_cluster;
mod raw_concurrency;
mod raw_egress;
mod raw_guard;
mod raw_handling;
mod raw_health;
mod raw_mirror;
mod raw_platform;
mod raw_ramp;
mod raw_retries;
mod read;
mod report;
mod schema;
mod source;
mod words;

pub use digest::Digest32;
pub use load::{Loaded, Mode, included, load, texts};
pub use material::Material;
pub use model::Config;
pub use parse::parse;
pub use report::{Place, Problem, Report, Severity};
pub use schema::schema;
pub use secret::{Secret, SecretError, SecretRef};
pub use source::{SourceFile, Sources, Span};

#[cfg(test)]
mod tests;
