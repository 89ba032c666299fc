//! The texts of a config and places in them.

use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

/// One file of a config, as it was read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// As it was found: the main file's folder joined with what the glob matched.
    pub path: PathBuf,
    pub text: Arc<str>,
}

/// The texts of a config: the main file first, then its includes in the order in which they are read.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub files: Vec<SourceFile>,
    /// Folders in which an include's glob may find new files.
    pub(super) folders: BTreeSet<PathBuf>,
}

impl Sources {
    /// The texts as they would be read from these files; the first is the main file.
    pub fn new<P: Into<PathBuf>, T: AsRef<str>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        Self {
            files: files
                .into_iter()
                .map(|(path, text)| SourceFile { path: path.into(), text: text.as_ref().into() })
                .collect(),
            folders: BTreeSet::new(),
        }
    }

    /// SHA-256 (hex) over every file's name, relative to the main file's folder, and its text.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        let home = self.folder(0);
        for file in &self.files {
            let name = file.path.strip_prefix(&home).unwrap_or(&file.path);
            let name = name.as_os_str().as_encoded_bytes();
            for part in [name, file.text.as_bytes()] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        hex(&hasher.finalize())
    }

    /// What a watcher should follow: every file, and every folder in which an include may find new ones.
    pub fn watched(&self) -> Vec<PathBuf> {
        let files = self.files.iter().map(|file| file.path.clone());
        files.chain(self.folders.iter().cloned()).collect()
    }

    /// The folder that relative paths in file number `file` start from.
    pub(super) fn folder(&self, file: u32) -> PathBuf {
        self.files.get(file as usize).and_then(|file| file.path.parent()).map_or_else(PathBuf::new, Path::to_path_buf)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Bytes of one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub file: u32,
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub(super) fn new(file: u32, range: Range<usize>) -> Self {
        Self {
            file,
            start: u32::try_from(range.start).unwrap_or(u32::MAX),
            end: u32::try_from(range.end).unwrap_or(u32::MAX),
        }
    }
}

/// A value, and where it is written.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}
