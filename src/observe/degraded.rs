//! What does not work as it should while the rest goes on: told by `/readyz`, the status, a metric and the service manager's status line alike.

/// A part of gatepost that can fail by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    AccessLog,
    Budgets,
    /// The store that gateposts share.
    Cluster,
    Descriptors,
    EgressSource,
    Memory,
    Releases,
    StateDir,
    Workers,
}

impl What {
    pub const ALL: [Self; 9] = [
        Self::AccessLog,
        Self::Budgets,
        Self::Cluster,
        Self::Descriptors,
        Self::EgressSource,
        Self::Memory,
        Self::Releases,
        Self::StateDir,
        Self::Workers,
    ];

    /// The label of `gatepost_degraded`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessLog => "access_log",
            Self::Budgets => "budgets",
            Self::Cluster => "cluster",
            Self::Descriptors => "descriptors",
            Self::EgressSource => "egress_source",
            Self::Memory => "memory",
            Self::Releases => "releases",
            Self::StateDir => "state_dir",
            Self::Workers => "workers",
        }
    }
}

/// One of them that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded {
    pub what: What,
    /// In words: what is so, and what that means.
    pub why: String,
}
