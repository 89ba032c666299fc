//! Texts → raw tables → [`Config`], with every problem of every file gathered on the way.

mod budget;
mod cache;
mod client;
mod cluster;
mod compression;
mod concurrency;
mod cors;
mod credential;
mod egress;
mod egress_parent;
mod function;
mod guard;
mod handling;
mod health;
mod listener;
mod mirror;
mod pages;
mod ramp;
mod retries;
mod route;
mod tables;

use std::{collections::HashMap, path::PathBuf, time::Duration};

use super::{
    model::{AccessSink, Admin, BodyBound, Config, Limit, ListenAddress, Log, LogFormat, Name, Server, SharedLimit},
    model::{LimitKey, Networks, SharedLimitId},
    raw::{self, Tables},
    read::Map,
    report::{Problem, Report, nearest},
    source::{At, Sources, Span},
    words::{Access, FilePath, NetworkRef, Patience, Text},
};

pub(super) use tables::include;

/// What the config points to, with the places that point there.
#[derive(Debug, Default)]
pub(super) struct Pointers {
    /// Certificate and key, each with its path.
    pub(super) certificates: Vec<(At<PathBuf>, At<PathBuf>)>,
    pub(super) authorities: Vec<At<PathBuf>>,
    /// Bodies of answers.
    pub(super) contents: Vec<At<PathBuf>>,
    /// Of callers' certificates, and of ACME directories: rustls must be able to use them.
    pub(super) anchors: Vec<At<PathBuf>>,
    pub(super) secrets: Vec<At<super::secret::SecretRef>>,
    /// Secrets that are hashes of what callers show.
    pub(super) digests: Vec<DigestPointer>,
    pub(super) jwks: Vec<At<PathBuf>>,
}

/// A file or variable with the SHA-256 of keys or passwords.
#[derive(Debug)]
pub(super) struct DigestPointer {
    pub(super) client: Name,
    /// The header of API keys, in which no two clients have the same; of a password nothing.
    pub(super) header: Option<http::HeaderName>,
    pub(super) at: At<super::secret::SecretRef>,
}

/// Parses the texts of a config, without looking at what they point to.
///
/// # Errors
///
/// The report of every problem in them.
pub fn parse(sources: &Sources) -> Result<Config, Report> {
    let mut report = Report::new(sources);
    let config = parse_into(sources, &mut report).map(|(config, _)| config);
    let _warnings = report.split_warnings();
    match config {
        Some(config) if report.is_empty() => Ok(config),
        _ => {
            report.sort();
            Err(report)
        }
    }
}

/// The tables as they are written; `None`: they are not even tables.
pub(super) fn read_tables(sources: &Sources) -> Option<raw::File> {
    tables::read(sources, &mut Report::new(sources))
}

/// `None`: the report says why.
pub(super) fn parse_into(sources: &Sources, report: &mut Report) -> Option<(Config, Pointers)> {
    let file = tables::read(sources, report)?;
    let mut scope = Scope {
        sources,
        report,
        file: &file,
        pointers: Pointers::default(),
        networks: Vec::new(),
        numbers: HashMap::new(),
    };
    scope.number("listener", &file.listeners);
    scope.number("client", &file.clients);
    scope.number("function", &file.functions);
    scope.number("limit", &file.limits);
    scope.number("credential", &file.credentials);
    let config = scope.config();
    Some((config?, scope.pointers))
}

/// What the tables can refer to while they are resolved.
struct Scope<'s> {
    sources: &'s Sources,
    report: &'s mut Report,
    file: &'s raw::File,
    pointers: Pointers,
    /// `[networks]`; `None`: its list was wrong, and the report says so.
    networks: Vec<(String, Option<Networks>)>,
    /// The number of each table in its kind, by the order of names.
    numbers: HashMap<(&'static str, &'s str), u32>,
}

impl<'s> Scope<'s> {
    fn number<T>(&mut self, kind: &'static str, tables: &'s Tables<T>) {
        let names = tables.keys().zip(0u32..);
        (self.numbers).extend(names.map(|(name, at)| ((kind, name.as_str()), at)));
    }

