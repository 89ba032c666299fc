//! Secrets by reference: `"env:NAME"`, `"file:/path"`, `"credential:name"`. A value never stands in the file.

use std::path::PathBuf;

/// Where a secret is to be read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// `env:NAME`: the environment of the process.
    Env(String),
    /// `file:/path`: followed when the file changes.
    File(PathBuf),
    /// `credential:name`: systemd's `$CREDENTIALS_DIRECTORY/name`.
    Credential(String),
}
