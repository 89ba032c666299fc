//! What is served with which certificate, and until when.

use jiff::Timestamp;

use super::Service;
use crate::serve::{certificate::Served, listener::Way, tls};

impl Service {
    pub(super) fn served(&self) -> Vec<Served> {
        let mut served = tls::served(&self.tls, Way::In);
        served.extend(tls::served(&self.way_out.tls, Way::Out));
        served
    }

    /// Tells of certificates that end soon: while nobody has renewed them, again and again.
    pub fn warn_of_ends(&self) {
        let now = Timestamp::now().as_second();
        for served in self.served() {
            if let Some(end) = served.source.held().and_then(|held| held.end(now)) {
                let (listener, name) = (&served.listener, served.name());
                tracing::warn!(%listener, name, "the certificate {end}");
            }
        }
    }
}
