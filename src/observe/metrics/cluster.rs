//! The cluster.

use super::text::{Kind, Text};

/// How this member stands with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterCounts {
    pub answers: bool,
    pub members: u64,
    pub differing: u64,
    pub commands: u64,
    /// Requests that passed uncounted by the others.
    pub unshared: u64,
}

pub(super) fn render(counts: Option<ClusterCounts>, out: &mut Text) {
    let mut one = |name, kind, help, value: &dyn Fn(ClusterCounts) -> u64| {
        out.family(name, kind, help);
        if let Some(counts) = counts {
            out.sample(name, &[], value(counts));
        }
    };
    let help = "1 while the cluster's store answers; 0 while each member takes its part of the limits.";
    one("gatepost_cluster_up", Kind::Gauge, help, &|counts| counts.answers.into());
    let help = "Members that limits of the cluster are counted for, this one included.";
    one("gatepost_cluster_members", Kind::Gauge, help, &|counts| counts.members);
    let help = "Members that are there with another config than this one.";
    one("gatepost_cluster_members_differing", Kind::Gauge, help, &|counts| counts.differing);
    let help = "Questions to the cluster's store.";
    one("gatepost_cluster_commands_total", Kind::Counter, help, &|counts| counts.commands);
    let help = "Requests under limits of the cluster that the other members do not hear of, since too many keys were in use at once.";
    one("gatepost_cluster_unshared_total", Kind::Counter, help, &|counts| counts.unshared);
}
