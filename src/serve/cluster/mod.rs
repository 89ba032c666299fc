//! Several gateposts that share limits: one task on the main thread, which asks the store (Redis or Valkey) on everybody's behalf. Requests read
//! atomics alone (`decide::limit`), whether the store answers or not.
//!
//! A *beat* twice a second says that this member is there, and hears who else is and what they did to releases. Some forty times a second what passed of
//! limits is settled, many keys in one question; where nothing passed, nobody is asked. So an instance asks less than 50 times a second,
//! whatever its callers do.
//!
//! In an upgrade two processes are one member, by one id: the older is until it has said its last to the disk, the newer once it is the main one. Meanwhile the other
//! is a *guest*: it settles limits and hears what members do, but nobody counts it, and it moves no ramp.

mod link;
mod members;
mod releases;

use std::{
    collections::VecDeque,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use redis::Script;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::jwks::Trust;
use crate::{
    config::Loaded,
    decide::{
        Snapshot,
        limit::{Due, Limiter},
    },
    ingress::live::{self, Live},
    observe::metrics::ClusterCounts,
    release::Entry,
    upstream::Resolver,
};
use link::{Link, Store, beating, leaving, settling};
pub use members::Standing;
use members::{Card, Member, Remembered, count, host, part};
use releases::{Exchange, LEADS, Met};

/// How often limits are settled at most.
const SETTLE: Duration = Duration::from_millis(25);
/// So many keys are settled by one question.
const KEYS: usize = 2_000;
/// How often a member says that it is there.
const BEAT: Duration = Duration::from_millis(500);
/// Not even where there is news.
const BEAT_LEAST: Duration = Duration::from_millis(200);
/// After a failure; twice as long after each further one.
const RETRY_LEAST: Duration = Duration::from_millis(250);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// How long a start waits for the others to be known.
const FIRST: Duration = Duration::from_secs(1);

/// Shared with the admin server.
pub type Shown = Arc<Mutex<Option<Standing>>>;

pub fn look(shown: &Shown) -> MutexGuard<'_, Option<Standing>> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For the metrics; `None`: there is no cluster.
pub fn counts(shown: &Shown, snapshot: &Snapshot) -> Option<ClusterCounts> {
    let shown = look(shown);
    let standing = shown.as_ref()?;
    Some(ClusterCounts {
        answers: standing.lost.is_none(),
        members: standing.count,
        differing: standing.differing().count() as u64,
        commands: standing.commands,
        unshared: snapshot.clustered.iter().map(|limiter| limiter.unshared()).sum(),
    })
}

/// The cluster's task, where the config has one.
#[derive(Default)]
pub struct Membership {
    running: Option<Running>,
    shown: Shown,
    /// The other process of an upgrade is the member.
    guest: Arc<AtomicBool>,
    /// Under which id that one is.
    inherited: Option<String>,
}

struct Running {
    store: Store,
    card: watch::Sender<Card>,
    known: watch::Receiver<bool>,
    /// Dropped to end the task.
    held: oneshot::Sender<Infallible>,
    ended: tokio::task::JoinHandle<()>,
    met: Met,
}

impl Membership {
    /// Of a process that takes over from another one, which is a member by this id: a guest, until it is [the member](Self::be_the_member).
    pub fn after(older: Option<String>) -> Self {
        Self { guest: Arc::new(AtomicBool::new(true)), inherited: older, ..Self::default() }
    }

    /// Who this is to the others; `None`: there is no cluster.
    pub fn id(&self) -> Option<String> {
        look(&self.shown).as_ref().map(|standing| standing.own.clone())
    }

    /// Another process is about to be the member in this one's place.
    pub fn be_a_guest(&self) {
        self.guest.store(true, Relaxed);
    }

    /// From here on this process is, and says so at once.
    pub fn be_the_member(&self) {
        if self.guest.swap(false, Relaxed)
            && let Some(running) = &self.running
        {
            running.met.exchange.news.notify_one();
        }
    }

    pub fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// What somebody should know, though requests are served.
    pub fn degraded(&self) -> Option<String> {
        look(&self.shown).as_ref()?.degraded()
    }

    /// What is known of the others' releases; `None`: there is no cluster.
    fn met(&mut self) -> Option<&mut Met> {
        self.running.as_mut().map(|running| &mut running.met)
    }

    /// Makes it what the config says: the task goes on where the store and the way in are the same.
    pub fn follow(&mut self, loaded: &Loaded, serving: &Arc<ArcSwap<Live>>, state_dir: &Path, resolver: &Resolver) {
        let Some(config) = loaded.config.cluster.clone() else {
            if let Some(running) = self.running.take() {
                tracing::info!(store = %running.store.config.redis, "cluster: left");
                drop(running);
                *look(&self.shown) = None;
                let standing = &serving.load().snapshot.cluster;
                standing.set_linked(false);
                standing.set_members(1);
            }
            return;
        };
        let live = serving.load();
        let card = Card {
            name: config.member.clone().unwrap_or_else(host),
            run: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: live.snapshot.generation,
            hash: live.snapshot.hash.clone(),
            since: Timestamp::now().to_string(),
        };
        let password = config.password.as_ref().and_then(|at| loaded.material.value(at)).cloned();
        let ca = config.ca.as_ref().and_then(|ca| loaded.material.authority(ca)).map(<[_]>::to_vec);
        let store = Store { config, password, ca };
        if let Some(running) = self.running.as_mut().filter(|running| running.store == store) {
            running.card.send_if_modified(|before| {
                let (run, since) = (before.run, before.since.clone());
                let same = before.hash == card.hash && before.generation == card.generation;
                let next = Card { run, since: if same { since } else { card.since.clone() }, ..card };
                let changed = *before != next;
                *before = next;
                changed
            });
            return;
        }
        let (held, mut dropped) = oneshot::channel();
        let (card, cards) = watch::channel(Card { run: random(), ..card });
        let (knows, known) = watch::channel(false);
        let trust = Trust::new(store.ca.clone());
        let met = Met::read(state_dir);
        let mut remembered = Remembered::read(state_dir, random());
        if let Some(id) = self.inherited.take() {
            remembered.id = id;
        }
        let mut task = Task {
            remembered,
            guest: self.guest.clone(),
            older: None,
            state_dir: state_dir.to_owned(),
            serving: serving.clone(),
            resolver: resolver.clone(),
            shown: self.shown.clone(),
            store: store.clone(),
            trust,
            cards,
            knows,
            exchange: met.exchange.clone(),
            state: String::new(),
            beaten: false,
            due: VecDeque::new(),
            settling: settling(),
            beating: beating(),
        };
        live.snapshot.cluster.set_members(task.remembered.members);
        live.snapshot.cluster.set_linked(false);
        *look(&self.shown) = Some(Standing {
            store: store.config.redis.to_string(),
            own: task.remembered.id.clone(),
            count: task.remembered.members,
            lost: Some(("not asked yet".to_owned(), Timestamp::now())),
            ..Standing::default()
        });
        let ended = tokio::spawn(async move {
            tokio::select! {
                // Its sender is dropped to end it.
                _ = &mut dropped => {}
                () = task.run() => {}
            }
            task.leave().await;
        });
        self.running = Some(Running { store, card, known, held, ended, met });
    }

    /// Waits until the others are known, or it is clear that the store does not answer now.
    pub async fn first(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = timeout(FIRST, running.known.wait_for(|known| *known)).await;
        }
    }

    /// Says goodbye.
    pub async fn stop(self) {
        if let Some(Running { held, ended, .. }) = self.running {
            drop(held);
            let _ = timeout(FIRST, ended).await;
        }
    }
}

