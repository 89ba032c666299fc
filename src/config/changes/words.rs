//! Every table of the model as leaves: keys of the file, and their values in words.
//!
//! The structs are taken apart without `..`, so that a new field does not compile until it has words here.

mod budget;
mod cache;
mod client;
mod cluster;
mod concurrency;
mod egress;
mod health;
mod mirror;
mod platform;
mod ramp;
mod retries;

pub use cache::cache_key;
pub(super) use client::client_leaves;
pub(super) use cluster::cluster_leaves;
pub use concurrency::concurrency;
pub(super) use egress::{egress_leaves, egress_listener_leaves, egress_rule_leaves, egress_source_leaves};
pub use platform::{function_keys, platform, rule};
pub(super) use ramp::freeze_leaves;

use std::{borrow::Cow, fmt, time::Duration};

mod guard;
mod handling;

use super::{Applied, Named};
use crate::config::{model::*, secret::SecretRef};
use handling::{body_bound, handling_leaves, maintenance_words, page_words, serves_leaves};
pub use handling::{handling, size};

/// A key of the file and its value in words. Two values have the same words only if they are equal.
pub(super) struct Leaf {
    pub(super) key: &'static str,
    pub(super) value: Words,
    pub(super) applies: Applied,
}

#[derive(PartialEq)]
pub(super) enum Words {
    One(Cow<'static, str>),
    List(Vec<String>),
}

// Out of line: a reload compares some hundreds of leaves, each of which would bring its own copy.
impl Leaf {
    #[inline(never)]
    pub(super) fn one(key: &'static str, value: impl fmt::Display) -> Self {
        Self { key, value: Words::One(value.to_string().into()), applies: Applied::Live }
    }

    #[inline(never)]
    pub(super) fn option(key: &'static str, none: &'static str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => Self::one(key, value),
            None => Self::one(key, none),
        }
    }

    /// `empty` is what an empty list means, for example `any`.
    #[inline(never)]
    pub(super) fn list(
        key: &'static str,
        empty: &'static str,
        items: impl IntoIterator<Item = impl fmt::Display>,
    ) -> Self {
        let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
        let value = match items.is_empty() {
            true => Words::One(empty.into()),
            false => Words::List(items),
        };
        Self { key, value, applies: Applied::Live }
    }

    pub(super) fn after_restart(self) -> Self {
        Self { applies: Applied::NeedsRestart, ..self }
    }
}

/// Of those that came or went, so many are named.
const SHOWN_OF_MANY: usize = 8;

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(words) => f.write_str(words),
            Self::List(items) if items.len() > SHOWN_OF_MANY => {
                let rest = items.len() - SHOWN_OF_MANY;
                write!(f, "{} and {rest} more", items[..SHOWN_OF_MANY].join(", "))
            }
            Self::List(items) => f.write_str(&items.join(", ")),
        }
    }
}

pub(super) fn server_leaves(server: &Server) -> Vec<Leaf> {
    let Server {
        workers,
        state_dir,
        trusted_proxies,
        max_connections,
        max_requests,
        max_memory,
        dns,
        drain,
        auth_failures,
        maintenance,
        max_body,
        max_hops,
        error_pages,
    } = server;
    // What it counts by is fixed.
    let Limit { rate: failures, burst, per: _, max_keys: _, dry_run: _, scope: _ } = auth_failures;
    vec![
        Leaf::option("workers", "one per core", *workers).after_restart(),
        Leaf::one("state_dir", state_dir.display()).after_restart(),
        Leaf::list("trusted_proxies", "none", trusted_proxies.as_slice()),
        Leaf::option("max_connections", "by the file limit", *max_connections),
        Leaf::option("max_requests", "as max_connections", *max_requests),
        Leaf::option("max_memory", "the control group's", max_memory.map(bytes)),
        Leaf::list("dns", "the system's", dns),
        Leaf::one("drain", duration(*drain)),
        Leaf::one("auth_failures.rate", rate(*failures)),
        Leaf::one("auth_failures.burst", burst),
        Leaf::option("maintenance", "off", maintenance.as_ref().map(maintenance_words)),
        Leaf::one("max_body", body_bound(*max_body)),
        Leaf::one("max_hops", max_hops),
        Leaf::list("error_pages", "none", error_pages.iter().map(page_words)),
    ]
}

/// In the largest unit that says it exactly.
fn bytes(n: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| n >> shift << shift == n && n >> shift > 0);
    unit.map_or_else(|| format!("{n}B"), |(shift, unit)| format!("{}{unit}", n >> shift))
}

