//! Addresses that are not public: IANA's special-purpose registries (RFC 6890 and what came after), and the few that clouds have put
//! among the public ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why an address is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// 0.0.0.0/8 and `::`.
    ThisNetwork,
    /// RFC 1918.
    Private,
    /// 100.64.0.0/10 (RFC 6598): carriers' NAT; clouds have their metadata in it.
    Shared,
    Loopback,
    /// 169.254.0.0/16 and fe80::/10: where clouds have their metadata.
    LinkLocal,
    /// 168.63.129.16: Azure's own, on every machine of it.
    CloudPlatform,
    /// 192.0.0.0/24 and 2001::/23.
    Protocol,
    Documentation,
    /// 192.88.99.0/24 (RFC 7526).
    Relay,
    Benchmarking,
    Multicast,
    /// 240.0.0.0/4, and all of IPv6 that nobody has been given.
    Reserved,
    Broadcast,
    /// fc00::/7.
    UniqueLocal,
    /// fec0::/10 (RFC 3879).
    SiteLocal,
    /// ::/96 and ::ffff:0:0:0/96: an IPv4 address in an old disguise.
    Embedded,
    /// 64:ff9b::/96 and 64:ff9b:1::/48: an IPv4 address behind a translator.
    Nat64,
    SixToFour,
    Teredo,
    /// 100::/64.
    Discard,
}

