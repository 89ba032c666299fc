//! A version of a function as something to connect to: which addresses in which order, and the peer for each.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pingora_core::{protocols::ALPN, upstreams::peer::HttpPeer};
use rustls_pki_types::CertificateDer;

use super::{
    Addresses, NotResolved, Resolver,
    lines::Key,
    peer,
    resting::{Resting, Rests, Standing},
};
use crate::{
    config::model::{Endpoint, EndpointHost, Function, Health, Version},
    decide::Now,
};

pub use super::peer::{BadCa, SHORTEST_IDLE};

/// A version's endpoint, ready for requests.
#[derive(Debug)]
pub struct Target {
    places: Arc<Places>,
    template: HttpPeer,
    /// What connections of it have in common: see [`Key`].
    group: u64,
    /// Of a function that may choose: what it chose ([`UNKNOWN`], [`HTTP_1`], [`HTTP_2`]).
    chosen: AtomicU8,
}

const UNKNOWN: u8 = 0;
const HTTP_1: u8 = 1;
const HTTP_2: u8 = 2;

/// Where an endpoint is, and what was met there. Outlives reloads as long as host and port stay.
#[derive(Debug)]
struct Places {
    host: EndpointHost,
    port: u16,
    addresses: Arc<Addresses>,
    /// Whose turn it is. One counter for all workers: with one address it is not touched at all.
    turn: AtomicUsize,
    resting: Resting,
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
        places.resting.follow(function.health.as_ref());
        Ok(Self { places, group: peer::group(&template), template, chosen: AtomicU8::new(UNKNOWN) })
    }

    /// The addresses for one request, in the order in which it is to try them. Empty: the name does not resolve (yet).
    ///
    /// They take turns from request to request; those that rest ([`Resting`]) come last. When such a time is over, one request
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

    /// Connecting to `address` failed: it goes last for [`SHUNNED`](super::resting::SHUNNED), and longer where that goes on and `health` asks for it.
    pub fn failed(&self, address: SocketAddr, now: Now, health: Option<&Health>) {
        let all = self.places.all();
        self.places.resting.unconnected(address, now, &all);
        if let Some(health) = health {
            self.places.resting.failed(address, (now, now), health, &all);
        }
    }

    /// A connection to `address` was made: it takes its turn again, unless it rests for what came after connecting. Cheap where it did not.
    pub fn succeeded(&self, address: SocketAddr) {
        self.places.resting.connected(address);
    }

    /// An attempt, sent at `began`, came to nothing by its address's own doing.
    pub fn address_failed(&self, address: SocketAddr, began: Now, now: Now, health: &Health) {
        self.places.resting.failed(address, (began, now), health, &self.places.all());
    }

    /// An attempt, sent at `began`, was answered. Cheap where its address has not failed before.
    pub fn address_answered(&self, address: SocketAddr, began: Now, now: Now) {
        self.places.resting.answered(address, (began, now));
    }

    /// A probe of `address` is over.
    pub fn address_checked(&self, address: SocketAddr, is_well: bool, now: Now, health: &Health) {
        self.places.resting.checked(address, is_well, now, health, &self.places.all());
    }

    /// The addresses that go last for their failures.
    pub fn resting(&self) -> Vec<Rests> {
        if self.places.resting.is_empty() { Vec::new() } else { self.places.resting.told(&self.places.all()) }
    }

    /// How often an address was put last for its failures, since this was asked last.
    pub fn take_ejections(&self) -> u64 {
        self.places.resting.take_ejections()
    }

    /// All addresses, in no order of use.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.places.all()
    }

    /// The peer at `address`, every option set. One allocation for plain HTTP; with TLS a second one, for the server name.
    pub fn peer(&self, address: SocketAddr) -> Box<HttpPeer> {
        let mut peer = Box::new(self.template.clone());
        peer._address = address.into();
        peer
    }

    /// The peer for HTTP/1.1, whatever else the function speaks. Its connection is good for later requests of [`peer`](Self::peer) too.
    pub fn http1_peer(&self, address: SocketAddr) -> Box<HttpPeer> {
        let mut peer = self.peer(address);
        peer.options.alpn = ALPN::H1;
        peer
    }

    /// Whether the function is spoken to in HTTP/1.1, as far as is known; `None`: it has not been asked yet.
    pub fn speaks_http1(&self) -> Option<bool> {
        match (&self.template.options.alpn, self.chosen.load(Ordering::Relaxed)) {
            (ALPN::H1, _) | (ALPN::H2H1, HTTP_1) => Some(true),
            (ALPN::H2H1, UNKNOWN) => None,
            _ => Some(false),
        }
    }

    /// A function that may choose has chosen.
    pub fn chose(&self, http2: bool) {
        let chosen = if http2 { HTTP_2 } else { HTTP_1 };
        if self.chosen.load(Ordering::Relaxed) != chosen {
            self.chosen.store(chosen, Ordering::Relaxed);
        }
    }

    /// It may have changed its mind.
    pub fn chooses_anew(&self) {
        self.chosen.store(UNKNOWN, Ordering::Relaxed);
    }

    /// Its connections to `address`, in that turn of its pool's age.
    pub fn key(&self, address: SocketAddr, turn: u64) -> Key {
        Key { address, group: self.group ^ turn }
    }

    /// Whether both know the same of the same addresses: a config before, and one after it.
    pub fn is_at_the_place_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.places, &other.places)
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
            resting: Resting::default(),
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
        let looked = self.resting.look();
        let turns = ips[first..].iter().chain(&ips[..first]).map(|ip| SocketAddr::new(*ip, self.port));
        if looked.is_quiet() {
            return Candidates::of(turns);
        }
        // Asked once each: of an address whose time is over, only the first who asks is told so.
        let judged: Vec<_> = turns.map(|a| (a, looked.standing(&a, now))).collect();
        let ranked =
            |wanted| judged.iter().filter(move |(_, standing)| *standing == wanted).map(|(address, _)| *address);
        Candidates::of(ranked(Standing::Probe).chain(ranked(Standing::Good)).chain(ranked(Standing::Bad)))
    }

    fn all(&self) -> Vec<SocketAddr> {
        self.addresses.current().iter().map(|ip| SocketAddr::new(*ip, self.port)).collect()
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
