//! Addresses, networks, hosts and URLs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use crate::config::{
    model::{Endpoint, EndpointHost, HostPattern, ListenAddress},
    read::{Complaint, Word, words},
};

impl Word for ListenAddress {
    const EXPECTED: &'static str = "`ip:port` or `unix:/path`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if let Some(path) = text.strip_prefix("unix:") {
            // 108 bytes with the NUL: sockaddr_un of Linux.
            return if !path.starts_with('/') || path.contains('\0') {
                Err(Complaint::new(format!("`{}` is not an absolute path", path.escape_debug())))
            } else if path.len() > 107 {
                Err(Complaint::new(format!("the path of a unix socket has at most 107 bytes, this one {}", path.len())))
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            let complaint = Complaint::new(format!("`{}` is not an address to listen on", text.escape_debug()));
            if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
                complaint.help(format!("for all addresses write `0.0.0.0:{port}` or `[::]:{port}`"))
            } else if let Some(port) = text.strip_prefix("localhost:") {
                complaint.help(format!("write the address: `127.0.0.1:{port}`"))
            } else if text.parse::<IpAddr>().is_ok() {
                complaint.help("the port is missing")
            } else {
                complaint
            }
        })
    }

    fn form() -> Json {
        json!({ "pattern": "^(unix:/.+|[0-9.]+:[0-9]+|\\[[0-9A-Fa-f:.]+\\]:[0-9]+)$" })
    }
}

/// A name server: `ip` or `ip:port`.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct NameServer(pub(in crate::config) SocketAddr);

impl Word for NameServer {
    const EXPECTED: &'static str = "the address of a name server: `ip` or `ip:port`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        text.parse::<SocketAddr>()
            .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
            .ok()
            .filter(|address| address.port() != 0)
            .map(Self)
            .ok_or_else(|| Complaint::new(format!("`{}` is not an address", text.escape_debug())))
    }
}

/// A network, or the name of a list of them.
#[derive(Debug, Clone)]
pub(in crate::config) enum NetworkRef {
    Net(IpNet),
    Named(String),
}

impl Word for NetworkRef {
    const EXPECTED: &'static str = "a network such as `10.0.0.0/8`, an address, or `@name`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Self::Named(name.to_owned()));
        }
        let net =
            if text.contains('/') { text.parse::<IpNet>().ok() } else { text.parse::<IpAddr>().ok().map(IpNet::from) };
        let net = net.ok_or_else(|| Complaint::new(format!("`{}` is not a network", text.escape_debug())))?;
        let trunc = net.trunc();
        if net != trunc {
            return Err(Complaint::new(format!("`{text}` has bits beyond its prefix"))
                .help(format!("the network is `{trunc}`")));
        }
        // Addresses are judged in their canonical form, so a mapped network would hold nobody (RFC 4291 §2.5.5.2).
        if let IpNet::V6(v6) = net
            && let Some(v4) = v6.addr().to_ipv4_mapped()
            && v6.prefix_len() >= 96
        {
            return Err(Complaint::new(format!("`{text}` is an IPv4 network in disguise"))
                .help(format!("write `{v4}/{}`", v6.prefix_len() - 96)));
        }
        Ok(Self::Net(net))
    }
}

/// Checks a host's labels; the error says what is wrong with them.
pub(super) fn labels(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("a host cannot be empty".to_owned());
    }
    if host.len() > 253 {
        return Err(format!("a host has at most 253 bytes, this one {}", host.len()));
    }
    for label in host.split('.') {
        if label.is_empty() {
            return Err(format!("`{host}` has an empty label"));
        }
        if label.len() > 63 {
            return Err(format!("`{label}` is longer than 63 bytes"));
        }
        if let Some(bad) = label.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
            return Err(format!("`{}` cannot stand in a host name", bad.escape_debug()));
        }
    }
    Ok(())
}

fn host_complaint(text: &str, why: String) -> Complaint {
    let complaint = Complaint::new(why);
    if text.contains("://") {
        complaint.help("write the host alone, without scheme and path")
    } else if !text.is_ascii() {
        complaint.help("write the name's ASCII form, `xn--…` (RFC 5891)")
    } else if text.contains(':') && !text.starts_with('[') {
        complaint.help("a host has no port here: it matches on every listener of the route")
    } else if text.contains('/') {
        complaint.help("the path goes into `path`")
    } else if text.ends_with('.') {
        complaint.help("leave out the dot at its end")
    } else {
        complaint
    }
}

