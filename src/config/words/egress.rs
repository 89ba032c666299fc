//! Where the way out leads: destinations, source addresses, bandwidth.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU64,
};

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::net::labels;
use crate::config::{
    model::{Destination, DestinationHost, EgressMode, Endpoint, MixedAnswers, OnRevoke, ResolvedBy, TlsName},
    read::{Complaint, Word, words},
    report::nearest,
};

/// One of a rule's `to`.
#[derive(Debug, Clone)]
pub(in crate::config) enum ToWord {
    One(Destination),
    /// `@partners:8443`: the networks of a list.
    Named(String, u16),
}

/// What is meant where no port is written.
const HTTPS: u16 = 443;

impl Word for ToWord {
    const EXPECTED: &'static str = "a name, `*.suffix`, an address or a network, and a port where it is not 443";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text.contains("://") {
            return Err(Complaint::new(format!("`{}` is a URL", text.escape_debug()))
                .help("write the host alone, and its port where it is not 443"));
        }
        if let Some(named) = text.strip_prefix('@') {
            let (name, port) = port_behind(named)?;
            return Ok(Self::Named(name.to_owned(), port));
        }
        let (host, port) = if text.starts_with('[') {
            let end = text.find(']').ok_or_else(|| Complaint::new(format!("`{text}` has no `]`")))?;
            let (host, rest) = (&text[1..end], &text[end + 1..]);
            // `[2001:db8::]/32:443` is read as well.
            let (length, port) = match rest.strip_prefix('/') {
                Some(rest) => {
                    let (length, port) = port_behind(rest)?;
                    (Some(length), port)
                }
                None if rest.is_empty() => (None, HTTPS),
                None => (
                    None,
                    port_number(rest.strip_prefix(':').ok_or_else(|| {
                        Complaint::new(format!("`{}` stands where the port belongs", rest.escape_debug()))
                    })?)?,
                ),
            };
            let host = length.map_or_else(|| host.to_owned(), |length| format!("{host}/{length}"));
            let Some(net @ IpNet::V6(_)) = network(&host)? else {
                return Err(Complaint::new(format!("`{}` is no IPv6 address", host.escape_debug()))
                    .help("brackets are for IPv6 addresses alone"));
            };
            return Ok(Self::One(Destination { host: DestinationHost::Net(net), port }));
        } else if let Some(net) = network(text)? {
            unambiguous(text)?;
            // An IPv6 address without brackets, or an IPv4 one without a port.
            return Ok(Self::One(Destination { host: DestinationHost::Net(net), port: HTTPS }));
        } else {
            port_behind(text)?
        };
        if let Some(net) = network(host)? {
            return Ok(Self::One(Destination { host: DestinationHost::Net(net), port }));
        }
        Ok(Self::One(Destination { host: self::host(host)?, port }))
    }

    fn form() -> Json {
        json!({ "minLength": 1, "examples": ["api.example.com", "*.example.com:8443", "203.0.113.0/24:443", "[2001:db8::1]:443", "*"] })
    }
}

/// An IPv6 address without brackets may end in what was meant as a port: `2001:db8::1:443` is read by nobody in one way.
fn unambiguous(text: &str) -> Result<(), Complaint> {
    let Some((address, digits)) = text.rsplit_once(':') else { return Ok(()) };
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return Ok(());
    }
    let complaint = Complaint::new(format!("`{text}` is an IPv6 address, or one with a port behind it"));
    let whole = format!("if the whole is the address, `[{text}]:{HTTPS}`");
    Err(match port_number(digits) {
        Ok(port) => complaint.help(format!("write `[{address}]:{port}`; {whole}")),
        Err(_) => complaint.help(whole),
    })
}

/// `None`: it is meant for something else.
fn network(text: &str) -> Result<Option<IpNet>, Complaint> {
    let net = match text.contains('/') {
        true => text.parse::<IpNet>().ok(),
        false => text.parse::<IpAddr>().ok().map(IpNet::from),
    };
    let Some(net) = net else { return overlong(text).map_or(Ok(None), Err) };
    let trunc = net.trunc();
    if net != trunc {
        return Err(
            Complaint::new(format!("`{text}` has bits beyond its prefix")).help(format!("the network is `{trunc}`"))
        );
    }
    // Addresses are judged in their canonical form, so a mapped network would hold nobody (RFC 4291 §2.5.5.2).
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && v6.prefix_len() >= 96
    {
        return Err(Complaint::new(format!("`{text}` is an IPv4 address in disguise"))
            .help(format!("write `{v4}/{}`", v6.prefix_len() - 96)));
    }
    Ok(Some(net))
}

