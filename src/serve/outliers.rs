//! Versions that fail are taken out of traffic, and come back, without a reload.

use std::collections::BTreeSet;

use super::{generations::Author, service::Service};
use crate::{
    config::model::{FunctionId, VersionId},
    ingress::live,
    release::outliers::Stands,
};

impl Service {
    /// Time has passed: what requests said of their versions takes effect.
    pub fn look_at_health(&mut self) {
        let snapshot = self.board.live.load_full().snapshot.clone();
        let turns = self.releases.outliers.look(&snapshot, live::now());
        if turns.is_empty() {
            return;
        }
        let names: BTreeSet<_> = turns.iter().map(|turn| &turn.function).collect();
        for name in names {
            let (out, tried) = self.releases.outliers.of(name);
            let standings = self.releases.book.standings_mut();
            standings.eject(name, out);
            standings.try_again(name, tried);
        }
        let handles = &self.board.live.load().handles;
        let mut events = Vec::new();
        for turn in turns {
            // Of what the config no longer has there is nothing to tell.
            let functions = (0..).map(FunctionId).zip(&snapshot.config.functions);
            let Some((id, function)) = functions.into_iter().find(|(_, f)| f.name == turn.function) else { continue };
            let versions = (0..).map(VersionId).zip(&function.versions);
            let Some((version, _)) = versions.into_iter().find(|(_, v)| v.name == turn.version) else { continue };
            handles.stands(id, version, turn.stands != Stands::Well, matches!(turn.stands, Stands::Out(_)));
            events.push(turn.event());
        }
        self.happened(events, &Author { by: Some("health".to_owned()), reason: None });
    }
}
