use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::{
    answer::{self, Keep},
    directives, elements,
    question::{Bypass, Question, Use, judge, write_key, write_variant},
    unchanged::is_unchanged,
};
use crate::config::model::{Cache, CacheKey, StickyKey};

fn cache(key: &[CacheKey]) -> Cache {
    let second = Duration::from_secs(1);
    Cache { ttl: second, key: key.to_vec(), max_body: 1 << 20, max_size: 1 << 26, stale_if_error: second, wait: second }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
}

fn question<'q>(method: &'q Method, target: &'q str, headers: &'q HeaderMap) -> Question<'q> {
    let client_ip = IpAddr::from([192, 0, 2, 7]);
    Question { method, target, headers, client: None, client_ip, sticky: &[], shows_certificate: false }
}

fn key(cache: &Cache, target: &str, lines: &[(&'static str, &str)]) -> Vec<u8> {
    let mut key = Vec::new();
    write_key(&mut key, 7, cache, &question(&Method::GET, target, &headers(lines)));
    key
}

fn header(name: &'static str) -> CacheKey {
    CacheKey::Header(HeaderName::from_static(name))
}

fn cookie(name: &str) -> CacheKey {
    CacheKey::Cookie(name.to_owned())
}

#[test]
fn who_brings_something_of_its_own_is_left_alone_unless_the_key_names_it() {
    let openid = HeaderName::from_static("x-openid");
    type Row<'r> = (&'r [(&'static str, &'r str)], &'r [CacheKey], Result<Use, Bypass<'r>>);
    let table: &[Row<'_>] = &[
        (&[], &[], Ok(Use::Both)),
        (&[("content-length", "0")], &[], Ok(Use::Both)),
        (&[("content-length", "1")], &[], Err(Bypass::Body)),
        (&[("transfer-encoding", "chunked")], &[], Err(Bypass::Body)),
        (&[("upgrade", "websocket")], &[], Err(Bypass::Upgrade)),
        (&[("range", "bytes=0-1")], &[], Err(Bypass::Range)),
        (&[("range", "bytes=0-1")], &[header("range")], Ok(Use::Both)),
        (&[("range", "bytes=0-1"), ("if-range", "\"a\"")], &[header("range")], Err(Bypass::Range)),
        (&[("if-match", "\"a\"")], &[], Err(Bypass::Precondition)),
        (&[("authorization", "Bearer a")], &[], Err(Bypass::Authorization)),
        (&[("authorization", "Bearer a")], &[header("authorization")], Ok(Use::Both)),
        (&[("cookie", "a=1")], &[], Err(Bypass::Cookie(b"a"))),
        (&[("cookie", "a=1")], &[cookie("a")], Ok(Use::Both)),
        (&[("cookie", "a=1; b")], &[cookie("a")], Err(Bypass::Cookie(b"b"))),
        (&[("cookie", "a=1; b=2"), ("cookie", "c=3")], &[cookie("a"), cookie("b")], Err(Bypass::Cookie(b"c"))),
        (&[("cookie", "a=1; b=2")], &[header("cookie")], Ok(Use::Both)),
        // What gatepost has issued itself says the version, and no more.
        (&[("cookie", "gatepost_sticky=0f")], &[], Ok(Use::Both)),
        (&[("x-openid", "u1")], &[], Err(Bypass::Sticky(&openid))),
        (&[("x-openid", "u1")], &[header("x-openid")], Ok(Use::Both)),
        (&[("cache-control", "no-cache, max-age=0")], &[], Ok(Use::Both)),
        (&[("cache-control", "max-age=0,No-Store")], &[], Ok(Use::Read)),
    ];
    let sticky = [StickyKey::Header(openid.clone()), StickyKey::ClientIp];
    for (lines, key, expected) in table {
        let headers = headers(lines);
        let asked = Question { sticky: &sticky, ..question(&Method::GET, "/", &headers) };
        assert_eq!(&judge(&cache(key), &asked), expected, "{lines:?} {key:?}");
    }
    let none = HeaderMap::new();
    assert_eq!(judge(&cache(&[]), &question(&Method::HEAD, "/", &none)), Ok(Use::Read));
    for method in [Method::POST, Method::OPTIONS, Method::from_bytes(b"PURGE").unwrap()] {
        assert_eq!(judge(&cache(&[]), &question(&method, "/", &none)), Err(Bypass::Method));
    }
}

#[test]
fn the_key_is_what_the_answer_may_depend_on() {
    let plain = cache(&[]);
    let all = [
        key(&plain, "/a", &[]),
        key(&plain, "/b", &[]),
        key(&plain, "/a?", &[]),
        key(&plain, "/a?x=1", &[]),
        key(&plain, "/a?x=2", &[]),
        key(&plain, "/a", &[("x-forwarded-host", "a.test")]),
        key(&plain, "/a", &[("x-forwarded-host", "b.test")]),
        key(&plain, "/a", &[("x-forwarded-proto", "https")]),
    ];
    for (n, one) in all.iter().enumerate() {
        assert!(all[n + 1..].iter().all(|other| one != other), "{n}");
    }
    assert_eq!(key(&plain, "/a", &[("accept-language", "de")]), key(&plain, "/a", &[]));
    let by = cache(&[header("accept-language"), cookie("lang")]);
    assert_ne!(key(&by, "/a", &[("accept-language", "de")]), key(&by, "/a", &[("accept-language", "fr")]));
    assert_ne!(key(&by, "/a", &[("accept-language", "")]), key(&by, "/a", &[]));
    assert_ne!(key(&by, "/a", &[("cookie", "lang=de")]), key(&by, "/a", &[("cookie", "lang=fr")]));
    // Whichever of two a function reads.
    assert_ne!(key(&by, "/a", &[("cookie", "lang=de; lang=fr")]), key(&by, "/a", &[("cookie", "lang=de")]));
    assert_eq!(key(&by, "/a", &[("cookie", "x=1; lang=de")]), key(&by, "/a", &[("cookie", "lang=de")]));
}

#[test]
fn named_parameters_stand_for_the_query_and_nobody_gets_anothers() {
    let by = cache(&[CacheKey::Query("id".to_owned())]);
    let one = key(&by, "/a?id=1", &[]);
    for same in ["/a?id=1&utm=x", "/a?t=9&id=1", "/a?&id=1&"] {
        assert_eq!(key(&by, same, &[]), one, "{same}");
    }
    // Some function reads each of these as an id that is not 1 alone.
    for other in [
        "/a",
        "/a?id=2",
        "/a?id=1&id=2",
        "/a?id=1&ID=2",
        "/a?id=1&i%64=2",
        "/a?id=1&id[]=2",
        "/a?id=1;id=2",
        "/a?id=1&x;id=2",
    ] {
        assert_ne!(key(&by, other, &[]), one, "{other}");
    }
}

fn judged(status: u16, lines: &[(&'static str, &str)]) -> Result<Keep, &'static str> {
    answer::judge(status, &headers(lines), Duration::ZERO)
}

fn lifetime(lines: &[(&'static str, &str)]) -> Option<u64> {
    judged(200, lines).unwrap().lifetime.map(|lifetime| lifetime.as_secs())
}

#[test]
fn what_is_not_for_others_is_not_kept() {
    for status in [200, 203, 204, 300, 301, 308] {
        assert!(judged(status, &[]).is_ok(), "{status}");
    }
    for status in [101, 206, 302, 304, 307, 400, 404, 410, 429, 500, 503] {
        assert!(judged(status, &[("cache-control", "public, max-age=60")]).is_err(), "{status}");
    }
    for lines in [
        ("cache-control", "no-store"),
        ("cache-control", "max-age=9, Private"),
        ("cache-control", "private=\"x-a, x-b\""),
        ("cache-control", "NO-CACHE"),
        ("cache-control", "no-cache=\"set-cookie\""),
        ("cache-control", "max-age=0"),
        ("cache-control", "max-age=-1"),
        ("cache-control", "max-age=soon"),
        ("cache-control", "max-age"),
        ("cache-control", "max-age=60, s-maxage=0"),
        ("cache-control", "max-age=60, max-age=0"),
        ("expires", "0"),
        ("expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("set-cookie", "a=1"),
        ("vary", "*"),
        ("vary", "accept, *"),
        ("vary", "a b"),
        ("content-range", "bytes 0-1/2"),
        ("trailer", "x-sum"),
        ("content-type", "text/event-stream; charset=utf-8"),
        ("content-type", "Multipart/X-Mixed-Replace"),
    ] {
        assert!(judged(200, &[lines]).is_err(), "{lines:?}");
    }
}

#[test]
fn the_functions_own_word_on_how_long_is_heard() {
    assert_eq!(lifetime(&[]), None);
    assert_eq!(lifetime(&[("cache-control", "public")]), None);
    assert_eq!(lifetime(&[("cache-control", "max-age=60")]), Some(60));
    assert_eq!(lifetime(&[("cache-control", "max-age=\"60\", max-age=30")]), Some(30));
    assert_eq!(lifetime(&[("cache-control", "s-maxage=5"), ("cache-control", "max-age=60")]), Some(5));
    assert_eq!(lifetime(&[("cache-control", "max-age=99999999999999999999")]), Some(1 << 31));
    let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(lifetime(&[date, ("expires", "Sun, 06 Nov 1994 08:49:47 GMT")]), Some(10));
    assert_eq!(lifetime(&[date, ("expires", "0"), ("cache-control", "max-age=3")]), Some(3));
    assert!(judged(200, &[("expires", "Sun, 06 Nov 2094 08:49:47 GMT")]).is_err(), "nothing to count from");
    // It was somewhere before it came.
    let aged = judged(200, &[("age", "7"), ("cache-control", "max-age=60")]).unwrap();
    assert_eq!(aged.age.as_secs(), 7);
    assert!(judged(200, &[("age", "60"), ("cache-control", "max-age=60")]).is_err());
    let stale = |lines| judged(200, &[("cache-control", lines)]).unwrap().stale;
    assert_eq!(stale("max-age=1"), None);
    assert_eq!(stale("max-age=1, stale-if-error=9"), Some(Duration::from_secs(9)));
    for lines in ["max-age=1, must-revalidate", "max-age=1, stale-if-error=9, proxy-revalidate", "s-maxage=1"] {
        assert_eq!(stale(lines), Some(Duration::ZERO), "{lines}");
    }
}

#[test]
fn variants_are_told_apart_by_what_vary_names_alone() {
    let keep = judged(200, &[("vary", "Accept-Language, accept"), ("vary", "ACCEPT,,")]).unwrap();
    let names: Vec<_> = keep.vary.iter().map(HeaderName::as_str).collect();
    assert_eq!(names, ["accept", "accept-language"]);
    let variant = |lines: &[(&'static str, &str)]| {
        let mut out = Vec::new();
        write_variant(&mut out, &keep.vary, &headers(lines));
        out
    };
    let one = variant(&[("accept", "a, b")]);
    assert_eq!(one, variant(&[("accept", "a ,b"), ("x-other", "1")]));
    assert_eq!(one, variant(&[("accept", "a"), ("accept", "b")]));
    for other in
        [&[("accept", "b, a")][..], &[("accept", "a, b"), ("accept-language", "")], &[("accept-language", "a, b")], &[]]
    {
        assert_ne!(one, variant(other), "{other:?}");
    }
}

#[test]
fn who_has_it_already_is_told_so() {
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    let answer = headers(&[("etag", "\"v1\""), ("last-modified", DATE)]);
    for (lines, expected) in [
        (&[("if-none-match", "\"v1\"")][..], true),
        (&[("if-none-match", "W/\"v1\"")], true),
        (&[("if-none-match", "\"a,b\", \"v1\"")], true),
        (&[("if-none-match", "\"a\""), ("if-none-match", "\"v1\"")], true),
        (&[("if-none-match", "*")], true),
        (&[("if-none-match", "\"v2\"")], false),
        (&[("if-none-match", "v1")], false),
        (&[("if-none-match", "\"v2\""), ("if-modified-since", LATER)], false),
        (&[("if-modified-since", DATE)], true),
        (&[("if-modified-since", LATER)], true),
        (&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], false),
        (&[("if-modified-since", "yesterday")], false),
        (&[], false),
    ] {
        assert_eq!(is_unchanged(&headers(lines), &answer), expected, "{lines:?}");
    }
    let untold = HeaderMap::new();
    assert!(is_unchanged(&headers(&[("if-none-match", "*")]), &untold));
    assert!(!is_unchanged(&headers(&[("if-none-match", "\"v1\"")]), &untold));
    assert!(!is_unchanged(&headers(&[("if-modified-since", LATER)]), &untold));
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let word = "no-store|private|no-cache|max-age|s-maxage|public|x|\"|\\\\|,| |=|[0-9]{1,21}|\"a,b\"|;|\t";
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat().into_bytes())
}

proptest! {
    /// What a function forbids anywhere outside of quotes is heard, whatever stands around it.
    #[test]
    fn a_forbidding_word_is_heard_wherever_it_stands(
        before in "([a-z-]{1,9}(=([0-9]{1,3}|\"[a-z,]{0,5}\"))?, {0,2}){0,3}",
        word in "no-store|no-cache|private|No-Store|PRIVATE",
        after in "( {0,2},[a-z]{1,9}){0,3}",
        blank in "[ \t]{0,2}",
    ) {
        let value = format!("{before}{blank}{word}{blank}{after}");
        prop_assert!(judged(200, &[("cache-control", &value)]).is_err(), "{value}");
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_elements_are_of_the_line(lines in prop::collection::vec(line(), 0..4)) {
        let mut all = HeaderMap::new();
        for line in &lines {
            for element in elements(line) {
                prop_assert!(!element.is_empty() && element.trim_ascii() == element);
            }
            let Ok(value) = HeaderValue::from_bytes(line) else { continue };
            for name in ["cache-control", "vary", "if-none-match", "etag", "age", "expires", "cookie"] {
                all.append(HeaderName::from_static(name), value.clone());
            }
        }
        let _ = directives(&all).count();
        let _ = answer::judge(200, &all, Duration::ZERO);
        let _ = is_unchanged(&all, &all);
        let _ = judge(&cache(&[cookie("a")]), &question(&Method::GET, "/", &all));
    }

    /// Keys are equal only where everything that is in them is.
    #[test]
    fn no_two_questions_have_one_key(
        one in ("/[ab/]{0,3}(\\?[ab=&]{0,5})?", "[ab, ]{0,4}", "[ab]{0,3}"),
        other in ("/[ab/]{0,3}(\\?[ab=&]{0,5})?", "[ab, ]{0,4}", "[ab]{0,3}"),
    ) {
        let by = cache(&[header("x-a"), header("x-b")]);
        let of = |(target, a, b): &(String, String, String)| key(&by, target, &[("x-a", a), ("x-b", b)]);
        prop_assert_eq!(of(&one) == of(&other), one == other);
    }

    #[test]
    fn a_named_parameter_is_never_left_out(
        before in "([a-z]{1,3}=[a-z]{0,2}&){0,2}", value in "[a-z0-9]{0,3}", other in "[a-z0-9]{0,3}", after in "(&[a-z]{1,3}=[a-z]{0,2}){0,2}",
    ) {
        let by = cache(&[CacheKey::Query("q".to_owned())]);
        let of = |value: &str| key(&by, &format!("/?{before}q={value}{after}"), &[]);
        prop_assert_eq!(of(&value) == of(&other), value == other);
    }
}
