//! From a version's URL to its answer: names, TLS, kept connections, and every way in which a function can fail.

use std::time::Duration;

use crate::harness::{
    Answer, Gateway, Origin, PATIENCE, Reply, authority, dns::Dns, eventually, gate, gateway, get, origin,
    origin::dead_address, post, reply::Cut, when,
};

/// A gatepost in front of one function at `url`, with more keys of the function and of the server.
async fn in_front_of(url: &str, function: &str, server: &str) -> Gateway {
    gateway(format!(
        r#"
        [server]
        {server}
        [function.f]
        {function}
        [function.f.versions]
        v1 = "{url}"
        [route.f]
        function = "f"
        "#
    ))
    .workers(1)
    .start()
    .await
}

async fn plainly(function: &Origin) -> Gateway {
    in_front_of(&function.url(), "", "").await
}

const HASTY: &str = "timeouts = { connect = \"1s\", first_byte = \"1s\", idle = \"1s\" }";

// What the function sees.

#[tokio::test]
async fn the_function_sees_its_own_host_unless_told_otherwise() {
    let function = origin().echo().start().await;
    let own = function.address.to_string();
    let gateway = plainly(&function).await;
    gateway.send(get("/").host("api.test")).await;
    assert_eq!(function.last().header("host"), Some(own.as_str()));
    assert_eq!(function.last().header("x-forwarded-host"), Some("api.test"));
    gateway.edit(|text| text.replace("[function.f]", "[function.f]\npreserve_host = true")).await;
    gateway.send(get("/").host("api.test")).await;
    assert_eq!(function.last().header("host"), Some("api.test"));
}

#[tokio::test]
async fn a_version_may_name_its_host_and_a_base_path() {
    let function = origin().start().await;
    let gateway = gateway(format!(
        "[function.f]\nversions = {{ v1 = {{ url = \"{}/base\", host = \"named.test\" }} }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    ))
    .start()
    .await;
    gateway.get("/x?y").await;
    assert_eq!(function.last().header("host"), Some("named.test"));
    assert_eq!(function.last().target, "/base/x?y");
    gateway.get("/").await;
    assert_eq!(function.last().target, "/base/");
}

#[tokio::test]
async fn bodies_and_fields_pass_both_ways_as_they_are() {
    let function = origin()
        .reply(
            Reply::text("answer")
                .status(418)
                .header("X-Two", "1")
                .header("X-Two", "2")
                .header("Set-Cookie", "a=1")
                .header("Set-Cookie", "b=2")
                .header("Connection", "X-Hop")
                .header("X-Hop", "1"),
        )
        .start()
        .await;
    let gateway = plainly(&function).await;
    let body: Vec<u8> = (0..=255).collect();
    let answer = gateway.send(post("/").header("X-Odd", "a,  b").body(body.clone())).await;
    assert_eq!(function.last().body, body);
    assert_eq!(function.last().header("x-odd"), Some("a,  b"));
    assert_eq!((answer.status, answer.text().as_str()), (418, "answer"));
    assert_eq!(answer.fields.all("x-two"), ["1", "2"]);
    assert_eq!(answer.fields.all("set-cookie"), ["a=1", "b=2"]);
    assert!(!answer.fields.has("x-hop"), "{answer:?}");
    assert_eq!(answer.reason(), "");
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/204" => Reply::text("").status(204),
            "/304" => Reply::text("").status(304).header("ETag", "\"x\""),
            _ => Reply::text("twelve bytes"),
        })
        .start()
        .await;
    let gateway = plainly(&function).await;
    let mut connection = gateway.connect().await;
    let answer = connection.send("/204").await;
    assert_eq!(answer.status, 204);
    assert!(!answer.fields.has("transfer-encoding") && !answer.fields.has("content-length"));
    let answer = connection.send("/304").await;
    assert_eq!((answer.status, answer.header("etag")), (304, Some("\"x\"")));
    let answer = connection.send(crate::harness::request("HEAD", "/")).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("12")));
    assert_eq!(connection.send("/").await.text(), "twelve bytes");
    assert_eq!(function.requests(), 4);
}

