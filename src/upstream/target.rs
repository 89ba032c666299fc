//! A version of a function as something to connect to: which addresses in which order, and the peer for each.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use pingora_core::{protocols::ALPN, upstreams::peer::HttpPeer};
use rustls_pki_types::CertificateDer;

use super::{Addresses, NotResolved, Resolver, peer};
use crate::{
    config::model::{Endpoint, EndpointHost, Function, Version},
    decide::Now,
};

pub use super::peer::{BadCa, SHORTEST_IDLE};

/// How long an address that failed goes last.
pub const SHUNNED: Duration = Duration::from_secs(10);

/// A version's endpoint, ready for requests.
#[derive(Debug)]
pub struct Target {
    places: Arc<Places>,
    template: HttpPeer,
}

/// Where an endpoint is, and what was met there. Outlives reloads as long as host and port stay.
#[derive(Debug)]
struct Places {
    host: EndpointHost,
    port: u16,
    addresses: Arc<Addresses>,
    /// Whose turn it is. One counter for all workers: with one address it is not touched at all.
    turn: AtomicUsize,
    /// Nearly always empty; replaced whole when an address fails or is well again.
    shunned: ArcSwap<Vec<Arc<Shunned>>>,
}

#[derive(Debug)]
struct Shunned {
    address: SocketAddr,
    /// [`Now`] from which it is tried again.
    until: AtomicU64,
}

