//! The checks of `health`: a call to each version now and then, from this thread's runtime, signed as the gate's calls are. What they find goes
//! to the version's counts, which [`release::outliers`](crate::release::outliers) judges, and to the addresses.
//!
//! A probe asks one address of the version, in turn, since what runs behind a function's URL is the same whichever of the platform's addresses leads there;
//! addresses that rest are asked each time, for only a probe brings them back. So a version costs one call each `every`, while all is well.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Method;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout},
};

use crate::{
    admin::CheckStatus,
    config::{
        Loaded,
        changes::duration,
        model::{Check, EndpointHost, Function, FunctionId, Health, Name, ProbeMethod, UpstreamHttp, VersionId},
    },
    decide::{Class, budget::is_billed, health::Counts},
    ingress::live::{self, Live},
    observe::metrics::CheckResult,
    platform::outcome::{by_status, outcome},
    release::outliers::may_be_out,
    upstream::{
        Candidates, Target,
        probe::{
            alpn,
            call::Question,
            dial::{Tls, dial},
            host, system_roots,
        },
    },
};

/// Probes under way at a time.
const AT_ONCE: usize = 64;

/// All checks of a config.
#[derive(Default)]
pub struct Checks {
    each: BTreeMap<(Name, Name), One>,
    roots: Arc<OnceCell<Result<Arc<RootCertStore>, String>>>,
    places: Arc<Places>,
}

struct Places(Semaphore);

impl Default for Places {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

/// One version's.
struct One {
    /// Another version, or another check, is another one.
    target: Arc<Target>,
    check: Check,
    due: Duration,
    /// Whose turn it is.
    turn: usize,
    seen: Arc<Seen>,
}

/// What the last probe found.
#[derive(Default)]
struct Seen {
    is_busy: AtomicBool,
    last: Mutex<Option<Last>>,
}

#[derive(Clone)]
struct Last {
    state: &'static str,
    detail: String,
}

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Well(String),
    Failed(String),
    /// It says nothing of the version: throttled, or not sent.
    Nothing(String),
}

/// All that a probe needs; the config may be another one before it is over.
struct Plan {
    live: Arc<Live>,
    function: FunctionId,
    version: VersionId,
    health: Health,
    check: Check,
    target: Arc<Target>,
    counts: Arc<Counts>,
    seen: Arc<Seen>,
    tls: Option<(Trust, ServerName<'static>)>,
    url_path: String,
    host: String,
    /// The one to ask for the version, and those that rest.
    addresses: Vec<SocketAddr>,
    resting: Vec<SocketAddr>,
}

enum Trust {
    Given(Arc<RootCertStore>),
    System(Arc<OnceCell<Result<Arc<RootCertStore>, String>>>),
}

impl Checks {
    /// Sends what is due. To be called again and again, from the runtime that the probes are to run on.
    pub fn look(&mut self, loaded: &Loaded, live: &Arc<Live>) {
        let now = Duration::from_nanos(live::now().0);
        let mut before = std::mem::take(&mut self.each);
        for (id, function) in (0..).map(FunctionId).zip(&live.snapshot.config.functions) {
            let Some(health) = &function.health else { continue };
            let Some(check) = &health.check else { continue };
            for (number, version) in (0..).map(VersionId).zip(&function.versions) {
                let key = (function.name.clone(), version.name.clone());
                let target = live.target(id, number);
                let same = |one: &One| one.target.is_at_the_place_of(target) && one.check == *check;
                let mut one = match before.remove(&key).filter(same) {
                    Some(one) => one,
                    None => One {
                        target: Arc::clone(target),
                        check: check.clone(),
                        // Not all at once, however many there are.
                        due: now + first(check.every),
                        turn: 0,
                        seen: Arc::default(),
                    },
                };
                one.target = Arc::clone(target);
                if now >= one.due && !one.seen.is_busy.load(Relaxed) {
                    one.due = now + check.every;
                    one.turn = one.turn.wrapping_add(1);
                    self.send(loaded, live, (id, function), number, health, &one);
                }
                self.each.insert(key, one);
            }
        }
    }

