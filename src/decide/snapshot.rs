//! A config, arranged for deciding; and the decision itself: client address → route → client → limits → version.

use std::{borrow::Cow, cell::RefCell, collections::HashMap, net::IpAddr, sync::Arc};

use http::{HeaderMap, Method, header};

use super::{
    ClientCertificate, Facts, Now, Reason,
    auth::{Asking, Callers, Denied, NoSecrets, Secrets, TokenCache},
    budget::{Ledger, ledgers},
    client, cors, egress, fill,
    health::{self, Health},
    host,
    limit::{self, Ask, KeyFacts, Limiter, Refused, Standing, take_all},
    path,
    retry::{self, Budget},
    route::{AllowedMethods, Found, Router},
    split::{InForce, Pick, PickFacts, Split},
};
use crate::config::{
    Config,
    changes::size,
    model::{
        ClientId, EncodedSlash, Function, FunctionId, LimitKey, LimitUse, ListenerId, Maintenance, Name, Route,
        RouteId, Serves,
    },
};

/// Everything that a decision needs of one config. Shared by all workers, swapped whole.
///
/// Cheap to clone: its parts are shared.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub config: Arc<Config>,
    /// Its number and the hash of its texts.
    pub generation: u64,
    pub hash: String,
    pub router: Arc<Router>,
    /// Who may call, and by what it is known.
    pub callers: Arc<Callers>,
    /// By [`FunctionId`](crate::config::model::FunctionId).
    pub splits: Vec<Arc<Split>>,
    /// What each function's requests may be sent again, by the same; `None`: without `retries`.
    pub budgets: Arc<[Option<Arc<Budget>>]>,
    /// How the versions' requests end, by the same; `None`: without `health`.
    pub health: Health,
    /// What functions' calls cost today, by the same; `None`: nobody asks.
    pub ledgers: Arc<[Option<Arc<Ledger>>]>,
    /// By [`RouteId`], in the order of the route's `limits`.
    pub limits: Arc<[Box<[Arc<Limiter>]>]>,
    /// By [`SharedLimitId`](crate::config::model::SharedLimitId).
    shared: Arc<[Arc<Limiter>]>,
    /// How it stands with the other members; the same for all snapshots of a process.
    pub cluster: Arc<Standing>,
    /// The limits that members share, each once.
    pub clustered: Arc<[Arc<Limiter>]>,
    /// The way out.
    pub egress: Arc<egress::Policy>,
}

/// Arranges `config`. What still means the same goes on from `previous`: the counts of limits, the place in dealing.
pub fn compile(
    config: Config,
    generation: u64,
    hash: String,
    workers: usize,
    previous: Option<&Snapshot>,
    now: Now,
) -> Snapshot {
    compile_as_things_stand(config, generation, hash, workers, previous, now, &InForce::file)
}

/// The same; `weights` says which weights of a function are in force.
pub fn compile_as_things_stand(
    config: Config,
    generation: u64,
    hash: String,
    workers: usize,
    previous: Option<&Snapshot>,
    now: Now,
    weights: &dyn Fn(&Function) -> InForce,
) -> Snapshot {
    let old_functions: HashMap<&str, &Arc<Split>> =
        previous.map(|p| p.config.functions.iter().map(|f| &*f.name).zip(&p.splits).collect()).unwrap_or_default();
    let splits = config
        .functions
        .iter()
        .map(|function| {
            let previous = old_functions.get(&*function.name).map(|split| &***split);
            Arc::new(Split::by(function, weights(function), workers, previous))
        })
        .collect();

    let health = health::counts(&config, previous);
    let budgets = retry::budgets(&config, workers, previous);

    let cluster = previous.map(|p| p.cluster.clone()).unwrap_or_default();
    let old_shared: HashMap<&str, &Arc<Limiter>> =
        previous.map(|p| p.config.limits.iter().map(|l| &*l.name).zip(&*p.shared).collect()).unwrap_or_default();
    let shared: Arc<[_]> = config
        .limits
        .iter()
        .map(|shared| {
            let old = old_shared.get(&*shared.name).copied();
            Limiter::within(&cluster, "limit", &shared.limit, shared.name.clone(), old, now)
        })
        .collect();

    let old_routes: HashMap<&str, RouteId> = previous
        .map(|p| (0..).map(RouteId).zip(&p.config.routes).map(|(id, r)| (&*r.name, id)).collect())
        .unwrap_or_default();
    let limits: Arc<[Box<[Arc<Limiter>]>]> = config
        .routes
        .iter()
        .map(|route| {
            let old = previous.zip(old_routes.get(&*route.name)).map(|(p, id)| own_limits(p, *id)).unwrap_or_default();
            limits_of(route, &shared, old, &cluster, now)
        })
        .collect();
    let clustered = limit::of_cluster(&shared, &limits);

    let before = previous.into_iter().flat_map(|p| p.config.functions.iter().map(|f| &f.name).zip(p.ledgers.iter()));
    let ledgers = ledgers(&config, before).into();
    let router = Router::new(&config);
    let callers = Callers::new(&config, &NoSecrets, previous.map(|p| &*p.callers), now);
    let egress = egress::Policy::new(&config, previous.map(|p| &*p.egress), now);
    Snapshot {
        generation,
        hash,
        router: Arc::new(router),
        callers: Arc::new(callers),
        splits,
        budgets,
        ledgers,
        health,
        limits,
        shared,
        cluster,
        clustered,
        egress: Arc::new(egress),
        config: Arc::new(config),
    }
}

