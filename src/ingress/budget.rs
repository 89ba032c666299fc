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
        Class, Reason,
        budget::{self, Ledger, used},
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

/// Lets the call in that was decided, if its function's budget does.
pub(super) fn take(ctx: &mut Ctx, live: &Live) -> Result<(), Refusal> {
    let Some((budget, ledger)) = of(ctx, live) else { return Ok(()) };
    ctx.taken = ledger.take(budget, live::roll());
    ctx.taken.map(drop).ok_or_else(|| Reason::BudgetSpent.into())
}

/// The call is over: what was not sent, or is not billed, is given back.
pub(super) fn settle(ctx: &Ctx, live: &Live, class: Class) {
    let (Some(taken), Some((budget, ledger))) = (ctx.taken, of(ctx, live)) else { return };
    let sent = ctx.sent_at.filter(|_| budget::is_billed(class));
    let millis = |sent| u64::try_from(since(sent).as_millis()).unwrap_or(u64::MAX);
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
