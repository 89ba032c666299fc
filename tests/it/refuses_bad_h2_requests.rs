//! What two readers could read in two ways reaches nobody over h2 either (RFC 9113 §8): refused, with one line in the log, and
//! the other requests of its connection go on.

use crate::harness::{
    Gateway, Origin, Reply, eventually,
    frames::{
        COMPRESSION_ERROR, DATA, END_HEADERS, END_STREAM, FRAME_SIZE_ERROR, HEADERS, PING, PROTOCOL_ERROR, RST_STREAM,
        Raw, SETTINGS, asks, block, field, frame, get, post, reset, setting, window,
    },
    gateway,
    h2::H2,
    origin, post as a_post, request, when,
};

async fn in_front(function: Origin) -> (Gateway, Origin) {
    let gateway = gateway(format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        path = "/*"
        function = "f"
        "#,
        function.url()
    ))
    .workers(1)
    .start()
    .await;
    (gateway, function)
}

/// Sends each head as a request of its own, all on one connection: each must be refused, by a 4xx or a PROTOCOL_ERROR of its
/// stream, and a good one behind it be served.
async fn refused(heads: &[(&str, Vec<u8>)]) {
    let (gateway, function) = in_front(origin().start().await).await;
    let mut wrong = Vec::new();
    for (n, (what, head)) in heads.iter().enumerate() {
        let mut caller = Raw::open(gateway.address("in")).await;
        caller.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, head)).await;
        let answer = loop {
            let Some(frame) = caller.next().await else { break "closed".to_owned() };
            match frame.kind {
                RST_STREAM => break format!("reset {}", frame.code()),
                HEADERS => break frame.status().to_string(),
                crate::harness::frames::GOAWAY => break format!("goaway {}", frame.code()),
                _ => {}
            }
        };
        if !["reset 1", "400", "405", "goaway 1"].contains(&answer.as_str()) || function.requests() != n {
            let reached = function.requests() - n;
            wrong.push(format!("{what}: {answer}, {reached} reached the function"));
        }
        if answer == "goaway 1" {
            caller = Raw::open(gateway.address("in")).await;
        }
        caller.say(get(3)).await;
        if caller.status().await != 200 {
            wrong.push(format!("{what}: the next request is not served"));
        }
        let lines = gateway.log(2 * (n + 1)).await;
        let line = lines[2 * n..].iter().find(|line| line["class"] == "refused");
        if line.is_none_or(|line| line["reason"] != "bad_request" && line["reason"] != "method_not_allowed") {
            wrong.push(format!("{what}: is logged as {:?}", &lines[2 * n..]));
        }
        function_saw(&function, n + 1).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    gateway.counts("gatepost_requests_total", &[("class", "refused")], heads.len() as f64).await;
}

