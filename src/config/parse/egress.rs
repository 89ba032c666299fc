//! `[egress]` and its tables.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use super::{Scope, dangling, number, patience, tables::bad_name};
use crate::config::{
    model::{
        ClientId, Destination, DestinationHost, Egress, EgressLimits, EgressRule, EgressSourceId, EgressTimeouts,
        Limit, LimitKey, LimitScope, ListenAddress, Listener, Name, Networks, Resolver, Source,
    },
    raw,
    raw_egress::{self, EgressListener},
    read::{Map, OneOrMany},
    report::Problem,
    source::{At, Span},
    special::{special, special_net},
    words::{NetworkRef, SourceAddress, Text, ToWord},
};

/// No set of addresses, and no machine's.
const MOST_ADDRESSES: usize = 256;

impl<'s> Scope<'s> {
    /// `dns`: the name servers for everything else.
    pub(super) fn egress(&mut self, dns: &[SocketAddr]) -> Option<Egress> {
        let raw = &self.file.egress;
        let listeners = self.named("egress.listener", raw.listener.as_ref());
        let sources = self.named("egress.source", raw.source.as_ref());
        let rules = self.named("egress.rule", raw.rule.as_ref());
        if let Some((name, (span, _))) = rules.iter().next().filter(|_| raw.listener.is_none()) {
            self.report.push(
                Problem::at(format!("no egress listener: nobody can use rule `{name}`"), *span)
                    .label("the way out is shut")
                    .help("add one, such as `[egress.listener.inside]` with `address = \"10.0.0.4:3128\"`"),
            );
        }
        let timeouts = egress_timeouts(raw.timeouts.as_ref().map(|at| &at.value));
        let resolver = raw.resolver.as_ref().map(|at| &at.value);
        let own = resolver.and_then(|raw| raw.servers.as_ref());
        if let Some(list) = own.filter(|list| list.value.is_empty()) {
            self.report.push(
                Problem::at("`servers` is empty: nobody could be asked", list.span)
                    .label("expected at least one")
                    .help("for those of /etc/resolv.conf leave it out"),
            );
        }
        let resolver = Resolver {
            servers: own.map_or_else(|| dns.to_vec(), |list| list.value.iter().map(|at| at.value.0).collect()),
            timeout: patience(resolver.and_then(|raw| raw.timeout.as_ref()), 5),
        };
        let listeners = each(&listeners, |name, span, raw| self.egress_listener(name, span, raw));
        let known = each(&sources, |name, _, raw| self.source(name, raw));
        self.source_addresses_apart(&sources);
        let ids: HashMap<&str, u32> = sources.keys().map(|name| &**name).zip(0..).collect();
        let mut leads = Vec::new();
        let parsed = each(&rules, |name, _, raw| self.egress_rule(name, raw, &ids, timeouts, &mut leads));
        self.rules_apart(&leads);
        Some(Egress {
            mode: raw.mode.as_ref().map(|at| at.value).unwrap_or_default(),
            deny_message: raw.deny_message.as_ref().map(|at| at.value.0.clone()),
            on_revoke: raw.on_revoke.as_ref().map(|at| at.value).unwrap_or_default(),
            timeouts,
            fair_share: raw
                .fair_share
                .as_ref()
                .and_then(|at| u8::try_from(at.value.0).ok())
                .unwrap_or(Egress::FAIR_SHARE),
            resolver,
            listeners,
            sources: known,
            rules: parsed,
        })
    }

