//! From a request's target to a connection: who asks → rule → bounds → addresses → source → dial. What `decide::egress` decides is done here.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use bytes::BytesMut;
use http::HeaderMap;
use tokio::net::TcpStream;

use super::{
    answer::Refusal,
    dial::{DialError, dial},
    here, live, parent,
    record::{Left, Record},
    serve::{Caller, Stream},
};
use crate::{
    config::model::{ClientId, Egress, EgressMode, EgressRule, EgressRuleId, EgressSourceId, EgressTimeouts},
    decide::{
        Reason,
        auth::{Asking, Grounds},
        egress::{Authority, Choice, Host, Judge, MOST_DIALLED, Over, OverShare, source, source_address},
    },
    observe::{clock::now, unix_ms},
    upstream::resolve::lookup,
};

/// Finds out who asks, and whether that one may go there; takes its place among the rule's. What is found is written down in `record`.
///
/// # Errors
///
/// What it is told. No name server has been asked, and nothing was dialled.
pub fn admit(
    record: &mut Record,
    to: impl FnOnce() -> Result<Authority<'static>, Refusal>,
    headers: &HeaderMap,
    caller: &Caller,
) -> Result<Authority<'static>, Refusal> {
    let snapshot = record.live.snapshot.clone();
    let Some(gate) = snapshot.callers.egress() else {
        return Err(Refusal::new(Reason::ForbiddenClient, ""));
    };
    let tokens = live::tokens();
    let asking = Asking { tokens: tokens.as_deref(), ..asking(headers, caller) };
    let ip = asking.ip;
    let client = snapshot.callers.pass(gate, &asking).map_err(|denied| {
        record.client = denied.client;
        let mut refusal = Refusal::new(denied.reason, "");
        if matches!(denied.reason, Reason::CredentialsMissing | Reason::CredentialsInvalid) {
            refusal.challenges = gate.challenges().to_vec();
            refusal.detail = gate.expects().to_owned().into();
        }
        refusal.retry_after = denied.wait.map(|wait| wait.retry_after());
        refusal
    })?;
    record.client = Some(client);
    let to = to()?;
    record.target = Some(to.to_string().into_bytes().into());
    let rule = match snapshot.egress.choose(client, &to) {
        Choice::Rule(id) => id,
        Choice::Unlisted => {
            record.would_refuse = Some(Reason::DestinationNotAllowed);
            share(record, client, caller)?;
            return Ok(to);
        }
        Choice::Refused => {
            let name = &snapshot.config.clients[client.index()].name;
            let detail = format!("no rule takes client {name} to {to}");
            return Err(Refusal::new(Reason::DestinationNotAllowed, detail));
        }
    };
    record.rule = Some(rule);
    share(record, client, caller)?;
    let mode = snapshot.config.egress.rules[rule.index()].mode;
    let entered = snapshot.egress.enter(rule, mode, client, ip, now());
    let (ticket, over) = entered.map_err(|over| short(record, rule, over))?;
    record.enter(ticket);
    if mode == EgressMode::Report {
        record.would_refuse = Some(over.map_or(Reason::DestinationNotAllowed, |over| over.reason));
    }
    Ok(to)
}

/// What a client is told whose rule has no room for it now.
fn short(record: &Record, rule: EgressRuleId, over: Over) -> Refusal {
    let snapshot = &record.live.snapshot;
    let of = &snapshot.config.egress.rules[rule.index()];
    let (name, limits) = (&of.name, &of.limits);
    let detail = match (over.reason, limits.tunnels) {
        (Reason::TunnelsExhausted, Some(most)) => {
            format!("all {most} tunnels that rule {name} allows a client are open")
        }
        _ => format!("above the rate that rule {name} allows a client"),
    };
    let limiter = snapshot.egress.limiter(rule);
    Refusal {
        retry_after: Some(over.retry_after),
        limit: over.by.zip(limiter).map(|(by, limiter)| Box::new([limiter.policy().clone(), limiter.state(&by)])),
        ..Refusal::new(over.reason, detail)
    }
}

