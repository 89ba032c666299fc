//! HTTP in: the gate in front of pingora's parser, and pingora's phases ↔ `decide`. No policy of its own.

mod answer;
mod body_coding;
mod budget;
pub mod cache;
pub mod challenge;
pub mod conn;
mod ctx;
mod fallback;
pub mod forward;
pub mod frames;
mod h2_head;
pub mod io;
pub mod left;
pub mod live;
pub mod mirror;
mod on_platform;
mod own;
mod pace;
pub mod pool;
pub mod proxy;
pub mod proxy_protocol;
pub mod reply;
pub mod request_id;
mod retry;
mod sign;
pub mod stall;
mod standing;
pub mod stream;
mod tell;
mod transport;
mod turn;
pub mod wire;

pub use crate::decide::http1::{chunk, head};
pub use ctx::Ctx;
pub use proxy::{Ingress, Proxy};
pub use tell::{refuse_head, refuse_stream};
