//! What a route does to heads and answers, as `explain` tells it.

use http::{HeaderMap, header};

use crate::{
    config::{changes, model::Route},
    decide::cors,
};

/// The route's edits, a line each; what is off says nothing.
pub(super) fn told(route: &Route, headers: &HeaderMap) -> Vec<String> {
    let mut told = changes::handling(&route.handling);
    if let (Some(cors), Some(origin)) = (&route.handling.cors, headers.get(header::ORIGIN)) {
        let may = if cors::allows(cors, Some(origin)) { "may" } else { "may not" };
        told.push(format!("pages of {} {may} read the answer", String::from_utf8_lossy(origin.as_bytes())));
    }
    told
}
