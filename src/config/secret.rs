//! Secrets by reference: `"env:NAME"`, `"file:/path"`, `"credential:name"`. A value never stands in the file.

use std::{env, fmt, fs, io, path::PathBuf};

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

impl fmt::Display for SecretRef {
    /// As it is written in the config.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}

impl SecretRef {
    /// Reads the secret, without the newline at its end.
    ///
    /// # Errors
    ///
    /// When it is not there, cannot be read, is empty, or is not UTF-8.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let text = match self {
            Self::Env(name) => match env::var(name) {
                Ok(text) => text,
                Err(env::VarError::NotPresent) => return Err(SecretError::NotSet(name.clone())),
                Err(env::VarError::NotUnicode(_)) => return Err(SecretError::NotText),
            },
            Self::File(_) | Self::Credential(_) => {
                let path = self.path().ok_or(SecretError::OutsideService)?;
                let bytes = fs::read(&path).map_err(|source| SecretError::Unreadable { path, source })?;
                String::from_utf8(bytes).map_err(|_| SecretError::NotText)?
            }
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Secret(text.to_owned()))
    }

    /// The file that holds it; `None` for an environment variable, and for a credential outside of the service.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Env(_) => None,
            Self::File(path) => Some(path.clone()),
            Self::Credential(name) => {
                env::var_os("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join(name))
            }
        }
    }
}

/// A secret's value. It shows itself to nobody who does not ask by [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment has no variable {0}")]
    NotSet(String),
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("$CREDENTIALS_DIRECTORY is not set: credentials exist inside of the service only")]
    OutsideService,
    #[error("it is empty")]
    Empty,
    #[error("it is not UTF-8 text")]
    NotText,
}
