//! What [`platform`](crate::platform) says of requests and answers, put into pingora's words.

use std::time::Duration;

use http::header;
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use super::{ctx::Picked, live::Live};
use crate::{
    config::model::{Platform, Sizes},
    decide::{Now, Reason, content_length, snapshot::Refusal},
    platform::{
        outcome::{Outcome, outcome},
        sign::Signer,
        sizes::{self, Part, TooLarge},
    },
};

/// Whether the platform takes as much as this: asked before a call is made that is billed.
pub(super) fn fits(request: &RequestHeader, platform: &Platform, signer: Option<&Signer>) -> Result<(), Refusal> {
    if platform.sizes == Sizes::default() {
        return Ok(());
    }
    within(request, platform, signer).map_err(too_large)
}

fn within(request: &RequestHeader, platform: &Platform, signer: Option<&Signer>) -> Result<(), TooLarge> {
    sizes::uri(platform, request.uri.path_and_query().map_or("/", |target| target.as_str()))?;
    sizes::headers(platform, &request.headers, signer)?;
    sizes::body(platform, content_length(&request.headers).unwrap_or(0))
}

fn too_large(what: TooLarge) -> Refusal {
    let reason = match what.part {
        Part::Headers => Reason::HeadersTooLarge,
        Part::Uri => Reason::UriTooLong,
        Part::Body => Reason::BodyTooLarge,
    };
    Refusal { detail: what.to_string().into(), ..reason.into() }
}

/// A body that grew past `bound` without having said so: its platform's, or else its route's.
#[cold]
pub(super) fn body_too_large(live: Option<&Live>, picked: Option<Picked>, bound: u64) -> Refusal {
    let platform = live.zip(picked).map(|(live, p)| &live.snapshot.config.functions[p.function.index()].platform);
    match platform.filter(|platform| platform.sizes.body == Some(bound)) {
        Some(platform) => too_large(sizes::body_without_end(platform)),
        None => Refusal::too_large(bound),
    }
}

/// How a call ended, where rules say so. The status becomes an honest one, where that is asked for; the body stays the
/// function's own: who reads its errors goes on doing so, streams go on, and the connection can be kept.
pub(super) fn judge(response: &mut ResponseHeader, platform: &Platform) -> Result<Option<Outcome>> {
    let Some(outcome) = outcome(platform, response.status.as_u16(), &response.headers) else { return Ok(None) };
    let Some(answer) = outcome.answer else { return Ok(Some(outcome)) };
    // RFC 9110 §6.4.1: these came without a body, and the new status would have one.
    if matches!(response.status.as_u16(), 204 | 205 | 304) {
        response.remove_header(&header::TRANSFER_ENCODING);
        response.insert_header(header::CONTENT_LENGTH, "0")?;
    }
    response.set_status(answer)?;
    // It was meant for a success.
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    Ok(Some(outcome))
}

/// See [`generation_of`].
const TURNS: u64 = 1024;

/// Which connections may be used now: those made since the last turn of `age`, for they share this part of their pool's key.
/// The others are not asked for again, and close as idle ones do, within `age`. Workers take their turns one after the other.
///
/// The parts come again after [`TURNS`], since pingora remembers some keys for good; no connection waits that long.
pub(super) fn generation_of(now: Now, worker: usize, age: Duration) -> u64 {
    let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX).max(1);
    let offset = (worker as u64 % 8) * (age / 8);
    // Spread over all bits: it is mixed into a hash.
    (now.0.saturating_add(offset) / age % TURNS).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_used_for_less_than_its_age_and_workers_turn_apart() {
        let second = Duration::from_secs(1);
        let at = |ms: u64, worker| generation_of(Now(ms * 1_000_000), worker, second);
        assert_eq!(at(0, 0), at(999, 0));
        assert_ne!(at(999, 0), at(1000, 0));
        assert_eq!(at(0, 1), at(874, 1));
        assert_ne!(at(874, 1), at(875, 1));
        let all: std::collections::HashSet<_> = (0..5000).map(|turn| at(turn * 1000, 0)).collect();
        assert_eq!(all.len() as u64, TURNS);
        let _ = generation_of(Now(u64::MAX), 7, Duration::MAX);
    }
}
