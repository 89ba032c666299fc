//! A second of judging: verdicts are told, and a canary that is worse is sent back.

use super::Service;
use crate::{
    config::model::{Function, GuardAction, Name, VersionId},
    release::{self, Charge, guard::Verdict},
    serve::guards::Ruled,
};

impl Service {
    /// Whether there is anything to [`judge`](Self::judge).
    pub fn is_judging(&self) -> bool {
        !self.guards.is_empty()
    }

    /// To be called once a second.
    pub fn judge(&mut self) {
        let live = self.board.live.load_full();
        for ruled in self.guards.look(&live) {
            self.ruled(ruled);
        }
        self.show_guards();
    }

    /// What a ramp is to know: whether the function's guard has found the version healthy. `None`: it has none.
    pub fn guard_says(&self, function: &Function, version: VersionId) -> Option<release::Verdict> {
        self.guards.verdict(function, version).map(|verdict| match verdict {
            Verdict::Healthy => release::Verdict::Healthy,
            Verdict::Worse(_) => release::Verdict::Worse,
            Verdict::NotEnough | Verdict::Unfit => release::Verdict::NotEnough,
        })
    }

    pub(super) fn show_guards(&self) {
        let config = &self.board.live.load().snapshot.config;
        let is_known = |function: &Name, version: &Name| {
            let function = config.functions.iter().find(|f| f.name == *function);
            function.is_some_and(|f| f.versions.iter().any(|v| v.name == *version))
        };
        self.board.metrics.keep_alarms(&is_known);
        self.board.metrics.set_guards(self.guards.series(config));
        self.board.changing().guards = self.guards.status(config);
    }

    fn ruled(&mut self, ruled: Ruled) {
        let Ruled { function, version, verdict, action, words, evidence } = ruled;
        let word = verdict.as_str();
        match (verdict, action) {
            (Verdict::Healthy | Verdict::NotEnough, _) => {
                tracing::info!(%function, %version, verdict = %word, "guard: {words}");
            }
            (Verdict::Unfit, _) => {
                tracing::warn!(%function, %version, verdict = %word, "guard: nothing is promoted: {words}");
            }
            (Verdict::Worse(_), GuardAction::Alert) => {
                self.board.metrics.count_alarm(&function, &version, word);
                let kept = "it keeps its share, for `guard.action` is `alert`";
                tracing::error!(%function, %version, verdict = %word, "guard: {words}; {kept}");
            }
            (Verdict::Worse(_), GuardAction::Rollback) => {
                self.board.metrics.count_alarm(&function, &version, word);
                let charge = Charge { by: "guard".to_owned(), reason: words, evidence: Some(evidence) };
                // In force at once; then logged, and told in the history.
                self.latch(&function, &version, charge);
            }
        }
    }
}
