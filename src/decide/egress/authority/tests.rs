use proptest::prelude::*;

use super::{AuthorityProblem as P, *};

fn of(text: &str) -> Result<String, P> {
    connect(text.as_bytes()).map(|authority| authority.to_string())
}

#[test]
fn names_and_addresses_are_read_in_their_usual_form() {
    for (written, meant) in [
        ("allowed.com:443", "allowed.com:443"),
        ("ALLOWED.com:443", "allowed.com:443"),
        ("allowed.com.:443", "allowed.com:443"),
        ("a_b.example:1", "a_b.example:1"),
        ("xn--bcher-kva.example:65535", "xn--bcher-kva.example:65535"),
        ("r3---sn-x.example:443", "r3---sn-x.example:443"),
        ("localhost:80", "localhost:80"),
        ("1password.com:443", "1password.com:443"),
        ("3.example.1a:443", "3.example.1a:443"),
        ("8.8.8.8:443", "8.8.8.8:443"),
        ("[2606:4700:4700::1111]:443", "[2606:4700:4700::1111]:443"),
        ("[2606:4700:4700:0:0:0:0:1111]:443", "[2606:4700:4700::1111]:443"),
        ("[::ffff:127.0.0.1]:443", "127.0.0.1:443"),
        ("[::ffff:7f00:1]:443", "127.0.0.1:443"),
        ("[::1]:443", "[::1]:443"),
    ] {
        assert_eq!(of(written).as_deref(), Ok(meant), "{written}");
    }
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(of(&format!("{longest}:443")), Ok(format!("{longest}:443")));
    assert_eq!(of(&format!("{longest}.:65535")), Ok(format!("{longest}:65535")));
}

#[test]
fn a_name_is_borrowed_where_it_was_written_as_it_is_meant() {
    for (text, borrowed) in [("a.example:443", true), ("a.example.:443", true), ("A.example:443", false)] {
        let is = matches!(connect(text.as_bytes()).expect(text).host, Host::Name(Cow::Borrowed(_)));
        assert_eq!(is, borrowed, "{text}");
    }
}

/// What is malformed: 400. Numbers are those of the survey's list.
#[test]
fn malformed_targets_are_bad_requests() {
    for (text, problem) in [
        ("", P::Empty),
        (":443", P::Empty),
        // 48
        ("host:65536", P::BadPort),
        ("host:65616", P::BadPort),
        ("host:-1", P::BadPort),
        ("host:+443", P::BadPort),
        ("host:0443", P::BadPort),
        ("host:00", P::BadPort),
        ("host:https", P::BadPort),
        ("host:", P::BadPort),
        ("host:443x", P::BadPort),
        ("host:4294967739", P::BadPort),
        ("host:443:443", P::BadPort),
        ("host:0x1bb", P::BadPort),
        ("host:%34%34%33", P::BadPort),
        // 49
        ("host", P::NoPort),
        ("127.0.0.1", P::NoPort),
        ("[::1]", P::NoPort),
        // 50
        ("user:pw@allowed:443", P::UserInfo),
        ("user@127.0.0.1:443", P::UserInfo),
        ("allowed:443@127.0.0.1:443", P::UserInfo),
        // 51
        ("allowed:443/path", P::MoreThanAuthority),
        ("allowed:443?x", P::MoreThanAuthority),
        ("allowed:443#x", P::MoreThanAuthority),
        ("http://allowed/", P::MoreThanAuthority),
        ("/x", P::MoreThanAuthority),
        ("*", P::IllegalByte(b'*')),
        // 52
        ("[allowed]:443", P::BadBrackets),
        ("[[::1]]:443", P::BadBrackets),
        ("[127.0.0.1]:443", P::BadBrackets),
        ("[]:443", P::BadBrackets),
        ("[::1:443", P::BadBrackets),
        ("[::1]x:443", P::BadBrackets),
        ("[v1.fe80::a]:443", P::BadBrackets),
        ("::1]:443", P::BadBrackets),
        ("a[b:443", P::BadBrackets),
        ("::1:443", P::NoBrackets),
        // 53
        ("evil.com,allowed:443", P::IllegalByte(b',')),
        ("evil.com allowed:443", P::IllegalByte(b' ')),
        ("allowed\t:443", P::IllegalByte(b'\t')),
        ("allowed:443\r", P::IllegalByte(b'\r')),
        ("allowed:443\n", P::IllegalByte(b'\n')),
        ("allowed\0.evil.com:443", P::IllegalByte(0)),
        ("127.0.0.1\\allowed:443", P::IllegalByte(b'\\')),
        ("$(id).test:443", P::IllegalByte(b'$')),
        // 33, 35, 56
        ("①②⑦.0.0.1:443", P::IllegalByte(0xe2)),
        ("127。0。0。1:443", P::IllegalByte(0xe3)),
        ("\u{430}llowed.com:443", P::IllegalByte(0xd0)),
        ("all\u{ad}owed.com:443", P::IllegalByte(0xc2)),
    ] {
        assert_eq!(of(text), Err(problem), "{text:?}");
        assert_eq!(problem.reason(), Reason::BadRequest, "{text:?}");
    }
}