/// 64 bits that nobody guesses, never 0.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // A system without random numbers serves no TLS either.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes).max(1)
}

struct Task {
    remembered: Remembered,
    /// The other process of an upgrade is the member.
    guest: Arc<AtomicBool>,
    /// Which process that is, by its [`Card::run`].
    older: Option<u64>,
    state_dir: PathBuf,
    serving: Arc<ArcSwap<Live>>,
    resolver: Resolver,
    shown: Shown,
    store: Store,
    trust: Trust,
    cards: watch::Receiver<Card>,
    knows: watch::Sender<bool>,
    exchange: Arc<Exchange>,
    /// Of the releases there, as it was heard last.
    state: String,
    /// This life has had a beat of its own.
    beaten: bool,
    /// What is still to be settled: no more is taken from limits before that is done.
    due: VecDeque<(Arc<Limiter>, Due)>,
    settling: Script,
    beating: Script,
}

impl Task {
    async fn run(&mut self) {
        let mut retry = RETRY_LEAST;
        loop {
            let opened = Link::open(&self.store, &mut self.trust, &self.resolver).await;
            let why = match opened {
                Ok(mut link) => match self.beat(&mut link).await {
                    Ok(()) => {
                        retry = RETRY_LEAST;
                        self.found();
                        self.serve(&mut link).await
                    }
                    Err(why) => why,
                },
                Err(why) => why,
            };
            self.lost(why);
            let until = Instant::now() + retry;
            while Instant::now() < until {
                // What passes meanwhile is each member's own part: nobody is told of it later.
                self.forget();
                sleep(RETRY_LEAST).await;
            }
            retry = (retry * 2).min(RETRY_MOST);
        }
    }

