//! `compression`.

use super::Scope;
use crate::config::{
    model::{Coding, Compression, MediaPattern},
    raw,
    report::Problem,
    source::At,
};

/// What shrinks, less what only its own name means: event streams and gRPC.
const TYPES: [&str; 10] = [
    "application/javascript",
    "application/json",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-ndjson",
    "application/xml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/x-icon",
];

impl Scope<'_> {
    /// `Some(None)`: off; `None`: it is wrong.
    pub(super) fn compression(&mut self, raw: &raw::Route) -> Option<Option<Compression>> {
        let Some(table) = raw.compression.as_ref().and_then(|at| at.value.0.as_ref()) else { return Some(None) };
        let codings = match &table.codings {
            None => vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            Some(list) => self.some_of(list, "codings")?,
        };
        let types = match &table.types {
            None => {
                let exact = TYPES.map(|kind| MediaPattern::Exact(kind.to_owned()));
                let text = MediaPattern::Type("text/".to_owned());
                let suffixes = ["+json", "+xml"].map(|suffix| MediaPattern::Suffix(suffix.to_owned()));
                exact.into_iter().chain([text]).chain(suffixes).collect()
            }
            Some(list) => self.some_of(list, "types")?,
        };
        let min_size = table.min_size.as_ref().map_or(1024, |at| at.value.0);
        Some(Some(Compression { codings, min_size, types }))
    }

    /// A list without repetitions that says something.
    fn some_of<T: Clone + PartialEq>(&mut self, list: &At<Vec<At<T>>>, key: &str) -> Option<Vec<T>> {
        let mut some: Vec<T> = Vec::with_capacity(list.value.len());
        for at in &list.value {
            if some.contains(&at.value) {
                self.report.push(Problem::at(format!("`{key}` says this twice"), at.span));
            } else {
                some.push(at.value.clone());
            }
        }
        if some.is_empty() {
            self.report.push(
                Problem::at(format!("`{key}` is empty: nothing would be compressed"), list.span)
                    .label("expected at least one")
                    .help("to compress nothing leave `compression` out"),
            );
            return None;
        }
        Some(some)
    }
}
