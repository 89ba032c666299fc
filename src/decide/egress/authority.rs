//! Where a client wants to go: the target of CONNECT, and of a request in absolute form, byte by byte.
//!
//! Strict, so that no two readers (this one, a resolver, a TLS library, the log) can see two destinations in one text: ASCII alone, names of
//! letters, digits, `-`, `_` and `.`, addresses in their usual spelling, a port in decimal. Nothing is converted: clients send names
//! of other scripts as DNS has them (RFC 5891).

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::decide::Reason;

/// RFC 1035 §2.3.4, less what its wire form needs.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
/// A name, its dot, a colon and a port.
const LONGEST: usize = LONGEST_NAME + 7;

/// A destination: host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority<'r> {
    pub host: Host<'r>,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host<'r> {
    /// Lower case, without the one dot that may end it. Borrowed where it was written like this.
    Name(Cow<'r, str>),
    /// Canonical: a mapped IPv4 address is IPv4.
    Address(IpAddr),
}

/// `host:port`, as the audit log has it; IPv6 addresses in brackets.
impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl Authority<'_> {
    pub fn into_owned(self) -> Authority<'static> {
        let host = match self.host {
            Host::Name(name) => Host::Name(Cow::Owned(name.into_owned())),
            Host::Address(ip) => Host::Address(ip),
        };
        Authority { host, port: self.port }
    }
}

/// Why a text is no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityProblem {
    #[error("the destination is empty")]
    Empty,
    #[error("the destination is longer than {LONGEST_NAME} bytes")]
    TooLong,
    #[error("the destination has the byte {0:#04x}, which no host has")]
    IllegalByte(u8),
    #[error("the destination has a user before `@`; credentials go into Proxy-Authorization")]
    UserInfo,
    #[error("CONNECT takes `host:port` alone, without scheme, path, query or fragment")]
    MoreThanAuthority,
    #[error("the destination has no port: write `host:port`")]
    NoPort,
    #[error("the port is not a number from 1 to 65535, in digits, without a sign or zeros before it")]
    BadPort,
    #[error("what is between `[` and `]` is not an IPv6 address")]
    BadBrackets,
    #[error("an IPv6 address stands in brackets: `[2001:db8::1]:443`")]
    NoBrackets,
    #[error("port 0 is nobody's")]
    PortZero,
    #[error("the destination is percent-encoded, as no host is")]
    PercentEncoded,
    #[error("the address has a zone, which leads to this machine's own networks")]
    Zone,
    #[error("the destination is a number, or ends in one, and is not an IPv4 address in its usual form")]
    OddAddress,
    #[error("a label of the name is empty")]
    EmptyLabel,
    #[error("a label of the name is longer than {LONGEST_LABEL} bytes")]
    LongLabel,
    #[error("a label of the name begins or ends with `-`")]
    Hyphen,
    #[error("a request for a proxy names its whole target: `GET http://host/path`")]
    NotAbsolute,
    #[error("https is reached by CONNECT: the proxy does not speak TLS for its clients")]
    Https,
    #[error("the proxy forwards http alone")]
    Scheme,
}

impl AuthorityProblem {
    /// What is malformed gets 400. What has the form of a host, and can be nobody's name or address, is a destination that nothing allows.
    pub fn reason(self) -> Reason {
        match self {
            Self::PortZero
            | Self::PercentEncoded
            | Self::OddAddress
            | Self::EmptyLabel
            | Self::LongLabel
            | Self::Hyphen
            | Self::TooLong
            | Self::Https
            | Self::Scheme => Reason::DestinationNotAllowed,
            Self::Zone => Reason::AddressNotAllowed,
            Self::Empty
            | Self::IllegalByte(_)
            | Self::UserInfo
            | Self::MoreThanAuthority
            | Self::NoPort
            | Self::BadPort
            | Self::BadBrackets
            | Self::NoBrackets
            | Self::NotAbsolute => Reason::BadRequest,
        }
    }
}

/// The target of CONNECT (RFC 9110 §9.3.6): `host:port`, both of them.
///
/// # Errors
///
/// [`AuthorityProblem`].
pub fn connect(target: &[u8]) -> Result<Authority<'_>, AuthorityProblem> {
    authority(target, None)
}

/// The target of a request in absolute form (RFC 9112 §3.2.2), taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Absolute<'r> {
    pub authority: Authority<'r>,
    /// Whether the target wrote its port: Host repeats it then (RFC 9110 §7.2).
    pub port_written: bool,
    /// Path and query, as written; may be empty, or begin with `?`. See [`Absolute::origin_form`].
    pub path: &'r str,
}

