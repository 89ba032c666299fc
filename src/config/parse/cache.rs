//! `cache` and `fallback`.

use super::{
    Scope,
    handling::{has_no_body, status},
};
use crate::config::{model::Fallback, raw_cache, report::Problem, source::At};

impl Scope<'_> {
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
