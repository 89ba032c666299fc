//! The generations: each applied config has a number, its texts are kept, and what changed is in `history.jsonl`.
//!
//! ```text
//! state_dir/lock                         held by the one gatepost that uses the directory; its pid
//! state_dir/generations/000042/          manifest.json and the texts, of the last 50
//! state_dir/history.jsonl                one line per generation, only ever appended to
//! ```
//!
//! A generation is written beside its place, synced and renamed, and then told in the history: a crash leaves at worst a
//! hidden directory, or one without its line, or half a last line, all of which the next start mends. Trouble with the disk
//! never stops a reload: the number goes on in memory, and the caller is told.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::receipt::as_text;
use crate::config::changes::Change;

/// So many generations keep their texts.
pub const KEPT: usize = 50;

/// Why the state can't be kept. The cause is in the message.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("another gatepost ({}) uses {dir}: stop it, or give this one a server.state_dir of its own", pid_words(*pid))]
    InUse { dir: PathBuf, pid: Option<u32> },
    #[error("cannot {doing} {path}: {cause}")]
    Io { doing: &'static str, path: PathBuf, cause: io::Error },
    #[error("generation {generation} is not kept in {dir}: the last {KEPT} are, see `gatepost history`")]
    NotKept { generation: u64, dir: PathBuf },
    #[error("{path} is damaged: {cause}")]
    Damaged { path: PathBuf, cause: serde_json::Error },
    #[error("{dir} could not be used at start, so nothing is kept until a restart")]
    Detached { dir: PathBuf },
}

fn pid_words(pid: Option<u32>) -> String {
    pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"))
}

/// Who made a change, and why, where that is known: a hand edit has neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Author {
    pub by: Option<String>,
    pub reason: Option<String>,
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub generation: u64,
    #[serde(with = "as_text")]
    pub at: Timestamp,
    pub hash: String,
    /// In words, as the receipt had them.
    pub change: Vec<String>,
    /// Why, in numbers, where gatepost itself decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<serde_json::Value>,
    #[serde(flatten)]
    pub author: Author,
}

/// What a generation's directory holds.
#[derive(Serialize, Deserialize)]
struct Manifest {
    generation: u64,
    #[serde(with = "as_text")]
    at: Timestamp,
    hash: String,
    files: Vec<Stored>,
}

/// A text's own name may be an absolute path; the name that it is stored by is safe.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    stored: String,
}

/// The numbers and texts of the configs that were applied. One per process, and one process per directory.
#[derive(Debug)]
pub struct Generations {
    dir: PathBuf,
    /// Held as long as this lives; the kernel frees it whatever the process dies of.
    lock: Option<File>,
    newest: Option<Newest>,
    /// Why the last writing failed, if it did.
    failed: Option<String>,
}

#[derive(Debug)]
struct Newest {
    generation: u64,
    hash: String,
    /// Its texts are on the disk.
    kept: bool,
    /// Its line is in the history.
    told: bool,
}

impl Generations {
    /// Takes `state_dir` for this process, makes it (0750) where it is missing, and mends what a crash left.
    ///
    /// # Errors
    ///
    /// [`StateError::InUse`] when another gatepost has it; otherwise the directory can't be written to, and
    /// [`Generations::detached`] goes on without.
    pub fn open(state_dir: &Path) -> Result<Self, StateError> {
        make_dir(state_dir)?;
        let lock = take_lock(state_dir)?;
        let texts = texts_dir(state_dir);
        make_dir(&texts)?;
        remove_leftovers(&texts);
        mend_history(&history_file(state_dir))?;
        Ok(Self { dir: state_dir.to_owned(), lock: Some(lock), newest: newest(state_dir), failed: None })
    }

    /// Takes `state_dir` over from another process, whose lock this is; it writes there until [`Generations::refresh`].
    pub fn inherit(state_dir: &Path, lock: OwnedFd) -> Self {
        Self { dir: state_dir.to_owned(), lock: Some(lock.into()), newest: newest(state_dir), failed: None }
    }

    /// The other process writes no more: what it wrote last counts.
    pub fn refresh(&mut self) {
        if let Some(mut lock) = self.lock.as_ref() {
            tell_pid(&mut lock, &lock_file(&self.dir));
            self.newest = newest(&self.dir);
        }
    }

