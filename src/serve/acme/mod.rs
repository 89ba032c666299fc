//! Certificates by ACME (RFC 8555, HTTP-01): got, kept, renewed, and swapped in without a reload.
//!
//! A [`Slot`] is where a certificate will be: listeners hold it from the start, and serve what is in it. A task per slot fills
//! it, at two thirds of the certificate's life again, and waits longer after each failure: authorities count.

mod client;
mod order;
mod store;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::task::JoinHandle;

use self::{
    client::Https,
    order::Failure,
    store::{Attempts, Store},
};
use crate::{
    config::{
        Loaded,
        model::{Acme, TlsCertificate},
    },
    ingress::challenge::Challenges,
    observe::Metrics,
    serve::certificate::Held,
};

/// What makes two certificates the same one: who gives it, and for which names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    directory: String,
    /// Sorted.
    domains: Vec<String>,
}

impl Order {
    pub(super) fn of(acme: &Acme) -> Self {
        let mut domains = acme.domains.clone();
        domains.sort_unstable();
        Self { directory: acme.directory.clone(), domains }
    }
}

/// A certificate's place.
#[derive(Debug)]
pub struct Slot {
    held: ArcSwapOption<Held>,
    /// What was not got for these names, but serves some of them until it is.
    is_stopgap: Mutex<bool>,
    problem: Mutex<Option<String>>,
    domains: Vec<String>,
}

impl Slot {
    pub fn held(&self) -> Option<Arc<Held>> {
        self.held.load_full()
    }

    pub fn domains(&self) -> &[String] {
        &self.domains
    }

    /// Why it has no (new) certificate, if that is so.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn fill(&self, held: Held) {
        self.held.store(Some(Arc::new(held)));
        *self.is_stopgap.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.tell(None);
    }

    /// When to ask for the next certificate: at two thirds of this one's life, less up to a twenty-fourth by chance, so that
    /// those who came together don't come back together.
    fn due(&self) -> i64 {
        let stopgap = *self.is_stopgap.lock().unwrap_or_else(PoisonError::into_inner);
        match self.held() {
            Some(held) if !stopgap => {
                let life = held.not_after.saturating_sub(held.not_before).max(0);
                held.not_before.saturating_add(life / 3 * 2 - chance(life / 24))
            }
            _ => 0,
        }
    }
}

