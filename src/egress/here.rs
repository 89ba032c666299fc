//! Whether this machine has an address now: a floating one comes and goes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Socket, Type};

/// Whether one of this machine's interfaces has it. Sends nothing, and needs neither `/proc` nor netlink, which the service's sandbox keeps from it.
///
/// That it can be bound would be no proof: with `net.ipv4.ip_nonlocal_bind`, which machines behind keepalived often have for another
/// program's sake, every address can be.
pub fn has(ip: IpAddr) -> bool {
    let asked = match ip.to_canonical() {
        // ip(7): it must be the address of a local interface, and the kernel looks for that, whatever may be bound.
        IpAddr::V4(ip) => of(Domain::IPV4).and_then(|socket| socket.set_multicast_if_v4(&ip)).map(|()| true),
        // RFC 6724 section 5, rule 1: what is sent to one of a machine's own addresses leaves from that very one.
        IpAddr::V6(ip) => of(Domain::IPV6).and_then(|socket| {
            socket.connect(&SocketAddr::from((ip, DISCARD)).into())?;
            Ok(socket.local_addr()?.as_socket_ipv6().is_some_and(|from| *from.ip() == ip))
        }),
    };
    asked.unwrap_or(false)
}

fn of(family: Domain) -> io::Result<Socket> {
    Socket::new(family, Type::DGRAM, None)
}

/// RFC 863. To connect a datagram socket sends nothing.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use super::has;

    #[test]
    fn loopback_is_here_and_addresses_of_documentation_are_not() {
        for (ip, here) in [
            ("127.0.0.1", true),
            ("127.0.0.77", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.77", false),
            ("255.255.255.255", false),
            ("2001:db8::77", false),
        ] {
            assert_eq!(has(ip.parse().unwrap()), here, "{ip}");
        }
    }
}
