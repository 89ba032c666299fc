//! `gatepost egress explain CLIENT HOST:PORT`

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        ConfigFile, check,
        failure::{Failure, Outcome},
        term::{Ink, Terminal},
    },
    config::{
        Config, changes,
        model::{Client, ClientId, EgressMode, EgressRule, EndpointHost, MixedAnswers, Parent, ResolvedBy},
    },
    decide::{
        Now, Reason,
        egress::{
            self, Authority, AuthorityProblem, Choice, Host, Judge, Lost, MOST_DIALLED, Own, Policy, Refused, source,
            source_address, status, wanted_name, why_lost,
        },
    },
    upstream::resolve::lookup,
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The `[client]` that asks.
    #[arg(value_name = "CLIENT")]
    client: String,
    /// Where to: `HOST:PORT` as in CONNECT, or a whole `http://` URL.
    #[arg(value_name = "HOST:PORT")]
    target: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Ask no name server.
    #[arg(long, conflicts_with = "addresses")]
    no_dns: bool,
    /// Take this as a name server's answer, and ask none; may be given several times.
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// Tell of each rule why it lost, not only of those that lead there.
    #[arg(long)]
    all: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// As far as the client would come.
#[derive(Debug, Default, Serialize)]
pub(super) struct Told {
    pub(super) client: String,
    pub(super) owner: Option<String>,
    /// What it can show.
    pub(super) known_by: Vec<&'static str>,
    /// As it is understood.
    pub(super) target: Option<String>,
    /// As it was asked for, where its name is of another script: clients must send it in ASCII.
    pub(super) written: Option<String>,
    pub(super) rule: Option<String>,
    pub(super) others: Vec<Other>,
    pub(super) limits: Vec<String>,
    /// Where the answers are from: `name servers`, `--address`.
    pub(super) answers_from: Option<String>,
    pub(super) dns_ms: Option<u64>,
    /// By `--no-dns`: addresses are not judged, and no source is chosen.
    pub(super) dns_skipped: bool,
    pub(super) addresses: Vec<Address>,
    /// The proxy that is asked to connect, and for what.
    pub(super) parent: Option<String>,
    pub(super) parent_asked_for: Option<String>,
    pub(super) source: Option<String>,
    pub(super) source_address: Option<IpAddr>,
    pub(super) public: Option<IpAddr>,
    pub(super) tls_name: Option<String>,
    /// It is let through all the same, because nothing is enforced there.
    pub(super) would_refuse: Option<&'static str>,
    pub(super) refused: Option<Refusal>,
}

#[derive(Debug, Serialize)]
pub(super) struct Other {
    pub(super) rule: String,
    pub(super) why: String,
    pub(super) close: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Address {
    pub(super) address: IpAddr,
    /// `public`, or what it is else.
    pub(super) is: String,
    pub(super) allowed: bool,
    pub(super) dialled: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) status: u16,
    pub(super) detail: String,
}

/// It is refused here; what was found until then is told.
struct Stop;

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let config = check::asked(&options.file, term)?.config;
    if config.egress.listeners.is_empty() {
        return Err(Failure::Usage("the config has no `[egress.listener.NAME]`: there is no way out".to_owned()));
    }
    let told = explain(options, &config)?;
    if options.json {
        term.json(&serde_json::to_value(&told)?)?;
        return Ok(());
    }
    told.print(&config, options.all, term)
}

fn explain(options: &Options, config: &Config) -> Outcome<Told> {
    let id = config.clients.iter().position(|client| *client.name == *options.client);
    let Some(id) = id else {
        let names: Vec<&str> = config.clients.iter().map(|client| &*client.name).collect();
        let there =
            if names.is_empty() { "there is none".to_owned() } else { format!("there are: {}", names.join(", ")) };
        return Err(Failure::Usage(format!("no client is called `{}`; {there}", options.client)));
    };
    let client = &config.clients[id];
    let mut told = Told {
        client: client.name.to_string(),
        owner: client.owner.clone(),
        known_by: known_by(client),
        ..Told::default()
    };
    let id = ClientId(u32::try_from(id).unwrap_or(u32::MAX));
    match walk(options, config, (id, client), &mut told) {
        Ok(Ok(()) | Err(Stop)) => Ok(told),
        Err(failure) => Err(failure),
    }
}

