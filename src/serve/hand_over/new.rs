//! The new process's side: it is given sockets, proves that it can serve by them, and waits for its turn.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use tokio::sync::{mpsc, watch};

use super::{Hello, Message, PROTOCOL, SocketOf, VARIABLE, baggage::Piece, wire::Wire};
use crate::serve::{
    bind::Listening,
    inherited::{Inherited, Socket},
};

/// Whether this process was started by another one, to take over from it.
#[must_use]
pub fn is_announced() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// What this process was given, and by whom.
pub struct Arrival {
    wire: Mutex<Wire>,
    pub from: u32,
    pub lock: Option<OwnedFd>,
    pub state_dir: PathBuf,
    pub early: Piece,
    sockets: Vec<(SocketOf, OwnedFd)>,
}

impl Arrival {
    /// Hears what the old process says first. Blocks.
    ///
    /// # Errors
    ///
    /// Standard input is no old gatepost's, or it speaks otherwise.
    pub fn receive() -> Result<Self, String> {
        let cannot =
            |error: io::Error| format!("{VARIABLE} is set, but standard input is no gatepost that hands over: {error}");
        let stream = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from).map_err(cannot)?;
        // The old process's end is to be the only thing that keeps the pair open.
        let nothing = std::fs::File::open("/dev/null").map_err(cannot)?;
        rustix::stdio::dup2_stdin(&nothing).map_err(|error| cannot(error.into()))?;
        Self::over(stream)
    }

    fn over(stream: UnixStream) -> Result<Self, String> {
        let cannot = |error: io::Error| format!("the gatepost that hands over is not understood: {error}");
        let mut wire = Wire::new(stream);
        let Message::Hello(hello) = wire.hear().map_err(cannot)? else {
            return Err("whoever hands over says no hello".to_owned());
        };
        let Hello { protocol, version, pid, sockets, lock, state_dir, early } = *hello;
        if protocol != PROTOCOL {
            let why = format!(
                "gatepost {version} hands over by protocol {protocol}, and {} takes over by {PROTOCOL}: restart the service instead",
                env!("CARGO_PKG_VERSION")
            );
            // An old one that is gone needs no word.
            let _ = wire.say(&Message::Failed { why: why.clone() });
            return Err(why);
        }
        let mut fds = wire.take(sockets.len() + usize::from(lock)).map_err(cannot)?;
        let lock = if lock { fds.pop() } else { None };
        let sockets = sockets.into_iter().zip(fds).collect();
        Ok(Self { wire: Mutex::new(wire), from: pid, lock, state_dir, early, sockets })
    }

    /// The sockets that came along.
    ///
    /// # Errors
    ///
    /// One of them is not what was said of it.
    pub fn inherited(&mut self) -> Result<Inherited, String> {
        let mut all = Vec::new();
        for (of, fd) in std::mem::take(&mut self.sockets) {
            let listening = Listening::adopt(fd).map_err(|error| format!("the socket of {}: {error}", of.name))?;
            all.push(Socket { of, listening });
        }
        Ok(Inherited::new(all))
    }

    fn wire(&self) -> std::sync::MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the old process why this one can't serve.
    pub fn fails(&self, why: &str) {
        // An old one that is gone needs no word.
        let _ = self.wire().say(&Message::Failed { why: why.to_owned() });
    }

    /// This process can serve: waits for its turn, and for what was counted until then. Blocks.
    ///
    /// # Errors
    ///
    /// The old process is gone, or has given up.
    pub fn ready(&self) -> Result<Vec<Piece>, String> {
        let gone = |error: io::Error| format!("the gatepost that hands over is gone: {error}");
        let mut wire = self.wire();
        let pid = std::process::id();
        wire.say(&Message::Ready { version: env!("CARGO_PKG_VERSION").to_owned(), pid }).map_err(gone)?;
        let mut baggage = Vec::new();
        loop {
            match wire.hear().map_err(gone)? {
                Message::Baggage(piece) => baggage.push(*piece),
                Message::Go => return Ok(baggage),
                Message::Unknown => {}
                other => {
                    return Err(format!("the gatepost that hands over said `{}` where `go` was due", other.word()));
                }
            }
        }
    }

    /// This process serves: returns once it is the main one. Blocks.
    pub fn serving(&self) {
        let mut wire = self.wire();
        if wire.say(&Message::Serving).is_err() {
            return;
        }
        // An old process that is gone instead has left all the same.
        while let Ok(message) = wire.hear() {
            if matches!(message, Message::Yours) {
                return;
            }
        }
    }

    /// What the old process still counts comes by `counted`, until it ends.
    ///
    /// # Errors
    ///
    /// The system has no room for a thread.
    pub fn follow(&self, counted: mpsc::UnboundedSender<Piece>) -> io::Result<Predecessor> {
        let mut wire = self.wire().another()?;
        let (ended, is_gone) = watch::channel(false);
        thread::Builder::new().name("predecessor".to_owned()).spawn(move || {
            let _ = wire.until(None);
            while let Ok(message) = wire.hear() {
                if let Message::Baggage(piece) = message
                    && counted.send(*piece).is_err()
                {
                    break;
                }
            }
            ended.send_replace(true);
        })?;
        Ok(Predecessor { pid: self.from, is_gone })
    }
}

