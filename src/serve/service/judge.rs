//! A second of judging: verdicts are told, and a canary that is worse is sent back.

use super::Service;
use crate::{
    config::model::{GuardAction, Name},
    release::guard::Verdict,
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
            self.ruled(&ruled);
        }
        self.show_guards();
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

    fn ruled(&mut self, ruled: &Ruled) {
        let Ruled { function, version, verdict, action, words, evidence } = ruled;
        let word = verdict.as_str();
        match verdict {
            Verdict::Healthy | Verdict::NotEnough => {
                tracing::info!(%function, %version, verdict = %word, "guard: {words}");
            }
            Verdict::Unfit => {
                tracing::warn!(%function, %version, verdict = %word, "guard: nothing is promoted: {words}")
            }
            Verdict::Worse(_) => {
                self.board.metrics.count_alarm(function, version, word);
                let what = match action {
                    GuardAction::Rollback => "its requests go to the baseline",
                    GuardAction::Alert => "it keeps its share (`action = \"alert\"`)",
                };
                tracing::error!(%function, %version, verdict = %word, %evidence, "guard: {words}: {what}");
                if *action == GuardAction::Rollback {
                    self.send_back(ruled);
                }
            }
        }
    }

    fn send_back(&mut self, ruled: &Ruled) {
        self.releases.standings.latch(&ruled.function, [ruled.version.clone()].into());
        self.releases.put_in_force(&self.board, [&*ruled.function]);
    }
}
