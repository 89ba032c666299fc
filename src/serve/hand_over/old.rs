//! The old process's side: a thread that starts the new one and speaks with it, so that nothing that serves ever waits for it.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{Hello, Message, PROTOCOL, Process, SocketOf, VARIABLE, baggage::Piece, wire::Wire};

/// How long a new process may take until it serves, where nobody says.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether the new process lives.
const LOOK: Duration = Duration::from_millis(200);
/// How long a piece of what goes along may wait to be taken: a new process that takes none has other worries.
const TAKES: Duration = Duration::from_secs(10);

/// How this process was started: what starts its successor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub binary: PathBuf,
    pub arguments: Vec<OsString>,
}

impl Program {
    /// Of this process; to be asked at its start, before anybody replaces the file or changes the folder.
    pub fn own(mut arguments: impl Iterator<Item = OsString>) -> Self {
        let name = arguments.next().unwrap_or_default();
        let search = std::env::var_os("PATH").unwrap_or_default();
        let binary = found(&name, &search).unwrap_or_else(|| {
            // Where it lay; a file that has been removed since is called so, and its place is where the new one will be.
            let exe = std::env::current_exe().unwrap_or_default();
            match exe.to_str().and_then(|exe| exe.strip_suffix(" (deleted)")) {
                Some(place) => place.into(),
                None => exe,
            }
        });
        Self { binary, arguments: arguments.collect() }
    }
}

/// The file that a shell would start by this name. Links are not followed: they are what an installation changes.
fn found(name: &OsStr, search: &OsStr) -> Option<PathBuf> {
    let path = Path::new(name);
    if name.as_encoded_bytes().contains(&b'/') {
        return std::path::absolute(path).ok();
    }
    if name.is_empty() {
        return None;
    }
    std::env::split_paths(search).map(|dir| dir.join(path)).find(|at| at.is_file()).and_then(|at| {
        // The folder may be another one by then.
        std::path::absolute(at).ok()
    })
}

/// What the new process is given at once.
pub struct Belongings {
    pub sockets: Vec<(SocketOf, OwnedFd)>,
    pub lock: Option<OwnedFd>,
    pub state_dir: PathBuf,
    pub early: Piece,
}

/// What becomes of the new process, as the main thread hears it.
#[derive(Debug)]
pub enum News {
    /// It can serve, and waits for its turn.
    Ready(Process),
    Serving(Process),
    /// It came to nothing.
    Failed {
        who: Option<Process>,
        why: String,
    },
    /// It served, and has ended while this process still drains.
    Gone(String),
}

/// What the main thread has said.
enum Step {
    Go(Vec<Piece>),
    Yours,
    Counted(Vec<Piece>),
}

/// A new process, from the main thread's side. Dropped before it serves, it is killed.
pub struct Successor {
    steps: mpsc::Sender<Step>,
    talk: thread::JoinHandle<()>,
}

impl Successor {
    /// Starts `program` and speaks with it from a thread of its own, which tells by `news`.
    ///
    /// # Errors
    ///
    /// The binary can't be started, or the system has no room for a thread.
    pub fn start(
        program: &Program,
        belongings: Belongings,
        patience: Duration,
        news: impl Fn(News) + Send + 'static,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&program.binary);
        command.args(&program.arguments).env(VARIABLE, PROTOCOL.to_string()).stdin(Stdio::from(OwnedFd::from(theirs)));
        // These are about this process: sockets go another way, and a watchdog is whoever's it becomes (sd_watchdog_enabled(3)).
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        // Which has its end of the pair now; while this process had it too, it would not hear of the child's end.
        drop(command);
        let (steps, taken) = mpsc::channel();
        let deadline = Instant::now() + patience;
        let talk = Talk { wire: Wire::new(ours), child, deadline, patience, steps: taken };
        let talk = thread::Builder::new().name("hand-over".to_owned()).spawn(move || talk.run(belongings, &news))?;
        Ok(Self { steps, talk })
    }

    /// What was counted so far; the new process begins to serve.
    pub fn go(&self, baggage: Vec<Piece>) {
        // A thread that is gone has told why.
        let _ = self.steps.send(Step::Go(baggage));
    }

    /// It is the main process now.
    pub fn is_main(&self) {
        let _ = self.steps.send(Step::Yours);
    }

    /// Waits until all that was told is on its way: this process ends.
    pub fn close(self) {
        drop(self.steps);
        // One that panicked has said so.
        let _ = self.talk.join();
    }

    /// What was counted since.
    pub fn counted(&self, baggage: Vec<Piece>) {
        if !baggage.is_empty() {
            let _ = self.steps.send(Step::Counted(baggage));
        }
    }
}

struct Talk {
    wire: Wire,
    child: Child,
    deadline: Instant,
    patience: Duration,
    steps: mpsc::Receiver<Step>,
}