/// What is wrong with an address's prefix. `None`: it is no address that stands before the slash, or a port is still behind it.
fn overlong(text: &str) -> Option<Complaint> {
    let (address, length) = text.split_once('/')?;
    let most = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
    (!length.contains(':')).then(|| {
        Complaint::new(format!("`{}` is not a network", text.escape_debug()))
            .help(format!("the prefix is a number from 0 to {most}"))
    })
}

/// What stands before the port, and the port.
fn port_behind(text: &str) -> Result<(&str, u16), Complaint> {
    match text.rsplit_once(':') {
        None => Ok((text, HTTPS)),
        Some((host, _)) if host.contains(':') => {
            Err(Complaint::new(format!("`{}` is neither a name nor an address", text.escape_debug()))
                .help("an IPv6 address with a port stands in brackets: `[2001:db8::1]:443`"))
        }
        Some((host, digits)) => Ok((host, port_number(digits)?)),
    }
}

fn port_number(digits: &str) -> Result<u16, Complaint> {
    let complaint = || Complaint::new(format!("`{}` is not a port", digits.escape_debug()));
    if digits == "*" {
        return Err(complaint().help("each port is written: `to = [\"api.example.com:80\", \"api.example.com:443\"]`"));
    }
    if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(complaint().help("a port is a number from 1 to 65535, without zeros before it"));
    }
    digits.parse().map_err(|_| complaint().help("the highest is 65535"))
}

fn host(text: &str) -> Result<DestinationHost, Complaint> {
    if text == "*" {
        return Ok(DestinationHost::AnyName);
    }
    let (wild, rest) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.contains('*') {
        return Err(Complaint::new(format!("`{}`: a `*` is the whole first label", text.escape_debug()))
            .help("a `*` may stand only as the whole first label, as in `*.example.com`, or alone for any name"));
    }
    let name = ascii_name(rest)?;
    Ok(if wild { DestinationHost::Suffix(format!(".{name}")) } else { DestinationHost::Name(name) })
}

/// The name as DNS and TLS have it: lower case, in ASCII (RFC 5891), without the dot at its end. Clients send names so, and at run
/// time nothing is converted.
fn ascii_name(text: &str) -> Result<String, Complaint> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let name = if text.is_ascii() && !has_a_label(text) {
        text.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii(text).map_err(|_| {
            let complaint = Complaint::new(format!("`{}` is no internationalised name", text.escape_debug()));
            complaint.help("its labels must be valid by RFC 5891")
        })?
    };
    labels(&name).map_err(|why| {
        let complaint = Complaint::new(why);
        match text.contains('/') {
            true => complaint.help("a destination has no path; a network is written as `203.0.113.0/24`"),
            false => complaint,
        }
    })?;
    if let Some(label) = name.split('.').find(|label| label.starts_with('-') || label.ends_with('-')) {
        return Err(Complaint::new(format!("`{label}` begins or ends with `-`, which no host's label does")));
    }
    // RFC 1123 §2.1: such a "name" is an address, mistyped or in an odd spelling.
    if ends_in_a_number(&name) {
        return Err(Complaint::new(format!("`{name}` ends in a number, as no name does"))
            .help("an IPv4 address is written with four numbers: `203.0.113.7`"));
    }
    Ok(name)
}

fn has_a_label(name: &str) -> bool {
    name.split('.').any(|label| label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--")))
}

/// What some resolvers read as an address: the last label is a decimal, octal or hexadecimal number.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    hex || last.bytes().all(|b| b.is_ascii_digit())
}

/// An address to leave from.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct SourceAddress(pub(in crate::config) IpAddr);

impl Word for SourceAddress {
    const EXPECTED: &'static str = "an address such as `10.0.0.5`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let ip: IpAddr = text.parse().map_err(|_| {
            let complaint = Complaint::new(format!("`{}` is not an address", text.escape_debug()));
            match text.contains('/') {
                true => complaint.help("write each address out"),
                false => complaint,
            }
        })?;
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Complaint::new(format!("nobody can leave from {ip}"))
                .help("write an address that one machine has, such as `10.0.0.5`"));
        }
        match ip.to_canonical() == ip {
            true => Ok(Self(ip)),
            false => Err(Complaint::new(format!("`{text}` is an IPv4 address in disguise"))
                .help(format!("write `{}`", ip.to_canonical()))),
        }
    }
}

