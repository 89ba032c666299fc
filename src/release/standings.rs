//! How things stand, by names: a reload renumbers versions, and what has happened to them goes on meaning the same ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    config::model::{Function, Name, Share, VersionId},
    decide::split::{InForce, Standing},
};

/// How the versions of all functions stand. What is said of a function or version that no config names has no effect, until one does.
#[derive(Debug, Default)]
pub struct Standings(HashMap<Name, Named>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    ramp: Option<(Name, Share)>,
    ejected: BTreeSet<Name>,
    tried: BTreeSet<Name>,
    latched: BTreeSet<Name>,
}

impl Standings {
    /// The share that the function's ramp has got to, and whose; `None`: no ramp has a say.
    pub fn ramp(&mut self, function: &Name, to: Option<(Name, Share)>) {
        self.of_name(function, |named| named.ramp = to);
    }

    /// The versions of the function that are ejected now, and those that are tried again, instead of those before.
    pub fn eject(&mut self, function: &Name, versions: BTreeSet<Name>, tried: BTreeSet<Name>) {
        self.of_name(function, |named| (named.ejected, named.tried) = (versions, tried));
    }

    /// The versions of the function that are latched now, instead of those before.
    pub fn latch(&mut self, function: &Name, versions: BTreeSet<Name>) {
        self.of_name(function, |named| named.latched = versions);
    }

    fn of_name(&mut self, function: &Name, change: impl FnOnce(&mut Named)) {
        let named = self.0.entry(function.clone()).or_default();
        change(named);
        if *named == Named::default() {
            self.0.remove(function);
        }
    }

    /// How the function's versions stand, by their numbers in this config.
    pub fn standing(&self, function: &Function) -> Standing {
        let Some(named) = self.0.get(&function.name) else { return Standing::default() };
        let ids: BTreeMap<&Name, VersionId> =
            function.versions.iter().map(|v| &v.name).zip((0..).map(VersionId)).collect();
        let known = |names: &BTreeSet<Name>| names.iter().filter_map(|name| ids.get(name).copied()).collect();
        Standing {
            ramp: named.ramp.as_ref().and_then(|(name, share)| Some((*ids.get(name)?, *share))),
            ejected: known(&named.ejected),
            tried: known(&named.tried),
            latched: known(&named.latched),
        }
    }

    /// The function's weights in force.
    pub fn in_force(&self, function: &Function) -> InForce {
        match self.0.is_empty() {
            true => InForce::file(function),
            false => InForce::new(function, &self.standing(function)),
        }
    }
}
