//! Which version of its function a request goes to: pin, override, the weights in force ([`standing`]) by sticky or dealing, in
//! this order.
//!
//! In: the facts of a request and a worker's number. Out: a [`Pick`]. The weights are dealt out exactly (`deal`), not
//! by dice; with `sticky`, callers are placed by a hash that anyone can compute ([`sticky`]).

mod deal;
mod standing;
pub mod sticky;

#[cfg(test)]
mod standing_tests;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::HeaderMap;

use super::{PickedBy, WeightsFrom, cookie};
use crate::config::model::{ClientId, Function, Override, OverrideBy, VersionId};

use deal::Dealer;
use sticky::Buckets;

pub use standing::{InForce, Standing};
pub use sticky::{Placed, StickyId, bucket};

/// What chooses the version of one function's requests.
#[derive(Debug)]
pub struct Split {
    overrides: Vec<Override>,
    in_force: InForce,
    dealer: Dealer,
    sticky: Option<Buckets>,
}

/// What the choice may look at.
#[derive(Clone, Copy)]
pub struct PickFacts<'r> {
    /// The route's `version`.
    pub pin: Option<VersionId>,
    /// The caller's address, as [`client::address`](super::client::address) found it.
    pub client_ip: IpAddr,
    pub client: Option<ClientId>,
    pub headers: &'r HeaderMap,
    /// The worker that asks, from 0. Only it may ask under this number: each deals from a place of its own.
    pub worker: usize,
    /// Thrown only when a sticky cookie is issued; its 128 bits should be hard to guess.
    pub dice: &'r dyn Fn() -> u128,
}

/// The version that a request goes to, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    pub version: VersionId,
    pub picked_by: PickedBy,
    pub weights_from: WeightsFrom,
    /// The caller had no sticky key: hand it this one with the answer ([`StickyId::set_cookie`]).
    pub issue_cookie: Option<StickyId>,
}

impl Split {
    /// Compiles the function's releases for `workers` workers.
    ///
    /// `previous` is the split of the same function in the config before: while the versions that take traffic and
    /// their weights are the same, dealing goes on where it was.
    pub fn new(function: &Function, workers: usize, previous: Option<&Self>) -> Self {
        Self::by(function, InForce::file(function), workers, previous)
    }

    /// The same, as things stand: `in_force` are the weights.
    pub fn by(function: &Function, in_force: InForce, workers: usize, previous: Option<&Self>) -> Self {
        let shares = &in_force.shares;
        Self {
            overrides: function.overrides.clone(),
            dealer: Dealer::new(function, shares, workers, previous.map(|p| &p.dealer)),
            sticky: function.sticky.as_ref().map(|sticky| Buckets::new(function, shares, sticky)),
            in_force,
        }
    }

    /// The weights that it goes by.
    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// Chooses the version; `None` where none has weight ([`Reason::NoVersion`](super::Reason::NoVersion)) and neither
    /// pin nor override names one.
    ///
    /// A caller with no sticky key at all (and no `issue_cookie`) is dealt like one of a function without `sticky`.
    pub fn pick(&self, facts: &PickFacts) -> Option<Pick> {
        let weights_from = self.in_force.from;
        let pick = |version, picked_by| Some(Pick { version, picked_by, weights_from, issue_cookie: None });
        if let Some(version) = facts.pin {
            return pick(version, PickedBy::Pin);
        }
        if let Some(version) = self.overridden(facts) {
            return pick(version, PickedBy::Override);
        }
        let Some(sticky) = &self.sticky else {
            return pick(self.dealer.deal(facts.worker)?, PickedBy::Weight);
        };
        if let Some(placed) = sticky.place(facts) {
            return pick(sticky.version(placed.bucket)?, PickedBy::Sticky);
        }
        if sticky.issue_cookie() {
            let id = StickyId((facts.dice)());
            let version = sticky.version(sticky.bucket_of_id(id))?;
            return Some(Pick { issue_cookie: Some(id), ..pick(version, PickedBy::Sticky)? });
        }
        pick(self.dealer.deal(facts.worker)?, PickedBy::Weight)
    }

    /// The bucket of a sticky caller and the key that decided, for `explain`; `None` without `sticky` or without a key.
    pub fn placed(&self, facts: &PickFacts) -> Option<Placed<'_>> {
        self.sticky.as_ref()?.place(facts)
    }

    fn overridden(&self, facts: &PickFacts) -> Option<VersionId> {
        self.overrides
            .iter()
            .find(|o| o.from.as_ref().is_none_or(|nets| nets.contains(facts.client_ip)) && reaches(&o.by, facts))
            .map(|o| o.version)
    }
}

/// Whether an override is for this caller. A header that came several times counts with each of its values, a cookie
/// with its first.
fn reaches(by: &OverrideBy, facts: &PickFacts) -> bool {
    match by {
        OverrideBy::Header(name, None) => facts.headers.contains_key(name),
        OverrideBy::Header(name, Some(value)) => {
            facts.headers.get_all(name).iter().any(|v| v.as_bytes() == value.as_bytes())
        }
        OverrideBy::Cookie(name, value) => {
            cookie::value(facts.headers, name).is_some_and(|v| value.as_ref().is_none_or(|wanted| v == wanted))
        }
        OverrideBy::Networks(nets) => nets.contains(facts.client_ip),
        OverrideBy::Client(client) => facts.client == Some(*client),
    }
}
