//! HTTP in: the gate in front of pingora's parser, and pingora's phases ↔ `decide`. No policy of its own.

pub mod chunk;
pub mod conn;
pub mod forward;
pub mod head;
pub mod io;
pub mod live;
pub mod pool;
pub mod proxy;
pub mod proxy_protocol;
pub mod reply;
pub mod request_id;
pub mod wire;

pub use proxy::{Ingress, Proxy, refuse_head, refuse_stream};
