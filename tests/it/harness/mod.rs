//! What the stories are told with: a gatepost process, scripted functions behind it, callers in front.

pub(crate) mod acme;
pub(crate) mod client;
pub(crate) mod demo;
pub(crate) mod dns;
pub(crate) mod edge;
pub(crate) mod faulty;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod google;
pub(crate) mod h2;
pub(crate) mod hosts;
pub(crate) mod jwt;
pub(crate) mod load;
pub(crate) mod origin;
pub(crate) mod peak;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod reply;
pub(crate) mod signed;
pub(crate) mod tls;
pub(crate) mod websocket;
pub(crate) mod wire;

use std::time::{Duration, Instant};

pub(crate) use client::{Answer, Connection, Request, get, post, request};
pub(crate) use gateway::{Gateway, gateway};
pub(crate) use origin::{Origin, Seen, origin};
pub(crate) use reply::{Reply, gate};
pub(crate) use tls::authority;

/// How long anything may take that should take no time: generous, for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until `probe` gives something, and fails with `what` when it never does.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `Some(())` where it is so: for [`eventually`].
pub(crate) fn when(so: bool) -> Option<()> {
    so.then_some(())
}

/// Whether the long versions of the stories were asked for.
pub(crate) fn full() -> bool {
    std::env::var_os("GATEPOST_FULL").is_some_and(|value| value == "1")
}