/// Where a parent proxy listens: no path, and its port written.
#[derive(Debug, Clone)]
pub(in crate::config) struct ParentUrl(pub(in crate::config) Endpoint);

impl Word for ParentUrl {
    const EXPECTED: &'static str = "a proxy's URL: `http://host:port` or `https://host:port`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        // The text is not shown: it holds a password.
        if text.contains('@') {
            return Err(Complaint::new("a parent's URL has no user or password")
                .secret()
                .help("write `parent = { url = \"…\", user = \"…\", password = \"file:…\" }`"));
        }
        let shown = text.escape_debug();
        let url = <Endpoint as Word>::parse(text).map_err(|complaint| Complaint {
            message: complaint.message.replace("a function's URL", "a parent's URL"),
            ..complaint
        })?;
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('/') {
            return Err(Complaint::new(format!("`{shown}` has a path, which no proxy has")));
        }
        // Proxies have no usual port, and 80 is hardly meant.
        let port = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest).rsplit_once(':');
        if port.is_none_or(|(_, digits)| digits.is_empty()) {
            return Err(Complaint::new(format!("`{shown}` has no port")).help(format!("such as `{shown}:3128`")));
        }
        Ok(Self(url))
    }

    fn form() -> Json {
        json!({ "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+:[0-9]+/?$" })
    }
}

/// What says from where it is called.
#[derive(Debug, Clone)]
pub(in crate::config) struct EchoUrl(pub(in crate::config) Endpoint);

impl Word for EchoUrl {
    const EXPECTED: &'static str = "a URL such as `https://echo.example.com/ip`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        <Endpoint as Word>::parse(text).map(Self).map_err(|complaint| Complaint {
            message: complaint.message.replace("a function's URL", "an echo's URL"),
            ..complaint
        })
    }

    fn form() -> Json {
        <Endpoint as Word>::form()
    }
}

/// Bytes per second, above zero.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Bandwidth(pub(in crate::config) NonZeroU64);

/// Less moves nothing within the shortest of waits.
const SLOWEST: u64 = 1 << 10;

impl Word for Bandwidth {
    const EXPECTED: &'static str = "bytes per second such as `10MiB/s`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let Some(bytes) = text.strip_suffix("/s") else {
            return Err(Complaint::new(format!("`{}` is not a number of bytes per second", text.escape_debug())));
        };
        let super::Size(bytes) = super::Size::parse(bytes)?;
        NonZeroU64::new(bytes)
            .filter(|bytes| bytes.get() >= SLOWEST)
            .map(Self)
            .ok_or_else(|| Complaint::new(format!("`{text}` is too little: at least `1KiB/s`")))
    }

    fn form() -> Json {
        json!({ "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)/s$" })
    }
}

/// One of two words.
macro_rules! either {
    ($($type:ty: $one:literal $first:expr, $two:literal $second:expr;)*) => {$(
        impl Word for $type {
            const EXPECTED: &'static str = concat!("`", $one, "` or `", $two, "`");

            fn parse(text: &str) -> Result<Self, Complaint> {
                match text {
                    $one => Ok($first),
                    $two => Ok($second),
                    other => {
                        let complaint = Complaint::new(format!("`{}` is none of the choices", other.escape_debug()));
                        Err(match nearest(other, [$one, $two]) {
                            Some(near) => complaint.help(format!("did you mean `{near}`?")),
                            None => complaint,
                        })
                    }
                }
            }

            fn form() -> Json {
                json!({ "enum": [$one, $two] })
            }
        }
    )*};
}

either! {
    EgressMode: "enforce" Self::Enforce, "report" Self::Report;
    OnRevoke: "keep" Self::Keep, "close" Self::Close;
    MixedAnswers: "deny" Self::Deny, "drop" Self::Drop;
    TlsName: "match" Self::Match, "any" Self::Any;
    ResolvedBy: "here" Self::Here, "parent" Self::Parent;
}

