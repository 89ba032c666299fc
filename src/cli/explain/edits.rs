//! What a route does to heads and answers, as `explain` tells it.

use crate::config::{changes, model::Route};

/// The route's edits, a line each; what is off says nothing.
pub(super) fn told(route: &Route) -> Vec<String> {
    changes::handling(&route.handling)
}
