//! What a tunnel stands on, to be asked again after a reload: whether the config that holds now would open it, as it is.

use std::{net::SocketAddr, sync::Arc};

use super::{
    conn::Allowed,
    here,
    live::{self, Live},
    parent,
    record::Record,
};
use crate::{
    config::model::{ClientId, EgressRule, OnRevoke},
    decide::{
        auth::Grounds,
        egress::{Authority, Choice, Judge, source},
    },
};

/// See the module.
pub struct Standing {
    /// As it was opened by.
    then: Arc<Live>,
    client: Option<ClientId>,
    grounds: Option<Grounds>,
    to: Authority<'static>,
    /// What was judged, where that was done here.
    address: Option<SocketAddr>,
    /// Where it left from, where a source said so.
    from: Option<std::net::IpAddr>,
    parent: Option<Box<str>>,
}

impl Standing {
    pub fn of(record: &Record, to: &Authority<'static>, grounds: Option<Grounds>) -> Self {
        Self {
            then: record.live.clone(),
            client: record.client,
            grounds,
            to: to.clone(),
            address: record.through.as_ref().map_or(record.address, |through| through.address),
            from: record.source.map(|(_, ip)| ip),
            parent: record.through.as_ref().map(|through| through.url.as_str().into()),
        }
    }

    /// Whether a reload since it was begun takes it away: what the sweeper asks later, asked now. `is_doubted`: its connection is.
    pub fn is_overtaken(&self, is_doubted: bool) -> bool {
        let is_new = live::current().is_some_and(|(_, now)| !Arc::ptr_eq(&now, &self.then));
        (is_new && !self.is_allowed()) || (is_doubted && self.closes())
    }

    fn holds(&self, now: &Live) -> bool {
        let config = &now.snapshot.config;
        let Some(client) = self.client_in(now) else { return false };
        let rule = match now.snapshot.egress.choose(client, &self.to) {
            Choice::Rule(id) => Some(&config.egress.rules[id.index()]),
            Choice::Unlisted => None,
            Choice::Refused => return false,
        };
        let judge = Judge::of(rule, &now.own, &here::has);
        // What nobody has judged here is for the parent alone to look up.
        let leads =
            self.address.map_or_else(|| parent::looks_up(rule, &self.to), |at| judge.one(at.ip(), at.port()).is_ok());
        leads && self.leaves_alike(now, rule)
    }

    /// Its client, where that is one still, and would be let in by what it showed.
    fn client_in(&self, now: &Live) -> Option<ClientId> {
        let then = &self.then.snapshot.config.clients[self.client?.index()];
        let clients = &now.snapshot.config.clients;
        // Where it was, mostly.
        let same = self.client.filter(|id| clients.get(id.index()).is_some_and(|client| client.name == then.name));
        let elsewhere =
            || (0..).map(ClientId).zip(clients).find(|(_, client)| client.name == then.name).map(|(id, _)| id);
        let id = same.or_else(elsewhere)?;
        let client = &clients[id.index()];
        let callers = &now.snapshot.callers;
        let grounds = self.grounds.as_ref()?;
        callers.stands(callers.egress()?, grounds, id, client.jwt == then.jwt).then_some(id)
    }

    /// From one of the addresses that its rule has now, and by the parent that it has.
    fn leaves_alike(&self, now: &Live, rule: Option<&EgressRule>) -> bool {
        let source = source(&now.snapshot.config, rule).map(|(_, source)| source);
        let from = match (source, self.from) {
            (None, None) => true,
            (Some(source), Some(ip)) => source.bind.contains(&ip),
            _ => false,
        };
        let parent = rule.and_then(|rule| rule.parent.as_ref()).map(ToString::to_string);
        from && parent.as_deref() == self.parent.as_deref()
    }
}

impl Allowed for Standing {
    fn is_allowed(&self) -> bool {
        live::current().is_none_or(|(_, now)| !closes(&now) || self.holds(&now))
    }

    fn closes(&self) -> bool {
        live::current().is_some_and(|(_, now)| closes(&now))
    }
}

fn closes(live: &Live) -> bool {
    live.snapshot.config.egress.on_revoke == OnRevoke::Close
}
