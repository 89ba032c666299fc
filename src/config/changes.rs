//! What changed between two configs, in the words of the file: for receipts, the history and `gatepost diff`.
//!
//! Every table is turned into its leaves (`key`, `value`), and the leaves are compared. The structs of the model are
//! taken apart without `..`, so that a new field does not compile until it has words here.

mod egress;
mod words;

pub use words::{
    cache_key, concurrency, duration, function_keys, handling, limit_key, platform, rate, rule, size, sticky_key, url,
};

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::model::{
    Client, Config, Credential, Function, Limit, LimitKey, LimitUse, Listener, Route, SharedLimit, Version,
};
use words::{
    Leaf, Words, admin_leaves, client_leaves, cluster_leaves, credential_leaves, freeze_leaves, function_leaves, limit,
    limit_leaves, limit_use, listener_leaves, log_leaves, route_leaves, server_leaves, version_leaves,
};

/// One thing that is different now, on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// For example `function orders: v42 5 % → 10 %`. Holds no control characters.
    pub text: String,
    pub applies: Applied,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match self.applies {
            Applied::Live => Ok(()),
            Applied::NeedsRestart => f.write_str(" (waits for a restart)"),
        }
    }
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// With the reload.
    Live,
    /// Only when the process starts anew.
    NeedsRestart,
}

/// What is different in `new`, in the order of the tables of the file and then of names.
///
/// Empty when the two mean the same, for instance because only comments changed.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    // Taken apart so that a new table does not compile until it is compared here.
    let Config {
        server,
        admin,
        log,
        listeners,
        clients,
        functions,
        routes,
        limits,
        credentials,
        freeze,
        cluster,
        egress,
    } = new;
    let mut out = Changes(Vec::new());
    out.leaves("server.", server_leaves(&old.server), server_leaves(server));
    out.leaves("admin.", admin_leaves(&old.admin), admin_leaves(admin));
    out.leaves("log.", log_leaves(&old.log), log_leaves(log));
    out.tables("listener", &old.listeners, listeners, |out, subject, o, n| {
        out.leaves(subject, listener_leaves(o), listener_leaves(n));
    });
    out.tables("client", &old.clients, clients, |out, subject, o, n| {
        out.leaves(subject, client_leaves(o), client_leaves(n));
    });
    out.tables("function", &old.functions, functions, |out, subject, o, n| {
        out.weights(subject, o, n);
        out.versions(subject, (old, &o.versions), (new, &n.versions));
        out.leaves(subject, function_leaves(old, o), function_leaves(new, n));
    });
    out.tables("route", &old.routes, routes, |out, subject, o, n| {
        out.leaves(subject, route_leaves(old, o), route_leaves(new, n));
        out.route_limits(subject, (old, o), (new, n));
    });
    out.tables("limit", &old.limits, limits, |out, subject, o, n| {
        out.shared_limit(subject, &o.limit, &n.limit);
    });
    out.tables("credential", &old.credentials, credentials, |out, subject, o, n| {
        out.leaves(subject, credential_leaves(o), credential_leaves(n));
    });
    out.leaves("freeze.", freeze_leaves(&old.freeze), freeze_leaves(freeze));
    out.leaves("cluster.", cluster_leaves(old.cluster.as_ref()), cluster_leaves(cluster.as_ref()));
    out.egress((old, &old.egress), (new, egress));
    out.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn live(&mut self, text: String) {
        self.push(text, Applied::Live);
    }

    fn push(&mut self, text: String, applies: Applied) {
        let text = one_line(text);
        self.0.push(Change { text, applies });
    }

    fn leaves(&mut self, subject: &str, old: Vec<Leaf>, new: Vec<Leaf>) {
        for (old, new) in old.iter().zip(&new) {
            if let Some(text) = difference(old, new) {
                self.push(format!("{subject}{text}"), new.applies);
            }
        }
    }

    /// Tables with names: added, removed, or compared by `compare`, whose subject is `kind name: `.
    fn tables<T: Named>(&mut self, kind: &str, old: &[T], new: &[T], compare: impl Fn(&mut Self, &str, &T, &T)) {
        for (name, pair) in by_name(old, new) {
            match pair {
                (None, None) => {}
                (None, Some(_)) => self.live(format!("{kind} {name}: added")),
                (Some(_), None) => self.live(format!("{kind} {name}: removed")),
                (Some(old), Some(new)) => compare(self, &format!("{kind} {name}: "), old, new),
            }
        }
    }

    /// All weights that moved, on one line; those that rise first, for that is what was asked for.
    fn weights(&mut self, subject: &str, old: &Function, new: &Function) {
        let weight = |function: &Function, name: &str| {
            let at = function.versions.iter().position(|v| &*v.name == name);
            at.and_then(|at| function.weights.get(at).copied()).unwrap_or_default()
        };
        let mut moved: Vec<_> = by_name(&old.versions, &new.versions)
            .into_keys()
            .map(|name| (name, weight(old, name), weight(new, name)))
            .filter(|(_, old, new)| old != new)
            .collect();
        moved.sort_by_key(|(_, old, new)| old > new);
        if !moved.is_empty() {
            let words: Vec<_> = moved.iter().map(|(name, old, new)| format!("{name} {old} % → {new} %")).collect();
            self.live(format!("{subject}{}", words.join(", ")));
        }
    }

    fn versions(&mut self, subject: &str, (before, old): (&Config, &[Version]), (after, new): (&Config, &[Version])) {
        for (name, pair) in by_name(old, new) {
            match pair {
                (None, None) => {}
                (None, Some(new)) => {
                    let url = url(&new.url);
                    self.live(format!("{subject}version {name} added ({url})"));
                }
                (Some(_), None) => self.live(format!("{subject}version {name} removed")),
                (Some(old), Some(new)) => {
                    let subject = format!("{subject}version {name} ");
                    self.leaves(&subject, version_leaves(before, old), version_leaves(after, new));
                }
            }
        }
    }

    fn route_limits(
        &mut self,
        subject: &str,
        (old_config, old): (&Config, &Route),
        (new_config, new): (&Config, &Route),
    ) {
        let leaf = |config: &Config, uses: &[LimitUse]| {
            Leaf::list("limits", "none", uses.iter().map(|one| limit_use(config, one)))
        };
        let (before, after) = (leaf(old_config, &old.limits), leaf(new_config, &new.limits));
        let Some(text) = difference(&before, &after) else {
            return;
        };
        let anew: Vec<_> = counts_anew(&old.limits, &new.limits).into_iter().map(limit).collect();
        let own = new.limits.iter().any(|one| matches!(one, LimitUse::Own(_)));
        let counts = match (anew.is_empty(), own) {
            (false, _) => format!("; {} starts counting anew", anew.join(", ")),
            (true, true) => "; counts are kept".to_owned(),
            (true, false) => String::new(),
        };
        self.live(format!("{subject}{text}{counts}"));
    }

    fn shared_limit(&mut self, subject: &str, old: &Limit, new: &Limit) {
        let words: Vec<_> =
            limit_leaves(old).iter().zip(&limit_leaves(new)).filter_map(|(old, new)| difference(old, new)).collect();
        if !words.is_empty() {
            let fate = if old.per == new.per { "its counts are kept" } else { "its counts start anew" };
            self.live(format!("{subject}{}; {fate}", words.join(", ")));
        }
    }
}

