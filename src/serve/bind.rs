//! An address in the config → a listening socket.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::model::{ListenAddress, Listener};

/// Connections that the kernel holds until they are accepted; it lowers this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What the kernel takes of an answer ahead of what it can send. Without that bound it takes up to `net.ipv4.tcp_wmem` (4 MiB) for a caller
/// who doesn't read.
const UNSENT: u32 = 128 * 1024;

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(l) => l.as_fd(),
            Self::Unix(l) => l.as_fd(),
        }
    }
}

impl Listening {
    /// Where it really listens: the kernel's choice where the config says port 0.
    pub fn local_address(&self, asked: &ListenAddress) -> ListenAddress {
        match self {
            Self::Tcp(l) => l.local_addr().map_or_else(|_| asked.clone(), ListenAddress::Tcp),
            Self::Unix(_) => asked.clone(),
        }
    }

    /// Takes one waiting connection, ready for non-blocking use.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where none waits; else what the kernel says.
    pub fn accept(&self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        use rustix::net::{SocketFlags, accept_with, acceptfrom_with};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match self {
            Self::Tcp(l) => {
                let (fd, peer) = acceptfrom_with(l, flags)?;
                Ok((fd, peer.and_then(|p| SocketAddr::try_from(p).ok())))
            }
            Self::Unix(l) => Ok((accept_with(l, flags)?, None)),
        }
    }
}

/// Binds and listens. `leaving` are sockets of ours that will close soon and don't stand in the way until then:
/// `0.0.0.0:443` moves to `127.0.0.1:443` without a moment in which nobody listens.
///
/// # Errors
///
/// What the kernel says: the address is in use, not this machine's, not allowed.
pub fn bind(address: &ListenAddress, mode: u32, leaving: &[BorrowedFd<'_>]) -> io::Result<Listening> {
    match address {
        ListenAddress::Tcp(address) => bind_tcp(*address, false, leaving),
        ListenAddress::Unix(path) => unix(path, mode).map(Listening::Unix),
    }
}

/// The same for a listener, which may say that its address is still to come.
///
/// # Errors
///
/// See [`bind`].
pub fn bind_for(listener: &Listener, leaving: &[BorrowedFd<'_>]) -> io::Result<Listening> {
    match &listener.address {
        ListenAddress::Tcp(address) => bind_tcp(*address, listener.freebind, leaving),
        unix => bind(unix, listener.mode, leaving),
    }
}

fn bind_tcp(address: SocketAddr, freebind: bool, leaving: &[BorrowedFd<'_>]) -> io::Result<Listening> {
    match tcp(address, freebind, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !leaving.is_empty() => {
            beside(address, freebind, leaving)
        }
        done => done,
    }
}

/// An address that can't be had, for people: what the kernel says, and what to do about it.
pub fn cannot_listen(who: &str, address: &ListenAddress, error: &io::Error) -> String {
    let help = match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, ListenAddress::Tcp(at)) => {
            format!(
                "`ss -ltnp 'sport = :{}'` shows who has it; gatepost tries again at the next start or reload",
                at.port()
            )
        }
        (io::ErrorKind::AddrInUse, ListenAddress::Unix(_)) => {
            "give the socket another path, or end whoever has it".to_owned()
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            "no interface of this machine has this address now: `ip address` shows those it has; for a floating address \
             that another machine may have, say `freebind = true`"
                .to_owned()
        }
        (io::ErrorKind::PermissionDenied, ListenAddress::Tcp(_)) => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, which gatepost.service gives".to_owned()
        }
        (io::ErrorKind::PermissionDenied, ListenAddress::Unix(_)) => {
            "gatepost's user must be able to write to the folder".to_owned()
        }
        _ => return format!("{who}: cannot listen on {address}: {error}"),
    };
    format!("{who}: cannot listen on {address}: {error}\nhelp: {help}")
}

