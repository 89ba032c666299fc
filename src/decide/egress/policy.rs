//! The way out as a config has it, arranged for deciding; and what it counts.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderMap;
use twox_hash::XxHash64;

use super::{
    authority::{Authority, Host},
    rules::Rules,
    share::{Active, Held, OverShare, Place, Room},
};
use crate::{
    config::{
        Config,
        model::{Client, ClientId, EgressMode, EgressRule, EgressRuleId, EgressSourceId, Name, Source, TlsName},
    },
    decide::{
        Now, Reason,
        limit::{Ask, KeyFacts, Limiter, Refused, take_all},
    },
};

/// Everything that the way out needs of one config; a part of the [`Snapshot`](crate::decide::Snapshot).
#[derive(Debug, Default)]
pub struct Policy {
    rules: Rules,
    mode: EgressMode,
    /// By [`EgressRuleId`].
    counts: Vec<RuleCounts>,
    fair_share: u8,
    active: Arc<Active>,
    /// By [`ClientId`], with their names.
    held: Vec<(Name, Arc<Held>)>,
}

/// What becomes of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A rule takes the client there.
    Rule(EgressRuleId),
    /// None does, and `egress.mode` is `report`: it is let through, and told as [`Reason::DestinationNotAllowed`].
    Unlisted,
    /// None does: [`Reason::DestinationNotAllowed`].
    Refused,
}

/// What a rule counts.
#[derive(Debug)]
struct RuleCounts {
    name: Name,
    rate: Option<Arc<Limiter>>,
    tunnels: Option<u32>,
    bandwidth: Option<u64>,
    /// In the order of the rule's clients.
    clients: Vec<(ClientId, Name, Arc<Count>)>,
}

/// Of a client under a rule; outlives reloads.
#[derive(Debug, Default)]
struct Count {
    tunnels: AtomicU32,
    /// When the bytes so far have been paid for, by direction; in nanoseconds.
    paid: [AtomicU64; 2],
}

/// A bound that has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// [`Reason::RateLimited`] or [`Reason::TunnelsExhausted`].
    pub reason: Reason,
    /// For `Retry-After`, in seconds.
    pub retry_after: u64,
    /// By the rate.
    pub by: Option<Refused>,
}

/// A tunnel's, or a forwarded request's, place among those of its client and rule; given back when it is dropped.
#[derive(Debug)]
pub struct Ticket {
    count: Arc<Count>,
    bandwidth: Option<u64>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Up,
    Down,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.count.tunnels.fetch_sub(1, Relaxed);
    }
}

impl Ticket {
    /// Pays for bytes that are about to be moved: how long to wait before moving more. Zero where there is no bound.
    ///
    /// A tenth of a second's worth may be ahead of its time, so that a wait is no shorter than a timer can be.
    pub fn pay(&self, bytes: u64, direction: Direction, now: Now) -> Duration {
        const AHEAD: u64 = 100_000_000;
        let Some(rate) = self.bandwidth else { return Duration::ZERO };
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        let paid = &self.count.paid[usize::from(direction == Direction::Down)];
        let mut until = 0;
        let _always = paid.fetch_update(Relaxed, Relaxed, |before| {
            until = before.max(now.0).saturating_add(cost);
            Some(until)
        });
        Duration::from_nanos(until.saturating_sub(now.0).saturating_sub(AHEAD))
    }

    /// Whether [`pay`](Self::pay) ever asks to wait.
    pub fn is_paced(&self) -> bool {
        self.bandwidth.is_some()
    }
}

impl Policy {
    /// Arranges `config`. What still means the same goes on counting from `previous`.
    pub fn new(config: &Config, previous: Option<&Self>, now: Now) -> Self {
        let old: HashMap<&str, &RuleCounts> =
            previous.map(|p| p.counts.iter().map(|rule| (&*rule.name, rule)).collect()).unwrap_or_default();
        let counts = config.egress.rules.iter().map(|rule| {
            let old = old.get(&*rule.name).copied();
            let label: Name = format!("egress-{}", rule.name).into();
            let rate = rule.limits.rate.as_ref().map(|limit| match old.and_then(|old| old.rate.as_ref()) {
                Some(old) => Limiter::carried(limit, label, old, now),
                None => Arc::new(Limiter::new(limit, label)),
            });
            let before: HashMap<&str, &Arc<Count>> =
                old.iter().flat_map(|old| &old.clients).map(|(_, name, count)| (&**name, count)).collect();
            let clients = rule.clients.iter().map(|id| {
                let name = &config.clients[id.index()].name;
                (*id, name.clone(), before.get(&**name).map_or_else(Arc::default, |count| Arc::clone(count)))
            });
            RuleCounts {
                name: rule.name.clone(),
                rate,
                tunnels: rule.limits.tunnels.map(u32::from),
                bandwidth: rule.limits.bandwidth.map(u64::from),
                clients: clients.collect(),
            }
        });
        let active = previous.map(|p| Arc::clone(&p.active)).unwrap_or_default();
        let before: HashMap<&str, &Arc<Held>> =
            previous.iter().flat_map(|p| &p.held).map(|(name, held)| (&**name, held)).collect();
        let held = config.clients.iter().map(|client| {
            let held = before.get(&*client.name).map(|held| Arc::clone(held));
            (client.name.clone(), held.unwrap_or_else(|| Held::new(Arc::clone(&active))))
        });
        Self {
            held: held.collect(),
            active,
            fair_share: config.egress.fair_share,
            rules: Rules::new(&config.egress, config.clients.len()),
            mode: config.egress.mode,
            counts: counts.collect(),
        }
    }

    /// The rules' rates.
    pub fn limiters(&self) -> impl Iterator<Item = (&Name, &Arc<Limiter>)> {
        self.counts.iter().filter_map(|rule| Some((&rule.name, rule.rate.as_ref()?)))
    }

