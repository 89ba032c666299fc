//! HTTP in: the gate in front of pingora's parser, and pingora's phases ↔ `decide`. No policy of its own.

pub mod chunk;
pub mod head;
pub mod conn;
pub mod proxy_protocol;
pub mod io;
pub mod pool;
pub mod wire;
