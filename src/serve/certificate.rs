//! A listener's certificates while they are served: out of files, or out of a slot that ACME fills.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::acme::Slot;
use crate::config::model::Name;

/// A certificate that can be served, and what is asked about it.
#[derive(Debug)]
pub struct Held {
    pub key: Arc<CertifiedKey>,
    /// The DNS names that it is for, lower case.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

impl Held {
    /// `None`: it is no certificate that anybody could read.
    pub fn read(key: Arc<CertifiedKey>) -> Option<Self> {
        let leaf = key.cert.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let (not_before, not_after) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let names = webpki::EndEntityCert::try_from(leaf).ok()?;
        let names = names.valid_dns_names().map(str::to_ascii_lowercase).collect();
        Some(Self { key, names, not_before, not_after })
    }

    /// One that a config names: it serves callers who are given no choice, whatever can be read of it.
    pub fn of_files(key: &Arc<CertifiedKey>) -> Self {
        let unreadable = || Self { key: key.clone(), names: Vec::new(), not_before: i64::MIN, not_after: i64::MAX };
        Self::read(key.clone()).unwrap_or_else(unreadable)
    }

    /// Whether it is for `name`, which is in lower case (RFC 9525 §6.3).
    pub fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|own| own == name || own.strip_prefix("*.").is_some_and(|own| Some(own) == parent))
    }

    /// What is to be said of its end, if that is near: in the last quarter of its life, and the last two weeks.
    pub fn end(&self, now: i64) -> Option<Ending> {
        const SOON: i64 = 14 * 86_400;
        let near = (self.not_after.saturating_sub(self.not_before) / 4).min(SOON);
        let left = self.not_after.saturating_sub(now);
        (left < near).then(|| Ending { at: Timestamp::from_second(self.not_after).ok(), is_over: left < 0 })
    }
}

/// `expires on 2026-11-22T19:00:00Z`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    at: Option<Timestamp>,
    pub is_over: bool,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_over { "expired" } else { "expires" })?;
        self.at.map_or(Ok(()), |at| write!(f, " on {at}"))
    }
}

/// Where a certificate comes from.
#[derive(Debug, Clone)]
pub enum Source {
    Files(Arc<Held>),
    Acme(Arc<Slot>),
}

impl Source {
    pub fn held(&self) -> Option<Arc<Held>> {
        match self {
            Self::Files(held) => Some(held.clone()),
            Self::Acme(slot) => slot.held(),
        }
    }

    /// The names that callers may ask for it by.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Files(held) => held.names.clone(),
            Self::Acme(slot) => slot.domains().to_vec(),
        }
    }
}

/// A certificate of a listener, as it is told of.
#[derive(Debug, Clone)]
pub struct Served {
    pub listener: Name,
    pub source: Source,
}

impl Served {
    /// Its first name.
    pub fn name(&self) -> String {
        self.source.names().into_iter().next().unwrap_or_default()
    }

    /// Seconds since 1970; `None`: there is none yet, or nobody can read its dates.
    pub fn not_after(&self) -> Option<i64> {
        self.source.held().map(|held| held.not_after).filter(|at| *at != i64::MAX)
    }

    /// What somebody should see to.
    pub fn problem(&self, now: i64) -> Option<String> {
        let end = self.source.held().and_then(|held| held.end(now)).map(|end| end.to_string());
        let acme = match &self.source {
            Source::Files(_) => None,
            Source::Acme(slot) => slot.problem(),
        };
        match (end, acme) {
            (Some(end), Some(acme)) => Some(format!("{end}; {acme}")),
            (end, acme) => end.or(acme),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::ring;
    use rustls_pki_types::PrivateKeyDer;

    use super::*;

    fn held(names: &[&str], days: i64) -> Held {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 1) + std::time::Duration::from_secs(days as u64 * 86_400);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().der().clone();
        let key = ring::sign::any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
        Held::read(Arc::new(CertifiedKey::new(vec![cert], key))).unwrap()
    }

    #[test]
    fn its_end_is_told_of_in_the_last_two_weeks_or_the_last_quarter() {
        for (days, told) in [(365, 14), (90, 14), (40, 10), (4, 1)] {
            let held = held(&["a.test"], days);
            let left = |days: i64| held.end(held.not_after - days * 86_400 - 1);
            assert_eq!(left(told), None, "{days}");
            assert!(!left(told - 1).unwrap().is_over, "{days}");
        }
        let held = held(&["a.test"], 30);
        assert_eq!(held.end(held.not_after - 60).unwrap().to_string(), "expires on 2026-01-31T00:00:00Z");
        assert_eq!(held.end(held.not_after + 1).unwrap().to_string(), "expired on 2026-01-31T00:00:00Z");
    }

    #[test]
    fn a_wildcard_is_for_one_label() {
        let held = held(&["*.Many.test", "one.test"], 1);
        for (name, is_for) in [
            ("a.many.test", true),
            ("one.test", true),
            ("many.test", false),
            ("a.b.many.test", false),
            ("a.one.test", false),
        ] {
            assert_eq!(held.is_for(name), is_for, "{name}");
        }
    }
}