#[tokio::test]
async fn early_hints_and_an_expected_continue_do_no_harm() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/hints" => Reply::raw(
                "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ),
            _ => Reply::text("got it"),
        })
        .start()
        .await;
    let gateway = plainly(&function).await;
    assert_eq!(gateway.get("/hints").await.text(), "ok");
    let mut connection = gateway.connect().await;
    connection.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let interim = connection.wire.head().await.unwrap().unwrap();
    assert_eq!(interim.status(), 100);
    connection.write("hello").await;
    assert_eq!(connection.answer().await.text(), "got it");
    assert_eq!(function.last().body, b"hello");
}

// TLS and h2.

#[tokio::test]
async fn a_function_is_verified_against_the_ca_it_was_given() {
    let authority = authority();
    let leaf = authority.leaf(&["localhost"]);
    let function = origin().tls(&leaf).start().await;
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let gateway = in_front_of(&function.url_as("localhost"), &ca, "").await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(function.last().sni.as_deref(), Some("localhost"));
    let host = format!("localhost:{}", function.port());
    assert_eq!(function.last().header("host"), Some(host.as_str()));

    // Without it, and against the wrong one, the function isn't talked to.
    let strangers = crate::harness::authority();
    let other = format!("ca = \"{}\"", strangers.ca().display());
    for ca in ["", &other] {
        let gateway = in_front_of(&function.url_as("localhost"), ca, "").await;
        gateway.get("/").await.is_problem(502, "upstream_unreachable");
    }
    assert_eq!(function.requests(), 1);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_taken() {
    let authority = authority();
    let leaf = authority.leaf(&["other.test"]);
    let function = origin().tls(&leaf).start().await;
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let gateway = in_front_of(&function.url_as("localhost"), &ca, "").await;
    gateway.get("/").await.is_problem(502, "upstream_unreachable");
    let line = gateway.log_line().await;
    assert_eq!(line["class"], "unreachable");
    assert_eq!(function.requests(), 0);
}

#[tokio::test]
async fn an_address_with_a_certificate_of_its_own_is_a_function_too() {
    let authority = authority();
    let leaf = authority.leaf(&["127.0.0.1"]);
    let function = origin().tls(&leaf).start().await;
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let gateway = in_front_of(&function.url(), &ca, "").await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn h2_is_spoken_where_agreed_or_told() {
    let authority = authority();
    let leaf = authority.leaf(&["localhost"]);
    let ca = format!("ca = \"{}\"", authority.ca().display());
    for (http, version) in [("auto", "HTTP/2.0"), ("2", "HTTP/2.0"), ("1.1", "HTTP/1.1")] {
        let function = origin().tls_h2(&leaf).start().await;
        let keys = format!("{ca}\nhttp = \"{http}\"");
        let gateway = in_front_of(&function.url_as("localhost"), &keys, "").await;
        let answer = gateway.send(post("/x?y").body("hello")).await;
        assert_eq!(answer.status, 200, "{http}: {answer:?}");
        let seen = function.last();
        assert_eq!((seen.version.as_str(), seen.body.as_slice()), (version, b"hello".as_slice()));
    }
    let function = origin().h2c().start().await;
    let gateway = in_front_of(&function.url(), "http = \"2\"", "").await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(function.last().version, "HTTP/2.0");
}

#[tokio::test]
async fn many_requests_share_one_h2_connection() {
    let authority = authority();
    let leaf = authority.leaf(&["localhost"]);
    let door = gate();
    let function = origin()
        .answers({
            let door = door.clone();
            move |seen| match seen.number {
                0 => Reply::text("first"),
                _ => Reply::text("ok").after(&door),
            }
        })
        .tls_h2(&leaf)
        .start()
        .await;
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let gateway = gateway(format!(
        "[function.f]\n{ca}\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        function.url_as("localhost")
    ))
    .workers(1)
    .start()
    .await;
    gateway.get("/").await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut connection = gateway.connect().await;
        callers.spawn(async move { connection.send("/").await.status });
    }
    eventually("all are under way at once", async || when(function.requests() == 11)).await;
    door.open();
    assert_eq!(callers.join_all().await, [200; 10]);
    assert_eq!(function.connections(), 1);
}

// Kept connections.

#[tokio::test]
async fn connections_are_kept_for_the_next_request() {
    let function = origin().start().await;
    let gateway =
        gateway(format!("[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n", function.url()))
            .workers(1)
            .start()
            .await;
    for _ in 0..20 {
        gateway.get("/").await;
    }
    assert_eq!((function.requests(), function.connections()), (20, 1));
}

#[tokio::test]
async fn connections_are_not_kept_longer_than_told() {
    let function = origin().start().await;
    let gateway = in_front_of(&function.url(), "pool = { idle = \"1s\" }", "").await;
    gateway.get("/").await;
    eventually("the idle connection is closed", async || when(function.open() == 0)).await;
    let never = in_front_of(&function.url(), "pool = { idle = \"0s\" }", "").await;
    never.get("/").await;
    eventually("no connection is kept", async || when(function.open() == 0)).await;
}

#[tokio::test]
async fn a_kept_connection_that_went_stale_is_nobodys_502() {
    // The nastiest kind: closed on the very arrival of the next request.
    let function = origin()
        .answers(|seen| match seen.nth {
            0 => Reply::text("fresh"),
            _ => Reply::vanish(),
        })
        .start()
        .await;
    let gateway = plainly(&function).await;
    let mut connection = gateway.connect().await;
    for _ in 0..10 {
        assert_eq!(connection.send("/").await.text(), "fresh");
    }
    // Closed while idle, a POST notices as well: not a byte of it was taken.
    function.now_answers(|_| Reply::text("fresh"));
    for _ in 0..5 {
        assert_eq!(connection.send(post("/").body("x")).await.text(), "fresh");
        function.close_idle().await;
    }
    let lines = gateway.log(15).await;
    assert!(lines.iter().all(|line| line["status"] == 200));
    assert!(lines[..10].iter().any(|line| line["attempts"] == 2), "{lines:?}");
}

#[tokio::test]
async fn a_request_that_may_have_run_is_not_sent_twice() {
    let function = origin()
        .answers(|seen| match seen.nth {
            0 => Reply::text("fresh"),
            _ => Reply::vanish(),
        })
        .start()
        .await;
    let gateway = plainly(&function).await;
    let mut connection = gateway.connect().await;
    assert_eq!(connection.send(post("/").body("1")).await.status, 200);
    let answer = connection.send(post("/").body("2")).await;
    let twos = function.seen().iter().filter(|seen| seen.body == b"2").count();
    assert_eq!(twos, 1, "the POST ran {twos} times, and was answered {}", answer.status);
    answer.is_problem(502, "upstream_reset");
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_poison_nobody() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/extra" => Reply::raw(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            ),
            _ => Reply::text("good"),
        })
        .start()
        .await;
    let gateway = plainly(&function).await;
    let mut connection = gateway.connect().await;
    for _ in 0..5 {
        assert_eq!(connection.send("/extra").await.text(), "ok");
        assert_eq!(connection.send("/").await.text(), "good");
    }
}

