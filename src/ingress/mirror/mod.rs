//! A function's mirror: another version gets copies of requests, and its answers are compared and dropped.
//!
//! The caller's own call knows nothing of it: the copy is taken as the request goes out, and a task of its own sends it once it is whole. What
//! it may take is bounded: so many copies at a time, each with so much of a body; what is more is not copied, and counted.

mod call;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Version, header};
use pingora_http::RequestHeader;
use tokio::sync::oneshot;

use self::call::Call;
pub use self::call::{Connector, enter};
use super::{
    caller::Caller,
    ctx::{Ctx, Picked},
    forward,
    live::Live,
    sign,
};
use crate::{
    config::{
        Config,
        model::{self, FunctionId},
    },
    decide::{
        Class,
        budget::{Ledger, Taken},
        content_length,
        mirror::Deal,
    },
    observe::{
        format::mirror::Answered,
        metrics::{MirrorCounts, MirrorResult},
    },
    platform::outcome::by_status,
};

/// Says that nobody waits for the answer: a function may leave out what it should do once only.
pub(super) const X_GATEPOST_MIRROR: HeaderName = HeaderName::from_static("x-gatepost-mirror");

/// What each function's mirror has for itself; `None`: it has none.
pub type Mirrors = Arc<[Option<Mirror>]>;

/// One function's.
#[derive(Debug, Clone)]
pub struct Mirror {
    deal: Arc<Deal>,
    counts: Arc<MirrorCounts>,
    lines: Arc<call::Lines>,
}

/// The mirrors of a config. What is dealt and counted goes on where it is of the same version and share.
pub fn mirrors(config: &Config, workers: usize, old: Option<(&Config, &Mirrors)>) -> Mirrors {
    if config.functions.iter().all(|function| function.mirror.is_none()) {
        return Arc::default();
    }
    let of = |function: &model::Function| {
        let wanted = function.mirror.as_deref()?;
        let version = &function.versions[wanted.version.index()].name;
        let before = old.and_then(|(config, mirrors)| {
            let at = config.functions.iter().position(|f| f.name == function.name)?;
            let was = config.functions[at].mirror.as_deref()?;
            Some((was, mirrors.get(at)?.as_ref()?))
        });
        let same = before.filter(|(_, mirror)| mirror.counts.version == *version);
        let as_often = same.filter(|(was, _)| was.share == wanted.share);
        Some(Mirror {
            deal: as_often.map_or_else(|| Arc::new(Deal::new(wanted.share, workers)), |(_, m)| m.deal.clone()),
            counts: same.map_or_else(
                || Arc::new(MirrorCounts::new(function.name.clone(), version.clone())),
                |(_, m)| m.counts.clone(),
            ),
            lines: before.map_or_else(Arc::default, |(_, m)| m.lines.clone()),
        })
    };
    config.functions.iter().map(of).collect()
}

/// What is counted of them.
pub fn counts(mirrors: &Mirrors) -> Vec<Arc<MirrorCounts>> {
    mirrors.iter().flatten().map(|mirror| mirror.counts.clone()).collect()
}

/// A request's copy, in its context.
pub(super) enum Copy {
    /// Its body is still coming.
    Waits(Box<Waiting>),
    /// It is on its way; who sent it wants to hear how the caller's own call ended.
    Sent(oneshot::Sender<Answered>),
}

pub(super) struct Waiting {
    call: Call,
    body: Vec<u8>,
    max: usize,
}

/// One of the copies that may be under way.
struct Slot(Arc<MirrorCounts>);

