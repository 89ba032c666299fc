//! gatepost: one fixed address in front of serverless functions.
//!
//! The rooms, in the order in which data flows through them. A room may use those above it, never those
//! below (`tests/` holds this):
//!
//! - [`config`]: TOML text → [`config::Config`]. Every mistake is found here, none later.
//! - [`decide`]: facts of a request → a verdict. Pure; the clock is an argument.
//! - [`platform`]: what a function platform does: outcomes, limits, headers, signatures. Pure.
//! - [`credential`]: tokens that are fetched: what is asked, what an answer must be, when to ask again. Pure.
//! - [`upstream`]: a version's URL → an address to connect to, and how.
//! - [`observe`]: access log and metrics.
//! - [`release`]: what versions did and what has happened to them → verdicts, and weights in force.
//! - [`ingress`]: HTTP in: the gate, a request's phases ↔ `decide`, the exchange with its function.
//! - [`egress`]: HTTP out: the forward proxy that functions call others through.
//! - [`admin`]: health, metrics and calls for the operator.
//! - [`serve`]: the composition root: sockets, TLS, reload, drain.
//! - [`cli`]: one file per command.

pub mod admin;
pub mod cli;
pub mod config;
pub mod credential;
pub mod decide;
pub mod egress;
pub mod ingress;
pub mod observe;
pub mod platform;
pub mod release;
pub mod serve;
pub mod upstream;
