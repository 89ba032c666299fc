//! `gatepost explain`: what would happen to a request, by the rules that would decide it, without a running gatepost.

mod again;
mod cached;
mod edits;
mod on_platform;
mod queue;
mod told;
mod watched;

use std::{net::IpAddr, net::Ipv4Addr, sync::Arc};

use anyhow::anyhow;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header::HOST};

use super::{
    ConfigFile, check,
    failure::{Failure, Outcome},
    term::Terminal,
};
use crate::serve::jwks;
use crate::{
    config::{
        Config, Digest32, Loaded, SecretRef, changes,
        model::{
            ClientId, EncodedSlash, Function, JwksSource, LimitKey, LimitScope, LimitUse, ListenAddress, Listener,
            ListenerId, Route, RouteId, Serves, VersionId,
        },
    },
    decide::{
        Facts, Now, PickedBy, Reason,
        auth::{self, Asking, Callers, Denied, Gate, KeyRing, Kind, Secrets},
        client, content_length, cookie, cors, fill, hops, host, limit, path,
        route::{Fate, Found, Router},
        split::{PickFacts, Split},
    },
    release::Book,
};
use told::{Answered, Destination, LimitTold, Lost, Told};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The request's method.
    method: Method,
    /// Its URL: `https://api.example.com/orders/7`, or a path with `-H 'Host: …'`.
    #[arg(value_parser = url)]
    url: Uri,
    /// A header of the request; may be given several times.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The address that the connection comes from.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// The listener that it comes in by. Default: the first that fits the URL's scheme and port.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// Say of every route why it lost, not only of the close ones.
    #[arg(long)]
    all: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

fn url(text: &str) -> Result<Uri, String> {
    text.parse().map_err(|error| match error {
        _ if !text.starts_with('/') && !text.contains("://") => format!("write it whole: `http://{text}`"),
        error => format!("{error}: what is no letter, digit or one of -._~/?&=:%+ must be percent-encoded"),
    })
}

/// `name: value`, as curl takes it.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write `name: value`")?;
    let name = name.trim().parse().map_err(|_| format!("`{}` is no header's name", name.trim()))?;
    let value = value.trim().parse().map_err(|_| "its value holds characters that no header may have")?;
    Ok((name, value))
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let loaded = check::loaded(&options.file, term)?;
    let told = explain(options, &loaded, term)?;
    if options.json {
        term.json(&serde_json::to_value(&told)?)?;
    } else {
        told.print(options.all, term)?;
    }
    Ok(())
}