fn asking<'r>(headers: &'r HeaderMap, caller: &'r Caller) -> Asking<'r> {
    Asking {
        // Who comes by a unix socket is on this machine.
        ip: caller.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        headers,
        certificate: caller.certificate.as_deref(),
        now: now(),
        unix: &|| i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX),
        tokens: None,
    }
}

/// By what [`admit`] let the caller in.
pub fn grounds(record: &Record, headers: &HeaderMap, caller: &Caller) -> Option<Grounds> {
    let callers = &record.live.snapshot.callers;
    Some(callers.grounds(callers.egress()?, &asking(headers, caller)))
}

/// The rule that took a record, and the timeouts in force.
pub fn terms(record: &Record) -> (Option<&EgressRule>, &Egress, &EgressTimeouts) {
    let egress = &record.live.snapshot.config.egress;
    let rule = record.rule.map(|id| &egress.rules[id.index()]);
    (rule, egress, rule.map_or(&egress.timeouts, |rule| &rule.timeouts))
}

/// Takes a place among the client's, in every mode: what is short is gatepost's own.
fn share(record: &mut Record, client: ClientId, caller: &Caller) -> Result<(), Refusal> {
    let rooms = caller.rooms.rooms().into_iter().flatten();
    record.share = record.live.snapshot.egress.share(client, rooms).map_err(|over| {
        let OverShare { holds, share, room } = over;
        let detail = format!(
            "{} of {} connections are open, and while they are short a client may hold {share}: this one holds {holds}",
            room.open, room.most
        );
        Refusal { retry_after: Some(1), ..Refusal::new(Reason::TunnelsExhausted, detail) }
    })?;
    Ok(())
}

/// Where to go: everything that is decided before a socket is opened.
#[derive(Debug)]
pub struct Course {
    to: Authority<'static>,
    /// What was judged; empty where a parent looks the name up.
    addresses: Vec<IpAddr>,
}

impl Course {
    /// The address, where the destination is written as one.
    pub fn literal(&self) -> Option<SocketAddr> {
        match self.to.host {
            Host::Address(ip) => Some(SocketAddr::new(ip, self.to.port)),
            Host::Name(_) => None,
        }
    }

    /// What a parent is asked to connect to, one after the other.
    pub fn asked(&self) -> Vec<(String, Option<SocketAddr>)> {
        let addresses = self.addresses.iter().map(|ip| SocketAddr::new(*ip, self.to.port));
        let mut asked: Vec<_> = addresses.map(|address| (address.to_string(), Some(address))).collect();
        if asked.is_empty() {
            asked.push((self.to.to_string(), None));
        }
        asked
    }
}

/// Resolves a destination, and judges every address of it; unless that is left to the rule's parent.
///
/// # Errors
///
/// What the client is told.
pub async fn course(record: &mut Record, to: &Authority<'static>) -> Result<Course, Refusal> {
    let live = record.live.clone();
    let egress = &live.snapshot.config.egress;
    let rule = record.rule.map(|id| &egress.rules[id.index()]);
    let judge = || Judge::of(rule, &live.own, &here::has);
    let refused = |address: IpAddr, why: &dyn std::fmt::Display| {
        Refusal::new(Reason::AddressNotAllowed, format!("{address} is {why}"))
    };
    let addresses = match &to.host {
        Host::Address(ip) => {
            judge().one(*ip, to.port).map_err(|why| refused(*ip, &why))?;
            vec![*ip]
        }
        Host::Name(_) if parent::looks_up(rule, to) => return Ok(Course { to: to.clone(), addresses: Vec::new() }),
        Host::Name(name) => {
            let began = Instant::now();
            let answer = lookup::addresses(name, &egress.resolver.servers, egress.resolver.timeout).await;
            record.dns = Some(began.elapsed());
            let answers = answer.map_err(|why| {
                // Where only the parent reaches name servers, that is what to write.
                let hint = match rule.and_then(|rule| rule.parent.as_ref()) {
                    Some(_) => "; the parent is asked for names where the rule's `parent` has `resolve = \"parent\"`",
                    None => "",
                };
                Refusal::new(Reason::NameNotResolved, format!("{name}: {why}{hint}"))
            })?;
            judge().all(&answers, to.port).map_err(|r| {
                let mut refusal = refused(r.address, &r.why);
                if answers.iter().any(|ip| judge().one(*ip, to.port).is_ok()) {
                    refusal.detail.to_mut().push_str("; the name has allowed addresses as well (`mixed_answers`)");
                }
                refusal
            })?
        }
    };
    if addresses.is_empty() {
        return Err(Refusal::new(Reason::NameNotResolved, format!("{}: the name has no addresses", to.host)));
    }
    Ok(Course { to: to.clone(), addresses })
}

