//! A copy on its way: one call of the mirror, its answer read to the end and dropped, and the pair compared.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Uri, header};
use pingora_core::{protocols::http::client::HttpSession, upstreams::peer::HttpPeer};
use pingora_http::RequestHeader;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Charge, Copy, Mirror, Slot};
use crate::{
    config::model::{Function, RouteId, UpstreamHttp},
    decide::{Class, Now, budget},
    ingress::{
        ctx::{Picked, since},
        live::{self, Live},
        on_platform, sign,
    },
    observe::{MirrorEntry, format::mirror::Answered, metrics::MirrorResult, unix_ms},
    platform::{
        outcome::{by_status, outcome},
        sign::Payload,
    },
    upstream::SHORTEST_IDLE,
};

/// Connections to mirrors, as pingora makes and keeps them: of one worker.
pub type Connector = pingora_core::connectors::http::Connector;

/// No answer is read further: it would say nothing more.
const LONGEST: usize = 8 << 20;
/// Informational answers before one.
const INFORMATIONAL: usize = 8;
/// Lines a second of pairs that differ, and of those that don't, for each function.
const DIFFERENT: u64 = 10;
const SAME: u64 = 1;

thread_local! {
    static CONNECTOR: RefCell<Option<Arc<Connector>>> = const { RefCell::new(None) };
}

/// Gives this worker its connections to mirrors.
pub fn enter(connector: Arc<Connector>) {
    CONNECTOR.set(Some(connector));
}

/// How many lines of a kind this second has had.
#[derive(Debug, Default)]
pub(super) struct Lines {
    same: AtomicU64,
    other: AtomicU64,
}

impl Lines {
    /// Whether a line of this may be written at `ts` (milliseconds).
    fn wants(&self, result: MirrorResult, ts: u64) -> bool {
        let (lines, most) = match result {
            MirrorResult::Same => (&self.same, SAME),
            _ => (&self.other, DIFFERENT),
        };
        let second = (ts / 1000) << 16;
        let more = |had: u64| match had & !0xffff == second {
            true if had & 0xffff >= most => None,
            true => Some(had + 1),
            false => Some(second + 1),
        };
        lines.fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}

/// A copy that is to be sent, with what its line will say.
pub(super) struct Call {
    pub(super) live: Arc<Live>,
    pub(super) mirror: Mirror,
    /// Of the caller's own call.
    pub(super) picked: Picked,
    pub(super) route: Option<RouteId>,
    pub(super) worker: usize,
    pub(super) request_id: HeaderValue,
    pub(super) path: Box<str>,
    pub(super) head: Box<RequestHeader>,
    pub(super) slot: Slot,
    pub(super) charge: Charge,
}

/// How far a call came.
struct Ended {
    /// Since when it costs something; `None`: nothing was sent.
    sent: Option<Now>,
    /// Whether the platform bills it, where a rule says so.
    billed: Option<bool>,
    answer: Result<Answered, String>,
}

impl Call {
    /// Sends it from a task of its own.
    pub(super) fn send(self, body: Bytes) -> Copy {
        let (told, real) = oneshot::channel();
        tokio::spawn(self.run(body, real));
        Copy::Sent(told)
    }

    fn function(live: &Live, picked: Picked) -> &Function {
        &live.snapshot.config.functions[picked.function.index()]
    }