    /// Until the store fails; says how.
    async fn serve(&mut self, link: &mut Link) -> String {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = interval(SETTLE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.forget();
        let mut beaten = Instant::now();
        loop {
            let exchange = self.exchange.clone();
            let done = tokio::select! {
                () = exchange.news.notified() => {
                    beat.reset_at((beaten + BEAT_LEAST).max(Instant::now()));
                    Ok(())
                }
                _ = beat.tick() => {
                    beaten = Instant::now();
                    self.beat(link).await
                }
                _ = tick.tick() => self.settle(link).await,
            };
            if let Err(why) = done {
                return why;
            }
        }
    }

    fn forget(&mut self) {
        self.due.clear();
        for limiter in &*self.serving.load().snapshot.clustered {
            limiter.due(|_| {});
        }
    }

    fn key(&self, rest: std::fmt::Arguments<'_>) -> String {
        format!("{}:{rest}", self.store.config.prefix)
    }

    async fn settle(&mut self, link: &mut Link) -> Result<(), String> {
        if self.due.is_empty() {
            let live = self.serving.load();
            for limiter in &*live.snapshot.clustered {
                limiter.due(|due| self.due.push_back((limiter.clone(), due)));
            }
        }
        if self.due.is_empty() {
            return Ok(());
        }
        let batch: Vec<_> = self.due.drain(..self.due.len().min(KEYS)).collect();
        let mut question = self.settling.prepare_invoke();
        for (limiter, due) in &batch {
            let name = limiter.shared_name().unwrap_or_default();
            question.key(self.key(format_args!("limit:{name}:{:016x}", due.key.number())));
            question.arg(limiter.micros(due.used)).arg(limiter.most_micros());
        }
        let ahead: Vec<i64> = link.run(&question).await?;
        self.asked();
        let now = live::now();
        for ((limiter, due), ahead) in batch.iter().zip(ahead) {
            limiter.settle(due.key, u64::try_from(ahead).unwrap_or(0), now);
        }
        Ok(())
    }

    async fn beat(&mut self, link: &mut Link) -> Result<(), String> {
        let card = self.cards.borrow_and_update().clone();
        let guest = self.guest.load(Relaxed);
        let text = match guest {
            true => String::new(),
            false => serde_json::to_string(&card).map_err(|error| error.to_string())?,
        };
        let mut question = self.beating.prepare_invoke();
        for key in ["members", "salt", "releases", "changes", "leader"] {
            question.key(self.key(format_args!("{key}")));
        }
        question.arg(&self.remembered.id).arg(text).arg(random()).arg(LEADS.as_millis() as u64).arg(&self.state);
        // What the member does is for the member to tell.
        let tell = if guest { Default::default() } else { self.exchange.to_tell() };
        for (function, Entry { changes, common }) in tell {
            let common = serde_json::to_string(&common).map_err(|error| error.to_string())?;
            question.arg(function).arg(changes).arg(common);
        }
        let asked = Instant::now();
        let answer: Vec<String> = link.run(&question).await?;
        self.asked();
        let not_understood = || "its answer is not understood: do others write under the same `prefix`?".to_owned();
        let [salt, before, leader, state, there, rows @ ..] = &answer[..] else { return Err(not_understood()) };
        let salt = salt.parse::<u64>().map_err(|_| not_understood())?;
        let there = there.parse::<usize>().map_err(|_| not_understood())?;
        let (rows, changed) = rows.split_at_checked(there.saturating_mul(3)).ok_or_else(not_understood)?;
        self.exchange.lead((!guest && *leader == self.remembered.id).then_some(asked + LEADS));
        if *state != self.state {
            self.state.clone_from(state);
            self.exchange.hear(changed.chunks_exact(2).filter_map(release).collect());
        }
        let members: Vec<Member> = rows.chunks_exact(3).filter_map(member).collect();
        let run = before.split_once(' ').and_then(|(_, said)| serde_json::from_str::<Card>(said).ok()).map(|c| c.run);
        let first = !guest && !self.beaten;
        if guest {
            self.older = run;
        } else {
            // The older process may have had a word on its way still. Whoever else stands there has a copy of the state directory.
            if self.beaten && run.is_some_and(|run| run != card.run && Some(run) != self.older) {
                self.remembered.id = Remembered::named(random()).id;
                tracing::info!("cluster: another process has this one's id; it goes on under a new one");
            }
            self.beaten = true;
        }
        let count = count(&members);
        let standing = &self.serving.load().snapshot.cluster;
        standing.set_salt(salt);
        standing.set_members(count);
        let known = std::mem::replace(&mut self.remembered.members, count);
        if !guest && (first || known != count) {
            tracing::info!(members = count, store = %self.store.config.redis, "cluster");
            if let Err(error) = self.remembered.write(&self.state_dir) {
                tracing::warn!(%error, "degraded: how many members there are would not survive a restart");
            }
        }
        if let Some(shown) = &mut *look(&self.shown) {
            let before: Vec<String> = shown.differing().map(|member| member.id.clone()).collect();
            (shown.members, shown.count) = (members, count);
            shown.own.clone_from(&self.remembered.id);
            for member in shown.differing().filter(|member| !guest && !before.contains(&member.id)) {
                let Card { name, generation, hash, .. } = &member.card;
                let hash: String = hash.chars().take(12).collect();
                tracing::warn!(member = %name, generation, %hash, "cluster: this member has another config");
            }
        }
        self.knows.send_replace(true);
        Ok(())
    }

    fn asked(&self) {
        if let Some(shown) = &mut *look(&self.shown) {
            shown.commands += 1;
        }
    }

    fn found(&self) {
        self.serving.load().snapshot.cluster.set_linked(true);
        if let Some(shown) = &mut *look(&self.shown)
            && let Some((_, since)) = shown.lost.take()
        {
            let after = Timestamp::now().duration_since(since).as_millis();
            tracing::info!(store = %shown.store, after_ms = after, "cluster: the store answers");
        }
    }

    fn lost(&mut self, why: String) {
        self.serving.load().snapshot.cluster.set_linked(false);
        self.due.clear();
        self.knows.send_replace(true);
        if let Some(shown) = &mut *look(&self.shown) {
            let news = shown.lost.as_ref().is_none_or(|(before, _)| *before == "not asked yet");
            if news {
                let part = part(shown.count);
                tracing::error!(store = %shown.store, error = %why, "degraded: the cluster's store does not answer: {part}");
            }
            let since = shown.lost.as_ref().map_or_else(Timestamp::now, |(_, since)| *since);
            shown.lost = Some((why, since));
        }
    }

    /// So that the others need not wait until this one is missed. For a second at most.
    async fn leave(&mut self) {
        // A guest leaves nothing: the member is there.
        if !self.guest.load(Relaxed) && self.serving.load().snapshot.cluster.linked() {
            let goodbye = async {
                let mut link = Link::open(&self.store, &mut self.trust, &self.resolver).await?;
                let script = leaving();
                let mut question = script.prepare_invoke();
                question.key(self.key(format_args!("members"))).arg(&self.remembered.id);
                link.run::<i64>(&question).await
            };
            let _ = timeout(FIRST, goodbye).await;
        }
    }
}

/// A function, how often it changed, and what it came to. What another version has written, and this one does not understand, is nothing to it.
fn release(row: &[String]) -> Option<(String, Entry)> {
    let [function, said] = row else { return None };
    let (changes, common) = said.split_once(' ')?;
    let entry = Entry { changes: changes.parse().ok()?, common: serde_json::from_str(common).ok()? };
    Some((function.clone(), entry))
}

/// Who he is, how long ago he was seen, what he said.
fn member(row: &[String]) -> Option<Member> {
    let [id, age, said] = row else { return None };
    let card = serde_json::from_str(said).ok()?;
    Some(Member { id: id.clone(), age: Duration::from_millis(age.parse().ok()?), card })
}