// Functions that fail.

/// The one answer that `reply` becomes, and the access log's line about it.
async fn told(reply: Reply) -> (Result<Answer, String>, serde_json::Value) {
    let function = origin().reply(reply).start().await;
    let gateway = in_front_of(&function.url(), HASTY, "").await;
    let mut connection = gateway.connect().await;
    // A method that is never sent twice: what the function does is what is seen.
    let answer = connection.try_send(post("/").body("x")).await;
    let line = gateway.log_line().await;
    assert_eq!(function.requests(), 1);
    (answer.map_err(|broken| broken.to_string()), line)
}

#[tokio::test]
async fn a_function_that_refuses_is_a_502() {
    let gateway = in_front_of(&format!("http://{}", dead_address()), HASTY, "").await;
    gateway.get("/").await.is_problem(502, "upstream_unreachable");
    gateway.post("/", "body").await.is_problem(502, "upstream_unreachable");
    let lines = gateway.log(2).await;
    assert_eq!(lines[0]["class"], "unreachable");
    assert_eq!(lines[0]["reason"], "upstream_unreachable");
}

#[tokio::test]
async fn a_function_that_hangs_is_a_504() {
    let (answer, line) = told(Reply::raw("").cut(0, Cut::Hang)).await;
    answer.unwrap().is_problem(504, "upstream_timeout");
    assert_eq!(line["class"], "timeout");
    // In the middle of its head as well.
    let (answer, _) = told(Reply::raw("HTTP/1.1 200 OK\r\nContent-").cut(20, Cut::Hang)).await;
    answer.unwrap().is_problem(504, "upstream_timeout");
}

