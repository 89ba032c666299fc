//! What is told of a cluster.

use serde::{Deserialize, Serialize};

/// How this member stands with the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// As the file has it, without a password.
    pub store: String,
    pub answers: bool,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<String>,
    /// How many members limits are counted for; without the store, as many as were known last.
    pub counted: u64,
    /// What somebody should look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// As last heard, this one among them.
    pub members: Vec<MemberStatus>,
}

/// A row a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub name: String,
    /// It is the one that tells this.
    pub here: bool,
    /// `same` as this one's, `another`, or `gone`: it was not seen for five seconds.
    pub config: String,
    pub generation: u64,
    /// Its first twelve digits.
    pub hash: String,
    /// Since when it is in use there.
    pub since: String,
    pub version: String,
    pub seen_seconds: u64,
}
