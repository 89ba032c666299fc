//! `cache`: those who ask the same share an answer.
//!
//! Not pingora's cache: its storage, lock and predictor are traits of boxes with a state machine of their own around every request, its
//! lock lets followers go one after the other behind an answer that can't be kept, and what it knows of Vary and conditions would
//! be ours to write all the same. What is wanted here is small: whole answers in memory, for about a second.
//!
//! A request that finds nothing leads: it goes to the function as it would without a cache, and what comes is copied on its way
//! ([`head`], [`body`]). Others wait for it, for [`Cache::wait`](crate::config::model::Cache) at most. Where the answer is not one to be shared,
//! or none comes, they go on at once, side by side. When the leader's caller goes away, one of them leads.

mod entry;
mod store;

use std::{cell::RefCell, collections::HashMap, hash::Hasher, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use twox_hash::XxHash64;

use self::{
    entry::Entry,
    store::{Found, Leader, Outcome, Store},
};
use super::{
    caller::Caller,
    ctx::{Ctx, since},
    live::{self, Live},
    proxy::Ingress,
    reply::{Answer, X_REQUEST_ID_NAME},
};
use crate::{
    config::{
        Config,
        model::{Cache, Fallback, Function, Route, RouteId, Version as FunctionVersion},
    },
    decide::{
        Now, Reason,
        cache::{
            answer::{self, Keep},
            question::{self, Question, Use, write_variant},
            unchanged,
        },
        content_length,
    },
    observe::metrics::{CacheCounts, CacheResult, Handles},
    platform::outcome::by_status,
};

/// By route; `None`: it has none.
pub type Caches = Arc<[Option<Arc<RouteCache>>]>;

/// What a route keeps.
#[derive(Debug)]
pub struct RouteCache {
    store: Arc<Store>,
    /// By version: stands for all that makes a function's request of a caller's. With another URL, say, or other edits, it is
    /// another number, and what was kept is not found any more.
    meanings: Box<[u64]>,
    counts: Arc<CacheCounts>,
}

/// The caches of a config. What still means the same goes on from `old`.
pub fn caches(config: &Config, handles: &Handles, old: Option<&Live>) -> Caches {
    let all = old.map(|old| old.snapshot.config.routes.iter().zip(old.caches.iter())).into_iter().flatten();
    let before: HashMap<&str, &Arc<RouteCache>> =
        all.filter_map(|(route, cache)| Some((&*route.name, cache.as_ref()?))).collect();
    let routes = (0..).map(RouteId).zip(&config.routes);
    routes
        .map(|(id, route)| {
            let cache = route.handling.cache.as_ref()?;
            let counts = handles.cache(id)?.clone();
            let function = &config.functions[route.function()?.index()];
            let shards = store::shards_for(cache);
            let kept = before.get(&*route.name).map(|before| &before.store).filter(|store| store.shards() == shards);
            let store = kept.map_or_else(|| Arc::new(Store::new(shards, counts.held().clone())), Arc::clone);
            let meanings = function.versions.iter().map(|version| meaning(config, route, cache, function, version));
            Some(Arc::new(RouteCache { store, meanings: meanings.collect(), counts }))
        })
        .collect()
}

fn meaning(config: &Config, route: &Route, cache: &Cache, function: &Function, version: &FunctionVersion) -> u64 {
    let credential = version.credential.map(|id| &config.credentials[id.index()]);
    let handling = &route.handling;
    let of_version = (&function.name, &version.name, &version.url, &version.host, &version.ca, credential);
    let of_function = (function.preserve_host, &function.platform);
    let of_route = (&handling.path, &handling.request_headers, route.forward_client_cert, &cache.key);
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(format!("{of_version:?}{of_function:?}{of_route:?}").as_bytes());
    hasher.finish()
}

/// A request that the cache did not answer, on its way to the function.
#[derive(Debug)]
pub(super) struct Asking {
    cache: Arc<RouteCache>,
    /// Without what answers vary by.
    key: Box<[u8]>,
    asked: Now,
    /// Its answer may be kept.
    keeps: bool,
    /// Others wait for its answer.
    leader: Option<Leader>,
    /// What may stand in for it.
    stale: Option<Arc<Entry>>,
    arriving: Option<Arriving>,
    /// The caller's conditions: a leader asks without them, for the others have none of its answers. It gets the whole answer for
    /// once: pingora would not read the rest of one that has no body any more.
    conditions: Vec<(HeaderName, HeaderValue)>,
    /// The answer ends with its connection, so that nobody knows whether it is whole.
    is_endless: bool,
}

/// An answer that is copied as it comes.
#[derive(Debug)]
struct Arriving {
    head: ResponseHeader,
    at: Now,
    keep: Keep,
    body: Vec<u8>,
    /// Of the store's room for what arrives.
    room: Room,
}

#[derive(Debug)]
struct Room {
    store: Arc<Store>,
    taken: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.store.arrived(self.taken);
    }
}