fn explain(options: &Options, loaded: &Loaded, term: &mut Terminal) -> Outcome<Told> {
    let config = &loaded.config;
    let (listener, listener_config) = listener(options, config)?;
    let mut headers: HeaderMap = HeaderMap::new();
    for (name, value) in &options.headers {
        headers.append(name, value.clone());
    }
    let authority = match (headers.get(HOST), options.url.authority()) {
        (Some(host), _) => host.to_str().map_err(|_| usage("the Host header is not ASCII"))?.to_owned(),
        (None, Some(authority)) => authority.to_string(),
        (None, None) => return Err(usage("the URL has no host: write it whole, or add -H 'Host: …'")),
    };
    let client_ip = client::address(options.from, &headers, &config.server.trusted_proxies);
    let callers = Callers::new(config, &Remembered(loaded), None, Now::default());
    let client = callers.by_network(client_ip);
    let mut told = Told {
        method: options.method.to_string(),
        listener: listener_config.name.to_string(),
        listener_address: listener_config.address.to_string(),
        from: options.from,
        client_ip,
        ..Told::default()
    };
    told.known_as(client, config);
    // The gate's and `ingress`'s word, before any route is asked.
    if matches!(options.method, Method::CONNECT | Method::TRACE) {
        told.refuse(Reason::MethodNotAllowed, format!("{} is not served here", options.method));
        return Ok(told);
    }
    let host = match host::parse(&authority) {
        Ok(host) => host.name,
        Err(problem) => {
            told.refuse(Reason::BadRequest, problem.to_string());
            return Ok(told);
        }
    };
    told.host = host.to_string();
    told.authority = authority.clone();
    let normal = match path::normalise(options.url.path()) {
        Ok(normal) => normal,
        Err(problem) => {
            told.refuse(Reason::BadRequest, problem.to_string());
            return Ok(told);
        }
    };
    told.path = normal.path.to_string();
    let facts = Facts {
        listener,
        method: &options.method,
        host: &host,
        path: &normal.path,
        query: options.url.query(),
        headers: &headers,
    };
    let router = Router::new(config);
    told.others = others(config, router.explain(&facts));
    let asked = cors::asked_method(facts.method, facts.headers).and_then(|method| {
        match router.find(&Facts { method: &method, ..facts }) {
            Found::Route(id) => Some(&config.routes[id.index()]).filter(|route| route.handling.cors.is_some()),
            _ => None,
        }
    });
    if let Some(route) = asked {
        told.route = Some(route.name.to_string());
        told.edits = edits::told(route, &headers);
        told.answered = Some(Answered { status: 204, location: None });
        return Ok(told);
    }
    let (id, route) = match router.find(&facts) {
        Found::Route(id) => (id, &config.routes[id.index()]),
        Found::NoRoute => {
            told.refuse(Reason::NoRoute, "no route matches".to_owned());
            return Ok(told);
        }
        Found::MethodNotAllowed(allowed) => {
            told.refuse(Reason::MethodNotAllowed, format!("allowed here: {allowed}"));
            return Ok(told);
        }
    };
    told.route = Some(route.name.to_string());
    if normal.encoded_slash && route.encoded_slash == EncodedSlash::Refuse {
        told.refuse(
            Reason::BadRequest,
            "the path has an encoded slash; `encoded_slash = \"keep\"` lets it through".into(),
        );
        return Ok(told);
    }
    if let Err(reason) = client::admit(route, client_ip) {
        told.refuse(reason, format!("{client_ip} is not let in by `allow` and `deny` of route {}", route.name));
        return Ok(told);
    }
    let asking = Asking {
        ip: client_ip,
        headers: &headers,
        certificate: None,
        now: Now::default(),
        unix: &|| jiff::Timestamp::now().as_second(),
        tokens: None,
    };
    let client = match callers.admit(id, &asking) {
        Ok(client) => client,
        Err(denied) => {
            told.known_as(denied.client, config);
            told.refuse(denied.reason, not_let_in(config, route, client_ip, &denied, callers.gate(id)));
            return Ok(told);
        }
    };
    told.known_as(client, config);
    if let Some(bound) = config.body_bound(route).filter(|_| route.function().is_some()) {
        told.body = Some(changes::size(bound));
        if content_length(&headers).is_some_and(|length| length > bound) {
            told.refuse(Reason::BodyTooLarge, format!("at most {} are taken here", changes::size(bound)));
            return Ok(told);
        }
    }
    told.limits = limits(config, route, &facts, &told);
    told.edits = edits::told(route, &headers);
    let maintenance = route.handling.maintenance.as_ref().or(config.server.maintenance.as_ref());
    if let Some(maintenance) = maintenance.filter(|m| !m.allow.contains(client_ip)) {
        told.refuse(Reason::Maintenance, format!("{client_ip} is not in its `allow`"));
        if let Some(refused) = &mut told.refused {
            refused.status = maintenance.status.as_u16();
        }
        return Ok(told);
    }
    let function = match &route.serves {
        Serves::Function(id) => &config.functions[id.index()],
        Serves::Redirect(redirect) => {
            let to = fill::location(redirect, route, &host, &told.path, options.url.query());
            told.answered = Some(Answered { status: redirect.status.as_u16(), location: Some(to) });
            return Ok(told);
        }
        Serves::Respond(respond) => {
            told.answered = Some(Answered { status: respond.status.as_u16(), location: None });
            return Ok(told);
        }
    };
    told.function = Some(function.name.to_string());
    let pick = PickFacts {
        pin: route.version,
        client_ip,
        client,
        headers: &headers,
        worker: 0,
        // A caller that would be handed a cookie is told of as such, so any number will do.
        dice: &|| 0,
    };
    let rest = destination(options, route, &told.path);
    release(&mut told, config, function, &pick, &rest, term);
    if headers.contains_key(hops::X_GATEPOST_HOP)
        && let Err(refusal) = hops::here(&headers, config.server.max_hops)
    {
        told.refuse(refusal.reason, refusal.detail.into_owned());
    }
    on_platform::explain(&mut told, function, &headers, &rest);
    cached::explain(&mut told, options, (route, function), (&headers, callers.gate(id)), &rest);
    queue::explain(&mut told, function, route);
    watched::explain(&mut told, config, function);
    told.retries = again::told(function, &told.method);
    told.health = again::health(function);
    Ok(told)
}