/// A route's own limits in `new` that have no counts to go on with.
///
/// The nth limit with a `per` goes on with the counts of the nth old one with that `per`: neither another rate or
/// burst nor limits beside it start it anew.
pub fn counts_anew<'n>(old: &[LimitUse], new: &'n [LimitUse]) -> Vec<&'n Limit> {
    let mut left: Vec<&LimitKey> = own(old).map(|limit| &limit.per).collect();
    own(new)
        .filter(|limit| {
            let before = left.iter().position(|per| **per == limit.per);
            before.map(|at| left.swap_remove(at)).is_none()
        })
        .collect()
}

fn own(uses: &[LimitUse]) -> impl Iterator<Item = &Limit> {
    uses.iter().filter_map(|one| match one {
        LimitUse::Own(limit) => Some(limit),
        LimitUse::Shared(_) => None,
    })
}

trait Named {
    fn name(&self) -> &str;
}

macro_rules! named {
    ($($table:ty),*) => {$(
        impl Named for $table {
            fn name(&self) -> &str {
                &self.name
            }
        }
    )*};
}

named!(Listener, Client, Function, Version, Route, SharedLimit, Credential);

fn by_name<'c, T: Named>(old: &'c [T], new: &'c [T]) -> BTreeMap<&'c str, (Option<&'c T>, Option<&'c T>)> {
    let mut all: BTreeMap<&str, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for one in old {
        all.entry(one.name()).or_default().0 = Some(one);
    }
    for one in new {
        all.entry(one.name()).or_default().1 = Some(one);
    }
    all
}

/// Longer lists are told by what came and what went.
const SHOWN_WHOLE: usize = 4;
fn difference(old: &Leaf, new: &Leaf) -> Option<String> {
    if old.value == new.value {
        return None;
    }
    let key = new.key;
    if let (Words::List(before), Words::List(after)) = (&old.value, &new.value)
        && before.len().max(after.len()) > SHOWN_WHOLE
    {
        return Some(format!("{key} {}", came_and_went(before, after)));
    }
    Some(format!("{key} {} → {}", old.value, new.value))
}

fn came_and_went(old: &[String], new: &[String]) -> String {
    let missing_in = |there: &[String], list: &[String]| -> Vec<String> {
        let there: HashSet<&String> = there.iter().collect();
        list.iter().filter(|item| !there.contains(item)).cloned().collect()
    };
    let told: Vec<_> = [("added", missing_in(old, new)), ("removed", missing_in(new, old))]
        .into_iter()
        .filter(|(_, items)| !items.is_empty())
        .map(|(verb, items)| format!("{verb} {}", Words::List(items)))
        .collect();
    match told.is_empty() {
        true => "in another order or number".to_owned(),
        false => told.join(", "),
    }
}

/// Nothing that a file holds may break a line of the log.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests;