/// How far it came.
#[derive(Default)]
struct Known {
    who: Option<Process>,
}

impl Talk {
    fn run(mut self, belongings: Belongings, news: &dyn Fn(News)) {
        let mut known = Known::default();
        match self.until_it_serves(belongings, &mut known, news) {
            Ok(()) => self.beside_it(news),
            Err(why) => {
                // It must not linger: it holds the sockets, and what comes in by it would never be answered.
                let _ = self.child.kill();
                let _ = self.child.wait();
                news(News::Failed { who: known.who, why });
            }
        }
    }

    fn until_it_serves(
        &mut self,
        belongings: Belongings,
        known: &mut Known,
        news: &dyn Fn(News),
    ) -> Result<(), String> {
        let Belongings { sockets, lock, state_dir, early } = belongings;
        let (words, mut fds): (Vec<SocketOf>, Vec<OwnedFd>) = sockets.into_iter().unzip();
        let hello = Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            sockets: words,
            lock: lock.is_some(),
            state_dir,
            early,
        };
        fds.extend(lock);
        let given: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let said = self.wire.until(Some(self.deadline)).and_then(|()| {
            self.wire.say(&Message::Hello(Box::new(hello)))?;
            self.wire.give(&given)
        });
        drop(given);
        drop(fds);
        said.map_err(|error| self.why(&error))?;

        let who = match self.hear()? {
            Message::Ready { version, pid } => Process { pid, version },
            Message::Failed { why } => return Err(why),
            other => return Err(format!("it said `{}` where `ready` was due", other.word())),
        };
        known.who = Some(who.clone());
        news(News::Ready(who.clone()));
        let Ok(Step::Go(baggage)) = self.steps.recv() else { return Err("the upgrade was given up".to_owned()) };
        let went = baggage.into_iter().try_for_each(|piece| self.wire.say(&Message::Baggage(Box::new(piece))));
        went.and_then(|()| self.wire.say(&Message::Go)).map_err(|error| self.why(&error))?;
        match self.hear()? {
            Message::Serving => {}
            Message::Failed { why } => return Err(why),
            other => return Err(format!("it said `{}` where `serving` was due", other.word())),
        }
        news(News::Serving(who));
        Ok(())
    }

    fn hear(&mut self) -> Result<Message, String> {
        loop {
            let heard = self.wire.until(Some(self.deadline)).and_then(|()| self.wire.hear());
            match heard {
                Ok(Message::Unknown) => {}
                Ok(message) => return Ok(message),
                Err(error) => return Err(self.why(&error)),
            }
        }
    }

    /// The end of the talk, for people.
    fn why(&mut self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("it did not serve within {} s, and was ended", self.patience.as_secs())
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                // It ends just now, or has: with all that it had of the pair.
                let patience = Instant::now() + Duration::from_secs(2);
                while Instant::now() < patience {
                    if let Ok(Some(status)) = self.child.try_wait() {
                        return format!("it ended before it served ({status}): its own words are in the log");
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                "it closed the channel: it is no gatepost that can take over".to_owned()
            }
            io::ErrorKind::InvalidData => {
                format!("it is no gatepost that can take over: it said what is not understood ({error})")
            }
            _ => format!("it cannot be spoken with: {error}"),
        }
    }

    /// It serves; this process drains, and tells it what it counts until then.
    fn beside_it(&mut self, news: &dyn Fn(News)) {
        // Whoever takes nothing is not waited for: what it misses is some last requests' counts.
        let mut takes = true;
        loop {
            let step = match self.steps.recv_timeout(LOOK) {
                Ok(step) => Some(step),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                // The process ends.
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let messages = match step {
                Some(Step::Yours) => vec![Message::Yours],
                Some(Step::Counted(baggage)) => {
                    baggage.into_iter().map(|piece| Message::Baggage(Box::new(piece))).collect()
                }
                _ => Vec::new(),
            };
            for message in messages {
                let deadline = Instant::now() + TAKES;
                takes = takes && self.wire.until(Some(deadline)).and_then(|()| self.wire.say(&message)).is_ok();
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return news(News::Gone(status.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it_and_links_stay() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("v1"), "").unwrap();
        std::os::unix::fs::symlink("v1", dir.path().join("gatepost")).unwrap();
        let search = std::env::join_paths([Path::new("/nowhere"), dir.path()]).unwrap();
        assert_eq!(found("gatepost".as_ref(), &search), Some(dir.path().join("gatepost")));
        assert_eq!(found("other".as_ref(), &search), None);
        assert_eq!(found("".as_ref(), &search), None);
        assert_eq!(found("/usr/bin/gatepost".as_ref(), &search), Some("/usr/bin/gatepost".into()));
        let here = std::env::current_dir().unwrap().join("target/gatepost");
        assert_eq!(found("target/gatepost".as_ref(), &search), Some(here));
    }
}