    async fn run(self, body: Bytes, real: oneshot::Receiver<Answered>) {
        let Self { live, mirror, picked, route, worker, request_id, path, head, slot, charge } = self;
        let method = head.method.clone();
        let Ended { sent, billed, answer } = exchange(&live, picked, worker, head, body).await;
        let class = answer.as_ref().ok().and_then(|answer| answer.class).unwrap_or(Class::Timeout);
        let billed = billed.unwrap_or_else(|| budget::is_billed(class));
        let cost = sent.filter(|_| billed).and_then(|sent| {
            let millis = u64::try_from(since(sent).as_millis()).unwrap_or(u64::MAX);
            Self::function(&live, picked).budget.as_deref().map(|budget| budget.cost(millis))
        });
        charge.settle(cost);
        drop(slot);

        // It may take longer; only the numbers are kept until then.
        let real = real.await.unwrap_or_default();
        let result = compare(&answer, &real);
        mirror.counts.count(result);
        if let (MirrorResult::Same | MirrorResult::Different, Ok(Answered { took: Some(took), .. }), Some(real)) =
            (result, &answer, real.took)
        {
            mirror.counts.pair(real, *took);
        }
        let ts = unix_ms();
        if result == MirrorResult::Aborted || !mirror.lines.wants(result, ts) {
            return;
        }
        let config = &live.snapshot.config;
        let function = Self::function(&live, picked);
        let entry = MirrorEntry {
            ts,
            request_id: request_id.to_str().unwrap_or("-"),
            generation: live.snapshot.generation,
            route: route.map(|route| &*config.routes[route.index()].name),
            function: &function.name,
            version: &mirror.counts.version,
            method: method.as_str(),
            path: path.as_bytes(),
            result: result.as_str(),
            answer: answer.as_ref().copied().unwrap_or_default(),
            real_version: &function.versions[picked.version.index()].name,
            real,
            error: answer.as_ref().err().map(String::as_str),
        };
        live::log(|port| port.write_mirror(&config.log, &entry));
    }
}

fn compare(answer: &Result<Answered, String>, real: &Answered) -> MirrorResult {
    let hundreds = |answered: &Answered| answered.status.map(|status| status / 100);
    match answer {
        Err(_) => MirrorResult::Failed,
        Ok(_) if real.class.is_none() => MirrorResult::Aborted,
        Ok(answer) if answer.class == real.class && hundreds(answer) == hundreds(real) => MirrorResult::Same,
        Ok(_) => MirrorResult::Different,
    }
}

/// The whole call, within the mirror's `timeout`.
async fn exchange(live: &Live, picked: Picked, worker: usize, mut head: Box<RequestHeader>, body: Bytes) -> Ended {
    let nothing = |why: &str| Ended { sent: None, billed: None, answer: Err(why.to_owned()) };
    let function = Call::function(live, picked);
    let Some(policy) = function.mirror.as_deref() else { return nothing("there is no mirror") };
    let Some(connector) = CONNECTOR.with_borrow(Clone::clone) else { return nothing("there are no connections") };
    let until = Instant::now() + policy.timeout;
    let late = || format!("no answer within {:?}", policy.timeout);
    if let Err(why) = dress(live, picked, &mut head, &body) {
        return nothing(&why);
    }
    let target = live.target(picked.function, policy.version);
    let mut candidates = target.candidates(live::now());
    if candidates.is_empty() {
        let _ = timeout_at(until, target.wait_first(function.timeouts.connect)).await;
        candidates = target.candidates(live::now());
    }
    let mut why = "its name does not resolve".to_owned();
    let mut fresh = function.pool.idle.is_zero();
    let mut next = candidates.next();
    while let Some(address) = next {
        // HTTP/1.1 but where the function speaks nothing else than h2.
        let mut peer = match function.http {
            UpstreamHttp::Http2 => target.peer(address),
            _ => target.http1_peer(address),
        };
        // One bound for the whole call.
        peer.options.read_timeout = None;
        if fresh {
            peer.group_key = live::roll();
            peer.options.idle_timeout = Some(SHORTEST_IDLE);
        } else if let Some(age) = function.pool.age {
            peer.group_key ^= on_platform::generation_of(live::now(), worker, age);
        }
        let (mut session, reused) = match timeout_at(until, connector.get_http_session(&*peer)).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => {
                target.failed(address, live::now(), None);
                why = error.to_string();
                next = candidates.next();
                continue;
            }
            Err(_) => return nothing(&late()),
        };
        target.succeeded(address);
        let sent = live::now();
        let talked = timeout_at(until, ask(&mut session, &head, &body)).await;
        let (answer, billed) = match talked {
            Ok(Ok(())) => answered(function, &session, sent).map_or_else(|why| (Err(why), None), |(a, b)| (Ok(a), b)),
            Ok(Err(error)) => (Err(error.to_string()), None),
            Err(_) => (Err(late()), None),
        };
        // Without a head there is nothing to read: pingora panics.
        if answer.is_ok() && finish(&mut session, until).await {
            connector.release_http_session(session, &*peer, peer.options.idle_timeout).await;
            return Ended { sent: Some(sent), billed, answer };
        }
        let was_stale = answer.is_err() && reused && !fresh && head.method.is_idempotent() && Instant::now() < until;
        give_up(&connector, session, &peer).await;
        if !was_stale {
            return Ended { sent: Some(sent), billed, answer };
        }
        // A kept connection that the mirror had closed meanwhile says nothing of it: once more, on a new one.
        fresh = true;
    }
    Ended { sent: None, billed: None, answer: Err(why) }
}

