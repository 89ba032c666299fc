//! Addresses that go last for their failures: told in the log, the status and the metrics. Requests put them there themselves.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::service::Service;
use crate::{
    admin::AddressStatus,
    config::{
        changes::duration,
        model::{FunctionId, Name, VersionId},
    },
};

/// How often the status of checks is made anew.
const TELL: Duration = Duration::from_millis(500);

/// Who rests, and for how long: function, version, address.
pub type Resting = BTreeMap<(Name, Name, SocketAddr), Duration>;

impl Service {
    /// Time has passed: what has become of addresses is told.
    pub fn look_at_resting(&mut self) {
        let live = self.board.live.load_full();
        let mut resting = Resting::new();
        for (id, function) in (0..).map(FunctionId).zip(&live.snapshot.config.functions) {
            if function.health.is_none() {
                continue;
            }
            for (number, version) in (0..).map(VersionId).zip(&function.versions) {
                let target = live.target(id, number);
                let rests = target.resting();
                live.handles.addresses_rest(id, number, rests.len() as u64, target.take_ejections());
                for rest in rests {
                    resting.insert((function.name.clone(), version.name.clone(), rest.address), rest.time);
                }
            }
        }
        if resting == self.releases.resting {
            return;
        }
        let before = std::mem::replace(&mut self.releases.resting, resting);
        let resting = &self.releases.resting;
        for ((function, version, address), time) in resting {
            if before.get(&(function.clone(), version.clone(), *address)) != Some(time) {
                tracing::warn!(
                    %function, %version, %address,
                    "an address fails while others answer, and goes last for {}", duration(*time)
                );
            }
        }
        for (function, version, address) in before.keys().filter(|key| !resting.contains_key(*key)) {
            let functions = (0..).map(FunctionId).zip(&live.snapshot.config.functions);
            let here = functions.into_iter().find(|(_, known)| known.name == *function).and_then(|(id, known)| {
                let mut versions = (0..).map(VersionId).zip(&known.versions);
                let (number, _) = versions.find(|(_, known)| known.name == *version)?;
                Some(live.target(id, number))
            });
            match here {
                Some(target) if target.addresses().contains(address) => {
                    tracing::info!(%function, %version, %address, "an address takes its turn again");
                }
                // The name has it no more: nothing to tell that the resolver has not told.
                _ => {}
            }
        }
        let told = resting.iter().map(|((function, version, address), time)| AddressStatus {
            function: function.to_string(),
            version: version.to_string(),
            address: address.to_string(),
            state: "goes last".to_owned(),
            detail: format!("fails while others answer; tried again after {}", duration(*time)),
        });
        self.board.changing().addresses = told.collect();
    }

    /// Sends the probes that are due.
    pub fn send_checks(&mut self) {
        let live = self.board.live.load_full();
        self.releases.checks.look(&self.loaded, &live);
        // Not at each look, for there may be many.
        let is_due = self.releases.checks_told.is_none_or(|at| at.elapsed() >= TELL);
        if is_due && (!self.releases.checks.is_empty() || self.releases.checks_told.is_some()) {
            self.board.changing().checks = self.releases.checks.told();
            self.releases.checks_told = (!self.releases.checks.is_empty()).then(Instant::now);
        }
    }
}