impl Slot {
    fn take(counts: &Arc<MirrorCounts>, most: u32) -> Option<Self> {
        let before = counts.under_way.fetch_add(1, Relaxed);
        let slot = Self(counts.clone());
        (before < most as usize).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// What the copy's call takes from its function's budget; given back where it was not sent.
struct Charge(Option<(Arc<Ledger>, Taken)>);

impl Charge {
    fn settle(mut self, cost: Option<u64>) {
        if let Some((ledger, taken)) = self.0.take() {
            ledger.end(taken, cost);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some((ledger, taken)) = self.0.take() {
            ledger.end(taken, None);
        }
    }
}

/// An attempt of a request begins: takes a copy, where its function's mirror is to have one.
pub(super) fn offer(caller: &mut Caller<'_>, ctx: &mut Ctx) {
    if ctx.live.as_ref().is_none_or(|live| live.mirrors.is_empty()) {
        return;
    }
    if ctx.attempts > 1 {
        // Its body comes from the start once more.
        if let Some(Copy::Waits(waiting)) = &mut ctx.mirror {
            waiting.body.clear();
        }
        return;
    }
    let (Some(live), Some(picked)) = (ctx.live.clone(), ctx.picked) else { return };
    let function = picked.function.index();
    let policy = live.snapshot.config.functions[function].mirror.as_deref();
    let (Some(policy), Some(Some(mirror))) = (policy, live.mirrors.get(function)) else { return };
    let request = caller.req_header();
    let is_eligible = picked.version != policy.version
        && !ctx.is_upgrade
        && policy.methods.contains(&request.method)
        && !request.headers.contains_key(X_GATEPOST_MIRROR);
    if is_eligible
        && mirror.deal.next(ctx.worker)
        && let Err(why) = take(caller, ctx, &live, mirror, (picked, policy))
    {
        mirror.counts.count(why);
    }
}

fn take(
    caller: &mut Caller<'_>,
    ctx: &mut Ctx,
    live: &Arc<Live>,
    mirror: &Mirror,
    (picked, policy): (Picked, &model::Mirror),
) -> Result<(), MirrorResult> {
    let is_empty = caller.is_body_empty();
    let kept = if is_empty { Some(Bytes::new()) } else { sign::kept(ctx) };
    let length = kept.as_ref().map(|kept| kept.len() as u64).or_else(|| content_length(&caller.req_header().headers));
    if length.is_some_and(|length| length > policy.max_body as u64) {
        return Err(MirrorResult::TooLarge);
    }
    let slot = Slot::take(&mirror.counts, policy.concurrency.get()).ok_or(MirrorResult::Dropped)?;
    let charge = charge(live, picked.function).ok_or(MirrorResult::OverBudget)?;
    let head = head(caller, ctx, live, picked, policy).ok_or(MirrorResult::Failed)?;
    let call = Call {
        live: live.clone(),
        mirror: mirror.clone(),
        picked,
        route: ctx.route,
        worker: ctx.worker,
        request_id: ctx.request_id.clone(),
        path: ctx.path.clone().or_else(|| ctx.asked.as_ref().map(|(_, uri)| uri.path().into())).unwrap_or_default(),
        head,
        slot,
        charge,
    };
    ctx.mirror = Some(match kept {
        Some(body) => call.send(body),
        None => Copy::Waits(Box::new(Waiting { call, body: Vec::new(), max: policy.max_body })),
    });
    Ok(())
}

/// `None`: the function's budget has none to spare.
fn charge(live: &Live, function: FunctionId) -> Option<Charge> {
    let budget = live.snapshot.config.functions[function.index()].budget.as_deref();
    let ledger = live.snapshot.ledgers[function.index()].as_ref();
    match budget.zip(ledger) {
        None => Some(Charge(None)),
        Some((budget, ledger)) => Some(Charge(Some((ledger.clone(), ledger.spare(budget)?)))),
    }
}

/// The head as the caller's version gets it, but for what is the mirror's own: target and Host. `None`: it can't be.
fn head(
    caller: &Caller<'_>,
    ctx: &Ctx,
    live: &Live,
    picked: Picked,
    policy: &model::Mirror,
) -> Option<Box<RequestHeader>> {
    let config = &live.snapshot.config;
    let function = &config.functions[picked.function.index()];
    let (_, asked) = ctx.asked.as_ref()?;
    let route = &config.routes[ctx.route?.index()];
    let path = ctx.path.as_deref().unwrap_or_else(|| asked.path());
    let url = &function.versions[policy.version.index()].url;
    let target = forward::target(path, asked.path(), asked.query(), route, url);
    let target = match target.as_deref() {
        Some(target) => target.parse().ok()?,
        None => asked.path_and_query()?.as_str().parse().ok()?,
    };
    let mut head = Box::new(caller.req_header().clone());
    head.set_version(Version::HTTP_11);
    head.set_uri(target);
    if !function.preserve_host {
        head.insert_header(header::HOST, live.host(picked.function, policy.version).clone()).ok()?;
    }
    head.remove_header(&header::EXPECT);
    head.insert_header(X_GATEPOST_MIRROR, HeaderValue::from_static("1")).ok()?;
    Some(head)
}

/// A piece of the body goes to the caller's version.
pub(super) fn body(ctx: &mut Ctx, piece: Option<&Bytes>, is_end: bool) {
    let Some(Copy::Waits(waiting)) = &mut ctx.mirror else { return };
    if let Some(piece) = piece {
        if waiting.body.len() + piece.len() > waiting.max {
            waiting.call.mirror.counts.count(MirrorResult::TooLarge);
            ctx.mirror = None;
            return;
        }
        waiting.body.extend_from_slice(piece);
    }
    if is_end && let Some(Copy::Waits(waiting)) = ctx.mirror.take() {
        let Waiting { call, body, max: _ } = *waiting;
        ctx.mirror = Some(call.send(body.into()));
    }
}

/// The caller's own call is over.
pub(super) fn over(ctx: &mut Ctx, class: Class) {
    match ctx.mirror.take() {
        None => {}
        // It broke off before it was whole.
        Some(Copy::Waits(waiting)) => waiting.call.mirror.counts.count(MirrorResult::Aborted),
        Some(Copy::Sent(told)) => {
            let class = match ctx.upstream_status {
                Some(status) => Some(ctx.outcome.unwrap_or_else(|| by_status(status))),
                // Nobody knows what it would have been.
                None => Some(class).filter(|class| !matches!(class, Class::Aborted | Class::Refused)),
            };
            // Whoever sent the copy may have been stopped.
            let _ = told.send(Answered { status: ctx.upstream_status, class, took: ctx.upstream });
        }
    }
}
