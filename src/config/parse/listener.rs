//! `[listener.NAME]`

use std::{collections::HashMap, num::NonZeroU32};

use super::{Scope, number, patience};
use crate::config::{
    model::{
        ACME_DIRECTORY, Acme, CertificateFiles, ClientAuth, ClientAuthNeed, HostPattern, ListenAddress, Listener,
        ListenerTimeouts, Name, TlsCertificate, TlsProfile,
    },
    raw,
    report::Problem,
    source::{At, Span},
};

impl Scope<'_> {
    pub(super) fn listeners(&mut self) -> Vec<Listener> {
        let file = self.file;
        if !file.any_listener && file.egress.listener.is_none() {
            self.report.push(
                Problem::new("no listener: nothing would be served")
                    .help("add one, such as `[listener.public]` with `address = \"0.0.0.0:80\"`"),
            );
        }
        self.addresses_apart();
        let listeners = self.each(&file.listeners, Self::listener);
        self.one_account_each();
        listeners
    }

    /// A directory knows gatepost by one account.
    fn one_account_each(&mut self) {
        let file = self.file;
        let mut first: HashMap<&str, &At<raw::Acme>> = HashMap::new();
        let certificates = file.listeners.values().flat_map(|(_, l)| l.tls.iter().flat_map(|list| &list.value));
        for at in certificates {
            let raw::TlsCertificate::Acme(raw::AcmeCertificate { acme: Some(acme), .. }) = &at.value else { continue };
            let directory = acme.value.directory.as_ref().map_or(ACME_DIRECTORY, |at| at.value.0.as_str());
            let before = *first.entry(directory).or_insert(acme);
            let told = |acme: &raw::Acme| {
                let ca = acme.ca.as_ref().map(|at| at.value.0.clone());
                (acme.email.as_ref().map(|at| at.value.0.clone()), ca)
            };
            if told(&before.value) != told(&acme.value) {
                self.report.push(
                    Problem::at(
                        format!("two entries for the directory {directory} differ in `email` or `ca`"),
                        acme.span,
                    )
                    .label("one account is used for both")
                    .also(before.span, "the first of them"),
                );
            }
        }
    }

    /// Two sockets cannot have one address.
    fn addresses_apart(&mut self) {
        let admin = (self.file.admin.address.as_ref()).map(|at| ("the admin".to_owned(), at));
        let listeners = self
            .file
            .listeners
            .iter()
            .filter_map(|(name, (_, raw))| Some((format!("listener `{name}`"), raw.address.as_ref()?)));
        let egress = self.file.egress.listener.iter().flat_map(|at| &at.value.0).filter_map(|(name, raw)| {
            Some((format!("egress listener `{}`", name.value), raw.as_ref()?.value.address.as_ref()?))
        });
        let mut owners: Vec<(&ListenAddress, String, Span)> = Vec::new();
        for (name, at) in admin.into_iter().chain(listeners).chain(egress) {
            let Some((other, owner, first)) = owners.iter().find(|(other, ..)| meet(other, &at.value)) else {
                owners.push((&at.value, name, at.span));
                continue;
            };
            let problem = match **other == at.value {
                true => Problem::at(format!("{owner} and {name} both listen on {}", at.value), at.span)
                    .label("this address is taken"),
                false => Problem::at(
                    format!("{owner} and {name} cannot both listen: {other} and {} meet", at.value),
                    at.span,
                )
                .label("one of them takes the port on every address")
                .help("give one of them another port, or each an address of its own"),
            };
            self.report.push(problem.also(*first, format!("{owner} has it here")));
        }
    }

    pub(super) fn listener(&mut self, name: &Name, _: Span, raw: &raw::Listener) -> Option<Listener> {
        let address = raw.address.as_ref()?;
        let unix = matches!(address.value, ListenAddress::Unix(_));
        if let Some(mode) = raw.mode.as_ref().filter(|_| !unix) {
            self.report.push(
                Problem::at("`mode` is for unix sockets only", mode.span).label("this listener has an IP address"),
            );
        }
        let freebind = self.freebind(raw, &address.value);
        let tls = raw.tls.as_ref().map_or_else(Vec::new, |list| self.certificates(list));
        let client_auth = self.client_auth(raw);
        let h2c = raw.h2c.as_ref().is_some_and(|at| at.value);
        if let (Some(at), Some(tls)) = (&raw.h2c, &raw.tls)
            && h2c
        {
            self.report.push(
                Problem::at("`h2c` is for listeners without `tls`", at.span)
                    .label("over TLS, HTTP/2 is agreed on by ALPN")
                    .also(tls.span, "this listener speaks TLS"),
            );
        }
        let proxy_protocol = match &raw.proxy_protocol {
            None => None,
            Some(at) if unix => {
                self.report.push(
                    Problem::at("a unix socket takes no PROXY header", at.span)
                        .label("its peers have no address to be told by"),
                );
                None
            }
            Some(at) => Some(self.some_networks(at.value.from.as_ref()?, "from")?),
        };
        let timeouts = raw.timeouts.as_ref().map(|at| &at.value);
        Some(Listener {
            name: name.clone(),
            address: address.value.clone(),
            freebind,
            tls,
            tls_profile: raw.tls_profile.as_ref().map_or_else(TlsProfile::default, |at| at.value),
            client_auth,
            proxy_protocol,
            h2c,
            max_connections: raw.max_connections.as_ref().and_then(|at| number(at.value.0)),
            max_connections_per_ip: raw.max_connections_per_ip.as_ref().and_then(|at| number(at.value.0)),
            timeouts: ListenerTimeouts {
                handshake: patience(timeouts.and_then(|t| t.handshake.as_ref()), 10),
                header: patience(timeouts.and_then(|t| t.header.as_ref()), 10),
                body: patience(timeouts.and_then(|t| t.body.as_ref()), 30),
                idle: patience(timeouts.and_then(|t| t.idle.as_ref()), 75),
                min_body_rate: raw.min_body_rate.as_ref().map_or(NonZeroU32::new(500), |at| at.value.0),
            },
            mode: raw.mode.as_ref().map_or(0o660, |at| at.value.0),
        })
    }

    fn freebind(&mut self, raw: &raw::Listener, address: &ListenAddress) -> bool {
        let Some(at) = raw.freebind.as_ref().filter(|at| at.value) else { return false };
        let why = match address {
            ListenAddress::Unix(_) => "a unix socket is always this machine's",
            ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
                "this listener takes every address, those that come later too"
            }
            ListenAddress::Tcp(_) => return true,
        };
        self.report.push(
            Problem::at("`freebind` is for a listener on one IP address", at.span).label(why).help("leave it out"),
        );
        false
    }

    fn client_auth(&mut self, raw: &raw::Listener) -> Option<ClientAuth> {
        let plain = raw.tls.is_none() && !raw.broken;
        let keys = [
            ("tls_profile", raw.tls_profile.as_ref().map(|at| at.span)),
            ("client_ca", raw.client_ca.as_ref().map(|at| at.span)),
            ("client_auth", raw.client_auth.as_ref().map(|at| at.span)),
        ];
        for (key, span) in keys.into_iter().filter_map(|(key, span)| Some((key, span.filter(|_| plain)?))) {
            self.report.push(
                Problem::at(format!("`{key}` is for listeners with `tls`"), span).label("this listener is plain HTTP"),
            );
        }
        match (&raw.client_ca, &raw.client_auth) {
            (Some(ca), need) if !plain => {
                let path = self.path(ca);
                self.pointers.anchors.push(At { value: path.clone(), span: ca.span });
                let need = need.as_ref().map_or_else(ClientAuthNeed::default, |at| at.value);
                Some(ClientAuth { ca: path, need })
            }
            (None, Some(need)) if !plain && !raw.broken => {
                self.report.push(
                    Problem::at("`client_auth` needs a `client_ca`", need.span)
                        .label("nobody says whose certificates are good"),
                );
                None
            }
            _ => None,
        }
    }

    fn certificates(&mut self, list: &At<Vec<At<raw::TlsCertificate>>>) -> Vec<TlsCertificate> {
        if list.value.is_empty() {
            self.report.push(
                Problem::at("`tls` is empty", list.span)
                    .label("expected at least one `{ cert = \"…\", key = \"…\" }`")
                    .help("for plain HTTP leave `tls` out"),
            );
        }
        list.value
            .iter()
            .filter_map(|at| match &at.value {
                raw::TlsCertificate::Files(files) => self.files(files).map(TlsCertificate::Files),
                raw::TlsCertificate::Acme(acme) => {
                    acme.acme.as_ref().and_then(|at| self.acme(at)).map(TlsCertificate::Acme)
                }
            })
            .collect()
    }

    fn files(&mut self, raw: &raw::Certificate) -> Option<CertificateFiles> {
        let (cert, key) = (raw.cert.as_ref()?, raw.key.as_ref()?);
        let pair = CertificateFiles { cert: self.path(cert), key: self.path(key) };
        self.pointers
            .certificates
            .push((At { value: pair.cert.clone(), span: cert.span }, At { value: pair.key.clone(), span: key.span }));
        Some(pair)
    }

    fn acme(&mut self, at: &At<raw::Acme>) -> Option<Acme> {
        let raw = &at.value;
        let listed = raw.domains.as_ref()?;
        let mut domains: Vec<String> = Vec::new();
        for host in &listed.value {
            let problem = match &host.value {
                HostPattern::Wildcard(_) => Problem::at(
                    "no authority gives a certificate for a wildcard by HTTP-01",
                    host.span,
                )
                .label("expected a whole name")
                .help(
                    "such a certificate needs DNS-01: get it by another tool, and name its files as `cert` and `key`",
                ),
                HostPattern::Exact(name) if !is_domain(name) => {
                    Problem::at(format!("`{name}` is no domain name"), host.span)
                        .label("expected a name such as `api.example.com`")
                }
                HostPattern::Exact(name) if domains.contains(name) => {
                    Problem::at("this name is there twice", host.span)
                }
                HostPattern::Exact(name) => {
                    domains.push(name.clone());
                    continue;
                }
            };
            self.report.push(problem);
        }
        if listed.value.is_empty() || listed.value.len() > MOST_DOMAINS {
            self.report.push(
                Problem::at("a certificate is for at least one name, and at most a hundred", listed.span)
                    .label(format!("{} names", listed.value.len())),
            );
        }
        let plain = self.file.listeners.values().any(|(_, listener)| listener.tls.is_none());
        if !plain {
            self.report.push(
                Problem::at("no listener serves plain HTTP", at.span)
                    .label("the authority asks on port 80 whether the names are yours (HTTP-01)")
                    .help("add a listener without `tls`, such as `address = \"0.0.0.0:80\"`")
                    .warning(),
            );
        }
        let ca = raw.ca.as_ref().map(|ca| {
            let path = self.path(ca);
            self.pointers.anchors.push(At { value: path.clone(), span: ca.span });
            path
        });
        Some(Acme {
            directory: raw.directory.as_ref().map_or_else(|| ACME_DIRECTORY.to_owned(), |at| at.value.0.clone()),
            email: raw.email.as_ref().map(|at| at.value.0.clone()),
            domains,
            ca,
        })
    }
}

/// Whether the kernel refuses the second of two. Port 0 is a new port each time. An IPv6 socket on every address takes IPv4 as well only where the
/// system says so: that is not judged here.
fn meet(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
            let (ip, ip_too) = (one.ip(), other.ip());
            let covers = ip.is_ipv4() == ip_too.is_ipv4() && (ip.is_unspecified() || ip_too.is_unspecified());
            one.port() == other.port() && one.port() != 0 && (ip == ip_too || covers)
        }
        _ => one == other,
    }
}

/// Let's Encrypt's bound, and others'.
const MOST_DOMAINS: usize = 100;

fn is_domain(name: &str) -> bool {
    name.parse::<std::net::Ipv4Addr>().is_err() && !name.starts_with('[') && !name.contains('_')
}
