//! An address in the config → a listening socket.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::model::ListenAddress;

/// Connections that the kernel holds until they are accepted; it lowers this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

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

/// Binds and listens.
///
/// # Errors
///
/// What the kernel says: the address is in use, not this machine's, not allowed.
pub fn bind(address: &ListenAddress, mode: u32) -> io::Result<Listening> {
    match address {
        ListenAddress::Tcp(address) => tcp(*address).map(Listening::Tcp),
        ListenAddress::Unix(path) => unix(path, mode).map(Listening::Unix),
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a predecessor may linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]:443` and `0.0.0.0:443` are two listeners: each says what it takes.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it: small answers leave at once.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
        let first = bind(&any, 0).unwrap();
        let told = first.local_address(&any);
        assert_ne!(told, any);
        assert_eq!(bind(&told, 0).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_left_over_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = ListenAddress::Unix(dir.path().join("s"));
        drop(bind(&address, 0o600).unwrap());
        let live = bind(&address, 0o640).unwrap();
        let mode = fs::metadata(dir.path().join("s")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(bind(&address, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(live.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