    /// A second handle of the lock, for who takes over: it is held as long as one of them is there.
    pub fn lock(&self) -> io::Result<Option<OwnedFd>> {
        self.lock.as_ref().map(|lock| lock.try_clone().map(OwnedFd::from)).transpose()
    }

    /// Another process has the directory now: nothing is written from here on.
    pub fn let_go(&mut self) {
        self.lock = None;
    }

    /// Numbers without a directory to keep anything in: every [`record`](Self::record) fails and counts on.
    ///
    /// Goes on from what can be read of `state_dir`.
    pub fn detached(state_dir: &Path) -> Self {
        Self { dir: state_dir.to_owned(), lock: None, newest: newest(state_dir), failed: None }
    }

    /// Whether nothing is kept, since the directory could not be used.
    pub fn is_detached(&self) -> bool {
        self.lock.is_none()
    }

    /// Tries once more to use the directory. The number that was counted in memory goes on.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); all is as before then.
    pub fn reopen(&mut self) -> Result<(), StateError> {
        let opened = Self::open(&self.dir)?;
        let newest = match self.newest.take() {
            Some(mine) if mine.generation > opened.current() => Some(Newest { kept: false, told: false, ..mine }),
            _ => opened.newest,
        };
        *self = Self { newest, ..opened };
        Ok(())
    }

    /// What is wrong with the directory, in words; `None`: all is written.
    pub fn trouble(&self) -> Option<String> {
        if self.is_detached() {
            let dir = self.dir.display();
            return Some(format!(
                "{dir} cannot be used: generations are not kept, and commands do not reach this gatepost"
            ));
        }
        self.failed.clone()
    }

    /// The number of the newest generation; 0 before the first.
    pub fn current(&self) -> u64 {
        self.newest.as_ref().map_or(0, |newest| newest.generation)
    }

    /// The number that a config with this hash has or would get.
    pub fn number_for(&self, hash: &str) -> u64 {
        match &self.newest {
            Some(newest) if newest.hash == hash => newest.generation,
            _ => self.current() + 1,
        }
    }

    /// Keeps a config that was applied, and says its number; [`current`](Self::current) has it even on an error.
    ///
    /// The hash of the newest generation gets that one's number, and nothing is written (but what an earlier error left out).
    /// `sources` are the texts with their names, as the config names them. Syncs to disk: milliseconds, or on a busy
    /// disk more.
    ///
    /// # Errors
    ///
    /// The disk is full or can't be written to. The config may serve all the same: say that the state is degraded.
    pub fn record(
        &mut self,
        sources: &[(String, String)],
        hash: &str,
        changes: &[Change],
        author: &Author,
        at: Timestamp,
    ) -> Result<u64, StateError> {
        let recorded = self.try_record(sources, hash, changes, author, at);
        self.failed = recorded.as_ref().err().map(ToString::to_string);
        recorded
    }

    fn try_record(
        &mut self,
        sources: &[(String, String)],
        hash: &str,
        changes: &[Change],
        author: &Author,
        at: Timestamp,
    ) -> Result<u64, StateError> {
        let generation = self.number_for(hash);
        let before = self.newest.take();
        let newest = self.newest.insert(match before {
            Some(newest) if newest.generation == generation => newest,
            _ => Newest { generation, hash: hash.to_owned(), kept: false, told: false },
        });
        if newest.kept && newest.told {
            return Ok(generation);
        }
        if self.lock.is_none() {
            return Err(StateError::Detached { dir: self.dir.clone() });
        }
        let manifest = Manifest { generation, at, hash: hash.to_owned(), files: names(sources) };
        if !newest.kept {
            store(&texts_dir(&self.dir), &manifest, sources)?;
            newest.kept = true;
        }
        let entry = Entry {
            generation,
            at,
            hash: hash.to_owned(),
            change: changes.iter().map(|change| change.text.clone()).collect(),
            evidence: None,
            author: author.clone(),
        };
        if !newest.told {
            append(&history_file(&self.dir), &entry)?;
            newest.told = true;
        }
        prune(&texts_dir(&self.dir));
        Ok(generation)
    }