#[tokio::test]
async fn a_function_that_breaks_off_in_its_head_is_a_502() {
    for cut in [Cut::Close, Cut::Reset] {
        for after in [0, 20] {
            let (answer, line) = told(Reply::raw("HTTP/1.1 200 OK\r\nContent-").cut(after, cut)).await;
            answer.unwrap().is_problem(502, "upstream_reset");
            assert_eq!(line["upstream_status"], serde_json::Value::Null, "{line}");
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    for cut in [Cut::Close, Cut::Reset, Cut::Hang] {
        let (answer, line) = told(Reply::made(100_000).cut(50_000, cut)).await;
        assert!(answer.as_ref().is_err_and(|e| e.starts_with("answer broke off")), "{answer:?}");
        assert_eq!(line["status"], 200);
        assert_ne!(line["class"], "ok", "{line}");
        assert_ne!(line["class"], "aborted", "the caller is not to blame: {line}");
        let chunks = Reply::chunks(&["one", "two", "three"]).cut(4, cut);
        let (answer, _) = told(chunks).await;
        assert!(answer.is_err(), "{cut:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_function_that_lies_about_its_length_is_found_out() {
    // It says more than it sends.
    let (answer, _) = told(Reply::text("short").claims(100).then_close()).await;
    assert!(answer.is_err(), "{answer:?}");
    // It sends more than it says: the caller gets what was said.
    let (answer, _) = told(Reply::text("far too much").claims(3)).await;
    assert_eq!(answer.unwrap().text(), "far");
}

#[tokio::test]
async fn answers_that_are_no_http_are_a_502() {
    let answers = [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nbad name: x\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    ];
    let mut wrong = Vec::new();
    for answer in answers {
        let (got, line) = told(Reply::raw(answer)).await;
        match got {
            Ok(got) if got.status == 502 && got.reason() == "upstream_reset" => {}
            other => wrong.push(format!("{answer:?} → {other:?} {line}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// RFC 9112 §6.3: the coding wins, and an intermediary that forwards such an answer removes the length first.
#[tokio::test]
async fn an_answer_with_a_coding_and_a_length_loses_its_length() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (answer, _) = told(Reply::raw(both)).await;
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert!(!answer.fields.has("content-length"), "{answer:?}");
}

#[tokio::test]
async fn a_whole_request_may_be_bounded() {
    let (reply, feed) = Reply::fed();
    let function = origin().reply(reply).start().await;
    let gateway = in_front_of(&function.url(), "timeouts = { total = \"1s\" }", "").await;
    let mut connection = gateway.connect().await;
    connection.begin("/").await;
    // Never idle, and yet too long.
    let ended = eventually("the answer is ended", async || {
        let _ = feed.try_send("x");
        connection.piece().await.err()
    })
    .await;
    assert!(!ended.to_string().is_empty());
    assert_eq!(gateway.log_line().await["class"], "timeout");
}

// Names.

#[tokio::test]
async fn a_changed_address_is_followed_within_its_ttl_and_five_seconds() {
    let dns = Dns::start().await;
    let old = origin().reply("old").at("127.0.0.1", 0).start().await;
    let new = origin().reply("new").at("127.0.0.2", old.port()).start().await;
    dns.answer("fn.test", &["127.0.0.1"], 1);
    let server = format!("dns = [\"{}\"]", dns.address());
    let gateway = in_front_of(&old.url_as("fn.test"), "", &server).await;
    assert_eq!(gateway.get("/").await.text(), "old");
    dns.answer("fn.test", &["127.0.0.2"], 1);
    let moved = std::time::Instant::now();
    eventually("the new address is used", async || {
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, 200);
        when(answer.text() == "new")
    })
    .await;
    // A TTL under five seconds counts as five.
    assert!(moved.elapsed() < Duration::from_secs(10), "{:?}", moved.elapsed());
    let host = format!("fn.test:{}", new.port());
    assert_eq!(new.last().header("host"), Some(host.as_str()));
}

#[tokio::test]
async fn the_last_good_answer_is_kept_while_the_name_server_is_away() {
    let dns = Dns::start().await;
    let function = origin().start().await;
    dns.answer("fn.test", &["127.0.0.1"], 1);
    let server = format!("dns = [\"{}\"]", dns.address());
    let gateway = in_front_of(&function.url_as("fn.test"), "pool = { idle = \"0s\" }", &server).await;
    assert_eq!(gateway.get("/").await.status, 200);
    dns.fail("fn.test");
    let asked = dns.asked("fn.test");
    eventually("the name was asked for again", async || {
        assert_eq!(gateway.get("/").await.status, 200);
        when(dns.asked("fn.test") > asked)
    })
    .await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_a_502_that_says_so() {
    let dns = Dns::start().await;
    let function = origin().start().await;
    let server = format!("dns = [\"{}\"]", dns.address());
    let gateway = in_front_of(&function.url_as("nobody.test"), HASTY, &server).await;
    gateway.get("/").await.is_problem(502, "name_not_resolved");
    assert_eq!(gateway.log_line().await["reason"], "name_not_resolved");
    // Once it is known, requests follow.
    dns.answer("nobody.test", &["127.0.0.1"], 60);
    eventually("the name is known", async || when(gateway.get("/").await.status == 200)).await;
}

#[tokio::test]
async fn without_any_name_server_it_starts_and_says_502() {
    let nobody = dead_address();
    let function = origin().start().await;
    let server = format!("dns = [\"{nobody}\"]");
    let gateway = in_front_of(&function.url_as("fn.test"), HASTY, &server).await;
    let mut connection = gateway.connect().await;
    let answer = tokio::time::timeout(PATIENCE, connection.send("/")).await.unwrap();
    answer.is_problem(502, "name_not_resolved");
}

#[tokio::test]
async fn of_two_addresses_the_dead_one_costs_nobody_a_502() {
    let dns = Dns::start().await;
    let one = origin().reply("one").at("127.0.0.1", 0).start().await;
    let two = origin().reply("two").at("127.0.0.2", one.port()).start().await;
    dns.answer("fn.test", &["127.0.0.1", "127.0.0.2"], 60);
    let server = format!("dns = [\"{}\"]", dns.address());
    let gateway = in_front_of(&one.url_as("fn.test"), HASTY, &server).await;
    assert_eq!(gateway.get("/").await.status, 200);
    one.die().await;
    let mut answers = Vec::new();
    for n in 0..40 {
        // Both kinds: a refused connection has taken nothing, so a POST goes on to the next address as well.
        let answer = match n % 2 {
            0 => gateway.get("/").await,
            _ => gateway.post("/", "x").await,
        };
        answers.push((answer.status, answer.text()));
    }
    let wrong: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(answers[20..].iter().all(|(_, text)| text == "two"));
    // The failed one is not tried first again and again.
    let lines = gateway.log(41).await;
    let tried_twice = lines.iter().filter(|line| line["attempts"] == 2).count();
    assert!(tried_twice <= 4, "{tried_twice} of 40 tried the dead address first");
    assert!(two.requests() >= 39);
}

#[tokio::test]
async fn a_function_that_stops_taking_a_large_body_is_given_up() {
    for times in ["write = \"400ms\", first_byte = \"1s\", idle = \"1s\"", "total = \"1s\""] {
        // It takes connections, and reads nothing.
        let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", deaf.local_addr().unwrap());
        let gateway = in_front_of(&url, &format!("timeouts = {{ {times} }}"), "").await;
        let mut caller = gateway.connect().await;
        // More than the kernel's buffers hold.
        let large = post("/").body(vec![0; 48 * 1024 * 1024]);
        let caller = tokio::spawn(async move { caller.try_send(large).await.map(|answer| answer.status) });
        assert_eq!(gateway.log_line().await["class"], "timeout", "{times}");
        // The answer, or no more than a connection that ends: it was still sending.
        assert!(matches!(caller.await.unwrap(), Ok(504) | Err(_)), "{times}");
    }
}
