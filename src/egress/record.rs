//! What is known of a tunnel, or of a forwarded request: told when it is dropped, so that there is exactly one line of each, however it ends.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    answer::Refusal,
    live::{self, Live},
    parent::Through,
    relay::Moved,
};
use crate::{
    config::model::{ClientId, EgressRuleId, EgressSourceId, Name},
    decide::{
        Now, Reason,
        egress::{Place, Ticket, status},
    },
    observe::{
        EgressEntry,
        clock::{now, unix_ms},
        dice,
        metrics::{EgressCounts, SourceCounts},
    },
};

/// 32 hex digits.
#[derive(Debug, Clone, Copy)]
pub struct RequestId([u8; 32]);

impl RequestId {
    fn fresh() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut id = [0; 32];
        for (pair, byte) in id.chunks_exact_mut(2).zip(dice::roll_128().to_be_bytes()) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        Self(id)
    }

    pub fn as_str(&self) -> &str {
        // Hex digits.
        std::str::from_utf8(&self.0).unwrap_or("-")
    }
}

/// A connection that holds a port of a source's address.
#[derive(Debug)]
pub struct Left(Arc<SourceCounts>);

impl Left {
    pub fn from(counts: Arc<SourceCounts>) -> Self {
        counts.open.fetch_add(1, Relaxed);
        Self(counts)
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

pub struct Record {
    pub live: Arc<Live>,
    worker: usize,
    listener: Name,
    client_ip: Option<IpAddr>,
    begun: Now,
    pub id: RequestId,
    pub kind: &'static str,
    /// Of a forwarded request.
    pub method: Option<Box<[u8]>>,
    pub target: Option<Box<[u8]>>,
    pub client: Option<ClientId>,
    pub rule: Option<EgressRuleId>,
    pub source: Option<(EgressSourceId, IpAddr)>,
    /// What was dialled.
    pub address: Option<SocketAddr>,
    /// The parent that was asked to connect.
    pub through: Option<Arc<Through>>,
    pub would_refuse: Option<Reason>,
    pub reason: Option<Reason>,
    /// What exactly.
    pub detail: Cow<'static, str>,
    /// What the client was told.
    pub status: Option<u16>,
    pub ended: Option<&'static str>,
    pub dns: Option<Duration>,
    pub connect: Option<Duration>,
    pub moved: Moved,
    /// Its place under the rule's limits.
    pub ticket: Option<Ticket>,
    /// And among its client's.
    pub share: Option<Place>,
    under_way: Option<Arc<EgressCounts>>,
    pub left_from: Option<Left>,
}

impl Record {
    /// `None`: this thread is no worker.
    pub fn begin(listener: Name, client_ip: Option<IpAddr>) -> Option<Self> {
        let (worker, live) = live::current()?;
        Some(Self {
            live,
            worker,
            listener,
            client_ip,
            begun: now(),
            id: RequestId::fresh(),
            kind: "none",
            method: None,
            target: None,
            client: None,
            rule: None,
            source: None,
            address: None,
            through: None,
            would_refuse: None,
            reason: None,
            detail: Cow::Borrowed(""),
            status: None,
            ended: None,
            dns: None,
            connect: None,
            moved: Moved::default(),
            ticket: None,
            share: None,
            under_way: None,
            left_from: None,
        })
    }

    /// Refused: by what, and what the client is told.
    pub fn refused(&mut self, refusal: &Refusal) {
        self.reason = Some(refusal.reason);
        self.detail.clone_from(&refusal.detail);
        self.status = Some(status(refusal.reason));
    }

    /// It is under way, under its rule.
    pub fn enter(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
        if let Some(counts) = self.live.counts.of(self.client, self.rule) {
            counts.enter();
            self.under_way = Some(counts.clone());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(counts) = &self.under_way {
            counts.leave();
        }
        let config = &self.live.snapshot.config;
        let client = self.client.map(|id| &config.clients[id.index()]);
        let rule = self.rule.map(|id| &config.egress.rules[id.index()]);
        // Also where it has no address that fits.
        let named = || rule?.source.filter(|_| self.reason == Some(Reason::SourceUnavailable));
        let source = self.source.map(|(id, _)| id).or_else(named).map(|id| &config.egress.sources[id.index()]);
        let (bytes_in, bytes_out) = (self.moved.sent.load(Relaxed), self.moved.received.load(Relaxed));
        if let Some(counts) = self.live.counts.of(self.client, self.rule) {
            counts.count(self.worker, self.reason, self.would_refuse.is_some(), bytes_in, bytes_out);
        }
        let entry = EgressEntry {
            ts: unix_ms(),
            kind: self.kind,
            request_id: self.id.as_str(),
            generation: self.live.snapshot.generation,
            listener: &self.listener,
            client: client.map(|c| &*c.name),
            owner: client.and_then(|c| c.owner.as_deref()),
            client_ip: self.client_ip,
            method: self.method.as_deref(),
            target: self.target.as_deref(),
            address: self.address,
            parent: self.through.as_ref().map(|through| &*through.url),
            asked: self.through.as_ref().map(|through| &*through.asked),
            source: source.map(|s| &*s.name),
            source_address: self.source.map(|(_, ip)| ip),
            rule: rule.map(|r| &*r.name),
            would_refuse: self.would_refuse,
            reason: self.reason,
            detail: Some(&*self.detail).filter(|detail| !detail.is_empty()),
            status: self.status,
            ended: self.ended,
            bytes_in,
            bytes_out,
            total: Duration::from_nanos(now().0.saturating_sub(self.begun.0)),
            dns: self.dns,
            connect: self.connect,
        };
        live::log(|port, log| port.write_egress(log, &entry));
    }
}