/// What looks like a host, and is nobody's: 403.
#[test]
fn what_can_be_nobodys_name_or_address_is_no_destination() {
    let long_label = format!("{}.com:443", "a".repeat(64));
    let long_name = format!("{}com:443", "a.".repeat(126));
    for (text, problem) in [
        // 25
        ("[fe80::1%25eth0]:443", P::Zone),
        ("[::1%lo]:443", P::Zone),
        // 28 to 34
        ("127.1:443", P::OddAddress),
        ("127.0.1:443", P::OddAddress),
        ("2130706433:443", P::OddAddress),
        ("0:443", P::OddAddress),
        ("0177.0.0.1:443", P::OddAddress),
        ("127.000.000.001:443", P::OddAddress),
        ("0x7f.0.0.1:443", P::OddAddress),
        ("0x7f000001:443", P::OddAddress),
        ("0x7f.1:443", P::OddAddress),
        ("a.0x:443", P::OddAddress),
        ("127.0.0.0X1:443", P::OddAddress),
        ("127.0.0.1.:443", P::OddAddress),
        ("1.2.3.4.5:443", P::OddAddress),
        ("256.1.1.1:443", P::OddAddress),
        ("4294967295:443", P::OddAddress),
        // 47
        ("allowed:0", P::PortZero),
        // 57
        (&long_label, P::LongLabel),
        (&long_name, P::TooLong),
        ("a..b:443", P::EmptyLabel),
        (".a:443", P::EmptyLabel),
        (".:443", P::EmptyLabel),
        ("..:443", P::EmptyLabel),
        ("a..:443", P::EmptyLabel),
        ("-:443", P::Hyphen),
        ("a-.example:443", P::Hyphen),
        // 58
        ("allowed%00.evil.com:443", P::PercentEncoded),
        ("allowed%2eevil.com:443", P::PercentEncoded),
        ("%31%32%37.0.0.1:443", P::PercentEncoded),
    ] {
        assert_eq!(of(text), Err(problem), "{text:?}");
        assert_ne!(problem.reason(), Reason::BadRequest, "{text:?}");
        assert_eq!(problem.reason().status(), 403, "{text:?}");
    }
}

fn forward(target: &str) -> Result<(String, String, String), P> {
    let absolute = absolute(target.as_bytes())?;
    Ok((absolute.authority.to_string(), absolute.host(), absolute.origin_form(false).into_owned()))
}

#[test]
fn absolute_forms_are_taken_apart() {
    for (target, to, host, path) in [
        ("http://pub.test/", "pub.test:80", "pub.test", "/"),
        ("HTTP://PUB.TEST/", "pub.test:80", "pub.test", "/"),
        ("http://pub.test", "pub.test:80", "pub.test", "/"),
        ("http://pub.test?a=b", "pub.test:80", "pub.test", "/?a=b"),
        ("http://pub.test:8081/a?b=c", "pub.test:8081", "pub.test:8081", "/a?b=c"),
        ("http://pub.test:80/a//b/../c", "pub.test:80", "pub.test:80", "/a//b/../c"),
        ("http://8.8.8.8/x@y:z", "8.8.8.8:80", "8.8.8.8", "/x@y:z"),
        ("http://[2606:4700::1]/", "[2606:4700::1]:80", "[2606:4700::1]", "/"),
        ("http://[2606:4700::1]:8080/%2e%2e/", "[2606:4700::1]:8080", "[2606:4700::1]:8080", "/%2e%2e/"),
    ] {
        assert_eq!(forward(target), Ok((to.to_owned(), host.to_owned(), path.to_owned())), "{target}");
    }
    let options = absolute(b"http://pub.test").expect("a target");
    assert_eq!(options.origin_form(true), "*");
}

