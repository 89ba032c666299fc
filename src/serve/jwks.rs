//! The keys of token issuers that are fetched: one background task per URL, on this thread's runtime. Requests read what it
//! found last, and wait for nothing.
//!
//! What was fetched is kept in `state_dir/jwks` and serves from the start, so that a restart needs no issuer. It is fetched
//! again when `Cache-Control` says so, within bounds; and soon after a token named a key that isn't there, but not as often
//! as anyone likes to invent one. While that fails, the last keys stay.

mod fetch;

use std::{
    collections::HashMap,
    convert::Infallible,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use crate::{
    config::{
        Config, Digest32, Loaded, Material, SecretRef,
        jwks::{KeySet, MOST_BYTES},
        model::{JwksSource, JwksUrl},
    },
    decide::auth::{KeyRing, Secrets},
    observe::metrics::JwksCounts,
    upstream::Resolver,
};
use fetch::Fetched;
pub use fetch::Trust;

/// `max-age` counts as at least this, and as at most that.
const LEAST: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(24 * 3600);
/// After a failure; twice as long after each further one.
const RETRY_LEAST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// After a fetch that an unknown key asked for; twice as long after each further one that brought nothing new.
const ASKED_LEAST: Duration = Duration::from_secs(2);
const ASKED_MOST: Duration = Duration::from_secs(60);

/// All key sets of a config that are fetched.
#[derive(Default)]
pub struct KeySets(HashMap<JwksUrl, Arc<Followed>>);

struct Followed {
    ring: Arc<KeyRing>,
    counts: Arc<JwksCounts>,
    /// Whom the URL's server must be known to; `None`: the system's roots.
    ca: Ca,
    /// Dropped to end the task.
    _held: oneshot::Sender<Infallible>,
}

impl KeySets {
    /// The key sets that `loaded` names: those of `self`, where URL and trust are the same, and for the others new ones that
    /// know what the state directory remembers. Their tasks run from now on, and end with the last `KeySets` that has them.
    pub fn of(&self, loaded: &Loaded, state_dir: &Path, resolver: &Resolver) -> Self {
        let mut sets: HashMap<JwksUrl, Arc<Followed>> = HashMap::new();
        for url in urls(&loaded.config) {
            if sets.contains_key(url) {
                continue;
            }
            let ca = ca(url, &loaded.material);
            let kept = self.0.get(url).filter(|kept| kept.ca == ca);
            let followed = kept.map_or_else(|| follow(url, ca, state_dir, resolver), Arc::clone);
            sets.insert(url.clone(), followed);
        }
        Self(sets)
    }

    /// What is told of them, by URL.
    pub fn counts(&self) -> Vec<Arc<JwksCounts>> {
        let mut counts: Vec<_> = self.0.values().map(|followed| followed.counts.clone()).collect();
        counts.sort_by(|a, b| a.url().cmp(b.url()));
        counts
    }
}

fn urls(config: &Config) -> impl Iterator<Item = &JwksUrl> {
    config.clients.iter().filter_map(|client| match &client.jwt.as_ref()?.keys {
        JwksSource::Url(url) => Some(url),
        JwksSource::File(_) => None,
    })
}

/// The files' secrets, and the fetched keys.
pub struct Known<'s> {
    pub material: &'s Material,
    pub key_sets: &'s KeySets,
}

impl Secrets for Known<'_> {
    fn digests(&self, secret: &SecretRef) -> &[Digest32] {
        self.material.digests(secret)
    }

    fn keys(&self, source: &JwksSource) -> Option<Arc<KeyRing>> {
        match source {
            JwksSource::File(_) => self.material.keys(source),
            JwksSource::Url(url) => Some(self.key_sets.0.get(url)?.ring.clone()),
        }
    }
}

/// The certificates that are trusted for a URL; `None`: the system's.
type Ca = Option<Vec<CertificateDer<'static>>>;

fn ca(url: &JwksUrl, material: &Material) -> Ca {
    url.ca.as_deref().map(|path| material.authority(path).unwrap_or_default().to_vec())
}

/// Where a URL's keys are kept. What was said to who trusted somebody else is not believed.
fn cache_file(state_dir: &Path, url: &JwksUrl, ca: &Ca) -> PathBuf {
    use std::fmt::Write as _;
    let mut hasher = Sha256::new_with_prefix(url.to_string());
    for certificate in ca.iter().flatten() {
        hasher.update(Sha256::digest(certificate));
    }
    let mut name = String::new();
    for byte in hasher.finalize().iter().take(16) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    state_dir.join("jwks").join(name + ".json")
}

