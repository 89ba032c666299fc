//! How a command asks the running service for something, without the admin port: a file in `state_dir/requests`, answered
//! by a file of the same name in `state_dir/receipts`.
//!
//! Both directories are the service's own (0700), so nobody else (but root) can ask. A file comes into its place by rename;
//! what starts with a dot is not finished.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::generations::{self, Author};

/// No request is longer.
const LONGEST: u64 = 64 * 1024;
/// An answer that nobody fetched goes after this time.
const KEPT: Duration = Duration::from_secs(600);
/// What was announced by then has not come, and will not.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// A request that is gone has its answer by then.
const UNANSWERED: Duration = Duration::from_secs(3);
/// How often the one who waits looks whether the service still runs.
const ALIVE: Duration = Duration::from_millis(250);

/// What is asked for, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub kind: Kind,
    /// Which one, where the kind is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The hash of the config that is about to be written: the request is about that one, and is its author's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expects: Option<String>,
    /// Of an upgrade: the file to start, where it is not the one that this gatepost was started from; and how many seconds it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    #[serde(flatten)]
    pub author: Author,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Read the config now, and tell what came of it.
    Reload,
    /// Lift the function's latches, and let its ramp go on.
    Resume,
    /// Hold its ramp where it is.
    Pause,
    /// Hold its ramp, and take what it gave away.
    Rollback,
    /// Hand over to a new process of the binary, as it is now. Answered by an [`UpgradeReceipt`](super::hand_over::UpgradeReceipt).
    Upgrade,
}

impl Request {
    pub fn new(kind: Kind, author: Author) -> Self {
        Self { kind, function: None, expects: None, binary: None, patience: None, author }
    }
}

/// The name of a request and of its answer: letters, digits and `-`. In the order of their age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    /// When it was made, by the clock of who asked.
    pub(super) fn age(&self) -> Duration {
        let nanos = self.0.get(..20).and_then(|nanos| u128::from_str_radix(nanos, 16).ok()).unwrap_or_default();
        let at = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(at)
    }

    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = now.unwrap_or_default().as_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{nanos:020x}-{}-{count}", std::process::id()))
    }

    fn parse(file_name: &str) -> Option<Self> {
        let id = file_name.strip_suffix(".json")?;
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (!id.is_empty() && id.len() <= 64 && id.bytes().all(fine)).then(|| Self(id.to_owned()))
    }

    fn file_name(&self) -> String {
        format!("{}.json", self.0)
    }
}

/// Why a request got no receipt. The cause is in the message.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no gatepost is running with state_dir {dir}: start it, or name its config with --config")]
    NotRunning { dir: PathBuf },
    #[error("no answer from the gatepost at {dir} within {} s: look into its log", waited.as_secs())]
    Timeout { dir: PathBuf, waited: Duration },
    #[error("{path} may be used by the service's user and root only: run this as one of them")]
    Denied { path: PathBuf },
    #[error(
        "the gatepost at {dir} took the request away without an answer: it is of a version that does not know it (restart it instead), or its disk is full; its log says which"
    )]
    NoAnswer { dir: PathBuf },
    #[error("{doing} {path}: {cause}")]
    Io { doing: &'static str, path: PathBuf, cause: io::Error },
    #[error("the answer in {path} is not understood: is the running gatepost of another version? ({cause})")]
    NotUnderstood { path: PathBuf, cause: serde_json::Error },
}

/// Where requests are put: what the service watches.
pub fn dir(state_dir: &Path) -> PathBuf {
    state_dir.join("requests")
}

fn receipts(state_dir: &Path) -> PathBuf {
    state_dir.join("receipts")
}

/// Asks the service for something and waits for its receipt. Blocks the thread.
///
/// # Errors
///
/// [`AskError::NotRunning`] at once when no service holds `state_dir`, and when it ends while this waits.
pub fn ask<T: DeserializeOwned>(state_dir: &Path, request: &Request, timeout: Duration) -> Result<T, AskError> {
    must_run(state_dir)?;
    Asking::new(state_dir, request)?.wait(timeout)
}

/// A request that has been made, and whose receipt is still to come.
#[derive(Debug)]
pub struct Asking {
    state_dir: PathBuf,
    asked: PathBuf,
    answer: PathBuf,
    /// It is to be done by the next who starts, where nobody runs.
    lasting: bool,
}

impl Asking {
    /// Leaves the request for the service; for one that is to start, where none runs now.
    ///
    /// # Errors
    ///
    /// The directory can't be written to; no service has ever made one.
    pub fn new(state_dir: &Path, request: &Request) -> Result<Self, AskError> {
        let runs = must_run(state_dir);
        if runs.is_err() && !dir(state_dir).is_dir() {
            runs?;
        }
        let id = Id::new();
        let asked = dir(state_dir).join(id.file_name());
        let text = serde_json::to_vec(request).map_err(io::Error::from);
        // The service may be another user than root, who asks; the directory is what keeps others out.
        text.and_then(|text| put(&asked, &text, 0o644)).map_err(|source| io_error("cannot write", &asked, source))?;
        Ok(Self {
            state_dir: state_dir.to_owned(),
            asked,
            answer: receipts(state_dir).join(id.file_name()),
            lasting: match request.kind {
                Kind::Reload => request.expects.is_some(),
                // Whoever starts next is a new process anyway.
                Kind::Upgrade => false,
                Kind::Resume | Kind::Pause | Kind::Rollback => true,
            },
        })
    }

