//! Names to addresses, in the background: one task per name, for as long as somebody holds its [`Addresses`]; and on request
//! ([`lookup`]).

pub mod lookup;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
    system_conf::parse_resolv_conf,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::Addresses;

/// When a name is looked up again, and how long an old answer serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// An answer's TTL counts as at least this.
    pub least: Duration,
    /// An answer's TTL counts as at most this.
    pub most: Duration,
    /// After a failed lookup; twice as long after each further one, up to `retry_most`.
    pub retry_least: Duration,
    pub retry_most: Duration,
    /// How long the last good answer serves while lookups fail.
    pub keep: Duration,
    /// For the lookup of one record type, all name servers and repetitions included.
    pub lookup: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            least: Duration::from_secs(5),
            most: Duration::from_secs(60),
            retry_least: Duration::from_secs(1),
            retry_most: Duration::from_secs(30),
            keep: Duration::from_secs(3600),
            lookup: Duration::from_secs(5),
        }
    }
}

/// Follows the addresses of names; cheap to clone.
///
/// Asks `/etc/hosts` first, then the name servers that it was given, or else those of `/etc/resolv.conf` (with its search domains). Both
/// files are read again at every lookup. An answer is used for its TTL, clamped to 5–60 s ([`Pace`]); while lookups fail, the last good one
/// goes on serving for up to an hour, and the next try comes after 1 s, 2 s, … 30 s.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    handle: Handle,
    pace: Pace,
    files: Files,
    /// The name servers; a change makes every name be looked up again at once.
    servers: watch::Sender<Arc<[SocketAddr]>>,
    names: Mutex<HashMap<Box<str>, Weak<Addresses>>>,
    /// Answers that another process had, for names that nobody has asked for yet.
    seeds: Mutex<HashMap<Box<str>, Vec<IpAddr>>>,
    at_once: Arc<Semaphore>,
}

/// Names that are looked up at the same time; each takes two sockets. A start with thousands of names must not eat the file limit.
const AT_ONCE: usize = 256;

/// Where the system says how names are resolved.
#[derive(Debug, Clone)]
pub struct Files {
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into() }
    }
}

impl Resolver {
    /// A resolver whose tasks run on `handle`. No `servers`: those of `/etc/resolv.conf`.
    pub fn new(handle: Handle, servers: &[SocketAddr]) -> Self {
        Self::paced(handle, servers, Pace::default(), Files::default())
    }

    /// [`new`](Self::new) with another pace and other files than the system's.
    pub fn paced(handle: Handle, servers: &[SocketAddr], pace: Pace, files: Files) -> Self {
        Self(Arc::new(Shared {
            handle,
            pace,
            files,
            servers: watch::Sender::new(servers.into()),
            names: Mutex::default(),
            seeds: Mutex::default(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
        }))
    }

    /// Asks `servers` from now on (none: those of `/etc/resolv.conf`). Where that is a change, every name is looked up again at once; until
    /// the new servers have answered, the old answers stay.
    pub fn use_servers(&self, servers: &[SocketAddr]) {
        self.0.servers.send_if_modified(|now| {
            let changed = **now != *servers;
            if changed {
                *now = servers.into();
            }
            changed
        });
    }

    /// The present answers, for another process.
    pub fn answers(&self) -> Vec<(String, Vec<IpAddr>)> {
        let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().filter_map(|(name, addresses)| Some((name.to_string(), addresses.upgrade()?)));
        let answers = known.map(|(name, addresses)| (name, addresses.current().to_vec()));
        answers.filter(|(_, ips)| !ips.is_empty()).collect()
    }

    /// Begins with the answers of another process. Each name is looked up at once all the same; until that is answered, they serve.
    pub fn seed(&self, answers: impl IntoIterator<Item = (String, Vec<IpAddr>)>) {
        let mut seeds = self.0.seeds.lock().unwrap_or_else(PoisonError::into_inner);
        seeds.extend(answers.into_iter().map(|(name, ips)| (name.into_boxed_str(), ips)));
    }

    /// The addresses of `name`, followed until nobody holds them any more. The same name gives the same [`Addresses`].
    pub fn watch(&self, name: &str) -> Arc<Addresses> {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let (addresses, released) = Addresses::unknown(name);
        let addresses = Arc::new(addresses);
        names.retain(|_, addresses| addresses.strong_count() > 0);
        names.insert(name.into(), Arc::downgrade(&addresses));
        let seed = self.0.seeds.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        let last = seed.map(Last::seeded).unwrap_or_default();
        if last.at.is_some() {
            addresses.store(&last.all());
        }
        let task = Follow {
            name: name.into(),
            addresses: Arc::downgrade(&addresses),
            servers: self.0.servers.subscribe(),
            pace: self.0.pace,
            files: self.0.files.clone(),
            at_once: Arc::clone(&self.0.at_once),
            client: None,
            last,
            failures: 0,
            failing: false,
        };
        self.0.handle.spawn(task.run(released));
        addresses
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("servers", &*self.0.servers.borrow()).finish_non_exhaustive()
    }
}

/// The task that follows one name.
struct Follow {
    name: Box<str>,
    addresses: Weak<Addresses>,
    servers: watch::Receiver<Arc<[SocketAddr]>>,
    pace: Pace,
    files: Files,
    at_once: Arc<Semaphore>,
    /// Whom we ask, and what that was built from.
    client: Option<(Source, TokioResolver)>,
    last: Last,
    /// In a row; counts how long to wait.
    failures: u32,
    /// Whether the last lookup failed; only a change of this is logged.
    failing: bool,
}

#[derive(PartialEq, Eq)]
enum Source {
    Servers(Arc<[SocketAddr]>),
    ResolvConf(Vec<u8>),
}

/// The last good answer, by family: when one family's lookup fails, only that one falls back.
#[derive(Default)]
struct Last {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    at: Option<Instant>,
}

impl Last {
    fn seeded(ips: Vec<IpAddr>) -> Self {
        let (v4, v6) = ips.into_iter().partition(IpAddr::is_ipv4);
        Self { v4, v6, at: Some(Instant::now()) }
    }
}

/// What one lookup of a name found.
struct Found {
    v4: Family,
    v6: Family,
    ttl: Duration,
}

enum Family {
    /// Sorted; empty where the name has none of this family.
    Are(Vec<IpAddr>),
    Unknown,
}

impl Follow {
    async fn run(mut self, mut released: oneshot::Receiver<Infallible>) {
        loop {
            self.servers.mark_unchanged();
            let found = tokio::select! {
                found = self.look_up() => found,
                _ = &mut released => return,
            };
            let wait = match found {
                Ok(found) => self.good(found),
                Err(why) => self.bad(&why),
            };
            tokio::select! {
                () = sleep(wait) => {}
                // The resolver may be gone while its answers are still in use: then go on as before.
                Ok(()) = self.servers.changed() => self.failures = 0,
                _ = &mut released => return,
            }
        }
    }