/// What is remembered of a URL's keys.
pub fn cached(state_dir: &Path, url: &JwksUrl, material: &Material) -> Option<KeySet> {
    remembered(&cache_file(state_dir, url, &ca(url, material)))
}

fn remembered(file: &Path) -> Option<KeySet> {
    let size = fs::metadata(file).ok()?.len();
    if size > MOST_BYTES as u64 {
        return None;
    }
    KeySet::parse(&fs::read(file).ok()?).ok()
}

/// Written aside and renamed: a reader finds the old keys or the new.
fn remember(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let new = file.with_extension("new");
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    io::Write::write_all(&mut out, bytes)?;
    out.sync_all()?;
    fs::rename(new, file)
}

fn follow(url: &JwksUrl, ca: Ca, state_dir: &Path, resolver: &Resolver) -> Arc<Followed> {
    let file = cache_file(state_dir, url, &ca);
    let keys = remembered(&file).map(Arc::new);
    let counts = Arc::new(JwksCounts::new(url.to_string(), keys.as_ref().map_or(0, |keys| keys.len())));
    if let Some(keys) = &keys {
        info!(%url, keys = keys.len(), "an issuer's keys are remembered");
    }
    let ring = Arc::new(KeyRing::new(keys));
    let (held, released) = oneshot::channel();
    let task = Task {
        url: url.clone(),
        trust: Trust::new(ca.clone()),
        ring: ring.clone(),
        counts: counts.clone(),
        file,
        resolver: resolver.clone(),
        text: None,
        failures: 0,
        asked_in_vain: 0,
    };
    tokio::spawn(async move {
        tokio::select! {
            never = task.run() => match never {},
            _ = released => {}
        }
    });
    Arc::new(Followed { ring, counts, ca, _held: held })
}

/// Follows one URL.
struct Task {
    url: JwksUrl,
    trust: Trust,
    ring: Arc<KeyRing>,
    counts: Arc<JwksCounts>,
    file: PathBuf,
    resolver: Resolver,
    /// As it was fetched last.
    text: Option<Vec<u8>>,
    /// In a row.
    failures: u32,
    /// Unknown keys that were looked for, in a row, without finding new ones.
    asked_in_vain: u32,
}

impl Task {
    async fn run(mut self) -> Infallible {
        let mut was_asked = false;
        loop {
            let started = Instant::now();
            let (next, is_new) = self.fetch().await;
            self.asked_in_vain = match (was_asked, is_new) {
                (_, true) => 0,
                (true, false) => self.asked_in_vain + 1,
                (false, false) => self.asked_in_vain,
            };
            let due = started + next;
            let may_be_asked = started + doubled(ASKED_LEAST, self.asked_in_vain, ASKED_MOST);
            was_asked = tokio::select! {
                () = sleep_until(due) => false,
                () = self.asked(may_be_asked.min(due)) => true,
            };
        }
    }

    /// Ends when an unknown key has been asked for, but not before `from`.
    async fn asked(&self, from: Instant) {
        sleep_until(from).await;
        std::future::poll_fn(|context| self.ring.poll_wanted(context)).await;
    }

    /// When to fetch next, and whether the keys are others now.
    async fn fetch(&mut self) -> (Duration, bool) {
        let fetched = fetch::fetch(&self.url, &mut self.trust, &self.resolver).await;
        let good = fetched.and_then(|Fetched { body, max_age }| {
            let keys = KeySet::parse(&body).map_err(|error| format!("what it sent is no key set: {error}"))?;
            Ok((body, keys, max_age))
        });
        match good {
            Ok((body, keys, max_age)) => {
                self.failures = 0;
                self.counts.fetched(keys.len());
                let is_new = self.text.as_ref() != Some(&body);
                if is_new {
                    info!(url = %self.url, keys = keys.len(), "fetched an issuer's keys");
                    self.ring.store(Arc::new(keys));
                    if let Err(error) = remember(&self.file, &body) {
                        warn!(url = %self.url, %error, "degraded: an issuer's keys are used, but not kept for a restart");
                    }
                    self.text = Some(body);
                }
                (max_age.map_or(Duration::from_secs(600), |age| age.clamp(LEAST, MOST)), is_new)
            }
            Err(error) => {
                self.counts.failed(&error);
                if self.failures == 0 {
                    let keeps =
                        if self.ring.load().is_some() { "the last keys stay" } else { "its tokens are refused" };
                    warn!(url = %self.url, %error, "cannot fetch an issuer's keys; {keeps}");
                }
                let pause = doubled(RETRY_LEAST, self.failures, RETRY_MOST);
                self.failures += 1;
                (pause, false)
            }
        }
    }
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << times.min(10)).min(most)
}