thread_local! {
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How often a request looks again behind leaders that came to nothing.
const LOOKS: usize = 4;

/// Whether the request's route has a cache.
pub(super) fn is_on(ctx: &Ctx) -> bool {
    cache_of(ctx).is_some()
}

fn cache_of(ctx: &Ctx) -> Option<&Arc<RouteCache>> {
    ctx.live.as_ref()?.caches.get(ctx.route?.index())?.as_ref()
}

fn of(ctx: &Ctx) -> Option<Arc<RouteCache>> {
    cache_of(ctx).cloned()
}

fn question<'q>(live: &'q Live, ctx: &'q Ctx, request: &'q RequestHeader) -> Option<(Question<'q>, &'q Cache)> {
    let (route, picked) = (ctx.route?, ctx.picked?);
    let config = &live.snapshot.config;
    let route = &config.routes[route.index()];
    let sticky = config.functions[picked.function.index()].sticky.as_ref();
    let question = Question {
        method: &request.method,
        target: request.uri.path_and_query().map_or("/", |target| target.as_str()),
        headers: &request.headers,
        client: ctx.client.filter(|_| route.clients.is_some()).map(|id| &*config.clients[id.index()].name),
        client_ip: ctx.client_ip?,
        sticky: sticky.map_or(&[][..], |sticky| &sticky.by),
        shows_certificate: route.forward_client_cert,
    };
    Some((question, route.handling.cache.as_ref()?))
}

/// Answers the request, where there is something to answer it with; `false`: it goes to the function.
pub(super) async fn answer(caller: &mut Caller<'_>, ctx: &mut Ctx) -> Result<bool> {
    let live = ctx.live()?.clone();
    let Some(own) = of(ctx) else { return Ok(false) };
    let Some(picked) = ctx.picked else { return Ok(false) };
    let Some((asked, cache)) = question(&live, ctx, caller.req_header()) else { return Ok(false) };
    let Ok(usage) = question::judge(cache, &asked) else {
        ctx.cache_result = Some(CacheResult::Bypass);
        return Ok(false);
    };
    let mut key = KEY.take();
    question::write_key(&mut key, own.meanings[picked.version.index()], cache, &asked);
    let base = key.len();
    let mut look = |request: &RequestHeader| {
        key.truncate(base);
        own.store.find(&mut key, &request.headers, cache, usage, live::now())
    };
    let first = look(caller.req_header());
    if let Found::Fresh(entry) = first {
        KEY.set(key);
        ctx.cache_result = Some(CacheResult::Hit);
        let answer = dressed(caller, ctx, &entry)?;
        Ingress::write(caller, ctx, answer).await?;
        return Ok(true);
    }
    let mut found = first;
    let (mut leader, mut stale) = (None, None);
    for _ in 0..LOOKS {
        let (flight, standing_in) = match found {
            Found::Fresh(entry) => return coalesced(caller, ctx, &entry).await,
            Found::Lead(lead, standing_in) => {
                (leader, stale) = (Some(lead), standing_in);
                break;
            }
            Found::Pass(standing_in) => {
                stale = standing_in;
                break;
            }
            Found::Wait(flight, standing_in) => (flight, standing_in),
        };
        stale = standing_in;
        let left = cache.wait.saturating_sub(since(ctx.started));
        match tokio::time::timeout(left, flight.outcome()).await {
            Ok(Outcome::Kept(entry)) if entry.fits(&caller.req_header().headers) => {
                return coalesced(caller, ctx, &entry).await;
            }
            // Another leads, or what was kept varies by what this one asks otherwise.
            Ok(Outcome::Abandoned | Outcome::Kept(_)) => {
                let mut longer = key.clone();
                longer.truncate(base);
                found = own.store.find(&mut longer, &caller.req_header().headers, cache, usage, live::now());
            }
            Ok(Outcome::Passed) => break,
            Ok(Outcome::Failed) | Err(_) => {
                let Some(entry) = &stale else { break };
                ctx.cache_result = Some(CacheResult::Stale);
                let answer = dressed(caller, ctx, entry)?;
                Ingress::write(caller, ctx, answer).await?;
                return Ok(true);
            }
        }
    }
    key.truncate(base);
    ctx.cache_result = Some(CacheResult::Miss);
    let conditions = if leader.is_some() { take_conditions(caller.req_header_mut()) } else { Vec::new() };
    ctx.asking = Some(Box::new(Asking {
        cache: own,
        key: key.as_slice().into(),
        asked: live::now(),
        keeps: usage == Use::Both,
        leader,
        stale,
        arriving: None,
        conditions,
        is_endless: false,
    }));
    KEY.set(key);
    Ok(false)
}

