//! Reads one cookie out of a request's `Cookie` lines, without copying.

use http::{HeaderMap, header::COOKIE};

/// The value of the cookie `name`: the first one of that name over all `Cookie` lines (RFC 6265 §4.2.1; HTTP/2 may
/// split the field into several lines, RFC 9113 §8.2.3).
///
/// Names are compared exactly. Blanks around a pair, its name and its value don't count, and neither does one pair of
/// double quotes around the value: `a=1`, `a = 1` and `a="1"` say the same. A value that is not UTF-8 is no value.
pub fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b';'))
        .filter_map(|pair| {
            let equals = pair.iter().position(|&b| b == b'=')?;
            Some((&pair[..equals], &pair[equals + 1..]))
        })
        .find(|(n, _)| n.trim_ascii() == name.as_bytes())
        .and_then(|(_, v)| std::str::from_utf8(unquoted(v.trim_ascii())).ok())
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn with(lines: &[&[u8]]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_bytes(line).unwrap())).collect()
    }

    #[test]
    fn the_first_of_a_name_over_all_lines_wins() {
        let headers = with(&[b"a=1; b=2", b"b=3; c=4"]);
        assert_eq!(value(&headers, "a"), Some("1"));
        assert_eq!(value(&headers, "b"), Some("2"));
        assert_eq!(value(&headers, "c"), Some("4"));
        assert_eq!(value(&headers, "d"), None);
        assert_eq!(value(&HeaderMap::new(), "a"), None);
    }

    #[test]
    fn blanks_and_quotes_dont_count_and_names_are_exact() {
        let headers = with(&[b" a = 1 ;b=\"2\";;c;=d; ab=x;B=y; e==f=; g=\""]);
        assert_eq!(value(&headers, "a"), Some("1"));
        assert_eq!(value(&headers, "b"), Some("2"));
        assert_eq!(value(&headers, "B"), Some("y"));
        assert_eq!(value(&headers, "c"), None);
        assert_eq!(value(&headers, "e"), Some("=f="));
        assert_eq!(value(&headers, "g"), Some("\""));
    }

    #[test]
    fn a_value_that_is_not_utf8_is_none() {
        assert_eq!(value(&with(&[b"a=\xff; b=2"]), "a"), None);
        assert_eq!(value(&with(&[b"x=\xff; b=2"]), "b"), Some("2"));
    }

    proptest! {
        #[test]
        fn hostile_lines_never_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)) {
            let headers: HeaderMap = lines
                .iter()
                .filter_map(|l| HeaderValue::from_bytes(l).ok())
                .map(|v| (COOKIE, v))
                .collect();
            value(&headers, "a");
            value(&headers, "");
        }

        #[test]
        fn what_was_set_is_found(before in "[a-z]{2,5}=[a-z0-9]{0,9}; ", v in "[!#-+\\--:<-~]{0,20}") {
            let line = format!("{before}a={v}; z=1");
            let headers = with(&[line.as_bytes()]);
            prop_assert_eq!(value(&headers, "a"), Some(v.as_str()));
        }
    }
}