pub(super) fn admin_leaves(admin: &Admin) -> Vec<Leaf> {
    let Admin { address, token } = admin;
    vec![Leaf::one("address", address), Leaf::option("token", "none", token.as_ref().map(secret))]
}

pub(super) fn log_leaves(log: &Log) -> Vec<Leaf> {
    let Log { access, egress, format, sample_ok, query } = log;
    let sink = |sink: &AccessSink| match sink {
        AccessSink::Stdout => "stdout".into(),
        AccessSink::Off => "off".into(),
        AccessSink::File(path) => path.display().to_string(),
    };
    let format = match format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    vec![
        Leaf::one("access", sink(access)),
        Leaf::option("egress", "as access", egress.as_ref().map(sink)),
        Leaf::one("format", format),
        Leaf::one("sample_ok", sample_ok),
        Leaf::one("query", query),
    ]
}

pub(super) fn listener_leaves(listener: &Listener) -> Vec<Leaf> {
    let Listener {
        name: _,
        address,
        freebind,
        tls,
        tls_profile,
        client_auth,
        proxy_protocol,
        h2c,
        max_connections,
        max_connections_per_ip,
        timeouts: ListenerTimeouts { handshake, header, body, idle, min_body_rate },
        mode,
    } = listener;
    let certificates = tls.iter().map(certificate);
    vec![
        Leaf::one("address", address),
        Leaf::one("freebind", freebind),
        Leaf::list("tls", "off", certificates),
        Leaf::one(
            "tls_profile",
            match tls_profile {
                TlsProfile::Modern => "modern",
                TlsProfile::Intermediate => "intermediate",
            },
        ),
        Leaf::option("client_ca", "none", client_auth.as_ref().map(client_ca)),
        networks_or("proxy_protocol", "off", proxy_protocol.as_ref()),
        Leaf::one("h2c", h2c),
        Leaf::option("max_connections", "no own", *max_connections),
        Leaf::option("max_connections_per_ip", "any", *max_connections_per_ip),
        Leaf::option("min_body_rate", "off", min_body_rate.map(|rate| format!("{}/s", bytes(rate.get().into())))),
        Leaf::one("timeouts.handshake", duration(*handshake)),
        Leaf::one("timeouts.header", duration(*header)),
        Leaf::one("timeouts.body", duration(*body)),
        Leaf::one("timeouts.idle", duration(*idle)),
        Leaf::one("mode", format_args!("{mode:04o}")),
    ]
}

fn certificate(certificate: &TlsCertificate) -> String {
    match certificate {
        TlsCertificate::Files(CertificateFiles { cert, key }) => {
            format!("cert {} key {}", cert.display(), key.display())
        }
        TlsCertificate::Acme(Acme { directory, email, domains, ca }) => {
            let mut words = format!("acme {} from {directory}", domains.join(" "));
            if let Some(email) = email {
                words += &format!(" email {email}");
            }
            if let Some(ca) = ca {
                words += &format!(" ca {}", ca.display());
            }
            words
        }
    }
}

fn client_ca(ClientAuth { ca, need }: &ClientAuth) -> String {
    let need = match need {
        ClientAuthNeed::Required => "required",
        ClientAuthNeed::Optional => "optional",
    };
    format!("{} ({need})", ca.display())
}

