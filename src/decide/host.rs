//! Reads Host and `:authority` strictly: routing, certificates and logs must all see the same name.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    net::Ipv6Addr,
};

/// Longest name that is looked at: more than a domain name may have (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// The two parts of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'r> {
    /// Lower case, without the one dot that may end it; an IPv6 address in its shortest spelling (RFC 5952), in
    /// brackets. Borrowed where the request wrote it like this.
    pub name: Cow<'r, str>,
    pub port: Option<u16>,
}

/// Why an authority is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostProblem {
    #[error("the host is empty")]
    Empty,
    #[error("the host is longer than {MAX_NAME} bytes")]
    TooLong,
    #[error("the host has a user before `@`, which no request may send")]
    UserInfo,
    #[error("the host has the byte {byte:#04x}, which no host name has")]
    IllegalByte { byte: u8 },
    #[error("the host has an empty label (two dots, or one at its start)")]
    EmptyLabel,
    #[error("the host has no valid IPv6 address between `[` and `]`")]
    BadAddress,
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
}

/// Takes the value of a Host field or `:authority` apart (RFC 9110 §7.2, RFC 3986 §3.2.2).
///
/// Names are letters, digits, `-`, `.` and `_`. An empty port is none (RFC 3986 §3.2.3).
///
/// # Errors
///
/// Everything else, also what RFC 3986 would allow a name but DNS has never seen (percent-encoding, sub-delims,
/// zones, future address forms), and user information (RFC 9110 §4.2.4).
pub fn parse(authority: &str) -> Result<Host<'_>, HostProblem> {
    if authority.contains('@') {
        return Err(HostProblem::UserInfo);
    }
    if authority.starts_with('[') {
        return bracketed(authority);
    }
    let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
    Ok(Host { name: reg_name(name)?, port: port_of(port)? })
}

fn bracketed(authority: &str) -> Result<Host<'_>, HostProblem> {
    let end = authority.find(']').ok_or(HostProblem::BadAddress)?;
    let (written, rest) = authority.split_at(end + 1);
    let ip: Ipv6Addr = written[1..end].parse().map_err(|_| HostProblem::BadAddress)?;
    let port = match rest.as_bytes() {
        [] => None,
        [b':', ..] => port_of(&rest[1..])?,
        [byte, ..] => return Err(HostProblem::IllegalByte { byte: *byte }),
    };
    let name = if is_written_like(written, ip) { Cow::Borrowed(written) } else { Cow::Owned(format!("[{ip}]")) };
    Ok(Host { name, port })
}

fn is_written_like(written: &str, ip: Ipv6Addr) -> bool {
    /// Takes away what is printed for as long as it is the same.
    struct Rest<'r>(&'r str);

    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, printed: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(printed).ok_or(fmt::Error)?;
            Ok(())
        }
    }

    let mut rest = Rest(written);
    write!(rest, "[{ip}]").is_ok() && rest.0.is_empty()
}

fn port_of(digits: &str) -> Result<Option<u16>, HostProblem> {
    if digits.is_empty() {
        return Ok(None);
    }
    // `u16::from_str` would take a plus sign.
    if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostProblem::BadPort);
    }
    digits.parse().map(Some).map_err(|_| HostProblem::BadPort)
}

fn reg_name(written: &str) -> Result<Cow<'_, str>, HostProblem> {
    let name = written.strip_suffix('.').unwrap_or(written);
    if written.is_empty() {
        return Err(HostProblem::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(HostProblem::TooLong);
    }
    let mut upper = false;
    let mut before = b'.';
    for byte in name.bytes() {
        match byte {
            b'.' if before == b'.' => return Err(HostProblem::EmptyLabel),
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {}
            b'A'..=b'Z' => upper = true,
            _ => return Err(HostProblem::IllegalByte { byte }),
        }
        before = byte;
    }
    if before == b'.' {
        return Err(HostProblem::EmptyLabel);
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

#[cfg(test)]
mod tests;
