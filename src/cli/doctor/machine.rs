//! This machine's addresses.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

/// One interface.
#[derive(Debug, Serialize)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// All interfaces that have an address, by name.
///
/// # Errors
///
/// What the system says.
pub(super) fn interfaces() -> Result<Vec<Interface>, String> {
    let mut all: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for one in nix::ifaddrs::getifaddrs().map_err(|error| error.to_string())? {
        let address = one.address.as_ref().and_then(|address| {
            let four = address.as_sockaddr_in().map(|four| IpAddr::from(four.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::from(six.ip())))
        });
        if let Some(address) = address {
            all.entry(one.interface_name).or_default().push(address);
        }
    }
    Ok(all.into_iter().map(|(name, addresses)| Interface { name, addresses }).collect())
}

/// Whether packets to it stay within an organisation or a machine.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            // RFC 6598 too: clouds have their metadata and internal endpoints there.
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_loopback() {
        let all = interfaces().unwrap();
        assert!(all.iter().any(|one| one.addresses.iter().any(IpAddr::is_loopback)), "{all:?}");
    }

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        for (ip, private) in [
            ("10.1.2.3", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("127.0.0.1", true),
            ("::ffff:192.168.0.1", true),
            ("fd00::1", true),
            ("2001:db8::1", false),
            ("47.100.1.1", false),
        ] {
            assert_eq!(is_private(ip.parse().unwrap()), private, "{ip}");
        }
    }
}