fn known_by(client: &Client) -> Vec<&'static str> {
    let kinds = [
        ("basic", client.basic.is_some()),
        ("jwt", client.jwt.is_some()),
        ("mtls", client.mtls.is_some()),
        ("networks", !client.networks.is_empty()),
    ];
    kinds.into_iter().filter(|(_, has)| *has).map(|(kind, _)| kind).collect()
}

fn walk(
    options: &Options,
    config: &Config,
    (id, client): (ClientId, &Client),
    told: &mut Told,
) -> Outcome<Result<(), Stop>> {
    let ascii = ascii(&options.target);
    told.written = ascii.is_some().then(|| options.target.clone());
    let to = target(ascii.as_deref().unwrap_or(&options.target));
    told.target = to.as_ref().ok().map(ToString::to_string);
    if !egress::clients(config).contains(&id) {
        let why = format!("no rule names the client {}", client.name);
        return Ok(told.stop(Reason::ForbiddenClient, why));
    }
    let to = match to {
        Ok(to) => to,
        Err(problem) => return Ok(told.stop(problem.reason(), problem.to_string())),
    };
    let policy = Policy::new(config, None, Now::default());
    let choice = policy.choose(id, &to);
    let found = match choice {
        Choice::Rule(found) => Some(found),
        Choice::Unlisted | Choice::Refused => None,
    };
    let rule = found.map(|found| &config.egress.rules[found.index()]);
    told.others = others(config, id, &to, found);
    told.rule = rule.map(|rule| rule.name.to_string());
    match (choice, rule.map(|rule| rule.mode)) {
        (Choice::Refused, _) => {
            return Ok(told.stop(Reason::DestinationNotAllowed, format!("no rule takes {} to {to}", client.name)));
        }
        (Choice::Unlisted, _) | (Choice::Rule(_), Some(EgressMode::Report)) => {
            told.would_refuse = Some(Reason::DestinationNotAllowed.as_str());
        }
        (Choice::Rule(_), _) => {}
    }
    told.limits = rule.map(limits).unwrap_or_default();
    told.tls_name = wanted_name(rule, &to).map(str::to_owned);
    let dialled = match addresses(options, config, rule, &to, told)? {
        Ok(dialled) => dialled,
        Err(stop) => return Ok(Err(stop)),
    };
    match rule.and_then(|rule| rule.parent.as_ref()) {
        None => Ok(told.leaves(config, client, rule, &dialled, &to.to_string())),
        Some(parent) => by_parent(options, config, (client, rule), parent, (&to, &dialled), told),
    }
}

/// Whom the parent is asked for, and from where.
fn by_parent(
    options: &Options,
    config: &Config,
    (client, rule): (&Client, Option<&EgressRule>),
    parent: &Parent,
    (to, judged): (&Authority<'_>, &[IpAddr]),
    told: &mut Told,
) -> Outcome<Result<(), Stop>> {
    told.parent = Some(parent.to_string());
    told.parent_asked_for = match judged.first() {
        Some(ip) => Some(SocketAddr::new(*ip, to.port).to_string()),
        None if told.dns_skipped => None,
        None => Some(to.to_string()),
    };
    let addresses = match &parent.host {
        EndpointHost::Address(ip) => vec![*ip],
        EndpointHost::Name(_) if options.no_dns => return Ok(Ok(())),
        EndpointHost::Name(name) => match ask(config, name)?.0 {
            Ok(addresses) => addresses,
            Err(why) => {
                return Ok(told.stop(Reason::UpstreamUnreachable, format!("the parent proxy {parent}: {why}")));
            }
        },
    };
    let own = Own::of(config);
    if addresses.iter().any(|ip| own.has(*ip, parent.port, &super::is_local)) {
        return Ok(told.stop(Reason::LoopDetected, format!("the parent proxy {parent}: it is this gatepost itself")));
    }
    Ok(told.leaves(config, client, rule, &addresses, &parent.to_string()))
}

/// The target with its name as clients send it (RFC 5891); `None`: it is ASCII already, or no such name.
fn ascii(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let start = text.find("://").map_or(0, |at| at + "://".len());
    let end = text[start..].find([':', '/', '?']).map_or(text.len(), |at| start + at);
    let name = idna::domain_to_ascii(&text[start..end]).ok()?;
    Some(format!("{}{name}{}", &text[..start], &text[end..]))
}

/// As CONNECT has it, or a forwarded request.
fn target(text: &str) -> Result<Authority<'_>, AuthorityProblem> {
    match text.contains("://") {
        true => egress::absolute(text.as_bytes()).map(|absolute| absolute.authority),
        false => egress::connect(text.as_bytes()),
    }
}