/// What is the mirror's own in the head: how long its body is, and its version's signature.
fn dress(live: &Live, picked: Picked, head: &mut RequestHeader, body: &Bytes) -> Result<(), String> {
    let said = |error: Box<pingora_error::Error>| error.to_string();
    let had_length = head.headers.contains_key(header::CONTENT_LENGTH);
    let had_body = head.remove_header(&header::TRANSFER_ENCODING).is_some() || had_length;
    if had_body || !body.is_empty() {
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len())).map_err(said)?;
    }
    let function = Call::function(live, picked);
    let version = function.mirror.as_deref().map_or(picked.version, |mirror| mirror.version);
    if let Some(signer) = live.signer(picked.function, version) {
        let payload = match body.is_empty() {
            true => Payload::Empty,
            false if signer.hashes_bodies() => Payload::of(body),
            false => Payload::Unread,
        };
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(u64::MAX, |time| time.as_secs());
        let signed = sign::put(head, signer, payload, now).map_err(said)?;
        signed.map_err(|error| format!("the call cannot be signed: {error}"))?;
    }
    if function.http == UpstreamHttp::Http2 {
        over_h2(head, function.versions[version.index()].url.tls)?;
    }
    Ok(())
}

/// RFC 9113 §8.3.1: the authority stands in the target, not in Host.
fn over_h2(head: &mut RequestHeader, tls: bool) -> Result<(), String> {
    let host = head.remove_header(&header::HOST).ok_or("it has no Host")?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let scheme = if tls { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(path).build();
    head.set_uri(uri.map_err(|error| error.to_string())?);
    head.set_version(http::Version::HTTP_2);
    Ok(())
}

async fn ask(session: &mut HttpSession, head: &RequestHeader, body: &Bytes) -> pingora_error::Result<()> {
    session.write_request_header(Box::new(head.clone())).await?;
    if !body.is_empty() {
        session.write_request_body(body.clone(), true).await?;
    }
    session.finish_request_body().await?;
    for _ in 0..=INFORMATIONAL {
        session.read_response_header().await?;
        if session.response_header().is_some_and(|head| !head.status.is_informational()) {
            return Ok(());
        }
    }
    pingora_error::Error::e_explain(pingora_error::ErrorType::InvalidHTTPHeader, "informational answers without end")
}

/// And whether it is billed, where a rule says so.
fn answered(function: &Function, session: &HttpSession, sent: Now) -> Result<(Answered, Option<bool>), String> {
    let head = session.response_header().ok_or("no answer")?;
    let status = head.status.as_u16();
    let outcome = outcome(&function.platform, status, &head.headers);
    let class = outcome.map_or_else(|| by_status(status), |outcome| outcome.class);
    let answered = Answered { status: Some(status), class: Some(class), took: Some(since(sent)) };
    Ok((answered, outcome.and_then(|outcome| outcome.billed)))
}

/// Reads the answer to its end, within bounds: whether its connection is as good as before.
async fn finish(session: &mut HttpSession, until: Instant) -> bool {
    let mut read = 0;
    let all = async {
        while let Ok(Some(piece)) = session.read_response_body().await {
            read += piece.len();
            if read > LONGEST {
                return false;
            }
        }
        session.response_done()
    };
    timeout_at(until, all).await.unwrap_or(false)
}

/// A call that came to no proper end: its connection is closed, or, of h2, its stream.
async fn give_up(connector: &Connector, mut session: HttpSession, peer: &HttpPeer) {
    session.shutdown().await;
    if matches!(session, HttpSession::H2(_)) {
        // pingora keeps the connection among those in use for good otherwise.
        connector.release_http_session(session, peer, Some(Duration::from_secs(1))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_of_each_kind() {
        let lines = Lines::default();
        let written = |result, ts| (0..50).filter(|_| lines.wants(result, ts)).count();
        assert_eq!(written(MirrorResult::Different, 5_000), 10);
        assert_eq!(written(MirrorResult::Failed, 5_999), 0);
        assert_eq!(written(MirrorResult::Same, 5_000), 1);
        assert_eq!(written(MirrorResult::Failed, 6_000), 10);
    }

    #[test]
    fn answers_are_the_same_by_class_and_hundred() {
        let answered = |status: Option<u16>, class| Answered { status, class, took: None };
        let ok = |status, class| Ok(answered(Some(status), Some(class)));
        let real = answered(Some(200), Some(Class::Ok));
        assert_eq!(compare(&ok(204, Class::Ok), &real), MirrorResult::Same);
        assert_eq!(compare(&ok(302, Class::Ok), &real), MirrorResult::Different);
        // A platform's 200 that its rules know for a failure.
        assert_eq!(compare(&ok(200, Class::Function), &real), MirrorResult::Different);
        assert_eq!(compare(&ok(200, Class::Ok), &answered(None, Some(Class::Timeout))), MirrorResult::Different);
        assert_eq!(compare(&ok(200, Class::Ok), &Answered::default()), MirrorResult::Aborted);
        assert_eq!(compare(&Err("no".to_owned()), &real), MirrorResult::Failed);
    }
}
