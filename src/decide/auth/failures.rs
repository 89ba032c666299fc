//! How often an address may fail to say who it is.
//!
//! An address that is over its limit is refused before any check, whatever it shows. Behind one address (a NAT, a company's
//! proxy) others may call as well, and one script with an old key must not keep them out. So what was accepted from an
//! address passes on to its check from there, even then: for a while, and only if it is so long that nobody guesses it.
//! That opens no way to guess: a guess has never been accepted before, unless it is right, and of 22 characters or more
//! a right one doesn't come up. Shorter secrets are refused with the rest.

use std::{
    hash::BuildHasher,
    hash::RandomState,
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::HeaderMap;
use twox_hash::XxHash64;

use crate::{
    config::model::Limit,
    decide::{
        Now,
        limit::{Ask, KeyFacts, KeyHash, Limiter, Refused, take_all},
    },
};

/// 22 characters of base64 are 128 bits.
pub(super) const GUESSABLE_BELOW: usize = 22;
/// How long an accepted credential is remembered since it was last accepted, at least; at most a quarter more.
const REMEMBERED_MINUTES: u64 = 60;
const PLACES: usize = 1 << 13;
/// A place holds 44 bits of the hash (13 more are its number) and the minute.
const MINUTE_BITS: u32 = 20;

/// Spreads addresses over seeds: no two have the same, since it is odd.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Random numbers of this process: nobody outside knows what falls into one place.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0u8));

#[derive(Debug)]
pub(super) struct Failures {
    limiter: Arc<Limiter>,
    state: Arc<State>,
    /// In which an empty bucket fills.
    fill: u64,
}

#[derive(Debug)]
struct State {
    /// Until then some bucket may not be full: before the first failure, and long after the last, nobody looks.
    hot_until: AtomicU64,
    accepted: Box<[AtomicU64]>,
}

/// A credential from an address, so that it is known again without being kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark(u64);

impl Mark {
    /// `None`: it could be guessed.
    pub(super) fn of(kind: u8, credential: &[u8], ip: IpAddr) -> Option<Self> {
        if credential.len() < GUESSABLE_BELOW {
            return None;
        }
        let seed = *SEED;
        let address = match ip.to_canonical() {
            IpAddr::V4(ip) => u64::from(u32::from(ip)) | 1 << 40,
            // The same /64 that is counted by.
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        // Each address has a seed of its own, which nobody knows outside.
        let seed = seed.wrapping_add(address.wrapping_mul(ODD)) ^ u64::from(kind);
        Some(Self(XxHash64::oneshot(seed, credential)))
    }

    fn place(self) -> usize {
        self.0 as usize % PLACES
    }

    fn word(self, minute: u64) -> u64 {
        self.0 >> MINUTE_BITS << MINUTE_BITS | minute
    }
}

fn minute(now: Now) -> u64 {
    // The first minute is not 0, so that an empty place is none of them.
    (now.0 / 60_000_000_000 + 1) & ((1 << MINUTE_BITS) - 1)
}

impl Failures {
    pub(super) fn new(limit: &Limit, previous: Option<&Self>, now: Now) -> Self {
        let label = "auth_failures";
        let limiter = match previous {
            Some(old) => Limiter::carried(limit, label.into(), &old.limiter, now),
            None => Arc::new(Limiter::new(limit, label.into())),
        };
        let fill = limit.rate.period.as_nanos() * u128::from(limit.burst.get()) / u128::from(limit.rate.count.get());
        let fill = u64::try_from(fill).unwrap_or(u64::MAX);
        let state = previous.map_or_else(
            || {
                let accepted = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
                Arc::new(State { hot_until: AtomicU64::new(0), accepted })
            },
            |old| Arc::clone(&old.state),
        );
        if previous.is_some() && state.hot_until.load(Relaxed) > now.0 {
            // By another rate the same debt may take longer.
            state.hot_until.fetch_max(now.0.saturating_add(fill), Relaxed);
        }
        Self { limiter, state, fill }
    }

    /// Whether an address must wait before it shows something again.
    pub(super) fn look(&self, ip: IpAddr, headers: &HeaderMap, now: Now) -> Result<(), Refused> {
        if now.0 >= self.state.hot_until.load(Relaxed) {
            return Ok(());
        }
        self.limiter.peek(self.key(ip, headers), now)
    }

    /// It failed.
    ///
    /// # Errors
    ///
    /// Others of its address did so meanwhile, and it must wait: nothing is said of what it showed.
    pub(super) fn count(&self, ip: IpAddr, headers: &HeaderMap, now: Now) -> Result<(), Refused> {
        self.state.hot_until.fetch_max(now.0.saturating_add(self.fill), Relaxed);
        take_all(&[Ask { limiter: &self.limiter, key: self.key(ip, headers) }], now)
    }

    fn key(&self, ip: IpAddr, headers: &HeaderMap) -> KeyHash {
        self.limiter.key(&KeyFacts { client_ip: ip, client: None, headers, query: None })
    }

    pub(super) fn remember(&self, mark: Mark, now: Now) {
        let place = &self.state.accepted[mark.place()];
        let minute = minute(now);
        let old = place.load(Relaxed);
        // Written seldom: every worker reads here.
        let age = minute.wrapping_sub(old & ((1 << MINUTE_BITS) - 1));
        if old >> MINUTE_BITS != mark.0 >> MINUTE_BITS || age > REMEMBERED_MINUTES / 4 {
            place.store(mark.word(minute), Relaxed);
        }
    }

    pub(super) fn remembers(&self, mark: Mark, now: Now) -> bool {
        let word = self.state.accepted[mark.place()].load(Relaxed);
        let age = minute(now).wrapping_sub(word & ((1 << MINUTE_BITS) - 1));
        word >> MINUTE_BITS == mark.0 >> MINUTE_BITS && age <= REMEMBERED_MINUTES + REMEMBERED_MINUTES / 4
    }
}
