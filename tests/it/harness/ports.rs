//! Addresses that nobody has, for those who can't be asked which port they were given, or who come back to theirs.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

/// An address of this machine that nobody has, and that stays so until its test takes it: no two calls give the same. Not one of the
/// kernel's choice: those (`net.ipv4.ip_local_port_range`, from 32,768 on) are lent to any caller that connects somewhere, and to
/// any test that asks for port 0, as soon as they are let go of.
pub(crate) fn free(ip: &str) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id() as u16;
    loop {
        let port = 20_000 + begin.wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Relaxed)) % 12_000;
        // On every address, so that it is free on each.
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return (ip.parse::<IpAddr>().unwrap(), port).into();
        }
    }
}