/// The secrets of the files, and the keys that the service fetched last.
struct Remembered<'l>(&'l Loaded);

impl Secrets for Remembered<'_> {
    fn digests(&self, secret: &SecretRef) -> &[Digest32] {
        self.0.material.digests(secret)
    }

    fn keys(&self, source: &JwksSource) -> Option<Arc<KeyRing>> {
        match source {
            JwksSource::File(_) => self.0.material.keys(source),
            JwksSource::Url(url) => {
                let keys = jwks::cached(&self.0.config.server.state_dir, url, &self.0.material);
                Some(Arc::new(KeyRing::new(keys.map(Arc::new))))
            }
        }
    }
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::Usage(text.into())
}

/// The named listener, or the first that fits the URL.
fn listener<'c>(options: &Options, config: &'c Config) -> Outcome<(ListenerId, &'c Listener)> {
    let numbered = || (0..).map(ListenerId).zip(&config.listeners);
    if let Some(name) = &options.listener {
        return numbered().find(|(_, listener)| *listener.name == **name).ok_or_else(|| {
            let names: Vec<&str> = config.listeners.iter().map(|listener| &*listener.name).collect();
            usage(format!("no listener `{name}`; there are: {}", names.join(", ")))
        });
    }
    let https = options.url.scheme_str() == Some("https");
    let port = options.url.port_u16().unwrap_or(if https { 443 } else { 80 });
    // The port says more than the scheme: in front of gatepost another may end TLS, or map ports.
    let fits = |listener: &Listener| {
        let same_port = matches!(&listener.address, ListenAddress::Tcp(address) if address.port() == port);
        (same_port, listener.tls.is_empty() != https)
    };
    let best = numbered().map(|(_, listener)| fits(listener)).max();
    numbered()
        .find(|(_, listener)| Some(fits(listener)) == best)
        .ok_or_else(|| Failure::Failed(anyhow!("the config has no listener, so no request comes in")))
}

fn others(config: &Config, fates: Vec<(RouteId, Fate)>) -> Vec<Lost> {
    fates
        .into_iter()
        .filter(|(_, fate)| *fate != Fate::Wins)
        .map(|(id, fate)| Lost {
            route: config.routes[id.index()].name.to_string(),
            why: fate.to_string(),
            close: !matches!(fate, Fate::Host | Fate::Path | Fate::Listener),
        })
        .collect()
}

/// Which client it is not, and why.
fn not_let_in(config: &Config, route: &Route, ip: IpAddr, denied: &Denied, gate: Option<&Gate>) -> String {
    let names = |ids: &[ClientId]| {
        let names: Vec<&str> = ids.iter().map(|id| &*config.clients[id.index()].name).collect();
        names.join(", ")
    };
    let wanted = names(route.clients.as_deref().unwrap_or_default());
    match (denied.failure, denied.client) {
        (Some(auth::Failure { kind: Kind::None, why }), _) => {
            let expects = gate.map_or("", Gate::expects);
            format!("{}: {expects}; route {} is for {wanted}", why.sentence(), route.name)
        }
        (Some(auth::Failure { kind, why }), _) => {
            format!("{}: {}; route {} is for {wanted}", kind.as_str(), why.sentence(), route.name)
        }
        (None, Some(client)) => {
            format!(
                "{ip} is not let in by `clients` of route {}: it is {}, and they are {wanted}",
                route.name,
                names(&[client])
            )
        }
        (None, None) => format!("{ip} is not let in by `clients` of route {}, which are {wanted}", route.name),
    }
}

