//! What a route answers out of memory, in words.

use super::handling::content_words;
use crate::config::model::Fallback;

pub(super) fn fallback_words(fallback: &Fallback) -> String {
    let Fallback { status, content } = fallback;
    let status = status.map_or_else(String::new, |status| format!("{} with ", status.as_u16()));
    format!("{status}{}", content_words(content))
}
