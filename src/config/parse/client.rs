//! `[client.NAME]`

use std::{collections::HashMap, time::Duration};

use http::HeaderName;

use super::{DigestPointer, Scope};
use crate::config::{
    model::{ApiKey, Basic, Client, JwksSource, Jwt, Mtls, Name, Networks},
    raw,
    read::OneOrMany,
    report::Problem,
    secret::SecretRef,
    source::{At, Span},
    words::{JwksWord, NetworkRef},
};

/// Clocks that are further apart are wrong, and say so in other ways.
const MOST_LEEWAY: Duration = Duration::from_secs(600);

fn has_credentials(raw: &raw::Client) -> bool {
    raw.api_key.is_some() || raw.basic.is_some() || raw.jwt.is_some() || raw.mtls.is_some()
}

impl Scope<'_> {
    pub(super) fn client(&mut self, name: &Name, span: Span, raw: &raw::Client) -> Option<Client> {
        let networks = match &raw.networks {
            Some(list) => self.some_networks(list, "networks")?,
            None => Networks::default(),
        };
        let has_credentials = has_credentials(raw);
        if raw.networks.is_none() && !has_credentials && !raw.broken {
            self.report.push(
                Problem::at(format!("nobody can be client `{name}`"), span)
                    .label("expected at least one of `networks`, `api_key`, `basic`, `jwt` and `mtls`"),
            );
            return None;
        }
        let digest = |scope: &mut Self, at: &At<SecretRef>, header: Option<HeaderName>| {
            let secret = scope.secret(at);
            let at = At { value: secret.clone(), span: at.span };
            scope.pointers.digests.push(DigestPointer { client: name.clone(), header, at });
            secret
        };
        let api_key = match &raw.api_key {
            None => None,
            Some(at) => {
                let default = || HeaderName::from_static("x-api-key");
                let header = at.value.header.as_ref().map_or_else(default, |at| at.value.0.clone());
                let sha256 = digest(self, at.value.sha256.as_ref()?, Some(header.clone()));
                Some(ApiKey { header, sha256 })
            }
        };
        let basic = match &raw.basic {
            None => None,
            Some(at) => {
                let user = at.value.user.as_ref()?.value.0.clone();
                Some(Basic { user, sha256: digest(self, at.value.sha256.as_ref()?, None) })
            }
        };
        let jwt = match &raw.jwt {
            None => None,
            Some(at) => Some(self.jwt(&at.value)?),
        };
        let mtls = match &raw.mtls {
            None => None,
            Some(at) => Some(self.mtls(at)?),
        };
        let owner = raw.owner.as_ref().map(|at| at.value.0.clone());
        Some(Client { name: name.clone(), owner, networks, api_key, basic, jwt, mtls })
    }

    fn mtls(&mut self, at: &At<raw::Mtls>) -> Option<Mtls> {
        let raw::Mtls { subject, san, sha256, broken } = &at.value;
        if subject.is_none() && san.is_none() && sha256.is_none() && !broken {
            self.report.push(
                Problem::at("`mtls` does not say whose certificate", at.span)
                    .label("expected at least one of `subject`, `san` and `sha256`"),
            );
            return None;
        }
        let listeners = self.file.listeners.values().map(|(_, one)| one.client_ca.is_some() || one.broken);
        let egress = self.file.egress.listener.iter().flat_map(|at| &at.value.0).filter_map(|(_, one)| one.as_ref());
        let egress = egress.map(|at| at.value.client_ca.is_some() || at.value.broken);
        if !listeners.chain(egress).any(|asks| asks) {
            self.report.push(
                Problem::at("no listener asks callers for a certificate", at.span)
                    .label("nobody could show one")
                    .help("give a listener a `client_ca`"),
            );
        }
        let subject = self.some(subject.as_ref(), "subject", |text| text.0.clone())?;
        let san = self.some(san.as_ref(), "san", Clone::clone)?;
        let sha256 = self.some(sha256.as_ref(), "sha256", |print| print.0)?;
        Some(Mtls { subject, san, sha256 })
    }

    fn jwt(&mut self, raw: &raw::Jwt) -> Option<Jwt> {
        let keys = raw.jwks.as_ref().and_then(|at| self.key_set(at, raw));
        if let Some(at) = raw.algorithms.as_ref().filter(|at| at.value.is_empty()) {
            self.report.push(
                Problem::at("`algorithms` is empty: no token would be good", at.span)
                    .label("expected at least one, such as `RS256`"),
            );
        }
        let leeway = raw.leeway.as_ref().map_or(Duration::from_secs(30), |at| at.value.0);
        if let Some(at) = raw.leeway.as_ref().filter(|at| at.value.0 > MOST_LEEWAY) {
            self.report.push(Problem::at("`leeway` is too long", at.span).label("expected at most `10m`"));
        }
        let mut claims = Vec::new();
        for (key, value) in raw.claims.iter().flat_map(|at| &at.value.0) {
            let own = match key.value.as_str() {
                "iss" => Some("issuer"),
                "aud" => Some("audience"),
                "sub" => Some("subject"),
                _ => None,
            };
            if let Some(own) = own {
                self.report.push(
                    Problem::at(format!("the claim `{}` has a key of its own", key.value), key.span)
                        .help(format!("write `{own} = …` beside `claims`")),
                );
            }
            if let Some(value) = value {
                claims.push((key.value.clone(), value.value.0.clone()));
            }
        }
        claims.sort();
        let audience = raw.audience.as_ref().and_then(|at| self.some(Some(at), "audience", |text| text.0.clone()));
        let subject = self.some(raw.subject.as_ref(), "subject", |text| text.0.clone());
        Some(Jwt {
            issuer: raw.issuer.as_ref()?.value.0.clone(),
            audience: audience?,
            keys: keys?,
            algorithms: raw.algorithms.as_ref()?.value.iter().map(|at| at.value).collect(),
            subject: subject?,
            claims,
            leeway,
        })
    }

    /// What is in a list that must not be empty where it is there.
    fn some<T, U>(&mut self, list: Option<&At<OneOrMany<T>>>, key: &str, take: impl Fn(&T) -> U) -> Option<Vec<U>> {
        let Some(list) = list else { return Some(Vec::new()) };
        if list.value.0.is_empty() {
            self.report
                .push(Problem::at(format!("`{key}` is empty: nobody is meant"), list.span).label("expected one"));
            return None;
        }
        Some(list.value.0.iter().map(|at| take(&at.value)).collect())
    }

    fn key_set(&mut self, at: &At<JwksWord>, raw: &raw::Jwt) -> Option<JwksSource> {
        match &at.value {
            JwksWord::File(path) => {
                if let Some(ca) = &raw.ca {
                    self.report.push(
                        Problem::at("`ca` is for keys that are fetched", ca.span)
                            .label("nobody is trusted for a file")
                            .also(at.span, "the keys are in a file"),
                    );
                    return None;
                }
                let path = self.sources.folder(at.span.file).join(path);
                self.pointers.jwks.push(At { value: path.clone(), span: at.span });
                Some(JwksSource::File(path))
            }
            JwksWord::Url(url) => {
                let ca = raw.ca.as_ref().map(|ca| {
                    let path = self.path(ca);
                    self.pointers.authorities.push(At { value: path.clone(), span: ca.span });
                    path
                });
                Some(JwksSource::Url(crate::config::model::JwksUrl { ca, ..url.clone() }))
            }
        }
    }

    /// Nobody may be two clients at once. Of clients known by network alone the longest prefix wins, so two may not have the
    /// same; no two have one user; and of two clients of one issuer something must tell the tokens apart. Equal API keys are
    /// found once they are read.
    pub(super) fn clients_apart(&mut self) {
        self.networks_apart();
        let file = self.file;
        let mut users: HashMap<&str, (&str, Span)> = HashMap::new();
        type Conditions<'r> = (&'r str, Vec<&'r str>, Vec<(&'r str, Option<&'r str>)>);
        let mut tokens: HashMap<Conditions<'_>, (&str, Span)> = HashMap::new();
        for (name, (_, client)) in &file.clients {
            if let Some(user) = client.basic.as_ref().and_then(|at| at.value.user.as_ref()) {
                let (owner, first) = *users.entry(&user.value.0).or_insert((name, user.span));
                if owner != name {
                    self.report.push(
                        Problem::at(format!("clients `{owner}` and `{name}` have the same user"), user.span)
                            .label("it would be both")
                            .also(first, format!("`{owner}` has it here")),
                    );
                }
            }
            let Some(jwt) = &client.jwt else { continue };
            let Some(issuer) = &jwt.value.issuer else { continue };
            let mut subject: Vec<&str> =
                jwt.value.subject.iter().flat_map(|at| &at.value.0).map(|at| at.value.0.as_str()).collect();
            subject.sort_unstable();
            let mut claims: Vec<(&str, Option<&str>)> = (jwt.value.claims.iter().flat_map(|at| &at.value.0))
                .filter_map(|(key, value)| Some((key.value.as_str(), value.as_ref()?.value.0.as_deref())))
                .collect();
            claims.sort_unstable();
            let mut audience: Vec<&str> =
                jwt.value.audience.iter().flat_map(|at| &at.value.0).map(|at| at.value.0.as_str()).collect();
            audience.sort_unstable();
            for audience in audience {
                let subjects = if subject.is_empty() { vec![""] } else { subject.clone() };
                for one in subjects {
                    let conditions = (issuer.value.0.as_str(), vec![audience, one], claims.clone());
                    let (owner, first) = *tokens.entry(conditions).or_insert((name, jwt.span));
                    if owner != name {
                        self.report.push(
                            Problem::at(format!("one token would be clients `{owner}` and `{name}`"), jwt.span)
                                .label(format!("nothing here tells the two apart for `{audience}`"))
                                .also(first, format!("`{owner}` takes it here"))
                                .help("give one of them a `subject` or `claims` of its own, or make them one client"),
                        );
                    }
                }
            }
        }
    }

    fn networks_apart(&mut self) {
        let mut owners = HashMap::new();
        for (name, (_, client)) in &self.file.clients {
            if has_credentials(client) {
                continue;
            }
            for at in client.networks.iter().flat_map(|list| &list.value) {
                let nets: Vec<ipnet::IpNet> = match &at.value {
                    NetworkRef::Net(net) => vec![*net],
                    NetworkRef::Named(list) => self
                        .networks
                        .iter()
                        .filter(|(known, _)| known == list)
                        .filter_map(|(_, nets)| nets.as_ref())
                        .flat_map(|nets| nets.as_slice().to_vec())
                        .collect(),
                };
                for net in nets {
                    let (owner, first) = *owners.entry(net).or_insert((name, at.span));
                    if owner != name {
                        self.report.push(
                            Problem::at(format!("clients `{owner}` and `{name}` both have the network {net}"), at.span)
                                .label("a caller from there would be both")
                                .also(first, format!("`{owner}` has it here"))
                                .help("give one of them a longer prefix, or make them one client"),
                        );
                    }
                }
            }
        }
    }
}