impl Word for HostPattern {
    const EXPECTED: &'static str = "a host such as `api.example.com` or `*.example.com`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let lower = text.to_ascii_lowercase();
        if let Some(ip) = lower.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'))
            && let Ok(ip) = ip.parse::<Ipv6Addr>()
        {
            return Ok(Self::Exact(format!("[{ip}]")));
        }
        let (wild, rest) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        if rest.contains('*') {
            let complaint = Complaint::new(format!("`{text}`: a `*` is the whole first label"));
            return Err(if text == "*" {
                complaint.help("for any host leave `host` out")
            } else {
                complaint.help("write `*.example.com`")
            });
        }
        labels(rest).map_err(|why| host_complaint(text, why))?;
        Ok(if wild { Self::Wildcard(format!(".{rest}")) } else { Self::Exact(rest.to_owned()) })
    }

    fn form() -> Json {
        json!({ "pattern": "^(\\*\\.)?[0-9A-Za-z_.-]+$|^\\[[0-9A-Fa-f:.]+\\]$" })
    }
}

impl Word for Endpoint {
    const EXPECTED: &'static str = "the function's URL: `https://host/base` or `http://host:port`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let shown = text.escape_debug();
        let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
        // RFC 3986 §3.2.1. The text is not shown: it may hold a password.
        if after_scheme.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
            return Err(Complaint::new("a function's URL has no user or password").secret());
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| Complaint::new(format!("`{shown}` is not a URL")))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => {
                return Err(Complaint::new(format!("`{}` is neither http nor https", scheme.escape_debug())));
            }
        };
        if let Some(mark) = rest.chars().find(|c| matches!(c, '?' | '#')) {
            let what = if mark == '?' { "query" } else { "fragment" };
            return Err(Complaint::new(format!("a function's URL has no {what}")));
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) =
            split_port(authority).ok_or_else(|| Complaint::new(format!("`{shown}` has no valid port")))?;
        let own = if tls { 443 } else { 80 };
        let host = endpoint_host(host)?;
        let base_path = path.trim_end_matches('/').to_owned();
        if !base_path.is_empty() {
            super::path::literal(&base_path)?;
        }
        let mut authority = match &host {
            EndpointHost::Address(IpAddr::V6(ip)) => format!("[{ip}]"),
            host => host.to_string(),
        };
        if let Some(port) = port.filter(|port| *port != own) {
            authority.push_str(&format!(":{port}"));
        }
        Ok(Self { tls, host, port: port.unwrap_or(own), base_path, authority })
    }

    fn form() -> Json {
        json!({ "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+(/[^?#]*)?$" })
    }
}

/// Host and port of an authority; `None` where the port is not one.
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = if authority.starts_with('[') {
        authority.find(']').map_or(authority.len(), |at| at + 1)
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(end);
    if port.is_empty() {
        return Some((host, None));
    }
    let port = port.strip_prefix(':')?;
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    port.parse().ok().filter(|port| *port != 0).map(|port| (host, Some(port)))
}

pub(super) fn endpoint_host(host: &str) -> Result<EndpointHost, Complaint> {
    if let Some(ip) = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        return ip
            .parse::<Ipv6Addr>()
            .map(|ip| EndpointHost::Address(ip.into()))
            .map_err(|_| Complaint::new(format!("`{ip}` is not an IPv6 address")));
    }
    if let Ok(ip) = host.parse() {
        return Ok(EndpointHost::Address(ip));
    }
    let name = host.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    labels(name).map_err(|why| host_complaint(host, why))?;
    // RFC 1123 §2.1: a name's last label is not all digits; such a "name" is a mistyped address.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Complaint::new(format!("`{name}` is not an IPv4 address")));
    }
    Ok(EndpointHost::Name(name.to_owned()))
}

/// The URL of an ACME directory.
#[derive(Debug, Clone)]
pub(in crate::config) struct DirectoryUrl(pub(in crate::config) String);

impl Word for DirectoryUrl {
    const EXPECTED: &'static str = "an ACME directory's URL such as `https://acme-v02.api.letsencrypt.org/directory`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let bad = |why: &str| Complaint::new(format!("`{}` {why}", text.escape_debug()));
        let url: http::Uri = text.parse().map_err(|_| bad("is no URL"))?;
        // RFC 8555 §6.1.
        if url.scheme_str() != Some("https") {
            return Err(bad("is no https URL"));
        }
        match url.authority() {
            Some(authority) if !authority.host().is_empty() && !authority.as_str().contains('@') => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(bad("names no host")),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^https://", "format": "uri" })
    }
}

/// A mailbox that an authority may write to.
#[derive(Debug, Clone)]
pub(in crate::config) struct Email(pub(in crate::config) String);

impl Word for Email {
    const EXPECTED: &'static str = "an address such as `ops@example.com`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        // RFC 8555 §7.3: one address, and no header fields.
        let good = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"?,<>@()[]:;\\\"".contains(&b))
        };
        match text.split_once('@') {
            Some((user, host)) if good(user) && good(host) => Ok(Self(text.to_owned())),
            _ => Err(Complaint::new(format!("`{}` is no mail address", text.escape_debug()))),
        }
    }

    fn form() -> Json {
        json!({ "format": "email" })
    }
}

words!(ListenAddress, NameServer, NetworkRef, HostPattern, Endpoint, DirectoryUrl, Email);
