//! In: what became of each request. Out: a line in the access log, and numbers at `/metrics`.
//!
//! A request pays for formatting one line into a buffer that its worker keeps and for a few relaxed additions to counters that
//! no other worker writes; files, sockets and the Prometheus text are other threads' work.

pub mod access;
pub mod clock;
pub mod degraded;
pub mod dice;
pub mod format;
pub mod metrics;
pub mod shedding;
mod sink;
mod writer;

pub use access::{AccessLog, LogPort};
pub use clock::unix_ms;
pub use format::{Entry, egress::EgressEntry, mirror::MirrorEntry};
pub use metrics::Metrics;
pub use sink::Sink;