    fn send(
        &self,
        loaded: &Loaded,
        live: &Arc<Live>,
        (id, function): (FunctionId, &Function),
        number: VersionId,
        health: &Health,
        one: &One,
    ) {
        let Some(counts) = live.snapshot.health[id.index()].as_ref().map(|all| &all[number.index()]) else { return };
        let version = &function.versions[number.index()];
        let mut plan = Plan {
            live: Arc::clone(live),
            function: id,
            version: number,
            health: health.clone(),
            check: one.check.clone(),
            target: Arc::clone(&one.target),
            counts: Arc::clone(counts),
            seen: Arc::clone(&one.seen),
            tls: None,
            url_path: version.url.base_path.clone(),
            host: host(&live.snapshot.config, function, version, id.index()),
            addresses: Vec::new(),
            resting: one.target.resting().iter().map(|rests| rests.address).take(Candidates::MOST - 1).collect(),
        };
        let mut all = one.target.addresses();
        all.retain(|address| !plan.resting.contains(address));
        if all.is_empty() {
            let why = if plan.resting.is_empty() { "its name does not resolve" } else { "all its addresses rest" };
            plan.tell(&Found::Failed(why.to_owned()));
        } else {
            plan.addresses.push(all[one.turn % all.len()]);
        }
        if version.url.tls {
            let name = match &version.url.host {
                EndpointHost::Address(ip) => ServerName::from(*ip),
                EndpointHost::Name(name) => match ServerName::try_from(name.clone()) {
                    Ok(name) => name,
                    // The config takes no names that aren't.
                    Err(_) => return,
                },
            };
            let trust = match &version.ca {
                None => Trust::System(Arc::clone(&self.roots)),
                Some(ca) => {
                    let mut roots = RootCertStore::empty();
                    // The load has found that each can be used.
                    let certificates = loaded.material.authority(ca).unwrap_or_default();
                    roots.add_parsable_certificates(certificates.iter().cloned());
                    Trust::Given(Arc::new(roots))
                }
            };
            plan.tls = Some((trust, name));
        }
        one.seen.is_busy.store(true, Relaxed);
        let places = Arc::clone(&self.places);
        tokio::spawn(async move {
            // Nobody closes it.
            let _place = places.0.acquire().await;
            plan.ask_all().await;
            plan.seen.is_busy.store(false, Relaxed);
        });
    }

    /// For the status.
    pub fn told(&self) -> Vec<CheckStatus> {
        let told = |((function, version), one): (&(Name, Name), &One)| {
            let last = one.seen.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            CheckStatus {
                function: function.to_string(),
                version: version.to_string(),
                state: last.as_ref().map_or("not asked yet", |last| last.state).to_owned(),
                detail: last.map_or_else(String::new, |last| last.detail),
            }
        };
        self.each.iter().map(told).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }
}

/// Somewhere in the first second.
fn first(every: Duration) -> Duration {
    let nanos = u64::try_from(every.min(Duration::from_secs(1)).as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(live::roll() % nanos.max(1))
}

impl Plan {
    async fn ask_all(&self) {
        for address in &self.addresses {
            let found = self.ask(*address).await;
            self.of_address(*address, &found);
            self.tell(&found);
        }
        for address in &self.resting {
            let found = self.ask(*address).await;
            self.of_address(*address, &found);
            self.count(&found);
        }
    }

    fn of_address(&self, address: SocketAddr, found: &Found) {
        match found {
            Found::Well(_) => self.target.address_checked(address, true, live::now(), &self.health),
            Found::Failed(_) => self.target.address_checked(address, false, live::now(), &self.health),
            Found::Nothing(_) => {}
        }
    }

    fn count(&self, found: &Found) {
        let result = match found {
            Found::Well(_) => CheckResult::Passed,
            Found::Failed(_) => CheckResult::Failed,
            Found::Nothing(_) => CheckResult::Nothing,
        };
        self.live.handles.checked(self.function, self.version, result);
    }

    /// Of the version: counted, shown, and logged where it turns.
    fn tell(&self, found: &Found) {
        self.count(found);
        let function = &self.live.snapshot.config.functions[self.function.index()];
        let version = &*function.versions[self.version.index()].name;
        let fall = self.check.fall;
        let (state, detail) = match found {
            Found::Well(detail) => {
                let missed = self.counts.checked(true).0;
                if missed >= fall {
                    tracing::info!(function = %function.name, %version, "its check passes again: {detail}");
                }
                ("passes", detail.clone())
            }
            Found::Failed(detail) => {
                let (_, missed) = self.counts.checked(false);
                if missed == fall {
                    let times = if fall == 1 { String::new() } else { format!(", {fall} times in a row") };
                    // A canary that is put out is told of beside this.
                    let on = if may_be_out(function, self.version) {
                        ""
                    } else {
                        "; it serves on, for nobody stands in for it"
                    };
                    tracing::error!(function = %function.name, %version, "its check fails{times}: {detail}{on}");
                }
                ("fails", format!("{detail}; {missed} in a row"))
            }
            Found::Nothing(detail) => ("not known", detail.clone()),
        };
        self.live.handles.check_fails(self.function, self.version, self.counts.missed() >= fall);
        *self.seen.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Last { state, detail });
    }

    /// Asks, if the function's budget has a call to spare.
    async fn ask(&self, address: SocketAddr) -> Found {
        let function = &self.live.snapshot.config.functions[self.function.index()];
        let money = function.budget.as_deref().zip(self.live.snapshot.ledgers[self.function.index()].as_deref());
        let Some((budget, ledger)) = money else { return self.call(address).await.0 };
        let Some(taken) = ledger.spare(budget) else {
            return Found::Nothing("not asked: the function's budget of the day is spent".to_owned());
        };
        let (found, billed) = self.call(address).await;
        ledger.end(taken, billed.map(|took| budget.cost(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))));
        found
    }

