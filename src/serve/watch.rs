//! Notices that a file of the config may have changed, and that a request waits. It only says "look": whoever reads
//! compares contents.
//!
//! A prefix of a TOML file is valid, so a file in the middle of being written must not be read. inotify tells when a writer
//! closes; [`settle`] waits for that. Directories are watched, not files: editors and ConfigMaps put new files and symlinks in
//! their place. Where inotify tells nothing (some file systems, a file that is bind-mounted into a container), files
//! are looked at from time to time.

mod paths;
mod settle;

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use paths::{Interest, Stamp, Stamps};
use settle::Settle;

/// How often files are looked at where inotify works, for what it misses; see [`Watcher::poll_every`] for many files.
const POLL: Duration = Duration::from_millis(500);
const POLL_MANY: Duration = Duration::from_secs(2);
/// Where it doesn't work.
const POLL_ONLY: Duration = Duration::from_millis(250);
/// A file that was seen to have changed is told once it looks the same after this time.
const UNCHANGED: Duration = Duration::from_millis(100);
/// An empty file that was only seen, not heard of, is taken for one that is being written for this long.
const EMPTY: Duration = Duration::from_secs(2);

/// What to watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchSet {
    /// Every file that the config was read from or names: includes, certificates, CA bundles, secrets. They need not be there.
    pub files: Vec<PathBuf>,
    /// The directories that include globs look into: any file that comes or goes there counts.
    pub globs_dirs: Vec<PathBuf>,
    /// Where requests are put; empty: nowhere.
    pub requests: PathBuf,
    /// When the reader began to read the files: what changed since then and was not watched before is told at once.
    pub read_at: Option<SystemTime>,
}

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEvent {
    /// A file of the config may have changed, and is whole.
    Config,
    /// A request waits.
    Requests,
}

/// A watch, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    Set(WatchSet),
    Stop,
}

impl Watch {
    /// Watches, and calls `notify` on the watch's thread; it should hand the event on and return.
    ///
    /// # Errors
    ///
    /// No thread or no file descriptor is to be had. Without inotify it polls, and says so in the log.
    pub fn start(paths: WatchSet, notify: impl Fn(WatchEvent) + Send + 'static) -> io::Result<Self> {
        Self::start_with(paths, notify, Inotify::init())
    }

