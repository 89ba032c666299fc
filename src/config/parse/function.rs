//! `[function.NAME]`: versions, weights, and who goes where.

use std::{path::PathBuf, time::Duration};

use super::{Scope, concurrency::version_max, dangling, patience, retries::retries, tables::bad_name};
use crate::config::{
    model::{
        Class, ClientId, CredentialId, Function, Name, Override, OverrideBy, Pool, RetryOf, Share, Sticky,
        UpstreamHttp, UpstreamTimeouts, Version, VersionId,
    },
    preset::{Keys, Preset, preset},
    raw,
    read::Map,
    report::Problem,
    source::{At, Span},
    words::{FilePath, Text, Weight},
};

impl Scope<'_> {
    pub(super) fn function(&mut self, name: &Name, span: Span, raw: &raw::Function) -> Option<Function> {
        let list = raw.versions.as_ref()?;
        if list.value.0.is_empty() {
            self.report.push(
                Problem::at(format!("function `{name}` has no version"), list.span)
                    .label("expected at least one, such as `v1 = \"https://…\"`"),
            );
            return None;
        }
        let names = version_names(raw);
        let ca = raw.ca.as_ref();
        let credential = raw.credential.as_ref().map(|at| self.credential_id(at));
        let versions = self.versions(&list.value, ca, credential);
        let weights = self.weights(name, span, raw, &names);
        let baseline = match &raw.baseline {
            Some(at) => self.version_id(at, name, &names),
            None => rest(raw, &names).or_else(|| (names.len() == 1).then_some(VersionId(0))),
        };
        let guard = self.guard(name, raw.guard.as_ref(), raw.baseline.is_some(), baseline);
        let rest = rest(raw, &names).or_else(|| (names.len() == 1 && raw.weights.is_none()).then_some(VersionId(0)));
        let ramp = self.ramp(name, raw, &names, baseline);
        let mirror = self.mirror(name, raw, &names).map(Box::new);
        let sticky = raw.sticky.as_ref().map(|at| self.sticky(name, at));
        let overrides = self.overrides(name, raw, &names);
        let timeouts = raw.timeouts.as_ref().map(|at| &at.value);
        let budget = raw.budget.as_ref().and_then(|at| self.budget(name, at));
        let preset = self.preset(raw, span)?;
        self.rules(raw);
        let mut platform = Keys::of(raw).over(preset.name, Some(&preset.platform));
        let pool = raw.pool.as_ref().map(|at| &at.value);
        let times = [
            ("timeouts.first_byte", timeouts.is_some_and(|t| t.first_byte.is_some())),
            ("timeouts.total", timeouts.is_some_and(|t| t.total.is_some())),
            ("pool.idle", pool.is_some_and(|p| p.idle.is_some())),
            ("pool.age", pool.is_some_and(|p| p.age.is_some())),
        ];
        platform.own.extend(times.into_iter().filter(|(_, is_own)| *is_own).map(|(key, _)| key));
        let concurrency = self.concurrency(raw);
        Some(Function {
            name: name.clone(),
            versions: versions?,
            weights: weights?,
            baseline,
            rest,
            ramp,
            sticky,
            overrides,
            preserve_host: raw.preserve_host.as_ref().is_some_and(|at| at.value),
            timeouts: UpstreamTimeouts {
                connect: patience(timeouts.and_then(|t| t.connect.as_ref()), 3),
                first_byte: (timeouts.and_then(|t| t.first_byte.as_ref()).map(|at| at.value.0))
                    .or(preset.first_byte)
                    .unwrap_or(Duration::from_secs(60)),
                idle: patience(timeouts.and_then(|t| t.idle.as_ref()), 60),
                write: patience(timeouts.and_then(|t| t.write.as_ref()), 30),
                total: timeouts.and_then(|t| t.total.as_ref()).map(|at| at.value.0).or(preset.total),
            },
            http: raw.http.as_ref().map_or(UpstreamHttp::Auto, |at| at.value),
            pool: Pool {
                idle: (pool.and_then(|p| p.idle.as_ref()).map(|at| at.value.0))
                    .or(preset.pool_idle)
                    .unwrap_or(Duration::from_secs(25)),
                age: pool.and_then(|p| p.age.as_ref()).map(|at| at.value.0).or(preset.pool_age),
            },
            platform,
            budget,
            guard,
            mirror,
            concurrency,
            retries: retries(raw),
            health: self.health(raw),
        })
    }

    /// What the function's platform is known for.
    fn preset(&mut self, raw: &raw::Function, span: Span) -> Option<&'static Preset> {
        let name = raw.platform.as_ref().map(|at| at.value).unwrap_or_default();
        let place = raw.platform.as_ref().map_or(span, |at| at.span);
        // A file of ours, which the tests have read; no user can mend it.
        let broken = |why| Problem::at(format!("gatepost's own preset of {} is broken: {why}", name.as_str()), place);
        preset(name).map_err(|why| self.report.push(broken(why))).ok()
    }

    /// A rule that any answer matches would hide all behind it.
    fn rules(&mut self, raw: &raw::Function) {
        for at in raw.classify.iter().flat_map(|list| &list.value) {
            if at.value.status.is_none() && at.value.header.is_none() && !at.value.broken {
                self.report.push(
                    Problem::at("this rule matches every answer", at.span)
                        .label("expected a `status`, a `header`, or both"),
                );
            }
            if let (Some(class), Some(retry)) = (&at.value.class, &at.value.retry)
                && matches!(class.value, Class::Ok | Class::ClientError)
                && retry.value != RetryOf::Never
            {
                let class = class.value.as_str();
                self.report.push(
                    Problem::at(format!("an answer that is `{class}` is not asked for again"), retry.span)
                        .label("take `retry` out, or name the class that fits"),
                );
            }
        }
    }

    /// In the order of their names, as [`version_names`] has them.
    fn versions(
        &mut self,
        list: &Map<raw::Version>,
        ca: Option<&At<FilePath>>,
        credential: Option<Option<CredentialId>>,
    ) -> Option<Vec<Version>> {
        let mut versions = Vec::with_capacity(list.0.len());
        let mut plain = None;
        for (name, at) in &list.0 {
            if let Some(problem) = bad_name(&name.value, name.span) {
                self.report.push(problem);
            }
            let Some(raw::Version(raw)) = at.as_ref().map(|at| &at.value) else {
                continue;
            };
            let Some(url) = &raw.url else {
                continue;
            };
            if !url.value.tls {
                plain = plain.or(Some(url.span));
                if let Some(ca) = &raw.ca {
                    self.ca_without_tls(ca, url.span);
                }
            }
            let host = raw.host.as_ref().map(|host| self.host(host));
            let ca = url.value.tls.then(|| raw.ca.as_ref().or(ca)).flatten();
            // A name that nothing has is in the report: no config comes of it.
            let own = raw.credential.as_ref().map(|at| self.credential_id(at));
            versions.push(Version {
                name: name.value.as_str().into(),
                url: url.value.clone(),
                ca: ca.map(|ca| self.authority(ca)),
                host: host.flatten(),
                credential: own.or(credential).flatten(),
                max_concurrency: version_max(raw.concurrency.as_ref()),
            });
        }
        let any_tls = versions.iter().any(|version| version.url.tls);
        if let (Some(ca), Some(plain), false) = (ca, plain, any_tls) {
            self.ca_without_tls(ca, plain);
        }
        versions.sort_by(|a, b| a.name.cmp(&b.name));
        (versions.len() == list.0.len()).then_some(versions)
    }

    fn ca_without_tls(&mut self, ca: &At<FilePath>, url: Span) {
        self.report.push(
            Problem::at("`ca` does nothing for an http URL", ca.span)
                .label("nobody shows a certificate")
                .also(url, "this URL is plain")
                .help("write `https://…`, or leave `ca` out"),
        );
    }

    fn authority(&mut self, ca: &At<FilePath>) -> PathBuf {
        let path = self.path(ca);
        if !self.pointers.authorities.iter().any(|at| at.value == path) {
            self.pointers.authorities.push(At { value: path.clone(), span: ca.span });
        }
        path
    }

    /// The Host to send: a host and, where wanted, a port (RFC 9110 §7.2).
    fn host(&mut self, host: &At<Text>) -> Option<String> {
        let text = &host.value.0;
        let uri = format!("http://{text}");
        let endpoint = <crate::config::model::Endpoint as crate::config::read::Word>::parse(&uri)
            .ok()
            .filter(|endpoint| endpoint.base_path.is_empty() && !text.contains('/'));
        if endpoint.is_none() {
            self.report.push(
                Problem::at(format!("`{}` is not a host", text.escape_debug()), host.span)
                    .label("expected what a Host header holds: `api.example.com` or `api.example.com:8443`"),
            );
        }
        endpoint.map(|_| text.to_ascii_lowercase())
    }

    fn weights(&mut self, name: &Name, span: Span, raw: &raw::Function, names: &[&str]) -> Option<Vec<Share>> {
        let Some(at) = &raw.weights else {
            if names.len() == 1 {
                return Some(vec![Share::WHOLE]);
            }
            self.report.push(
                Problem::at(format!("function `{name}` has {} versions and no `weights`", names.len()), span)
                    .label("which version gets how much?")
                    .help(format!(
                        "write `weights = {{ {} = \"rest\" }}` and raise the others when it is time",
                        names.first().copied().unwrap_or_default()
                    )),
            );
            return None;
        };
        let mut shares = vec![Share::default(); names.len()];
        let mut total = 0u32;
        let mut rest: Option<(usize, Span)> = None;
        let mut whole = true;
        for (version, weight) in &at.value.0 {
            let Some(id) = self.known_version(&version.value, version.span, name, names) else {
                whole = false;
                continue;
            };
            match weight {
                None => whole = false,
                Some(At { value: Weight::Percent(share), .. }) => {
                    shares[id.index()] = *share;
                    total += u32::from(share.0);
                }
                Some(At { value: Weight::Rest, span }) => match rest {
                    None => rest = Some((id.index(), *span)),
                    Some((_, first)) => {
                        whole = false;
                        self.report.push(
                            Problem::at("only one version can have the rest", *span)
                                .label("a second `rest`")
                                .also(first, "the first"),
                        );
                    }
                },
            }
        }
        if !whole {
            return None;
        }
        let all = u32::from(Share::WHOLE.0);
        let shown = |total: u32| format!("{}", f64::from(total) / 100.0);
        let problem = Problem::at(format!("the weights of function `{name}` total {}", shown(total)), at.span);
        match rest {
            Some((rest, _)) if total <= all => {
                shares[rest] = Share(u16::try_from(all - total).unwrap_or_default());
                Some(shares)
            }
            None if total == all => Some(shares),
            Some(_) => {
                self.report.push(problem.label("expected at most 100: nothing is left for `rest`"));
                None
            }
            None if total < all => {
                self.report.push(
                    problem
                        .label("expected 100")
                        .help(format!("{} is missing; one version may be `\"rest\"`", shown(all - total))),
                );
                None
            }
            None => {
                self.report.push(
                    problem
                        .label("expected 100")
                        .help(format!("{} is too much; one version may be `\"rest\"`", shown(total - all))),
                );
                None
            }
        }
    }

    fn version_id(&mut self, at: &At<Text>, function: &str, names: &[&str]) -> Option<VersionId> {
        self.known_version(&at.value.0, at.span, function, names)
    }

    pub(super) fn known_version(
        &mut self,
        version: &str,
        span: Span,
        function: &str,
        names: &[&str],
    ) -> Option<VersionId> {
        let found = names.iter().position(|name| *name == version);
        if found.is_none() {
            let kind = format!("version of function `{function}`");
            self.report.push(dangling(&kind, version, span, names));
        }
        found.and_then(|at| u32::try_from(at).ok()).map(VersionId)
    }

    fn sticky(&mut self, name: &Name, at: &At<raw::Sticky>) -> Sticky {
        let by: Vec<_> = at.value.by.iter().flat_map(|list| &list.value).map(|by| by.value.0.clone()).collect();
        let issue_cookie = at.value.issue_cookie.as_ref();
        let empty = at.value.by.as_ref().filter(|list| list.value.is_empty());
        if let Some(list) = empty
            && issue_cookie.is_none_or(|at| !at.value)
        {
            self.report.push(
                Problem::at("`by` is empty: there is nothing to be sticky by", list.span)
                    .label("expected at least one of `header:NAME`, `cookie:NAME` or `client_ip`"),
            );
        }
        if let (Some(issue), Some(list)) = (issue_cookie.filter(|at| at.value), &at.value.by)
            && let Some(ip) = list.value.iter().find(|by| by.value.0 == crate::config::model::StickyKey::ClientIp)
        {
            self.report.push(
                Problem::at("no caller would ever be handed a cookie", issue.span)
                    .label("it is for callers with none of the keys")
                    .also(ip.span, "and every caller has an address")
                    .help("take `client_ip` out of `by`, or leave `issue_cookie` out"),
            );
        }
        Sticky {
            by,
            salt: at.value.group.as_ref().map_or_else(|| name.to_string(), |group| group.value.0.clone()),
            issue_cookie: issue_cookie.is_some_and(|at| at.value),
        }
    }

    fn overrides(&mut self, name: &Name, raw: &raw::Function, names: &[&str]) -> Vec<Override> {
        raw.r#override.iter().flat_map(|list| &list.value).filter_map(|at| self.one_override(name, at, names)).collect()
    }

    fn one_override(&mut self, name: &Name, at: &At<raw::Override>, names: &[&str]) -> Option<Override> {
        let raw = &at.value;
        let version = raw.version.as_ref().and_then(|at| self.version_id(at, name, names));
        let from = raw.from.as_ref().map(|list| self.some_networks(list, "from"));
        let given = [raw.header.is_some(), raw.cookie.is_some(), raw.networks.is_some(), raw.client.is_some()];
        if raw.broken {
            return None;
        }
        if given.into_iter().filter(|given| *given).count() != 1 {
            self.report.push(
                Problem::at("an override goes by exactly one thing", at.span)
                    .label("expected one of `header`, `cookie`, `networks` and `client`"),
            );
            return None;
        }
        let by = if let Some(header) = &raw.header {
            OverrideBy::Header(header.value.0.clone(), header.value.1.clone())
        } else if let Some(cookie) = &raw.cookie {
            OverrideBy::Cookie(cookie.value.0.clone(), cookie.value.1.clone())
        } else if let Some(networks) = &raw.networks {
            OverrideBy::Networks(self.some_networks(networks, "networks")?)
        } else {
            let file = self.file;
            let client = self.find("client", raw.client.as_ref()?, &file.clients)?;
            OverrideBy::Client(ClientId(client))
        };
        Some(Override {
            by,
            from: match from {
                None => None,
                Some(from) => Some(from?),
            },
            version: version?,
        })
    }
}

/// The names of a function's versions, sorted: what [`VersionId`] counts.
pub(super) fn version_names(raw: &raw::Function) -> Vec<&str> {
    let mut names: Vec<&str> =
        raw.versions.iter().flat_map(|at| &at.value.0).map(|(name, _)| name.value.as_str()).collect();
    names.sort_unstable();
    names
}

fn rest(raw: &raw::Function, names: &[&str]) -> Option<VersionId> {
    let weights = &raw.weights.as_ref()?.value.0;
    let (rest, _) = weights.iter().find(|(_, weight)| matches!(weight, Some(At { value: Weight::Rest, .. })))?;
    let at = names.iter().position(|name| *name == rest.value)?;
    u32::try_from(at).ok().map(VersionId)
}