words!(ToWord, SourceAddress, ParentUrl, EchoUrl, Bandwidth, EgressMode, OnRevoke, MixedAnswers, TlsName, ResolvedBy);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        match ToWord::parse(text) {
            Ok(ToWord::One(one)) => Ok(one.to_string()),
            Ok(ToWord::Named(name, port)) => Ok(format!("@{name}:{port}")),
            Err(complaint) => Err(complaint.message),
        }
    }

    #[test]
    fn destinations_are_read_in_every_form() {
        for (written, meant) in [
            ("api.example.com", "api.example.com:443"),
            ("API.Example.COM.:8443", "api.example.com:8443"),
            ("*.bank.example:8443", "*.bank.example:8443"),
            ("*", "*:443"),
            ("*:80", "*:80"),
            ("_dmarc.example.com", "_dmarc.example.com:443"),
            ("203.0.113.7", "203.0.113.7:443"),
            ("203.0.113.7:22", "203.0.113.7:22"),
            ("203.0.113.0/24", "203.0.113.0/24:443"),
            ("203.0.113.0/24:22", "203.0.113.0/24:22"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("[2001:db8::1]", "[2001:db8::1]:443"),
            ("[2001:db8::1]:22", "[2001:db8::1]:22"),
            ("2606:4700:4700::1111", "[2606:4700:4700::1111]:443"),
            ("[2606:4700:4700::1111:443]:443", "[2606:4700:4700::1111:443]:443"),
            ("[2606:4700:4700::1111:443]", "[2606:4700:4700::1111:443]:443"),
            ("2001:db8:0:0:0:0:0:443", "[2001:db8::443]:443"),
            ("2001:db8::1:4a3", "[2001:db8::1:4a3]:443"),
            ("2001:db8::1:443/128", "[2001:db8::1:443]:443"),
            ("2001:db8::/32", "[2001:db8::/32]:443"),
            ("[2001:db8::/32]:22", "[2001:db8::/32]:22"),
            ("[2001:db8::]/32:22", "[2001:db8::/32]:22"),
            ("0.0.0.0/0", "0.0.0.0/0:443"),
            ("::/0", "[::/0]:443"),
            ("bücher.example", "xn--bcher-kva.example:443"),
            ("*.Bücher.example:80", "*.xn--bcher-kva.example:80"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example:443"),
            ("@partners:8443", "@partners:8443"),
        ] {
            assert_eq!(read(written).as_deref(), Ok(meant), "{written}");
            if !written.starts_with('@') {
                assert_eq!(read(meant).as_deref(), Ok(meant), "{meant}");
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_told_both() {
        let help = |text| ToWord::parse(text).err().and_then(|complaint| complaint.help).unwrap_or_default();
        assert_eq!(
            help("2606:4700:4700::1111:443"),
            "write `[2606:4700:4700::1111]:443`; if the whole is the address, `[2606:4700:4700::1111:443]:443`"
        );
        assert_eq!(help("2001:db8::1:0"), "if the whole is the address, `[2001:db8::1:0]:443`");
        assert_eq!(help("10.0.0.0/33:22"), "the prefix is a number from 0 to 32");
        assert_eq!(help("[2001:db8::]/129:443"), "the prefix is a number from 0 to 128");
        assert!(!help("api.*.test").contains("*.test"));
    }

    #[test]
    fn what_is_no_destination_is_refused() {
        for wrong in [
            "",
            ".",
            "*example.com",
            "a.*.com",
            "*.",
            "**",
            "*.*.com",
            "a..b",
            ".a",
            "-a.example",
            "a-.example",
            "a.example:0",
            "a.example:0443",
            "a.example:+443",
            "a.example:65536",
            "a.example:",
            "a.example:https",
            "a.example:*",
            "https://a.example",
            "a.example/path",
            "u@a.example",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "a.0x7f",
            "256.1.1.1",
            "1.2.3.4.5",
            "①②⑦.0.0.1",
            "127。0。0。1",
            "xn--a.example",
            "[a.example]:443",
            "[127.0.0.1]:443",
            "[::1",
            "::ffff:127.0.0.1",
            "10.0.0.1/8",
            "2001:db8::1:443:x",
            "2606:4700:4700::1111:443",
            "2001:db8::1:0443",
            "2001:db8::1:0",
            "::1:1",
            "10.0.0.0/33",
            "10.0.0.0/33:443",
            "2001:db8::/129",
            "[2001:db8::]/129:443",
            "a b",
            "a%00.example",
        ] {
            assert!(read(wrong).is_err(), "{wrong} is taken as {:?}", read(wrong));
        }
    }
}
