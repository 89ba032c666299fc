//! Releases in the running service: the book is kept here, and what it says is put in force without a reload, written, logged
//! and told in the history.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    Receipt, ReloadResult, board::Board, checks::Checks, generations::Author, requests, resting::Resting,
    service::Service,
};
use crate::{
    config::{
        Config,
        changes::{Applied, Change},
        model::{Function, FunctionId, VersionId},
    },
    decide::{Now, split::InForce},
    ingress::live::{self, Live},
    release::{Book, Charge, Event, Told, hook::Hooks, outliers::Outliers, ramp::Leave, state, state::State},
};

/// How often ramps are looked at.
pub const LOOK: Duration = Duration::from_millis(250);

/// Of the main thread alone: whoever else learns something tells it.
pub struct Releases {
    pub(super) book: Book,
    /// Versions that fail.
    pub(super) outliers: Outliers,
    /// Addresses that fail, as they were told.
    pub(super) resting: Resting,
    pub(super) checks: Checks,
    pub(super) checks_told: Option<Instant>,
    /// Who is asked before steps.
    pub(super) hooks: Hooks,
    state_dir: PathBuf,
    /// When ramps were looked at last.
    passed: Now,
    /// The state could not be written: said once.
    unwritten: bool,
}

impl Releases {
    /// Goes on from what is written, for this config.
    pub fn open(config: &Config) -> (Self, Vec<Event>) {
        let state_dir = config.server.state_dir.clone();
        let (mut book, mut events) = match State::read(&state_dir) {
            Ok(state) => (Book::open(state), Vec::new()),
            Err(error) => {
                let at = Timestamp::now();
                tracing::error!(%error, "the state of releases is lost: what may have been sent back is latched, until `gatepost resume`");
                match state::put_aside(&state_dir, &at.as_second().to_string()) {
                    Ok(aside) => tracing::error!(path = %aside.display(), "it is kept there"),
                    Err(error) => tracing::error!(%error, "it cannot be put aside"),
                }
                let mut book = Book::default();
                let events = book.mistrust(config, &at.to_string(), &error.to_string());
                (book, events)
            }
        };
        events.extend(book.follow(config));
        let releases = Self {
            book,
            outliers: Outliers::default(),
            hooks: Hooks::default(),
            resting: Resting::new(),
            checks: Checks::default(),
            checks_told: None,
            state_dir,
            passed: live::now(),
            unwritten: false,
        };
        (releases, events)
    }

    pub fn in_force(&self, function: &Function) -> InForce {
        self.book.standings().in_force(function)
    }

    /// For the status.
    pub fn told(&self, config: &Config) -> Vec<Told> {
        let mut told = self.book.told(config, Timestamp::now());
        self.hooks.tell(&mut told, live::now());
        told.extend(self.outliers.told());
        told
    }

    /// A config is about to come into force: what that does, for its receipt.
    pub fn follow(&mut self, config: &Config) -> Vec<Change> {
        let events = self.book.follow(config);
        events.into_iter().map(|event| Change { text: event.text, applies: Applied::Live }).collect()
    }

    /// Puts the weights of the named functions in force, on all workers, by their next requests: one store, with everything
    /// but their splits shared with what served before. Says whether any changed.
    ///
    /// From the main thread, as reloads are: two who store at once would undo each other.
    pub fn put_in_force<'f>(&self, board: &Board, functions: impl IntoIterator<Item = &'f str>) -> bool {
        let old = board.live.load_full();
        let mut next = None;
        for name in functions {
            let Some((id, function)) = named(&old.snapshot.config, name) else { continue };
            let in_force = self.in_force(function);
            if *old.snapshot.splits[id.index()].in_force() == in_force {
                continue;
            }
            old.handles.show_shares(id, &in_force.shares);
            next.get_or_insert_with(|| (*old).clone()).snapshot.weigh(id, in_force, board.workers);
        }
        let Some(next) = next else { return false };
        board.live.store(Arc::new(next));
        true
    }

    /// Shows the shares in force of a config that was just compiled.
    pub fn show(live: &Live) {
        for (id, split) in (0..).map(FunctionId).zip(&live.snapshot.splits) {
            live.handles.show_shares(id, &split.in_force().shares);
        }
    }

    /// Whether it could not be written.
    pub fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// Writes what is not yet written.
    pub fn save(&mut self) {
        let Some(state) = self.book.unwritten() else { return };
        match state.write(&self.state_dir) {
            Ok(()) => {
                self.book.written();
                self.unwritten = false;
            }
            // In force it is all the same; the next look tries again.
            Err(error) if !self.unwritten => {
                self.unwritten = true;
                let path = state::path(&self.state_dir);
                tracing::error!(path = %path.display(), %error, "degraded: the state of releases would not survive a restart");
            }
            Err(_) => {}
        }
    }
}

/// A function by its name: they are sorted.
fn named<'c>(config: &'c Config, name: &str) -> Option<(FunctionId, &'c Function)> {
    let at = config.functions.binary_search_by(|function| (*function.name).cmp(name)).ok()?;
    Some((FunctionId(u32::try_from(at).ok()?), &config.functions[at]))
}

impl Service {
    /// Sends a version back: in force at once, whatever else goes wrong; written, logged, and told in the history. Says whether
    /// that was news.
    pub fn latch(&mut self, function: &str, version: &str, charge: Charge) -> bool {
        let config = self.board.live.load().snapshot.config.clone();
        let Some((_, function)) = named(&config, function) else { return false };
        let author = Author { by: Some(charge.by.clone()), reason: None };
        let at = Timestamp::now().to_string();
        let event = self.releases.book.latch(function, &version.into(), charge, &at);
        let news = event.is_some();
        self.happened(event.into_iter().collect(), &author);
        news
    }

