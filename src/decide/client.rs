//! Who is calling: the address behind trusted proxies, the client that an address belongs to, and whether a route
//! admits them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use ipnet::IpNet;

use super::Reason;
use crate::config::model::{Client, ClientId, Networks, Route};

/// How many elements of `X-Forwarded-For` are looked at, from the right: no chain of honest proxies is longer.
const FORWARDED_ELEMENTS: usize = 64;

/// The caller's address: `peer`, or what trusted proxies say of it.
///
/// If `peer` is in `trusted`, the `X-Forwarded-For` lines are read as one list and walked from the right: the first
/// address that is not trusted is the caller's, since whoever wrote it there is trusted and what stands left of it
/// anyone may have written. If all are trusted, the leftmost is it. An element that is no address ends the walk at the
/// last good one, and so does the 64th element. Elements may be `192.0.2.1`, `192.0.2.1:5678`, `2001:db8::1`,
/// `[2001:db8::1]` and `[2001:db8::1]:5678`; empty ones are skipped (RFC 9110 §5.6.1.2). IPv4-mapped IPv6 addresses
/// are told as IPv4.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut last_good = peer.to_canonical();
    if trusted.is_empty() || !trusted.contains(last_good) {
        return last_good;
    }
    let elements = headers
        .get_all("x-forwarded-for")
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|&b| b == b','))
        .take(FORWARDED_ELEMENTS)
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty());
    for element in elements {
        let Some(ip) = forwarded_element(element) else {
            break;
        };
        last_good = ip;
        if !trusted.contains(ip) {
            break;
        }
    }
    last_good
}

/// One element of `X-Forwarded-For`, with or without a port.
fn forwarded_element(element: &[u8]) -> Option<IpAddr> {
    // The longest is "[" + 45 characters of a mapped address + "]:65535".
    if element.len() > 53 {
        return None;
    }
    let text = std::str::from_utf8(element).ok()?;
    let ip = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, after) = rest.split_once(']')?;
            if !after.is_empty() {
                port(after.strip_prefix(':')?)?;
            }
            IpAddr::V6(ip.parse().ok()?)
        }
        None => match text.split_once(':') {
            Some((ip, after)) if !after.contains(':') => {
                port(after)?;
                IpAddr::V4(ip.parse().ok()?)
            }
            _ => text.parse().ok()?,
        },
    };
    Some(ip.to_canonical())
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The networks of clients that have no credentials, laid out so that thousands of clients cost one binary search per prefix length in use.
#[derive(Debug, Clone, Default)]
pub struct Clients {
    v4: Vec<Prefixes<u32>>,
    v6: Vec<Prefixes<u128>>,
}

/// All networks of one prefix length, sorted by address.
#[derive(Debug, Clone)]
struct Prefixes<A> {
    length: u8,
    networks: Vec<(A, ClientId)>,
}

impl Clients {
    /// Indexes those of the config's clients that are known by their network alone; their places in `clients` are their
    /// [`ClientId`]s.
    pub fn new(clients: &[Client]) -> Self {
        let mut index = Self::default();
        for (id, client) in (0u32..).map(ClientId).zip(clients).filter(|(_, client)| client.by_network_alone()) {
            for net in client.networks.as_slice() {
                match net {
                    IpNet::V4(net) => insert(&mut index.v4, net.prefix_len(), u32::from(net.network()), id),
                    IpNet::V6(net) => insert(&mut index.v6, net.prefix_len(), u128::from(net.network()), id),
                }
            }
        }
        finish(&mut index.v4);
        finish(&mut index.v6);
        index
    }

    /// The client with the longest prefix that holds `ip`.
    pub fn identify(&self, ip: IpAddr) -> Option<ClientId> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.iter().find_map(|p| p.get(mask4(ip, p.length))),
            IpAddr::V6(ip) => self.v6.iter().find_map(|p| p.get(mask6(ip, p.length))),
        }
    }
}

fn insert<A>(all: &mut Vec<Prefixes<A>>, length: u8, address: A, id: ClientId) {
    match all.iter_mut().find(|p| p.length == length) {
        Some(prefixes) => prefixes.networks.push((address, id)),
        None => all.push(Prefixes { length, networks: vec![(address, id)] }),
    }
}

