//! Tokens for functions: one background task per credential and audience, on this thread's runtime. Requests carry the token that it found
//! last, while that is good, and wait for nothing. It is fetched anew ahead of its end; where that fails, the old one serves to its end
//! and not longer.

pub(super) mod fetch;

use std::{
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::jwks::Trust;
use crate::{
    config::{
        Loaded,
        model::{Credential, CredentialKind, Endpoint, EndpointHost, IdToken, Version},
    },
    credential::{
        gcp::{self, ServiceAccount},
        pace,
    },
    observe::metrics::TokenCounts,
    platform::sign::TokenSlot,
    upstream::Resolver,
};
use fetch::{Failure, Question};

/// How long a start, or a reload, waits for the first tokens: calls without one are refused.
const FIRST: Duration = Duration::from_secs(3);
/// How often it is looked whether a token is over before its time.
const SLICE: Duration = Duration::from_secs(5);
/// Nobody is shown a token that ends on the way: so many seconds, or a tenth of a short life.
const MARGIN: u64 = 10;

/// All tokens of a config.
#[derive(Default)]
pub struct Tokens(HashMap<Key, Arc<Followed>>);

/// What makes two tokens the same one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    credential: String,
    audience: String,
    /// Of the account's key; `None`: the metadata server's.
    account: Option<[u8; 32]>,
    url: Endpoint,
    ca: Option<PathBuf>,
    trusts: Vec<CertificateDer<'static>>,
}

struct Followed {
    slot: Arc<TokenSlot>,
    counts: Arc<TokenCounts>,
    /// Whether the first fetch has ended.
    is_tried: watch::Receiver<bool>,
    /// Dropped to end the task.
    _held: oneshot::Sender<Infallible>,
}

impl Tokens {
    /// The tokens that `loaded` needs: those of `self`, where all is the same. Their tasks run from now on, and end with the last
    /// `Tokens` that has them.
    ///
    /// # Errors
    ///
    /// Where a service account's key can't be used.
    pub fn of(&self, loaded: &Loaded, resolver: &Resolver) -> Result<Self, String> {
        let mut all: HashMap<Key, Arc<Followed>> = HashMap::new();
        for version in loaded.config.functions.iter().flat_map(|function| &function.versions) {
            let Some((key, account)) = wanted(loaded, version)? else { continue };
            if let Entry::Vacant(place) = all.entry(key) {
                let kept = self.0.get(place.key()).cloned();
                let followed = kept.unwrap_or_else(|| follow(place.key(), account, resolver));
                place.insert(followed);
            }
        }
        Ok(Self(all))
    }

    /// Waits until each was tried once, but not for long.
    pub async fn first(&self) {
        let all = async {
            let now = unix();
            let lacks = |followed: &&Arc<Followed>| followed.slot.until().is_none_or(|until| until <= now);
            for followed in self.0.values().filter(lacks) {
                // A task that is gone has nothing to wait for.
                let _ = followed.is_tried.clone().wait_for(|tried| *tried).await;
            }
        };
        let _ = timeout(FIRST, all).await;
    }

    /// The present tokens, for another process.
    pub fn handed(&self) -> Vec<HandedToken> {
        let of = |(key, followed): (&Key, &Arc<Followed>)| {
            let (token, until) = followed.slot.handed()?;
            Some(HandedToken { of: key.told(), token, until })
        };
        self.0.iter().filter_map(of).collect()
    }

    /// Begins with the tokens that another process fetched: each is fetched anew at once all the same, and until then they serve.
    pub fn adopt(&self, handed: &[HandedToken]) {
        let now = unix();
        for (key, followed) in &self.0 {
            let told = key.told();
            let of = handed.iter().find(|handed| handed.of == told && handed.until > now);
            // One of its own is newer.
            if let Some(of) = of.filter(|of| followed.slot.until().is_none_or(|until| until < of.until)) {
                match followed.slot.put(&of.token, of.until) {
                    Ok(()) => followed.counts.holds(of.until),
                    // It is no token, whatever it is.
                    Err(_) => continue,
                }
            }
        }
    }