async fn coalesced(caller: &mut Caller<'_>, ctx: &mut Ctx, entry: &Entry) -> Result<bool> {
    ctx.cache_result = Some(CacheResult::Coalesced);
    let answer = dressed(caller, ctx, entry)?;
    Ingress::write(caller, ctx, answer).await?;
    Ok(true)
}

fn take_conditions(request: &mut RequestHeader) -> Vec<(HeaderName, HeaderValue)> {
    let mut taken = Vec::new();
    if !unchanged::is_conditional(&request.headers) {
        return taken;
    }
    for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
        taken.extend(request.headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
        request.remove_header(&name);
    }
    taken
}

/// What was kept, as this caller gets it: with all that its route does to answers.
fn dressed(caller: &mut Caller<'_>, ctx: &mut Ctx, entry: &Entry) -> Result<Answer> {
    let mut answer = entry.answer(caller.req_header(), live::now())?;
    let head = &mut answer.header;
    let mut id = ctx.request_id.clone();
    id.set_sensitive(ctx.is_h2);
    head.insert_header(X_REQUEST_ID_NAME, id)?;
    Ingress::dress(caller, ctx, head)?;
    if let (Some(cookie), Some(conn)) = (ctx.picked.and_then(|picked| picked.cookie), &ctx.conn) {
        head.append_header(header::SET_COOKIE, cookie.set_cookie(conn.info.tls))?;
    }
    if ctx.conn.as_ref().is_some_and(|conn| conn.closing.load(std::sync::atomic::Ordering::Relaxed)) {
        caller.is_last();
    }
    let live = ctx.live()?.clone();
    let handling = ctx.route.map(|id| &live.snapshot.config.routes[id.index()].handling);
    if let (Some(wish), Some(compression)) = (ctx.wish, handling.and_then(|handling| handling.compression.as_ref())) {
        entry.compress(&mut answer, caller.req_header(), compression, wish)?;
    }
    if caller.req_header().method == Method::HEAD {
        answer.body = Bytes::new();
    }
    Ok(answer)
}

/// Before pingora makes an answer's end plain that its connection makes.
pub(super) fn framing(ctx: &mut Ctx, response: &ResponseHeader) {
    if let Some(asking) = &mut ctx.asking {
        let headers = &response.headers;
        asking.is_endless = response.version != Version::HTTP_2
            && !headers.contains_key(header::TRANSFER_ENCODING)
            && !headers.contains_key(header::CONTENT_LENGTH)
            && response.status != StatusCode::NO_CONTENT;
    }
}

/// The head of the function's answer, before anything is done to it for this caller.
pub(super) fn head(caller: &Caller<'_>, ctx: &mut Ctx, response: &ResponseHeader) -> Result<()> {
    let status = response.status.as_u16();
    let class = ctx.outcome.unwrap_or_else(|| by_status(status));
    if ctx.cache_result == Some(CacheResult::Bypass) && !caller.req_header().method.is_safe() && status < 400 {
        forget(caller, ctx);
        return Ok(());
    }
    let now = live::now();
    let Some(live) = ctx.live.clone() else { return Ok(()) };
    let sent = ctx.sent_at;
    let delay = sent.map_or(Duration::ZERO, since);
    let Some(cache) = ctx.route.and_then(|id| live.snapshot.config.routes[id.index()].handling.cache.as_ref()) else {
        return Ok(());
    };
    let Some(asking) = &mut ctx.asking else { return Ok(()) };
    if Fallback::is_for(class) {
        asking.end(Outcome::Failed);
        return Ok(());
    }
    if !asking.keeps {
        return Ok(());
    }
    let length = content_length(&response.headers);
    let keep = if asking.is_endless || length.is_some_and(|length| length > cache.max_body) {
        None
    } else {
        answer::judge(status, &response.headers, delay).ok()
    };
    let mut room = Room { store: asking.cache.store.clone(), taken: 0 };
    let (Some(keep), true) = (keep, room.grow(length.unwrap_or(0), cache)) else {
        asking.end(Outcome::Passed);
        return Ok(());
    };
    let body = Vec::with_capacity(length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0));
    asking.arriving = Some(Arriving { head: response.clone(), at: now, keep, body, room });
    if status == 204 || length == Some(0) {
        asking.arrived(caller.req_header(), cache);
    }
    Ok(())
}