impl Special {
    /// For people: `10.0.0.1 is …`.
    pub fn words(self) -> &'static str {
        match self {
            Self::ThisNetwork => "of \"this network\" (RFC 791)",
            Self::Private => "private (RFC 1918)",
            Self::Shared => "shared address space (RFC 6598)",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local, where clouds keep their metadata",
            Self::CloudPlatform => "a cloud platform's own",
            Self::Protocol => "for protocols (RFC 6890)",
            Self::Documentation => "for documentation",
            Self::Relay => "a 6to4 relay's (RFC 7526)",
            Self::Benchmarking => "for benchmarks (RFC 2544)",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::Broadcast => "the broadcast address",
            Self::UniqueLocal => "unique local (RFC 4193)",
            Self::SiteLocal => "site-local (RFC 3879)",
            Self::Embedded => "an IPv4 address in disguise",
            Self::Nat64 => "an IPv4 address behind NAT64",
            Self::SixToFour => "a 6to4 address",
            Self::Teredo => "a Teredo address",
            Self::Discard => "the discard prefix",
        }
    }

    /// Whether nothing can be connected to there, whatever a rule says.
    pub fn is_unreachable(self) -> bool {
        matches!(self, Self::ThisNetwork | Self::Multicast | Self::Broadcast | Self::Discard)
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

#[expect(clippy::too_many_arguments, reason = "an IPv6 address has eight parts")]
const fn v6(a: u16, b: u16, c: u16, d: u16, e: u16, f: u16, g: u16, h: u16) -> u128 {
    Ipv6Addr::new(a, b, c, d, e, f, g, h).to_bits()
}

/// <https://www.iana.org/assignments/iana-ipv4-special-registry>; the first that holds an address says what it is.
const V4: [(u32, u8, Special); 17] = [
    (v4(0, 0, 0, 0), 8, Special::ThisNetwork),
    (v4(10, 0, 0, 0), 8, Special::Private),
    (v4(100, 64, 0, 0), 10, Special::Shared),
    (v4(127, 0, 0, 0), 8, Special::Loopback),
    (v4(168, 63, 129, 16), 32, Special::CloudPlatform),
    (v4(169, 254, 0, 0), 16, Special::LinkLocal),
    (v4(172, 16, 0, 0), 12, Special::Private),
    (v4(192, 0, 0, 0), 24, Special::Protocol),
    (v4(192, 0, 2, 0), 24, Special::Documentation),
    (v4(192, 88, 99, 0), 24, Special::Relay),
    (v4(192, 168, 0, 0), 16, Special::Private),
    (v4(198, 18, 0, 0), 15, Special::Benchmarking),
    (v4(198, 51, 100, 0), 24, Special::Documentation),
    (v4(203, 0, 113, 0), 24, Special::Documentation),
    (v4(224, 0, 0, 0), 4, Special::Multicast),
    (v4(255, 255, 255, 255), 32, Special::Broadcast),
    (v4(240, 0, 0, 0), 4, Special::Reserved),
];

/// <https://www.iana.org/assignments/iana-ipv6-special-registry>; what is in none of these is public within 2000::/3 alone.
const V6: [(u128, u8, Special); 18] = [
    (v6(0, 0, 0, 0, 0, 0, 0, 1), 128, Special::Loopback),
    (v6(0, 0, 0, 0, 0, 0, 0, 0), 128, Special::ThisNetwork),
    (v6(0, 0, 0, 0, 0, 0, 0, 0), 96, Special::Embedded),
    (v6(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, Special::Embedded),
    (v6(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, Special::Nat64),
    (v6(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, Special::Nat64),
    (v6(0x100, 0, 0, 0, 0, 0, 0, 0), 64, Special::Discard),
    (v6(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, Special::Teredo),
    (v6(0x2001, 2, 0, 0, 0, 0, 0, 0), 48, Special::Benchmarking),
    (v6(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Special::Protocol),
    (v6(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Special::Documentation),
    (v6(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, Special::SixToFour),
    (v6(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Special::Documentation),
    (v6(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16, Special::Protocol),
    (v6(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Special::UniqueLocal),
    (v6(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Special::LinkLocal),
    (v6(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Special::SiteLocal),
    (v6(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Special::Multicast),
];

/// What an address is that is not public; `None`: it is. A mapped IPv4 address is judged as the address in it; a zone or scope is none of an
/// [`IpAddr`].
pub fn special(ip: IpAddr) -> Option<Special> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => special4(ip),
        IpAddr::V6(ip) => special6(ip),
    }
}

fn special4(ip: Ipv4Addr) -> Option<Special> {
    let bits = ip.to_bits();
    V4.iter().find(|(base, length, _)| (bits ^ base) >> (32 - u32::from(*length)) == 0).map(|(_, _, what)| *what)
}

fn special6(ip: Ipv6Addr) -> Option<Special> {
    let bits = ip.to_bits();
    let found = V6.iter().find(|(base, length, _)| (bits ^ base) >> (128 - u32::from(*length)) == 0);
    match found {
        Some((_, _, what)) => Some(*what),
        // RFC 4291 §2.4: so far global unicast has been given out of 2000::/3 alone.
        None if bits >> 125 == 1 => None,
        None => Some(Special::Reserved),
    }
}

/// What a whole network is; `None`: some of it is public.
pub fn special_net(net: IpNet) -> Option<Special> {
    let (first, last) = (net.network(), net.broadcast());
    let inside = |length: u8| net.prefix_len() >= length;
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(_)) => V4
            .iter()
            .find(|(base, length, _)| inside(*length) && (first.to_bits() ^ base) >> (32 - u32::from(*length)) == 0)
            .map(|(_, _, what)| *what),
        (IpAddr::V6(first), _) => {
            let bits = first.to_bits();
            let found = V6
                .iter()
                .find(|(base, length, _)| inside(*length) && (bits ^ base) >> (128 - u32::from(*length)) == 0)
                .map(|(_, _, what)| *what);
            found.or_else(|| (inside(3) && bits >> 125 != 1).then_some(Special::Reserved))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => None,
    }
}

/// The IPv4 address in an IPv6 one that a translator would call in its place (RFC 6052 §2.1).
pub fn behind_nat64(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    (special6(ip) == Some(Special::Nat64)).then(|| Ipv4Addr::from_bits(ip.to_bits() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Special> {
        special(text.parse().expect(text))
    }

    #[test]
    fn public_addresses_are_public_to_their_edges() {
        for public in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.0.3.0",
            "192.88.98.255",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.1",
            "198.51.99.255",
            "203.0.114.0",
            "223.5.5.5",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2606:4700:4700::1111",
            "2400:3200::1",
            "2001:200::1",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "3ffe:ffff::1",
            "2000::1",
            "3fff:1000::1",
        ] {
            assert_eq!(of(public), None, "{public}");
        }
    }

    #[test]
    fn every_special_range_is_special_to_its_edges() {
        use Special as S;
        for (text, what) in [
            ("0.0.0.0", S::ThisNetwork),
            ("0.255.255.255", S::ThisNetwork),
            ("10.0.0.0", S::Private),
            ("10.255.255.255", S::Private),
            ("100.64.0.0", S::Shared),
            ("100.100.100.200", S::Shared),
            ("100.127.255.255", S::Shared),
            ("127.0.0.1", S::Loopback),
            ("127.255.255.254", S::Loopback),
            ("168.63.129.16", S::CloudPlatform),
            ("169.254.169.254", S::LinkLocal),
            ("169.254.0.23", S::LinkLocal),
            ("172.16.0.0", S::Private),
            ("172.31.255.255", S::Private),
            ("192.0.0.192", S::Protocol),
            ("192.0.2.1", S::Documentation),
            ("192.88.99.1", S::Relay),
            ("192.168.255.255", S::Private),
            ("198.18.0.1", S::Benchmarking),
            ("198.19.255.255", S::Benchmarking),
            ("198.51.100.1", S::Documentation),
            ("203.0.113.255", S::Documentation),
            ("224.0.0.1", S::Multicast),
            ("239.255.255.250", S::Multicast),
            ("240.0.0.1", S::Reserved),
            ("255.255.255.254", S::Reserved),
            ("255.255.255.255", S::Broadcast),
            ("::", S::ThisNetwork),
            ("::1", S::Loopback),
            ("::2", S::Embedded),
            ("::127.0.0.1", S::Embedded),
            ("::ffff:127.0.0.1", S::Loopback),
            ("::ffff:169.254.169.254", S::LinkLocal),
            ("::ffff:0:127.0.0.1", S::Embedded),
            ("64:ff9b::7f00:1", S::Nat64),
            ("64:ff9b::808:808", S::Nat64),
            ("64:ff9b:1::7f00:1", S::Nat64),
            ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", S::Nat64),
            ("64:ff9b:2::1", S::Reserved),
            ("100::1", S::Discard),
            ("100:0:0:1::1", S::Reserved),
            ("2001:0:1234::1", S::Teredo),
            ("2001:2::1", S::Benchmarking),
            ("2001:10::1", S::Protocol),
            ("2001:20::1", S::Protocol),
            ("2001:1ff:ffff::1", S::Protocol),
            ("2001:db8::1", S::Documentation),
            ("2002:7f00:1::", S::SixToFour),
            ("3fff::1", S::Documentation),
            ("3fff:fff:ffff::1", S::Documentation),
            ("4000::1", S::Reserved),
            ("5f00::1", S::Protocol),
            ("1fff::1", S::Reserved),
            ("fc00::1", S::UniqueLocal),
            ("fd00:ec2::254", S::UniqueLocal),
            ("fd20:ce::254", S::UniqueLocal),
            ("fe80::1", S::LinkLocal),
            ("febf::1", S::LinkLocal),
            ("fec0::1", S::SiteLocal),
            ("ff02::1", S::Multicast),
            ("e000::1", S::Reserved),
        ] {
            assert_eq!(of(text), Some(what), "{text}");
        }
    }

    #[test]
    fn a_network_is_special_if_all_of_it_is() {
        let of = |text: &str| special_net(text.parse().expect(text));
        for wholly in [
            "10.0.0.0/8",
            "10.20.0.0/24",
            "127.0.0.0/8",
            "127.0.0.1/32",
            "fd00::/8",
            "fc00::/7",
            "64:ff9b::/96",
            "240.0.0.0/4",
            "::1/128",
            "4000::/3",
        ] {
            assert!(of(wholly).is_some(), "{wholly}");
        }
        for partly in
            ["0.0.0.0/0", "192.168.0.0/15", "8.8.8.8/32", "::/0", "2000::/3", "2001:db8::/31", "fc00::/6", "8.0.0.0/7"]
        {
            assert_eq!(of(partly), None.or_else(|| (partly == "fc00::/6").then_some(Special::Reserved)), "{partly}");
        }
    }

    #[test]
    fn what_a_translator_calls_is_told() {
        let of = |text: &str| behind_nat64(text.parse().expect(text));
        assert_eq!(of("64:ff9b::808:808"), Some(Ipv4Addr::new(8, 8, 8, 8)));
        assert_eq!(of("2001:db8::808:808"), None);
        assert_eq!(of("8.8.8.8"), None);
    }
}
