//! Who may read an answer: the origins of `cors`, and what a preflight asks (WHATWG Fetch, §3.2).

use http::{HeaderMap, HeaderValue, Method, header};

use crate::config::model::{Cors, Origin, Origins};

/// The method that a preflight asks for (§3.2.2: OPTIONS with an Origin and a method); `None`: it is none.
pub fn asked_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    Method::from_bytes(headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// The headers that a preflight asks for, as they can be repeated to it: a list of names, not too long.
pub fn asked_headers(headers: &HeaderMap) -> Option<HeaderValue> {
    const LONGEST: usize = 1024;
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS)?;
    let is_name = |name: &[u8]| !name.is_empty() && Method::from_bytes(name).is_ok();
    let all = asked.as_bytes().split(|b| *b == b',').all(|name| is_name(name.trim_ascii()));
    (all && asked.len() <= LONGEST).then(|| asked.clone())
}

/// Whether pages of this origin may read answers.
pub fn allows(cors: &Cors, origin: Option<&HeaderValue>) -> bool {
    match &cors.origins {
        Origins::Any => true,
        Origins::These(known) => origin.is_some_and(|origin| is_allowed(known, origin.as_bytes())),
    }
}

/// Byte for byte, as browsers write origins (RFC 6454 §6.2: lower case, no usual port).
pub fn is_allowed(known: &[Origin], origin: &[u8]) -> bool {
    known.iter().any(|known| match known {
        Origin::Exact(exact) => exact.as_bytes() == origin,
        Origin::Below(scheme, suffix) => {
            let labels = origin.strip_prefix(scheme.as_bytes()).and_then(|rest| rest.strip_suffix(suffix.as_bytes()));
            // Nothing but labels: neither a port nor another host before the suffix.
            labels.is_some_and(|labels| {
                let is_label = |label: &[u8]| {
                    !label.is_empty()
                        && label.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
                };
                labels.split(|b| *b == b'.').all(is_label)
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known() -> Vec<Origin> {
        vec![Origin::Exact("https://app.test".into()), Origin::Below("https://".into(), ".example.test:8443".into())]
    }

    #[test]
    fn origins_are_matched_whole() {
        for (origin, is) in [
            ("https://app.test", true),
            ("http://app.test", false),
            ("https://app.test:444", false),
            ("https://app.test.evil.test", false),
            ("https://xapp.test", false),
            ("https://a.example.test:8443", true),
            ("https://a.b.example.test:8443", true),
            ("https://.example.test:8443", false),
            ("https://example.test:8443", false),
            ("https://evil.test/.example.test:8443", false),
            ("https://evil.test:1.example.test:8443", false),
            ("https://u@a.example.test:8443", false),
            ("https://evilexample.test:8443", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(&known(), origin.as_bytes()), is, "{origin}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_allowed_is_of_a_known_site(origin in "(https?://)?[a-z.@/:8-]{0,12}(app.test|.example.test:8443)?") {
            if is_allowed(&known(), origin.as_bytes()) {
                let host = origin.strip_prefix("https://").unwrap();
                prop_assert!(host == "app.test" || host.ends_with(".example.test:8443"));
                prop_assert!(!host.trim_end_matches(":8443").contains(['/', '@', ':']));
            }
        }
    }

    #[test]
    fn what_is_asked_is_repeated_only_if_it_is_a_list_of_names() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_str(text).unwrap());
            asked_headers(&headers).is_some()
        };
        assert!(asked("x-a,content-type") && asked("x-a, x-b"));
        assert!(!asked("") && !asked("x a") && !asked("x-a,,x-b") && !asked(&"x".repeat(2000)));
    }
}
