//! An address that was checked → a connection from the address that was chosen.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use tokio::net::{TcpSocket, TcpStream};

use super::here;

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// The source's address is not on this machine now.
    SourceAbsent(io::Error),
    /// All local ports towards this very address are in use.
    PortsExhausted,
    /// The peer, or the network on the way to it.
    Unreachable(io::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceAbsent(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                f.write_str("this machine does not have the source's address now")
            }
            Self::SourceAbsent(error) => write!(f, "the source's address cannot be used: {error}"),
            Self::PortsExhausted => f.write_str("the source has no port left towards this destination"),
            // What the system says of a network holds nothing of ours.
            Self::Unreachable(error) => error.fmt(f),
        }
    }
}

/// Connects to `address`, and to no other; from `source`, and from no other.
///
/// # Errors
///
/// See [`DialError`].
pub async fn dial(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, DialError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(DialError::Unreachable)?;
    if let Some(source) = source {
        // ip(7): the port is chosen by connect, when the peer is known. Else a source would have as many ports in all as it may have
        // towards each peer.
        setsockopt(&socket, IpBindAddressNoPort, &true).map_err(|e| DialError::Unreachable(e.into()))?;
        socket.bind(SocketAddr::new(source, 0)).map_err(DialError::SourceAbsent)?;
    }
    let stream = socket.connect(address).await.map_err(|error| match (error.kind(), source) {
        // It could be bound all the same: see `here`. The kernel sends nothing from it.
        (_, Some(source)) if !here::has(source) => DialError::SourceAbsent(io::ErrorKind::AddrNotAvailable.into()),
        (io::ErrorKind::AddrNotAvailable, _) => DialError::PortsExhausted,
        _ => DialError::Unreachable(error),
    })?;
    // Small pieces of a handshake must not wait for each other.
    stream.set_nodelay(true).map_err(DialError::Unreachable)?;
    Ok(stream)
}