    /// A rule's rate.
    pub fn limiter(&self, rule: EgressRuleId) -> Option<&Arc<Limiter>> {
        self.counts[rule.index()].rate.as_ref()
    }

    /// Which rule takes `client` there. Knows no addresses but those that are written out, and asks nobody.
    pub fn choose(&self, client: ClientId, to: &Authority<'_>) -> Choice {
        match (self.rules.find(client, to), self.mode) {
            (Some(id), _) => Choice::Rule(id),
            (None, EgressMode::Report) => Choice::Unlisted,
            (None, EgressMode::Enforce) => Choice::Refused,
        }
    }

    /// Takes a place among those of `client`, whatever the rule: `rooms` are what its connection counts in, itself included.
    ///
    /// # Errors
    ///
    /// Connections are short, and it has its share of them: [`Reason::TunnelsExhausted`].
    pub fn share(&self, client: ClientId, rooms: impl IntoIterator<Item = Room>) -> Result<Option<Place>, OverShare> {
        self.held.get(client.index()).map(|(_, held)| held.enter(rooms, self.fair_share)).transpose()
    }

    /// Takes a place under a rule: among its tunnels first, then of its rate, so that who is refused has taken nothing. `ip`: for a client that has no
    /// bucket of its own left.
    ///
    /// A rule in report mode always gives the place; then [`Over`] is what would have refused it.
    ///
    /// # Errors
    ///
    /// [`Over`]; the place is not taken.
    pub fn enter(
        &self,
        rule: EgressRuleId,
        mode: EgressMode,
        client: ClientId,
        ip: IpAddr,
        now: Now,
    ) -> Result<(Ticket, Option<Over>), Over> {
        let counts = &self.counts[rule.index()];
        let found = counts.clients.iter().find(|(id, ..)| *id == client);
        let (name, count) = found.map_or_else(|| ("", Arc::default()), |(_, name, count)| (&**name, Arc::clone(count)));
        let before = count.tunnels.fetch_add(1, Relaxed);
        let ticket = Ticket { count, bandwidth: counts.bandwidth };
        let is_full = counts.tunnels.is_some_and(|most| before >= most);
        let mut over = is_full.then_some(Over { reason: Reason::TunnelsExhausted, retry_after: 1, by: None });
        if let (Some(over), EgressMode::Enforce) = (over, mode) {
            return Err(over);
        }
        if let Some(limiter) = &counts.rate {
            let facts = KeyFacts { client_ip: ip, client: Some(name), headers: &HeaderMap::new(), query: None };
            let ask = Ask { limiter, key: limiter.key(&facts) };
            if let Err(refused) = take_all(&[ask], now) {
                let late = Over { reason: Reason::RateLimited, retry_after: refused.retry_after(), by: Some(refused) };
                if mode == EgressMode::Enforce {
                    return Err(late);
                }
                over.get_or_insert(late);
            }
        }
        Ok((ticket, over))
    }

    /// Tunnels and forwarded requests under way, by rule and client: for metrics.
    pub fn under_way(&self) -> impl Iterator<Item = (&Name, &Name, u32)> {
        self.counts.iter().flat_map(|rule| {
            rule.clients.iter().map(|(_, client, count)| (&rule.name, client, count.tunnels.load(Relaxed)))
        })
    }
}

/// The clients whose credentials are read on the way out: those that some rule names; in report mode all that could show who they are.
pub fn clients(config: &Config) -> Vec<ClientId> {
    let mut ids: Vec<ClientId> = config.egress.rules.iter().flat_map(|rule| &rule.clients).copied().collect();
    if config.egress.mode == EgressMode::Report {
        let readable = |client: &Client| {
            client.by_network_alone() || client.basic.is_some() || client.jwt.is_some() || client.mtls.is_some()
        };
        ids.extend((0..).map(ClientId).zip(&config.clients).filter(|(_, client)| readable(client)).map(|(id, _)| id));
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The server name that a TLS client must ask for there; `None`: any, or no TLS at all.
pub fn wanted_name<'a>(rule: Option<&EgressRule>, to: &'a Authority<'_>) -> Option<&'a str> {
    match &to.host {
        // Without a rule there is nobody who said `any`.
        Host::Name(name) if to.port == 443 && rule.is_none_or(|rule| rule.tls_name == TlsName::Match) => Some(name),
        _ => None,
    }
}

/// Which of a source's addresses a client leaves from towards an address of that family: always the same, and when the set changes as
/// few clients as possible move (by rendezvous hashing). `None`: the source has no address of that family.
///
/// Gives the address's place in `bind` as well.
pub fn source_address(source: &Source, client: &str, towards: IpAddr) -> Option<(usize, IpAddr)> {
    let weight = |ip: &IpAddr| {
        let mut text = Vec::with_capacity(client.len() + 17);
        text.extend_from_slice(client.as_bytes());
        text.push(0);
        match ip {
            IpAddr::V4(ip) => text.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => text.extend_from_slice(&ip.octets()),
        }
        XxHash64::oneshot(0, &text)
    };
    let fitting = || source.bind.iter().enumerate().filter(|(_, ip)| ip.is_ipv4() == towards.is_ipv4());
    let (first, second) = (fitting().next()?, fitting().nth(1));
    let (at, ip) = match second {
        None => first,
        Some(_) => fitting().max_by_key(|(_, ip)| weight(ip))?,
    };
    Some((at, *ip))
}

/// The source of a rule, where it names one.
pub fn source<'c>(config: &'c Config, rule: Option<&EgressRule>) -> Option<(EgressSourceId, &'c Source)> {
    let id = rule?.source?;
    config.egress.sources.get(id.index()).map(|source| (id, source))
}