    /// Where the token for calls to `version` is put; `None`: it needs none.
    pub fn slot(&self, loaded: &Loaded, version: &Version) -> Option<Arc<TokenSlot>> {
        let (key, _) = wanted(loaded, version).ok()??;
        self.0.get(&key).map(|followed| followed.slot.clone())
    }

    /// What is told of them.
    pub fn counts(&self) -> Vec<Arc<TokenCounts>> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by(|(a, _), (b, _)| (&a.credential, &a.audience).cmp(&(&b.credential, &b.audience)));
        all.into_iter().map(|(_, followed)| followed.counts.clone()).collect()
    }
}

/// A token as it goes along. Never written anywhere.
#[derive(Serialize, Deserialize)]
pub struct HandedToken {
    of: String,
    token: String,
    until: u64,
}

impl fmt::Debug for HandedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedToken").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Key {
    /// The same for the same key in another process, and for no other key.
    fn told(&self) -> String {
        let Self { credential, audience, account, url, ca, trusts } = self;
        let mut hasher = Sha256::new();
        hasher.update(format!("{credential:?} {audience:?} {account:?} {url:?} {ca:?}"));
        trusts.iter().for_each(|trust| hasher.update(Sha256::digest(trust)));
        format!("{:x}", hasher.finalize())
    }
}

fn wanted(loaded: &Loaded, version: &Version) -> Result<Option<(Key, Option<ServiceAccount>)>, String> {
    let Some(credential) = version.credential.map(|id| &loaded.config.credentials[id.index()]) else { return Ok(None) };
    let CredentialKind::GcpIdToken(token) = &credential.kind else { return Ok(None) };
    let failed = |why: &str| format!("credential {}: {why}", credential.name);
    let secret = token
        .service_account
        .as_ref()
        .map(|at| loaded.material.value(at).ok_or_else(|| failed("its secret was not read")));
    let secret = secret.transpose()?;
    let account = secret.map(|secret| ServiceAccount::read(secret.expose()).map_err(failed)).transpose()?;
    let key = Key {
        credential: credential.name.to_string(),
        audience: audience(token, version),
        account: secret.map(|secret| Sha256::digest(secret.expose()).into()),
        url: url(credential, token, account.as_ref())?,
        ca: token.ca.clone(),
        trusts: token
            .ca
            .as_deref()
            .map(|ca| loaded.material.authority(ca).unwrap_or_default().to_vec())
            .unwrap_or_default(),
    };
    Ok(Some((key, account)))
}

/// As Google has it: the function's URL without a path.
fn audience(token: &IdToken, version: &Version) -> String {
    let own = || {
        let scheme = if version.url.tls { "https" } else { "http" };
        format!("{scheme}://{}", version.host.as_deref().unwrap_or(&version.url.authority))
    };
    token.audience.clone().unwrap_or_else(own)
}

fn url(credential: &Credential, token: &IdToken, account: Option<&ServiceAccount>) -> Result<Endpoint, String> {
    if let Some(url) = &token.token_url {
        return Ok(url.clone());
    }
    let google = |host: &str, tls: bool, path: &str| Endpoint {
        tls,
        host: EndpointHost::Name(host.to_owned()),
        port: if tls { 443 } else { 80 },
        base_path: path.to_owned(),
        authority: host.to_owned(),
    };
    match account.map(|account| account.token_uri.as_deref()) {
        None => Ok(google(
            "metadata.google.internal",
            false,
            "/computeMetadata/v1/instance/service-accounts/default/identity",
        )),
        Some(None | Some("https://oauth2.googleapis.com/token")) => Ok(google("oauth2.googleapis.com", true, "/token")),
        // A key file that sends us elsewhere than Google: the config must say so itself.
        Some(Some(_)) => Err(format!(
            "credential {}: its key names another token_uri than Google's; write it as `token_url`",
            credential.name
        )),
    }
}