/// Connects to the destination of a course: dials it, or asks the rule's parent, who is told `via`. With the stream comes what was read of it already.
///
/// # Errors
///
/// What the client is told.
pub async fn connect(record: &mut Record, course: &Course, via: &[u8]) -> Result<(Stream, BytesMut), Refusal> {
    match parent::of(record) {
        // Few have one: its future has a place of its own.
        Some(_) => Box::pin(parent::connect(record, course, via)).await,
        None => {
            let socket = dial_first(record, &course.addresses, course.to.port).await?;
            Ok((Stream::Tcp(socket), BytesMut::new()))
        }
    }
}

/// Dials addresses, one after the other, each from where the record's client leaves, until one answers.
///
/// # Errors
///
/// What the client is told: of the last address that was tried.
pub async fn dial_first(record: &mut Record, addresses: &[IpAddr], port: u16) -> Result<TcpStream, Refusal> {
    let live = record.live.clone();
    let config = &live.snapshot.config;
    let (_, _, timeouts) = terms(record);
    let most = timeouts.connect;
    let client = record.client.map_or("", |id| &config.clients[id.index()].name);
    let began = Instant::now();
    // What is short is the source's: nothing was tried of the destination.
    let mut refusal = Refusal::new(Reason::SourceUnavailable, "the source has no address of the destination's family");
    let source = source(config, record.rule.map(|id| &config.egress.rules[id.index()]));
    for ip in addresses.iter().take(MOST_DIALLED) {
        let from = match source {
            None => None,
            Some((id, source)) => match source_address(source, client, *ip) {
                Some((_, from)) => Some((id, from)),
                None => continue,
            },
        };
        let address = SocketAddr::new(*ip, port);
        (record.address, record.source) = (Some(address), from);
        match tokio::time::timeout(most, dial(address, from.map(|(_, ip)| ip))).await {
            Ok(Ok(stream)) => {
                record.connect = Some(began.elapsed());
                left(record, from, None);
                return Ok(stream);
            }
            Ok(Err(error)) => refusal = told(record, from, &error),
            Err(_) => refusal = Refusal::new(Reason::UpstreamTimeout, format!("no connection within {most:?}")),
        }
    }
    record.connect = Some(began.elapsed());
    Err(refusal)
}

fn told(record: &mut Record, from: Option<(EgressSourceId, IpAddr)>, error: &DialError) -> Refusal {
    left(record, from, Some(error));
    let reason = match error {
        // The address is the source's own matter.
        DialError::SourceAbsent(_) | DialError::PortsExhausted => Reason::SourceUnavailable,
        DialError::Unreachable(_) => Reason::UpstreamUnreachable,
    };
    Refusal::new(reason, error.to_string())
}

/// Counts what became of a source's address.
fn left(record: &mut Record, from: Option<(EgressSourceId, IpAddr)>, error: Option<&DialError>) {
    let live = record.live.clone();
    let Some(counts) = from.and_then(|(id, ip)| live.counts.source(id, ip)) else { return };
    match error {
        Some(DialError::SourceAbsent(_)) => counts.up.store(false, Relaxed),
        Some(DialError::PortsExhausted) => {
            counts.exhausted.fetch_add(1, Relaxed);
        }
        Some(DialError::Unreachable(_)) => {}
        None => {
            counts.up.store(true, Relaxed);
            record.left_from = Some(Left::from(Arc::clone(counts)));
        }
    }
}
