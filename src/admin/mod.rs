//! In: calls of the operator and of the machines that watch. Out: health, metrics, the status, the receipt of a reload.
//!
//! A small HTTP/1.1 server of its own, so that it answers while the data plane is busy, draining or misconfigured. What it tells comes
//! through [`Backend`]; it knows nothing of who serves. One request per connection, and bounds on everything: it may be open to a
//! whole network by mistake.
//!
//! | call | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 while a config is served, and a line for all that is degraded; else 503 and why |
//! | `GET /metrics` | Prometheus text |
//! | `GET /api/v1/status` | [`Status`] |
//! | `POST /api/v1/reload` | [`Receipt`]: 200, or 422 where the config was rejected; wants `Authorization: Bearer` |

mod answer;
mod cluster;
mod server;
mod status;

pub use cluster::{ClusterStatus, MemberStatus};
pub use server::{Listener, Socket, serve};
pub use status::{
    AddressStatus, BudgetStatus, CertificateStatus, CheckStatus, DegradedStatus, GuardStatus, JwksStatus,
    ListenerStatus, MirrorStatus, Outcome, Receipt, SourceStatus, Status, VersionStatus,
};

/// Where the answers come from.
pub trait Backend: Send + Sync + 'static {
    /// # Errors
    ///
    /// Why no (further) requests should be sent here, as a sentence part: `draining`, `no config is served yet`.
    fn ready(&self) -> Result<(), String>;

    /// What does not work as it should while the rest serves.
    fn degraded(&self) -> Vec<DegradedStatus>;

    /// The text of `/metrics`.
    fn metrics(&self) -> String;

    fn status(&self) -> Status;

    /// The token that changing calls must bring, as it is now; `None`: they are refused.
    fn token(&self) -> Option<Vec<u8>>;

    /// Reads the config anew and applies it.
    fn reload(&self) -> impl Future<Output = Receipt> + Send;
}

#[cfg(test)]
mod tests;
