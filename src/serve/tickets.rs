//! TLS tickets (RFC 5077, RFC 8446 §4.6.1) with keys that can be handed to another process, so that callers who know the old one come back
//! to the new one. rustls's own ticketer does the same with keys that nobody can have.
//!
//! A ticket is its key's name, a nonce, and the session sealed by AES-256-GCM. Keys are changed every six hours; the one before still
//! opens, so that a ticket is good for six to twelve hours.

use std::{
    fmt,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

use crate::observe::clock;

/// How long a key seals, and then only opens, in seconds.
const LIFE: u64 = 6 * 3600;
const NAME_LEN: usize = 16;
/// Each more would be a key that a caller could make us try.
const MOST: usize = 2;
/// AES-GCM with random nonces of 96 bits is good for 2^32 messages (NIST SP 800-38D §8.3); long before that the key is changed.
const MOST_SEALED: u64 = 1 << 31;

/// A key as it goes along. Never written anywhere.
#[derive(Clone, Serialize, Deserialize)]
pub struct HandedKey {
    name: [u8; NAME_LEN],
    key: [u8; 32],
    /// By the boot's clock, in seconds.
    made_at: u64,
}

impl fmt::Debug for HandedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedKey").field("made_at", &self.made_at).finish_non_exhaustive()
    }
}

struct Key {
    handed: HandedKey,
    sealing: LessSafeKey,
    sealed: AtomicU64,
}

impl Key {
    fn new(handed: HandedKey) -> Option<Self> {
        let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &handed.key).ok()?);
        Some(Self { handed, sealing, sealed: AtomicU64::new(0) })
    }

    fn fresh(random: &SystemRandom, now: u64) -> Option<Self> {
        let (mut name, mut key) = ([0; NAME_LEN], [0; 32]);
        random.fill(&mut name).ok()?;
        random.fill(&mut key).ok()?;
        Self::new(HandedKey { name, key, made_at: now })
    }

    fn is_spent(&self, now: u64) -> bool {
        now.saturating_sub(self.handed.made_at) >= LIFE || self.sealed.load(Relaxed) >= MOST_SEALED
    }
}

/// The tickets of one listener.
pub struct Ticketer {
    random: SystemRandom,
    /// The newest first.
    keys: RwLock<Vec<Arc<Key>>>,
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").finish_non_exhaustive()
    }
}

fn now() -> u64 {
    clock::now().0 / 1_000_000_000
}

impl Ticketer {
    /// # Errors
    ///
    /// The system gives no randomness.
    pub fn new() -> Result<Arc<Self>, rustls::Error> {
        let random = SystemRandom::new();
        let first = Key::fresh(&random, now()).ok_or(rustls::Error::FailedToGetRandomBytes)?;
        Ok(Arc::new(Self { random, keys: RwLock::new(vec![Arc::new(first)]) }))
    }

    /// For another process.
    pub fn handed(&self) -> Vec<HandedKey> {
        self.keys.read().map(|keys| keys.iter().map(|key| key.handed.clone()).collect()).unwrap_or_default()
    }

    /// Goes on with the keys of another process, so that both open each other's tickets.
    pub fn adopt(&self, handed: Vec<HandedKey>) {
        let adopted: Vec<_> = handed.into_iter().take(MOST).filter_map(Key::new).map(Arc::new).collect();
        if !adopted.is_empty()
            && let Ok(mut keys) = self.keys.write()
        {
            *keys = adopted;
        }
    }

    /// The key to seal with.
    fn present(&self, now: u64) -> Option<Arc<Key>> {
        let newest = self.keys.read().ok()?.first().cloned()?;
        if !newest.is_spent(now) {
            return Some(newest);
        }
        // Handshakes alone come here, once in six hours.
        let fresh = Arc::new(Key::fresh(&self.random, now)?);
        let mut keys = self.keys.write().ok()?;
        if let Some(newest) = keys.first().filter(|newest| !newest.is_spent(now)) {
            return Some(newest.clone());
        }
        keys.insert(0, fresh.clone());
        keys.truncate(MOST);
        Some(fresh)
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = self.present(now)?;
        key.sealed.fetch_add(1, Relaxed);
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&key.handed.name);
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let about = Aad::from(key.handed.name);
        key.sealing.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), about, &mut sealed).ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.read().ok()?.iter().find(|key| key.handed.name == *name).cloned()?;
        if now.saturating_sub(key.handed.made_at) >= 2 * LIFE {
            return None;
        }
        let mut plain = sealed.to_vec();
        let about = Aad::from(*name);
        let length = key.sealing.open_in_place(Nonce::assume_unique_for_key(*nonce), about, &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // What each is good for at least.
        u32::try_from(LIFE).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_for_six_hours_at_least_and_twelve_at_most() {
        let tickets = Ticketer::new().unwrap();
        let start = now();
        let ticket = tickets.seal(b"session", start).unwrap();
        assert_eq!(tickets.open(&ticket, start).unwrap(), b"session");
        // Another key seals by then, and this one still opens.
        let later = tickets.seal(b"other", start + LIFE).unwrap();
        assert_ne!(ticket[..NAME_LEN], later[..NAME_LEN]);
        assert_eq!(tickets.open(&ticket, start + LIFE).unwrap(), b"session");
        assert_eq!(tickets.open(&ticket, start + 2 * LIFE), None);
        tickets.seal(b"third", start + 2 * LIFE).unwrap();
        assert_eq!(tickets.handed().len(), MOST);
        assert_eq!(tickets.open(&ticket, start + LIFE), None, "its key is gone");
    }

    #[test]
    fn only_what_was_sealed_is_opened() {
        let (tickets, others) = (Ticketer::new().unwrap(), Ticketer::new().unwrap());
        let ticket = tickets.seal(b"session", now()).unwrap();
        assert_eq!(others.open(&ticket, now()), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.open(&changed, now()), None, "byte {at}");
            assert_eq!(tickets.open(&ticket[..at], now()), None, "{at} bytes");
        }
        assert_ne!(ticket, tickets.seal(b"session", now()).unwrap());
    }

    #[test]
    fn another_process_opens_what_this_one_sealed_and_the_other_way_round() {
        let (old, new) = (Ticketer::new().unwrap(), Ticketer::new().unwrap());
        let ticket = old.seal(b"session", now()).unwrap();
        new.adopt(serde_json::from_str(&serde_json::to_string(&old.handed()).unwrap()).unwrap());
        assert_eq!(new.open(&ticket, now()).unwrap(), b"session");
        assert_eq!(old.open(&new.seal(b"back", now()).unwrap(), now()).unwrap(), b"back");
        // Nothing to adopt: its own stay.
        new.adopt(Vec::new());
        assert_eq!(new.open(&ticket, now()).unwrap(), b"session");
        assert!(!format!("{:?}", old.handed()).contains("key:"));
    }
}
