//! Guards in the running service: once a second each canary is judged by what the workers counted.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    admin::GuardStatus,
    config::{
        Config,
        model::{Function, GuardAction, Name, VersionId},
    },
    decide::Now,
    ingress::live::{self, Live},
    observe::metrics::GuardSeries,
    release::guard::{Evidence, Panel, Ruling, Verdict, Watch},
};

/// By function. Of the main thread alone.
#[derive(Default)]
pub struct Guards(BTreeMap<Name, Panel>);

/// A verdict that somebody should hear of.
pub struct Ruled {
    pub function: Name,
    pub version: Name,
    pub verdict: Verdict,
    pub action: GuardAction,
    /// In words, for people.
    pub words: String,
    /// In numbers, for the history.
    pub evidence: serde_json::Value,
}

impl Guards {
    /// The guards of `config`; what they judge as before goes on.
    pub fn follow(&mut self, old: Option<&Config>, config: &Config, workers: usize, now: Now) {
        let mut before = std::mem::take(&mut self.0);
        for function in &config.functions {
            let panel = before.remove(&function.name);
            let previous = panel.and_then(|panel| {
                let config = old?;
                let function = config.functions.iter().find(|f| f.name == function.name)?;
                Some((config, function, panel))
            });
            if let Some(panel) = Panel::of(config, function, workers, previous, now) {
                self.0.insert(function.name.clone(), panel);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What workers count by, by function.
    pub fn watches(&self, config: &Config) -> Arc<[Option<Arc<Watch>>]> {
        if self.0.is_empty() {
            return Arc::default();
        }
        config.functions.iter().map(|f| self.0.get(&f.name).map(|panel| panel.watch().clone())).collect()
    }

    /// Judges what was counted since the last look.
    pub fn look(&mut self, live: &Live) -> Vec<Ruled> {
        let now = live::now();
        let mut ruled = Vec::new();
        for (function, split) in live.snapshot.config.functions.iter().zip(&live.snapshot.splits) {
            let Some(panel) = self.0.get_mut(&function.name) else { continue };
            for Ruling { version, before: _, evidence } in panel.look(now, function, split.in_force()) {
                let (canary, baseline) = (name(function, Some(version)), name(function, function.baseline));
                ruled.push(Ruled {
                    function: function.name.clone(),
                    version: canary.clone(),
                    verdict: evidence.verdict,
                    action: panel.guard().action,
                    words: evidence.words(&canary, &baseline),
                    evidence: evidence.json(&canary, &baseline),
                });
            }
        }
        ruled
    }

    /// What is thought of a version; `None`: no guard judges it.
    pub fn verdict(&self, function: &Function, version: VersionId) -> Option<Verdict> {
        self.0.get(&function.name)?.verdict(version)
    }

    fn canaries<'g>(&'g self, config: &'g Config) -> impl Iterator<Item = (&'g Function, VersionId, Evidence)> {
        config.functions.iter().flat_map(|function| {
            let panel = self.0.get(&function.name);
            panel.into_iter().flat_map(Panel::evidence).map(move |(version, evidence)| (function, version, evidence))
        })
    }

    pub fn series(&self, config: &Config) -> Vec<GuardSeries> {
        let series = |(function, version, evidence): (&Function, VersionId, Evidence)| GuardSeries {
            function: function.name.clone(),
            version: name(function, Some(version)),
            verdicts: Verdict::ALL.map(|verdict| (verdict.as_str(), verdict == evidence.verdict)).into(),
            odds: evidence.odds,
        };
        self.canaries(config).map(series).collect()
    }

    pub fn status(&self, config: &Config) -> Vec<GuardStatus> {
        let status = |(function, version, evidence): (&Function, VersionId, Evidence)| {
            let (canary, baseline) = (name(function, Some(version)), name(function, function.baseline));
            GuardStatus {
                function: function.name.to_string(),
                version: canary.to_string(),
                verdict: evidence.verdict.as_str().to_owned(),
                says: evidence.words(&canary, &baseline),
                evidence: evidence.json(&canary, &baseline),
            }
        };
        self.canaries(config).map(status).collect()
    }
}

fn name(function: &Function, version: Option<VersionId>) -> Name {
    version.map_or_else(|| Name::from(""), |id| function.versions[id.index()].name.clone())
}
