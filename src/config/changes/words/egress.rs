//! `[egress]` and its tables as leaves.

use super::{Leaf, bytes, duration, listener_leaves, name_at, quoted, rate};
use crate::config::{
    Config,
    model::{
        Egress, EgressLimits, EgressMode, EgressRule, EgressTimeouts, Endpoint, Limit, Listener, MixedAnswers,
        OnRevoke, Parent, ResolvedBy, Resolver, Source, SourceCheck, TlsName,
    },
};

pub(in crate::config::changes) fn egress_leaves(egress: &Egress) -> Vec<Leaf> {
    let Egress { mode, deny_message, on_revoke, timeouts, fair_share, resolver, listeners: _, sources: _, rules: _ } =
        egress;
    let EgressTimeouts { connect, tls_name, first_byte, idle, total } = *timeouts;
    let Resolver { servers, timeout } = resolver;
    vec![
        Leaf::one("mode", mode_word(*mode)),
        Leaf::option("deny_message", "none", deny_message.as_ref().map(quoted)),
        Leaf::one(
            "on_revoke",
            match on_revoke {
                OnRevoke::Keep => "keep",
                OnRevoke::Close => "close",
            },
        ),
        Leaf::one("timeouts.connect", duration(connect)),
        Leaf::one("timeouts.tls_name", duration(tls_name)),
        Leaf::one("timeouts.first_byte", duration(first_byte)),
        Leaf::one("timeouts.idle", duration(idle)),
        Leaf::option("timeouts.total", "none", total.map(duration)),
        Leaf::one("fair_share", fair_share),
        Leaf::list("resolver.servers", "the system's", servers),
        Leaf::one("resolver.timeout", duration(*timeout)),
    ]
}

/// A listener's, less what an egress listener has not.
pub(in crate::config::changes) fn egress_listener_leaves(listener: &Listener) -> Vec<Leaf> {
    let mut leaves = listener_leaves(listener);
    leaves.retain(|leaf| !["h2c", "min_body_rate", "timeouts.body"].contains(&leaf.key));
    leaves
}

pub(in crate::config::changes) fn egress_source_leaves(source: &Source) -> Vec<Leaf> {
    let Source { name: _, bind, public, check } = source;
    let check = check.as_ref();
    let scheme = |url: &Endpoint| if url.tls { "https" } else { "http" };
    let url = check
        .map(|SourceCheck { url, ca: _, every: _ }| format!("{}://{}{}", scheme(url), url.authority, url.base_path));
    vec![
        Leaf::list("bind", "none", bind),
        Leaf::list("public", "as bind", public),
        Leaf::option("check", "none", url),
        Leaf::option("check.ca", "the system's", check.and_then(|check| check.ca.as_ref()).map(|ca| ca.display())),
        Leaf::option("check.every", "10m", check.map(|check| duration(check.every))),
    ]
}

pub(in crate::config::changes) fn egress_rule_leaves(config: &Config, rule: &EgressRule) -> Vec<Leaf> {
    let EgressRule {
        name: _,
        clients,
        to,
        source,
        parent,
        private,
        limits: EgressLimits { tunnels, rate: per_client, bandwidth },
        mode,
        mixed_answers,
        tls_name,
        timeouts,
    } = rule;
    // What is not the rule's own is told under `egress.`.
    let EgressTimeouts { connect, tls_name: _, first_byte: _, idle, total } = *timeouts;
    let (count, burst) = match per_client {
        None => (None, None),
        Some(Limit { rate, burst, per: _, max_keys: _, dry_run: _, scope: _ }) => (Some(*rate), Some(*burst)),
    };
    let mut leaves = parent_leaves(parent.as_ref());
    leaves.extend([
        Leaf::list("clients", "nobody", clients.iter().map(|id| name_at(&config.clients, id.index()))),
        Leaf::list("to", "nowhere", to),
        Leaf::option("source", "the system's", source.map(|id| name_at(&config.egress.sources, id.index()))),
        Leaf::list("private", "none", private.as_slice()),
        Leaf::option("limits.tunnels", "any", *tunnels),
        Leaf::option("limits.rate", "any", count.map(rate)),
        Leaf::option("limits.burst", "any", burst),
        Leaf::option("limits.bandwidth", "any", bandwidth.map(|n| format!("{}/s", bytes(n.get())))),
        Leaf::one("mode", mode_word(*mode)),
        Leaf::one(
            "mixed_answers",
            match mixed_answers {
                MixedAnswers::Deny => "deny",
                MixedAnswers::Drop => "drop",
            },
        ),
        Leaf::one(
            "tls_name",
            match tls_name {
                TlsName::Match => "match",
                TlsName::Any => "any",
            },
        ),
        Leaf::one("timeouts.connect", duration(connect)),
        Leaf::one("timeouts.idle", duration(idle)),
        Leaf::option("timeouts.total", "none", total.map(duration)),
    ]);
    leaves
}

/// Without a parent there are the same leaves: they are compared one by one.
fn parent_leaves(parent: Option<&Parent>) -> Vec<Leaf> {
    let credentials = parent.and_then(|parent| parent.credentials.as_ref());
    let ca = parent.and_then(|parent| parent.ca.as_ref());
    vec![
        Leaf::option("parent", "none", parent),
        Leaf::option("parent.user", "none", credentials.map(|(user, _)| user)),
        Leaf::option("parent.password", "none", credentials.map(|(_, password)| password)),
        Leaf::option("parent.ca", "the system's", ca.map(|ca| ca.display())),
        Leaf::one(
            "parent.resolve",
            match parent.map(|parent| parent.resolve).unwrap_or_default() {
                ResolvedBy::Here => "here",
                ResolvedBy::Parent => "parent",
            },
        ),
    ]
}

fn mode_word(mode: EgressMode) -> &'static str {
    match mode {
        EgressMode::Enforce => "enforce",
        EgressMode::Report => "report",
    }
}
