//! `error_pages`.

use super::Scope;
use crate::config::{
    model::{ErrorPage, PageFor},
    raw_handling,
    read::Map,
    report::Problem,
    source::At,
};

impl Scope<'_> {
    /// The most exact first. `None`: something is wrong, and told.
    pub(super) fn error_pages(&mut self, map: Option<&At<Map<raw_handling::ErrorPage>>>) -> Option<Vec<ErrorPage>> {
        let entries = map.map(|at| at.value.0.as_slice()).unwrap_or_default();
        let mut pages = Vec::with_capacity(entries.len());
        for (key, page) in entries {
            let Some(on) = page_for(&key.value) else {
                self.report.push(
                    Problem::at(format!("`{}` is not the status of an error", key.value.escape_debug()), key.span)
                        .label("expected such as `404`, `4xx` or `5xx`"),
                );
                continue;
            };
            let Some(page) = page else { continue };
            let raw = &page.value;
            let content = match self.content(raw.body.as_ref(), raw.file.as_ref(), raw.content_type.as_ref()) {
                Some(Some(content)) => content,
                Some(None) => {
                    self.report
                        .push(Problem::at("the page has no body", page.span).label("`body` or `file` is needed here"));
                    continue;
                }
                None => continue,
            };
            pages.push(ErrorPage { on, content, intercept: raw.intercept.as_ref().is_some_and(|at| at.value) });
        }
        pages.sort_by_key(|page| page.on);
        (pages.len() == entries.len()).then_some(pages)
    }
}

fn page_for(key: &str) -> Option<PageFor> {
    match key {
        "4xx" => return Some(PageFor::Class(4)),
        "5xx" => return Some(PageFor::Class(5)),
        _ => {}
    }
    // One spelling per status: `+404` or `0404` would be a second page for it.
    let status = key.parse::<u16>().ok().filter(|status| (400..=599).contains(status) && key.len() == 3)?;
    Some(PageFor::Status(status))
}