    /// Takes an answer; returns when to ask again.
    fn good(&mut self, found: Found) -> Duration {
        let old = self.last.all();
        if let Family::Are(ips) = found.v4 {
            self.last.v4 = ips;
        }
        if let Family::Are(ips) = found.v6 {
            self.last.v6 = ips;
        }
        self.last.at = Some(Instant::now());
        let new = self.last.all();
        if self.failing {
            info!(name = &*self.name, addresses = ?new, "name resolves again");
        } else if old != new {
            info!(name = &*self.name, ?old, ?new, "addresses of name changed");
        }
        self.failures = 0;
        self.failing = false;
        self.store(&new);
        found.ttl.clamp(self.pace.least, self.pace.most)
    }

    /// Takes a failure; returns when to try again.
    fn bad(&mut self, why: &str) -> Duration {
        let expired = self.last.at.is_some_and(|at| at.elapsed() >= self.pace.keep);
        if expired {
            self.last = Last::default();
            warn!(
                name = &*self.name,
                reason = why,
                kept_s = self.pace.keep.as_secs(),
                "name has not resolved for too long, its last addresses are given up"
            );
        } else if !self.failing {
            let kept = self.last.all();
            if kept.is_empty() {
                warn!(
                    name = &*self.name,
                    reason = why,
                    "name does not resolve: its requests are refused until it does"
                );
            } else {
                warn!(name = &*self.name, reason = why, ?kept, "name does not resolve, its last addresses stay in use");
            }
        }
        self.failing = true;
        let kept = self.last.all();
        self.store(&kept);
        let wait = self.pace.retry_least.saturating_mul(1 << self.failures.min(16)).min(self.pace.retry_most);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    fn store(&self, ips: &[IpAddr]) {
        if let Some(addresses) = self.addresses.upgrade() {
            addresses.store(ips);
        }
    }

    /// # Errors
    ///
    /// Why there are no addresses, for the log.
    async fn look_up(&mut self) -> Result<Found, String> {
        let name = Name::from_utf8(&self.name).map_err(|e| format!("not a name: {e}"))?;
        if let Some(found) = in_hosts(&self.files, &self.name, &name, self.pace.least) {
            return Ok(found);
        }
        let servers = Arc::clone(&self.servers.borrow());
        let client = client(&mut self.client, servers, &self.files)?;
        // Nobody closes it; if somebody did, we would go on without.
        let _place = self.at_once.acquire().await;
        ask(&client, name, self.pace.lookup).await
    }
}

/// Asks for both kinds of addresses.
async fn ask(client: &TokioResolver, name: Name, most: Duration) -> Result<Found, String> {
    let (v4, v6) = tokio::join!(
        timeout(most, client.lookup(name.clone(), RecordType::A)),
        timeout(most, client.lookup(name, RecordType::AAAA)),
    );
    let mut ttl = u32::MAX;
    let mut why = String::new();
    let mut family = |answer: Result<_, _>, absent: &mut bool| match answer {
        Ok(Ok(lookup)) => {
            let lookup: hickory_resolver::lookup::Lookup = lookup;
            let mut ips: Vec<IpAddr> = Vec::new();
            for record in lookup.answers() {
                // Of the aliases on the way too (RFC 1035 §3.2.1): the shortest counts.
                ttl = ttl.min(record.ttl);
                ips.extend(record.data.ip_addr());
            }
            ips.sort_unstable();
            ips.dedup();
            *absent = ips.is_empty();
            Family::Are(ips)
        }
        Ok(Err(e)) => {
            let e: NetError = e;
            *absent = e.is_no_records_found();
            why = if e.is_nx_domain() { "the name does not exist".to_owned() } else { e.to_string() };
            if *absent { Family::Are(Vec::new()) } else { Family::Unknown }
        }
        Err(_) => {
            why = format!("no answer within {most:?}");
            Family::Unknown
        }
    };
    let (mut no_v4, mut no_v6) = (false, false);
    let v6 = family(v6, &mut no_v6);
    let v4 = family(v4, &mut no_v4);
    let found = |family: &Family| matches!(family, Family::Are(ips) if !ips.is_empty());
    if found(&v4) || found(&v6) {
        let ttl = Duration::from_secs(u64::from(ttl));
        return Ok(Found { v4, v6, ttl });
    }
    Err(if no_v4 && no_v6 && why.is_empty() { "the name has no addresses".to_owned() } else { why })
}

/// What `/etc/hosts` says about the name; `localhost` is loopback in any case (RFC 6761 §6.3).
fn in_hosts(files: &Files, text: &str, name: &Name, ttl: Duration) -> Option<Found> {
    let mut hosts = Hosts::default();
    if let Ok(text) = std::fs::read(&files.hosts) {
        // A line that makes no sense costs no more than itself and those below it.
        let _ = hosts.read_hosts_conf(&*text);
    }
    let of = |kind| {
        let mut ips: Vec<IpAddr> = hosts
            .lookup_static_host(&Query::query(name.clone(), kind))
            .iter()
            .flat_map(|lookup| lookup.answers())
            .filter_map(|record| record.data.ip_addr())
            .collect();
        ips.sort_unstable();
        ips.dedup();
        ips
    };
    let (mut v4, mut v6) = (of(RecordType::A), of(RecordType::AAAA));
    if v4.is_empty() && v6.is_empty() {
        if text != "localhost" && !text.ends_with(".localhost") {
            return None;
        }
        v4 = vec![Ipv4Addr::LOCALHOST.into()];
        v6 = vec![Ipv6Addr::LOCALHOST.into()];
    }
    // The file has no TTL; looking is cheap.
    Some(Found { v4: Family::Are(v4), v6: Family::Are(v6), ttl })
}

/// The client that `slot` has, or a new one, where the name servers are others by now.
fn client(
    slot: &mut Option<(Source, TokioResolver)>,
    servers: Arc<[SocketAddr]>,
    files: &Files,
) -> Result<TokioResolver, String> {
    let source = if servers.is_empty() {
        let path = &files.resolv_conf;
        let text = std::fs::read(path).map_err(|e| format!("no name servers: cannot read {}: {e}", path.display()))?;
        Source::ResolvConf(text)
    } else {
        Source::Servers(servers)
    };
    if let Some((built_from, client)) = slot
        && *built_from == source
    {
        return Ok(client.clone());
    }
    let client = build(&source).map_err(|e| match source {
        Source::Servers(_) => e.to_string(),
        Source::ResolvConf(_) => format!("{}: {e}", files.resolv_conf.display()),
    })?;
    *slot = Some((source, client.clone()));
    Ok(client)
}

impl Last {
    fn all(&self) -> Vec<IpAddr> {
        self.v6.iter().chain(&self.v4).copied().collect()
    }
}

fn build(source: &Source) -> Result<TokioResolver, NetError> {
    let (config, mut options) = match source {
        Source::ResolvConf(text) => parse_resolv_conf(text)?,
        Source::Servers(servers) => {
            let servers = servers
                .iter()
                .map(|server| {
                    let at = |mut connection: ConnectionConfig| {
                        connection.port = server.port();
                        connection
                    };
                    NameServerConfig::new(
                        server.ip(),
                        true,
                        vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())],
                    )
                })
                .collect();
            (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
        }
    };
    // A lost datagram is sent again well before the lookup as a whole is given up ([`Pace::lookup`]).
    options.timeout = options.timeout.min(Duration::from_secs(2));
    options.attempts = options.attempts.max(1);
    // We keep answers ourselves, and know when to ask again.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    if config.name_servers().is_empty() {
        return Err(io::Error::other("it names no name server").into());
    }
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

#[cfg(test)]
mod tests;