impl Target {
    /// A version of `function`, with `ca` where that alone is to be trusted.
    ///
    /// # Errors
    ///
    /// Where a certificate in `ca` cannot serve as a trust anchor.
    pub fn new(
        version: &Version,
        function: &Function,
        ca: Option<Arc<[CertificateDer<'static>]>>,
        resolver: &Resolver,
    ) -> Result<Self, BadCa> {
        Self::carried(None, version, function, ca, resolver)
    }

    /// Like [`new`](Self::new), going on with what `previous` knows (addresses, failures, whose turn it is) if host and port are the same.
    ///
    /// # Errors
    ///
    /// Like [`new`](Self::new).
    pub fn carried(
        previous: Option<&Self>,
        version: &Version,
        function: &Function,
        ca: Option<Arc<[CertificateDer<'static>]>>,
        resolver: &Resolver,
    ) -> Result<Self, BadCa> {
        let template = peer::template(version, function, ca.as_deref())?;
        let places = match previous {
            Some(previous) if previous.places.is_at(&version.url) => Arc::clone(&previous.places),
            _ => Arc::new(Places::new(&version.url, resolver)),
        };
        Ok(Self { places, template })
    }

    /// The addresses for one request, in the order in which it is to try them. Empty: the name does not resolve (yet).
    ///
    /// They take turns from request to request; those that failed within the last 10 s come last. When such a time is over, one request
    /// gets to try the address first, and the others leave it last until that has gone well, or another 10 s have passed.
    pub fn candidates(&self, now: Now) -> Candidates {
        self.places.candidates(now)
    }

    /// For a request that came before the name's first lookup ended ([`candidates`](Self::candidates) were empty): waits for that.
    ///
    /// # Errors
    ///
    /// [`NotResolved`] where the name has no addresses even so.
    pub async fn wait_first(&self, within: Duration) -> Result<(), NotResolved> {
        self.places.addresses.wait_first(within).await
    }

    /// Connecting to `address` failed: it goes last for [`SHUNNED`].
    pub fn failed(&self, address: SocketAddr, now: Now) {
        self.places.failed(address, now);
    }

    /// A connection to `address` was made: forgets that it failed. Cheap where it did not.
    pub fn succeeded(&self, address: SocketAddr) {
        self.places.succeeded(address);
    }

    /// The peer at `address`, every option set. One allocation for plain HTTP; with TLS a second one, for the server name.
    pub fn peer(&self, address: SocketAddr) -> Box<HttpPeer> {
        let mut peer = Box::new(self.template.clone());
        peer._address = address.into();
        peer
    }

    /// The peer for a request that asks for an upgrade (WebSocket): HTTP/1.1 whatever else the function speaks, since pingora does
    /// not do RFC 8441. Its connection is good for later requests of [`peer`](Self::peer) too.
    pub fn peer_for_upgrade(&self, address: SocketAddr) -> Box<HttpPeer> {
        let mut peer = self.peer(address);
        peer.options.alpn = ALPN::H1;
        peer
    }

    /// What the addresses are of: the endpoint's host name, or the address itself.
    pub fn host(&self) -> &str {
        self.places.addresses.name()
    }
}

impl Places {
    fn new(url: &Endpoint, resolver: &Resolver) -> Self {
        let addresses = match &url.host {
            EndpointHost::Name(name) => resolver.watch(name),
            EndpointHost::Address(ip) => Arc::new(Addresses::literal(*ip)),
        };
        Self {
            host: url.host.clone(),
            port: url.port,
            addresses,
            turn: AtomicUsize::new(0),
            shunned: ArcSwap::default(),
        }
    }

    fn is_at(&self, url: &Endpoint) -> bool {
        self.host == url.host && self.port == url.port
    }

    fn candidates(&self, now: Now) -> Candidates {
        let ips = self.addresses.current();
        if let [ip] = *ips {
            return Candidates::of_one(SocketAddr::new(ip, self.port));
        }
        if ips.is_empty() {
            return Candidates::none();
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % ips.len();
        let shunned = self.shunned.load();
        let turns = ips[first..].iter().chain(&ips[..first]).map(|ip| SocketAddr::new(*ip, self.port));
        if shunned.is_empty() {
            return Candidates::of(turns);
        }
        let standing = |address: &SocketAddr| {
            shunned.iter().find(|s| s.address == *address).map_or(Standing::Good, |s| s.standing(now))
        };
        // Asked once each: of an address whose time is over, only the first who asks is told so.
        let judged: Vec<_> = turns.map(|a| (a, standing(&a))).collect();
        let ranked =
            |wanted| judged.iter().filter(move |(_, standing)| *standing == wanted).map(|(address, _)| *address);
        Candidates::of(ranked(Standing::Probe).chain(ranked(Standing::Good)).chain(ranked(Standing::Bad)))
    }

    fn failed(&self, address: SocketAddr, now: Now) {
        let until = now.after(SHUNNED);
        if let Some(known) = self.shunned.load().iter().find(|s| s.address == address) {
            known.until.store(until, Ordering::Relaxed);
            return;
        }
        self.shunned.rcu(|shunned| {
            // Addresses that the name no longer has go; so the list is never longer than the answer.
            let ips = self.addresses.current();
            let mut next: Vec<_> =
                shunned.iter().filter(|s| s.address != address && ips.contains(&s.address.ip())).cloned().collect();
            next.push(Arc::new(Shunned { address, until: AtomicU64::new(until) }));
            next
        });
    }

    fn succeeded(&self, address: SocketAddr) {
        if !self.shunned.load().iter().any(|s| s.address == address) {
            return;
        }
        self.shunned.rcu(|shunned| shunned.iter().filter(|s| s.address != address).cloned().collect::<Vec<_>>());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// Failed, and its time is over: this request is the one that tries it.
    Probe,
    Bad,
}

impl Shunned {
    fn standing(&self, now: Now) -> Standing {
        let until = self.until.load(Ordering::Relaxed);
        let over = until <= now.0
            && self.until.compare_exchange(until, now.after(SHUNNED), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if over { Standing::Probe } else { Standing::Bad }
    }
}

trait After {
    fn after(self, time: Duration) -> u64;
}

impl After for Now {
    fn after(self, time: Duration) -> u64 {
        self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The addresses that one request may try, distinct, in order; at most [`Candidates::MOST`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    addresses: [SocketAddr; Self::MOST],
    len: u8,
    next: u8,
}

impl Candidates {
    /// The most addresses that one request tries.
    pub const MOST: usize = 4;

    fn none() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self { addresses: [nowhere; Self::MOST], len: 0, next: 0 }
    }

    fn of_one(address: SocketAddr) -> Self {
        Self { addresses: [address; Self::MOST], len: 1, next: 0 }
    }

    /// The first few; where those are all of one family and there is another, the last place goes to that.
    fn of(mut addresses: impl Iterator<Item = SocketAddr>) -> Self {
        let mut this = Self::none();
        for (place, address) in this.addresses.iter_mut().zip(addresses.by_ref()) {
            *place = address;
            this.len += 1;
        }
        let six = this.addresses[0].is_ipv6();
        let all_alike = this.addresses.iter().all(|a| a.is_ipv6() == six);
        if this.len() == Self::MOST
            && all_alike
            && let Some(other) = addresses.find(|a| a.is_ipv6() != six)
        {
            this.addresses[Self::MOST - 1] = other;
        }
        this
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many there are in all, tried ones included.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }
}

impl Iterator for Candidates {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        if self.next == self.len {
            return None;
        }
        let address = self.addresses[usize::from(self.next)];
        self.next += 1;
        Some(address)
    }
}

#[cfg(test)]
pub(super) mod tests;
