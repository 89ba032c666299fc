use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn entry() -> Entry<'static> {
    Entry {
        ts: 1_709_210_096_789,
        request_id: "0192f1d4",
        generation: 3,
        listener: "public",
        client_ip: Some(Ipv4Addr::new(203, 0, 113, 7).into()),
        client: Some("regulator"),
        method: "GET",
        host: b"api.example.com",
        path: b"/orders/7",
        query: Some(b"debug=1"),
        route: Some("orders"),
        function: Some("orders"),
        version: Some("v42"),
        picked_by: Some(PickedBy::Sticky),
        weights_from: Some(WeightsFrom::File),
        status: Some(200),
        upstream_status: Some(200),
        class: Class::Ok,
        reason: None,
        bytes_in: 17,
        bytes_out: 5120,
        total: Duration::from_micros(12_340),
        queue: None,
        connect: Some(Duration::from_micros(250)),
        upstream: Some(Duration::from_micros(11_007)),
        attempts: 1,
        platform_request_id: Some(b"1-6743"),
        cache: None,
    }
}

fn refused() -> Entry<'static> {
    Entry {
        client_ip: None,
        client: None,
        query: None,
        route: None,
        function: None,
        version: None,
        picked_by: None,
        weights_from: None,
        status: Some(404),
        upstream_status: None,
        class: Class::Refused,
        reason: Some(Reason::NoRoute),
        connect: None,
        upstream: None,
        attempts: 0,
        platform_request_id: None,
        ..entry()
    }
}

fn written(format: LogFormat, query: bool, entry: &Entry<'_>) -> String {
    let mut out = Vec::new();
    line(&mut out, format, query, &mut Stamp::new(), entry);
    let line = String::from_utf8(out).unwrap();
    assert_eq!(line.find('\n'), Some(line.len() - 1), "one line: {line:?}");
    line.trim_end().to_owned()
}

fn parsed(entry: &Entry<'_>) -> Value {
    serde_json::from_str(&written(LogFormat::Json, false, entry)).unwrap()
}

#[test]
fn json_has_the_contracts_fields_in_its_order() {
    assert_eq!(
        written(LogFormat::Json, false, &entry()),
        concat!(
            r#"{"ts":"2024-02-29T12:34:56.789Z","request_id":"0192f1d4","generation":3,"listener":"public","#,
            r#""client_ip":"203.0.113.7","client":"regulator","method":"GET","host":"api.example.com","#,
            r#""path":"/orders/7","route":"orders","function":"orders","version":"v42","picked_by":"sticky","#,
            r#""weights_from":"file","status":200,"upstream_status":200,"class":"ok","bytes_in":17,"#,
            r#""bytes_out":5120,"total_ms":12.34,"connect_ms":0.25,"upstream_ms":11.007,"attempts":1,"#,
            r#""platform_request_id":"1-6743"}"#
        )
    );
}

#[test]
fn what_means_nothing_is_left_out() {
    assert_eq!(
        written(LogFormat::Json, true, &refused()),
        concat!(
            r#"{"ts":"2024-02-29T12:34:56.789Z","request_id":"0192f1d4","generation":3,"listener":"public","#,
            r#""method":"GET","host":"api.example.com","path":"/orders/7","status":404,"class":"refused","#,
            r#""reason":"no_route","bytes_in":17,"bytes_out":5120,"total_ms":12.34}"#
        )
    );
}