/// The old process, while it drains.
#[derive(Debug, Clone)]
pub struct Predecessor {
    pub pid: u32,
    is_gone: watch::Receiver<bool>,
}

impl Predecessor {
    pub fn is_gone(&self) -> bool {
        *self.is_gone.borrow() || self.is_gone.has_changed().is_err()
    }

    /// Returns when it has ended: a service manager ends it with this process, whatever it still serves.
    pub async fn gone(&mut self) {
        // A thread that is gone heard nothing more.
        let _ = self.is_gone.wait_for(|gone| *gone).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::hand_over::Role;

    fn hello(protocol: u32, sockets: Vec<SocketOf>) -> Message {
        let (version, state_dir) = ("9.9.9".to_owned(), "/var/lib/gatepost".into());
        Message::Hello(Box::new(Hello {
            protocol,
            version,
            pid: 7,
            sockets,
            lock: false,
            state_dir,
            early: Piece::default(),
        }))
    }

    #[test]
    fn another_protocol_is_told_to_both_sides() {
        let (old, new) = UnixStream::pair().unwrap();
        let mut old = Wire::new(old);
        old.say(&hello(PROTOCOL + 1, Vec::new())).unwrap();
        let Err(why) = Arrival::over(new) else { panic!("it takes over") };
        assert!(why.contains("gatepost 9.9.9") && why.contains("restart the service"), "{why}");
        let Message::Failed { why: told } = old.hear().unwrap() else { panic!("not told") };
        assert_eq!(told, why);
    }

    #[test]
    fn a_socket_that_is_none_or_does_not_come_is_an_error() {
        let (old, new) = UnixStream::pair().unwrap();
        let mut old = Wire::new(old);
        let address = crate::config::model::ListenAddress::Tcp("127.0.0.1:80".parse().unwrap());
        let of = SocketOf::new(Role::In, "web", &address, false);
        old.say(&hello(PROTOCOL, vec![of.clone()])).unwrap();
        old.give(&[std::fs::File::open("/dev/null").unwrap().as_fd()]).unwrap();
        let mut arrival = Arrival::over(new).unwrap();
        assert!(arrival.inherited().unwrap_err().contains("the socket of web"));

        let (old, new) = UnixStream::pair().unwrap();
        let mut old = Wire::new(old);
        old.say(&hello(PROTOCOL, vec![of])).unwrap();
        drop(old);
        assert!(Arrival::over(new).is_err());
    }

    #[test]
    fn an_old_process_that_goes_away_is_noticed() {
        let (old, new) = UnixStream::pair().unwrap();
        let mut old = Wire::new(old);
        old.say(&hello(PROTOCOL, Vec::new())).unwrap();
        let arrival = Arrival::over(new).unwrap();
        drop(old);
        assert!(arrival.ready().is_err());
        // Nor is it waited for.
        arrival.serving();
    }
}
