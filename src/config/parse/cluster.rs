//! `[cluster]`: what belongs together, and which limits it is for.

use super::Scope;
use crate::config::{
    model::{Cluster, LimitScope},
    raw, raw_cluster,
    report::Problem,
    source::At,
};

impl Scope<'_> {
    /// `None`: there is none.
    pub(super) fn cluster(&mut self, raw: Option<&raw_cluster::Cluster>) -> Option<Cluster> {
        let raw = raw?;
        let redis = raw.redis.as_ref()?;
        if let (Some(ca), false) = (&raw.ca, redis.value.tls) {
            self.report.push(
                Problem::at("`ca` says nothing without TLS", ca.span)
                    .label("nobody shows a certificate")
                    .also(redis.span, "not encrypted")
                    .help("write `rediss://`, or leave `ca` out"),
            );
        }
        if let (Some(user), None) = (&raw.username, &raw.password) {
            self.report.push(
                Problem::at("`username` needs a `password`", user.span)
                    .label("nobody logs in by a name alone")
                    .help("add `password = \"file:/path\"`"),
            );
        }
        let ca = raw.ca.as_ref().map(|at| At { value: self.path(at), span: at.span });
        let password = raw.password.as_ref().map(|at| self.followed(at));
        if redis.value.tls {
            self.pointers.anchors.extend(ca.clone());
        }
        Some(Cluster {
            redis: redis.value.clone(),
            username: raw.username.as_ref().map(|at| at.value.0.clone()),
            password,
            ca: ca.map(|at| at.value),
            prefix: raw.prefix.as_ref().map_or_else(|| "gatepost".to_owned(), |at| at.value.0.clone()),
            member: raw.member.as_ref().map(|at| at.value.0.clone()),
        })
    }

    pub(super) fn limit_scope(&mut self, raw: &raw::Limit) -> LimitScope {
        let Some(at) = &raw.scope else { return LimitScope::default() };
        if at.value == LimitScope::Cluster && self.file.cluster.is_none() {
            self.report.push(
                Problem::at("a limit of the cluster needs a `[cluster]`", at.span)
                    .label("with whom is it shared?")
                    .help("add `[cluster]` with `redis = \"redis://10.0.0.9:6379\"`, or leave `scope` out"),
            );
        }
        at.value
    }
}
