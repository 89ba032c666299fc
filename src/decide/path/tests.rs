use std::borrow::Cow;

use proptest::prelude::*;

use super::{Normal, PathProblem, normalise};

fn normal(raw: &str) -> String {
    normalise(raw).unwrap().path.into_owned()
}

#[test]
fn leaves_a_clean_path_where_it_is() {
    for clean in [
        "/",
        "/orders",
        "/orders/",
        "/orders/7",
        "/.well-known/acme-challenge/x",
        "/a/...",
        "/a/..b/.c/d..",
        "/~user/a;v=1/b,c/!$&'()*+=:@",
        "/caf%C3%A9/%20/%25/%23",
        "/%252e%252e/x",
    ] {
        let found = normalise(clean).unwrap();
        assert!(matches!(found.path, Cow::Borrowed(same) if same == clean), "{clean}: {found:?}");
        assert!(!found.encoded_slash);
    }
}

#[test]
fn removes_dot_segments() {
    for (raw, expected) in [
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/.", "/"),
        ("/./", "/"),
        ("/a/..", "/"),
        ("/a/b/../../c", "/c"),
        ("/a/b/c/./../../g", "/a/g"),
        ("/mid/content=5/../6", "/mid/6"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/%2e/b", "/a/b"),
    ] {
        assert_eq!(normal(raw), expected, "{raw}");
    }
}

#[test]
fn merges_slashes() {
    for (raw, expected) in
        [("//", "/"), ("//a", "/a"), ("/a//b", "/a/b"), ("/a///", "/a/"), ("/a//../b", "/b"), ("/a/..//", "/")]
    {
        assert_eq!(normal(raw), expected, "{raw}");
    }
}

#[test]
fn decodes_unreserved_letters_and_keeps_other_escapes_in_upper_case() {
    for (raw, expected) in [
        ("/%61%42%7e%2D%5f%30", "/aB~-_0"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%3fb%23c", "/a%3Fb%23c"),
        ("/%25%36%31", "/%2561"),
        ("/a[1]|b^c", "/a%5B1%5D%7Cb%5Ec"),
    ] {
        assert_eq!(normal(raw), expected, "{raw}");
    }
}

#[test]
fn keeps_and_flags_an_encoded_slash() {
    for (raw, expected) in
        [("/a%2fb", "/a%2Fb"), ("/a%2Fb", "/a%2Fb"), ("/a%5cb/", "/a%5Cb/"), ("/x/../a%2F%2Fb", "/a%2F%2Fb")]
    {
        let expected = Normal { path: Cow::Borrowed(expected), encoded_slash: true };
        assert_eq!(normalise(raw).unwrap(), expected, "{raw}");
    }
    assert!(!normalise("/a%252Fb").unwrap().encoded_slash);
}

#[test]
fn refuses_what_can_be_read_in_two_ways() {
    use PathProblem::*;
    for (raw, problem) in [
        ("", NotAbsolute),
        ("*", NotAbsolute),
        ("orders", NotAbsolute),
        ("%2Forders", NotAbsolute),
        ("/a%", BadEscape { at: 2 }),
        ("/a%4", BadEscape { at: 2 }),
        ("/a%4/b", BadEscape { at: 2 }),
        ("/x/%zz", BadEscape { at: 3 }),
        ("/x//%0g", BadEscape { at: 4 }),
        ("/%+1", BadEscape { at: 1 }),
        ("/a%00", Control { at: 2 }),
        ("/a%0d%0a", Control { at: 2 }),
        ("/%7F", Control { at: 1 }),
        ("/a\0", Control { at: 2 }),
        ("/a\tb", Control { at: 2 }),
        ("/a\r\nb", Control { at: 2 }),
        ("/\x7f", Control { at: 1 }),
        ("/a b", IllegalByte { byte: b' ', at: 2 }),
        ("/é", IllegalByte { byte: 0xc3, at: 1 }),
        ("/a?b", IllegalByte { byte: b'?', at: 2 }),
        ("/a#b", IllegalByte { byte: b'#', at: 2 }),
        ("/\"<>", IllegalByte { byte: b'"', at: 1 }),
        ("/{id}", IllegalByte { byte: b'{', at: 1 }),
        ("/a\\b", Backslash { at: 2 }),
        ("/..", AboveRoot),
        ("/../a", AboveRoot),
        ("/%2e%2e/a", AboveRoot),
        ("/a/../../b", AboveRoot),
        ("/a//../..", AboveRoot),
        ("/a/..%2fb", DotsAtEncodedSlash),
        ("/a/%2e%2e%2fb", DotsAtEncodedSlash),
        ("/a/b%5C..%5Cc", DotsAtEncodedSlash),
        ("/a/b%2F..", DotsAtEncodedSlash),
        ("/a%2fb/../c", DotsAtEncodedSlash),
        ("/a%5cb/x/../..", DotsAtEncodedSlash),
    ] {
        assert_eq!(normalise(raw), Err(problem), "{raw:?}");
    }
}

#[test]
fn says_what_is_wrong_and_where() {
    let said = |raw| normalise(raw).unwrap_err().to_string();
    assert_eq!(said("/a b"), "the path has the byte 0x20 at byte 2, which must be percent-encoded");
    assert_eq!(said("/%zz"), "the path has a `%` at byte 1 that two hex digits don't follow");
}

/// RFC 3986 §5.2.4, spelled out on a path without empty segments, refusing what climbs.
fn remove_dot_segments_by_the_book(path: &str) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path[1..].split('/').collect();
    for (i, segment) in segments.iter().enumerate() {
        let last = i + 1 == segments.len();
        match *segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop()?;
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    Some(format!("/{}", kept.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn twice_is_once(raw in "/(a|B|/|\\.|\\.\\.|%2e|%2f|%5C|%41|%c3|%7e|%25|\\[|:|%20){0,12}") {
        if let Ok(once) = normalise(&raw) {
            let twice = normalise(&once.path).unwrap();
            prop_assert_eq!(&twice.path, &once.path);
            prop_assert_eq!(twice.encoded_slash, once.encoded_slash);
            prop_assert!(!once.path.contains("//"));
            prop_assert!(once.path.starts_with('/'));
            prop_assert!(!once.path.split('/').any(|s| s == "." || s == ".."));
        }
    }

    #[test]
    fn any_text_is_answered(raw in "\\PC{0,24}", bytes in "[ -~]{0,24}") {
        let _ = normalise(&raw);
        let _ = normalise(&format!("/{bytes}"));
    }

    #[test]
    fn agrees_with_the_book_on_dots(raw in "(/(a|b|\\.|\\.\\.|c\\.)){1,8}/?") {
        let expected = remove_dot_segments_by_the_book(&raw);
        prop_assert_eq!(normalise(&raw).ok().map(|n| n.path.into_owned()), expected);
    }

    /// However an allowed letter is written, the same path comes out.
    #[test]
    fn one_spelling(path in "(/[a-zA-Z0-9_~.-]{1,4}){1,4}", every in 1usize..4) {
        let escaped: String = path
            .bytes()
            .enumerate()
            .map(|(i, b)| match b {
                b'/' => "/".to_owned(),
                _ if i % every == 0 => format!("%{b:02x}"),
                _ => char::from(b).to_string(),
            })
            .collect();
        prop_assert_eq!(
            normalise(&escaped).map(|n| n.path.into_owned()),
            normalise(&path).map(|n| n.path.into_owned())
        );
    }
}