/// What alone vouches for a directory.
type Roots = Arc<[CertificateDer<'static>]>;

/// All slots of a config, before it is in force.
pub(super) struct Wanted(BTreeMap<Order, (Acme, Arc<Slot>, Option<Roots>)>);

impl Wanted {
    pub(super) fn slot(&self, acme: &Acme) -> Option<&Arc<Slot>> {
        self.0.get(&Order::of(acme)).map(|(_, slot, _)| slot)
    }
}

struct Running {
    settings: Acme,
    roots: Option<Roots>,
    slot: Arc<Slot>,
    task: JoinHandle<()>,
}

/// Keeps the certificates of the config in force.
pub(super) struct Manager {
    state_dir: PathBuf,
    challenges: Arc<Challenges>,
    metrics: Arc<Metrics>,
    running: BTreeMap<Order, Running>,
    /// One order at a time per directory: its account is made once, and nobody is asked by a crowd.
    turns: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

impl Manager {
    pub(super) fn new(state_dir: &Path, challenges: Arc<Challenges>, metrics: Arc<Metrics>) -> Self {
        let state_dir = state_dir.to_path_buf();
        Self { state_dir, challenges, metrics, running: BTreeMap::new(), turns: HashMap::new() }
    }

    /// Another process keeps them from now on.
    pub(super) fn end(&mut self) {
        for (_, running) in std::mem::take(&mut self.running) {
            running.task.abort();
        }
    }

    /// The slots that a config needs: those that are there, and new ones with what is kept of them.
    ///
    /// # Errors
    ///
    /// A `ca` that can't vouch for a directory.
    pub(super) fn prepare(&self, loaded: &Loaded) -> Result<Wanted, String> {
        let mut wanted = BTreeMap::new();
        for listener in &loaded.config.listeners {
            for certificate in &listener.tls {
                let TlsCertificate::Acme(acme) = certificate else { continue };
                let order = Order::of(acme);
                let roots = match &acme.ca {
                    None => None,
                    Some(path) => {
                        let roots = loaded.material.authority(path).ok_or("a ca of acme was not read")?;
                        // Only the system's may be slow.
                        Https::new(Some(roots)).map_err(|e| format!("listener {}: acme: ca: {e}", listener.name))?;
                        Some(Arc::from(roots))
                    }
                };
                let slot = match self.running.get(&order) {
                    Some(running) => running.slot.clone(),
                    None => self.new_slot(&order),
                };
                wanted.entry(order).or_insert_with(|| (acme.clone(), slot, roots));
            }
        }
        Ok(Wanted(wanted))
    }

    fn new_slot(&self, order: &Order) -> Arc<Slot> {
        let stored = Store::new(&self.state_dir, order).certificate();
        // Names were added, or another authority is to be asked: what served so far goes on until then.
        let shares = |slot: &Slot| slot.domains.iter().any(|name| order.domains.contains(name));
        let stopgap = self.running.values().map(|r| &r.slot).filter(|slot| shares(slot)).find_map(|slot| slot.held());
        let is_stopgap = stored.is_none();
        let held = stored.map(Arc::new).or(stopgap);
        let problem = held.is_none().then(|| "waits for its first certificate".to_owned());
        Arc::new(Slot {
            held: ArcSwapOption::new(held),
            is_stopgap: Mutex::new(is_stopgap),
            problem: Mutex::new(problem),
            domains: order.domains.clone(),
        })
    }

    /// Begins with what is new, goes on with what is there, ends what is no longer wanted.
    pub(super) fn apply(&mut self, wanted: Wanted) {
        let mut old = std::mem::take(&mut self.running);
        self.metrics.keep_acme(wanted.0.keys().filter_map(|order| order.domains.first().cloned()).collect());
        for (order, (settings, slot, roots)) in wanted.0 {
            let before = old.remove(&order);
            let is_same = |before: &Running| before.settings == settings && before.roots == roots;
            let running = match before {
                Some(before) if is_same(&before) && !before.task.is_finished() => before,
                before => {
                    // Whoever changed the settings waits to see whether they are right now.
                    let is_changed = before.as_ref().is_some_and(|before| !is_same(before));
                    if let Some(before) = before {
                        before.task.abort();
                    }
                    let task = Task {
                        settings: settings.clone(),
                        store: Store::new(&self.state_dir, &order),
                        slot: slot.clone(),
                        roots: roots.clone(),
                        challenges: self.challenges.clone(),
                        metrics: self.metrics.clone(),
                        turn: self.turns.entry(order.directory.clone()).or_default().clone(),
                        is_changed,
                    };
                    Running { settings, roots, slot, task: tokio::spawn(task.run()) }
                }
            };
            self.running.insert(order, running);
        }
        for gone in old.into_values() {
            gone.task.abort();
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

struct Task {
    settings: Acme,
    store: Store,
    slot: Arc<Slot>,
    roots: Option<Roots>,
    challenges: Arc<Challenges>,
    metrics: Arc<Metrics>,
    turn: Arc<tokio::sync::Mutex<()>>,
    is_changed: bool,
}

/// No order takes longer, from the account to the chain.
const LONGEST: Duration = Duration::from_secs(300);
/// After a success nobody asks again before this, whatever the certificate's dates and the clock say.
const REST: i64 = 3600;

impl Task {
    async fn run(self) {
        let https = match self.https().await {
            Ok(https) => https,
            Err(error) => {
                self.slot.tell(Some(format!("cannot ask {}: {error}", self.settings.directory)));
                tracing::error!(directory = self.settings.directory, error, "acme: cannot read the roots to believe");
                return;
            }
        };
        let mut attempts = self.store.attempts();
        if self.is_changed {
            attempts = Attempts::default();
            let _turn = self.turn.lock().await;
            if self.store.account().is_some_and(|account| account.email != self.settings.email)
                && let Err(Failure::Refused(error) | Failure::Unreachable(error)) =
                    order::account(&self.settings, &self.store, &https).await
            {
                tracing::warn!(directory = self.settings.directory, error, "acme: the account's email is not changed");
            }
        }
        loop {
            until(self.slot.due().max(attempts.next)).await;
            let turn = self.turn.lock().await;
            let order = order::obtain(&self.settings, &self.store, &https, &self.challenges);
            let result = tokio::time::timeout(LONGEST, order)
                .await
                .unwrap_or_else(|_| Err(Failure::Refused("the order took too long".to_owned())));
            drop(turn);
            attempts = self.tell(result, attempts, &https);
            if let Err(error) = self.store.keep_attempts(attempts) {
                tracing::warn!(%error, "degraded: server.state_dir does not keep when acme was asked");
            }
        }
    }

    async fn https(&self) -> Result<Https, String> {
        let roots = self.roots.clone();
        // The system's roots are many files.
        let made = tokio::task::spawn_blocking(move || Https::new(roots.as_deref()).map_err(|e| e.to_string())).await;
        made.map_err(|e| e.to_string())?
    }

    /// Tells what came of an order, and says when to ask again.
    fn tell(&self, result: Result<Held, Failure>, before: Attempts, https: &Https) -> Attempts {
        let names = self.settings.domains.join(" ");
        let first = self.slot.domains.first().map_or("", String::as_str);
        let asked_to_wait = https.asked_to_wait();
        let failure = match result {
            Ok(held) => {
                let life = held.not_after - held.not_before;
                let until = Timestamp::from_second(held.not_after).map_or_else(|e| e.to_string(), |t| t.to_string());
                self.slot.fill(held);
                self.metrics.count_acme(first, true);
                tracing::info!(names, until, directory = self.settings.directory, "acme: a new certificate is served");
                return Attempts { failures: 0, next: now() + REST.min(life / 3) };
            }
            Err(failure) => failure,
        };
        self.metrics.count_acme(first, false);
        let wait = wait(&failure, before.failures, asked_to_wait);
        let next = now() + wait;
        let when = Timestamp::from_second(next).map_or_else(|e| e.to_string(), |t| t.to_string());
        let (Failure::Refused(why) | Failure::Unreachable(why)) = failure;
        let goes_on = match self.slot.held() {
            Some(_) => "the one that is there goes on being served",
            None => "there is none to serve yet",
        };
        tracing::warn!(
            names,
            directory = self.settings.directory,
            error = why,
            next = when,
            "acme: no new certificate; {goes_on}"
        );
        let word = if self.slot.held().is_some() { "no new certificate" } else { "waits for its first certificate" };
        self.slot.tell(Some(format!("{word}: {why}; asks again at {when}")));
        Attempts { failures: before.failures.saturating_add(1), next }
    }
}

/// How long to wait after a failure, in seconds. Let's Encrypt takes five failed validations an hour: with these waits there are four.
fn wait(failure: &Failure, failures: u32, asked: Option<Duration>) -> i64 {
    let (first, longest): (i64, i64) = match failure {
        Failure::Unreachable(_) => (2, 3600),
        Failure::Refused(_) => (300, 6 * 3600),
    };
    let wait = first.saturating_mul(1i64 << failures.min(20)).min(longest);
    let wait = wait + chance(wait / 4);
    // RFC 8555 §6.6, within a day: what asks for more than that wants to be heard of again.
    let asked = asked.map_or(0, |asked| i64::try_from(asked.as_secs()).unwrap_or(i64::MAX).min(86_400));
    wait.max(asked)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// Waits by the wall's clock, which may be set meanwhile.
async fn until(then: i64) {
    loop {
        let left = then - now();
        let Ok(left @ 1..) = u64::try_from(left) else { return };
        tokio::time::sleep(Duration::from_secs(left.min(600))).await;
    }
}

/// A number from 0 to less than `below` (0 where that is 0). For spreading, not for secrets.
fn chance(below: i64) -> i64 {
    let dice = RandomState::new().hash_one(()) >> 1;
    i64::try_from(dice).unwrap_or(0) % below.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_waits_longer_each_time_and_as_long_as_it_is_asked_to() {
        let refused = Failure::Refused(String::new());
        let waits: Vec<i64> = (0..10).map(|n| wait(&refused, n, None)).collect();
        for (n, wait) in waits.iter().enumerate() {
            let least = (300 << n).min(6 * 3600);
            assert!((least..=least + least / 4).contains(wait), "{waits:?}");
        }
        // Let's Encrypt: five failed validations per name and hour.
        let in_an_hour =
            waits.iter().scan(0, |at, wait| Some(std::mem::replace(at, *at + wait))).filter(|at| *at < 3600);
        assert!(in_an_hour.count() <= 4);
        assert_eq!(wait(&refused, 0, Some(Duration::from_secs(7200))), 7200);
        assert_eq!(wait(&refused, 0, Some(Duration::MAX)), 86_400);
        let unreachable = Failure::Unreachable(String::new());
        assert!(wait(&unreachable, 0, None) <= 3 && wait(&unreachable, u32::MAX, None) <= 4500);
    }

    #[test]
    fn chance_stays_below() {
        assert_eq!(chance(0), 0);
        assert!((0..1000).all(|_| (0..7).contains(&chance(7))));
    }
}
