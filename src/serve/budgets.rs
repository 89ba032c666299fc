//! Keeps the books of functions' budgets: once a second it looks at the clock, tells what is to be told, and keeps what is counted, so that a
//! restart goes on with it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

use crate::{
    admin::BudgetStatus,
    config::model::{Amount, Budget, BudgetAction, Function, Name},
    decide::{
        Snapshot,
        budget::{Book, Counts, Kept, Ledger, Said, used},
    },
    observe::metrics::BudgetCounts,
};

/// How often the counts are written: what a crash may lose.
const WRITES: Duration = Duration::from_secs(5);
const FILE: &str = "budgets.json";
/// More is no file of ours.
const LARGEST: u64 = 16 << 20;

/// What is in the file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Stored {
    /// The process ended in order, with all that it had counted.
    complete: bool,
    functions: BTreeMap<String, StoredDay>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredDay {
    /// Such as `2026-11-22`.
    date: String,
    calls: u64,
    /// In the parts of an [`Amount`].
    spend: u64,
    told_percent: u8,
}

impl StoredDay {
    fn of(kept: Kept) -> Self {
        let Kept { date, counts: Counts { calls, spend }, told } = kept;
        Self { date: date.to_string(), calls, spend, told_percent: told }
    }

    /// `None`: its date is none.
    fn kept(&self) -> Option<Kept> {
        let (date, counts) = (self.date.parse().ok()?, Counts { calls: self.calls, spend: self.spend });
        Some(Kept { date, counts, told: self.told_percent })
    }
}

/// All books.
pub struct Budgets {
    books: BTreeMap<Name, Book>,
    file: PathBuf,
    /// Of functions that have no book.
    before: BTreeMap<String, StoredDay>,
    /// What was read came from a process that ended out of order; told with the first book.
    incomplete: bool,
    written: Option<(Instant, Stored)>,
    failing: bool,
    started: Instant,
}

impl Budgets {
    /// Reads what the last process kept.
    pub fn open(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let stored = read(&file).unwrap_or_else(|error| {
            tracing::warn!(path = %file.display(), %error, "cannot read what was counted of budgets: today begins at 0");
            None
        });
        Self::with(file, stored.unwrap_or_else(|| Stored { complete: true, functions: BTreeMap::new() }))
    }

    fn with(file: PathBuf, stored: Stored) -> Self {
        Self {
            books: BTreeMap::new(),
            file,
            before: stored.functions,
            incomplete: !stored.complete,
            written: None,
            failing: false,
            started: Instant::now(),
        }
    }

    /// Nothing yet: another process keeps the books, until [`inherit`](Self::inherit).
    pub fn unread(state_dir: &Path) -> Self {
        Self::with(state_dir.join(FILE), Stored { complete: true, functions: BTreeMap::new() })
    }

    /// Goes on from what another process has counted.
    pub fn inherit(state_dir: &Path, functions: BTreeMap<String, StoredDay>) -> Self {
        Self::with(state_dir.join(FILE), Stored { complete: true, functions })
    }

