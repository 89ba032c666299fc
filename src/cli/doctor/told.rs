//! What doctor found, as text and as JSON.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Serialize;

use super::{
    judge::{self, Finding, Level},
    machine::{self, Interface},
};
use crate::{
    cli::{
        failure::Outcome,
        term::{Ink, Terminal},
    },
    config::{
        Loaded,
        model::{ListenAddress, TlsCertificate},
    },
    egress::here,
    serve::echo::Question,
    upstream::probe::dial::Shown,
};

#[derive(Debug, Serialize)]
pub(super) struct Told {
    pub(super) problems: usize,
    pub(super) warnings: usize,
    interfaces: Vec<Interface>,
    listeners: Vec<ListenerTold>,
    sources: Vec<SourceTold>,
    /// Rules of the way out whose calls leave as the system chooses.
    without_source: Vec<String>,
    versions: Vec<VersionTold>,
}

#[derive(Debug, Serialize)]
struct ListenerTold {
    listener: String,
    /// Of the way out.
    egress: bool,
    address: String,
    /// The addresses of this machine that it is reached by.
    at: Vec<IpAddr>,
    findings: Vec<Finding>,
}

/// One of `[egress.source]`.
#[derive(Debug, Serialize)]
struct SourceTold {
    source: String,
    /// What calls leave by, and what the world sees of it.
    addresses: Vec<Leaves>,
    /// The rules whose calls leave by it.
    rules: Vec<String>,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Leaves {
    bind: IpAddr,
    public: IpAddr,
}

/// One version of a function.
#[derive(Debug, Serialize)]
pub(super) struct VersionTold {
    pub(super) function: String,
    pub(super) platform: &'static str,
    pub(super) version: String,
    pub(super) url: String,
    /// The Host that is sent.
    pub(super) host: String,
    pub(super) credential: Option<String>,
    /// Each request, without what signs it.
    pub(super) sent: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

impl Told {
    pub(super) fn new(loaded: &Loaded, versions: Vec<VersionTold>, echoes: &[Echo]) -> Self {
        let (interfaces, unknown) = match machine::interfaces() {
            Ok(interfaces) => (interfaces, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let mut listeners = listeners(loaded, &interfaces);
        if let (Some(why), Some(first)) = (unknown, listeners.first_mut()) {
            let text = format!("this machine's addresses cannot be listed: {why}");
            first.findings.push(Finding::new("address", Level::Warning, text));
        }
        let sources = sources(loaded, echoes);
        let all = || {
            let machine = listeners.iter().flat_map(|l| &l.findings).chain(sources.iter().flat_map(|s| &s.findings));
            machine.chain(versions.iter().flat_map(|v| &v.findings))
        };
        let count = |level| all().filter(|finding| finding.level == level).count();
        Self {
            problems: count(Level::Problem),
            warnings: count(Level::Warning),
            interfaces,
            listeners,
            sources,
            without_source: rules(loaded, None),
            versions,
        }
    }

    pub(super) fn print(&self, term: &mut Terminal) -> Outcome {
        term.line(term.ink(Ink::Bold, "this machine"))?;
        for Interface { name, addresses } in &self.interfaces {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            term.line(format_args!("  {name}  {}", addresses.join(", ")))?;
        }
        for listener in &self.listeners {
            term.line(format_args!(
                "{} {}",
                term.ink(
                    Ink::Bold,
                    format_args!("{}listener {}", if listener.egress { "egress " } else { "" }, listener.listener)
                ),
                listener.address
            ))?;
            let at: Vec<_> = listener.at.iter().map(ToString::to_string).collect();
            if !at.is_empty() {
                term.line(format_args!("  reached by {}", at.join(", ")))?;
            }
            print_findings(&listener.findings, term)?;
        }
        for source in &self.sources {
            term.line(term.ink(Ink::Bold, format_args!("egress source {}", source.source)))?;
            for Leaves { bind, public } in &source.addresses {
                let seen = if bind == public { String::new() } else { format!(", seen as {public}") };
                term.line(format_args!("  leaves by {bind}{seen}"))?;
            }
            match &*source.rules {
                [] => term.line("  used by no rule")?,
                rules => term.line(format_args!("  used by {}", named(rules)))?,
            }
            print_findings(&source.findings, term)?;
        }
        if !self.without_source.is_empty() {
            term.line(term.ink(Ink::Bold, "egress without a source"))?;
            term.line(format_args!("  {}: leaves as the system chooses", named(&self.without_source)))?;
        }
        let mut last = "";
        for version in &self.versions {
            if version.function != last {
                let platform = match version.platform {
                    "generic" => String::new(),
                    platform => format!(" on {platform}"),
                };
                term.line(format_args!(
                    "{}{platform}",
                    term.ink(Ink::Bold, format_args!("function {}", version.function))
                ))?;
                last = &version.function;
            }
            let signed = version.credential.as_ref().map_or_else(String::new, |name| format!(", credential {name}"));
            let host =
                if version.url.contains(&version.host) { String::new() } else { format!(", Host {}", version.host) };
            term.line(format_args!("  {}  {}{host}{signed}", term.ink(Ink::Bold, &version.version), version.url))?;
            print_findings(&version.findings, term)?;
            for sent in &version.sent {
                term.line(format_args!("    {}", term.ink(Ink::Dim, format_args!("sent      {sent}"))))?;
            }
        }
        let count = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
        let (ink, words) = match (self.problems, self.warnings) {
            (0, 0) => (Ink::Green, "all well".to_owned()),
            (0, warnings) => (Ink::Yellow, count(warnings, "warning")),
            (problems, 0) => (Ink::Red, count(problems, "problem")),
            (problems, warnings) => {
                (Ink::Red, format!("{}, {}", count(problems, "problem"), count(warnings, "warning")))
            }
        };
        term.line(term.ink(ink, words))?;
        Ok(())
    }
}

fn print_findings(findings: &[Finding], term: &mut Terminal) -> Outcome {
    for Finding { check, level, text, help } in findings {
        let ink = match level {
            Level::Ok => Ink::Green,
            Level::Note => Ink::Cyan,
            Level::Warning => Ink::Yellow,
            Level::Problem => Ink::Red,
        };
        term.line(format_args!("    {:<8}  {check}: {text}", term.ink(ink, level.as_str())))?;
        if let Some(help) = help {
            term.line(format_args!("              {help}"))?;
        }
    }
    Ok(())
}

fn listeners(loaded: &Loaded, interfaces: &[Interface]) -> Vec<ListenerTold> {
    // What is reached by every address; whether a single one is here is `here`'s to say, as for the service.
    let own: BTreeSet<IpAddr> = interfaces.iter().flat_map(|one| one.addresses.iter().copied()).collect();
    let now = jiff::Timestamp::now().as_second();
    let way_in = loaded.config.listeners.iter().map(|listener| (listener, false));
    let way_out = loaded.config.egress.listeners.iter().map(|listener| (listener, true));
    let all = way_in.chain(way_out).map(|(listener, egress)| {
        let mut findings = Vec::new();
        let mut at = Vec::new();
        if let ListenAddress::Tcp(address) = &listener.address {
            let ip = address.ip();
            at = match ip.is_unspecified() {
                // An IPv6 socket takes IPv4 as well only where the system says so: it is not promised here.
                true => own.iter().copied().filter(|own| own.is_ipv4() == ip.is_ipv4() && !own.is_loopback()).collect(),
                false => here::has(ip).then_some(ip).into_iter().collect(),
            };
            if !ip.is_unspecified() && !here::has(ip) {
                let (level, help) = match listener.freebind {
                    true => {
                        (Level::Warning, "a floating address that the other machine holds now, or a slip in the config")
                    }
                    false => (
                        Level::Problem,
                        "a slip in the config; or say `freebind = true` for one that another machine may hold",
                    ),
                };
                findings.push(Finding::new("address", level, format!("this machine has no address {ip}")).help(help));
            }
        }
        let files = listener.tls.iter().filter_map(|one| match one {
            TlsCertificate::Files(files) => Some(files),
            TlsCertificate::Acme(_) => None,
        });
        let shown = files.filter_map(|files| loaded.material.key(files)?.cert.first().and_then(|der| Shown::read(der)));
        findings.extend(shown.map(|shown| {
            let mut finding = judge::certificate(&shown, now);
            if finding.level > Level::Ok {
                finding.help = Some("put a new one in its place: it is taken up by itself".to_owned());
            }
            finding
        }));
        let (name, address) = (listener.name.to_string(), listener.address.to_string());
        ListenerTold { listener: name, egress, address, at, findings }
    });
    all.collect()
}

/// The rules of the way out that leave by this source; `None`: by none.
fn rules(loaded: &Loaded, source: Option<usize>) -> Vec<String> {
    let rules = loaded.config.egress.rules.iter();
    rules.filter(|rule| rule.source.map(|id| id.index()) == source).map(|rule| rule.name.to_string()).collect()
}

/// `rule a`, `rules a, b`
fn named(rules: &[String]) -> String {
    format!("rule{} {}", if rules.len() == 1 { "" } else { "s" }, rules.join(", "))
}

/// What an echo was asked, and what it says.
pub(super) type Echo = (Question, Result<IpAddr, String>);

fn heard((question, seen): &Echo) -> Finding {
    let (bind, public, by) = (question.bind, question.public, &question.check.url.authority);
    match seen {
        Ok(ip) if *ip == public => Finding::new("echo", Level::Ok, format!("{by} sees {bind} as {ip}")),
        Ok(ip) => Finding::new("echo", Level::Problem, format!("{by} sees {bind} as {ip}, and `public` says {public}"))
            .help(
                "partners who were told the public address refuse what leaves from here: see to the NAT, or to the key",
            ),
        Err(why) => Finding::new("echo", Level::Warning, format!("what the world sees of {bind} is not known: {why}")),
    }
}

fn sources(loaded: &Loaded, echoes: &[Echo]) -> Vec<SourceTold> {
    let all = loaded.config.egress.sources.iter().enumerate().map(|(id, source)| {
        let absent = source.bind.iter().filter(|ip| !here::has(**ip));
        let findings = absent.map(|ip| {
            Finding::new("address", Level::Problem, format!("this machine has no address {ip}")).help(
                "calls that should leave by it get 503: a floating address that the other machine holds now, or a slip in the config",
            )
        });
        let heard = echoes.iter().filter(|(question, _)| question.source == source.name).map(heard);
        let findings = findings.chain(heard);
        let addresses = source.bind.iter().enumerate();
        let addresses = addresses.map(|(at, bind)| Leaves { bind: *bind, public: source.public_of(at).unwrap_or(*bind) });
        let (addresses, findings) = (addresses.collect(), findings.collect());
        SourceTold { source: source.name.to_string(), addresses, rules: rules(loaded, Some(id)), findings }
    });
    all.collect()
}
