//! Listening sockets that were open before this process was: a predecessor's, or systemd's (sd_listen_fds(3)). Whoever needs an address
//! looks here before it binds one.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use listenfd::ListenFd;
use socket2::{Domain, SockRef, Type};

use super::{
    bind::{Listening, for_callers},
    hand_over::{Role, SocketOf},
};
use crate::config::model::ListenAddress;

/// A socket that came along.
#[derive(Debug)]
pub struct Socket {
    pub of: SocketOf,
    pub listening: Listening,
}

/// All of them, until they are taken. systemd's are lent only: it keeps each open for its socket unit's life, and so do we, since a listener that
/// goes and comes again could not bind what systemd holds.
#[derive(Debug, Default)]
pub struct Inherited(Mutex<Vec<Socket>>);

impl Inherited {
    pub fn new(sockets: Vec<Socket>) -> Self {
        Self(Mutex::new(sockets))
    }

    /// What systemd opened for this process. To be called before there are threads: the environment is changed.
    ///
    /// # Errors
    ///
    /// One is no listening stream socket.
    pub fn from_systemd() -> Result<Self, String> {
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::new();
        for at in 0..given.len() {
            let tcp = given.take_tcp_listener(at).ok().flatten().map(OwnedFd::from);
            let fd = match tcp {
                Some(fd) => fd,
                None => match given.take_unix_listener(at) {
                    Ok(Some(unix)) => unix.into(),
                    Ok(None) => continue,
                    Err(error) => return Err(not_for_us(at, &error)),
                },
            };
            let listening = Listening::adopt(fd).map_err(|error| not_for_us(at, &error))?;
            let address = listening.told_address().map_err(|error| not_for_us(at, &error))?;
            sockets.push(Socket { of: SocketOf::new(Role::Spare, "", &address, true), listening });
        }
        Ok(Self::new(sockets))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Socket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket for an address, and whether it is this process's own from now on; `None`: it is to be bound. Of port 0, which is
    /// another port each time, the one that was had under this name.
    pub fn take(&self, role: Role, name: &str, address: &ListenAddress) -> Option<(Listening, bool)> {
        let asked = address.to_string();
        let is_any = matches!(address, ListenAddress::Tcp(at) if at.port() == 0);
        let mut all = self.all();
        let fits = |socket: &Socket| {
            socket.of.address == asked && (!is_any || (socket.of.role == role && socket.of.name == name))
        };
        let at = all.iter().position(fits)?;
        if !all[at].of.activated {
            return Some((all.remove(at).listening, true));
        }
        all[at].of.role = role;
        match all[at].listening.another() {
            Ok(lent) => Some((lent, false)),
            // Out of descriptors: binding will say so.
            Err(_) => None,
        }
    }

    /// All listeners have what they need: what is left of a predecessor's is closed, and systemd's are told of that nobody asked for.
    pub fn settle(&self) {
        let mut all = self.all();
        all.retain(|socket| socket.of.activated);
        for socket in all.iter().filter(|socket| socket.of.role == Role::Spare) {
            tracing::warn!(
                address = socket.of.address,
                "systemd listens there for gatepost, but the config has no listener of that address: callers would wait in vain; take it out of the socket unit, or write it as a listener"
            );
        }
    }

    /// systemd's, for a successor.
    pub fn lent(&self) -> io::Result<Vec<(SocketOf, OwnedFd)>> {
        let one = |socket: &Socket| {
            let of = SocketOf { role: Role::Spare, ..socket.of.clone() };
            Ok((of, socket.listening.as_fd().try_clone_to_owned()?))
        };
        self.all().iter().filter(|socket| socket.of.activated).map(one).collect()
    }
}

fn not_for_us(at: usize, error: &io::Error) -> String {
    format!(
        "descriptor {} from the socket unit: {error}; gatepost takes `ListenStream=` sockets only, with `Accept=no`",
        at + 3
    )
}

impl Listening {
    /// A socket that another process opened.
    ///
    /// # Errors
    ///
    /// It is none that streams come by.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let socket = SockRef::from(&fd);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no listening stream socket"));
        }
        let domain = socket.domain()?;
        socket.set_nonblocking(true)?;
        if domain == Domain::UNIX {
            return Ok(Self::Unix(fd.into()));
        }
        if domain != Domain::IPV4 && domain != Domain::IPV6 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither of TCP nor of unix"));
        }
        for_callers(&socket)?;
        Ok(Self::Tcp(fd.into()))
    }

    /// Where it listens, by its own word.
    fn told_address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or_else(|| io::Error::other("its address is no path"))?;
                Ok(ListenAddress::Unix(path.to_path_buf()))
            }
        }
    }

    fn another(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::bind::bind;

    fn tcp(address: &str) -> ListenAddress {
        ListenAddress::Tcp(address.parse().unwrap())
    }

    fn socket(role: Role, name: &str, asked: &str, activated: bool) -> Socket {
        let listening = bind(&tcp("127.0.0.1:0"), 0, &[]).unwrap();
        Socket { of: SocketOf::new(role, name, &tcp(asked), activated), listening }
    }

    #[test]
    fn a_fixed_address_goes_to_whoever_needs_it_and_port_0_to_its_own_name() {
        let given = Inherited::new(vec![
            socket(Role::In, "a", "127.0.0.1:0", false),
            socket(Role::In, "b", "127.0.0.1:0", false),
            socket(Role::Out, "a", "127.0.0.1:0", false),
            socket(Role::In, "old", "10.0.0.1:80", false),
        ]);
        assert!(given.take(Role::In, "new", &tcp("10.0.0.1:80")).is_some());
        assert!(given.take(Role::In, "new", &tcp("10.0.0.1:80")).is_none(), "twice");
        assert!(given.take(Role::In, "c", &tcp("127.0.0.1:0")).is_none());
        assert!(given.take(Role::Admin, "a", &tcp("127.0.0.1:0")).is_none());
        for (role, name) in [(Role::Out, "a"), (Role::In, "b"), (Role::In, "a")] {
            assert!(matches!(given.take(role, name, &tcp("127.0.0.1:0")), Some((_, true))), "{role:?} {name}");
        }
    }

    #[test]
    fn what_systemd_opened_is_lent_again_and_again() {
        let given = Inherited::new(vec![socket(Role::Spare, "", "10.0.0.1:80", true)]);
        for _ in 0..2 {
            assert!(matches!(given.take(Role::In, "web", &tcp("10.0.0.1:80")), Some((_, false))));
        }
        given.settle();
        let lent = given.lent().unwrap();
        assert_eq!((lent.len(), lent[0].0.role, lent[0].0.activated), (1, Role::Spare, true));
    }

    #[test]
    fn only_listening_streams_are_adopted() {
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(Listening::adopt(datagrams.into()).is_err());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let caller = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(Listening::adopt(caller.into()).is_err());
        let told = Listening::adopt(listener.into()).unwrap().told_address().unwrap();
        assert!(told.to_string().starts_with("127.0.0.1:"));
    }
}