    /// The tables of one kind, by name. A wrong one is in the report.
    fn named<T>(&mut self, kind: &str, tables: Option<&'s At<Map<T>>>) -> BTreeMap<&'s str, (Span, &'s T)> {
        let mut named = BTreeMap::new();
        for (name, table) in tables.iter().flat_map(|at| &at.value.0) {
            if let Some(problem) = bad_name(&name.value, name.span) {
                self.report.push(problem);
            }
            if let Some(at) = table {
                named.insert(name.value.as_str(), (name.span, &at.value));
            }
        }
        if let Some(at) = tables.filter(|at| at.value.0.is_empty()) {
            self.report.push(
                Problem::at(format!("`{kind}` has no table in it"), at.span).label(format!("write `[{kind}.NAME]`")),
            );
        }
        named
    }

    fn egress_listener(&mut self, name: &Name, span: Span, own: &EgressListener) -> Option<Listener> {
        let timeouts = own.timeouts.as_ref().map(|at| {
            let raw_egress::EgressListenerTimeouts { handshake, header, idle, broken } = at.value.clone();
            At { value: raw::ListenerTimeouts { handshake, header, body: None, idle, broken }, span: at.span }
        });
        let tls = own.tls.as_ref().map(|list| At {
            value: (list.value.iter())
                .map(|at| At { value: raw::TlsCertificate::Files(at.value.clone()), span: at.span })
                .collect(),
            span: list.span,
        });
        let common = raw::Listener {
            address: own.address.clone(),
            freebind: own.freebind.clone(),
            tls,
            tls_profile: own.tls_profile.clone(),
            client_ca: own.client_ca.clone(),
            client_auth: own.client_auth.clone(),
            proxy_protocol: own.proxy_protocol.clone(),
            h2c: None,
            max_connections: own.max_connections.clone(),
            max_connections_per_ip: own.max_connections_per_ip.clone(),
            min_body_rate: None,
            timeouts,
            mode: own.mode.clone(),
            broken: own.broken,
        };
        let mut listener = self.listener(name, span, &common)?;
        listener.timeouts.min_body_rate = None;
        if let (ListenAddress::Tcp(address), Some(at), true) =
            (&listener.address, &own.address, listener.tls.is_empty())
            && special(address.ip()).is_none()
        {
            self.report.push(
                Problem::at("a plain proxy on a public address", at.span)
                    .label("credentials cross the internet for all to read")
                    .help("give it `tls`, or an address of the inside")
                    .warning(),
            );
        }
        Some(listener)
    }

    fn source(&mut self, name: &Name, raw: &raw_egress::Source) -> Option<Source> {
        let bind = self.source_addresses(raw.bind.as_ref()?, "bind");
        let public = raw.public.as_ref().map_or(Some(Vec::new()), |at| self.source_addresses(at, "public"));
        let (bind, public) = (bind?, public?);
        // On one machine alone, loopback is all that there is.
        let is_trial = bind.iter().all(IpAddr::is_loopback);
        let inner = raw.public.iter().flat_map(|at| &at.value.0).find(|at| at.value.0.is_loopback() && !is_trial);
        if let Some(at) = inner {
            self.report.push(
                Problem::at(format!("no partner sees {}", at.value.0), at.span)
                    .label("it is loopback")
                    .help("`public` is what the world sees in place of `bind`; without a NAT leave it out"),
            );
            return None;
        }
        if let Some(at) = raw.public.as_ref().filter(|_| public.len() > 1 && public.len() != bind.len()) {
            self.report.push(
                Problem::at(format!("{} public addresses for {} of `bind`", public.len(), bind.len()), at.span)
                    .label("expected one for all, or one for each"),
            );
            return None;
        }
        let check = match &raw.check {
            None => None,
            Some(at) => Some(self.source_check(&at.value)?),
        };
        Some(Source { name: name.clone(), bind, public, check })
    }

    fn source_addresses(&mut self, list: &At<OneOrMany<SourceAddress>>, key: &str) -> Option<Vec<IpAddr>> {
        let ips: Vec<IpAddr> = list.value.0.iter().map(|at| at.value.0).collect();
        if ips.is_empty() || ips.len() > MOST_ADDRESSES {
            let problem = Problem::at(format!("`{key}` has {} addresses", ips.len()), list.span);
            self.report.push(problem.label(format!("expected one to {MOST_ADDRESSES}")));
            return None;
        }
        let mut seen = HashMap::new();
        for at in &list.value.0 {
            // Two may share the address that the world sees.
            if let Some(first) = seen.insert(at.value.0, at.span).filter(|_| key == "bind") {
                let problem = Problem::at(format!("{} is there twice", at.value.0), at.span);
                self.report.push(problem.also(first, "first here"));
                return None;
            }
        }
        Some(ips)
    }

    /// One address says who left: of two sources with one, partners could not tell.
    fn source_addresses_apart(&mut self, sources: &BTreeMap<&str, (Span, &raw_egress::Source)>) {
        let mut owners: HashMap<IpAddr, (&str, Span)> = HashMap::new();
        let mut told = HashSet::new();
        for (name, (_, raw)) in sources {
            for at in raw.bind.iter().flat_map(|at| &at.value.0) {
                let (owner, first) = *owners.entry(at.value.0).or_insert((name, at.span));
                if owner != *name && told.insert((owner, *name)) {
                    self.report.push(
                        Problem::at(format!("sources `{owner}` and `{name}` both leave from {}", at.value.0), at.span)
                            .label("who is who could not be told")
                            .also(first, format!("`{owner}` has it here")),
                    );
                }
            }
        }
    }

    fn egress_rule(
        &mut self,
        name: &Name,
        raw: &raw_egress::EgressRule,
        sources: &HashMap<&str, u32>,
        timeouts: EgressTimeouts,
        leads: &mut Vec<Leads>,
    ) -> Option<EgressRule> {
        let clients = raw.clients.as_ref().and_then(|list| self.rule_clients(list));
        let to = raw.to.as_ref().and_then(|list| self.destinations(list));
        let private = match &raw.private {
            None => Some(Networks::default()),
            Some(list) => self.private(list),
        };
        let source = match &raw.source {
            None => None,
            Some(at) => Some(self.source_id(at, sources)?),
        };
        let parent = match &raw.parent {
            None => None,
            Some(at) => Some(self.parent(&at.value.0)?),
        };
        let limits = self.egress_limits(raw.limits.as_ref().map(|at| &at.value));
        let (clients, to, private) = (clients?, to?, private?);
        let hosts: Vec<DestinationHost> = to.iter().map(|(one, _)| one.host.clone()).collect();
        self.nothing_is_judged(raw, &hosts);
        self.nothing_is_compared(raw, &to);
        if !raw.broken {
            self.literals_are_reachable(name, &to, &private);
        }
        leads.push(Leads { name: name.clone(), clients: clients.clone(), to: to.clone() });
        let own = raw.timeouts.as_ref().map(|at| &at.value);
        let or = |at: Option<&At<_>>, default| at.map_or(default, |at: &At<crate::config::words::Patience>| at.value.0);
        Some(EgressRule {
            name: name.clone(),
            clients,
            to: to.into_iter().map(|(destination, _)| destination).collect(),
            source,
            parent,
            private,
            limits,
            mode: raw.mode.as_ref().map(|at| at.value).unwrap_or_default(),
            mixed_answers: raw.mixed_answers.as_ref().map(|at| at.value).unwrap_or_default(),
            tls_name: raw.tls_name.as_ref().map(|at| at.value).unwrap_or_default(),
            timeouts: EgressTimeouts {
                connect: or(own.and_then(|t| t.connect.as_ref()), timeouts.connect),
                idle: or(own.and_then(|t| t.idle.as_ref()), timeouts.idle),
                total: own.and_then(|t| t.total.as_ref()).map_or(timeouts.total, |at| Some(at.value.0)),
                ..timeouts
            },
        })
    }

    fn rule_clients(&mut self, list: &At<raw::Names>) -> Option<Vec<ClientId>> {
        if list.value.is_empty() {
            self.report.push(
                Problem::at("`clients` is empty: nobody is meant", list.span).label("expected at least one client"),
            );
            return None;
        }
        let file = self.file;
        let mut clients = Vec::new();
        let mut whole = true;
        for at in &list.value {
            let Some(id) = self.find("client", at, &file.clients).map(ClientId) else {
                whole = false;
                continue;
            };
            // A proxy's client cannot show a key in a header: an API key would be the destination's.
            if let Some((_, client)) = file.clients.get(&at.value.0)
                && client.api_key.is_some()
                && client.basic.is_none()
                && client.jwt.is_none()
                && client.mtls.is_none()
            {
                whole = false;
                self.report.push(
                    Problem::at(format!("client `{}` shows an API key alone, which is not read on the way out", at.value.0), at.span)
                        .label("nobody could be this client here")
                        .help("give it `basic`, `jwt`, `mtls`, or `networks` alone: what a proxy's URL can carry is a user and a password"),
                );
            }
            if !clients.contains(&id) {
                clients.push(id);
            }
        }
        whole.then_some(clients)
    }

    fn destinations(&mut self, list: &At<raw_egress::To>) -> Option<Vec<(Destination, Span)>> {
        if list.value.words.is_empty() && list.value.is_whole {
            self.report.push(
                Problem::at("`to` is empty: this rule leads nowhere", list.span)
                    .label("expected at least one destination"),
            );
            return None;
        }
        let mut to = Vec::new();
        let mut seen = HashSet::new();
        let mut whole = list.value.is_whole;
        for at in &list.value.words {
            let Some(meant) = self.meant(at) else {
                whole = false;
                continue;
            };
            for destination in meant {
                if seen.insert(destination.clone()) {
                    to.push((destination, at.span));
                }
            }
        }
        whole.then_some(to)
    }

    /// What one word of `to` stands for.
    fn meant(&mut self, at: &At<ToWord>) -> Option<Vec<Destination>> {
        match &at.value {
            ToWord::One(destination) => Some(vec![destination.clone()]),
            ToWord::Named(name, port) => {
                let list =
                    At { value: vec![At { value: NetworkRef::Named(name.clone()), span: at.span }], span: at.span };
                let nets = self.networks(Some(&list))?;
                let one = |net: &ipnet::IpNet| Destination { host: DestinationHost::Net(*net), port: *port };
                Some(nets.as_slice().iter().map(one).collect())
            }
        }
    }

    /// `private` is for what is refused otherwise: a public network in it was meant for `to`.
    fn private(&mut self, list: &At<raw::Networks>) -> Option<Networks> {
        let nets = self.some_networks(list, "private")?;
        let mut whole = true;
        for net in nets.as_slice() {
            // A named list has its own place; the word that is wrong is told by its value.
            let own = list.value.iter().find(|at| matches!(&at.value, NetworkRef::Net(one) if one == net));
            let span = own.map_or(list.span, |at| at.span);
            let problem = match special_net(*net) {
                None => Problem::at(format!("`{net}` is not private"), span)
                    .label("public addresses need no exemption")
                    .help("`private` names networks of your own, such as `10.20.0.0/24`; where a rule leads is said by `to`"),
                Some(what) if what.is_unreachable() => {
                    Problem::at(format!("nothing can be connected to in `{net}`"), span)
                        .label(format!("it is {}", what.words()))
                }
                Some(_) => continue,
            };
            whole = false;
            self.report.push(problem);
        }
        whole.then_some(nets)
    }

    fn source_id(&mut self, name: &At<Text>, sources: &HashMap<&str, u32>) -> Option<EgressSourceId> {
        let found = sources.get(name.value.0.as_str()).copied();
        if found.is_none() {
            let known: Vec<&str> = sources.keys().copied().collect();
            let problem = dangling("egress source", &name.value.0, name.span, &known);
            self.report.push(problem);
        }
        found.map(EgressSourceId)
    }

    fn egress_limits(&mut self, raw: Option<&raw_egress::EgressLimits>) -> EgressLimits {
        let Some(raw) = raw else { return EgressLimits::default() };
        if let Some(at) = raw.burst.as_ref().filter(|_| raw.rate.is_none() && !raw.broken) {
            self.report
                .push(Problem::at("`burst` without `rate` says nothing", at.span).label("expected a `rate` beside it"));
        }
        let rate = raw.rate.as_ref().map(|at| {
            let second = u64::from(at.value.count.get()) / at.value.period.as_secs().max(1);
            let default = NonZeroU32::new(u32::try_from(second).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
            let burst = raw.burst.as_ref().and_then(|at| number(at.value.0)).unwrap_or(default);
            let max_keys = NonZeroU32::MIN.saturating_add(999_999);
            Limit {
                rate: at.value,
                burst,
                per: LimitKey::Client,
                max_keys,
                dry_run: false,
                scope: LimitScope::Instance,
            }
        });
        EgressLimits {
            tunnels: raw.tunnels.as_ref().and_then(|at| number(at.value.0)),
            rate,
            bandwidth: raw.bandwidth.as_ref().map(|at| at.value.0),
        }
    }

    /// An address that `to` names and no `private` exempts would always be refused.
    fn literals_are_reachable(&mut self, name: &Name, to: &[(Destination, Span)], private: &Networks) {
        for (destination, span) in to {
            let DestinationHost::Net(net) = &destination.host else { continue };
            let Some(what) = special_net(*net) else { continue };
            if private.as_slice().iter().any(|one| one.contains(net) || net.contains(one)) {
                continue;
            }
            let mut problem =
                Problem::at(format!("rule `{name}` leads to {net}, which is refused all the same"), *span)
                    .label(format!("it is {}", what.words()));
            if !what.is_unreachable() {
                problem = problem.help(format!("if it is meant, add `private = [\"{net}\"]` to the rule"));
            }
            self.report.push(problem);
        }
    }

    /// Of several rules the most specific wins; two that say the same of a client would tie.
    fn rules_apart(&mut self, leads: &[Leads]) {
        let mut owners: HashMap<&Destination, Vec<(&Leads, Span)>> = HashMap::new();
        let mut told = HashSet::new();
        for rule in leads {
            for (destination, span) in &rule.to {
                let before = owners.entry(destination).or_default();
                for (other, first) in before.iter() {
                    let Some(both) = rule.clients.iter().find(|id| other.clients.contains(id)) else { continue };
                    if !told.insert((&other.name, &rule.name)) {
                        continue;
                    }
                    let client = self.file.clients.keys().nth(both.index()).map_or("?", String::as_str);
                    self.report.push(
                        Problem::at(
                            format!(
                                "rules `{}` and `{}` both take client `{client}` to {destination}",
                                other.name, rule.name
                            ),
                            *span,
                        )
                        .label("neither is more specific")
                        .also(*first, format!("`{}` has it here", other.name))
                        .help("take it out of one of them, or make them one rule"),
                    );
                }
                before.push((rule, *span));
            }
        }
    }
}

/// Where a rule leads, and where that is written.
struct Leads {
    name: Name,
    clients: Vec<ClientId>,
    to: Vec<(Destination, Span)>,
}

fn each<T, U>(tables: &BTreeMap<&str, (Span, &T)>, mut resolve: impl FnMut(&Name, Span, &T) -> Option<U>) -> Vec<U> {
    tables.iter().filter_map(|(name, (span, table))| resolve(&Name::from(*name), *span, table)).collect()
}

fn egress_timeouts(raw: Option<&raw_egress::EgressTimeouts>) -> EgressTimeouts {
    let default = EgressTimeouts::default();
    let Some(raw) = raw else { return default };
    let or = |at: &Option<At<crate::config::words::Patience>>, default| at.as_ref().map_or(default, |at| at.value.0);
    EgressTimeouts {
        connect: or(&raw.connect, default.connect),
        tls_name: or(&raw.tls_name, default.tls_name),
        first_byte: or(&raw.first_byte, default.first_byte),
        idle: or(&raw.idle, default.idle),
        total: raw.total.as_ref().map(|at| at.value.0),
    }
}
