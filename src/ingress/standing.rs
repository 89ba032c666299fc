//! What a request says of its version's health when it is over, and each attempt of the address that it went to.

use super::{
    ctx::Ctx,
    live::{self, Live},
};
use crate::{
    config::model::Health,
    decide::{Class, Reason, retry::Because},
};

/// What an attempt says of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It gave an answer, be it what the function's own code makes of a request: that is the same everywhere.
    Answered,
    /// The connection broke, no answer came in time, or the platform itself failed there.
    Failed,
    Nothing,
}

fn health<'l>(ctx: &Ctx, live: &'l Live) -> Option<&'l Health> {
    live.snapshot.config.functions[ctx.picked?.function.index()].health.as_ref()
}

/// A request is over.
pub(super) fn request_over(ctx: &Ctx, live: &Live, class: Class) {
    let (Some(policy), Some(picked)) = (health(ctx, live), ctx.picked) else { return };
    if let Some(counts) = &live.snapshot.health[picked.function.index()] {
        counts[picked.version.index()].ended(class, policy.consecutive_failures);
    }
    let reason = ctx.refusal.as_ref().map(|(reason, _)| *reason);
    hear(ctx, live, policy, last(reason, class, ctx.again.is_stale()));
}

/// An attempt is over, and another one follows.
pub(super) fn attempt_over(ctx: &Ctx, live: &Live, because: Because) {
    if let Some(policy) = health(ctx, live) {
        hear(ctx, live, policy, one(because));
    }
}

fn hear(ctx: &Ctx, live: &Live, policy: &Health, said: Said) {
    // Who is alone takes every request, whatever is known of it.
    let has_others = ctx.candidates.as_ref().is_some_and(|all| all.len() > 1);
    let (Some(picked), Some(address), Some(sent), true) = (ctx.picked, ctx.address, ctx.sent_at, has_others) else {
        return;
    };
    let target = live.target(picked.function, picked.version);
    match said {
        Said::Answered => target.address_answered(address, sent, live::now()),
        Said::Failed => target.address_failed(address, sent, live::now(), policy),
        Said::Nothing => {}
    }
}

/// The last attempt of a request. A kept connection that proved dead was closed by the clock, and says nothing.
fn last(reason: Option<Reason>, class: Class, is_stale: bool) -> Said {
    match (reason, class) {
        (Some(Reason::UpstreamReset), _) if is_stale => Said::Nothing,
        (Some(Reason::UpstreamReset | Reason::UpstreamTimeout), _) | (_, Class::Platform) => Said::Failed,
        // What could not be connected to was told when that happened.
        (Some(_), _) => Said::Nothing,
        (None, Class::Ok | Class::ClientError | Class::Function | Class::Timeout | Class::Config | Class::Account) => {
            Said::Answered
        }
        (None, _) => Said::Nothing,
    }
}

fn one(because: Because) -> Said {
    match because {
        Because::Reset | Because::Platform => Said::Failed,
        Because::Function | Because::Timeout | Because::Config | Because::Account => Said::Answered,
        // Told when it happened; by the clock; and where it did not run there is nothing to say.
        Because::Connect | Because::Stale | Because::Throttled => Said::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_for_what_is_its_own_doing() {
        for (reason, class, said) in [
            (Some(Reason::UpstreamReset), Class::Function, Said::Failed),
            (Some(Reason::UpstreamTimeout), Class::Timeout, Said::Failed),
            (None, Class::Platform, Said::Failed),
            (Some(Reason::FunctionFailed), Class::Platform, Said::Failed),
            (None, Class::Function, Said::Answered),
            (None, Class::Timeout, Said::Answered),
            (None, Class::Ok, Said::Answered),
            (None, Class::Throttled, Said::Nothing),
            (None, Class::Aborted, Said::Nothing),
            (Some(Reason::UpstreamUnreachable), Class::Unreachable, Said::Nothing),
            (Some(Reason::BodyTooLarge), Class::Refused, Said::Nothing),
        ] {
            assert_eq!(last(reason, class, false), said, "{reason:?} {class:?}");
        }
        assert_eq!(last(Some(Reason::UpstreamReset), Class::Function, true), Said::Nothing);
    }
}
