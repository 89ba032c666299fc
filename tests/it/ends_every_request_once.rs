//! However a request ends, it has one line in the log and leaves nothing behind; and callers get what HTTP promises them.

use std::time::{Duration, Instant};

use crate::harness::{
    Connection, Gateway, Origin, PATIENCE, Reply, eventually,
    frames::{self, INTERNAL_ERROR, RST_STREAM, Raw, setting, window},
    gate, gateway, get,
    h2::H2,
    origin, post,
    reply::{Cut, Gate},
    request, when,
};

async fn in_front(function: Origin, more: &str) -> (Gateway, Origin) {
    let gateway = gateway(format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        timeouts = {{ body = "1s" }}
        [function.f]
        {more}
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

/// Answers `/waits` when the door opens, and all else with more than anybody reads.
async fn waits_or_floods(door: &Gate) -> Origin {
    let door = door.clone();
    let function = origin().answers(move |seen| match seen.target.as_str() {
        "/waits" => Reply::text("late").after(&door),
        _ => Reply::made(1 << 28),
    });
    function.start().await
}

// One line each.

#[tokio::test]
async fn callers_that_go_away_leave_one_line_each_and_no_gauge() {
    let door = gate();
    let (gateway, function) = in_front(waits_or_floods(&door).await, "").await;
    // In the middle of its body, while it waits, and in the middle of its answer.
    let mut sends = gateway.connect().await;
    sends.write("POST /sends HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let mut waits = gateway.connect().await;
    waits.write("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut reads = gateway.connect().await;
    reads.begin("/reads").await;
    eventually("two reached the function", async || when(function.requests() == 2)).await;
    drop((sends, waits, reads));
    gateway.turn().await;
    door.open();
    let lines = gateway.all_told(3).await;
    for line in &lines {
        // The one that waits has closed before its answer: that it got it nobody can tell.
        let expected = if line["path"] == "/waits" { ["ok", "aborted"] } else { ["aborted"; 2] };
        assert!(expected.contains(&line["class"].as_str().unwrap()), "{line}");
    }
}

#[tokio::test]
async fn h2_streams_that_are_reset_leave_one_line_each_and_no_gauge() {
    let door = gate();
    let (gateway, function) = in_front(waits_or_floods(&door).await, "").await;
    let h2 = H2::plain(gateway.address("in")).await;
    let (sends, sent) = h2.start(post("/sends"));
    let sent = tokio::spawn(sent);
    assert!(sends.data("half").await);
    let (feed, waits) = h2.start(get("/waits"));
    drop(feed);
    let waits = tokio::spawn(waits);
    let (feed, reads) = h2.start(get("/reads"));
    drop(feed);
    let reads = reads.await.unwrap();
    eventually("two reached the function", async || when(function.requests() == 2)).await;
    sent.abort();
    waits.abort();
    drop(reads);
    let lines = gateway.all_told(3).await;
    assert!(lines.iter().all(|line| line["class"] == "aborted"), "{lines:#?}");
    // The connection serves on.
    drop(sends);
    function.now_answers(|_| Reply::text("fine"));
    assert_eq!(h2.send("/").await.text(), "fine");
}

/// RFC 9110 §15.2: they are for the caller, and its body may wait for one (§10.1.1).
#[tokio::test]
async fn interim_answers_reach_h2_callers() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (gateway, _function) = in_front(origin().reply(Reply::raw(hints)).start().await, "").await;
    let mut caller = Raw::open(gateway.address("in")).await;
    caller.say(frames::get(1)).await;
    assert_eq!(caller.status().await, 103);
    assert_eq!(caller.status().await, 200);
    let lines = gateway.all_told(1).await;
    assert_eq!((&lines[0]["status"], &lines[0]["class"]), (&200.into(), &"ok".into()), "{}", lines[0]);
}

/// RFC 9113 §8.1: what came must not be taken for the whole.
#[tokio::test]
async fn an_h2_answer_that_breaks_off_is_reset_with_a_code() {
    for (cut, class) in [(Cut::Reset, "function"), (Cut::Hang, "timeout")] {
        let function = origin().reply(Reply::made(100_000).cut(50_000, cut)).start().await;
        let (gateway, _function) = in_front(function, "timeouts = { idle = \"1s\" }").await;
        let mut caller = Raw::with(gateway.address("in"), &setting(4, 1 << 20)).await;
        caller.say([window(0, 1 << 20), frames::get(1)].concat()).await;
        // Its head may be lost with it.
        assert_eq!(caller.hear(RST_STREAM).await.code(), INTERNAL_ERROR, "{class}");
        let lines = gateway.all_told(1).await;
        assert_eq!((&lines[0]["class"], &lines[0]["status"]), (&class.into(), &200.into()), "{}", lines[0]);
    }
}

#[tokio::test]
async fn an_h2_connection_that_is_cut_ends_all_its_requests() {
    let door = gate();
    let function = origin().reply(Reply::text("late").after(&door)).start().await;
    let (gateway, function) = in_front(function, "").await;
    let h2 = H2::plain(gateway.address("in")).await;
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let (feed, coming) = h2.start(get("/"));
            drop(feed);
            tokio::spawn(coming)
        })
        .collect();
    eventually("all reached the function", async || when(function.requests() == 5)).await;
    drop(h2);
    for one in waiting {
        one.abort();
    }
    let lines = gateway.all_told(5).await;
    assert!(lines.iter().all(|line| line["class"] == "aborted"), "{lines:#?}");
}

#[tokio::test]
async fn requests_that_h2_refuses_are_told_as_well() {
    let (gateway, function) = in_front(origin().start().await, "").await;
    let h2 = H2::plain(gateway.address("in")).await;
    for method in ["TRACE", "CONNECT"] {
        let answer = h2.send(request(method, "/")).await;
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        assert!(answer.fields.has("allow"), "{answer:?}");
    }
    let lines = gateway.all_told(2).await;
    assert!(lines.iter().all(|line| line["reason"] == "method_not_allowed"), "{lines:#?}");
    assert_eq!(function.requests(), 0);
    assert_eq!(h2.send("/").await.status, 200);
}

#[tokio::test]
async fn requests_under_way_when_the_drain_is_over_have_their_line() {
    let (reply, feed) = Reply::fed();
    let function = origin().reply(reply).start().await;
    let gateway = gateway(format!(
        "[server]\ndrain = \"1s\"\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    ));
    let mut gateway = gateway.start().await;
    let mut connection = gateway.connect().await;
    connection.begin("/events").await;
    feed.send("one");
    assert_eq!(connection.piece().await.unwrap().unwrap(), "one");
    gateway.terminate();
    gateway.exit().await;
    let line = gateway.log_line().await;
    assert_eq!((&line["path"], &line["class"]), (&"/events".into(), &"aborted".into()), "{line}");
}

// Answers before the request is done.

#[tokio::test]
async fn an_early_answer_to_a_caller_that_waits_for_100_is_an_answer() {
    let function = origin().early().reply(Reply::text("no").status(417)).start().await;
    let (gateway, _function) = in_front(function, "").await;
    let mut connection = gateway.connect().await;
    connection.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (417, "no"));
    // The caller keeps its body to itself and goes: nothing was broken off.
    drop(connection);
    let lines = gateway.all_told(1).await;
    assert_eq!((&lines[0]["status"], &lines[0]["class"]), (&417.into(), &"client_error".into()), "{}", lines[0]);
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let (gateway, function) = in_front(origin().start().await, "").await;
    gateway.edit(|text| text.replace("path = \"/*\"", "path = \"/elsewhere\"")).await;
    for _ in 0..10 {
        let mut connection = gateway.connect().await;
        let body = vec![b'x'; 300_000];
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = connection.wire.write(head.as_bytes()).await;
        let _ = connection.wire.write(&body).await;
        assert_eq!(connection.answer().await.status, 404);
    }
    assert_eq!(function.requests(), 0);
}

#[tokio::test]
async fn bodies_that_are_none_leave_the_connection_in_step() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/204" => Reply::text("").status(204),
            "/304" => Reply::text("").status(304).header("Content-Length", "700"),
            "/100" => Reply::raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n100"),
            target => Reply::text(target.to_owned()),
        })
        .start()
        .await;
    let (gateway, _function) = in_front(function, "").await;
    let mut connection = gateway.connect().await;
    for _ in 0..3 {
        assert_eq!(connection.send("/204").await.status, 204);
        assert_eq!(connection.send("/304").await.status, 304);
        assert_eq!(connection.send("/100").await.text(), "100");
        let answer = connection.send(request("HEAD", "/head")).await;
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("5")));
        assert_eq!(connection.send("/after").await.text(), "/after");
        assert_eq!(connection.send(request("HEAD", "/204")).await.status, 204);
    }
    let h2 = H2::plain(gateway.address("in")).await;
    assert_eq!(h2.send("/204").await.status, 204);
    assert_eq!(h2.send("/304").await.status, 304);
    assert_eq!(h2.send("/100").await.text(), "100");
    assert_eq!(h2.send(request("HEAD", "/head")).await.text(), "");
}

