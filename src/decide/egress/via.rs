//! `Via` (RFC 9110 §7.6.3): which proxies a request has passed, so that one which goes in a circle ends.

use http::{HeaderMap, header};

/// Whether the proxy that calls itself `own` is among those that a request has passed. Whoever leaves others out, or writes our name, changes what
/// becomes of its own request alone.
pub fn has_passed(headers: &HeaderMap, own: &str) -> bool {
    members(headers).any(|member| {
        // `1.1 name (comment)`: a comment may hold commas, and then pieces of it are looked at as members; none of them is our name by chance.
        member.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty()).nth(1) == Some(own.as_bytes())
    })
}

fn members(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::VIA).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
}

/// The fields that a next one is sent: those that came, and `own` as the last, with the version that it was spoken to in.
pub fn with_ours(headers: &HeaderMap, is_1_0: bool, own: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    for value in headers.get_all(header::VIA) {
        out.extend_from_slice(b"Via: ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(if is_1_0 { b"Via: 1.0 " } else { b"Via: 1.1 " });
    out.extend_from_slice(own.as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::VIA, value.parse().unwrap())).collect()
    }

    #[test]
    fn who_has_passed_is_found_wherever_it_stands() {
        for via in [
            &["1.1 gatepost-07"][..],
            &["1.0 fred, 1.1 gatepost-07"],
            &["1.0 fred", "HTTP/1.1   gatepost-07 (a, comment)"],
            &["1.1 gatepost-07,1.1 p.example"],
            &["1.1\tgatepost-07"],
        ] {
            assert!(has_passed(&headers(via), "gatepost-07"), "{via:?}");
        }
        for via in
            [&[][..], &["1.1 gatepost"], &["1.1 gatepost-070"], &["1.1 fred (gatepost-07)"], &["gatepost-07"], &[""]]
        {
            assert!(!has_passed(&headers(via), "gatepost-07"), "{via:?}");
        }
    }

    #[test]
    fn the_next_one_hears_of_all() {
        let sent = with_ours(&headers(&["1.0 fred", "1.1 p.example"]), false, "gatepost-07");
        assert_eq!(sent, b"Via: 1.0 fred\r\nVia: 1.1 p.example\r\nVia: 1.1 gatepost-07\r\n");
        assert_eq!(with_ours(&headers(&[]), true, "gatepost-07"), b"Via: 1.0 gatepost-07\r\n");
    }
}
