//! Which rule takes a client to a destination: the most specific, by hash lookups, however many names there are.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::authority::{Authority, Host};
use crate::config::model::{ClientId, DestinationHost, Egress, EgressRule, EgressRuleId};

/// Rules by client and destination.
///
/// Of those that take a client to a destination's port, an exact name wins over the longest `*.suffix`, that over `*`; of networks the longest
/// prefix wins. Names match names, and addresses that are written out match networks. That no two are alike is seen to by the config.
#[derive(Debug, Default)]
pub struct Rules {
    /// By [`ClientId`]; clients of the same rules share what they lead to.
    of: Vec<Option<Arc<Leads>>>,
}

#[derive(Debug, Default)]
struct Leads {
    names: HashMap<Box<str>, Ports>,
    /// `.example.com`
    suffixes: HashMap<Box<str>, Ports>,
    /// The nth bit: there is a suffix with n dots. No other is looked up.
    depths: u128,
    any_name: Ports,
    /// Longest prefix first; each with its networks.
    nets: Vec<(u8, HashMap<IpAddr, Ports>)>,
}

/// Few, mostly one.
type Ports = Vec<(u16, EgressRuleId)>;

impl Rules {
    /// Arranges the rules for `clients` clients.
    pub fn new(egress: &Egress, clients: usize) -> Self {
        let mut of: Vec<Vec<EgressRuleId>> = vec![Vec::new(); clients];
        for (id, rule) in (0..).map(EgressRuleId).zip(&egress.rules) {
            for client in &rule.clients {
                of[client.index()].push(id);
            }
        }
        let mut shared: HashMap<Vec<EgressRuleId>, Arc<Leads>> = HashMap::new();
        let of = of.into_iter().map(|ids| {
            if ids.is_empty() {
                return None;
            }
            if let Some(leads) = shared.get(&ids) {
                return Some(Arc::clone(leads));
            }
            let leads = Arc::new(Leads::new(ids.iter().map(|id| (*id, &egress.rules[id.index()]))));
            shared.insert(ids, Arc::clone(&leads));
            Some(leads)
        });
        Self { of: of.collect() }
    }

    /// The rule that takes `client` there.
    pub fn find(&self, client: ClientId, to: &Authority<'_>) -> Option<EgressRuleId> {
        let leads = self.of.get(client.index())?.as_ref()?;
        match &to.host {
            Host::Name(name) => leads.name(name, to.port),
            Host::Address(ip) => leads.address(*ip, to.port),
        }
    }
}

fn on(ports: &Ports, port: u16) -> Option<EgressRuleId> {
    ports.iter().find(|(one, _)| *one == port).map(|(_, id)| *id)
}

impl Leads {
    fn new<'c>(rules: impl Iterator<Item = (EgressRuleId, &'c EgressRule)>) -> Self {
        let mut leads = Self::default();
        for (id, rule) in rules {
            for to in &rule.to {
                let ports = match &to.host {
                    DestinationHost::Name(name) => leads.names.entry(name.as_str().into()).or_default(),
                    DestinationHost::Suffix(suffix) => {
                        leads.depths |= 1u128.checked_shl(dots(suffix)).unwrap_or(0);
                        leads.suffixes.entry(suffix.as_str().into()).or_default()
                    }
                    DestinationHost::AnyName => &mut leads.any_name,
                    DestinationHost::Net(net) => {
                        let at = match leads.nets.iter().position(|(length, _)| *length == key_length(*net)) {
                            Some(at) => at,
                            None => {
                                leads.nets.push((key_length(*net), HashMap::new()));
                                leads.nets.len() - 1
                            }
                        };
                        leads.nets[at].1.entry(net.network()).or_default()
                    }
                };
                ports.push((to.port, id));
            }
        }
        leads.nets.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        leads
    }

    fn name(&self, name: &str, port: u16) -> Option<EgressRuleId> {
        if let Some(found) = self.names.get(name).and_then(|ports| on(ports, port)) {
            return Some(found);
        }
        if self.depths != 0 {
            let mut left = dots(name);
            for (at, _) in name.match_indices('.') {
                // The suffix from here has so many dots, this one included; it needs a label before it.
                let is_known = self.depths.checked_shr(left).is_some_and(|bits| bits & 1 == 1);
                left -= 1;
                if at > 0
                    && is_known
                    && let Some(found) = self.suffixes.get(&name[at..]).and_then(|ports| on(ports, port))
                {
                    return Some(found);
                }
            }
        }
        on(&self.any_name, port)
    }

    fn address(&self, ip: IpAddr, port: u16) -> Option<EgressRuleId> {
        self.nets.iter().find_map(|(length, nets)| {
            let network = match ip {
                IpAddr::V4(_) => IpNet::new(ip, length.checked_sub(V4_BEHIND)?).ok()?,
                IpAddr::V6(_) => IpNet::new(ip, *length).ok()?,
            };
            nets.get(&network.network()).and_then(|ports| on(ports, port))
        })
    }
}

/// IPv4 prefixes are kept behind those of IPv6, so that one number says length and family.
const V4_BEHIND: u8 = 129;

fn key_length(net: IpNet) -> u8 {
    match net {
        IpNet::V4(net) => net.prefix_len() + V4_BEHIND,
        IpNet::V6(net) => net.prefix_len(),
    }
}

/// A name has at most 253 bytes, and so at most 126 dots.
fn dots(name: &str) -> u32 {
    name.bytes().map(|b| u32::from(b == b'.')).sum()
}

/// Why a rule does not take a client to a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// It is not for this client.
    Client,
    /// It leads elsewhere.
    Destination,
    /// It leads there, on other ports.
    Port(Vec<u16>),
    /// Another says it more exactly.
    LessSpecific,
}

/// Why each rule but the one that was found lost: for people, one by one.
pub fn why_lost(
    egress: &Egress,
    client: ClientId,
    to: &Authority<'_>,
    found: Option<EgressRuleId>,
) -> Vec<(EgressRuleId, Lost)> {
    let ids = (0..).map(EgressRuleId).zip(&egress.rules).filter(|(id, _)| Some(*id) != found);
    ids.map(|(id, rule)| {
        let mut ports: Vec<u16> = rule.to.iter().filter(|one| takes(&one.host, &to.host)).map(|one| one.port).collect();
        ports.sort_unstable();
        ports.dedup();
        let lost = if !rule.clients.contains(&client) {
            Lost::Client
        } else if ports.is_empty() {
            Lost::Destination
        } else if !ports.contains(&to.port) {
            Lost::Port(ports)
        } else {
            Lost::LessSpecific
        };
        (id, lost)
    })
    .collect()
}

/// Whether one of a rule's hosts is, or holds, a destination's.
pub fn takes(host: &DestinationHost, to: &Host<'_>) -> bool {
    match (host, to) {
        (DestinationHost::Name(one), Host::Name(name)) => one == name,
        (DestinationHost::Suffix(suffix), Host::Name(name)) => {
            name.len() > suffix.len() && name.ends_with(suffix.as_str())
        }
        (DestinationHost::AnyName, Host::Name(_)) => true,
        (DestinationHost::Net(net), Host::Address(ip)) => net.contains(ip),
        _ => false,
    }
}