/// A route's own limits in `snapshot`, with what they count by.
fn own_limits(snapshot: &Snapshot, route: RouteId) -> Vec<(&LimitKey, &Arc<Limiter>)> {
    let uses = &snapshot.config.routes[route.index()].limits;
    uses.iter()
        .zip(&snapshot.limits[route.index()])
        .filter_map(|(one, limiter)| match one {
            LimitUse::Own(limit) => Some((&limit.per, limiter)),
            LimitUse::Shared(_) => None,
        })
        .collect()
}

impl Snapshot {
    /// Every limiter, by a name that means the same in another process with another config.
    pub fn limiters(&self) -> Vec<(String, &Arc<Limiter>)> {
        let shared =
            self.config.limits.iter().zip(&*self.shared).map(|(l, limiter)| (format!("limit {}", l.name), limiter));
        let mut all: Vec<_> = shared.collect();
        for (route, id) in self.config.routes.iter().zip((0..).map(RouteId)) {
            let mut seen: HashMap<&LimitKey, u32> = HashMap::new();
            for (per, limiter) in own_limits(self, id) {
                // As a reload goes on: the nth with a `per`.
                let nth = seen.entry(per).or_default();
                all.push((format!("route {} {per:?} {nth}", route.name), limiter));
                *nth += 1;
            }
        }
        all.extend(self.egress.limiters().map(|(rule, limiter)| (format!("egress {rule}"), limiter)));
        all
    }
}

/// The nth limit with a `per` goes on with the counts of the nth old one with that `per`
/// ([`changes`](crate::config::changes) tells so).
fn limits_of(
    route: &Route,
    shared: &[Arc<Limiter>],
    mut old: Vec<(&LimitKey, &Arc<Limiter>)>,
    cluster: &Arc<Standing>,
    now: Now,
) -> Box<[Arc<Limiter>]> {
    (0..)
        .zip(&route.limits)
        .map(|(n, one)| match one {
            LimitUse::Shared(id) => shared[id.index()].clone(),
            LimitUse::Own(limit) => {
                let label = limit_label(route, n);
                let at = old.iter().position(|(per, _)| **per == limit.per);
                let old = at.map(|at| old.remove(at).1);
                Limiter::within(cluster, "route", limit, label, old, now)
            }
        })
        .collect()
}

/// What a route's own limit is called in headers: the route's name, and its number where it isn't the first.
fn limit_label(route: &Route, n: usize) -> Name {
    match n {
        0 => route.name.clone(),
        n => format!("{}-{}", route.name, n + 1).into(),
    }
}

/// A request as it came, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    pub listener: ListenerId,
    /// Who the connection is from (PROXY header, or the socket).
    pub peer: IpAddr,
    /// What the caller proved by TLS; `None`: it showed no certificate, or the listener asks for none.
    pub certificate: Option<&'r ClientCertificate>,
    pub method: &'r Method,
    /// Host or `:authority`, as sent; `None` only in HTTP/1.0.
    pub authority: Option<&'r str>,
    /// The target's path, as sent.
    pub path: &'r str,
    pub query: Option<&'r str>,
    pub headers: &'r HeaderMap,
}

/// What was decided of a request.
#[derive(Debug)]
pub struct Decision<'r> {
    pub client_ip: IpAddr,
    pub client: Option<ClientId>,
    pub route: Option<RouteId>,
    /// Lower case, without port; as sent where it is no host.
    pub host: Cow<'r, str>,
    /// Normalised; as sent where it has no normal form.
    pub path: Cow<'r, str>,
    /// Where it goes, or the refusal.
    pub outcome: Result<Goes, Refusal>,
}

