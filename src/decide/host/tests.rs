use std::borrow::Cow;

use proptest::prelude::*;

use super::{HostProblem, parse};

#[test]
fn takes_names_and_addresses_with_and_without_a_port() {
    for (authority, name, port) in [
        ("example.com", "example.com", None),
        ("example.com:8443", "example.com", Some(8443)),
        ("example.com:", "example.com", None),
        ("example.com:0", "example.com", Some(0)),
        ("example.com:65535", "example.com", Some(65535)),
        ("example.com:00080", "example.com", Some(80)),
        ("localhost", "localhost", None),
        ("my_fn-1.internal", "my_fn-1.internal", None),
        ("192.0.2.7:80", "192.0.2.7", Some(80)),
        ("[2001:db8::7]", "[2001:db8::7]", None),
        ("[::1]:8080", "[::1]", Some(8080)),
        ("example.com.", "example.com", None),
        ("example.com.:443", "example.com", Some(443)),
    ] {
        let host = parse(authority).unwrap();
        assert!(matches!(host.name, Cow::Borrowed(_)), "{authority}");
        assert_eq!((&*host.name, host.port), (name, port), "{authority}");
    }
}

#[test]
fn has_one_spelling_of_each_name() {
    for (authority, name) in [
        ("API.Example.COM", "api.example.com"),
        ("API.example.com.:80", "api.example.com"),
        ("[2001:DB8:0:0::7]", "[2001:db8::7]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
    ] {
        assert_eq!(parse(authority).unwrap().name, name, "{authority}");
    }
}

#[test]
fn refuses_everything_else() {
    use HostProblem::*;
    let long = "a".repeat(256);
    for (authority, problem) in [
        ("", Empty),
        (":80", Empty),
        (".", EmptyLabel),
        ("..", EmptyLabel),
        ("a..b", EmptyLabel),
        (".example.com", EmptyLabel),
        ("example.com..", EmptyLabel),
        ("user@example.com", UserInfo),
        ("user:pw@example.com", UserInfo),
        ("a@[::1]", UserInfo),
        (" example.com", IllegalByte { byte: b' ' }),
        ("example.com ", IllegalByte { byte: b' ' }),
        ("a,b", IllegalByte { byte: b',' }),
        ("a\tb", IllegalByte { byte: b'\t' }),
        ("a/b", IllegalByte { byte: b'/' }),
        ("a?b", IllegalByte { byte: b'?' }),
        ("a#b", IllegalByte { byte: b'#' }),
        ("a\\b", IllegalByte { byte: b'\\' }),
        ("a%2eb", IllegalByte { byte: b'%' }),
        ("a;b", IllegalByte { byte: b';' }),
        ("*.example.com", IllegalByte { byte: b'*' }),
        ("\0", IllegalByte { byte: 0 }),
        ("bücher.example", IllegalByte { byte: 0xc3 }),
        ("a:80:80", BadPort),
        ("a:http", BadPort),
        ("a:+80", BadPort),
        ("a:-1", BadPort),
        ("a: 80", BadPort),
        ("a:65536", BadPort),
        ("a:000080", BadPort),
        ("::1", Empty),
        ("2001:db8::7", BadPort),
        ("[::1", BadAddress),
        ("[]", BadAddress),
        ("[fe80::1%25eth0]", BadAddress),
        ("[v1.x]", BadAddress),
        ("[192.0.2.7]", BadAddress),
        ("[::1]x", IllegalByte { byte: b'x' }),
        ("[::1]]", IllegalByte { byte: b']' }),
        ("[::1]:x", BadPort),
        ("a[::1]", IllegalByte { byte: b'[' }),
        (&long, TooLong),
    ] {
        assert_eq!(parse(authority), Err(problem), "{authority:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_out_goes_in_again(authority in "([a-cA-C_.-]|:|[0-9]|\\[|\\]|::| |@){0,10}") {
        if let Ok(host) = parse(&authority) {
            let again = parse(&host.name).unwrap();
            prop_assert_eq!(&again.name, &host.name);
            prop_assert!(matches!(again.name, Cow::Borrowed(_)));
            prop_assert!(!host.name.is_empty() && !host.name.ends_with('.'));
        }
    }

    #[test]
    fn any_text_is_answered(authority in "\\PC{0,24}") {
        let _ = parse(&authority);
    }
}