    /// Time has passed: ramps move.
    pub fn pass_time(&mut self) {
        let now = live::now();
        let elapsed = Duration::from_nanos(now.0.saturating_sub(self.releases.passed.0));
        self.releases.passed = now;
        self.meet_others();
        if self.releases.book.runs() && self.leads_ramps() {
            let config = self.board.live.load().snapshot.config.clone();
            // The book is taken out, so that the judge may look at everything else.
            let mut book = std::mem::take(&mut self.releases.book);
            let judge = |function: &Function, version: VersionId| self.guard_says(function, version);
            let hooks = &self.releases.hooks;
            let leave = |function: &Function| {
                let Some(ramp) = &function.ramp else { return Leave::Free };
                let name = &function.versions[ramp.version.index()].name;
                ramp.before_step
                    .as_deref()
                    .map_or(Leave::Free, |hook| Leave::For(hooks.granted(&function.name, name, hook, now)))
            };
            let events = book.pass(&config, elapsed, Timestamp::now(), &judge, &leave);
            let asks = book.take_asks();
            self.releases.book = book;
            self.ask_hooks(asks);
            self.board.changing().releases = self.releases.told(&config);
            self.happened(events, &Author { by: Some("ramp".to_owned()), reason: None });
            self.show_holds();
        } else if !self.releases.hooks.is_empty() {
            self.show_holds();
        }
        self.releases.save();
    }

    /// What came of a request; `None`: it waits for a config that is not there yet.
    pub(super) async fn answer_to(&mut self, id: &requests::Id, request: &requests::Request) -> Option<Receipt> {
        let Some(expected) = &request.expects else {
            return match request.kind {
                requests::Kind::Reload => self.reload(&request.author, true).await,
                _ => Some(self.release(request)),
            };
        };
        self.reload(&request.author, false).await;
        let about = self.last.as_ref().filter(|(hash, _)| hash == expected).map(|(_, receipt)| receipt.clone());
        let serves = || self.loaded.sources.hash() == *expected;
        let mut receipt = match about {
            Some(receipt) => receipt,
            None if serves() => self.answered(ReloadResult::Unchanged, Vec::new(), None, Duration::ZERO),
            None if id.age() < requests::PATIENCE => return None,
            None => {
                let report = "error: the config that was announced was not written\n".to_owned();
                return Some(self.answered(ReloadResult::Rejected, Vec::new(), Some(report), Duration::ZERO));
            }
        };
        if request.kind != requests::Kind::Reload {
            let Receipt { result, changes, report, .. } = self.release(request);
            receipt.changes.extend(changes);
            if receipt.result != ReloadResult::Rejected && result != ReloadResult::Unchanged {
                receipt.result = result;
            }
            receipt.report = receipt.report.or(report);
        }
        Some(receipt)
    }

    /// What a command wants of a release, in place of a reload's receipt.
    pub fn release(&mut self, request: &requests::Request) -> Receipt {
        let started = live::now();
        let took = |since: Now| Duration::from_nanos(live::now().0.saturating_sub(since.0));
        let config = self.board.live.load().snapshot.config.clone();
        let name = request.function.as_deref().unwrap_or_default();
        let Some((_, function)) = named(&config, name) else {
            let report = format!("error: no function is called `{}`\n", name.escape_debug());
            return self.answered(ReloadResult::Rejected, Vec::new(), Some(report), took(started));
        };
        let why = request.author.reason.as_deref().or(request.author.by.as_deref());
        let events: Vec<Event> = match request.kind {
            requests::Kind::Resume => self.releases.book.resume(&function.name),
            requests::Kind::Pause => {
                self.releases.book.pause(&function.name, why.unwrap_or("by hand"), false).into_iter().collect()
            }
            requests::Kind::Rollback => {
                let paused = self.releases.book.pause(&function.name, why.unwrap_or("by hand"), true);
                paused.into_iter().chain(self.send_back_everywhere(function, &request.author)).collect()
            }
            requests::Kind::Reload | requests::Kind::Upgrade => Vec::new(),
        };
        let live = |event: &Event| Change { text: event.text.clone(), applies: Applied::Live };
        let changes: Vec<Change> = events.iter().map(live).collect();
        self.happened(events, &request.author);
        let result = if changes.is_empty() { ReloadResult::Unchanged } else { ReloadResult::Applied };
        self.answered(result, changes, None, took(started))
    }

    /// What has happened to releases takes effect: in force first, then on the disk and in the log.
    pub(super) fn happened(&mut self, events: Vec<Event>, author: &Author) {
        if events.is_empty() {
            return;
        }
        self.releases.put_in_force(&self.board, events.iter().map(|event| &*event.function));
        self.board.changing().releases = self.releases.told(&self.board.live.load().snapshot.config);
        self.tell_events(&events, author);
        self.tell_others();
        self.releases.save();
    }

    /// The log and the history.
    pub(super) fn tell_events(&mut self, events: &[Event], author: &Author) {
        let at = Timestamp::now();
        for Event { function, text, evidence, alarming } in events {
            match alarming {
                true => tracing::error!(%function, "{text}"),
                false => tracing::info!(%function, "{text}"),
            }
            if let Err(error) = self.generations.tell(text, evidence.clone(), author, at) {
                tracing::warn!(%error, "degraded: the history does not have it");
            }
        }
    }
}
