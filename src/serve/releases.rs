//! Releases in the running service: how things stand, and putting it in force without a reload.

use std::sync::Arc;

use super::board::Board;
use crate::{config::model::FunctionId, release::Standings};

/// Of the main thread alone: whoever else learns something tells it.
#[derive(Default)]
pub struct Releases {
    pub standings: Standings,
}

impl Releases {
    /// Puts the weights of the named functions in force, on all workers, by their next requests: one store, with everything
    /// but their splits shared with what served before. Says whether any changed.
    ///
    /// Call it from the main thread, as reloads are: two who store at once would undo each other.
    #[allow(dead_code, reason = "the first who stores something comes with the next commit")]
    pub fn put_in_force<'f>(&self, board: &Board, functions: impl IntoIterator<Item = &'f str>) -> bool {
        let old = board.live.load_full();
        let mut next = None;
        for name in functions {
            // They are sorted by their names.
            let Ok(at) = old.snapshot.config.functions.binary_search_by(|f| (*f.name).cmp(name)) else { continue };
            let Ok(id) = u32::try_from(at).map(FunctionId) else { continue };
            let in_force = self.standings.in_force(&old.snapshot.config.functions[at]);
            if *old.snapshot.splits[at].in_force() == in_force {
                continue;
            }
            old.handles.show_shares(id, &in_force.shares);
            next.get_or_insert_with(|| (*old).clone()).snapshot.weigh(id, in_force, board.workers);
        }
        let Some(next) = next else { return false };
        board.live.store(Arc::new(next));
        true
    }

    /// Shows the shares in force of a config that was just compiled.
    pub fn show(live: &crate::ingress::live::Live) {
        for (id, split) in (0..).map(FunctionId).zip(&live.snapshot.splits) {
            live.handles.show_shares(id, &split.in_force().shares);
        }
    }
}
