//! What outlives the process: `state_dir/releases.json`, which the service alone writes.
//!
//! Written beside its place, synced and renamed: what is read is what was written last, whole, whatever the process died of.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ramp::Progress;
use crate::config::model::Share;

/// The form that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// By the names of functions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: u32,
    pub functions: BTreeMap<String, OfFunction>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfFunction {
    /// By the names of versions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub latches: BTreeMap<String, Latch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Progress>,
}

impl OfFunction {
    pub(super) fn is_empty(&self) -> bool {
        self.latches.is_empty() && self.ramp.is_none()
    }
}

/// A version that was sent back. It gets no share until somebody says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latch {
    /// When, in RFC 3339.
    pub at: String,
    /// Who sent it back: `guard`, for instance.
    pub by: String,
    /// Why, for people, on one line.
    pub reason: String,
    /// The same in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Value>,
    /// What the file says of the version: a rise above it lifts the latch.
    pub(super) number: Number,
}

/// A version's own number in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// In hundredths of a percent.
    pub share: u16,
    /// It is what the others leave: it rises and falls by their numbers, not by its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rest: bool,
}

impl Number {
    pub(super) fn rose(self, to: Self) -> bool {
        !(self.rest && to.rest) && to.share > self.share
    }

    pub(super) fn fell(self, to: Self) -> bool {
        !(self.rest && to.rest) && to.share < self.share
    }

    pub(super) fn as_share(self) -> Share {
        Share(self.share)
    }
}

/// Why the state can't be known.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("cannot read {path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    #[error("{path} is damaged: {cause}")]
    Damaged { path: PathBuf, cause: serde_json::Error },
    #[error("{path} has format {format}, and this gatepost knows format {FORMAT} only")]
    Format { path: PathBuf, format: u32 },
}

/// Where it is.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("releases.json")
}

impl State {
    /// What was written last; nothing, where nothing was. For the service, and for commands that only look.
    ///
    /// # Errors
    ///
    /// It is there and can't be understood: nobody knows what is latched.
    pub fn read(state_dir: &Path) -> Result<Self, Unreadable> {
        let path = path(state_dir);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(cause) => return Err(Unreadable::Io { path, cause }),
        };
        /// Any format has this.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        match serde_json::from_slice::<Head>(&text) {
            Ok(Head { format: FORMAT }) => {}
            Ok(Head { format }) => return Err(Unreadable::Format { path, format }),
            Err(cause) => return Err(Unreadable::Damaged { path, cause }),
        }
        serde_json::from_slice(&text).map_err(|cause| Unreadable::Damaged { path, cause })
    }

    /// Whole or not at all, and on the disk when this is back.
    ///
    /// # Errors
    ///
    /// The disk is full, or can't be written to: what was there before is still there.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let path = path(state_dir);
        let temporary = path.with_file_name(".releases.json");
        let mut text = serde_json::to_vec_pretty(&Self { format: FORMAT, ..self.clone() })?;
        text.push(b'\n');
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(state_dir)?.sync_all()
    }
}

/// Puts a state that can't be understood aside, for people to look at; says where it is now.
///
/// # Errors
///
/// It can't be renamed.
pub fn put_aside(state_dir: &Path, at: &str) -> io::Result<PathBuf> {
    let aside = state_dir.join(format!("releases.json.unreadable-{at}"));
    fs::rename(path(state_dir), &aside)?;
    Ok(aside)
}