    fn start_with(
        paths: WatchSet,
        notify: impl Fn(WatchEvent) + Send + 'static,
        inotify: io::Result<Inotify>,
    ) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(rustix::event::eventfd(0, flags)?);
        let (commands, orders) = mpsc::channel();
        let mut watcher = Watcher::new(notify, inotify);
        // Before this returns, so that no change after it is missed.
        watcher.set(paths);
        let woken = Arc::clone(&wake);
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || watcher.run(&orders, &woken))?;
        Ok(Self { commands, wake, thread: Some(thread) })
    }

    /// Watches these from now on; what happened to the old ones and was not told yet still is.
    pub fn set(&self, paths: WatchSet) {
        self.order(Command::Set(paths));
    }

    fn order(&self, command: Command) {
        // Both fail only when the thread has ended, which only `drop` makes it do.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.order(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// A name in a watched directory, or the directory itself.
type Key = (i32, Option<OsString>);

struct Watcher<N> {
    notify: N,
    inotify: Option<Inotify>,
    set: WatchSet,
    dirs: HashMap<i32, Watched>,
    settle: Settle<Key>,
    /// How the files looked when they were last told, or set.
    told: Stamps,
    /// A change that was seen but not heard of.
    seen: Option<Seen>,
    next_poll: Instant,
    /// Not every directory could be watched.
    blind: bool,
    /// Something came or went: symlinks may lead elsewhere.
    moved: bool,
}

struct Watched {
    watch: WatchDescriptor,
    dir: PathBuf,
    interest: Interest,
}

struct Seen {
    stamps: Stamps,
    first: Instant,
}

impl<N: Fn(WatchEvent)> Watcher<N> {
    fn new(notify: N, inotify: io::Result<Inotify>) -> Self {
        let inotify = inotify
            .inspect_err(|error| {
                tracing::warn!(%error, "no inotify, files are looked at 4 times a second");
            })
            .ok();
        Self {
            notify,
            inotify,
            set: WatchSet::default(),
            dirs: HashMap::new(),
            settle: Settle::new(),
            told: Stamps::new(),
            seen: None,
            next_poll: Instant::now(),
            blind: false,
            moved: false,
        }
    }

    fn run(mut self, orders: &mpsc::Receiver<Command>, wake: &OwnedFd) {
        loop {
            loop {
                match orders.try_recv() {
                    Ok(Command::Set(set)) => self.set(set),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            self.wait(wake);
            self.hear();
            if self.moved {
                self.rewatch();
            }
            let now = Instant::now();
            if now >= self.next_poll {
                self.look(now);
            }
            self.fire_if_due(now);
        }
    }

    /// Until something happens, or there is something to do.
    fn wait(&self, wake: &OwnedFd) {
        let until = self.settle.deadline().map_or(self.next_poll, |at| at.min(self.next_poll));
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
        if let Some(inotify) = &self.inotify {
            fds.push(PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN));
        }
        // A signal only makes it look early.
        let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        // Emptied before the orders are read, so none of them is slept through.
        let _ = rustix::io::read(wake, &mut [0_u8; 8]);
    }

    fn set(&mut self, set: WatchSet) {
        self.set = set;
        self.rewatch();
        let fresh = paths::stamps(&self.set);
        let read_at = self.set.read_at;
        let missed = |path: &PathBuf, stamp: &Option<Stamp>| {
            !self.told.contains_key(path) && stamp.is_some_and(|stamp| read_at.is_some_and(|at| stamp.since(at)))
        };
        let missed = fresh.iter().any(|(path, stamp)| missed(path, stamp));
        // What was watched before keeps the look that was told: a change since then is still news.
        let before = std::mem::take(&mut self.told);
        self.told = fresh
            .into_iter()
            .map(|(path, stamp)| {
                let stamp = before.get(&path).copied().unwrap_or(stamp);
                (path, stamp)
            })
            .collect();
        let now = Instant::now();
        self.next_poll = now + self.poll_every();
        if missed {
            self.settle.complete((-1, None), now);
        }
        if paths::has_requests(&self.set.requests) {
            (self.notify)(WatchEvent::Requests);
        }
    }

    fn poll_every(&self) -> Duration {
        match (self.inotify.is_none() || self.blind, self.told.len()) {
            (true, _) => POLL_ONLY,
            (false, ..=250) => POLL,
            (false, _) => POLL_MANY,
        }
    }

    /// Watches the directories that the paths lead through now, and no others.
    fn rewatch(&mut self) {
        self.moved = false;
        let Some(inotify) = &self.inotify else {
            return;
        };
        let mut watches = inotify.watches();
        let mut wanted = paths::interests(&self.set);
        // What comes into being between the look and the watch is seen by the second look.
        for _ in 0..8 {
            let (dirs, error) = add_watches(&mut watches, &wanted);
            if let Some((dir, error)) = error {
                if !self.blind {
                    let dir = dir.display().to_string();
                    tracing::warn!(dir, %error, "directory not watched, files are looked at 4 times a second");
                }
                self.blind = true;
            } else {
                self.blind = false;
            }
            for (id, old) in std::mem::replace(&mut self.dirs, dirs) {
                if !self.dirs.contains_key(&id) {
                    // It may have gone by itself.
                    let _ = watches.remove(old.watch);
                }
            }
            let now = paths::interests(&self.set);
            if now == wanted {
                break;
            }
            wanted = now;
        }
    }

    /// Takes in what inotify tells.
    fn hear(&mut self) {
        let Some(mut inotify) = self.inotify.take() else {
            return;
        };
        let mut buffer = [0; 16 * 1024];
        let mut requests = false;
        loop {
            match inotify.read_events(&mut buffer) {
                Ok(events) => events.for_each(|event| requests |= self.event(&event)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!(%error, "inotify failed, files are looked at 4 times a second");
                    self.dirs.clear();
                    return;
                }
            }
        }
        self.inotify = Some(inotify);
        if requests {
            (self.notify)(WatchEvent::Requests);
        }
    }

    /// Takes in one event; whether it tells of a request.
    fn event(&mut self, event: &Event<&OsStr>) -> bool {
        let now = Instant::now();
        let mask = event.mask;
        if mask.contains(EventMask::Q_OVERFLOW) {
            // Who writes is unknown now: as if somebody did.
            self.settle.written((-1, None), false, now);
            self.moved = true;
            return true;
        }
        let id = event.wd.get_watch_descriptor_id();
        let Some(Watched { dir, interest, .. }) = self.dirs.get(&id) else {
            return false;
        };
        let itself = EventMask::MOVE_SELF | EventMask::DELETE_SELF | EventMask::IGNORED | EventMask::UNMOUNT;
        let Some(name) = event.name else {
            if mask.intersects(itself) {
                if interest.config() {
                    self.settle.complete((id, None), now);
                }
                if mask.contains(EventMask::IGNORED) {
                    self.dirs.remove(&id);
                }
                self.moved = true;
            }
            return false;
        };
        let whole = mask.intersects(EventMask::MOVED_TO | EventMask::CLOSE_WRITE);
        let request = interest.requests && whole && paths::is_request(name);
        let stranger = !interest.names.contains(name);
        let ignored = !interest.any || paths::is_noise(name) || mask.contains(EventMask::ISDIR);
        if stranger && ignored {
            return request;
        }
        let key = (id, Some(name.to_owned()));
        // A new file is its maker's until he closes it; a symlink or a hard link is whole at once.
        let being_made = mask.contains(EventMask::CREATE)
            && fs::symlink_metadata(dir.join(name))
                .is_ok_and(|about| about.is_file() && std::os::unix::fs::MetadataExt::nlink(&about) == 1);
        if mask.intersects(EventMask::MOVED_FROM | EventMask::DELETE) {
            self.settle.gone(key, stranger, now);
        } else if mask.contains(EventMask::MODIFY) || being_made {
            self.settle.written(key, stranger, now);
        } else {
            self.settle.complete(key, now);
        }
        self.moved |= !mask.intersects(EventMask::MODIFY | EventMask::CLOSE_WRITE);
        request
    }

    /// Looks whether files changed without being heard of, and for requests.
    fn look(&mut self, now: Instant) {
        self.next_poll = now + self.poll_every();
        if paths::has_requests(&self.set.requests) {
            (self.notify)(WatchEvent::Requests);
        }
        if !self.settle.is_empty() {
            // It was heard of: then it is known when it is whole.
            self.seen = None;
            return;
        }
        let stamps = paths::stamps(&self.set);
        if stamps == self.told {
            self.seen = None;
            return;
        }
        let (rested, first) = match self.seen.take() {
            Some(seen) => (seen.stamps == stamps, seen.first),
            None => (false, now),
        };
        let emptied = |(path, stamp): (&PathBuf, &Option<Stamp>)| {
            let size = |stamp: &Option<Stamp>| stamp.map(|stamp| stamp.size);
            size(stamp) == Some(0) && self.told.get(path).and_then(size) != Some(0)
        };
        let waits = now < first + EMPTY && stamps.iter().any(emptied);
        if rested && !waits {
            self.moved = true;
            self.settle.complete((-1, None), now);
        } else {
            self.seen = Some(Seen { stamps, first });
            self.next_poll = now + UNCHANGED;
        }
    }

    fn fire_if_due(&mut self, now: Instant) {
        if self.settle.deadline().is_none_or(|at| now < at) {
            return;
        }
        let dirs = &self.dirs;
        if self.settle.wait_for_empty(now, |key| is_empty_file(dirs, key)) {
            return;
        }
        self.settle.clear();
        self.seen = None;
        // Before the reader reads: what changes from here on is news.
        self.told = paths::stamps(&self.set);
        (self.notify)(WatchEvent::Config);
    }
}

fn is_empty_file(dirs: &HashMap<i32, Watched>, (id, name): &Key) -> bool {
    let (Some(watched), Some(name)) = (dirs.get(id), name) else {
        return false;
    };
    fs::metadata(watched.dir.join(name)).is_ok_and(|about| about.len() == 0)
}

type Unwatched = Option<(PathBuf, io::Error)>;

/// Watches these directories; the last one that could not be is told. Adding a watch that is there changes nothing.
fn add_watches(
    watches: &mut inotify::Watches,
    wanted: &BTreeMap<PathBuf, Interest>,
) -> (HashMap<i32, Watched>, Unwatched) {
    let mask = WatchMask::CREATE
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::EXCL_UNLINK
        | WatchMask::ONLYDIR;
    let mut dirs: HashMap<i32, Watched> = HashMap::new();
    let mut unwatched = None;
    for (dir, interest) in wanted {
        match watches.add(dir, mask) {
            Ok(watch) => {
                let id = watch.get_watch_descriptor_id();
                let interest = interest.clone();
                match dirs.get_mut(&id) {
                    // The same directory by two ways.
                    Some(watched) => watched.interest.join(interest),
                    None => {
                        let dir = dir.clone();
                        let watched = Watched { watch, dir, interest };
                        dirs.insert(id, watched);
                    }
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => unwatched = Some((dir.clone(), error)),
        }
    }
    (dirs, unwatched)
}

#[cfg(test)]
mod tests;
