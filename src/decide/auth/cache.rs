//! Tokens that a worker has found good, and digests of keys that it has. Both are compared whole: nothing else is as sure, and a hash that is as good
//! as sure costs ten times as much.

use std::{
    hash::{BuildHasher, RandomState},
    rc::Rc,
};

use subtle::ConstantTimeEq;
use twox_hash::XxHash64;

use super::token::Match;
use crate::config::Digest32;

/// So many tokens, each at the one place that its hash says; the later one stays.
const PLACES: usize = 1024;
/// Longer ones are judged each time: the cache stays below 4 MiB.
const LONGEST: usize = 4 * 1024;
/// The same of keys, which are shorter.
const KEYS: usize = 256;
const LONGEST_KEY: usize = 256;

/// A worker's own.
#[derive(Debug)]
pub struct TokenCache {
    seed: u64,
    /// None until the first token.
    places: Vec<Option<Entry>>,
    /// The same of keys. A digest is one whatever the config says.
    keys: Vec<Option<(Box<[u8]>, Digest32)>>,
}

#[derive(Debug)]
struct Entry {
    token: Box<[u8]>,
    stamp: Stamp,
    found: Found,
}

/// What a token was judged by: of another config, or with other keys, it is judged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) callers: u64,
    pub(super) issuer: usize,
    pub(super) keys: u64,
}

/// The clients that a token is for.
pub(super) type Found = Rc<[Match]>;

impl Default for TokenCache {
    fn default() -> Self {
        Self { seed: RandomState::new().hash_one(0u8), places: Vec::new(), keys: Vec::new() }
    }
}

impl TokenCache {
    /// `holds`: whether what it was judged by is still so.
    pub(super) fn find(&self, token: &[u8], holds: impl Fn(Stamp) -> bool) -> Option<Found> {
        if self.places.is_empty() {
            return None;
        }
        let entry = self.places[self.place(token)].as_ref()?;
        // Not in constant time: which token stands here nobody can choose who doesn't know the seed.
        (*entry.token == *token && holds(entry.stamp)).then(|| entry.found.clone())
    }

    pub(super) fn keep(&mut self, token: &[u8], stamp: Stamp, found: Found) {
        if token.len() > LONGEST {
            return;
        }
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let place = self.place(token);
        self.places[place] = Some(Entry { token: token.into(), stamp, found });
    }

    /// A key's digest, where it is known here.
    pub(super) fn digest(&self, key: &[u8]) -> Option<Digest32> {
        if self.keys.is_empty() {
            return None;
        }
        let (known, digest) = self.keys[self.place(key) % KEYS].as_ref()?;
        bool::from(known.ct_eq(key)).then_some(*digest)
    }

    /// Keeps the digest of a key that is somebody's.
    pub(super) fn keep_digest(&mut self, key: &[u8], digest: Digest32) {
        if key.len() > LONGEST_KEY {
            return;
        }
        if self.keys.is_empty() {
            self.keys.resize_with(KEYS, || None);
        }
        let place = self.place(key) % KEYS;
        self.keys[place] = Some((key.into(), digest));
    }

    fn place(&self, token: &[u8]) -> usize {
        XxHash64::oneshot(self.seed, token) as usize % PLACES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { callers: 1, issuer: 0, keys: 7 };

    #[test]
    fn a_token_is_found_as_long_as_what_it_was_judged_by_holds() {
        let mut cache = TokenCache::default();
        assert!(cache.find(b"a.b.c", |_| true).is_none());
        cache.keep(b"a.b.c", STAMP, Rc::new([]));
        assert!(cache.find(b"a.b.c", |stamp| stamp == STAMP).is_some());
        assert!(cache.find(b"a.b.c", |_| false).is_none());
        assert!(cache.find(b"a.b.d", |_| true).is_none());
    }

    #[test]
    fn a_digest_is_that_of_its_key_alone() {
        let mut cache = TokenCache::default();
        assert!(cache.digest(b"key").is_none());
        cache.keep_digest(b"key", Digest32::of(b"key"));
        assert_eq!(cache.digest(b"key"), Some(Digest32::of(b"key")));
        for other in [&b"kez"[..], b"ke", b"key ", b""] {
            assert!(cache.digest(other).is_none());
        }
        for n in 0..5 * KEYS {
            let key = n.to_string();
            cache.keep_digest(key.as_bytes(), Digest32::of(key.as_bytes()));
            assert_eq!(cache.digest(key.as_bytes()), Some(Digest32::of(key.as_bytes())));
        }
        assert_eq!(cache.keys.len(), KEYS);
        cache.keep_digest(&[b'x'; LONGEST_KEY + 1], Digest32::of(b"x"));
        assert!(cache.digest(&[b'x'; LONGEST_KEY + 1]).is_none());
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut cache = TokenCache::default();
        for n in 0..5 * PLACES {
            cache.keep(n.to_string().as_bytes(), STAMP, Rc::new([]));
        }
        assert_eq!(cache.places.len(), PLACES);
        assert!(cache.find((5 * PLACES - 1).to_string().as_bytes(), |_| true).is_some());
        cache.keep(&[b'x'; LONGEST + 1], STAMP, Rc::new([]));
        assert!(cache.find(&[b'x'; LONGEST + 1], |_| true).is_none());
    }
}