fn follow(key: &Key, account: Option<ServiceAccount>, resolver: &Resolver) -> Arc<Followed> {
    let slot = Arc::<TokenSlot>::default();
    let counts = Arc::new(TokenCounts::new(key.credential.clone(), key.audience.clone()));
    let (tried, is_tried) = watch::channel(false);
    let (held, released) = oneshot::channel();
    let trusts = key.ca.as_ref().map(|_| key.trusts.clone());
    let task = Task {
        key: key.clone(),
        account,
        trust: Trust::new(trusts),
        slot: slot.clone(),
        counts: counts.clone(),
        resolver: resolver.clone(),
        failures: 0,
    };
    tokio::spawn(async move {
        tokio::select! {
            never = task.run(tried) => match never {},
            _ = released => {}
        }
    });
    Arc::new(Followed { slot, counts, is_tried, _held: held })
}

/// Follows one token.
struct Task {
    key: Key,
    account: Option<ServiceAccount>,
    trust: Trust,
    slot: Arc<TokenSlot>,
    counts: Arc<TokenCounts>,
    resolver: Resolver,
    /// In a row.
    failures: u32,
}

impl Task {
    async fn run(mut self, tried: watch::Sender<bool>) -> Infallible {
        loop {
            let pause = self.turn().await;
            tried.send_replace(true);
            self.rest(pause).await;
        }
    }

    /// Waits, but not past the present token's end: where the clock of the day is set forward it may be over long before the wait is.
    async fn rest(&self, mut left: Duration) {
        while !left.is_zero() {
            let slice = left.min(SLICE);
            sleep(slice).await;
            left -= slice;
            if self.failures == 0 && self.slot.until().is_some_and(|until| until <= unix()) {
                return;
            }
        }
    }

    /// When to fetch next.
    async fn turn(&mut self) -> Duration {
        let dice = crate::ingress::live::roll();
        let begun = unix();
        let fetched = match self.fetch(begun).await {
            Ok(fetched) => {
                let until = begun + fetched.life - MARGIN.min(fetched.life / 10);
                self.slot
                    .put(&fetched.token, until)
                    .map(|()| (until, fetched.life))
                    .map_err(|error| error.to_string().into())
            }
            Err(failure) => Err(failure),
        };
        let (credential, audience) = (&*self.key.credential, &*self.key.audience);
        match fetched {
            Ok((until, life)) => {
                if self.failures > 0 {
                    info!(credential, audience, "a token was fetched again");
                }
                self.failures = 0;
                self.counts.fetched(until);
                pace::refresh(Duration::from_secs(life), dice)
            }
            Err(Failure { why, refused, retry_after }) => {
                self.counts.failed();
                let left = self.slot.until().map_or(0, |until| until.saturating_sub(unix()));
                if self.failures == 0 || refused {
                    let then = match left {
                        0 => "its calls are refused until it comes".to_owned(),
                        left => format!("the last one is good for {left} s"),
                    };
                    warn!(credential, audience, error = why, "cannot fetch a token; {then}");
                }
                self.failures = self.failures.saturating_add(1);
                pace::retry(self.failures, refused, retry_after, dice)
            }
        }
    }

    async fn fetch(&mut self, now: u64) -> Result<gcp::Fetched, Failure> {
        let url = &self.key.url;
        let path = if url.base_path.is_empty() { "/" } else { &url.base_path };
        let question = match &self.account {
            Some(account) => {
                let scheme = if url.tls { "https" } else { "http" };
                let token_url = format!("{scheme}://{}{}", url.authority, url.base_path);
                let form = account.form(&token_url, &self.key.audience, now).map_err(str::to_owned)?;
                Question { target: path.to_owned(), form: Some(form) }
            }
            None => Question { target: format!("{path}?{}", gcp::metadata_query(&self.key.audience)), form: None },
        };
        let bare = question.form.is_none();
        let body = fetch::ask(url, question, &mut self.trust, &self.resolver).await?;
        gcp::read(&body, bare, &self.key.audience, now).map_err(|why| why.to_owned().into())
    }
}

fn unix() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}