    /// What came of it, and how long it took where the platform bills it.
    async fn call(&self, address: SocketAddr) -> (Found, Option<Duration>) {
        let asked = format!("{} {} of {address}", self.check.method.as_str(), self.check.path);
        let function = &self.live.snapshot.config.functions[self.function.index()];
        let began = Instant::now();
        let method = match self.check.method {
            ProbeMethod::Head => Method::HEAD,
            ProbeMethod::Get => Method::GET,
        };
        let target = format!("{}{}", self.url_path, self.check.path);
        let question = Question { method: &method, target: &target, host: &self.host, agent: "gatepost-check" };
        let signer = self.live.signer(self.function, self.version);
        // Never unsigned.
        let fields = match question.fields(signer.map(AsRef::as_ref)) {
            Ok(fields) => fields,
            Err(why) => return (Found::Nothing(format!("{asked}: not asked: {why}")), None),
        };
        let tls = match &self.tls {
            None => None,
            Some((trust, name)) => {
                let roots = match trust {
                    Trust::Given(roots) => Ok(Arc::clone(roots)),
                    Trust::System(once) => once.get_or_init(system_roots).await.clone(),
                };
                match roots {
                    Ok(roots) => Some(Tls { roots, name: name.clone(), alpn: alpn(function.http) }),
                    Err(why) => {
                        return (Found::Nothing(format!("{asked}: this machine's trusted certificates: {why}")), None);
                    }
                }
            }
        };
        let prior = function.http == UpstreamHttp::Http2;
        let patience = self.check.timeout;
        let line = match dial(address, tls.as_ref(), prior, patience.min(function.timeouts.connect)).await {
            Ok(line) => line,
            Err(broken) => return (Found::Failed(format!("{asked}: {}", broken.what)), None),
        };
        let left = patience.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        let answer = timeout(left, question.ask(line, fields, left)).await;
        let answer = answer.unwrap_or_else(|_| Err(String::new()));
        let mut billed = None;
        let (class, found) = match answer {
            Ok(answer) => {
                let outcome = outcome(&function.platform, answer.status, &answer.headers);
                billed = outcome.and_then(|outcome| outcome.billed);
                let class = outcome.map_or_else(|| by_status(answer.status), |outcome| outcome.class);
                let text = format!("{asked}: {} in {} ms", answer.status, began.elapsed().as_millis());
                (class, judge(&self.check, answer.status, class, text))
            }
            Err(_) if began.elapsed() >= patience => {
                (Class::Timeout, Found::Failed(format!("{asked}: no answer within {}", duration(patience))))
            }
            Err(why) => (Class::Function, Found::Failed(format!("{asked}: {why}"))),
        };
        (found, billed.unwrap_or_else(|| is_billed(class)).then(|| began.elapsed()))
    }
}

/// What an answer says of the version. A failure that comes as a 200 is none the less one.
fn judge(check: &Check, status: u16, class: Class, text: String) -> Found {
    match class {
        Class::Throttled => Found::Nothing(format!("{text} (throttled)")),
        Class::Ok | Class::ClientError if check.is_good(status) => Found::Well(text),
        Class::Ok | Class::ClientError => Found::Failed(text),
        // A good status may be one that only looks like a failure.
        class if check.is_good(status) && class == by_status(status) => Found::Well(text),
        class => Found::Failed(format!("{text} ({})", class.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_status_and_by_what_its_platform_says() {
        let check = |statuses| Check {
            method: ProbeMethod::Head,
            path: "/".to_owned(),
            every: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            statuses,
            fall: 3,
            rise: 2,
        };
        let good = check(vec![(200, 299)]);
        let of = |check: &Check, status, class| match judge(check, status, class, String::new()) {
            Found::Well(_) => "well",
            Found::Failed(_) => "failed",
            Found::Nothing(_) => "nothing",
        };
        assert_eq!(of(&good, 204, Class::Ok), "well");
        assert_eq!(of(&good, 301, Class::Ok), "failed");
        assert_eq!(of(&good, 404, Class::ClientError), "failed");
        assert_eq!(of(&good, 200, Class::Function), "failed", "a failure dressed as success");
        assert_eq!(of(&good, 429, Class::Throttled), "nothing");
        assert_eq!(of(&check(vec![(404, 404)]), 404, Class::ClientError), "well");
        assert_eq!(of(&check(vec![(500, 500)]), 500, Class::Function), "well", "who writes it means it");
        assert_eq!(of(&check(vec![(500, 500)]), 500, Class::Platform), "failed");
    }
}