    fn config(&mut self) -> Option<Config> {
        let file = self.file;
        self.named_networks();
        let server = self.server(&file.server);
        let admin = self.admin(&file.admin);
        let log = self.log(&file.log);
        let listeners = self.listeners();
        let clients = self.each(&file.clients, Self::client);
        self.clients_apart();
        let credentials = self.each(&file.credentials, Self::credential);
        let functions = self.each(&file.functions, Self::function);
        let limits = self.each(&file.limits, |scope, name, _, limit| {
            Some(SharedLimit { name: name.clone(), limit: scope.limit(limit)? })
        });
        // A route with a problem of its own may not be what it looks like: nothing is said of its ties.
        let mut sound = Vec::new();
        let mut count = 0;
        let routes = self.each(&file.routes, |scope, name, span, raw| {
            let before = scope.report.len();
            let route = scope.route(name, span, raw)?;
            if !raw.broken && scope.report.len() == before {
                sound.push((count, span));
            }
            count += 1;
            Some(route)
        });
        let sound: Vec<_> = sound.into_iter().map(|(at, span)| (&routes[at], span)).collect();
        for problem in super::overlap::find(&sound) {
            self.report.push(problem);
        }
        let freeze = self.freeze(&file.freeze);
        let cluster = self.cluster(file.cluster.as_ref());
        let dns = server.as_ref().map(|server| &server.dns[..]).unwrap_or_default();
        let egress = self.egress(dns);
        Some(Config {
            server: server?,
            admin,
            log: log?,
            listeners,
            clients,
            functions,
            routes,
            limits,
            credentials,
            freeze,
            cluster,
            egress: egress?,
        })
    }

    /// Resolves every table of a kind. The ids that others hold count all tables: with one missing there is an
    /// error, and no config comes of it.
    fn each<T, U>(
        &mut self,
        tables: &Tables<T>,
        mut resolve: impl FnMut(&mut Self, &Name, Span, &T) -> Option<U>,
    ) -> Vec<U> {
        tables
            .iter()
            .filter_map(|(name, (span, table))| resolve(self, &Name::from(name.as_str()), *span, table))
            .collect()
    }

    fn server(&mut self, raw: &raw::Server) -> Option<Server> {
        let number = |at: &Option<At<raw::Connections>>| at.as_ref().and_then(|at| number(at.value.0));
        Some(Server {
            workers: raw.workers.as_ref().and_then(|at| self::number(at.value.0)),
            state_dir: match &raw.state_dir {
                Some(path) => self.path(path),
                None => PathBuf::from("/var/lib/gatepost"),
            },
            trusted_proxies: self.networks(raw.trusted_proxies.as_ref())?,
            max_connections: number(&raw.max_connections),
            max_requests: number(&raw.max_requests),
            max_memory: raw.max_memory.as_ref().map(|at| at.value.0),
            dns: raw.dns.iter().flat_map(|list| &list.value).map(|at| at.value.0).collect(),
            drain: patience(raw.drain.as_ref(), 30),
            auth_failures: auth_failures(raw.auth_failures.as_ref().map(|at| &at.value)),
            maintenance: self.maintenance(raw.maintenance.as_ref())?,
            error_pages: self.error_pages(raw.error_pages.as_ref())?,
            max_body: raw.max_body.as_ref().map_or(BodyBound::DEFAULT, |at| at.value),
            max_hops: raw.max_hops.as_ref().and_then(|at| u32::try_from(at.value.0).ok()).unwrap_or(10),
        })
    }

    fn admin(&mut self, raw: &raw::Admin) -> Admin {
        let token = raw.token.as_ref().map(|at| self.followed(at));
        Admin {
            address: raw
                .address
                .as_ref()
                .map_or_else(|| ListenAddress::Tcp(([127, 0, 0, 1], 9901).into()), |at| at.value.clone()),
            token,
        }
    }

    /// A secret that is kept for as long as the config is in force.
    fn followed(&mut self, at: &At<super::secret::SecretRef>) -> super::secret::SecretRef {
        let secret = self.secret(at);
        self.pointers.secrets.push(At { value: secret.clone(), span: at.span });
        secret
    }

    /// A reference to a secret; a relative path starts from the folder of the file that it stands in.
    fn secret(&self, at: &At<super::secret::SecretRef>) -> super::secret::SecretRef {
        match &at.value {
            super::secret::SecretRef::File(path) => {
                super::secret::SecretRef::File(self.sources.folder(at.span.file).join(path))
            }
            other => other.clone(),
        }
    }

    fn log(&mut self, raw: &raw::Log) -> Option<Log> {
        let sink = |scope: &Self, at: &At<Access>| match &at.value {
            Access::Stdout => AccessSink::Stdout,
            Access::Off => AccessSink::Off,
            Access::File(path) => AccessSink::File(scope.sources.folder(at.span.file).join(path)),
        };
        let access = raw.access.as_ref().map_or(AccessSink::Stdout, |at| sink(self, at));
        // The same place is one log, not two that write to one file.
        let egress = raw.egress.as_ref().map(|at| sink(self, at)).filter(|egress| *egress != access);
        Some(Log {
            access,
            egress,
            format: raw.format.as_ref().map_or(LogFormat::Json, |at| at.value),
            sample_ok: raw.sample_ok.as_ref().map_or(1.0, |at| at.value.0),
            query: raw.query.as_ref().is_some_and(|at| at.value),
        })
    }