fn others(
    config: &Config,
    client: ClientId,
    to: &Authority<'_>,
    found: Option<crate::config::model::EgressRuleId>,
) -> Vec<Other> {
    let fates = why_lost(&config.egress, client, to, found).into_iter().map(|(id, lost)| {
        let rule = config.egress.rules[id.index()].name.to_string();
        let (why, close) = match lost {
            Lost::Client => ("it is for other clients".to_owned(), false),
            Lost::Destination => ("it leads elsewhere".to_owned(), false),
            Lost::Port(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                (format!("it leads there on other ports alone: {}", ports.join(", ")), true)
            }
            Lost::LessSpecific => ("another rule says it more exactly".to_owned(), true),
        };
        Other { rule, why, close }
    });
    fates.collect()
}

fn limits(rule: &EgressRule) -> Vec<String> {
    let bounds = &rule.limits;
    let tunnels = bounds.tunnels.map(|n| format!("{n} tunnels at once"));
    let rate = bounds.rate.as_ref().map(|one| format!("{}, burst {}", changes::rate(one.rate), one.burst));
    let bandwidth = bounds.bandwidth.map(|n| format!("{}/s in each direction", changes::size(n.get())));
    [tunnels, rate, bandwidth].into_iter().flatten().collect()
}

/// Names to addresses, addresses to what they are: those that are dialled. None where they are not judged here.
fn addresses(
    options: &Options,
    config: &Config,
    rule: Option<&EgressRule>,
    to: &Authority<'_>,
    told: &mut Told,
) -> Outcome<Result<Vec<IpAddr>, Stop>> {
    let by_parent = rule.and_then(|rule| rule.parent.as_ref()).is_some_and(|p| p.resolve == ResolvedBy::Parent);
    let answers = match &to.host {
        Host::Address(ip) => vec![*ip],
        Host::Name(_) if by_parent => return Ok(Ok(Vec::new())),
        Host::Name(_) if !options.addresses.is_empty() => {
            told.answers_from = Some("--address".to_owned());
            options.addresses.clone()
        }
        Host::Name(_) if options.no_dns => {
            told.dns_skipped = true;
            return Ok(Ok(Vec::new()));
        }
        Host::Name(name) => {
            let (answers, servers, ms) = ask(config, name)?;
            (told.answers_from, told.dns_ms) = (Some(servers), ms);
            match answers {
                Ok(answers) => answers,
                Err(why) => return Ok(told.stop(Reason::NameNotResolved, why).map(|()| Vec::new())),
            }
        }
    };
    let own = Own::of(config);
    let judge = Judge::of(rule, &own, &super::is_local);
    let verdict = match &to.host {
        // What mixed answers are is a matter of names.
        Host::Address(ip) => judge.one(*ip, to.port).map(|()| vec![*ip]).map_err(|why| Refused { address: *ip, why }),
        Host::Name(_) => judge.all(&answers, to.port),
    };
    let dialled = verdict.as_ref().map(Vec::as_slice).unwrap_or_default();
    let told_of = |answer: &IpAddr| {
        let address = answer.to_canonical();
        let judged = judge.one(address, to.port);
        Address {
            address,
            is: match judged {
                Err(why) => why.to_string(),
                Ok(()) => match crate::config::special::special(address) {
                    None => "public".to_owned(),
                    Some(what) => format!("{}, exempted by `private`", what.words()),
                },
            },
            allowed: judged.is_ok(),
            dialled: dialled.contains(&address),
        }
    };
    told.addresses = answers.iter().map(told_of).collect();
    let dialled = match verdict {
        Ok(dialled) => dialled,
        Err(Refused { address, why }) => {
            let allowed = told.addresses.iter().any(|one| one.allowed);
            let mixed = if allowed && rule.is_none_or(|rule| rule.mixed_answers == MixedAnswers::Deny) {
                "; a name with allowed and refused addresses is refused (`mixed_answers = \"deny\"`)"
            } else {
                ""
            };
            return Ok(told.stop(Reason::AddressNotAllowed, format!("{address} is {why}{mixed}")).map(|()| Vec::new()));
        }
    };
    Ok(match dialled.is_empty() {
        true => told.stop(Reason::NameNotResolved, "the name has no address".to_owned()).map(|()| Vec::new()),
        false => Ok(dialled),
    })
}