/// Where a request goes.
#[derive(Debug)]
pub enum Goes {
    /// To a version of the route's function.
    Function(Pick),
    /// Elsewhere: the caller is told the URL.
    Redirect(String),
    /// Nowhere: the route has an answer of its own.
    Respond,
    /// Nowhere: a browser asks whether it may (WHATWG Fetch, §3.2.2).
    Preflight,
}

/// Why a request goes nowhere.
#[derive(Debug)]
pub struct Refusal {
    pub reason: Reason,
    /// What exactly, for the caller; empty: the reason says it all.
    pub detail: Cow<'static, str>,
    pub allow: Option<AllowedMethods>,
    /// The limit that refused: its place in the route's limits.
    pub limit: Option<Refused>,
    /// Who could not show who it is.
    pub denied: Option<Denied>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: Cow::Borrowed(""), allow: None, limit: None, denied: None }
    }
}

impl Refusal {
    /// The body has more than `bound` bytes, or says so.
    pub fn too_large(bound: u64) -> Self {
        Self { detail: format!("at most {} are taken here", size(bound)).into(), ..Reason::BodyTooLarge.into() }
    }

    fn bad(detail: impl ToString) -> Self {
        Self { detail: Cow::Owned(detail.to_string()), ..Reason::BadRequest.into() }
    }
}

/// Who asks: a worker's number (only it deals under this number), and its dice for sticky cookies.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    pub worker: usize,
    pub now: Now,
    pub dice: &'a dyn Fn() -> u128,
    /// Seconds since 1970, for tokens.
    pub unix: &'a dyn Fn() -> i64,
    /// The worker's own.
    pub tokens: Option<&'a RefCell<TokenCache>>,
}

impl Snapshot {
    /// Takes the hashes and keys by which clients are known: [`compile`] knows none, and lets in nobody who needs some.
    pub fn know(&mut self, secrets: &dyn Secrets, now: Now) {
        self.callers = Arc::new(Callers::new(&self.config, secrets, Some(&self.callers), now));
    }

    /// Puts other weights of one function in force. Where they are the same, nothing changes; dealing begins anew where they aren't.
    pub fn weigh(&mut self, function: FunctionId, in_force: InForce, workers: usize) {
        let split = &mut self.splits[function.index()];
        if *split.in_force() != in_force {
            *split = Arc::new(Split::by(&self.config.functions[function.index()], in_force, workers, Some(split)));
        }
    }

    /// Decides what becomes of a request. Takes from its limits and deals its version: to be called once.
    pub fn decide<'r>(&self, request: &Request<'r>, asker: Asker<'_>) -> Decision<'r> {
        let client_ip = client::address(request.peer, request.headers, &self.config.server.trusted_proxies);
        let mut decision = Decision {
            client_ip,
            client: None,
            route: None,
            host: Cow::Borrowed(request.authority.unwrap_or("")),
            path: Cow::Borrowed(request.path),
            outcome: Err(Reason::NoRoute.into()),
        };
        decision.outcome = self.outcome(request, asker, &mut decision);
        decision
    }

