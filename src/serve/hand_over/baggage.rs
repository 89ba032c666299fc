//! What goes along to the new process: counts, keys, tokens, addresses. Each says by name what it is of: the new process's config may be another
//! one, and what has no place there is left out. Secrets among it go over the socket pair alone.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::{
    decide::{
        Now, Snapshot,
        limit::{Debts, Seed, Told},
    },
    serve::{budgets::StoredDay, tls::HandedTickets, tokens::HandedToken},
};

/// So many keys of a limit are in one piece: some 2 MiB of text.
const KEYS: usize = 50_000;
/// All keys of all limits that go along; what is beyond begins anew in the new process.
const MOST_KEYS: usize = 4_000_000;

/// A piece of it. What a later version has more is left out, what an earlier one lacks is empty.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Piece {
    /// With what keys' hashes begin, and the mark by which it is known whether they are the same over there.
    pub seed: Option<(u64, u64, u64)>,
    pub limits: Vec<LimitDebts>,
    /// All that was counted of budgets.
    pub days: BTreeMap<String, StoredDay>,
    /// Calls and money of the day since the last piece.
    pub budgets: BTreeMap<String, StoredDay>,
    pub tickets: Vec<HandedTickets>,
    pub tokens: Vec<HandedToken>,
    /// By name.
    pub addresses: Vec<(String, Vec<IpAddr>)>,
    /// Who it is to the others of a cluster.
    pub member: Option<String>,
}

/// What the buckets of a limit owe.
#[derive(Debug, Serialize, Deserialize)]
pub struct LimitDebts {
    /// As [`Snapshot::limiters`] names it.
    name: String,
    per: String,
    interval: u64,
    /// Key and debt in ticks.
    of: Vec<(u64, u64)>,
}

/// The seed of this process, for another one.
pub fn seed() -> Option<(u64, u64, u64)> {
    let seed = Seed::own();
    Some((seed.0[0], seed.0[1], seed.mark()))
}

/// Goes on with another process's; to be called before the first key. `false`: its keys mean nothing here.
pub fn adopt_seed((one, two, mark): (u64, u64, u64)) -> bool {
    let seed = Seed([one, two]);
    seed.mark() == mark && seed.adopt()
}

/// Knows what was told already.
#[derive(Debug, Default)]
pub struct Packer {
    told: HashMap<String, Told>,
    pub budgets: BTreeMap<String, StoredDay>,
}

impl Packer {
    /// What limits have let pass since the last time.
    pub fn limits(&mut self, snapshot: &Snapshot, now: Now) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut left = MOST_KEYS;
        for (name, limiter) in snapshot.limiters() {
            let told = self.told.entry(name.clone()).or_default();
            let Debts { per, interval, mut of } = limiter.debts(now, told);
            of.truncate(left);
            left -= of.len();
            let one =
                |of: &[(u64, u64)]| LimitDebts { name: name.clone(), per: per.clone(), interval, of: of.to_vec() };
            pieces.extend(of.chunks(KEYS).map(|of| Piece { limits: vec![one(of)], ..Piece::default() }));
        }
        pieces
    }

    /// Begins anew: nobody has heard what was told.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Adds what another process's limits have let pass.
pub fn unpack_limits(limits: Vec<LimitDebts>, snapshot: &Snapshot, now: Now) {
    if limits.is_empty() {
        return;
    }
    let limiters: HashMap<String, _> = snapshot.limiters().into_iter().collect();
    for LimitDebts { name, per, interval, of } in limits {
        if let Some(limiter) = limiters.get(&name) {
            limiter.owe(&Debts { per, interval, of }, now);
        }
    }
}