/// All but versions and weights, which are told apart from the rest.
pub(super) fn function_leaves(config: &Config, function: &Function) -> Vec<Leaf> {
    let Function {
        name: _,
        versions: _,
        weights: _,
        // It is a weight.
        rest: _,
        ramp: _,
        baseline,
        sticky,
        overrides,
        preserve_host,
        timeouts: UpstreamTimeouts { connect, first_byte, idle, write, total },
        http,
        pool: Pool { idle: pool_idle, age },
        platform: on,
        budget,
        guard,
        // Told with the function, whose versions it names.
        mirror: _,
        concurrency,
        retries,
        health,
    } = function;
    let http = match http {
        UpstreamHttp::Auto => "auto",
        UpstreamHttp::Http1 => "1.1",
        UpstreamHttp::Http2 => "2",
    };
    let overrides = overrides.iter().map(|one| override_words(config, function, one));
    let (by, salt, issue_cookie) = match sticky {
        None => (None, None, false),
        Some(Sticky { by, salt, issue_cookie }) => (Some(by), Some(salt), *issue_cookie),
    };
    let mut leaves = vec![
        Leaf::option("baseline", "none", baseline.map(|id| version(function, id))),
        Leaf::list("sticky.by", "off", sticky_keys(by)),
        Leaf::option("sticky.group", "off", salt.map(quoted)),
        Leaf::one("sticky.issue_cookie", issue_cookie),
        Leaf::list("override", "none", overrides),
        Leaf::one("preserve_host", preserve_host),
        Leaf::one("timeouts.connect", duration(*connect)),
        Leaf::one("timeouts.first_byte", duration(*first_byte)),
        Leaf::one("timeouts.idle", duration(*idle)),
        Leaf::one("timeouts.write", duration(*write)),
        Leaf::option("timeouts.total", "none", total.map(duration)),
        Leaf::one("http", http),
        Leaf::one("pool.idle", duration(*pool_idle)),
        Leaf::option("pool.age", "any", age.map(duration)),
    ];
    leaves.extend(ramp::ramp_leaves(function));
    leaves.extend(budget::budget_leaves(budget.as_deref()));
    leaves.extend(concurrency::concurrency_leaves(concurrency.as_ref()));
    leaves.extend(platform(on).into_iter().map(|(key, words)| Leaf::one(key, words)));
    leaves.extend(retries::retry_leaves(retries.as_ref()));
    leaves.extend(health::health_leaves(health.as_ref()));
    leaves.extend(guard::guard_leaves(guard.as_ref()));
    leaves.extend(mirror::mirror_leaves(function));
    leaves
}

fn sticky_keys(by: Option<&Vec<StickyKey>>) -> Vec<String> {
    match by {
        None => vec![],
        Some(keys) if keys.is_empty() => vec!["cookie only".to_owned()],
        Some(keys) => keys.iter().map(sticky_key).collect(),
    }
}

/// As the file has it: `cookie:uid`.
pub fn sticky_key(key: &StickyKey) -> String {
    match key {
        StickyKey::Header(name) => format!("header:{name}"),
        StickyKey::Cookie(name) => format!("cookie:{name}"),
        StickyKey::ClientIp => "client_ip".to_owned(),
    }
}

fn override_words(config: &Config, function: &Function, one: &Override) -> String {
    let Override { by, from, version: id } = one;
    let by = match by {
        OverrideBy::Header(name, None) => format!("header {name}"),
        OverrideBy::Header(name, Some(value)) => format!("header {name}: {value}"),
        OverrideBy::Cookie(name, None) => format!("cookie {name}"),
        OverrideBy::Cookie(name, Some(value)) => format!("cookie {name}={value}"),
        OverrideBy::Networks(nets) => format!("networks {}", nets_words(nets)),
        OverrideBy::Client(id) => {
            format!("client {}", name_at(&config.clients, id.index()))
        }
    };
    let from = match from {
        Some(nets) => format!(" from {}", nets_words(nets)),
        None => String::new(),
    };
    format!("{by}{from} to {}", version(function, *id))
}

pub(super) fn version_leaves(config: &Config, version: &Version) -> Vec<Leaf> {
    let Version { name: _, url: endpoint, ca, host, credential, max_concurrency } = version;
    let credential = credential.map(|id| name_at(&config.credentials, id.index()));
    vec![
        Leaf::one("url", url(endpoint)),
        Leaf::option("ca", "the system's", ca.as_ref().map(|path| path.display())),
        Leaf::option("host", "the url's", host.as_ref().map(quoted)),
        Leaf::option("credential", "none", credential),
        Leaf::option("concurrency.max", "the function's", *max_concurrency),
    ]
}