/// Linux lets sockets of one user share a port where each agrees, at the moment of binding (`SO_REUSEPORT`, socket(7)). Ours
/// agree for that moment alone: later, a second gatepost would take every other connection.
fn beside(address: SocketAddr, freebind: bool, leaving: &[BorrowedFd<'_>]) -> io::Result<Listening> {
    let agree = |yes| leaving.iter().try_for_each(|fd| SockRef::from(fd).set_reuse_port(yes));
    let bound = agree(true).and_then(|()| tcp(address, freebind, true));
    agree(false)?;
    if let Ok(listening) = &bound {
        SockRef::from(listening).set_reuse_port(false)?;
    }
    bound
}

/// What accepted sockets inherit.
///
/// # Errors
///
/// It is no TCP socket.
pub fn for_callers(socket: &Socket) -> io::Result<()> {
    // Small answers leave at once.
    socket.set_tcp_nodelay(true)?;
    // This bounds what waits to be sent, and not the window: a fast caller far away has all of that.
    socket.set_tcp_notsent_lowat(UNSENT)
}

fn tcp(address: SocketAddr, freebind: bool, shared: bool) -> io::Result<Listening> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a predecessor may linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]:443` and `0.0.0.0:443` are two listeners: each says what it takes.
        socket.set_only_v6(true)?;
    }
    if freebind {
        // ip(7), IP_FREEBIND: such a socket listens all the time, and is called as soon as the address is here.
        if address.is_ipv6() { socket.set_freebind_v6(true)? } else { socket.set_freebind_v4(true)? }
    }
    socket.set_nonblocking(true)?;
    for_callers(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listening::Tcp(socket.into()))
}

/// The file of a unix socket, as it was when we made it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// `None` for TCP.
    pub fn of(address: &ListenAddress) -> Option<Self> {
        let ListenAddress::Unix(path) = address else { return None };
        let about = fs::symlink_metadata(path).ok()?;
        Some(Self { path: path.clone(), device: about.dev(), inode: about.ino() })
    }

    /// Removes it, unless it is another one by now: a successor's.
    pub fn remove(&self) {
        let ours = |about: fs::Metadata| about.dev() == self.device && about.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket's file");
        }
    }
}

fn unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    // A file that a predecessor left behind is in the way; one that somebody listens on, or that is no socket, stays.
    if fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        match UnixStream::connect(path) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it")),
            Err(e) => return Err(e),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_0_is_told_and_a_taken_port_is_an_error() {
        let any = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let first = bind(&any, 0, &[]).unwrap();
        let told = first.local_address(&any);
        assert_ne!(told, any);
        assert_eq!(bind(&told, 0, &[]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_left_over_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = ListenAddress::Unix(dir.path().join("s"));
        drop(bind(&address, 0o600, &[]).unwrap());
        let live = bind(&address, 0o640, &[]).unwrap();
        let mode = fs::metadata(dir.path().join("s")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(bind(&address, 0o600, &[]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // The one caller was the look whether it lives.
        live.accept().unwrap();
        assert_eq!(live.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_socket_that_leaves_does_not_stand_in_the_way_and_nobody_else_gets_in() {
        let tcp = |address: String| ListenAddress::Tcp(address.parse().unwrap());
        let any = tcp("0.0.0.0:0".to_owned());
        let wide = bind(&any, 0, &[]).unwrap();
        let ListenAddress::Tcp(bound) = wide.local_address(&any) else { panic!("not TCP") };
        let narrow = tcp(format!("127.0.0.1:{}", bound.port()));
        assert_eq!(bind(&narrow, 0, &[]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let beside = bind(&narrow, 0, &[wide.as_fd()]).unwrap();
        // Both listen, until the old one closes.
        let _caller = std::net::TcpStream::connect(("127.0.0.1", bound.port())).unwrap();
        let taken = rustix::event::poll(
            &mut [rustix::event::PollFd::new(&beside, rustix::event::PollFlags::IN)],
            Some(&rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 }),
        );
        assert_eq!(taken, Ok(1), "the narrower socket is not the one that is called");
        beside.accept().unwrap();
        assert_eq!(bind(&narrow, 0, &[]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(wide);
        assert_eq!(bind(&narrow, 0, &[]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(beside);
        bind(&narrow, 0, &[]).unwrap();
    }

    #[test]
    fn a_socket_file_that_is_a_successors_stays() {
        let dir = tempfile::tempdir().unwrap();
        let address = ListenAddress::Unix(dir.path().join("s"));
        let _ours = bind(&address, 0o600, &[]).unwrap();
        let file = SocketFile::of(&address).unwrap();
        // A rename, so that the kernel can't give out the same inode again.
        fs::rename(dir.path().join("s"), dir.path().join("old")).unwrap();
        let _theirs = bind(&address, 0o600, &[]).unwrap();
        file.remove();
        assert!(dir.path().join("s").exists());
        SocketFile::of(&address).unwrap().remove();
        assert!(!dir.path().join("s").exists());
    }
}
