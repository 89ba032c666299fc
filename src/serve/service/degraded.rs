//! Once a second the service looks at itself: what is degraded is told wherever somebody may look, and the service manager hears a sign of life
//! only while all that serves moves.

use std::time::{Duration, Instant};

use super::Service;
use crate::{
    config::changes::Change,
    ingress::live,
    observe::degraded::{Degraded, What},
    serve::{generations::Author, notify, requests},
};

/// What was seen last, and told.
#[derive(Default)]
pub struct Around {
    degraded: Vec<Degraded>,
    status: String,
    /// Texts of the present generation that are not kept yet.
    pub(super) unrecorded: Option<(Vec<Change>, Author)>,
    mended: Option<Instant>,
}

/// How often it is tried to write again what could not be written.
const MEND: Duration = Duration::from_secs(5);
/// A shortage of descriptors is told of for so long after the last caller who felt it.
const SHORT: Duration = Duration::from_secs(10);
/// Whoever has not moved for so long is stuck, where nobody says how long is too long.
const STUCK: Duration = Duration::from_secs(10);

impl Service {
    /// Looks, mends what can be mended, and tells what has changed.
    pub fn look_around(&mut self) {
        if !self.is_frozen() {
            self.mend();
        }
        let degraded = self.degraded();
        for new in degraded.iter().filter(|new| !self.around.degraded.iter().any(|old| old.what == new.what)) {
            tracing::warn!(what = new.what.as_str(), "degraded: {}", new.why);
        }
        for old in self.around.degraded.iter().filter(|old| !degraded.iter().any(|new| old.what == new.what)) {
            tracing::info!(what = old.what.as_str(), "no longer degraded");
        }
        if degraded != self.around.degraded {
            self.board.metrics.set_degraded(degraded.clone());
            self.around.degraded = degraded;
        }
        let status = self.summary();
        if status != self.around.status {
            notify::status(&status);
            self.around.status = status;
        }
    }

    /// For one line: what is degraded, if anything is.
    pub(super) fn troubles(&self) -> String {
        let names: Vec<_> = self.around.degraded.iter().map(|degraded| degraded.what.as_str()).collect();
        let upgrading = if self.is_upgrading() { "; an upgrade is under way" } else { "" };
        if names.is_empty() { upgrading.to_owned() } else { format!("{upgrading}; degraded: {}", names.join(", ")) }
    }

    /// A sign of life, where all that serves has moved lately: a worker that hangs has callers whom nobody answers, and a restart is what
    /// helps them.
    pub fn show_life(&self) {
        let Some(half) = notify::watchdog_interval() else { return };
        let bound = half.min(STUCK);
        match self.stuck(bound) {
            None => notify::watchdog(),
            Some(who) => tracing::error!("{who} does not move: the service manager hears no sign of life"),
        }
    }

    fn stuck(&self, bound: Duration) -> Option<String> {
        let now = live::now().0;
        let late = |seen: u64| now.saturating_sub(seen) > u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        let worker = self.workers.seen().position(late).map(|number| format!("worker {number}"));
        worker.or_else(|| late(self.listeners.seen()).then(|| "the thread that accepts".to_owned()))
    }

    fn degraded(&self) -> Vec<Degraded> {
        let mut all = Vec::new();
        let mut tell = |what: What, why: Option<String>| all.extend(why.map(|why| Degraded { what, why }));
        let counts = self.logs.access().counts();
        tell(
            What::AccessLog,
            counts
                .is_troubled()
                .then(|| format!("the access log cannot be written; {} lines are lost so far", counts.dropped_lines())),
        );
        tell(
            What::Budgets,
            self.budgets
                .is_failing()
                .then(|| "what is counted of budgets cannot be written: a crash would forget it".to_owned()),
        );
        tell(What::Cluster, self.cluster.degraded());
        tell(
            What::Descriptors,
            self.listeners.total().is_short(SHORT).then(|| {
                "no file descriptors are left for further connections: raise LimitNOFILE, or lower max_connections"
                    .to_owned()
            }),
        );
        let down: Vec<_> = self.way_out.sources_down();
        tell(
            What::EgressSource,
            (!down.is_empty()).then(|| format!("this machine does not have the address of {}", down.join(", "))),
        );
        tell(
            What::Memory,
            self.board
                .metrics
                .shedding
                .is_on()
                .then(|| "short of memory: new requests are answered with 503".to_owned()),
        );
        tell(
            What::Releases,
            self.releases.is_unwritten().then(|| {
                "the state of releases cannot be written: latches and ramps would not survive a restart".to_owned()
            }),
        );
        tell(What::StateDir, self.generations.trouble());
        tell(What::Workers, self.stuck(STUCK).map(|who| format!("{who} does not move")));
        all
    }

    /// What could not be written is tried again: a disk that was full is not for ever.
    fn mend(&mut self) {
        let detached = self.generations.is_detached();
        if (!detached && self.around.unrecorded.is_none()) || self.around.mended.is_some_and(|at| at.elapsed() < MEND) {
            return;
        }
        self.around.mended = Some(Instant::now());
        let state_dir = self.loaded.config.server.state_dir.clone();
        if detached && self.generations.reopen().is_err() {
            return;
        }
        if let Some((changes, author)) = self.around.unrecorded.take() {
            self.record(&changes, &author);
        }
        if detached {
            match requests::prepare(&state_dir) {
                Ok(()) => {
                    tracing::info!(path = %state_dir.display(), "state_dir can be used again: commands reach this gatepost");
                    // A folder that was not there is watched from now on.
                    self.look_for_requests();
                }
                Err(error) => tracing::warn!(%error, "state_dir takes no requests: `gatepost reload` will not work"),
            }
        }
        self.releases.save();
    }
}
