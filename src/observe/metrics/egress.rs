//! What went out: by client and rule, and by the address that it left from. Counts by clients and rules of the config alone: a destination that a
//! client names is no label.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    cells::Sharded,
    handles::ListenerCounts,
    text::{Kind, Text},
};
use crate::{
    config::{
        Config,
        model::{ClientId, EgressRuleId, EgressSourceId, Name},
    },
    decide::Reason,
};

/// The counters of the way out, of one config.
#[derive(Debug, Default)]
pub struct EgressHandles {
    series: Vec<(Name, Name, Arc<EgressCounts>)>,
    by_id: HashMap<(u32, u32), Arc<EgressCounts>>,
    sources: Vec<(Name, Addresses)>,
    listeners: Vec<(Name, Arc<ListenerCounts>)>,
}

/// A source's, in the order of the config.
type Addresses = Vec<(IpAddr, Arc<SourceCounts>)>;

/// Of one client under one rule.
#[derive(Debug)]
pub struct EgressCounts {
    cells: Sharded<Cells>,
    /// Tunnels and forwarded requests under way.
    open: AtomicU32,
}

#[derive(Debug)]
struct Cells {
    /// By the reason's place; the last is those that went well.
    results: [AtomicU64; Reason::ALL.len() + 1],
    would_refuse: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Default for Cells {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { results: std::array::from_fn(|_| zero()), would_refuse: zero(), bytes_in: zero(), bytes_out: zero() }
    }
}

/// Of one address of a source.
#[derive(Debug)]
pub struct SourceCounts {
    pub open: AtomicI64,
    /// Whether this machine has it, as far as is known.
    pub up: AtomicBool,
    pub exhausted: AtomicU64,
    /// What the world saw when it was asked last; written by the main thread alone.
    seen: Mutex<Seen>,
    /// Answers to that, by what they were: as `public`, another address, none.
    answers: [AtomicU64; 3],
}

/// What the world sees of an address, in the words of an echo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nobody was asked, or has not answered yet.
    #[default]
    Unknown,
    /// What partners were told.
    Agrees,
    Differs(IpAddr),
    /// Why there is no answer.
    Failed(String),
}

