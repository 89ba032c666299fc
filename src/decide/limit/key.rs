//! What a limit counts by: a request's key, hashed.

use std::{
    hash::{BuildHasher, DefaultHasher, Hasher, RandomState},
    net::IpAddr,
    sync::OnceLock,
};

use http::HeaderMap;
use twox_hash::XxHash64;

use super::{KeyHash, Limiter};
use crate::{config::model::LimitKey, decide::cookie};

/// Begun with random numbers, so that nobody outside can make keys collide; the same for all limiters, so that buckets can be carried from one
/// to another, and into another process.
static HASHER: OnceLock<(Seed, DefaultHasher)> = OnceLock::new();

/// What keys' hashes begin with. Whoever knows it can make keys collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u64; 2]);

impl Seed {
    /// This process's.
    pub fn own() -> Self {
        hasher().0
    }

    /// Goes on with another process's. `false`: keys have been hashed already, by another one.
    pub fn adopt(self) -> bool {
        HASHER.get_or_init(|| begun(self)).0 == self
    }

    /// The same in each process whose hashes are the same: std may change its function with any release of Rust.
    pub fn mark(self) -> u64 {
        let mut hasher = begun(self).1;
        hasher.write(b"gatepost");
        hasher.finish()
    }
}

fn hasher() -> &'static (Seed, DefaultHasher) {
    HASHER.get_or_init(|| begun(Seed([RandomState::new().hash_one(0), RandomState::new().hash_one(1)])))
}

fn begun(seed: Seed) -> (Seed, DefaultHasher) {
    let mut hasher = DefaultHasher::new();
    seed.0.iter().for_each(|half| hasher.write_u64(*half));
    (seed, hasher)
}

/// What a key may be made of.
#[derive(Debug, Clone, Copy)]
pub struct KeyFacts<'r> {
    pub client_ip: IpAddr,
    /// The client's name: unlike its id, it means the same after a reload.
    pub client: Option<&'r str>,
    pub headers: &'r HeaderMap,
    /// As it came, without the question mark.
    pub query: Option<&'r str>,
}

/// What a hash is of comes first in it, so that a header's value never counts as the address that it looks like.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    V4,
    V6,
    Client,
    Header,
    Cookie,
    Query,
}

impl Limiter {
    /// The bucket by which this limiter counts a request.
    ///
    /// Of a header, a cookie or a query parameter that came several times, the first counts; query names and values are
    /// percent-decoded (RFC 3986 §2.1). A key that is missing or empty counts by the caller's address.
    pub fn key(&self, facts: &KeyFacts) -> KeyHash {
        let salt = self.shared.as_ref().and_then(|shared| shared.salt());
        let key = match &self.limit.per {
            // Its one bucket needs no key: see `Buckets::One`.
            LimitKey::Route => return KeyHash::ANY,
            LimitKey::ClientIp => None,
            LimitKey::Client => facts.client.and_then(|name| present(salt, Kind::Client, name.bytes())),
            LimitKey::Header(name) => {
                facts.headers.get(name).and_then(|v| present(salt, Kind::Header, v.as_bytes().iter().copied()))
            }
            LimitKey::Cookie(name) => {
                cookie::value(facts.headers, name).and_then(|v| present(salt, Kind::Cookie, v.bytes()))
            }
            LimitKey::Query(name) => {
                facts.query.and_then(|query| parameter(query, name)).and_then(|v| present(salt, Kind::Query, v))
            }
        };
        key.unwrap_or_else(|| by_address(salt, facts.client_ip))
    }
}

/// IPv4 whole, IPv6 by /64: what one subscriber is given at least (RFC 6177).
fn by_address(salt: Option<u64>, ip: IpAddr) -> KeyHash {
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash(salt, Kind::V4, ip.octets()),
        IpAddr::V6(ip) => hash(salt, Kind::V6, ip.octets().into_iter().take(8)),
    }
}

fn present(salt: Option<u64>, kind: Kind, value: impl Iterator<Item = u8>) -> Option<KeyHash> {
    let mut value = value.peekable();
    value.peek()?;
    Some(hash(salt, kind, value))
}

fn hash(salt: Option<u64>, kind: Kind, value: impl IntoIterator<Item = u8>) -> KeyHash {
    match salt {
        None => hash_by(hasher().1.clone(), kind, value),
        // The same on all members, whose secret the salt is.
        Some(salt) => hash_by(XxHash64::with_seed(salt), kind, value),
    }
}

fn hash_by(mut hasher: impl Hasher, kind: Kind, value: impl IntoIterator<Item = u8>) -> KeyHash {
    hasher.write_u8(kind as u8);
    for byte in value {
        hasher.write_u8(byte);
    }
    KeyHash::new(hasher.finish())
}

/// The percent-decoded value of the query's first parameter of this name.
pub fn parameter<'q>(query: &'q str, name: &str) -> Option<impl Iterator<Item = u8> + use<'q>> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(n, _)| Decoded(n.as_bytes()).eq(name.bytes()))
        .map(|(_, v)| Decoded(v.as_bytes()))
}

/// Percent-decodes as it goes. What is no escape stands for itself.
struct Decoded<'q>(&'q [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let digit = |b: u8| (b as char).to_digit(16);
        if let [b'%', high, low, rest @ ..] = self.0
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            self.0 = rest;
            return Some((high * 16 + low) as u8);
        }
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}