    /// Tells in the history what happened within the newest generation.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record).
    pub fn tell(
        &mut self,
        text: &str,
        evidence: Option<serde_json::Value>,
        author: &Author,
        at: Timestamp,
    ) -> Result<(), StateError> {
        let Some(newest) = &self.newest else { return Ok(()) };
        if self.lock.is_none() {
            return Err(StateError::Detached { dir: self.dir.clone() });
        }
        let (generation, hash) = (newest.generation, newest.hash.clone());
        let newest_is_kept = newest.kept && newest.told;
        let change = vec![text.to_owned()];
        let entry = Entry { generation, at, hash, change, evidence, author: author.clone() };
        let told = append(&history_file(&self.dir), &entry);
        if let Err(error) = &told {
            self.failed = Some(error.to_string());
        } else if newest_is_kept {
            self.failed = None;
        }
        told
    }

    /// The whole history, oldest first.
    pub fn list(&self) -> Result<Vec<Entry>, StateError> {
        history(&self.dir)
    }

    /// The texts of a generation, with the names that they had.
    pub fn read(&self, generation: u64) -> Result<Vec<(String, String)>, StateError> {
        read(&self.dir, generation)
    }
}

/// The history of `state_dir`, oldest first; for commands, which hold no lock. Lines that are not whole are left out.
pub fn history(state_dir: &Path) -> Result<Vec<Entry>, StateError> {
    let path = history_file(state_dir);
    match fs::read(&path) {
        Ok(text) => Ok(lines(&text).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(failed("read", &path, source)),
    }
}

/// The texts of a generation of `state_dir`, with the names that they had; for commands, which hold no lock.
pub fn read(state_dir: &Path, generation: u64) -> Result<Vec<(String, String)>, StateError> {
    let dir = texts_dir(state_dir).join(dir_name(generation));
    let manifest = match read_manifest(&dir) {
        Err(StateError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            return Err(StateError::NotKept { generation, dir: state_dir.into() });
        }
        manifest => manifest?,
    };
    manifest
        .files
        .into_iter()
        .map(|Stored { name, stored }| {
            let path = dir.join(Path::new(&stored).file_name().unwrap_or_default());
            let text = fs::read_to_string(&path).map_err(|e| failed("read", &path, e))?;
            Ok((name, text))
        })
        .collect()
}

/// Whether a gatepost holds `state_dir`.
///
/// # Errors
///
/// The lock can't be looked at: the caller is neither root nor the service's user.
pub fn holder(state_dir: &Path) -> io::Result<bool> {
    let file = match File::open(lock_file(state_dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // Held for a moment only, which the one who starts meanwhile waits out.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn lock_file(state_dir: &Path) -> PathBuf {
    state_dir.join("lock")
}

fn texts_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("generations")
}

fn history_file(state_dir: &Path) -> PathBuf {
    state_dir.join("history.jsonl")
}

fn dir_name(generation: u64) -> String {
    format!("{generation:06}")
}

fn failed(doing: &'static str, path: &Path, cause: io::Error) -> StateError {
    StateError::Io { doing, path: path.to_owned(), cause }
}

fn make_dir(path: &Path) -> Result<(), StateError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|source| failed("make", path, source))
}

fn take_lock(state_dir: &Path) -> Result<File, StateError> {
    let path = lock_file(state_dir);
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(&path)
        .map_err(|source| failed("open", &path, source))?;
    // A command that asks whether the service runs holds it for a moment.
    let patience = Instant::now() + Duration::from_millis(300);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < patience => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(StateError::InUse { dir: state_dir.into(), pid: text.trim().parse().ok() });
            }
            Err(error) => return Err(failed("lock", &path, error.into())),
        }
    }
    tell_pid(&mut &file, &path);
    Ok(file)
}

/// Only for people and for the message above: a full disk is no reason not to start.
fn tell_pid(file: &mut &File, path: &Path) {
    let told = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = told {
        tracing::warn!(path = %path.display(), %error, "pid not written to the lock");
    }
}

/// What was being written or removed when the process died.
fn remove_leftovers(texts: &Path) {
    let Ok(entries) = fs::read_dir(texts) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Ends the last line, or takes it away where it is only half a line.
fn mend_history(path: &Path) -> Result<(), StateError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("read", path, source)),
    };
    let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let rest = &text[whole..];
    if rest.is_empty() {
        return Ok(());
    }
    let mended = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| {
        match serde_json::from_slice::<Entry>(rest) {
            Ok(_) => {
                file.seek(SeekFrom::End(0))?;
                file.write_all(b"\n")?;
            }
            Err(_) => file.set_len(whole as u64)?,
        }
        file.sync_all()
    });
    mended.map_err(|source| failed("mend", path, source))
}