/// As it stands in the file; where it leads elsewhere than its authority says, that too.
pub fn url(endpoint: &Endpoint) -> String {
    let Endpoint { tls, host, port, base_path, authority } = endpoint;
    let scheme = if *tls { "https" } else { "http" };
    let bare = match host {
        EndpointHost::Address(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        host => host.to_string(),
    };
    let full = format!("{bare}:{port}");
    let usual = if *tls { 443 } else { 80 };
    let plain = *authority == full || (*authority == bare && *port == usual);
    let at = if plain { String::new() } else { format!(" at {full}") };
    format!("{scheme}://{authority}{base_path}{at}")
}

pub(super) fn credential_leaves(credential: &Credential) -> Vec<Leaf> {
    let Credential { name: _, kind, sign_body_max } = credential;
    let word = kind.as_str();
    let (mut keys, mut region, mut service, mut uin, mut sign_body) = (None, None, None, None, None);
    let (mut header, mut own, mut previous, mut token) = (None, None, None, None::<&IdToken>);
    match kind {
        CredentialKind::SigV4 { keys: k, region: r, service: s, sign_body: b } => {
            (keys, region, service, sign_body) = (Some(k), Some(r), Some(s), Some(b));
        }
        CredentialKind::Acs3 { keys: k, sign_body: b } => (keys, sign_body) = (Some(k), Some(b)),
        CredentialKind::Tc3 { keys: k, service: s, uin: u, sign_body: b } => {
            (keys, service, uin, sign_body) = (Some(k), Some(s), u.as_ref(), Some(b));
        }
        CredentialKind::Header { header: h, secret: s, previous: p } => {
            (header, own, previous) = (Some(h), Some(s), p.as_ref());
        }
        CredentialKind::GcpIdToken(t) => (header, token) = (Some(&t.header), Some(&**t)),
    }
    vec![
        Leaf::one("kind", word),
        Leaf::option("access_key_id", "none", keys.map(|keys| secret(&keys.id))),
        Leaf::option("access_key_secret", "none", keys.map(|keys| secret(&keys.secret))),
        Leaf::option("session_token", "none", keys.and_then(|keys| keys.token.as_ref()).map(secret)),
        Leaf::option("region", "none", region),
        Leaf::option("service", "none", service),
        Leaf::option("uin", "none", uin),
        Leaf::option("sign_body", "none", sign_body),
        Leaf::one("sign_body_max", bytes(*sign_body_max as u64)),
        Leaf::option("header", "none", header),
        Leaf::option("secret", "none", own.map(secret)),
        Leaf::option("previous", "none", previous.map(secret)),
        Leaf::option("service_account", "none", token.and_then(|t| t.service_account.as_ref()).map(secret)),
        Leaf::option("audience", "the url", token.and_then(|t| t.audience.as_ref()).map(quoted)),
        Leaf::option("token_url", "Google's", token.and_then(|t| t.token_url.as_ref()).map(url)),
        Leaf::option("ca", "the system's", token.and_then(|t| t.ca.as_ref()).map(|path| path.display())),
    ]
}

/// All but its limits, which are told with what becomes of their counts.
pub(super) fn route_leaves(config: &Config, route: &Route) -> Vec<Leaf> {
    let Route {
        name: _,
        listeners,
        hosts,
        path,
        methods,
        headers,
        query,
        priority,
        serves,
        version: pinned,
        clients,
        allow,
        deny,
        limits: _,
        encoded_slash,
        handling,
        forward_client_cert,
        criticality,
    } = route;
    let listeners =
        listeners.as_ref().map(|ids| ids.iter().map(|id| name_at(&config.listeners, id.index()).to_owned()));
    let clients = clients.as_ref().map(|ids| ids.iter().map(|id| name_at(&config.clients, id.index()).to_owned()));
    let methods = methods.as_ref().map(|methods| methods.iter().map(|method| method.to_string()));
    let pinned = pinned.map(|id| {
        let function = route.function().and_then(|function| config.functions.get(function.index()));
        function.map_or_else(String::new, |function| version(function, id).to_owned())
    });
    let headers =
        headers.iter().map(|HeaderCondition { name, value }| format!("{name}: {}", value.as_deref().unwrap_or("*")));
    let query =
        query.iter().map(|QueryCondition { name, value }| format!("{name}={}", value.as_deref().unwrap_or("*")));
    let encoded_slash = match encoded_slash {
        EncodedSlash::Refuse => "refuse",
        EncodedSlash::Keep => "keep",
    };
    let mut leaves = vec![
        list_or("listeners", "all", listeners),
        Leaf::list("host", "any", hosts.iter().map(host)),
        Leaf::one("path", path_words(path)),
        list_or("methods", "any", methods),
        Leaf::list("headers", "any", headers),
        Leaf::list("query", "any", query),
        Leaf::one("priority", priority),
        Leaf::option("version", "by weights", pinned),
        list_or("clients", "anyone", clients),
        networks_or("allow", "anyone", allow.as_ref()),
        Leaf::list("deny", "nobody", deny.as_slice()),
        Leaf::one("encoded_slash", encoded_slash),
        Leaf::one("forward_client_cert", forward_client_cert),
        Leaf::one("criticality", criticality.as_str()),
    ];
    leaves.extend(serves_leaves(config, serves));
    leaves.extend(handling_leaves(handling));
    leaves
}

pub(super) fn limit_use(config: &Config, one: &LimitUse) -> String {
    match one {
        LimitUse::Own(own) => limit(own),
        LimitUse::Shared(id) => format!("use {}", name_at(&config.limits, id.index())),
    }
}

pub(super) fn limit_leaves(limit: &Limit) -> Vec<Leaf> {
    let Limit { rate: count, burst, per, max_keys, dry_run, scope } = limit;
    vec![
        Leaf::one("rate", rate(*count)),
        Leaf::one("burst", burst),
        Leaf::one("per", limit_key(per)),
        Leaf::one("max_keys", max_keys),
        Leaf::one("dry_run", dry_run),
        Leaf::one("scope", scope.as_str()),
    ]
}

/// On one line, without what is the default: `100/s burst 50 per client_ip`.
pub(super) fn limit(limit: &Limit) -> String {
    let Limit { rate: per_period, burst, per, max_keys, dry_run, scope } = limit;
    let mut words = rate(*per_period);
    let a_second = per_period.count.get() / per_period.period.as_secs().clamp(1, 86_400) as u32;
    if burst.get() != a_second.max(1) {
        words += &format!(" burst {burst}");
    }
    if *per != LimitKey::Route {
        words += &format!(" per {}", limit_key(per));
    }
    if max_keys.get() != 1_000_000 {
        words += &format!(" max_keys {max_keys}");
    }
    if *dry_run {
        words += " dry_run";
    }
    if *scope == LimitScope::Cluster {
        words += " of the cluster";
    }
    words
}

/// As the file has it: `100/s`.
pub fn rate(Rate { count, period }: Rate) -> String {
    match (period.as_secs(), period.subsec_nanos()) {
        (1, 0) => format!("{count}/s"),
        (60, 0) => format!("{count}/min"),
        (3_600, 0) => format!("{count}/h"),
        (86_400, 0) => format!("{count}/d"),
        _ => format!("{count}/{}", duration(period)),
    }
}

/// As the file has it: `header:x-partner-id`.
pub fn limit_key(key: &LimitKey) -> String {
    match key {
        LimitKey::Route => "route".to_owned(),
        LimitKey::ClientIp => "client_ip".to_owned(),
        LimitKey::Client => "client".to_owned(),
        LimitKey::Header(name) => format!("header:{name}"),
        LimitKey::Cookie(name) => format!("cookie:{name}"),
        LimitKey::Query(name) => format!("query:{name}"),
    }
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Wildcard(suffix) => format!("*{suffix}"),
    }
}

