//! HTTP out: what clients ask of the forward proxy, and the tunnels that come of it. No policy of its own: `decide::egress` has that.
//!
//! Per connection: head, strictly ([`serve`]) → client → rule → name resolved, every address judged → the source's address bound, a judged address
//! dialled ([`way`]) → for CONNECT 200, the TLS client's name compared, bytes both ways ([`tunnel`], [`relay`]); else the request forwarded
//! ([`forward`]) → one line and counts ([`record`]).
//!
//! A worker's connections stay on its thread, with a cache of names and a pool of their own: nothing that one waits for is held by another.

mod answer;
pub mod conn;
pub mod dial;
mod forward;
mod heads;
pub mod here;
pub mod live;
pub mod parent;
mod pass;
mod pool;
mod record;
mod relay;
mod serve;
mod splice;
mod standing;
mod tunnel;
mod way;

pub use conn::Conn;
pub use live::{Live, enter};
pub use relay::Side;
pub use serve::{Caller, Rooms, Stream, serve, sweep};
