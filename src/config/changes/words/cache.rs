//! What a route answers out of memory, in words.

use super::{
    duration,
    handling::{content_words, size},
};
use crate::config::model::{Cache, CacheKey, Fallback};

/// On one line: `for 1s by header:accept-language, stale for 30s on errors`.
pub fn cache_words(cache: &Cache) -> String {
    let Cache { ttl, key, max_body, max_size, stale_if_error, wait } = cache;
    let mut words = match ttl.is_zero() {
        true => "among those who ask at once".to_owned(),
        false => format!("for {}", duration(*ttl)),
    };
    if !key.is_empty() {
        words += &format!(" by {}", key.iter().map(cache_key).collect::<Vec<_>>().join(" "));
    }
    if !stale_if_error.is_zero() {
        words += &format!(", stale for {} on errors", duration(*stale_if_error));
    }
    words + &format!(", bodies to {}, {} in all, waiting {}", size(*max_body), size(*max_size), duration(*wait))
}

/// As the file has it: `header:accept-language`.
pub fn cache_key(key: &CacheKey) -> String {
    match key {
        CacheKey::Header(name) => format!("header:{name}"),
        CacheKey::Cookie(name) => format!("cookie:{name}"),
        CacheKey::Query(name) => format!("query:{name}"),
        CacheKey::Client => "client".to_owned(),
        CacheKey::ClientIp => "client_ip".to_owned(),
    }
}

pub(super) fn fallback_words(fallback: &Fallback) -> String {
    let Fallback { status, content } = fallback;
    let status = status.map_or_else(String::new, |status| format!("{} with ", status.as_u16()));
    format!("{status}{}", content_words(content))
}