/// Longest prefix first; a tie (an error of the config, found there) goes to the first client.
fn finish<A: Ord + Copy>(all: &mut [Prefixes<A>]) {
    all.sort_by_key(|p| std::cmp::Reverse(p.length));
    for prefixes in all {
        prefixes.networks.sort_unstable();
        prefixes.networks.dedup_by_key(|(address, _)| *address);
    }
}

impl<A: Ord + Copy> Prefixes<A> {
    fn get(&self, address: A) -> Option<ClientId> {
        self.networks.binary_search_by_key(&address, |(a, _)| *a).ok().map(|at| self.networks[at].1)
    }
}

fn mask4(ip: Ipv4Addr, length: u8) -> u32 {
    u32::from(ip) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn mask6(ip: Ipv6Addr, length: u8) -> u128 {
    u128::from(ip) & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// Whether the route lets this address in: `deny` beats `allow`.
///
/// # Errors
///
/// [`Reason::ForbiddenAddress`].
pub fn admit(route: &Route, ip: IpAddr) -> Result<(), Reason> {
    let is_denied = route.deny.contains(ip);
    let is_allowed = route.allow.as_ref().is_none_or(|nets| nets.contains(ip));
    if is_denied || !is_allowed { Err(Reason::ForbiddenAddress) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{EncodedSlash, FunctionId, PathPattern, Serves};

    fn nets(list: &[&str]) -> Networks {
        Networks::new(list.iter().map(|n| n.parse().unwrap()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found(peer: &str, lines: &[&str]) -> String {
        let headers: HeaderMap = lines
            .iter()
            .map(|l| (http::HeaderName::from_static("x-forwarded-for"), HeaderValue::from_str(l).unwrap()))
            .collect();
        address(ip(peer), &headers, &nets(&["10.0.0.0/8", "fd00::/8"])).to_string()
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_caller() {
        assert_eq!(found("192.0.2.9", &["198.51.100.1"]), "192.0.2.9");
        assert_eq!(found("::ffff:192.0.2.9", &[]), "192.0.2.9");
        assert_eq!(found("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_caller() {
        assert_eq!(found("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(found("10.0.0.1", &["1.1.1.1, 198.51.100.1 , 10.2.3.4"]), "198.51.100.1");
        assert_eq!(found("10.0.0.1", &["1.1.1.1, 198.51.100.1", "10.2.3.4,10.0.0.7"]), "198.51.100.1");
        assert_eq!(found("::ffff:10.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn if_all_are_trusted_the_leftmost_is_the_caller() {
        assert_eq!(found("10.0.0.1", &["10.9.9.9, fd00::2"]), "10.9.9.9");
    }

    #[test]
    fn ports_brackets_and_empty_elements_are_understood() {
        assert_eq!(found("10.0.0.1", &["198.51.100.1:5678"]), "198.51.100.1");
        assert_eq!(found("10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(found("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(found("10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(found("10.0.0.1", &["198.51.100.1,, ,"]), "198.51.100.1");
    }

    #[test]
    fn an_element_that_is_no_address_ends_the_walk_at_the_last_good_one() {
        for bad in
            ["unknown", "_hidden", "1.2.3", "1.2.3.4:99999", "1.2.3.4:+1", "[1.2.3.4]", "[::1", "[::1]x", "\"1.2.3.4\""]
        {
            assert_eq!(found("10.0.0.1", &[&format!("192.0.2.1, {bad}, 10.0.0.2")]), "10.0.0.2");
            assert_eq!(found("10.0.0.1", &[&format!("192.0.2.1, {bad}")]), "10.0.0.1");
        }
    }

    #[test]
    fn a_huge_header_costs_no_more_than_64_elements() {
        let line = format!("192.0.2.1{}", ", 10.0.0.2".repeat(5_000));
        assert_eq!(found("10.0.0.1", &[&line]), "10.0.0.2");
    }

    fn client(name: &str, networks: &[&str]) -> Client {
        named(name, nets(networks))
    }

    fn named(name: &str, networks: Networks) -> Client {
        Client { name: name.into(), networks, ..Client::default() }
    }

    #[test]
    fn the_longest_prefix_names_the_client() {
        let clients = Clients::new(&[
            client("all", &["0.0.0.0/0"]),
            client("office", &["192.0.2.0/24", "2001:db8::/32"]),
            client("desk", &["192.0.2.7/32", "2001:db8::7/128"]),
        ]);
        let of = |text| clients.identify(ip(text)).map(|id| id.0);
        assert_eq!(of("8.8.8.8"), Some(0));
        assert_eq!(of("192.0.2.1"), Some(1));
        assert_eq!(of("192.0.2.7"), Some(2));
        assert_eq!(of("::ffff:192.0.2.7"), Some(2));
        assert_eq!(of("2001:db8::1"), Some(1));
        assert_eq!(of("2001:db8::7"), Some(2));
        assert_eq!(of("2001:db9::7"), None);
        assert_eq!(Clients::default().identify(ip("1.1.1.1")), None);
    }

    fn route(allow: Option<&[&str]>, deny: &[&str]) -> Route {
        Route {
            name: "r".into(),
            listeners: None,
            hosts: vec![],
            path: PathPattern::Prefix(String::new()),
            methods: None,
            headers: vec![],
            query: vec![],
            priority: 0,
            serves: Serves::Function(FunctionId(0)),
            version: None,
            clients: None,
            allow: allow.map(nets),
            deny: nets(deny),
            limits: vec![],
            handling: Default::default(),
            encoded_slash: EncodedSlash::default(),
            forward_client_cert: false,
            criticality: crate::config::model::Criticality::default(),
        }
    }

    #[test]
    fn deny_beats_allow() {
        let me = ip("192.0.2.7");
        let address = Err(Reason::ForbiddenAddress);
        assert_eq!(admit(&route(None, &[]), me), Ok(()));
        assert_eq!(admit(&route(Some(&["192.0.2.0/24"]), &[]), me), Ok(()));
        assert_eq!(admit(&route(Some(&["192.0.2.0/24"]), &["192.0.2.7/32"]), me), address);
        assert_eq!(admit(&route(Some(&["10.0.0.0/8"]), &[]), me), address);
        assert_eq!(admit(&route(Some(&[]), &[]), me), address);
    }

    fn any_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|a| IpAddr::V4(a.into())),
            any::<u128>().prop_map(|a| IpAddr::V6(a.into())),
            (0u32..4).prop_map(|a| IpAddr::V4((0x0a00_0000 + a).into())),
        ]
    }

    proptest! {
        #[test]
        fn hostile_lines_never_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)) {
            let headers: HeaderMap = lines
                .iter()
                .filter_map(|l| HeaderValue::from_bytes(l).ok())
                .map(|v| (http::HeaderName::from_static("x-forwarded-for"), v))
                .collect();
            address(ip("10.0.0.1"), &headers, &nets(&["0.0.0.0/0", "::/0"]));
        }

        #[test]
        fn the_walk_agrees_with_a_naive_one(list in prop::collection::vec(any_ip(), 0..6)) {
            let line = list.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
            let trusted = nets(&["10.0.0.0/8", "fd00::/8"]);
            let expected = list
                .iter()
                .rev()
                .find(|ip| !trusted.contains(**ip))
                .or_else(|| list.first())
                .map_or_else(|| "10.0.0.1".into(), |ip| ip.to_canonical().to_string());
            prop_assert_eq!(found("10.0.0.1", &[&line]), expected);
        }

        #[test]
        fn the_index_agrees_with_asking_every_client(
            networks in prop::collection::vec((any_ip(), 0u8..=128), 0..20),
            ip in any_ip(),
        ) {
            let clients: Vec<Client> = networks
                .iter()
                .map(|(ip, length)| {
                    let longest = if ip.is_ipv4() { 32 } else { 128 };
                    let net = IpNet::new(*ip, (*length).min(longest)).unwrap().trunc();
                    named("c", Networks::new([net]))
                })
                .collect();
            let naive = clients
                .iter()
                .enumerate()
                .filter_map(|(at, c)| Some((c.networks.longest_match(ip)?, std::cmp::Reverse(at))))
                .max()
                .map(|(_, at)| at.0);
            prop_assert_eq!(Clients::new(&clients).identify(ip).map(ClientId::index), naive);
        }
    }
}