#[test]
fn other_forms_are_refused() {
    for (target, problem) in [
        // 62, 63, 64
        ("https://allowed/", P::Https),
        ("ftp://pub.test/x", P::Scheme),
        ("gopher://127.0.0.1:6379/_INFO", P::Scheme),
        ("file:///etc/passwd", P::Scheme),
        ("cache_object://127.0.0.1/info", P::Scheme),
        ("urn:x:y", P::Scheme),
        ("unix:/run/x.sock", P::Scheme),
        ("//evil/", P::NotAbsolute),
        ("*", P::NotAbsolute),
        ("/", P::NotAbsolute),
        ("", P::NotAbsolute),
        ("pub.test", P::NotAbsolute),
        ("http:pub.test/", P::NotAbsolute),
        ("http:/pub.test/", P::NotAbsolute),
        ("http:\\\\127.0.0.1/", P::IllegalByte(b'\\')),
        ("http:///127.0.0.1/", P::Empty),
        ("http://?x", P::Empty),
        ("http://:80/", P::Empty),
        ("http://pub.test:/", P::BadPort),
        ("http://pub.test:080/", P::BadPort),
        ("http://pub.test:0/", P::PortZero),
        ("http://pub.test:80:80/", P::BadPort),
        ("http://pub.test@127.0.0.1/", P::UserInfo),
        ("http://u:p@pub.test/", P::UserInfo),
        ("http://127.0.0.1#@pub.test/", P::IllegalByte(b'#')),
        ("http://127.0.0.1\\@pub.test/", P::IllegalByte(b'\\')),
        ("http://pub.test%2f@127.0.0.1/", P::UserInfo),
        ("http://pub.test /", P::IllegalByte(b' ')),
        ("http://pub.test/a b", P::IllegalByte(b' ')),
        ("http://pub.test/\nX: y", P::IllegalByte(b'\n')),
        ("http://pub.test/ä", P::IllegalByte(0xc3)),
        ("http://2130706433/", P::OddAddress),
        ("http://[::1", P::BadBrackets),
        ("http://[127.0.0.1]/", P::BadBrackets),
    ] {
        assert_eq!(forward(target).map(|(to, ..)| to), Err(problem), "{target:?}");
        assert!((400..500).contains(&problem.reason().status()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is read can be written again, and is read the same; so the log, the rule and the resolver speak of one destination.
    #[test]
    fn what_is_read_means_itself(text in "[a-z0-9A-Z._:%@/\\[\\]-]{0,40}") {
        if let Ok(read) = connect(text.as_bytes()) {
            let again = read.to_string();
            prop_assert_eq!(connect(again.as_bytes()), Ok(read.clone()));
            if let Host::Name(name) = &read.host {
                prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
                prop_assert!(name.parse::<IpAddr>().is_err());
            }
        }
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = connect(&bytes);
        let _ = absolute(&bytes);
        let _ = server_name(&bytes);
    }

    /// Another reader, where both read: `url` sees the same host, or we see none.
    #[test]
    fn another_reader_sees_the_same_host(text in "[a-z0-9.x-]{1,20}(:[0-9]{1,5})?") {
        if let Ok(read) = absolute(format!("http://{text}/").as_bytes()) {
            let url = url::Url::parse(&format!("http://{text}/")).expect("a URL");
            prop_assert_eq!(url.port_or_known_default(), Some(read.authority.port));
            let host = url.host_str().expect("a host").trim_end_matches('.').to_owned();
            prop_assert_eq!(host, read.authority.host.to_string());
        }
    }
}