/// What name servers say, who they are, and how many milliseconds they took.
type Asked = (Result<Vec<IpAddr>, String>, String, Option<u64>);

/// The addresses of a name, as the service would ask for them.
fn ask(config: &Config, name: &str) -> Outcome<Asked> {
    let resolver = &config.egress.resolver;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let begun = std::time::Instant::now();
    let answer = runtime.block_on(lookup::addresses(name, &resolver.servers, resolver.timeout));
    let ms = u64::try_from(begun.elapsed().as_millis()).ok();
    let servers: Vec<String> = resolver.servers.iter().map(ToString::to_string).collect();
    let servers = if servers.is_empty() { "the system's name servers".to_owned() } else { servers.join(", ") };
    Ok((answer.map(|ips| ips.to_vec()).map_err(|why| why.to_string()), servers, ms))
}

impl Told {
    /// From which address it leaves towards one of `dialled`, which are those of `to`.
    fn leaves(
        &mut self,
        config: &Config,
        client: &Client,
        rule: Option<&EgressRule>,
        dialled: &[IpAddr],
        to: &str,
    ) -> Result<(), Stop> {
        let (Some((_, source)), Some(first)) = (source(config, rule), dialled.first()) else { return Ok(()) };
        self.source = Some(source.name.to_string());
        // As it is dialled: the first that the source can reach.
        let leaves = dialled.iter().find_map(|to| source_address(source, &client.name, *to));
        let Some((at, ip)) = leaves else {
            let family = if first.is_ipv4() { "IPv4" } else { "IPv6" };
            let why = format!("source {} has no {family} address, and {to} has no other", source.name);
            return self.stop(Reason::SourceUnavailable, why);
        };
        self.source_address = Some(ip);
        self.public = source.public_of(at);
        if !super::is_local(ip) {
            let why = format!("{ip} of source {} is not on this machine", source.name);
            return self.stop(Reason::SourceUnavailable, why);
        }
        Ok(())
    }

    fn stop(&mut self, reason: Reason, detail: String) -> Result<(), Stop> {
        self.refused = Some(Refusal { reason: reason.as_str(), status: status(reason), detail });
        Err(Stop)
    }