impl SourceCounts {
    /// An echo has been asked.
    pub fn seen(&self, seen: Seen) {
        let place = match &seen {
            Seen::Unknown => None,
            Seen::Agrees => Some(0),
            Seen::Differs(_) => Some(1),
            Seen::Failed(_) => Some(2),
        };
        if let Some(place) = place {
            self.answers[place].fetch_add(1, Relaxed);
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    pub fn last_seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nobody is asked any more.
    pub fn forget_seen(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::Unknown;
    }
}

impl Default for SourceCounts {
    fn default() -> Self {
        Self {
            open: AtomicI64::new(0),
            up: AtomicBool::new(true),
            exhausted: AtomicU64::new(0),
            seen: Mutex::default(),
            answers: Default::default(),
        }
    }
}

impl EgressCounts {
    fn new(shards: usize) -> Self {
        Self { cells: Sharded::new(shards), open: AtomicU32::new(0) }
    }

    /// One that is over, or was refused.
    pub fn count(&self, worker: usize, refused: Option<Reason>, would_refuse: bool, bytes_in: u64, bytes_out: u64) {
        let cell = self.cells.of(worker);
        let at = refused.and_then(|reason| Reason::ALL.iter().position(|r| *r == reason)).unwrap_or(Reason::ALL.len());
        cell.results[at].fetch_add(1, Relaxed);
        if would_refuse {
            cell.would_refuse.fetch_add(1, Relaxed);
        }
        cell.bytes_in.fetch_add(bytes_in, Relaxed);
        cell.bytes_out.fetch_add(bytes_out, Relaxed);
    }

    /// One more under way; wants a [`leave`](Self::leave).
    pub fn enter(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub fn leave(&self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

fn id(client: Option<ClientId>, rule: Option<EgressRuleId>) -> (u32, u32) {
    (client.map_or(u32::MAX, |c| c.0), rule.map_or(u32::MAX, |r| r.0))
}

impl EgressHandles {
    /// The counters of everything that `config` names; the old ones, where the names are the same.
    pub(super) fn resolve(config: &Config, old: &Self, shards: usize) -> Self {
        let egress = &config.egress;
        if egress.listeners.is_empty() {
            return Self::default();
        }
        let kept: HashMap<(&str, &str), &Arc<EgressCounts>> =
            old.series.iter().map(|(client, rule, counts)| ((&**client, &**rule), counts)).collect();
        let mut all = Self::default();
        let none = Name::from("");
        let mut add = |client: Option<ClientId>, rule: Option<EgressRuleId>| {
            let client_name = client.map_or(&none, |c| &config.clients[c.index()].name).clone();
            let rule_name = rule.map_or(&none, |r| &egress.rules[r.index()].name).clone();
            let known = kept.get(&(&*client_name, &*rule_name)).copied();
            let counts = known.map_or_else(|| Arc::new(EgressCounts::new(shards)), Arc::clone);
            all.by_id.insert(id(client, rule), counts.clone());
            all.series.push((client_name, rule_name, counts));
        };
        add(None, None);
        (0..).map(ClientId).take(config.clients.len()).for_each(|client| add(Some(client), None));
        for (rule_id, rule) in (0..).map(EgressRuleId).zip(&egress.rules) {
            rule.clients.iter().for_each(|client| add(Some(*client), Some(rule_id)));
        }
        all.sources = egress
            .sources
            .iter()
            .map(|source| {
                let before = old.sources.iter().find(|(name, _)| *name == source.name).map(|(_, all)| all);
                let counts = |ip: &IpAddr| {
                    let known = before.and_then(|all| all.iter().find(|(known, _)| known == ip));
                    (*ip, known.map_or_else(Arc::default, |(_, counts)| counts.clone()))
                };
                (source.name.clone(), source.bind.iter().map(counts).collect())
            })
            .collect();
        all.listeners = egress
            .listeners
            .iter()
            .map(|listener| {
                let name: Name = format!("egress.{}", listener.name).into();
                let known = old.listeners.iter().find(|(known, _)| *known == name);
                (name.clone(), known.map_or_else(Arc::default, |(_, counts)| counts.clone()))
            })
            .collect();
        all
    }

    pub fn of(&self, client: Option<ClientId>, rule: Option<EgressRuleId>) -> Option<&Arc<EgressCounts>> {
        self.by_id.get(&id(client, rule))
    }

    pub fn source(&self, source: EgressSourceId, ip: IpAddr) -> Option<&Arc<SourceCounts>> {
        self.sources.get(source.index())?.1.iter().find(|(known, _)| *known == ip).map(|(_, counts)| counts)
    }

    /// All addresses to leave from, with their sources' names.
    pub fn sources(&self) -> impl Iterator<Item = (&Name, IpAddr, &Arc<SourceCounts>)> {
        self.sources.iter().flat_map(|(name, all)| all.iter().map(move |(ip, counts)| (name, *ip, counts)))
    }

    /// By the listener's place in the config.
    pub fn listener(&self, place: usize) -> &Arc<ListenerCounts> {
        &self.listeners[place].1
    }

    pub(super) fn listeners(&self) -> &[(Name, Arc<ListenerCounts>)] {
        &self.listeners
    }

    pub(super) fn render(&self, out: &mut Text) {
        let name = "gatepost_egress_connections_total";
        out.family(name, Kind::Counter, "Tunnels and forwarded requests that are over, by how they ended.");
        for (client, rule, counts) in &self.series {
            let words = Reason::ALL.iter().map(|reason| reason.as_str()).chain(["ok"]);
            for (at, word) in words.enumerate() {
                let count = counts.cells.sum(|cell| &cell.results[at]);
                if count > 0 || (word == "ok" && !rule.is_empty()) {
                    out.sample(name, &[("client", client), ("rule", rule), ("result", word)], count);
                }
            }
        }
        let of_rules = || self.series.iter().filter(|(_, rule, _)| !rule.is_empty());
        let name = "gatepost_egress_would_refuse_total";
        out.family(name, Kind::Counter, "Of these, those that only `mode = \"report\"` let through.");
        for (client, rule, counts) in &self.series {
            let count = counts.cells.sum(|cell| &cell.would_refuse);
            if count > 0 {
                out.sample(name, &[("client", client), ("rule", rule)], count);
            }
        }
        let name = "gatepost_egress_open";
        out.family(name, Kind::Gauge, "Tunnels and forwarded requests under way.");
        for (client, rule, counts) in of_rules() {
            out.sample(name, &[("client", client), ("rule", rule)], counts.open.load(Relaxed));
        }
        let name = "gatepost_egress_bytes_total";
        out.family(name, Kind::Counter, "Bytes of those that are over: `in` from clients, `out` to them.");
        for (client, rule, counts) in of_rules() {
            let (to, from) = (counts.cells.sum(|cell| &cell.bytes_out), counts.cells.sum(|cell| &cell.bytes_in));
            out.sample(name, &[("client", client), ("rule", rule), ("direction", "in")], from);
            out.sample(name, &[("client", client), ("rule", rule), ("direction", "out")], to);
        }
        self.render_sources(out);
    }

    fn render_sources(&self, out: &mut Text) {
        type Value = fn(&SourceCounts) -> i64;
        let families: [(&str, Kind, &str, Value); 3] = [
            ("gatepost_egress_source_up", Kind::Gauge, "0 while this machine does not have the address.", |counts| {
                i64::from(counts.up.load(Relaxed))
            }),
            ("gatepost_egress_source_open", Kind::Gauge, "Connections that left from the address.", |counts| {
                counts.open.load(Relaxed)
            }),
            (
                "gatepost_egress_ports_exhausted_total",
                Kind::Counter,
                "Connections for which the address had no port left.",
                |counts| i64::try_from(counts.exhausted.load(Relaxed)).unwrap_or(i64::MAX),
            ),
        ];
        for (name, kind, help, value) in families {
            out.family(name, kind, help);
            for (source, ip, counts) in self.sources() {
                out.sample(name, &[("source", source), ("address", &ip.to_string())], value(counts));
            }
        }
        let name = "gatepost_egress_source_agrees";
        out.family(
            name,
            Kind::Gauge,
            "1 while the world sees the address as partners were told, 0 while it sees another.",
        );
        for (source, ip, counts) in self.sources() {
            let agrees = match counts.last_seen() {
                Seen::Agrees => 1,
                Seen::Differs(_) => 0,
                Seen::Unknown | Seen::Failed(_) => continue,
            };
            out.sample(name, &[("source", source), ("address", &ip.to_string())], agrees);
        }
        let name = "gatepost_egress_source_checks_total";
        out.family(name, Kind::Counter, "Answers of the echo that is asked what the world sees of the address.");
        for (source, ip, counts) in self.sources() {
            for (result, count) in ["agrees", "differs", "failed"].iter().zip(&counts.answers) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels = [("source", &**source), ("address", &ip.to_string()), ("result", result)];
                    out.sample(name, &labels, count);
                }
            }
        }
    }
}
