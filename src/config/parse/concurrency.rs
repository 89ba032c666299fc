//! `concurrency` of a function and of its versions.

use std::{num::NonZeroU32, time::Duration};

use super::Scope;
use crate::config::{
    model::{Adaptive, Concurrency, Growth, Rate},
    raw, raw_concurrency,
    raw_concurrency::VersionConcurrency,
    report::Problem,
    source::At,
};

impl Scope<'_> {
    /// What caps the function's calls; also where only a version has a cap.
    pub(super) fn concurrency(&mut self, raw: &raw::Function) -> Option<Concurrency> {
        let Some(at) = &raw.concurrency else {
            return any_version_is_capped(raw).then(Concurrency::default);
        };
        let own = &at.value;
        let default = Concurrency::default();
        let max = count(own.max.as_ref());
        if !own.broken && max.is_none() && own.growth.is_none() && own.adaptive.is_none() && !any_version_is_capped(raw)
        {
            self.report.push(
                Problem::at("`concurrency` caps nothing", at.span)
                    .label("expected at least one of `max`, `growth` and `adaptive`"),
            );
        }
        Some(Concurrency {
            max,
            queue: own.queue.as_ref().and_then(|at| u32::try_from(at.value.0).ok()).unwrap_or(default.queue),
            wait: own.wait.as_ref().map_or(default.wait, |at| at.value.0),
            growth: own.growth.as_ref().and_then(|at| growth(&at.value)),
            adaptive: own.adaptive.as_ref().map(|at| self.adaptive(&at.value, own, max)),
        })
    }

    fn adaptive(
        &mut self,
        raw: &raw_concurrency::Adaptive,
        concurrency: &raw_concurrency::Concurrency,
        max: Option<NonZeroU32>,
    ) -> Adaptive {
        const MIN: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
        let min = count(raw.min.as_ref());
        if let (Some(least), Some(most), Some(at), Some(max_at)) = (min, max, &raw.min, &concurrency.max)
            && least > most
        {
            self.report.push(
                Problem::at(format!("`min` is {least}, and `max` is {most}"), at.span)
                    .label(format!("expected at most {most}"))
                    .also(max_at.span, "the most calls at a time"),
            );
        }
        Adaptive {
            min: min.unwrap_or_else(|| max.map_or(MIN, |max| max.min(MIN))),
            decrease: raw.decrease.as_ref().and_then(|at| u8::try_from(at.value.0).ok()).unwrap_or(5),
            increase: raw.increase.as_ref().map_or_else(|| increase(max), |at| at.value),
        }
    }
}

/// A cap of its own that a version has.
pub(super) fn version_max(at: Option<&At<VersionConcurrency>>) -> Option<NonZeroU32> {
    count(at?.value.max.as_ref())
}

fn any_version_is_capped(raw: &raw::Function) -> bool {
    let versions = raw.versions.iter().flat_map(|at| &at.value.0).filter_map(|(_, at)| at.as_ref());
    versions.into_iter().any(|at| at.value.0.concurrency.is_some())
}

fn growth(raw: &raw_concurrency::Growth) -> Option<Growth> {
    let rate = raw.rate.as_ref()?.value;
    Some(Growth { rate, burst: count(raw.burst.as_ref()).unwrap_or_else(|| a_minute_of(rate)) })
}

fn a_minute_of(rate: Rate) -> NonZeroU32 {
    let calls = u64::from(rate.count.get()) * 60 / rate.period.as_secs().max(1);
    u32::try_from(calls).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

/// Back from the least to the most in some hundred seconds.
fn increase(max: Option<NonZeroU32>) -> Rate {
    let count = max.map_or(10, |max| max.get() / 100);
    Rate { count: NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN), period: Duration::from_secs(1) }
}

fn count(at: Option<&At<raw::Connections>>) -> Option<NonZeroU32> {
    at.and_then(|at| u32::try_from(at.value.0).ok()).and_then(NonZeroU32::new)
}