    fn named_networks(&mut self) {
        let Map(lists) = &self.file.networks;
        for (name, list) in lists {
            let nets = list.as_ref().and_then(|list| {
                let mut nets = Vec::new();
                let mut whole = true;
                for at in &list.value {
                    match &at.value {
                        NetworkRef::Net(net) => nets.push(*net),
                        NetworkRef::Named(other) => {
                            whole = false;
                            self.report.push(
                                Problem::at(format!("`@{other}` stands in a list that has a name itself"), at.span)
                                    .label("expected a network or an address")
                                    .help("write its networks out"),
                            );
                        }
                    }
                }
                whole.then(|| Networks::new(nets))
            });
            self.networks.push((name.value.clone(), nets));
        }
    }

    /// The networks of a list, names resolved. An absent list is empty.
    fn networks(&mut self, list: Option<&At<raw::Networks>>) -> Option<Networks> {
        let mut nets = Vec::new();
        let mut whole = true;
        for at in list.iter().flat_map(|list| &list.value) {
            match &at.value {
                NetworkRef::Net(net) => nets.push(*net),
                NetworkRef::Named(name) => match self.networks.iter().find(|(known, _)| known == name) {
                    Some((_, Some(list))) => nets.extend(list.as_slice()),
                    Some((_, None)) => whole = false,
                    None => {
                        whole = false;
                        let known: Vec<&str> = self.networks.iter().map(|(name, _)| name.as_str()).collect();
                        let problem = dangling("network list", name, at.span, &known);
                        self.report.push(problem);
                    }
                },
            }
        }
        whole.then(|| Networks::new(nets))
    }

    /// The same for a list that must not be empty, because an empty one means nobody.
    fn some_networks(&mut self, list: &At<raw::Networks>, key: &str) -> Option<Networks> {
        let nets = self.networks(Some(list))?;
        if nets.is_empty() {
            self.report.push(
                Problem::at(format!("`{key}` is empty: nobody is meant"), list.span)
                    .label("expected at least one network"),
            );
            return None;
        }
        Some(nets)
    }

    fn limit(&mut self, raw: &raw::Limit) -> Option<Limit> {
        let rate = raw.rate.as_ref()?.value;
        let second = u64::from(rate.count.get()) / rate.period.as_secs().max(1);
        let second = u32::try_from(second).unwrap_or(u32::MAX);
        let or = |at: &Option<At<raw::Connections>>, default: u32| match at {
            Some(at) => number(at.value.0),
            None => std::num::NonZeroU32::new(default),
        };
        Some(Limit {
            rate,
            burst: or(&raw.burst, second.max(1))?,
            per: raw.per.as_ref().map_or(LimitKey::Route, |at| at.value.clone()),
            max_keys: or(&raw.max_keys, 1_000_000)?,
            dry_run: raw.dry_run.as_ref().is_some_and(|at| at.value),
            scope: self.limit_scope(raw),
        })
    }

    fn shared_limit(&mut self, name: &At<Text>) -> Option<SharedLimitId> {
        let file = self.file;
        self.find("limit", name, &file.limits).map(SharedLimitId)
    }

    /// The number of the table that a name means.
    fn find<T>(&mut self, kind: &'static str, name: &At<Text>, tables: &Tables<T>) -> Option<u32> {
        let found = (self.numbers.get(&(kind, name.value.0.as_str()))).copied();
        if found.is_none() {
            let known: Vec<&str> = tables.keys().map(String::as_str).collect();
            let problem = dangling(kind, &name.value.0, name.span, &known);
            self.report.push(problem);
        }
        found
    }

    /// A path of the file; a relative one starts from the folder of the file that it stands in.
    fn path(&self, at: &At<FilePath>) -> PathBuf {
        self.sources.folder(at.span.file).join(&at.value.0)
    }
}

fn auth_failures(raw: Option<&raw::AuthFailures>) -> Limit {
    let (rate, burst) = (raw.and_then(|raw| raw.rate.as_ref()), raw.and_then(|raw| raw.burst.as_ref()));
    let default = Limit::AUTH_FAILURES;
    Limit {
        rate: rate.map_or(default.rate, |at| at.value),
        burst: burst.and_then(|at| number(at.value.0)).unwrap_or(default.burst),
        ..default
    }
}

fn number(number: i64) -> Option<std::num::NonZeroU32> {
    u32::try_from(number).ok().and_then(std::num::NonZeroU32::new)
}

fn patience(at: Option<&At<Patience>>, default: u64) -> Duration {
    at.map_or_else(|| Duration::from_secs(default), |at| at.value.0)
}

/// A name that nothing has.
fn dangling(kind: &str, name: &str, span: Span, known: &[&str]) -> Problem {
    let problem = Problem::at(format!("no {kind} is called `{}`", name.escape_debug()), span);
    match nearest(name, known.iter().copied()) {
        Some(near) => problem.label(format!("no such {kind}")).help(format!("did you mean `{near}`?")),
        None if known.is_empty() => problem.label(format!("there is no {kind} at all")),
        None if known.len() <= 10 => problem.label(format!("expected {}", super::read::one_of(known))),
        None => problem.label(format!("no such {kind}")),
    }
}
