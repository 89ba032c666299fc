//! `cache` and `fallback`.

use super::{
    Scope,
    handling::{has_no_body, status},
};
use crate::config::{
    changes::{cache_key, size},
    model::{Cache, CacheKey, Fallback},
    raw, raw_cache,
    report::Problem,
    source::At,
};

/// So many of the largest bodies have room at least: one may be on its way while others are kept.
const ROOM: u64 = 4;

impl Scope<'_> {
    /// `Some(None)`: off; `None`: it is wrong.
    pub(super) fn cache(&mut self, raw: &raw::Route) -> Option<Option<Cache>> {
        let Some(at) = &raw.cache else { return Some(None) };
        let table = &at.value;
        let ttl = table.ttl.as_ref()?.value.0;
        let mut key: Vec<CacheKey> = Vec::new();
        for at in table.key.iter().flat_map(|list| &list.value) {
            if key.contains(&at.value) {
                self.report.push(Problem::at(format!("`{}` is there twice", cache_key(&at.value)), at.span));
            } else {
                key.push(at.value.clone());
            }
        }
        if let Some(clients) = raw.clients.as_ref().filter(|_| !key.contains(&CacheKey::Client)) {
            self.report.push(
                Problem::at(
                    "nothing would be kept: the route is for known clients, and the key does not say which",
                    at.span,
                )
                .also(clients.span, "known clients")
                .help("`key = [\"client\"]` keeps each client's answers for itself"),
            );
        }
        if let Some(methods) =
            raw.methods.as_ref().filter(|list| list.value.iter().all(|at| at.value != http::Method::GET))
        {
            self.report.push(
                Problem::at("nothing would be kept: only answers to GET are", at.span)
                    .also(methods.span, "without GET"),
            );
        }
        let max_body = table.max_body.as_ref().map_or(1 << 20, |at| at.value.0);
        let max_size = table.max_size.as_ref().map_or(64 << 20, |at| at.value.0);
        if let Some(span) = [&table.max_size, &table.max_body].into_iter().flatten().map(|at| at.span).next()
            && max_size < max_body.saturating_mul(ROOM)
        {
            self.report.push(
                Problem::at(format!("`max_size` has room for fewer than {ROOM} bodies of `max_body`"), span)
                    .label(format!("{} in all, {} each", size(max_size), size(max_body))),
            );
        }
        let patience = |at: &Option<At<crate::config::words::PatienceOrNone>>| at.as_ref().map(|at| at.value.0);
        Some(Some(Cache {
            ttl,
            key,
            max_body,
            max_size,
            stale_if_error: patience(&table.stale_if_error).unwrap_or_default(),
            wait: patience(&table.wait).unwrap_or(std::time::Duration::from_secs(5)),
        }))
    }

    /// `Some(None)`: none; `None`: it is wrong.
    pub(super) fn fallback(&mut self, raw: Option<&At<Box<raw_cache::Fallback>>>) -> Option<Option<Fallback>> {
        let Some(at) = raw else { return Some(None) };
        let table = &at.value;
        let own = match &table.status {
            None => None,
            Some(at) => Some(status(Some(at), http::StatusCode::OK)?),
        };
        if let Some((status, at)) = own.filter(|status| has_no_body(*status)).zip(table.status.as_ref()) {
            self.report.push(
                Problem::at(format!("an answer with {status} has no body, and says nothing of the failure"), at.span)
                    .label("expected such as 200 or 503"),
            );
        }
        let content = self.content(table.body.as_ref(), table.file.as_ref(), table.content_type.as_ref())?;
        let Some(content) = content else {
            self.report.push(Problem::at("the fallback has no body", at.span).label("`body` or `file` is needed here"));
            return None;
        };
        Some(Some(Fallback { status: own, content }))
    }
}
