//! From one process to the next, with no connection refused: the old one starts the new binary and gives it what it holds.
//!
//! They talk over a socket pair whose other end is the new process's standard input; nobody else can reach it, and secrets never touch
//! a disk. [`wire`] has its frames.
//!
//! ```text
//! old                                             new
//! starts the binary, with its own arguments
//! Hello: versions, listening sockets, the lock →
//!                                                 reads the config, certificates, takes the sockets, starts workers
//!                                               ← Ready, or Failed and why
//! writes state_dir for the last time
//! Go: what was counted                          →
//!                                                 accepts
//!                                               ← Serving
//! tells systemd who is the main process now
//! Yours                                         →  writes state_dir, tells systemd that it is ready
//! takes no more connections, drains
//! Counted: what its last requests took          →  adds it
//! ends
//! ```
//!
//! Up to `Serving` the old one serves and can go on: a new one that fails, hangs or ends is told of, and forgotten. Both accept for a moment,
//! from the same sockets, which are never closed and never bound anew: what waits in the kernel's queue is taken by either.

pub mod baggage;
pub mod new;
pub mod old;
mod wire;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::receipt::as_text;
use crate::config::model::ListenAddress;

/// Of what is said here. A process that speaks another one is told so, and the old one goes on.
const PROTOCOL: u32 = 1;

/// In the new process's environment: the protocol's number. Its standard input is the old one then.
const VARIABLE: &str = "GATEPOST_HAND_OVER";

/// Whose a listening socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Callers of functions come by it.
    In,
    /// Functions go out by it.
    Out,
    Admin,
    /// systemd's, and nobody has asked for it yet.
    Spare,
}

/// What is said of a listening socket; the socket itself comes beside the words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOf {
    pub role: Role,
    /// The listener's.
    pub name: String,
    /// As the config says it: port 0 too.
    pub address: String,
    /// systemd opened it, and keeps it.
    #[serde(default)]
    pub activated: bool,
}

impl SocketOf {
    pub fn new(role: Role, name: &str, address: &ListenAddress, activated: bool) -> Self {
        Self { role, name: name.to_owned(), address: address.to_string(), activated }
    }
}

/// What is said, by either side.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
enum Message {
    Hello(Box<Hello>),
    Ready {
        version: String,
        pid: u32,
    },
    Failed {
        why: String,
    },
    Go,
    /// A piece of what goes along; pieces come before `go` and behind `yours`.
    Baggage(Box<baggage::Piece>),
    Serving,
    Yours,
    /// Of a later version: whatever it is, it can be done without.
    #[serde(other)]
    Unknown,
}

impl Message {
    /// For people. Not what is in it: there are secrets among that.
    fn word(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Ready { .. } => "ready",
            Self::Failed { .. } => "failed",
            Self::Go => "go",
            Self::Baggage(_) => "baggage",
            Self::Serving => "serving",
            Self::Yours => "yours",
            Self::Unknown => "something else",
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    protocol: u32,
    version: String,
    pid: u32,
    sockets: Vec<SocketOf>,
    /// The lock of `state_dir` is the last descriptor.
    lock: bool,
    state_dir: PathBuf,
    /// What is needed before the first config is compiled.
    #[serde(default)]
    early: baggage::Piece,
}

/// What an upgrade answers: to the log, and to `gatepost upgrade`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeReceipt {
    pub result: UpgradeResult,
    pub from: Process,
    /// `None`: it said nothing.
    pub to: Option<Process>,
    pub binary: PathBuf,
    /// Why it was not upgraded.
    pub report: Option<String>,
    #[serde(with = "as_text")]
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub version: String,
}

impl Process {
    /// This one.
    pub fn own() -> Self {
        Self { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeResult {
    /// The new process serves; the old one finishes what it has.
    Upgraded,
    /// The old process goes on as if nothing had been.
    Failed,
}

impl std::fmt::Display for UpgradeReceipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Process { pid, version } = &self.from;
        match (self.result, &self.to) {
            (UpgradeResult::Upgraded, Some(to)) => write!(
                f,
                "gatepost {} (pid {}) serves; {version} (pid {pid}) finishes what it has and ends",
                to.version, to.pid
            ),
            _ => {
                if let Some(report) = &self.report {
                    writeln!(f, "{}", report.trim_end())?;
                }
                write!(f, "not upgraded: gatepost {version} (pid {pid}) goes on serving")
            }
        }
    }
}