async fn function_saw(function: &Origin, requests: usize) {
    eventually("the good one reached the function", async || when(function.requests() >= requests)).await;
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const HOST: (&str, &str) = (":authority", "gate.test");
const PATH: (&str, &str) = (":path", "/");

#[tokio::test]
async fn pseudo_fields_that_are_missing_twice_late_or_unknown() {
    // RFC 9113 §8.3.
    refused(&[
        ("no method", block(&[SCHEME, HOST, PATH])),
        ("no scheme", block(&[METHOD, HOST, PATH])),
        ("no path", block(&[METHOD, SCHEME, HOST])),
        ("nobody to ask", block(&[METHOD, SCHEME, PATH])),
        ("nothing", Vec::new()),
        ("two methods", block(&[METHOD, METHOD, SCHEME, HOST, PATH])),
        ("two schemes", block(&[METHOD, SCHEME, SCHEME, HOST, PATH])),
        ("two authorities", block(&[METHOD, SCHEME, HOST, HOST, PATH])),
        ("two paths", block(&[METHOD, SCHEME, HOST, PATH, PATH])),
        ("one behind a field", block(&[METHOD, SCHEME, HOST, ("accept", "*/*"), PATH])),
        ("an unknown one", block(&[METHOD, SCHEME, HOST, PATH, (":what", "this")])),
        ("one of answers", block(&[METHOD, SCHEME, HOST, PATH, (":status", "200")])),
        ("a method that is none", block(&[(":method", "G T"), SCHEME, HOST, PATH])),
        ("an empty method", block(&[(":method", ""), SCHEME, HOST, PATH])),
    ])
    .await;
}

#[tokio::test]
async fn hosts_that_contradict_each_other_or_are_none() {
    let with = |authority, more: &[(&str, &str)]| {
        [block(&[METHOD, SCHEME, (":authority", authority), PATH]), block(more)].concat()
    };
    refused(&[
        ("another Host", with("gate.test", &[("host", "other.test")])),
        ("two Hosts", with("gate.test", &[("host", "gate.test"), ("host", "gate.test")])),
        ("two Hosts alone", block(&[METHOD, SCHEME, PATH, ("host", "gate.test"), ("host", "other.test")])),
        ("a name and a password", with("me:secret@gate.test", &[])),
        ("a space", with("gate test", &[])),
        ("a slash", with("gate.test/x", &[])),
        ("a port that is none", with("gate.test:http", &[])),
        ("a port too high", with("gate.test:65536", &[])),
        ("empty", with("", &[])),
        ("half an address", with("[::1", &[])),
        ("a Host that is none", block(&[METHOD, SCHEME, PATH, ("host", "gate test")])),
    ])
    .await;
}

#[tokio::test]
async fn targets_that_are_no_paths() {
    let to = |path: &str| block(&[METHOD, SCHEME, HOST, (":path", path)]);
    refused(&[
        ("empty", to("")),
        ("asterisk", to("*")),
        ("absolute", to("http://other.test/")),
        ("without a slash", to("x")),
        ("a space", to("/a b")),
        ("a line", to("/a\r\nx: y")),
        ("a NUL", to("/a\0")),
        ("a NUL in disguise", to("/a%00")),
        ("a slash in disguise", to("/a%2fb")),
        ("a half escape", to("/a%4")),
    ])
    .await;
}

#[tokio::test]
async fn fields_that_h2_does_not_have() {
    // RFC 9113 §8.2.
    let with = |name, value| asks("GET", "/", &[(name, value)]);
    refused(&[
        ("upper case", with("X-Upper", "y")),
        ("a space", with("x y", "z")),
        ("a colon", with("x:y", "z")),
        ("an empty name", with("", "z")),
        ("a NUL", with("x", "a\0b")),
        ("a line", with("x", "a\r\nb: c")),
        ("connection", with("connection", "close")),
        ("connection that names a field", with("connection", "x-forwarded-for")),
        ("keep-alive", with("keep-alive", "5")),
        ("proxy-connection", with("proxy-connection", "close")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("upgrade", with("upgrade", "websocket")),
        ("te that is not trailers", with("te", "gzip")),
    ])
    .await;
}

#[tokio::test]
async fn tunnels_are_refused() {
    refused(&[
        ("CONNECT", block(&[(":method", "CONNECT"), HOST])),
        // RFC 8441.
        (
            "extended CONNECT",
            [block(&[(":method", "CONNECT"), SCHEME, HOST, PATH]), field(":protocol", "websocket")].concat(),
        ),
        ("TRACE", asks("TRACE", "/", &[])),
    ])
    .await;
}

#[tokio::test]
async fn lengths_that_the_body_does_not_have() {
    let (gateway, function) = in_front(origin().start().await).await;
    let cases: [(&str, Vec<u8>); 7] = [
        ("less", [post(1, &[("content-length", "5")]), frame(DATA, END_STREAM, 1, b"four")].concat()),
        ("more", [post(1, &[("content-length", "5")]), frame(DATA, END_STREAM, 1, b"sixsix")].concat()),
        ("none", frame(HEADERS, END_HEADERS | END_STREAM, 1, &asks("POST", "/", &[("content-length", "5")]))),
        (
            "two",
            [post(1, &[("content-length", "4"), ("content-length", "5")]), frame(DATA, END_STREAM, 1, b"four")]
                .concat(),
        ),
        ("a list", [post(1, &[("content-length", "4, 5")]), frame(DATA, END_STREAM, 1, b"four")].concat()),
        ("a sign", [post(1, &[("content-length", "+4")]), frame(DATA, END_STREAM, 1, b"four")].concat()),
        (
            "too large",
            [post(1, &[("content-length", "18446744073709551620")]), frame(DATA, END_STREAM, 1, b"four")].concat(),
        ),
    ];
    let all = cases.len();
    for (what, said) in cases {
        let mut caller = Raw::open(gateway.address("in")).await;
        caller.say(said).await;
        let frame = loop {
            let frame = caller.next().await.unwrap_or_else(|| panic!("{what}: closed"));
            if [RST_STREAM, HEADERS].contains(&frame.kind) {
                break frame;
            }
        };
        let refused = match frame.kind {
            RST_STREAM => frame.code() == PROTOCOL_ERROR,
            _ => frame.status() == 400,
        };
        assert!(refused, "{what}: {frame:?}");
        caller.say(get(3)).await;
        assert_eq!(caller.status().await, 200, "{what}");
    }
    let lines = gateway.log(2 * all).await;
    let good = lines.iter().filter(|line| line["class"] == "ok").count();
    assert_eq!(good, all, "{lines:#?}");
    // No function took a body for whole.
    assert!(function.seen().iter().all(|seen| seen.method == "GET"), "{:#?}", function.seen());
}

#[tokio::test]
async fn cookies_in_crumbs_are_one_again() {
    let (gateway, function) = in_front(origin().start().await).await;
    let mut caller = Raw::open(gateway.address("in")).await;
    let head = asks("GET", "/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]);
    caller.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
    assert_eq!(caller.status().await, 200);
    assert_eq!(function.last().fields.all("cookie"), ["a=1; b=2; c=3; d=4"]);
}

#[tokio::test]
async fn trailers_reach_nobody_as_fields() {
    let (gateway, function) = in_front(origin().start().await).await;
    let mut caller = Raw::open(gateway.address("in")).await;
    let trailers = block(&[("x-forwarded-for", "203.0.113.1"), ("authorization", "me")]);
    caller
        .say(
            [post(1, &[]), frame(DATA, 0, 1, b"body"), frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers)].concat(),
        )
        .await;
    assert_eq!(caller.status().await, 200);
    let seen = function.last();
    assert_eq!(String::from_utf8_lossy(&seen.body), "body");
    assert!(!seen.fields.has("authorization"), "{:?}", seen.fields);
    // Such that would say where a request goes are none (RFC 9113 §8.1).
    let mut caller = Raw::open(gateway.address("in")).await;
    let trailers = block(&[(":path", "/admin"), (":authority", "other.test")]);
    let said = [post(1, &[]), frame(DATA, 0, 1, b"body"), frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers)];
    caller.say(said.concat()).await;
    assert_eq!(caller.status().await, 200);
    let seen = function.last();
    assert_eq!((&*seen.target, seen.header("x-forwarded-host")), ("/", Some("gate.test")));
    gateway.log(2).await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_connection() {
    let (gateway, _function) = in_front(origin().start().await).await;
    let too_long = frame(DATA, 0, 1, &[0; 16_385]);
    for (what, said, codes) in [
        ("a frame too long", [post(1, &[]), too_long].concat(), vec![FRAME_SIZE_ERROR]),
        ("HEADERS on no stream", frame(HEADERS, END_HEADERS, 0, &asks("GET", "/", &[])), vec![PROTOCOL_ERROR]),
        ("HEADERS on a stream of the server's", get(2), vec![PROTOCOL_ERROR]),
        ("a stream that goes back", [get(5), get(3)].concat(), vec![PROTOCOL_ERROR, 5]),
        ("DATA on no stream", frame(DATA, 0, 0, b"x"), vec![PROTOCOL_ERROR]),
        ("DATA of nothing", frame(DATA, 0, 7, b"x"), vec![PROTOCOL_ERROR]),
        ("RST_STREAM of nothing", reset(7), vec![PROTOCOL_ERROR]),
        ("WINDOW_UPDATE of nothing more", window(0, 0), vec![PROTOCOL_ERROR]),
        ("a window too large", window(0, 0x7fff_ffff), vec![3]),
        ("a PING too short", frame(PING, 0, 0, b"short"), vec![FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ("a PING on a stream", frame(PING, 0, 1, &[0; 8]), vec![PROTOCOL_ERROR]),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, b""), vec![PROTOCOL_ERROR]),
        ("SETTINGS cut", frame(SETTINGS, 0, 0, b"cut"), vec![FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ("a window as large as none", frame(SETTINGS, 0, 0, &setting(4, 0x8000_0000)), vec![3, PROTOCOL_ERROR]),
        ("frames too small", frame(SETTINGS, 0, 0, &setting(5, 100)), vec![PROTOCOL_ERROR]),
        ("PUSH_PROMISE of a caller", frame(5, 4, 1, &[0, 0, 0, 2, 0x82]), vec![PROTOCOL_ERROR]),
        ("CONTINUATION of nothing", frame(9, 4, 1, b""), vec![PROTOCOL_ERROR]),
        (
            "another frame within a head",
            [frame(HEADERS, 0, 1, &[0x82]), frame(PING, 0, 0, &[0; 8])].concat(),
            vec![PROTOCOL_ERROR],
        ),
        (
            "fields that can't be unpacked",
            frame(HEADERS, 5, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            vec![COMPRESSION_ERROR, PROTOCOL_ERROR],
        ),
        (
            "padding longer than its frame",
            [post(1, &[]), frame(DATA, 8, 1, &[200, 1, 2])].concat(),
            vec![PROTOCOL_ERROR],
        ),
    ] {
        let mut caller = Raw::open(gateway.address("in")).await;
        caller.say(said).await;
        let code = caller.goaway().await;
        assert!(codes.contains(&code), "{what}: {code}");
    }
    gateway.counts("gatepost_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn too_many_malformed_requests_end_the_connection() {
    let (gateway, function) = in_front(origin().start().await).await;
    let mut caller = Raw::open(gateway.address("in")).await;
    let bad = asks("GET", "/", &[("host", "other.test")]);
    let all: Vec<_> = (0..40).flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &bad)).collect();
    caller.say(all).await;
    assert_eq!(caller.goaway().await, crate::harness::frames::ENHANCE_YOUR_CALM);
    let lines = gateway.log(40).await;
    assert!(lines.iter().all(|line| line["reason"] == "bad_request"), "{lines:#?}");
    assert_eq!(function.requests(), 0);
}

#[tokio::test]
async fn grpc_callers_are_told_in_their_own_way() {
    let function = origin().reply(Reply::text("ok")).start().await;
    let gateway = gateway(format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        [function.f]
        versions = {{ v1 = "{}" }}
        timeouts = {{ first_byte = "1s" }}
        [function.gone]
        versions = {{ v1 = "http://{}" }}
        [route.f]
        path = "/pkg.Service/*"
        function = "f"
        [route.one]
        path = "/pkg.Service/One"
        function = "f"
        limits = [{{ rate = "1/min", burst = 1 }}]
        [route.gone]
        path = "/pkg.Gone/*"
        function = "gone"
        "#,
        function.url(),
        origin::dead_address(),
    ))
    .start()
    .await;
    let h2 = H2::plain(gateway.address("in")).await;
    let call =
        |path: &str| a_post(path).header("content-type", "application/grpc+proto").header("te", "trailers").body("x");
    assert_eq!(h2.send(call("/pkg.Service/One")).await.text(), "ok");
    for (path, code, reason) in [
        ("/pkg.Service/One", "8", "rate_limited"),
        ("/pkg.Gone/Call", "14", "upstream_unreachable"),
        ("/other/Call", "12", "no_route"),
    ] {
        let answer = h2.send(call(path)).await;
        // The trailers are the header: such an answer has one HEADERS frame and no body.
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some(code)), "{path}: {answer:?}");
        assert_eq!(answer.reason(), reason);
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert!(answer.body.is_empty());
    }
    // Who hangs.
    function.now_answers(|_| Reply::raw("").cut(0, crate::harness::reply::Cut::Hang));
    let answer = h2.send(call("/pkg.Service/Two")).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("4")), "{answer:?}");
    assert_eq!(h2.send(request("GET", "/other")).await.status, 404);
}
