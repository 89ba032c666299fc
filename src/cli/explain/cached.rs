//! Whether the answer to a request would be shared.

use http::HeaderMap;
use serde::Serialize;

use super::{
    Options,
    told::{Told, row},
};
use crate::{
    cli::{failure::Outcome, term::Terminal},
    config::{
        changes::{cache_key, duration},
        model::{CacheKey, Function, Route},
    },
    decide::{
        auth::Gate,
        cache::question::{Question, Use, judge},
    },
};

#[derive(Debug, Serialize)]
pub(super) struct Cached {
    ttl_ms: u128,
    /// What belongs to the key beside version, scheme, host and path.
    key: Vec<String>,
    /// Why it has no part in this request.
    bypass: Option<String>,
    /// Only looked up: nothing of this request's own answer is kept.
    read_only: bool,
    #[serde(skip)]
    ttl: String,
}

/// Tells of a route's cache, where it has one. `target` is the path and query that the function sees.
pub(super) fn explain(
    told: &mut Told,
    options: &Options,
    (route, function): (&Route, &Function),
    (headers, gate): (&HeaderMap, Option<&Gate>),
    target: &str,
) {
    let Some(cache) = &route.handling.cache else { return };
    // As the function gets them.
    let mut headers = headers.clone();
    let edits = route.handling.request_headers.as_ref();
    for name in gate.map_or(&[][..], Gate::taken).iter().chain(edits.iter().flat_map(|edits| &edits.remove)) {
        headers.remove(name);
    }
    let question = Question {
        method: &options.method,
        target,
        headers: &headers,
        client: told.client.as_deref().filter(|_| route.clients.is_some()),
        client_ip: told.client_ip,
        sticky: function.sticky.as_ref().map_or(&[][..], |sticky| &sticky.by),
        // That it would show one is not known here.
        shows_certificate: route.forward_client_cert,
    };
    let judged = judge(cache, &question);
    let by_names = cache.key.iter().any(|key| matches!(key, CacheKey::Query(_)));
    let whole = (!by_names).then(|| "query".to_owned());
    told.cache = Some(Cached {
        ttl_ms: cache.ttl.as_millis(),
        key: whole.into_iter().chain(cache.key.iter().map(cache_key)).collect(),
        bypass: judged.err().map(|bypass| bypass.sentence()),
        read_only: judged == Ok(Use::Read),
        ttl: duration(cache.ttl),
    });
}

impl Cached {
    pub(super) fn print(&self, term: &mut Terminal) -> Outcome {
        if let Some(why) = &self.bypass {
            return row(term, "cache", format_args!("no part in it: {why}"));
        }
        let by = self.key.join(", ");
        let what = match (self.read_only, self.ttl_ms) {
            (true, _) => "answered by what is kept; nothing of its own is kept".to_owned(),
            (false, 0) => "shared among those who ask at once".to_owned(),
            (false, _) => format!("kept for {}, where the function does not forbid it", self.ttl),
        };
        row(term, "cache", format_args!("{what}; by version, scheme, host, path, {by}"))
    }
}