impl Absolute<'_> {
    /// What the origin gets (RFC 9112 §3.2.1, §3.2.4).
    pub fn origin_form(&self, is_options: bool) -> Cow<'_, str> {
        match self.path.as_bytes() {
            [] if is_options => Cow::Borrowed("*"),
            [] => Cow::Borrowed("/"),
            [b'?', ..] => Cow::Owned(format!("/{}", self.path)),
            _ => Cow::Borrowed(self.path),
        }
    }

    /// What the origin gets as Host, whatever the client sent as such (RFC 9112 §3.2.2).
    pub fn host(&self) -> String {
        match self.port_written {
            true => self.authority.to_string(),
            false => self.authority.host.to_string(),
        }
    }
}

/// `http://host[:port][/path][?query]`.
///
/// # Errors
///
/// [`AuthorityProblem`].
pub fn absolute(target: &[u8]) -> Result<Absolute<'_>, AuthorityProblem> {
    use AuthorityProblem as P;
    // Control characters, blanks and what is not ASCII have no place anywhere in a target (RFC 3986 §2); a backslash and a fragment have none in
    // what goes to an origin, and are read as slashes and ends by some.
    if let Some(bad) = target.iter().find(|b| !b.is_ascii_graphic() || matches!(b, b'\\' | b'#')) {
        return Err(P::IllegalByte(*bad));
    }
    if target.first().is_none_or(|b| !b.is_ascii_alphabetic()) {
        return Err(P::NotAbsolute);
    }
    let colon = target.iter().position(|b| *b == b':').ok_or(P::NotAbsolute)?;
    let (scheme, rest) = target.split_at(colon);
    if !scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_')) {
        return Err(P::NotAbsolute);
    }
    if scheme.eq_ignore_ascii_case(b"https") {
        return Err(P::Https);
    }
    if !scheme.eq_ignore_ascii_case(b"http") {
        return Err(P::Scheme);
    }
    let rest = rest.strip_prefix(b"://").ok_or(P::NotAbsolute)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let authority = authority(host, Some(80))?;
    let port_written = match host {
        [b'[', ..] => host.last() != Some(&b']'),
        _ => host.contains(&b':'),
    };
    // ASCII, as was looked at above.
    let path = std::str::from_utf8(path).map_err(|_| P::NotAbsolute)?;
    Ok(Absolute { authority, port_written, path })
}

/// Whether a value of Host is one (RFC 9112 §3.2): a host, with or without a port, or nothing.
pub fn is_host(value: &[u8]) -> bool {
    // RFC 3986 §3.2.3: a port may be empty.
    let value = value.strip_suffix(b":").unwrap_or(value);
    // What could be somebody's is not asked here.
    value.is_empty()
        || authority(value, Some(80)).err().is_none_or(|problem| problem.reason() != Reason::BadRequest)
        || is_bare_ipv6(value)
}

/// Python's http.client writes an address so, with its port behind it, when it asks for a tunnel: wrong, and it is the target that counts.
fn is_bare_ipv6(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    is_address(text) || text.rsplit_once(':').is_some_and(|(ip, digits)| is_address(ip) && port(digits).is_ok())
}

/// A target as far as it may be logged before it is known to be one: what could be host and port, without user and password, path and query.
/// Empty where that can't be told.
pub fn without_secrets(target: &[u8]) -> &[u8] {
    let is_hosts = |b: &u8| b.is_ascii_alphanumeric() || b"._-:[]%@".contains(b);
    let begin = target.windows(3).position(|w| w == b"://").map_or(0, |at| at + 3);
    let rest = &target[begin..];
    let (host, behind) = rest.split_at(rest.iter().position(|b| !is_hosts(b)).unwrap_or(rest.len()));
    if memchr::memchr(b'@', behind).is_some() {
        // Where user and password end, only their writer knows: a slash may be one of theirs.
        return b"";
    }
    let host = memchr::memrchr(b'@', host).map_or(host, |at| &host[at + 1..]);
    match (host.first(), memchr::memrchr(b':', host)) {
        (Some(b'['), _) if !host.contains(&b']') => b"",
        (Some(b'['), _) => host,
        (_, Some(at)) if !host[at + 1..].iter().all(u8::is_ascii_digit) => &host[..at],
        _ => host,
    }
}