fn limits(config: &Config, route: &Route, facts: &Facts<'_>, told: &Told) -> Vec<LimitTold> {
    route
        .limits
        .iter()
        .map(|used| {
            let (shared, limit) = match used {
                LimitUse::Own(limit) => (None, limit),
                LimitUse::Shared(id) => {
                    let shared = &config.limits[id.index()];
                    (Some(shared.name.to_string()), &shared.limit)
                }
            };
            LimitTold {
                shared,
                rate: changes::rate(limit.rate),
                burst: limit.burst.get(),
                per: changes::limit_key(&limit.per),
                key: limit_key(&limit.per, facts, told),
                dry_run: limit.dry_run,
                cluster: limit.scope == LimitScope::Cluster,
            }
        })
        .collect()
}

/// What a request is counted by, for people; a missing key counts by the address, as in `decide::limit`.
fn limit_key(per: &LimitKey, facts: &Facts<'_>, told: &Told) -> String {
    let address = match told.client_ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let net = ipnet::Ipv6Net::new(ip, 64).map(|net| net.trunc().to_string());
            net.unwrap_or_else(|_| ip.to_string())
        }
    };
    let found = match per {
        LimitKey::Route => return "all callers".to_owned(),
        LimitKey::ClientIp => return address,
        LimitKey::Client => told.client.clone(),
        LimitKey::Header(name) => {
            facts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        }
        LimitKey::Cookie(name) => cookie::value(facts.headers, name).map(str::to_owned),
        LimitKey::Query(name) => facts
            .query
            .and_then(|query| limit::parameter(query, name))
            .map(|value| String::from_utf8_lossy(&value.collect::<Vec<_>>()).into_owned()),
    };
    found.filter(|key| !key.is_empty()).unwrap_or_else(|| format!("its address {address}, for want of that key"))
}

/// What of the URL goes on to a version: the path as the route edits it, and the query.
fn destination(options: &Options, route: &Route, path: &str) -> String {
    let seen = fill::function_path(route, path);
    match options.url.query() {
        Some(query) => format!("{seen}?{query}"),
        None => seen.into_owned(),
    }
}

/// Which version it meets, or may meet, and where that is.
fn release(
    told: &mut Told,
    config: &Config,
    function: &Function,
    facts: &PickFacts<'_>,
    path: &str,
    term: &mut Terminal,
) {
    let book = Book::as_written(&config.server.state_dir, config).unwrap_or_else(|error| {
        term.warn(format_args!("{error}: told as the file has it"));
        Book::default()
    });
    let in_force = book.standings().in_force(function);
    let shares = in_force.shares.clone();
    told.releases = book.told(config, jiff::Timestamp::now());
    told.releases.retain(|told| *told.function == *function.name);
    let split = Split::by(function, in_force, 1, None);
    let Some(pick) = split.pick(facts) else {
        told.refuse(Reason::NoVersion, format!("no version of {} has a weight", function.name));
        return;
    };
    told.picked_by = Some(pick.picked_by.as_str());
    told.weights_from = Some(pick.weights_from.as_str());
    if pick.picked_by == PickedBy::Sticky
        && let Some(placed) = split.placed(facts)
    {
        told.bucket = Some(placed.bucket);
        told.sticky_key = Some(placed.key.map_or_else(|| "the cookie that was issued".to_owned(), changes::sticky_key));
    }
    told.issues_cookie = pick.issue_cookie.is_some();
    // Dealing, and a new cookie, may take it to any version that has a weight.
    let open = pick.picked_by == PickedBy::Weight || pick.issue_cookie.is_some();
    let share = |id: VersionId| shares[id.index()];
    told.destinations = (0..)
        .map(VersionId)
        .zip(&function.versions)
        .filter(|(id, _)| if open { share(*id).0 > 0 } else { *id == pick.version })
        .map(|(id, version)| {
            let scheme = if version.url.tls { "https" } else { "http" };
            let host = match (&version.host, function.preserve_host) {
                (_, true) => told.authority.clone(),
                (Some(host), false) => host.clone(),
                (None, false) => version.url.authority.clone(),
            };
            Destination {
                version: version.name.to_string(),
                percent: open.then(|| share(id).to_string()),
                url: format!("{scheme}://{}{}{path}", version.url.authority, version.url.base_path),
                host,
                credential: version.credential.map(|id| config.credentials[id.index()].name.to_string()),
            }
        })
        .collect();
}

#[cfg(test)]
mod tests;