fn path_words(path: &PathPattern) -> String {
    match path {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Params(segments) => segments
            .iter()
            .map(|segment| match segment {
                PathSegment::Literal(text) => format!("/{text}"),
                PathSegment::Param(name) => format!("/{{{name}}}"),
            })
            .collect(),
        PathPattern::Prefix(prefix) => format!("{prefix}/*"),
        PathPattern::Regex(regex) => format!("regex {}", regex.as_str()),
    }
}

fn secret(secret: &SecretRef) -> String {
    match secret {
        SecretRef::Env(name) => format!("env:{name}"),
        SecretRef::File(path) => format!("file:{}", path.display()),
        SecretRef::Credential(name) => format!("credential:{name}"),
    }
}

/// In the unit in which people write it: `250ms`, `60s`, `5m`, `2h`.
pub fn duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    match (secs, duration.subsec_nanos()) {
        (0, nanos) if nanos > 0 && nanos % 1_000_000 == 0 => format!("{}ms", nanos / 1_000_000),
        (secs, 0) if secs >= 3_600 && secs.is_multiple_of(3_600) => format!("{}h", secs / 3_600),
        (secs, 0) if secs >= 120 && secs.is_multiple_of(60) => format!("{}m", secs / 60),
        (secs, 0) => format!("{secs}s"),
        _ => format!("{duration:?}"),
    }
}

fn nets_words(nets: &Networks) -> String {
    nets.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// `none` where there is no list; a list without members lets nobody in.
fn networks_or(key: &'static str, none: &'static str, nets: Option<&Networks>) -> Leaf {
    list_or(key, none, nets.map(Networks::as_slice))
}

fn list_or(key: &'static str, none: &'static str, list: Option<impl IntoIterator<Item = impl fmt::Display>>) -> Leaf {
    match list {
        Some(list) => Leaf::list(key, "an empty list", list),
        None => Leaf::one(key, none),
    }
}

fn version(function: &Function, id: VersionId) -> &str {
    name_at(&function.versions, id.index())
}

/// Ids of a config always point into it; this is only total.
fn name_at<T: Named>(tables: &[T], index: usize) -> &str {
    tables.get(index).map_or("?", Named::name)
}

/// Free text, so that it can't be taken for one of the words beside it.
fn quoted(text: &String) -> String {
    format!("\"{text}\"")
}