    fn outcome<'r>(
        &self,
        request: &Request<'r>,
        asker: Asker<'_>,
        decision: &mut Decision<'r>,
    ) -> Result<Goes, Refusal> {
        if let Some(authority) = request.authority {
            decision.host = host::parse(authority).map_err(Refusal::bad)?.name;
        }
        // RFC 9110 §9.3.7: `OPTIONS *` asks about the server as a whole; routes are of paths.
        let normal = path::normalise(request.path).map_err(Refusal::bad)?;
        decision.path = normal.path;

        let facts = Facts {
            listener: request.listener,
            method: request.method,
            host: &decision.host,
            path: &decision.path,
            query: request.query,
            headers: request.headers,
        };
        if let Some(id) = self.preflight(&facts) {
            decision.route = Some(id);
            // No page gets to say who calls, or spends from a limit, by asking first. Networks that are shut out are so all the same.
            client::admit(&self.config.routes[id.index()], decision.client_ip)?;
            return Ok(Goes::Preflight);
        }
        let id = match self.router.find(&facts) {
            Found::Route(id) => id,
            Found::NoRoute => return Err(Reason::NoRoute.into()),
            Found::MethodNotAllowed(allow) => {
                return Err(Refusal { allow: Some(allow), ..Reason::MethodNotAllowed.into() });
            }
        };
        decision.route = Some(id);
        let route = &self.config.routes[id.index()];
        if normal.encoded_slash && route.encoded_slash == EncodedSlash::Refuse {
            return Err(Refusal::bad("the path has an encoded slash, which this route does not take"));
        }

        if let Err(reason) = client::admit(route, decision.client_ip) {
            // For the log.
            decision.client = self.callers.by_network(decision.client_ip);
            return Err(reason.into());
        }
        let asking = Asking {
            ip: decision.client_ip,
            headers: request.headers,
            certificate: request.certificate,
            now: asker.now,
            unix: asker.unix,
            tokens: asker.tokens,
        };
        decision.client = self.callers.admit(id, &asking).map_err(|denied| {
            decision.client = denied.client;
            let expects = self.callers.gate(id).map_or("", |gate| gate.expects());
            let detail = if denied.failure.is_some() { expects.to_owned() } else { String::new() };
            Refusal { denied: Some(denied), detail: detail.into(), ..denied.reason.into() }
        })?;

        if route.function().is_some()
            && let Some(bound) = self.config.body_bound(route)
            && declared_length(request.headers).is_some_and(|length| length > bound)
        {
            return Err(Refusal::too_large(bound));
        }

        self.take_limits(id, request, decision)
            .map_or(Ok(()), |asks| asks.take(asker.now))
            .map_err(|refused| Refusal { limit: Some(refused), ..Reason::RateLimited.into() })?;

        if let Some(maintenance) = self.maintenance(id)
            && !maintenance.allow.contains(decision.client_ip)
        {
            return Err(Reason::Maintenance.into());
        }
        let function = match &route.serves {
            Serves::Function(id) => *id,
            Serves::Redirect(redirect) => {
                let to = fill::location(redirect, route, &decision.host, &decision.path, request.query);
                return Ok(Goes::Redirect(to));
            }
            Serves::Respond(_) => return Ok(Goes::Respond),
        };
        let pick = PickFacts {
            pin: route.version,
            client_ip: decision.client_ip,
            client: decision.client,
            headers: request.headers,
            worker: asker.worker,
            dice: asker.dice,
        };
        self.splits[function.index()].pick(&pick).map(Goes::Function).ok_or_else(|| Reason::NoVersion.into())
    }

    /// The route with `cors` that the request which is asked about would meet.
    fn preflight(&self, facts: &Facts<'_>) -> Option<RouteId> {
        let method = cors::asked_method(facts.method, facts.headers)?;
        match self.router.find(&Facts { method: &method, ..*facts }) {
            Found::Route(id) if self.config.routes[id.index()].handling.cors.is_some() => Some(id),
            _ => None,
        }
    }

    /// The route's maintenance, or everyone's.
    pub fn maintenance(&self, route: RouteId) -> Option<&Maintenance> {
        let own = self.config.routes[route.index()].handling.maintenance.as_ref();
        own.or(self.config.server.maintenance.as_ref())
    }

    /// The limits that a request is under, with its keys; `None`: none.
    fn take_limits(&self, route: RouteId, request: &Request<'_>, decision: &Decision<'_>) -> Option<Asks<'_>> {
        let limiters = &self.limits[route.index()];
        let first = limiters.first()?;
        let facts = KeyFacts {
            client_ip: decision.client_ip,
            client: decision.client.map(|id| &*self.config.clients[id.index()].name),
            headers: request.headers,
            query: request.query,
        };
        let ask = |limiter| Ask { limiter, key: Limiter::key(limiter, &facts) };
        if limiters.len() > FEW {
            return Some(Asks::Many(limiters.iter().map(|l| ask(&**l)).collect()));
        }
        let mut few = [ask(first); FEW];
        for (place, limiter) in few.iter_mut().zip(limiters).skip(1) {
            *place = ask(limiter);
        }
        Some(Asks::Few(few, limiters.len()))
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// So many limits of one route cost no allocation.
const FEW: usize = 4;

enum Asks<'s> {
    Few([Ask<'s>; FEW], usize),
    Many(Vec<Ask<'s>>),
}

impl Asks<'_> {
    fn take(&self, now: Now) -> Result<(), Refused> {
        match self {
            Self::Few(asks, n) => take_all(&asks[..*n], now),
            Self::Many(asks) => take_all(asks, now),
        }
    }
}
