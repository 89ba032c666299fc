//! Releases that members share, between the task that asks the store and the service that owns the book.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};

use crate::{
    config::model::{Function, VersionId},
    release::{Charge, Entry, Event, Together},
    serve::{generations::Author, service::Service},
};

/// Whoever leads ramps does so for that long after it said that it is there.
pub(super) const LEADS: Duration = Duration::from_secs(4);
const FILE: &str = "together.json";

/// What the two hand each other.
#[derive(Default)]
pub struct Exchange {
    inner: Mutex<Inner>,
    /// There is something to tell.
    pub(super) news: Notify,
}

#[derive(Default)]
struct Inner {
    tell: BTreeMap<String, Entry>,
    heard: Option<BTreeMap<String, Entry>>,
    /// Until when this member moves ramps.
    leads: Option<Instant>,
}

impl Exchange {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn to_tell(&self) -> BTreeMap<String, Entry> {
        self.lock().tell.clone()
    }

    pub(super) fn hear(&self, store: BTreeMap<String, Entry>) {
        self.lock().heard = Some(store);
    }

    pub(super) fn lead(&self, until: Option<Instant>) {
        self.lock().leads = until;
    }

    fn tell(&self, entries: BTreeMap<String, Entry>) {
        let mut inner = self.lock();
        if inner.tell != entries {
            let any = !entries.is_empty();
            inner.tell = entries;
            if any {
                self.news.notify_one();
            }
        }
    }
}

/// The service's side: what it has met there, which outlives the process.
#[derive(Default)]
pub struct Met {
    together: Together,
    pub(super) exchange: Arc<Exchange>,
}

impl Met {
    pub(super) fn read(state_dir: &Path) -> Self {
        let mut met = Self::default();
        met.read_again(state_dir);
        met
    }

    fn read_again(&mut self, state_dir: &Path) {
        let text = fs::read(state_dir.join(FILE)).ok();
        self.together = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    }

    fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        let temporary = state_dir.join(format!(".{FILE}"));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.together)?)?;
        fs::rename(&temporary, state_dir.join(FILE))
    }
}

impl Service {
    /// What the older process of an upgrade has met since this one was started.
    pub(in crate::serve) fn meet_what_was_met(&mut self) {
        if let Some(met) = self.cluster.met() {
            met.read_again(&self.loaded.config.server.state_dir);
        }
    }

    /// Whether ramps move on here: alone, or as the one who moves them for all.
    pub(in crate::serve) fn leads_ramps(&mut self) -> bool {
        let Some(met) = self.cluster.met() else { return true };
        let linked = self.board.live.load().snapshot.cluster.linked();
        !linked || met.exchange.lock().leads.is_some_and(|until| until > Instant::now())
    }

    /// Takes over what others did, and leaves for them what was done here.
    pub(in crate::serve) fn meet_others(&mut self) {
        let Some(met) = self.cluster.met() else { return };
        let heard = met.exchange.lock().heard.take();
        if let Some(store) = heard {
            let config = self.board.live.load().snapshot.config.clone();
            let before = met.together.clone();
            let events = met.together.meet(&mut self.releases.book, &config, &store);
            if met.together != before
                && let Err(error) = met.write(&config.server.state_dir)
            {
                tracing::warn!(%error, "degraded: what the cluster's releases are would not survive a restart");
            }
            self.happened(events, &Author { by: Some("cluster".to_owned()), reason: None });
        }
        self.tell_others();
    }

    pub(in crate::serve) fn tell_others(&mut self) {
        if let Some(met) = self.cluster.met() {
            let config = &self.board.live.load().snapshot.config;
            met.exchange.tell(met.together.untold(&self.releases.book, config));
        }
    }

    /// Somebody rolls a function back here: the others' files say what they said, so that its versions are latched, for all.
    pub(in crate::serve) fn send_back_everywhere(&mut self, function: &Function, author: &Author) -> Vec<Event> {
        if self.cluster.met().is_none() {
            return Vec::new();
        }
        let by = author.by.as_deref().unwrap_or("hand");
        let reason = author.reason.as_deref().unwrap_or("rolled back");
        let at = Timestamp::now().to_string();
        let others =
            function.versions.iter().zip((0..).map(VersionId)).filter(|(_, id)| function.baseline != Some(*id));
        others
            .filter_map(|(version, _)| {
                let charge = Charge { by: by.to_owned(), reason: reason.to_owned(), evidence: None };
                self.releases.book.latch(function, &version.name, charge, &at)
            })
            .collect()
    }
}