    /// Waits for the receipt. Blocks the thread.
    ///
    /// # Errors
    ///
    /// [`AskError::NotRunning`] where no service is there, or ends meanwhile: unless all that was asked for is a reload, the request stays.
    pub fn wait<T: DeserializeOwned>(self, timeout: Duration) -> Result<T, AskError> {
        let started = Instant::now();
        let mut looked = None;
        let mut gone: Option<Instant> = None;
        let result = loop {
            match fs::read(&self.answer) {
                Ok(text) => break understood(&self.answer, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => break Err(io_error("cannot read", &self.answer, source)),
            }
            if started.elapsed() >= timeout {
                break Err(AskError::Timeout { dir: self.state_dir.clone(), waited: timeout });
            }
            if looked.is_none_or(|looked: Instant| looked.elapsed() >= ALIVE) {
                looked = Some(Instant::now());
                // It goes when it is answered, or not understood.
                match self.asked.exists() {
                    true => gone = None,
                    false if gone.is_none() => gone = looked,
                    false if gone.is_some_and(|gone| gone.elapsed() > UNANSWERED) => {
                        break Err(AskError::NoAnswer { dir: self.state_dir.clone() });
                    }
                    false => {}
                }
                if let Err(error) = must_run(&self.state_dir) {
                    break Err(error);
                }
            }
            thread::sleep(POLL);
        };
        if !(self.lasting && matches!(result, Err(AskError::NotRunning { .. }))) {
            self.withdraw();
        }
        result
    }

    /// Nobody waits any longer: neither for the request nor for its answer.
    pub fn withdraw(self) {
        for path in [&self.asked, &self.answer] {
            let _ = fs::remove_file(path);
        }
    }
}

fn must_run(state_dir: &Path) -> Result<(), AskError> {
    match generations::holder(state_dir) {
        Ok(true) => Ok(()),
        Ok(false) => Err(AskError::NotRunning { dir: state_dir.into() }),
        Err(source) => Err(io_error("cannot read", state_dir, source)),
    }
}

fn io_error(doing: &'static str, path: &Path, cause: io::Error) -> AskError {
    let path = path.to_owned();
    match cause.kind() {
        io::ErrorKind::PermissionDenied => AskError::Denied { path },
        _ => AskError::Io { doing, path, cause },
    }
}

fn understood<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, AskError> {
    serde_json::from_slice(text).map_err(|cause| AskError::NotUnderstood { path: path.into(), cause })
}

/// Makes the two directories, closed to others, and removes answers that nobody fetched. For the service's start.
pub fn prepare(state_dir: &Path) -> io::Result<()> {
    for dir in [dir(state_dir), receipts(state_dir)] {
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    clean(state_dir);
    Ok(())
}

/// The requests that wait for an answer, oldest first.
///
/// What is not understood is removed, with a warning; each of the others stays until it is answered.
pub fn pending(state_dir: &Path) -> Vec<(Id, Request)> {
    let Ok(entries) = fs::read_dir(dir(state_dir)) else {
        return Vec::new();
    };
    let mut waiting: Vec<_> = entries
        .flatten()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| {
            let path = entry.path();
            match read_request(&path, &entry) {
                Ok(request) => Some(request),
                // Whoever asked has given up meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "request not understood, removed");
                    let _ = fs::remove_file(&path);
                    None
                }
            }
        })
        .collect();
    waiting.sort_by(|(a, _), (b, _)| a.cmp(b));
    waiting
}

fn read_request(path: &Path, entry: &fs::DirEntry) -> io::Result<(Id, Request)> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let id =
        entry.file_name().to_str().and_then(Id::parse).ok_or_else(|| invalid("the name is not one of gatepost's"))?;
    // Anything else than a plain file could keep the reader waiting.
    let about = entry.metadata()?;
    if !about.is_file() || about.len() > LONGEST {
        return Err(invalid("not a plain file, or too long"));
    }
    let request = serde_json::from_slice(&fs::read(path)?)?;
    Ok((id, request))
}

/// Who announced the config with this hash.
pub fn author_of(state_dir: &Path, hash: &str) -> Option<Author> {
    let announced = |(_, request): (Id, Request)| (request.expects.as_deref() == Some(hash)).then_some(request.author);
    pending(state_dir).into_iter().find_map(announced)
}

/// Hands the receipt to whoever asked, and removes the request.
///
/// # Errors
///
/// The receipt can't be written, for instance because the disk is full. The request is gone all the same.
pub fn answer(state_dir: &Path, id: &Id, receipt: &impl Serialize) -> io::Result<()> {
    clean(state_dir);
    let written = serde_json::to_vec(receipt)
        .map_err(io::Error::from)
        .and_then(|text| put(&receipts(state_dir).join(id.file_name()), &text, 0o600));
    match fs::remove_file(dir(state_dir).join(id.file_name())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        _ => written,
    }
}

fn clean(state_dir: &Path) {
    let Ok(entries) = fs::read_dir(receipts(state_dir)) else {
        return;
    };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|about| about.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whole or not at all. Not synced: a request or an answer has no worth after a power cut.
fn put(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            // The mode that was asked for, whatever the umask.
            rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
            file.write_all(text)
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