    fn print(&self, config: &Config, all: bool, term: &mut Terminal) -> Outcome {
        let target = self.target.as_deref().unwrap_or("what is no destination");
        term.line(format_args!("{} to {}", term.ink(Ink::Bold, &self.client), term.ink(Ink::Bold, target)))?;
        let owner = self.owner.as_ref().map_or_else(String::new, |owner| format!(" ({owner})"));
        row(term, "client", format_args!("{}{owner}, known by {}", self.client, self.known_by.join(", ")))?;
        if let Some(written) = &self.written {
            row(term, "name", format_args!("of {written}, in ASCII: as it is written it would be a bad_request"))?;
        }
        match &self.rule {
            Some(rule) => row(term, "rule", term.ink(Ink::Green, rule))?,
            None if self.target.is_none() => {}
            None => row(term, "rule", term.ink(Ink::Yellow, "none"))?,
        }
        for other in self.others.iter().filter(|other| all || other.close) {
            row(term, "  not", format_args!("{}: {}", other.rule, other.why))?;
        }
        let hidden = self.others.iter().filter(|other| !all && !other.close).count();
        if hidden > 0 {
            let words = if hidden == 1 { "1 other rule is" } else { &format!("{hidden} other rules are") };
            row(term, "", term.ink(Ink::Dim, format!("{words} for another client or destination (--all shows why)")))?;
        }
        for (at, limit) in self.limits.iter().enumerate() {
            row(term, if at == 0 { "limits" } else { "" }, format_args!("{limit}, for this client"))?;
        }
        if let Some(from) = &self.answers_from {
            let took = self.dns_ms.map_or_else(String::new, |ms| format!(" in {ms} ms"));
            let words = match self.addresses.len() {
                1 => "1 address".to_owned(),
                n => format!("{n} addresses"),
            };
            row(term, "dns", format_args!("{words} by {from}{took}"))?;
        }
        if self.dns_skipped {
            row(term, "dns", "not asked (--no-dns): the addresses, and the source for them, are not judged here")?;
        }
        for (at, one) in self.addresses.iter().enumerate().take(4 * MOST_DIALLED) {
            let fate = match (one.allowed, one.dialled) {
                (false, _) => "refused",
                (true, true) if self.parent.is_some() => "the parent is asked for it",
                (true, true) => "dialled",
                (true, false) if self.refused.is_some() => "allowed",
                (true, false) => "not tried",
            };
            row(term, if at == 0 { "address" } else { "" }, format_args!("{}  {}: {fate}", one.address, one.is))?;
        }
        if let Some(parent) = &self.parent {
            let asked = match &self.parent_asked_for {
                Some(asked) => format!(", asked for {asked}"),
                None => String::new(),
            };
            row(term, "parent", format_args!("{parent}{asked}"))?;
            if self.addresses.is_empty() && !self.dns_skipped {
                row(term, "", "it looks the name up: the addresses behind it are not judged here")?;
            }
        }
        if let (Some(source), Some(ip)) = (&self.source, self.source_address) {
            let seen = self.public.filter(|public| *public != ip);
            let seen = seen.map_or_else(String::new, |public| format!(", seen as {public}"));
            row(term, "source", format_args!("{source}: leaves from {ip}{seen}"))?;
        } else if self.rule.is_some() && self.source.is_none() && !self.addresses.is_empty() && self.refused.is_none() {
            row(term, "source", "as the system chooses")?;
        }
        if let Some(name) = self.tls_name.as_ref().filter(|_| self.refused.is_none()) {
            row(term, "tls", format_args!("the hello must ask for {name}"))?;
        }
        match (&self.refused, self.would_refuse) {
            (Some(Refusal { reason, status, detail }), _) => {
                let answer = term.ink(Ink::Red, format!("{status} {reason}"));
                row(term, "answer", format_args!("{answer}: {detail}"))?;
                if let Some(message) = &config.egress.deny_message {
                    row(term, "", message)?;
                }
            }
            (None, Some(reason)) => {
                let words = format!("let through, and told as {reason}: nothing is enforced here");
                row(term, "answer", term.ink(Ink::Yellow, words))?;
            }
            (None, None) if self.dns_skipped => {
                row(term, "answer", term.ink(Ink::Green, "let through, if its addresses are"))?
            }
            (None, None) => row(term, "answer", term.ink(Ink::Green, "let through"))?,
        }
        Ok(())
    }
}

fn row(term: &mut Terminal, label: &str, text: impl std::fmt::Display) -> Outcome {
    term.line(format_args!("  {label:<10}{text}"))?;
    Ok(())
}