/// The newest generation that is on the disk, in part at least.
fn newest(state_dir: &Path) -> Option<Newest> {
    let told = fs::read(history_file(state_dir))
        .ok()
        .and_then(|text| lines(&text).next_back())
        .map(|entry| (entry.generation, entry.hash));
    let texts = texts_dir(state_dir);
    let kept = kept(&texts).pop();
    match (told, kept) {
        (Some((generation, hash)), kept) if kept.is_none_or(|kept| kept <= generation) => {
            Some(Newest { generation, hash, kept: kept == Some(generation), told: true })
        }
        // It died between the texts and the line.
        (_, Some(generation)) => Some(Newest {
            generation,
            hash: read_manifest(&texts.join(dir_name(generation))).map(|manifest| manifest.hash).unwrap_or_default(),
            kept: true,
            told: false,
        }),
        (_, None) => None,
    }
}

fn lines(text: &[u8]) -> impl DoubleEndedIterator<Item = Entry> {
    text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

/// The numbers of the generations whose texts are there, ascending.
fn kept(texts: &Path) -> Vec<u64> {
    let mut kept: Vec<u64> = fs::read_dir(texts)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    kept.sort_unstable();
    kept
}

fn read_manifest(dir: &Path) -> Result<Manifest, StateError> {
    let path = dir.join("manifest.json");
    let text = fs::read(&path).map_err(|source| failed("read", &path, source))?;
    serde_json::from_slice(&text).map_err(|cause| StateError::Damaged { path, cause })
}

fn names(sources: &[(String, String)]) -> Vec<Stored> {
    sources
        .iter()
        .enumerate()
        .map(|(number, (name, _))| Stored { name: name.clone(), stored: format!("{number:03}-{}", safe(name)) })
        .collect()
}

/// The last part of a path in letters that no file system minds.
fn safe(name: &str) -> String {
    let last = Path::new(name).file_name().and_then(OsStr::to_str);
    last.unwrap_or("file")
        .chars()
        .take(64)
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => c,
            _ => '_',
        })
        .collect()
}

fn store(texts: &Path, manifest: &Manifest, sources: &[(String, String)]) -> Result<(), StateError> {
    // It may have been taken away since the start.
    make_dir(texts)?;
    let name = dir_name(manifest.generation);
    let (place, beside) = (texts.join(&name), texts.join(format!(".new-{name}")));
    let written = fill(&beside, manifest, sources)
        .and_then(|()| {
            // Of an attempt that failed later; a directory that holds something can't be renamed over.
            match fs::remove_dir_all(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
        .and_then(|()| fs::rename(&beside, &place))
        .and_then(|()| File::open(texts)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    written.map_err(|source| failed("write", &place, source))
}

fn fill(dir: &Path, manifest: &Manifest, sources: &[(String, String)]) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o750).create(dir)?;
    for (Stored { stored, .. }, (_, text)) in manifest.files.iter().zip(sources) {
        write_synced(&dir.join(stored), text.as_bytes())?;
    }
    let manifest = serde_json::to_vec_pretty(manifest)?;
    write_synced(&dir.join("manifest.json"), &manifest)?;
    File::open(dir)?.sync_all()
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn append(path: &Path, entry: &Entry) -> Result<(), StateError> {
    let append = || -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        let before = file.metadata()?.len();
        let written = file.write_all(&line).and_then(|()| file.sync_all());
        if before == 0
            && let Some(dir) = path.parent()
        {
            // The line is there, only a power cut could still lose the new file.
            let _ = File::open(dir).and_then(|dir| dir.sync_all());
        }
        if written.is_err() {
            // Half a line would spoil the next one.
            let _ = file.set_len(before);
        }
        written
    };
    append().map_err(|source| failed("write", path, source))
}

/// Takes away the oldest. Out of sight first, so that a half removed one is never taken for a generation.
fn prune(texts: &Path) {
    let kept = kept(texts);
    for generation in &kept[..kept.len().saturating_sub(KEPT)] {
        let name = dir_name(*generation);
        let hidden = texts.join(format!(".old-{name}"));
        let gone = fs::rename(texts.join(&name), &hidden).and_then(|()| fs::remove_dir_all(&hidden));
        if let Err(error) = gone {
            tracing::warn!(generation, %error, "old generation not removed");
        }
    }
}

#[cfg(test)]
#[path = "generations_tests.rs"]
mod tests;