#[tokio::test]
async fn an_http_1_0_caller_hears_no_interim_answer() {
    let function = origin()
        .reply(Reply::raw(
            "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ))
        .start()
        .await;
    let (gateway, _function) = in_front(function, "").await;
    let said = gateway.raw("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

// Tunnels.

const ASKS: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A masked text frame `hi`, whose echo is `[0x81, 2, 'h', 'i']`.
const HI: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];

#[tokio::test]
async fn what_a_caller_sends_ahead_of_the_101_arrives_behind_it() {
    let door = gate();
    let (gateway, function) = in_front(origin().reply(Reply::websocket().after(&door)).start().await, "").await;
    let mut connection = gateway.connect().await;
    connection.write(ASKS).await;
    connection.write(HI).await;
    eventually("the function has the request", async || when(function.requests() == 1)).await;
    connection.write(HI).await;
    gateway.turn().await;
    door.open();
    assert_eq!(connection.answer_head("GET").await.unwrap().status(), 101);
    let mut heard = Vec::new();
    while heard.len() < 8 {
        connection.wire.framing = crate::harness::wire::Framing::UntilClose;
        heard.extend(connection.piece().await.unwrap().expect("the tunnel is open"));
    }
    assert_eq!(heard, [[0x81, 2, b'h', b'i'], [0x81, 2, b'h', b'i']].concat());
    drop(connection);
    let lines = gateway.all_told(1).await;
    assert_eq!(lines[0]["status"], 101);
}

#[tokio::test]
async fn a_tunnel_ends_when_either_side_closes() {
    let (gateway, function) = in_front(origin().reply(Reply::websocket()).start().await, "").await;
    let mut caller_goes = gateway.connect().await;
    caller_goes.write(ASKS).await;
    assert_eq!(caller_goes.answer_head("GET").await.unwrap().status(), 101);
    drop(caller_goes);
    eventually("the function's side is closed", async || when(function.open() == 0)).await;

    let mut function_goes = gateway.connect().await;
    function_goes.write(ASKS).await;
    assert_eq!(function_goes.answer_head("GET").await.unwrap().status(), 101);
    // A close frame: the function answers it and closes.
    function_goes.write([0x88, 0x80, 0, 0, 0, 0]).await;
    let (heard, closed) = function_goes.wire.rest(PATIENCE).await;
    assert_eq!((heard.as_slice(), closed), ([0x88, 0].as_slice(), true));
    let lines = gateway.all_told(2).await;
    assert!(lines.iter().all(|line| line["class"] == "ok"), "{lines:#?}");
}

#[tokio::test]
async fn a_refused_upgrade_leaves_an_ordinary_connection() {
    let function = origin().answers(|seen| Reply::text(seen.target.clone())).start().await;
    let (gateway, function) = in_front(function, "").await;
    let mut connection = gateway.connect().await;
    for n in 0..3 {
        connection.write(ASKS).await;
        assert_eq!(connection.answer().await.text(), "/ws", "{n}");
        assert_eq!(connection.send(post("/next").body("x")).await.text(), "/next");
    }
    assert_eq!(function.seen()[0].header("upgrade"), Some("websocket"));
    // Without the connection option it is not asked for (RFC 9110 §7.8).
    connection.write(ASKS.replace("Connection: Upgrade\r\n", "")).await;
    assert_eq!(connection.answer().await.status, 200);
    assert_eq!(function.last().header("upgrade"), None);
}

#[tokio::test]
async fn a_101_of_another_version_is_a_502() {
    let odd = "HTTP/1.0 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes";
    let (gateway, _function) = in_front(origin().reply(Reply::raw(odd)).start().await, "").await;
    let mut other = gateway.connect().await;
    let mut connection = gateway.connect().await;
    connection.write(ASKS).await;
    connection.answer().await.is_problem(502, "upstream_reset");
    gateway.all_told(1).await;
    other.write(ASKS).await;
    assert_eq!(other.answer().await.status, 502);
}

// Many requests on one connection.

#[tokio::test]
async fn pipelined_requests_are_all_answered_in_order() {
    let function = origin()
        .answers(|seen| Reply::text(format!("{} {}", seen.target, String::from_utf8_lossy(&seen.body))))
        .start()
        .await;
    let (gateway, _function) = in_front(function, "").await;
    let mut connection = gateway.connect().await;
    let mut bytes = String::new();
    for n in 0..50 {
        match n % 3 {
            0 => bytes += &format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => bytes += &format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"),
            _ => {
                bytes += &format!(
                    "POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
                );
            }
        }
    }
    connection.write(bytes).await;
    for n in 0..50 {
        let body = if n % 3 == 0 { "" } else { "body" };
        assert_eq!(connection.answer().await.text(), format!("/{n} {body}"));
    }
    gateway.all_told(50).await;
}

#[tokio::test]
async fn a_caller_that_closes_its_side_gets_all_answers_it_asked_for() {
    let door = gate();
    let function = origin()
        .answers({
            let door = door.clone();
            move |seen| Reply::text(seen.target.clone()).after(&door)
        })
        .start()
        .await;
    let (gateway, function) = in_front(function, "").await;
    let mut connection = gateway.connect().await;
    connection.write("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    connection.wire.half_close().await.unwrap();
    eventually("the first is under way", async || when(function.requests() == 1)).await;
    gateway.turn().await;
    door.open();
    assert_eq!(connection.answer().await.text(), "/1");
    match connection.try_answer("GET").await {
        Ok(answer) => assert_eq!(answer.text(), "/2"),
        // RFC 9112 §9.3.2: a connection may close before all pipelined requests are answered; then they were not run.
        Err(_) => assert_eq!(function.requests(), 1),
    }
    assert!(connection.closes_within(PATIENCE).await);
}

// Pace.

#[tokio::test]
async fn pieces_arrive_when_they_are_sent_whatever_the_framing() {
    // With a length, until the connection closes, and over h2.
    for (framing, h2) in [("Content-Length: 10\r\n", false), ("", false), ("chunked", false), ("chunked", true)] {
        let door = gate();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let chunked = framing == "chunked";
        tokio::spawn({
            let door = door.clone();
            async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut function = Connection::over(stream);
                function.wire.head().await.unwrap();
                let framing = if chunked { "Transfer-Encoding: chunked\r\n" } else { framing };
                function.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n")).await;
                function.write(if chunked { "5\r\nfirst\r\n" } else { "first" }).await;
                door.passed().await;
                function.write(if chunked { "5\r\nlater\r\n0\r\n\r\n" } else { "later" }).await;
            }
        });
        let gateway = gateway(format!(
            "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"http://{address}\" }}\n[route.f]\nfunction = \"f\"\n",
        ))
        .start()
        .await;
        if h2 {
            let h2 = H2::plain(gateway.address("in")).await;
            let (feed, coming) = h2.start(get("/"));
            drop(feed);
            let mut coming = tokio::time::timeout(PATIENCE, coming).await.unwrap().unwrap();
            let first =
                tokio::time::timeout(PATIENCE, coming.piece()).await.expect("it is held back").unwrap().unwrap();
            assert_eq!(first, "first");
            door.open();
            assert_eq!(coming.whole().await.unwrap().text(), "later");
            continue;
        }
        let mut connection = gateway.connect().await;
        tokio::time::timeout(PATIENCE, connection.begin("/")).await.expect("the head is held back");
        let piece = tokio::time::timeout(PATIENCE, connection.piece()).await.expect("a piece is held back");
        assert_eq!(piece.unwrap().unwrap(), "first", "{framing:?}");
        door.open();
        assert_eq!(connection.piece().await.unwrap().unwrap(), "later", "{framing:?}");
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_a_408() {
    let (gateway, function) = in_front(origin().start().await, "").await;
    for head in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let said = gateway.raw(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}")).await;
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("request_timeout"), "{said}");
    }
    let lines = gateway.all_told(2).await;
    assert!(lines.iter().all(|line| line["reason"] == "request_timeout"), "{lines:#?}");
    assert_eq!(function.requests(), 0);
}

#[tokio::test]
async fn a_caller_that_stops_reading_is_cut_off() {
    let (gateway, function) = in_front(origin().reply(Reply::made(1 << 30)).start().await, "").await;
    let mut connection = gateway.connect().await;
    connection.begin("/").await;
    let start = Instant::now();
    eventually("the function is let go", async || when(function.open() == 0)).await;
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
    let lines = gateway.all_told(1).await;
    assert_eq!(lines[0]["class"], "aborted", "{}", lines[0]);
}

#[tokio::test]
async fn an_h2_caller_that_stops_reading_is_cut_off() {
    let (gateway, function) = in_front(origin().reply(Reply::made(1 << 30)).start().await, "").await;
    let h2 = H2::plain(gateway.address("in")).await;
    let (feed, coming) = h2.start(get("/"));
    drop(feed);
    let coming = coming.await.unwrap();
    eventually("the function is let go", async || when(function.open() == 0)).await;
    let lines = gateway.all_told(1).await;
    assert_eq!(lines[0]["class"], "aborted", "{}", lines[0]);
    drop(coming);
}

/// RFC 9112 §9.6: such a caller still waits for its answer, but not for ever.
#[tokio::test]
async fn a_function_that_hangs_keeps_no_caller_that_closed_its_side() {
    let function = origin().reply(Reply::raw("").cut(0, Cut::Hang)).start().await;
    let (gateway, _function) = in_front(function, "timeouts = { first_byte = \"1s\" }").await;
    let mut connection = gateway.connect().await;
    connection.write(get("/").bytes()).await;
    connection.wire.half_close().await.unwrap();
    connection.until_closed().await;
    let lines = gateway.all_told(1).await;
    assert_eq!((&lines[0]["class"], &lines[0]["path"]), (&"timeout".into(), &"/".into()), "{}", lines[0]);
}

#[tokio::test]
async fn a_function_that_takes_no_more_of_a_body_is_let_go() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", deaf.local_addr().unwrap());
    for h2 in [false, true] {
        let gateway = gateway(format!(
            "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"{url}\" }}\n\
             timeouts = {{ write = \"1s\" }}\n[route.f]\nfunction = \"f\"\n"
        ))
        .start()
        .await;
        let start = Instant::now();
        let request = post("/").body(vec![0; 48 << 20]);
        if h2 {
            let _ = H2::plain(gateway.address("in")).await.try_send(request).await;
        } else {
            let _ = gateway.connect().await.try_send(request).await;
        }
        assert!(start.elapsed() < Duration::from_secs(6), "h2 {h2}: {:?}", start.elapsed());
        let lines = gateway.all_told(1).await;
        assert_eq!(lines[0]["class"], "timeout", "h2 {h2}: {}", lines[0]);
    }
}

/// pingora keeps an h2 connection among those in use until a request of it comes to its own end: one that was dropped never does.
#[tokio::test]
async fn a_dropped_request_leaves_no_connection_behind() {
    let function = origin().h2c().reply(Reply::text("too late").after(&gate())).start().await;
    let more = "http = \"2\"\npool = { idle = \"1s\" }\ntimeouts = { first_byte = \"1s\" }";
    let (gateway, function) = in_front(function, more).await;
    let mut caller = gateway.connect().await;
    caller.write(get("/").bytes()).await;
    // pingora does not look at a caller that has closed its side: this request has to be dropped.
    caller.wire.half_close().await.unwrap();
    caller.until_closed().await;
    let lines = gateway.all_told(1).await;
    assert_eq!(lines[0]["class"], "timeout", "{}", lines[0]);
    assert_eq!(function.connections(), 1);
    eventually("the connection is closed", async || when(function.open() == 0)).await;
    assert_eq!((function.connections(), function.requests()), (1, 1), "nothing else was sent");
}

// Stale connections.

#[tokio::test]
async fn several_stale_connections_in_a_row_are_nobodys_502() {
    let door = gate();
    let function = origin()
        .answers({
            let door = door.clone();
            move |seen| match seen.nth {
                0 => Reply::text("fresh").after(&door),
                _ => Reply::vanish(),
            }
        })
        .start()
        .await;
    let (gateway, function) = in_front(function, "").await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut connection = gateway.connect().await;
        callers.spawn(async move { connection.send("/").await.text() });
    }
    eventually("eight connections", async || when(function.connections() == 8)).await;
    door.open();
    assert_eq!(callers.join_all().await, ["fresh"; 8]);
    // All eight are pooled, and each dies on its next request.
    for n in 0..8 {
        assert_eq!(gateway.get("/").await.text(), "fresh", "{n}");
    }
    let lines = gateway.log(16).await;
    assert!(lines.iter().all(|line| line["status"] == 200), "{lines:#?}");
}

// Time.

/// How long a request took that the function `reply` spoils, and its line in the log.
async fn spoiled(reply: Reply, timeouts: &str, h2: bool) -> (Duration, u16, serde_json::Value) {
    let function = origin().reply(reply).start().await;
    let (gateway, _function) = in_front(function, &format!("timeouts = {{ {timeouts} }}")).await;
    let start = Instant::now();
    let status = if h2 {
        let h2 = H2::plain(gateway.address("in")).await;
        h2.try_send(get("/")).await.map_or(0, |answer| answer.status)
    } else {
        gateway.connect().await.try_send(get("/")).await.map_or(0, |answer| answer.status)
    };
    let spent = start.elapsed();
    let line = gateway.all_told(1).await.remove(0);
    (spent, status, line)
}

#[tokio::test]
async fn each_time_of_a_function_acts_alone() {
    let silent = || Reply::raw("").cut(0, Cut::Hang);
    let stuck = || Reply::made(100_000).cut(50_000, Cut::Hang);
    for h2 in [false, true] {
        // Nothing comes.
        for timeouts in ["first_byte = \"1s\", idle = \"30s\"", "total = \"1s\""] {
            let (spent, status, line) = spoiled(silent(), timeouts, h2).await;
            assert_eq!((status, &line["class"]), (504, &"timeout".into()), "{timeouts}, h2 {h2}: {line}");
            assert_eq!((&line["reason"], &line["path"]), (&"upstream_timeout".into(), &"/".into()), "{line}");
            assert!(
                spent > Duration::from_millis(900) && spent < Duration::from_secs(6),
                "{timeouts}, h2 {h2}: {spent:?}"
            );
        }
        // It stops in the middle.
        for timeouts in ["idle = \"1s\"", "total = \"1s\""] {
            let (spent, status, line) = spoiled(stuck(), timeouts, h2).await;
            assert_eq!(
                (status, &line["status"], &line["class"]),
                (0, &200.into(), &"timeout".into()),
                "{timeouts}, h2 {h2}: {line}"
            );
            assert!(
                spent > Duration::from_millis(900) && spent < Duration::from_secs(6),
                "{timeouts}, h2 {h2}: {spent:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_half_closed_caller_gets_its_answer_as_it_comes_and_504_where_none_does() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/slow" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").cut(44, Cut::Hang),
            _ => Reply::raw("").cut(0, Cut::Hang),
        })
        .start()
        .await;
    let (gateway, _function) = in_front(function, "timeouts = { first_byte = \"3s\", idle = \"3s\" }").await;
    let half_closed = async |target: &str| {
        let mut caller = gateway.connect().await;
        caller.write(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        caller.wire.half_close().await.unwrap();
        caller
    };
    let mut slow = half_closed("/slow").await;
    assert_eq!(slow.answer_head("GET").await.unwrap().status(), 200);
    assert_eq!(slow.piece().await.unwrap().unwrap(), "hello");

    let mut waits = half_closed("/never").await;
    let said = waits.until_closed().await;
    assert!(said.starts_with("HTTP/1.1 504 ") && said.contains("upstream_timeout"), "{said}");
    let lines = gateway.all_told(2).await;
    let line = lines.iter().find(|line| line["path"] == "/never").unwrap();
    assert_eq!((&line["status"], &line["reason"]), (&504.into(), &"upstream_timeout".into()), "{line}");
    let (_, body) = said.split_once("\r\n\r\n").unwrap();
    assert_eq!(line["bytes_out"], body.len(), "as of every answer");
    assert!(said.contains(line["request_id"].as_str().unwrap()), "{said} {line}");
    // The other's answer had begun: it broke off, with nothing behind it.
    assert_eq!(slow.until_closed().await, "");
}