    /// Opens the books of a config that is about to serve. A function that lost its budget keeps what was counted, should it get another.
    pub fn adopt(&mut self, snapshot: &Snapshot, now: Timestamp) {
        for (function, ledger) in snapshot.config.functions.iter().zip(snapshot.ledgers.iter()) {
            if let (Some(budget), Some(ledger)) = (&function.budget, ledger) {
                let is_open =
                    self.books.get(&function.name).is_some_and(|book| std::sync::Arc::ptr_eq(book.ledger(), ledger));
                if !is_open {
                    let kept = self.before.remove(&*function.name).and_then(|stored| stored.kept());
                    let book = Book::open(ledger.clone(), &budget.zone.zone, kept, now);
                    self.books.insert(function.name.clone(), book);
                }
            }
        }
        // Functions that are gone: they may come back today.
        let names: Vec<&Name> = snapshot.config.functions.iter().map(|f| &f.name).collect();
        let gone: Vec<Name> = self.books.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            if let Some(book) = self.books.remove(&name) {
                self.before.insert(name.to_string(), StoredDay::of(book.kept()));
            }
        }
        if self.incomplete && !self.books.is_empty() {
            tracing::warn!(
                lost_s = WRITES.as_secs(),
                "the last process ended out of order: today's budgets may lack the calls of its last {} s",
                WRITES.as_secs()
            );
            self.incomplete = false;
        }
    }

    /// All that is counted, by function.
    pub fn days(&self) -> BTreeMap<String, StoredDay> {
        let open = self.books.iter().map(|(name, book)| (name.to_string(), StoredDay::of(book.kept())));
        self.before.clone().into_iter().chain(open).collect()
    }

    /// What was counted since `told`, by function, for the process that keeps the books now; given back calls count as none.
    pub fn counted(&self, told: &mut BTreeMap<String, StoredDay>) -> BTreeMap<String, StoredDay> {
        let mut all = BTreeMap::new();
        for (name, book) in &self.books {
            let day = StoredDay::of(book.kept());
            let before = told.insert(name.to_string(), day.clone()).filter(|before| before.date == day.date);
            let before = before.map_or((0, 0), |before| (before.calls, before.spend));
            let since = StoredDay {
                calls: day.calls.saturating_sub(before.0),
                spend: day.spend.saturating_sub(before.1),
                ..day
            };
            if (since.calls, since.spend) != (0, 0) {
                all.insert(name.to_string(), since);
            }
        }
        all
    }

    /// Adds what another process counted today.
    pub fn add(&mut self, counted: &BTreeMap<String, StoredDay>) {
        for (name, day) in counted {
            let book = self.books.iter().find(|(of, _)| ***of == **name).map(|(_, book)| book);
            if let (Some(book), Some(kept)) = (book, day.kept())
                && kept.date == book.kept().date
            {
                book.ledger().restore(kept.counts);
            }
        }
    }

    /// Whether it could not be written.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Whether there is anything to keep.
    pub fn is_empty(&self) -> bool {
        self.books.is_empty()
    }

    /// Once a second.
    pub fn tick(&mut self, snapshot: &Snapshot, now: Timestamp) {
        let at = self.started.elapsed();
        for function in &snapshot.config.functions {
            let (Some(budget), Some(book)) = (&function.budget, self.books.get_mut(&function.name)) else { continue };
            for said in book.tick(budget, now, at) {
                tell(function, budget, book.ledger(), said);
            }
        }
        self.keep(false, now);
    }

    /// The last word of an orderly end.
    pub fn close(&mut self) {
        if !self.is_empty() || self.file.exists() {
            self.keep(true, Timestamp::now());
        }
    }

    fn keep(&mut self, complete: bool, now: Timestamp) {
        let due = self.written.as_ref().is_none_or(|(at, _)| at.elapsed() >= WRITES);
        if !due && !complete {
            return;
        }
        // Two days ago is no zone's today.
        self.before.retain(|_, stored| stored.kept().is_some_and(|kept| is_recent(kept.date, now)));
        let stored = Stored { complete, functions: self.days() };
        if self.written.as_ref().is_some_and(|(_, written)| *written == stored) {
            return;
        }
        match write(&self.file, &stored) {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(path = %self.file.display(), %error, "degraded: what is counted of budgets is not kept, and a restart begins at 0");
            }
            Err(_) => {}
        }
        self.written = Some((Instant::now(), stored));
    }
}

fn is_recent(date: Date, now: Timestamp) -> bool {
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    today.since(date).is_ok_and(|span| span.get_days().abs() < 2)
}

fn read(file: &Path) -> io::Result<Option<Stored>> {
    let length = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?.len(),
    };
    if length > LARGEST {
        return Err(io::Error::other(format!("it has {length} bytes")));
    }
    Ok(Some(serde_json::from_slice(&fs::read(file)?)?))
}

