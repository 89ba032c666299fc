//! Whether a caller wants a page for people or a problem document (RFC 9110 §12.5.1).

use http::{HeaderMap, header};

/// Whether a caller is to get a page of this media type in place of a problem document: yes, unless it won't take the
/// page, or names JSON and likes it no less.
pub fn wants_page(headers: &HeaderMap, kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let family = kind.split('/').next().unwrap_or_default();
    // How exactly the page is meant, and its weight; the most exact decides.
    let mut page: Option<(u8, u16)> = None;
    let mut json: Option<u16> = None;
    let mut lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()).peekable();
    if lines.peek().is_none() {
        return true;
    }
    for element in lines.flat_map(|line| line.split(',')) {
        let mut parts = element.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        if range.is_empty() {
            continue;
        }
        let weight = parts.find_map(weight).unwrap_or(1000);
        let exactness = match range.split_once('/') {
            Some(("*", "*")) => 1,
            Some((of, "*")) if of == family => 2,
            _ if range == kind => 3,
            _ => 0,
        };
        if exactness > page.map_or(0, |(best, _)| best) {
            page = Some((exactness, weight));
        }
        let is_json = range == "application/json" || (range.starts_with("application/") && range.ends_with("+json"));
        if is_json {
            json = Some(json.unwrap_or(0).max(weight));
        }
    }
    page.is_some_and(|(_, weight)| weight > 0 && (kind.ends_with("json") || json.is_none_or(|json| weight > json)))
}

/// `q=0.5` in thousandths (RFC 9110 §12.4.2); `None`: another parameter. What is malformed weighs nothing.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    name.trim_end().eq_ignore_ascii_case("q").then(|| super::coding::thousandths(value.trim_start()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn people_get_pages_and_programs_documents() {
        for (accept, page) in [
            (None, true),
            (Some("*/*"), true),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), true),
            (Some("application/json"), false),
            (Some("application/problem+json, */*;q=0.1"), false),
            (Some("application/json, text/plain, */*"), false),
            (Some("text/html, application/json;q=0.9"), true),
            (Some("text/html;q=0.5, application/json"), false),
            (Some("text/html, application/json"), false),
            (Some("text/*"), true),
            (Some("image/png"), false),
            (Some("text/html;q=0, */*"), false),
            (Some("text/html;level=1;q=0.3"), true),
            (Some(""), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(wants_page(&headers, "text/html; charset=utf-8"), page, "{accept:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        assert!(wants_page(&headers, "application/json"), "a page may be JSON itself");
    }
}
