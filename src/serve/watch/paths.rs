//! Which directories to watch for which names, and how files look from outside.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::WatchSet;

/// What is of interest in one directory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Interest {
    /// Files, symlinks on the way to them, and what is missing on the way.
    pub names: HashSet<OsString>,
    /// Every file: an include glob looks here.
    pub any: bool,
    /// Requests are put here.
    pub requests: bool,
}

impl Interest {
    pub(super) fn join(&mut self, other: Self) {
        self.names.extend(other.names);
        self.any |= other.any;
        self.requests |= other.requests;
    }

    /// Whether anything but requests is of interest.
    pub(super) fn config(&self) -> bool {
        self.any || !self.names.is_empty()
    }
}

/// The real directories to watch. Their parents need no watch: that a directory itself goes, its own watch tells.
pub(super) fn interests(set: &WatchSet) -> BTreeMap<PathBuf, Interest> {
    let mut walk = Walk::default();
    for file in &set.files {
        walk.file(file);
    }
    for dir in &set.globs_dirs {
        if let Some(real) = walk.dir(dir) {
            walk.found.entry(real).or_default().any = true;
        }
    }
    if !set.requests.as_os_str().is_empty()
        && let Some(real) = walk.dir(&set.requests)
    {
        walk.found.entry(real).or_default().requests = true;
    }
    walk.found
}

#[derive(Default)]
struct Walk {
    found: BTreeMap<PathBuf, Interest>,
    /// Directories as they were named, and what they really are.
    known: HashMap<PathBuf, Option<PathBuf>>,
}

impl Walk {
    fn file(&mut self, path: &Path) {
        let path = absolute(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        if let Some(real) = self.dir(parent)
            && let Some(file) = self.follow(real, VecDeque::from([name.to_owned()]))
            && let (Some(parent), Some(name)) = (file.parent(), file.file_name())
        {
            self.name(parent, name);
        }
    }

    /// Where a directory really is; `None`: something on the way is missing, and watched for.
    fn dir(&mut self, path: &Path) -> Option<PathBuf> {
        let path = absolute(path);
        if let Some(known) = self.known.get(&path) {
            return known.clone();
        }
        let real = self.follow(PathBuf::from("/"), parts(&path));
        self.known.insert(path, real.clone());
        real
    }

    fn name(&mut self, dir: &Path, name: &OsStr) {
        let interest = self.found.entry(dir.to_owned()).or_default();
        interest.names.insert(name.to_owned());
    }

    /// Goes on from `real`, part by part, and notes every symlink, for any of them may be swapped.
    fn follow(&mut self, mut real: PathBuf, mut todo: VecDeque<OsString>) -> Option<PathBuf> {
        // As many as Linux follows.
        let mut links = 40;
        while let Some(part) = todo.pop_front() {
            if part == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&part);
            match fs::read_link(&next) {
                Ok(target) => {
                    self.name(&real, &part);
                    links -= 1;
                    if links == 0 {
                        return None;
                    }
                    if target.is_absolute() {
                        real = PathBuf::from("/");
                    }
                    for part in parts(&target).into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                // It is there, and is no symlink.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => real = next,
                Err(_) => {
                    self.name(&real, &part);
                    return None;
                }
            }
        }
        Some(real)
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// What editors and package managers leave beside a file for a moment. Only for names that nobody asked for.
pub(super) fn is_noise(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let ends = |ending: &str| name.ends_with(ending.as_bytes());
    // `..data` is what a ConfigMap swaps.
    (name.starts_with(b".") && !name.starts_with(b".."))
        || name.starts_with(b"#")
        || name == b"4913"
        || ["~", ".swp", ".swx", ".tmp", ".bak", ".dpkg-new", ".rpmnew"].iter().any(|ending| ends(ending))
}

/// A file from outside: another one, or one that was written to, has another stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    pub size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Whether it was changed at or after `at`.
    pub(super) fn since(&self, at: SystemTime) -> bool {
        // File times come from the kernel's coarse clock, which is a tick behind.
        let tick = Duration::from_millis(5);
        let (secs, nanos) = self.changed;
        let (Ok(secs), Ok(nanos)) = (u64::try_from(secs), u32::try_from(nanos)) else {
            return false;
        };
        SystemTime::UNIX_EPOCH + Duration::new(secs, nanos) + tick >= at
    }
}

/// All files of the set; `None`: not there.
pub(super) type Stamps = HashMap<PathBuf, Option<Stamp>>;

pub(super) fn stamps(set: &WatchSet) -> Stamps {
    let mut stamps: Stamps = set.files.iter().map(|path| (path.clone(), stamp(path))).collect();
    for dir in &set.globs_dirs {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if is_noise(&entry.file_name()) {
                continue;
            }
            let path = entry.path();
            if let Some(stamp) = stamp(&path) {
                stamps.insert(path, Some(stamp));
            }
        }
    }
    stamps
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = fs::metadata(path).ok().filter(|about| !about.is_dir())?;
    Some(Stamp {
        dev: about.dev(),
        ino: about.ino(),
        size: about.size(),
        modified: (about.mtime(), about.mtime_nsec()),
        changed: (about.ctime(), about.ctime_nsec()),
    })
}

/// Whether a request waits.
pub(super) fn has_requests(dir: &Path) -> bool {
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| is_request(&entry.file_name()))
}

pub(super) fn is_request(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".json") && !name.starts_with(b".")
}
