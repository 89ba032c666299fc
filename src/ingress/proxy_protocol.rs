//! The PROXY protocol header, versions 1 and 2, in front of a connection. Pure.
//!
//! Source: haproxy's `doc/proxy-protocol.txt` (2020/03/05), sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Not whole yet.
    Partial,
    /// A header of so many bytes. The caller's address; `None` where the header does not say (`LOCAL`, `UNKNOWN`, or
    /// a family without addresses of ours): the socket's peer stands.
    Whole(usize, Option<SocketAddr>),
    Bad(&'static str),
}

const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, its CRLF included.
const V1_MAX: usize = 107;
/// Addresses and TLVs of version 2 that are taken: more is of no known use.
const V2_MAX: usize = 4096;

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> ProxyHeader {
    let common = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if common(V2) {
        return if bytes.len() < 16 { ProxyHeader::Partial } else { v2(bytes) };
    }
    if common(b"PROXY ") {
        return v1(bytes);
    }
    ProxyHeader::Bad("the connection does not begin with a PROXY header")
}

fn v1(bytes: &[u8]) -> ProxyHeader {
    let seen = &bytes[..bytes.len().min(V1_MAX)];
    let Some(lf) = memchr::memchr(b'\n', seen) else {
        return if bytes.len() < V1_MAX {
            ProxyHeader::Partial
        } else {
            ProxyHeader::Bad("the PROXY line is longer than 107 bytes")
        };
    };
    let bad = ProxyHeader::Bad("the PROXY line is malformed");
    let Some(line) = seen[..lf].strip_suffix(b"\r").and_then(|l| std::str::from_utf8(l).ok()) else {
        return bad;
    };
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return ProxyHeader::Whole(lf + 1, None);
    }
    let (Some(source), Some(_destination), Some(port), Some(_), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return bad;
    };
    let ip = match family {
        Some("TCP4") => source.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
        Some("TCP6") => source.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        _ => None,
    };
    // `parse` alone would take "+80".
    let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse::<u16>().ok()).flatten();
    match (ip, port) {
        (Some(ip), Some(port)) => ProxyHeader::Whole(lf + 1, Some(SocketAddr::new(ip, port))),
        _ => bad,
    }
}

fn v2(bytes: &[u8]) -> ProxyHeader {
    if bytes[12] >> 4 != 2 {
        return ProxyHeader::Bad("the PROXY header is of no known version");
    }
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > V2_MAX {
        return ProxyHeader::Bad("the PROXY header is longer than 4 KiB");
    }
    let Some(body) = bytes.get(16..16 + length) else {
        return ProxyHeader::Partial;
    };
    let whole = |address| ProxyHeader::Whole(16 + length, address);
    match bytes[12] & 0x0f {
        0 => return whole(None), // LOCAL: a health check of the proxy's own
        1 => {}
        _ => return ProxyHeader::Bad("the PROXY header has no known command"),
    }
    match bytes[13] >> 4 {
        1 => {
            let Some(&[a, b, c, d, _, _, _, _, p, q]) = body.first_chunk::<10>() else {
                return ProxyHeader::Bad("the PROXY header is too short for its addresses");
            };
            whole(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([p, q]))))
        }
        2 => {
            let (Some(source), Some(&[p, q])) = (body.first_chunk::<16>(), body.get(32..34)) else {
                return ProxyHeader::Bad("the PROXY header is too short for its addresses");
            };
            whole(Some(SocketAddr::new(Ipv6Addr::from(*source).into(), u16::from_be_bytes([p, q]))))
        }
        // AF_UNSPEC and AF_UNIX: nothing that an allow list could hold.
        _ => whole(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2_header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = V2.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend(body);
        header
    }

    #[test]
    fn the_caller_is_the_source_address() {
        let line = b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\nGET /";
        assert_eq!(parse(line), ProxyHeader::Whole(46, Some("198.51.100.7:4711".parse().unwrap())));
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n";
        assert_eq!(parse(line), ProxyHeader::Whole(line.len(), Some("[2001:db8::7]:4711".parse().unwrap())));
        let header = v2_header(1, 0x11, &[198, 51, 100, 7, 203, 0, 113, 1, 0x12, 0x67, 1, 187]);
        assert_eq!(parse(&header), ProxyHeader::Whole(28, Some("198.51.100.7:4711".parse().unwrap())));
    }

    #[test]
    fn local_and_unknown_leave_the_peer() {
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), ProxyHeader::Whole(15, None));
        assert_eq!(parse(&v2_header(0, 0, &[])), ProxyHeader::Whole(16, None));
    }

    #[test]
    fn every_prefix_of_a_header_is_partial() {
        let v2 = v2_header(1, 0x21, &[1; 40]);
        for header in [&b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"[..], &v2] {
            for n in 0..header.len() {
                assert_eq!(parse(&header[..n]), ProxyHeader::Partial, "{n}");
            }
            assert!(matches!(parse(header), ProxyHeader::Whole(n, Some(_)) if n == header.len()));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 70000 2\r\n",
            &[b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
            &v2_header(2, 0x11, &[0; 12]),
            &v2_header(1, 0x11, &[0; 4]),
            &v2_header(1, 0x21, &[0; 33]),
        ] {
            assert!(matches!(parse(bytes), ProxyHeader::Bad(_)), "{}", bytes.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80), kind in 0..3) {
            match kind {
                0 => { bytes.splice(0..0, *V2); }
                1 => { bytes.splice(0..0, *b"PROXY "); }
                _ => {}
            }
            if let ProxyHeader::Whole(n, _) = parse(&bytes) {
                proptest::prop_assert!(n <= bytes.len());
            }
        }
    }
}
