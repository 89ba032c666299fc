//! A function's budget, at a request: taken from before the call, settled when it is over.

use http::header;
use pingora_error::Result;

use super::{
    ctx::{Ctx, since},
    live::{self, Live},
    reply::Answer,
};
use crate::{
    config::model::{Budget, BudgetAction},
    decide::{
        Class, Now, Reason,
        budget::{self, Ledger, used},
        retry::Because,
        snapshot::Refusal,
    },
    observe::unix_ms,
};

/// The longest that a caller is told to wait: a budget may be raised.
const LONGEST: u64 = 3600;
/// While some still get through.
const SHED: u64 = 60;

fn of<'l>(ctx: &Ctx, live: &'l Live) -> Option<(&'l Budget, &'l Ledger)> {
    let function = ctx.picked?.function;
    let budget = live.snapshot.config.functions[function.index()].budget.as_deref()?;
    Some((budget, live.snapshot.ledgers[function.index()].as_deref()?))
}

/// Lets the call in that is to be made, if its function's budget does.
pub(super) fn take(ctx: &mut Ctx) -> Result<(), Refusal> {
    let Some((budget, ledger)) = ctx.live.as_deref().and_then(|live| of(ctx, live)) else { return Ok(()) };
    let taken = ledger.take(budget, live::roll());
    ctx.taken = taken;
    taken.map(drop).ok_or_else(|| Reason::BudgetSpent.into())
}

/// An attempt is over, and another call is to be made: the next one is let in, if the budget does, and what is billed of the last one is
/// settled. One that was not billed costs nothing: the next goes in its place.
pub(super) fn again(ctx: &mut Ctx, live: &Live, because: Because) -> bool {
    let (Some(taken), Some((budget, ledger))) = (ctx.taken, of(ctx, live)) else { return true };
    let billed = ctx.billed.unwrap_or_else(|| may_be_billed(because));
    let Some(sent) = ctx.sent_at.filter(|_| billed) else {
        ctx.billed = None;
        return true;
    };
    let Some(next) = ledger.take_again(budget, live::roll()) else { return false };
    ledger.end(taken, Some(budget.cost(millis(sent))));
    (ctx.taken, ctx.billed) = (Some(next), None);
    true
}

/// A connection that broke before an answer may have had its request run.
fn may_be_billed(because: Because) -> bool {
    match because {
        Because::Connect | Because::Stale | Because::Throttled | Because::Platform => false,
        Because::Config | Because::Account => false,
        Because::Reset | Because::Function | Because::Timeout => true,
    }
}

fn millis(sent: Now) -> u64 {
    u64::try_from(since(sent).as_millis()).unwrap_or(u64::MAX)
}

/// The call is over: what was not sent, or is not billed, is given back.
pub(super) fn settle(ctx: &Ctx, live: &Live, class: Class) {
    let (Some(taken), Some((budget, ledger))) = (ctx.taken, of(ctx, live)) else { return };
    let billed = ctx.billed.unwrap_or_else(|| budget::is_billed(class));
    let sent = ctx.sent_at.filter(|_| billed);
    ledger.end(taken, sent.map(|sent| budget.cost(millis(sent))));
}

/// Says when to come back, where the budget refused.
pub(super) fn dress(answer: &mut Answer, ctx: &Ctx, reason: Reason) -> Result<()> {
    if reason == Reason::BudgetSpent
        && answer.header.headers.contains_key(header::RETRY_AFTER)
        && let Some((budget, ledger)) = ctx.live.as_deref().and_then(|live| of(ctx, live))
    {
        let left = u64::try_from(ledger.ends()).unwrap_or(0).saturating_sub(unix_ms() / 1000);
        let most = if used(budget, ledger.counts()) < 1.0 { SHED } else { LONGEST };
        answer.header.insert_header(header::RETRY_AFTER, left.clamp(1, most).to_string())?;
    }
    Ok(())
}

/// Whether the route's `fallback` stands in for a budget's refusal.
pub(super) fn falls_back(ctx: &Ctx, reason: Reason) -> bool {
    let budget = || ctx.live.as_deref().and_then(|live| of(ctx, live));
    reason == Reason::BudgetSpent && budget().is_some_and(|(budget, _)| budget.action == BudgetAction::Fallback)
}
