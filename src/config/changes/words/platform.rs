//! What a function platform does, in words.

use super::handling::size as size_words;
use crate::config::model::{Function, HostPattern, NamePatterns, Platform, PlatformRequestId, Rule, Sizes};

/// Every key and its value; two values have the same words only if they are equal.
pub fn platform(platform: &Platform) -> Vec<(&'static str, String)> {
    // Who wrote a key is no difference in what it does.
    let Platform { name, classify, map_status, request_id, sizes, strip, hide, drop_attachment, own: _ } = platform;
    let PlatformRequestId { headers, expose } = request_id;
    let Sizes { headers: max_headers, uri, body } = sizes;
    vec![
        ("platform", name.as_str().to_owned()),
        ("classify", list("by status alone", classify.iter().map(rule), "; ")),
        ("map_status", map_status.to_string()),
        ("platform_request_id.header", list("none", headers.iter().map(ToString::to_string), ", ")),
        ("platform_request_id.expose", expose.to_string()),
        ("max_headers", size(*max_headers)),
        ("max_uri", size(*uri)),
        ("max_body", size(*body)),
        ("request_headers.remove", patterns(strip)),
        ("response_headers.remove", patterns(hide)),
        ("drop_attachment", list("nowhere", drop_attachment.iter().map(host), ", ")),
    ]
}

/// The keys of a function that its platform may have a word on, rules left out, as they are in force.
pub fn function_keys(function: &Function) -> Vec<(&'static str, String)> {
    let none = || "none".to_owned();
    let times = [
        ("timeouts.first_byte", super::duration(function.timeouts.first_byte)),
        ("timeouts.total", function.timeouts.total.map_or_else(none, super::duration)),
        ("pool.idle", super::duration(function.pool.idle)),
        ("pool.age", function.pool.age.map_or_else(|| "any".to_owned(), super::duration)),
    ];
    let keys = platform(&function.platform).into_iter().filter(|(key, _)| !["platform", "classify"].contains(key));
    keys.chain(times).collect()
}

fn size(size: Option<u64>) -> String {
    size.map_or_else(|| "none".to_owned(), size_words)
}

fn patterns(patterns: &NamePatterns) -> String {
    list("none", patterns.as_slice().iter().map(ToString::to_string), ", ")
}

fn host(pattern: &HostPattern) -> String {
    super::host(pattern)
}

fn list(empty: &str, items: impl Iterator<Item = String>, between: &str) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { empty.to_owned() } else { items.join(between) }
}

/// `430,5xx`
pub(super) fn statuses(statuses: &[(u16, u16)]) -> String {
    let words = statuses.iter().map(|(low, high)| match low == high {
        true => low.to_string(),
        false => format!("{}xx", low / 100),
    });
    list("", words, ",")
}

/// `430,433 x-fc-error-type: FcCommonError is throttled, answered with 503`
pub fn rule(rule: &Rule) -> String {
    let Rule { statuses, header, class, answer, retry, billed } = rule;
    let header = header.as_ref().map(|(name, value)| match value {
        Some(value) => format!("{name}: {value}"),
        None => name.to_string(),
    });
    let signal = [self::statuses(statuses), header.unwrap_or_default()];
    let signal: Vec<_> = signal.into_iter().filter(|part| !part.is_empty()).collect();
    let answer = answer.map_or_else(String::new, |answer| format!(", answered with {answer}"));
    let retry = retry.map_or_else(String::new, |retry| format!(", retry {}", retry.as_str()));
    let billed = match billed {
        None => "",
        Some(true) => ", billed",
        Some(false) => ", not billed",
    };
    format!("{} is {}{answer}{retry}{billed}", signal.join(" "), class.as_str())
}
