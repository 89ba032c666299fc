//! `mirror` of a function.

use std::num::NonZeroU32;

use http::Method;

use super::Scope;
use crate::config::{
    model::{Mirror, Name},
    raw,
    report::Problem,
};

impl Scope<'_> {
    /// `None`: there is none, or the report says what is wrong with it.
    pub(super) fn mirror(&mut self, function: &Name, raw: &raw::Function, names: &[&str]) -> Option<Mirror> {
        let at = raw.mirror.as_ref()?;
        let raw = &at.value;
        let version = raw.version.as_ref().and_then(|at| self.known_version(&at.value.0, at.span, function, names));
        if let (Some(at), Some(_), [only]) = (&raw.version, version, names) {
            let problem = Problem::at(format!("`{only}` is the only version of function `{function}`"), at.span)
                .label("no request goes to another one")
                .help("a mirror gets copies of what goes to other versions");
            self.report.push(problem);
        }
        let methods = raw.methods.as_ref();
        if let Some(list) = methods.filter(|list| list.value.is_empty() && !raw.broken) {
            let problem = Problem::at("`methods` is empty: nothing is copied", list.span)
                .label("expected at least one, such as `GET`")
                .help("leave `methods` out for GET, HEAD and OPTIONS");
            self.report.push(problem);
        }
        for at in methods.iter().flat_map(|list| &list.value) {
            if matches!(at.value, Method::CONNECT | Method::TRACE) {
                let problem = Problem::at(format!("{} never reaches a function", at.value), at.span);
                self.report.push(problem.label("there is nothing to copy"));
            }
        }
        if let Some(at) = raw.max_body.as_ref().filter(|at| at.value.0 > Mirror::LARGEST) {
            let problem = Problem::at("`max_body` of a mirror is too much", at.span)
                .label("expected at most `16MiB`")
                .help("each copy under way may keep as much, `concurrency` of them");
            self.report.push(problem);
        }
        let methods = methods
            .map_or_else(|| Mirror::SAFE.to_vec(), |list| list.value.iter().map(|at| at.value.clone()).collect());
        let concurrency = raw.concurrency.as_ref().and_then(|at| u32::try_from(at.value.0).ok());
        let max_body = raw.max_body.as_ref().map_or(Mirror::MAX_BODY, |at| at.value.0);
        Some(Mirror {
            version: version?,
            share: raw.share.as_ref()?.value.0,
            methods: methods.into(),
            concurrency: NonZeroU32::new(concurrency.unwrap_or(Mirror::CONCURRENCY))?,
            timeout: raw.timeout.as_ref().map_or(Mirror::TIMEOUT, |at| at.value.0),
            max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
        })
    }
}
