//! Weights in force: what the file says, changed by what has happened since.
//!
//! A latch over an ejection over a ramp over the file. A ramp sets the share of one version, at the baseline's cost. What a
//! version loses by an ejection or a latch goes to the baseline, or, where that one is out as well, to the others in
//! proportion. Somebody always serves: where ejections would leave nobody, they don't count, and neither do latches that
//! even so would.

use super::WeightsFrom;
use crate::config::model::{Function, Share, VersionId};

/// What has happened to a function's versions since the file was written. Nothing, by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What a ramp has got to: the version's share.
    pub ramp: Option<(VersionId, Share)>,
    /// Not healthy for now.
    pub ejected: Vec<VersionId>,
    /// Not healthy, and tried again: they get a trickle of what is theirs.
    pub tried: Vec<VersionId>,
    /// Sent back, until somebody says otherwise.
    pub latched: Vec<VersionId>,
}

/// The shares that requests are split by, one per version of the function, and whose word they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    pub shares: Vec<Share>,
    pub from: WeightsFrom,
}

impl InForce {
    /// What the file says.
    pub fn file(function: &Function) -> Self {
        Self { shares: function.weights.clone(), from: WeightsFrom::File }
    }

    /// The weights of `function` as things stand. `from` names the highest of those that changed something.
    pub fn new(function: &Function, standing: &Standing) -> Self {
        let mut all = Self::file(function);
        if let Some((version, share)) = standing.ramp {
            all.take(ramped(function, version, share), WeightsFrom::Ramp);
        }
        // Of those that have some share now: who has none serves nobody.
        let serves = |shares: &[Share], out: &[VersionId]| {
            (0..).map(VersionId).zip(shares).any(|(id, share)| share.0 > 0 && !out.contains(&id))
                || function.baseline.is_some_and(|baseline| !out.contains(&baseline))
        };
        let out: Vec<VersionId> = standing.ejected.iter().chain(&standing.tried).copied().collect();
        let both: Vec<VersionId> = out.iter().chain(&standing.latched).copied().collect();
        if !out.is_empty() && serves(&all.shares, &both) {
            let mut shares = without(function, &all.shares, &out, &both);
            for version in standing.tried.iter().filter(|version| !standing.latched.contains(version)) {
                trickle(&mut shares, &all.shares, *version);
            }
            all.take(shares, WeightsFrom::Ejection);
            all.take(without(function, &all.shares, &standing.latched, &both), WeightsFrom::Latch);
        } else if serves(&all.shares, &standing.latched) {
            all.take(without(function, &all.shares, &standing.latched, &standing.latched), WeightsFrom::Latch);
        }
        all
    }

    fn take(&mut self, shares: Vec<Share>, from: WeightsFrom) {
        if shares != self.shares {
            *self = Self { shares, from };
        }
    }
}

/// `version` has `share`; the baseline gives what it lacks, and gets what is over. What the baseline hasn't, the others give in
/// proportion.
fn ramped(function: &Function, version: VersionId, share: Share) -> Vec<Share> {
    let mut shares = function.weights.clone();
    let Some(own) = shares.get_mut(version.index()) else { return shares };
    let before = *own;
    *own = Share(share.0.min(Share::WHOLE.0));
    let after = *own;
    if after <= before {
        let given = give(function, &mut shares, before.0 - after.0, &[version]);
        return if given { shares } else { function.weights.clone() };
    }
    let mut wanted = after.0 - before.0;
    if let Some(baseline) = function.baseline.filter(|baseline| *baseline != version) {
        let has = &mut shares[baseline.index()].0;
        let part = wanted.min(*has);
        *has -= part;
        wanted -= part;
    }
    if wanted > 0 {
        let left = Share::WHOLE.0 - after.0;
        let others: Vec<usize> = (0..shares.len()).filter(|at| *at != version.index()).collect();
        scale(&mut shares, &others, left);
    }
    shares
}

/// What a version gets while it is tried again, at most: 5 %.
const TRICKLE: u16 = 500;

/// Gives `version` a trickle of what it had `before`, from who has most.
fn trickle(shares: &mut [Share], before: &[Share], version: VersionId) {
    let most = (0..shares.len()).max_by_key(|at| shares[*at]);
    let (Some(most), Some(had)) = (most, before.get(version.index())) else { return };
    let part = had.0.min(TRICKLE).min(shares[most].0);
    shares[most].0 -= part;
    shares[version.index()].0 += part;
}

/// The shares without those of `out`; nobody of `unfit` gets them.
fn without(function: &Function, shares: &[Share], out: &[VersionId], unfit: &[VersionId]) -> Vec<Share> {
    let mut shares = shares.to_vec();
    let mut freed = 0;
    for version in out {
        if let Some(share) = shares.get_mut(version.index()) {
            freed += std::mem::take(share).0;
        }
    }
    give(function, &mut shares, freed, unfit);
    shares
}

/// Hands `freed` to the baseline, or else to those that have a share, in proportion. Says whether there was somebody.
fn give(function: &Function, shares: &mut [Share], freed: u16, unfit: &[VersionId]) -> bool {
    if freed == 0 {
        return true;
    }
    if let Some(baseline) = function.baseline.filter(|baseline| !unfit.contains(baseline)) {
        shares[baseline.index()].0 += freed;
        return true;
    }
    let fit = |at: usize| u32::try_from(at).is_ok_and(|at| !unfit.contains(&VersionId(at)));
    let others: Vec<usize> = (0..shares.len()).filter(|at| fit(*at) && shares[*at].0 > 0).collect();
    let has: u16 = others.iter().map(|at| shares[*at].0).sum();
    scale(shares, &others, has + freed);
    has > 0
}

/// Makes the shares at `places` total `total`, in proportion to what they are, exactly: the largest remainders are rounded up.
fn scale(shares: &mut [Share], places: &[usize], total: u16) {
    let has: u64 = places.iter().map(|at| u64::from(shares[*at].0)).sum();
    if has == 0 {
        return;
    }
    let mut left = total;
    let mut remainders: Vec<(u64, usize)> = Vec::with_capacity(places.len());
    for at in places {
        let exact = u64::from(shares[*at].0) * u64::from(total);
        // At most `total`, since the share is a part of `has`.
        let whole = u16::try_from(exact / has).unwrap_or(total);
        shares[*at] = Share(whole);
        left -= whole;
        remainders.push((exact % has, *at));
    }
    remainders.sort_by_key(|(remainder, at)| (std::cmp::Reverse(*remainder), *at));
    for (_, at) in remainders.iter().cycle().take(usize::from(left)) {
        shares[*at].0 += 1;
    }
}
