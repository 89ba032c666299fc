//! A rule's `parent`, and a source's `check`.

use std::time::Duration;

use super::{Scope, patience};
use crate::config::{
    model::{
        Destination, DestinationHost, Endpoint, EndpointHost, ListenAddress, Parent, ResolvedBy, SourceCheck, TlsName,
    },
    raw_egress::{EgressRule, ParentTable, SourceCheck as RawCheck},
    report::Problem,
    source::{At, Span},
};

/// An echo is asked no more often.
const LEAST: Duration = Duration::from_secs(1);

impl Scope<'_> {
    pub(super) fn parent(&mut self, raw: &ParentTable) -> Option<Parent> {
        let before = self.report.len();
        let written = raw.url.as_ref()?;
        let url = &written.value.0;
        self.is_another(url, written.span);
        if !raw.broken {
            match (&raw.user, &raw.password) {
                (Some(user), None) => self.half(user.span, "user", "password"),
                (None, Some(password)) => self.half(password.span, "password", "user"),
                _ => {}
            }
        }
        if let Some(ca) = raw.ca.as_ref().filter(|_| !url.tls) {
            self.report.push(
                Problem::at("`ca` says nothing to a parent that is reached by plain http", ca.span)
                    .label("not needed here"),
            );
        }
        let ca = raw.ca.as_ref().map(|at| {
            let path = self.path(at);
            self.pointers.anchors.push(At { value: path.clone(), span: at.span });
            path
        });
        let password = raw.password.as_ref().map(|at| self.followed(at));
        let user = raw.user.as_ref().map(|at| at.value.0.clone());
        (self.report.len() == before).then(|| Parent {
            tls: url.tls,
            host: url.host.clone(),
            port: url.port,
            credentials: user.zip(password),
            ca,
            resolve: raw.resolve.as_ref().map(|at| at.value).unwrap_or_default(),
        })
    }

    /// A parent that is an egress listener of this very config would get each request again.
    fn is_another(&mut self, url: &Endpoint, at: Span) {
        let EndpointHost::Address(ip) = url.host else { return };
        let own = self.file.egress.listener.iter().flat_map(|all| &all.value.0).find_map(|(name, raw)| {
            let address = raw.as_ref()?.value.address.as_ref()?;
            let ListenAddress::Tcp(tcp) = &address.value else { return None };
            let everywhere = tcp.ip().is_unspecified() && ip.is_loopback() && tcp.is_ipv4() == ip.is_ipv4();
            (tcp.port() == url.port && (tcp.ip() == ip || everywhere)).then_some((&name.value, address.span))
        });
        if let Some((name, first)) = own {
            self.report.push(
                Problem::at("the parent is this gatepost itself", at)
                    .label("each request would come back")
                    .also(first, format!("egress listener `{name}` is here"))
                    .help("a parent is another proxy: calls by this one get 508 `loop_detected`")
                    .warning(),
            );
        }
    }

    /// Names are compared on port 443 alone: `match` that is written elsewhere promises what nobody does.
    pub(super) fn nothing_is_compared(&mut self, raw: &EgressRule, to: &[(Destination, Span)]) {
        let Some(at) = raw.tls_name.as_ref().filter(|at| at.value == TlsName::Match) else { return };
        let is_compared = |one: &Destination| one.port == 443 && !matches!(one.host, DestinationHost::Net(_));
        if !to.iter().any(|(one, _)| is_compared(one)) {
            self.report.push(
                Problem::at("`tls_name = \"match\"` says nothing here", at.span)
                    .label("the rule leads to no name on port 443")
                    .help("on other ports, and to addresses, no TLS name is compared: leave it out")
                    .warning(),
            );
        }
    }

    pub(super) fn source_check(&mut self, raw: &RawCheck) -> Option<SourceCheck> {
        let before = self.report.len();
        let url = raw.url.as_ref()?.value.0.clone();
        if let Some(ca) = raw.ca.as_ref().filter(|_| !url.tls) {
            self.report.push(Problem::at("`ca` says nothing without an https `url`", ca.span).label("not needed here"));
        }
        if let Some(every) = raw.every.as_ref().filter(|every| every.value.0 < LEAST) {
            self.report.push(
                Problem::at(format!("every {:?} is a burden to whoever is asked", every.value.0), every.span)
                    .label(format!("expected at least `{}s`", LEAST.as_secs())),
            );
        }
        let ca = raw.ca.as_ref().map(|at| {
            let path = self.path(at);
            self.pointers.anchors.push(At { value: path.clone(), span: at.span });
            path
        });
        let every = patience(raw.every.as_ref(), 600);
        (self.report.len() == before).then_some(SourceCheck { url, ca, every })
    }

    fn half(&mut self, at: Span, there: &str, missing: &str) {
        self.report.push(
            Problem::at(format!("`{there}` without `{missing}` is no credential"), at)
                .label(format!("expected `{missing}` beside it")),
        );
    }

    /// What judges the addresses of names has nothing to judge where a parent looks them up.
    pub(super) fn nothing_is_judged(&mut self, raw: &EgressRule, to: &[DestinationHost]) {
        let Some(resolve) = raw.parent.as_ref().and_then(|at| at.value.0.resolve.as_ref()) else { return };
        if resolve.value != ResolvedBy::Parent {
            return;
        }
        let has_addresses = to.iter().any(|host| matches!(host, DestinationHost::Net(_)));
        let idle = [
            ("mixed_answers", raw.mixed_answers.as_ref().map(|at| at.span)),
            ("private", raw.private.as_ref().map(|at| at.span).filter(|_| !has_addresses)),
        ];
        for (key, at) in idle {
            if let Some(at) = at {
                self.report.push(
                    Problem::at(format!("`{key}` says nothing where the parent looks names up"), at)
                        .label("the addresses of names are not seen here")
                        .also(resolve.span, "by this"),
                );
            }
        }
    }
}