/// The next piece of the function's answer.
pub(super) fn body(caller: &Caller<'_>, ctx: &mut Ctx, body: Option<&Bytes>, is_end: bool) {
    let Some(asking) = &mut ctx.asking else { return };
    let Some((live, route)) = ctx.live.as_ref().zip(ctx.route) else { return };
    let Some(cache) = live.snapshot.config.routes[route.index()].handling.cache.as_ref() else { return };
    if let Some(arriving) = &mut asking.arriving {
        let piece = body.map_or(&[][..], |body| body);
        let all = (arriving.body.len() + piece.len()) as u64;
        if all > cache.max_body || !arriving.room.grow(all, cache) {
            asking.end(Outcome::Passed);
        } else {
            arriving.body.extend_from_slice(piece);
            if is_end {
                asking.arrived(caller.req_header(), cache);
            }
        }
    }
}

/// The answer has trailers, which nobody keeps.
pub(super) fn trailers(ctx: &mut Ctx) {
    if let Some(asking) = &mut ctx.asking {
        asking.end(Outcome::Passed);
    }
}

/// The request is over: what has come is whole, unless something went wrong.
pub(super) fn over(caller: &Caller<'_>, ctx: &mut Ctx, is_good: bool) {
    let Some(mut asking) = ctx.asking.take() else { return };
    let Some((live, route)) = ctx.live.as_ref().zip(ctx.route) else { return };
    if let Some(cache) = live.snapshot.config.routes[route.index()].handling.cache.as_ref().filter(|_| is_good) {
        asking.arrived(caller.req_header(), cache);
    }
}

/// The call came to nothing: those who wait are told, and what may stand in for the answer is given.
pub(super) fn failed(caller: &mut Caller<'_>, ctx: &mut Ctx) -> Result<Option<Answer>> {
    let Some(asking) = &mut ctx.asking else { return Ok(None) };
    asking.end(Outcome::Failed);
    for (name, value) in mem::take(&mut asking.conditions) {
        caller.req_header_mut().append_header(name, value)?;
    }
    let Some(entry) = asking.stale.take() else { return Ok(None) };
    ctx.cache_result = Some(CacheResult::Stale);
    dressed(caller, ctx, &entry).map(Some)
}

/// The call came to nothing, be it that its answer has begun: nobody waits for it.
pub(super) fn broken(ctx: &mut Ctx, reason: Reason) {
    if let Some(asking) = ctx.asking.as_mut().filter(|_| reason.is_failure()) {
        asking.end(Outcome::Failed);
    }
}

/// The same for an answer that says that the call failed.
pub(super) fn stands_in(caller: &mut Caller<'_>, ctx: &mut Ctx, response: &ResponseHeader) -> Result<Option<Answer>> {
    if ctx.asking.is_none() {
        return Ok(None);
    }
    let class = ctx.outcome.unwrap_or_else(|| by_status(response.status.as_u16()));
    let answer = if Fallback::is_for(class) { failed(caller, ctx)? } else { None };
    if answer.is_some() {
        ctx.refusal = Some((Reason::FunctionFailed, "".into()));
    }
    Ok(answer)
}

/// RFC 9111 §4.4: who changes something does not get, behind that, what was kept before.
fn forget(caller: &Caller<'_>, ctx: &Ctx) {
    let Some(own) = of(ctx) else { return };
    let Some(live) = &ctx.live else { return };
    let Some((asked, cache)) = question(live, ctx, caller.req_header()) else { return };
    let now = live::now();
    let mut key = KEY.take();
    for meaning in &own.meanings {
        question::write_key(&mut key, *meaning, cache, &asked);
        own.store.forget(&key, now);
    }
    KEY.set(key);
}

/// Counts what the cache did.
pub(super) fn count(ctx: &Ctx) -> Option<CacheResult> {
    let result = ctx.cache_result?;
    if let Some(cache) = cache_of(ctx) {
        cache.counts.count(ctx.worker, result);
    }
    Some(result)
}

impl Asking {
    fn end(&mut self, outcome: Outcome) {
        self.arriving = None;
        if let Some(leader) = self.leader.take() {
            leader.ends(outcome, live::now());
        }
    }

    /// Keeps what has come, to its last byte.
    fn arrived(&mut self, request: &RequestHeader, cache: &Cache) {
        let Some(Arriving { head, at, keep, body, room }) = self.arriving.take() else { return };
        if content_length(&head.headers).is_some_and(|length| length != body.len() as u64) {
            return self.end(Outcome::Failed);
        }
        let mut variant = Vec::new();
        write_variant(&mut variant, &keep.vary, &request.headers);
        let entry = Entry::new(head, body.into(), (self.asked, at), keep, variant.into());
        drop(room);
        let Ok(entry) = entry.map(Arc::new) else { return self.end(Outcome::Passed) };
        self.cache.store.keep(&self.key, &entry, cache, live::now());
        self.end(Outcome::Kept(entry));
    }
}

impl Room {
    fn grow(&mut self, to: u64, cache: &Cache) -> bool {
        let more = to.saturating_sub(self.taken);
        if more > 0 && !self.store.arrives(more, cache) {
            return false;
        }
        self.taken += more;
        true
    }
}
