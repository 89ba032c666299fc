//! Tokens that a worker has found good. A token is compared whole: nothing else is as sure, and a hash of it that is as good
//! as sure costs ten times as much.

use std::{
    hash::{BuildHasher, RandomState},
    rc::Rc,
};

use twox_hash::XxHash64;

use super::token::Match;

/// So many tokens, each at the one place that its hash says; the later one stays.
const PLACES: usize = 1024;
/// Longer ones are judged each time: the cache stays below 4 MiB.
const LONGEST: usize = 4 * 1024;

/// A worker's own.
#[derive(Debug)]
pub struct TokenCache {
    seed: u64,
    /// None until the first token.
    places: Vec<Option<Entry>>,
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
        Self { seed: RandomState::new().hash_one(0u8), places: Vec::new() }
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