fn authority(text: &[u8], default_port: Option<u16>) -> Result<Authority<'_>, AuthorityProblem> {
    use AuthorityProblem as P;
    if text.is_empty() {
        return Err(P::Empty);
    }
    let mut percent = false;
    for byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' | b'[' | b']' => {}
            b'%' => percent = true,
            b'@' => return Err(P::UserInfo),
            b'/' | b'?' | b'#' => return Err(P::MoreThanAuthority),
            b'+' if text.contains(&b':') => return Err(P::BadPort),
            other => return Err(P::IllegalByte(*other)),
        }
    }
    // Every byte is ASCII.
    let text = std::str::from_utf8(text).map_err(|_| P::IllegalByte(0x80))?;
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or(P::BadBrackets)?;
        if let Some((ip, _)) = inside.split_once('%') {
            return Err(if ip.parse::<Ipv6Addr>().is_ok() { P::Zone } else { P::BadBrackets });
        }
        let ip: Ipv6Addr = inside.parse().map_err(|_| P::BadBrackets)?;
        let port = match after.strip_prefix(':') {
            Some(digits) => port(digits)?,
            None if after.is_empty() => default_port.ok_or(P::NoPort)?,
            None => return Err(P::BadBrackets),
        };
        return Ok(Authority { host: Host::Address(IpAddr::V6(ip).to_canonical()), port });
    }
    if text.contains(['[', ']']) {
        return Err(P::BadBrackets);
    }
    let (host, digits) = match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => {
            return Err(if text.parse::<Ipv6Addr>().is_ok() { P::NoBrackets } else { P::BadPort });
        }
        Some((host, digits)) => (host, Some(digits)),
        None => (text, None),
    };
    // First the port: what is malformed is told as such.
    if percent {
        return Err(if digits.is_some_and(|digits| digits.contains('%')) { P::BadPort } else { P::PercentEncoded });
    }
    let port = match digits {
        Some(digits) => port(digits),
        None => default_port.ok_or(P::NoPort),
    };
    match port {
        Err(P::PortZero) | Ok(_) => {}
        Err(other) => return Err(other),
    }
    if text.len() > LONGEST {
        return Err(P::TooLong);
    }
    let host = name_or_address(host)?;
    Ok(Authority { host, port: port? })
}

fn port(digits: &str) -> Result<u16, AuthorityProblem> {
    use AuthorityProblem as P;
    // `u16::from_str` would take a plus sign.
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(P::BadPort);
    }
    if digits == "0" {
        return Err(P::PortZero);
    }
    if digits.starts_with('0') {
        return Err(P::BadPort);
    }
    digits.parse().map_err(|_| P::BadPort)
}

/// A server name, as a TLS client writes it in its hello: the same form as here.
///
/// # Errors
///
/// [`AuthorityProblem`], also for an address (RFC 6066 §3 wants names alone).
pub fn server_name(text: &[u8]) -> Result<Cow<'_, str>, AuthorityProblem> {
    use AuthorityProblem as P;
    if let Some(bad) = text.iter().find(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))) {
        return Err(P::IllegalByte(*bad));
    }
    let text = std::str::from_utf8(text).map_err(|_| P::IllegalByte(0x80))?;
    match name_or_address(text)? {
        Host::Name(name) => Ok(name),
        Host::Address(_) => Err(P::OddAddress),
    }
}

/// `written` is ASCII, of the bytes that names have.
fn name_or_address(written: &str) -> Result<Host<'_>, AuthorityProblem> {
    use AuthorityProblem as P;
    if written.is_empty() {
        return Err(P::Empty);
    }
    // Rust reads four decimal numbers, and none of the odd forms.
    if let Ok(ip) = written.parse::<Ipv4Addr>() {
        return Ok(Host::Address(ip.into()));
    }
    let name = written.strip_suffix('.').unwrap_or(written);
    if name.len() > LONGEST_NAME {
        return Err(P::TooLong);
    }
    for label in name.split('.') {
        match label.as_bytes() {
            [] => return Err(P::EmptyLabel),
            bytes if bytes.len() > LONGEST_LABEL => return Err(P::LongLabel),
            [b'-', ..] | [.., b'-'] => return Err(P::Hyphen),
            _ => {}
        }
    }
    let last = name.rsplit('.').next().unwrap_or(name).as_bytes();
    // inet_aton(3) reads all of these as addresses, and resolvers call it.
    let is_number = match last {
        [b'0', b'x' | b'X', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    if is_number {
        return Err(P::OddAddress);
    }
    Ok(Host::Name(match name.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }))
}

#[cfg(test)]
mod tests;