/// Whole or not at all, whatever ends in between.
fn write(file: &Path, stored: &Stored) -> io::Result<()> {
    let new = file.with_extension("json.new");
    let mut out = File::options().write(true).create(true).truncate(true).mode(0o640).open(&new)?;
    out.write_all(&serde_json::to_vec(stored)?)?;
    out.sync_data()?;
    fs::rename(&new, file)
}

fn tell(function: &Function, budget: &Budget, ledger: &Ledger, said: Said) {
    let name = &*function.name;
    let clock = |at: Timestamp| at.to_zoned(budget.zone.zone.clone()).strftime("%H:%M").to_string();
    let counts = ledger.counts();
    match said {
        Said::Warning { percent, .. } if used(budget, counts) >= 1.0 => {
            let then = match budget.action {
                BudgetAction::Alert => "calls go on",
                BudgetAction::Shed | BudgetAction::Stop => "its requests are refused until the day ends",
                BudgetAction::Fallback => "its routes' fallbacks answer until the day ends",
            };
            tracing::error!(function = name, percent, calls = counts.calls, spend = %Amount(counts.spend), "the day's budget is spent: {then}");
        }
        Said::Warning { percent, gone } => {
            let forecast = match gone {
                Some(at) => format!("at this rate it is gone at {}", clock(at)),
                None => "at this rate it lasts until the day ends".to_owned(),
            };
            tracing::warn!(
                function = name, percent, calls = counts.calls, spend = %Amount(counts.spend),
                "{percent} % of the day's budget is used; {forecast}"
            );
        }
        Said::WillBeGone { at } => {
            let used = (used(budget, counts) * 100.0) as u64;
            tracing::warn!(
                function = name,
                used,
                "the day's budget will not last: at this rate it is gone at {}",
                clock(at)
            );
        }
        Said::Turned { date, counts } => {
            tracing::info!(function = name, %date, calls = counts.calls, spend = %Amount(counts.spend), "a new day for its budget");
        }
    }
}

fn each(snapshot: &Snapshot) -> impl Iterator<Item = (&Function, &Budget, &Ledger)> {
    let all = snapshot.config.functions.iter().zip(snapshot.ledgers.iter());
    all.filter_map(|(function, ledger)| Some((function, function.budget.as_deref()?, ledger.as_deref()?)))
}

/// For the metrics.
pub fn counts(snapshot: &Snapshot) -> Vec<BudgetCounts> {
    let of = |(function, budget, ledger): (&Function, &Budget, &Ledger)| BudgetCounts {
        function: function.name.to_string(),
        used: used(budget, ledger.counts()),
        calls: ledger.counts().calls,
        spend: Amount(ledger.counts().spend).as_f64(),
        gone: ledger.gone(),
        refused: ledger.told().1,
    };
    each(snapshot).map(of).collect()
}

/// For `gatepost status`.
pub fn status(snapshot: &Snapshot) -> Vec<BudgetStatus> {
    let of = |(function, budget, ledger): (&Function, &Budget, &Ledger)| {
        let moment = |at: i64| {
            let at = Timestamp::from_second(at).ok()?.to_zoned(budget.zone.zone.clone());
            Some(at.strftime("%F %H:%M %:z").to_string())
        };
        let counts = ledger.counts();
        BudgetStatus {
            function: function.name.to_string(),
            used_percent: (used(budget, counts) * 1000.0).round() / 10.0,
            calls: counts.calls,
            calls_per_day: budget.calls_per_day.map(|most| most.get()),
            spend: Amount(counts.spend).as_f64(),
            spend_per_day: budget.spend_per_day.map(Amount::as_f64),
            action: budget.action.as_str().to_owned(),
            refused: ledger.told().1,
            gone: ledger.gone().and_then(moment),
            day_ends: moment(ledger.ends()),
        }
    };
    each(snapshot).map(of).collect()
}