#[test]
fn text_is_readable_and_tells_the_same() {
    assert_eq!(
        written(LogFormat::Text, false, &entry()),
        concat!(
            r#"203.0.113.7 - regulator [2024-02-29T12:34:56.789Z] "GET api.example.com /orders/7" 200 5120 class=ok "#,
            "listener=public route=orders function=orders version=v42 picked_by=sticky weights_from=file ",
            "request_id=0192f1d4 platform_request_id=1-6743 generation=3 upstream_status=200 bytes_in=17 attempts=1 ",
            "total_ms=12.34 connect_ms=0.25 upstream_ms=11.007"
        )
    );
    let aborted = Entry { status: None, path: b"/a\"b\n\x1b[2J", platform_request_id: Some(b"a b=c"), ..refused() };
    let line = written(LogFormat::Text, false, &aborted);
    assert!(line.starts_with("- - - ["), "{line}");
    assert!(line.contains(r#""GET api.example.com /a\"b\n\u001b[2J" - 5120"#), "{line}");
    assert!(line.contains(r#"platform_request_id="a b=c""#), "{line}");
}

#[test]
fn the_query_is_told_only_where_asked() {
    assert_eq!(parsed(&entry())["path"], "/orders/7");
    let line = written(LogFormat::Json, true, &entry());
    assert!(line.contains(r#""path":"/orders/7?debug=1""#), "{line}");
    assert!(written(LogFormat::Text, true, &entry()).contains("/orders/7?debug=1\""));
}

#[test]
fn a_long_value_is_cut_at_a_character() {
    for shift in 0..4 {
        let mut path = vec![b'a'; MAX_VALUE - shift];
        path.extend_from_slice("€€€".as_bytes());
        let line = parsed(&Entry { path: &path, ..entry() });
        let told = line["path"].as_str().unwrap();
        assert!(told.ends_with('…'), "{}", &told[MAX_VALUE - 8..]);
        assert!(!told.contains('\u{fffd}'));
        assert!(told.len() <= MAX_VALUE + '…'.len_utf8());
    }
}

#[test]
fn addresses_are_written_as_people_know_them() {
    let told = |ip: IpAddr| {
        let entry = Entry { client_ip: Some(ip), ..entry() };
        parsed(&entry)["client_ip"].as_str().unwrap().to_owned()
    };
    assert_eq!(told(Ipv4Addr::new(255, 0, 10, 1).into()), "255.0.10.1");
    for n in 0..=255 {
        let ip = Ipv4Addr::new(n, 9, 10, 99);
        assert_eq!(told(ip.into()), ip.to_string());
    }
    assert_eq!(told("2001:db8::7".parse().unwrap()), "2001:db8::7");
    let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(told(mapped.into()), "192.0.2.1");
}

#[test]
fn times_have_the_decimals_they_need() {
    for (micros, text) in
        [(0, "0"), (1, "0.001"), (10, "0.01"), (100, "0.1"), (1000, "1"), (1020, "1.02"), (61_000_300, "61000.3")]
    {
        let mut out = Vec::new();
        milliseconds(&mut out, Duration::from_micros(micros));
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}

#[test]
fn eight_bytes_at_a_time_are_judged_as_one_by_one() {
    for (byte, plain) in PLAIN.iter().enumerate() {
        for place in 0..8 {
            for filler in [b' ', b'!', b'#', b'[', b']', b'a', b'~'] {
                let mut word = [filler; 8];
                word[place] = u8::try_from(byte).unwrap();
                assert_eq!(is_plain(&word), *plain, "byte {byte} at {place} among {filler}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_make_one_line_of_json_that_says_them(
        host in proptest::collection::vec(any::<u8>(), 0..60),
        path in "\\PC{0,20}",
        id in "[ -~\\x00-\\x1f\\x7f-\\u{a0}\\u{2028}]{0,20}",
    ) {
        let line = parsed(&Entry {
            host: &host,
            path: path.as_bytes(),
            request_id: &id,
            ..entry()
        });
        prop_assert_eq!(line["host"].as_str().unwrap(), String::from_utf8_lossy(&host));
        prop_assert_eq!(line["path"].as_str().unwrap(), path);
        prop_assert_eq!(line["request_id"].as_str().unwrap(), id);
    }

    #[test]
    fn any_bytes_make_one_line_of_text(host in proptest::collection::vec(any::<u8>(), 0..60)) {
        let line = written(LogFormat::Text, false, &Entry { host: &host, platform_request_id: Some(&host), ..entry() });
        prop_assert!(!line.chars().any(char::is_control));
    }
}
