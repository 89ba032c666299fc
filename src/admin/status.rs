//! What is told as JSON, by the server and to `gatepost status` and `gatepost reload`.

use serde::{Deserialize, Serialize};

use crate::release::Told;

/// The answer of `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    /// Of the config in use.
    pub generation: u64,
    pub hash: String,
    /// Since when it is in use: RFC 3339, UTC.
    pub since: String,
    pub listeners: Vec<ListenerStatus>,
    /// A row a version, by function and in the order of the file.
    #[serde(default)]
    pub functions: Vec<VersionStatus>,
    /// A row a canary that a guard judges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardStatus>,
    /// A row a mirror.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorStatus>,
    /// Ramps and latches: what is not as the file alone would have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<Told>,
    /// A row an address to leave from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
    /// A row a function that has a budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetStatus>,
    /// The keys of token issuers that are fetched, by URL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jwks: Vec<JwksStatus>,
    /// A row a certificate, by listener and in the order of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// `None`: alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<super::ClusterStatus>,
    /// `None`: none since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<Receipt>,
    /// What does not work as it should while the rest serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<DegradedStatus>,
    pub draining: bool,
    pub workers: usize,
}

/// A part that does not work as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DegradedStatus {
    pub what: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    pub name: String,
    /// As bound: port 0 of the config is a real one here.
    pub address: String,
    pub tls: bool,
    /// Open now.
    pub connections: u64,
    /// Whether this machine has the address: a standby's floating one is with the other machine.
    #[serde(default = "yes")]
    pub address_present: bool,
}

fn yes() -> bool {
    true
}

/// An address to leave from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub source: String,
    pub address: String,
    /// Whether this machine has it.
    pub here: bool,
    /// Connections that left from it.
    pub open: u64,
    /// What the world sees, where somebody is asked: `as public`, the other address that it sees, or why nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

/// A function's budget, today.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetStatus {
    pub function: String,
    /// Of the bound that is nearer.
    pub used_percent: f64,
    pub calls: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_day: Option<u64>,
    pub spend: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend_per_day: Option<f64>,
    pub action: String,
    /// Requests, since the start.
    pub refused: u64,
    /// When it is gone at the rate of the last minutes, in its time zone; `None`: not today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_ends: Option<String>,
}

/// A token issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwksStatus {
    pub url: String,
    /// In use.
    pub keys: u64,
    /// When they were fetched last: RFC 3339, UTC; `None`: not since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<String>,
    /// Why the last fetch failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A listener's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    pub listener: String,
    /// Its first name.
    pub name: String,
    /// RFC 3339, UTC; `None`: there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What somebody should see to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A version of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionStatus {
    pub function: String,
    pub version: String,
    /// Its share of the requests that nothing else decides, in percent.
    pub weight: f64,
    /// Whose word that is: `file`, `ramp`, `ejection` or `latch`.
    #[serde(default)]
    pub weights_from: String,
    /// Requests that it is working on.
    pub in_flight: u64,
}

/// What a guard says of a canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardStatus {
    pub function: String,
    pub version: String,
    /// `healthy`, `not_enough_data`, `too_many_errors`, `worse`, `slower` or `unusable`.
    pub verdict: String,
    /// Why, on one line.
    pub says: String,
    /// The same in numbers.
    pub evidence: serde_json::Value,
}

/// What became of the requests that a function's mirror got, or did not, since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorStatus {
    pub function: String,
    pub version: String,
    /// In percent.
    pub share: f64,
    pub same: u64,
    pub different: u64,
    /// The mirror gave no answer.
    pub failed: u64,
    /// The caller's own call gave nothing to compare with.
    pub aborted: u64,
    /// Not copied: too many at a time, too large, or over the function's budget.
    pub dropped: u64,
    pub too_large: u64,
    pub over_budget: u64,
    pub in_flight: u64,
    /// How long answers took to begin, of the pairs that were compared; `None`: there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_ms: Option<f64>,
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Applied,
    /// The old config serves on.
    Rejected,
    /// The files say what is in use already.
    Unchanged,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub result: Outcome,
    /// When: RFC 3339, UTC.
    pub at: String,
    /// Of the config in use afterwards.
    pub generation: u64,
    pub hash: String,
    /// What changed, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Keys that were changed and act after a restart only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for_restart: Vec<String>,
    /// Why it was rejected: every problem, with its place in the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}
