//! Requests in absolute form through the way out.

use crate::harness::{
    Gateway, Origin, Reply, eventually, gateway, origin,
    proxy::{Client, Said, mirror},
    when,
};

/// A way out for whoever is on this machine, to everything on the destination's port.
async fn out(to: &Origin, more: &str) -> Gateway {
    gateway(config(to.port(), more)).start().await
}

fn config(port: u16, more: &str) -> String {
    format!(
        r#"
        [client.fn]
        networks = ["127.0.0.1/32"]
        [egress.listener.out]
        address = "127.0.0.1:0"
        {more}
        [egress.rule.r]
        clients = ["fn"]
        to = ["127.0.0.1:{port}", "localhost:{port}"]
        private = ["127.0.0.0/8", "::1/128"]
        "#
    )
}

async fn ask(gate: &Gateway, request: &str) -> Said {
    gate.client("127.0.0.1").await.ask(request).await
}

#[tokio::test]
async fn a_request_is_passed_on_as_its_target_says_and_what_is_the_proxys_stays() {
    let far =
        origin().answers(|_| Reply::text("ok").header("Keep-Alive", "timeout=5").header("X-A", "b")).start().await;
    let gate = out(&far, "").await;
    let port = far.port();
    let request = format!(
        "GET http://localhost:{port}/a?b=c HTTP/1.1\r\nHost: evil.test\r\nProxy-Authorization: Basic eDp5\r\n\
         Proxy-Connection: keep-alive\r\nConnection: X-Foo, authorization\r\nX-Foo: 1\r\nAuthorization: Bearer t\r\n\
         X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nTE: trailers\r\nAccept: */*\r\n\r\n"
    );
    let mut client = gate.client("127.0.0.1").await;
    for n in 0..3 {
        let said = client.ask(&request).await;
        assert_eq!((said.status, said.body.as_str()), (200, "ok"), "{said:?}");
        assert!(said.head.contains("X-A: b\r\n") && !said.head.contains("Keep-Alive"), "{said:?}");
        assert!(said.head.contains("\r\nVia: 1.1 gatepost\r\n"), "{said:?}");
        assert_eq!(far.last().nth, n, "the connection is kept on both sides");
    }
    let seen = far.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/a?b=c"));
    assert_eq!(seen.header("host"), Some(&*format!("localhost:{port}")));
    assert_eq!(seen.header("authorization"), Some("Bearer t"));
    let via = seen.header("via").unwrap();
    assert!(via.starts_with("1.1 gatepost-") && via.len() == "1.1 gatepost-00000000".len(), "{via}");
    for gone in ["proxy-authorization", "proxy-connection", "x-foo", "x-forwarded-for", "forwarded", "te", "connection"]
    {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    let line = &gate.log(3).await[0];
    assert_eq!((&line["kind"], &line["method"], &line["status"]), (&"forward".into(), &"GET".into(), &200.into()));
    assert_eq!(line["target"], format!("localhost:{port}"), "without path and query: {line}");
}

#[tokio::test]
async fn bodies_pass_in_both_framings_and_both_directions() {
    let far = origin()
        .answers(|seen| {
            let body = String::from_utf8_lossy(&seen.body).into_owned();
            if seen.target == "/chunks" { Reply::chunks(&["got ", &body]) } else { Reply::text(format!("got {body}")) }
        })
        .start()
        .await;
    let gate = out(&far, "").await;
    let url = format!("http://127.0.0.1:{}", far.port());
    let mut client = gate.client("127.0.0.1").await;
    let said = client.ask(&format!("POST {url}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")).await;
    assert_eq!(said.body, "got hello");
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    let said = client.ask(&format!("POST {url}/ HTTP/1.1\r\nHost: x\r\n{chunked}")).await;
    assert_eq!(said.body, "got hello");
    // Two at once: the second waits for its turn.
    let two = format!("GET {url}/ HTTP/1.1\r\nHost: x\r\n\r\n").repeat(2);
    assert_eq!(client.ask(&two).await.body, "got ");
    assert_eq!(client.ask("").await.body, "got ");
    let said = client.ask(&format!("HEAD {url}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert_eq!(said.status, 200);
    client.say(format!("GET {url}/chunks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    let all = client.rest().await;
    assert!(all.contains("Transfer-Encoding: chunked\r\n") && all.ends_with("4\r\ngot \r\n0\r\n\r\n"), "{all}");
    assert!(all.contains("Connection: close\r\n"), "{all}");
    gate.counts("gatepost_egress_open", &[], 0.0).await;
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_goes_nowhere() {
    let far = origin().start().await;
    let gate = out(&far, "").await;
    let url = format!("http://127.0.0.1:{}", far.port());
    let get = |fields: &str| format!("GET {url}/ HTTP/1.1\r\n{fields}\r\n");
    for (request, status, reason) in [
        (get(""), 400, "bad_request"),
        (get("Host: x\r\nHost: x\r\n"), 400, "bad_request"),
        (get("Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400, "bad_request"),
        (get("Host: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n"), 400, "bad_request"),
        (get("Host: x\r\nA: b\r\n c\r\n"), 400, "bad_request"),
        (get("Host: x\nA: b\r\n"), 400, "bad_request"),
        (get("Host: x\r\nUpgrade: h2c\r\n"), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400, "bad_request"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400, "bad_request"),
        (format!("TRACE {url}/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n"), 405, "method_not_allowed"),
        (url.replace("http", "GET https") + "/ HTTP/1.1\r\nHost: x\r\n\r\n", 403, "destination_not_allowed"),
        ("GET ftp://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n".into(), 403, "destination_not_allowed"),
        ("GET http://u:p@127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400, "bad_request"),
        (get("Host: x\r\nTransfer-Encoding: chunked\r\n") + "5\nhello", 400, "bad_request"),
    ] {
        ask(&gate, &request).await.is(status, reason);
    }
    assert_eq!(far.requests(), 0);
}

#[tokio::test]
async fn an_answer_that_is_wrong_is_never_passed_on() {
    let far = origin().start().await;
    let gate = out(&far, "").await;
    let request = format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", far.port());
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "nonsense\r\n\r\n",
        "",
    ] {
        far.now_answers(move |_| Reply::raw(bytes).then_close());
        ask(&gate, &request).await.is(502, "upstream_reset");
    }
    far.now_answers(|_| Reply::text("ok"));
    assert_eq!(ask(&gate, &request).await.status, 200);
}

#[tokio::test]
async fn a_kept_connection_that_the_destination_closed_costs_nobody_a_request() {
    let far = origin().start().await;
    let gate = out(&far, "").await;
    let request = format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", far.port());
    let mut client = gate.client("127.0.0.1").await;
    for _ in 0..5 {
        assert_eq!(client.ask(&request).await.status, 200);
        far.close_idle().await;
    }
}

#[tokio::test]
async fn a_destination_that_does_not_answer_is_given_up() {
    let never = crate::harness::gate();
    let waits = never.clone();
    let far = origin().answers(move |_| Reply::text("late").after(&waits)).start().await;
    let gate = out(&far, "[egress]\ntimeouts = { first_byte = \"300ms\" }").await;
    let said = ask(&gate, &format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", far.port())).await;
    said.is(504, "upstream_timeout");
    never.open();
    let dead = origin::dead_address();
    let to = format!("127.0.0.1:{}", far.port());
    gate.swap(&to, &dead.to_string()).await;
    ask(&gate, &format!("GET http://{dead}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await.is(502, "upstream_unreachable");
}

#[tokio::test]
async fn a_client_behind_a_proxy_header_is_known_by_what_that_says() {
    let far = origin().start().await;
    let port = far.port();
    let text = config(port, "proxy_protocol = { from = [\"127.0.0.5/32\"] }").replace("127.0.0.1/32", "192.0.2.9/32");
    let gate = gateway(text).start().await;
    let mut client = gate.client("127.0.0.5").await;
    client.say("PROXY TCP4 192.0.2.9 192.0.2.1 5 6\r\n").await;
    let said = client.ask(&format!("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(gate.log_line().await["client_ip"], "192.0.2.9");
}

#[tokio::test]
async fn a_removed_listener_closes_and_a_new_one_opens() {
    let far = mirror("127.0.0.1:0").await;
    let gate = gateway(config(far.port(), "")).start().await;
    let to = format!("127.0.0.1:{}", far.port());
    let mut stays = gate.opened(&to).await;
    let mut kept = gate.client("127.0.0.1").await;
    let forward = format!("GET http://{to}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(kept.ask(&forward).await.body, "127.0.0.1");
    let before = gate.address("egress.out");
    gate.swap("[egress.listener.out]", "[egress.listener.second]").await;
    gate.says(&["no longer listening", "egress.out"]).await;
    // It is told first; the kernel's queue is still taken.
    eventually("the socket closes", async || when(tokio::net::TcpStream::connect(before).await.is_err())).await;
    assert_eq!(kept.rest().await, "", "it waits for a request, and ends");
    assert_eq!(stays.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.body, "127.0.0.1");
    let mut client = Client(tokio::net::TcpStream::connect(gate.address("egress.second")).await.unwrap());
    assert_eq!(client.ask(&format!("CONNECT {to} HTTP/1.1\r\nHost: x\r\n\r\n")).await.status, 200);
}

#[tokio::test]
async fn an_options_goes_no_further_than_it_may_and_a_refused_method_says_which_are_not() {
    let far = origin().start().await;
    let gate = out(&far, "").await;
    let url = format!("http://127.0.0.1:{}", far.port());
    let mut client = gate.client("127.0.0.1").await;
    // RFC 9110 §7.6.2.
    let options = |hops: &str| format!("OPTIONS {url}/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: {hops}\r\n\r\n");
    let said = client.ask(&options("0")).await;
    assert_eq!((said.status, far.requests()), (204, 0), "{said:?}");
    assert!(said.head.contains("\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT\r\n"), "{said:?}");
    assert_eq!(client.ask(&options("5")).await.status, 200);
    assert_eq!(far.last().header("max-forwards"), Some("4"));
    client.ask(&format!("GET {url}/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n")).await;
    assert_eq!(far.last().header("max-forwards"), Some("0"), "nobody counts for others");
    let said = client.ask(&format!("TRACE {url}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    said.is(405, "method_not_allowed");
    assert!(said.head.contains("\r\nAllow: GET, "), "{said:?}");
    let told = gate.log(4).await;
    assert!(told.iter().any(|line| line["status"] == 204 && line["rule"] == "r"), "{told:#?}");
}

#[tokio::test]
async fn a_host_that_is_none_is_refused_and_another_than_the_targets_is_not() {
    let far = origin().start().await;
    let gate = out(&far, "").await;
    let to = format!("127.0.0.1:{}", far.port());
    for host in ["a b", "a,b", "http://x/", "[::1", "x:99999", "foo/bar", "a\tb"] {
        ask(&gate, &format!("GET http://{to}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.is(400, "bad_request");
        ask(&gate, &format!("CONNECT {to} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.is(400, "bad_request");
    }
    assert_eq!(far.connections(), 0);
    // As Python's http.client has it, for an address without brackets.
    let said = ask(&gate, "CONNECT [2001:db8::1]:43081 HTTP/1.1\r\nHost: 2001:db8::1:43081\r\n\r\n").await;
    said.is(403, "destination_not_allowed");
    for host in ["", "elsewhere.test", "elsewhere.test:81", "elsewhere.test:", "[2001:db8::1]:81"] {
        let said = ask(&gate, &format!("GET http://{to}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(said.status, 200, "{host:?}: {said:?}");
        assert_eq!(far.last().header("host"), Some(&*to), "{host:?}");
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_what_it_can_read() {
    let far = origin().answers(|_| Reply::chunks(&["hello, ", "world"])).start().await;
    let gate = out(&far, "").await;
    let request = |fields: &str| format!("GET http://127.0.0.1:{}/ HTTP/1.0\r\n{fields}\r\n", far.port());
    let mut client = gate.client("127.0.0.1").await;
    client.say(request("")).await;
    let all = client.rest().await;
    assert!(all.ends_with("\r\n\r\nhello, world"), "RFC 9112 §6.1: no chunks: {all}");
    assert!(!all.contains("Transfer-Encoding") && all.contains("Connection: close\r\n"), "{all}");
    // RFC 9112 §2.3, RFC 9110 §7.6.3.
    let seen = far.last();
    assert_eq!(seen.version, "HTTP/1.1");
    assert!(seen.header("via").unwrap().starts_with("1.0 gatepost-"), "{seen:?}");

    // Cut off, it must not look like a whole one: that is a reset, and no end.
    far.now_answers(|_| Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").then_close());
    let mut client = gate.client("127.0.0.1").await;
    client.say(request("")).await;
    assert!(is_reset(&mut client).await);
}

async fn is_reset(client: &mut Client) -> bool {
    let mut all = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut client.0, &mut all).await;
    end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn an_answer_without_a_body_has_no_length_and_an_id_where_the_destination_gave_none() {
    let far = origin().start().await;
    let gate = out(&far, "").await;
    let request = format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", far.port());
    let mut client = gate.client("127.0.0.1").await;
    // RFC 9110 §8.6. The origin's connection goes on: a body behind it would be the next answer's beginning.
    let bytes =
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n";
    far.now_answers(move |_| Reply::raw(bytes));
    let hints = client.ask(&request).await;
    assert_eq!(hints.status, 103, "{hints:?}");
    let said = client.ask("").await;
    assert_eq!(said.status, 204, "{said:?}");
    assert!(!hints.head.contains("Content-Length") && !said.head.contains("Content-Length"), "{hints:?} {said:?}");
    let id = said.head.lines().find_map(|line| line.strip_prefix("X-Request-Id: ")).expect("an id").to_owned();
    assert_eq!(gate.log(1).await[0]["request_id"], id);
    far.now_answers(|_| Reply::text("ok").header("x-request-id", "the-origins"));
    let said = client.ask(&request).await;
    assert_eq!(said.head.to_ascii_lowercase().matches("x-request-id").count(), 1, "{said:?}");
    assert!(said.head.contains("the-origins"), "{said:?}");

    // RFC 9110 §9.3.2, of a head that is refused as well.
    let mut client = gate.client("127.0.0.1").await;
    client.say(format!("HEAD http://127.0.0.1:{}/ HTTP/1.1\r\n\r\n", far.port())).await;
    let all = client.rest().await;
    assert!(all.starts_with("HTTP/1.1 400 ") && all.ends_with("\r\n\r\n"), "{all}");
}

#[tokio::test]
async fn a_client_that_is_gone_is_not_waited_for_and_one_that_has_ended_its_side_is_answered() {
    let held = crate::harness::gate();
    let hold = held.clone();
    let far = origin().answers(move |_| Reply::text("ok").after(&hold)).start().await;
    let gate = out(&far, "").await;
    let request = format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", far.port());
    let (mut gone, mut ended) = (gate.client("127.0.0.1").await, gate.client("127.0.0.1").await);
    gone.say(&request).await;
    // A second one behind it, as a client may send that does not wait.
    ended.say(request.repeat(2)).await;
    tokio::io::AsyncWriteExt::shutdown(&mut ended.0).await.unwrap();
    eventually("both with the destination", async || when(far.open() == 2)).await;
    gone.0.set_zero_linger().unwrap();
    drop(gone);
    let line = &gate.log(1).await[0];
    assert_eq!(line["ended"], "client_gone", "{line}");
    gate.counts("gatepost_egress_open", &[("rule", "r")], 1.0).await;
    held.open();
    assert_eq!(ended.rest().await.matches("HTTP/1.1 200 ").count(), 2);
}

#[tokio::test]
async fn what_failed_has_no_place_any_more_once_it_is_told() {
    let far = origin().start().await;
    let gate = out(&far, "").await;
    let dead = origin::dead_address();
    let limited = format!("limits = {{ tunnels = 1 }}\nto = [\"{dead}\", ");
    gate.swap("to = [", &limited).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        // Each reads its answer, and keeps its side open.
        let mut client = gate.client("127.0.0.1").await;
        client.ask(&format!("GET http://{dead}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await.is(502, "upstream_unreachable");
        waiting.push(client);
    }
    assert_eq!(gate.log(3).await.len(), 3);
}

#[tokio::test]
async fn who_waits_for_its_rate_is_not_idle() {
    let far = origin().answers(|_| Reply::text("x".repeat(40_000))).start().await;
    let gate = out(&far, "").await;
    gate.swap("to = [", "timeouts = { idle = \"500ms\" }\nlimits = { bandwidth = \"16KiB/s\" }\nto = [").await;
    let said = ask(&gate, &format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", far.port())).await;
    assert_eq!(said.body.len(), 40_000);
}

#[tokio::test]
async fn interim_answers_without_end_are_given_up() {
    let far = origin().start().await;
    let gate = out(&far, "").await;
    let request = format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", far.port());
    far.now_answers(|_| Reply::raw("HTTP/1.1 102 Processing\r\n\r\n".repeat(200)));
    let mut client = gate.client("127.0.0.1").await;
    client.say(&request).await;
    let all = client.rest().await;
    assert_eq!(all.matches("HTTP/1.1 102 ").count(), 100);
    assert!(all.contains("HTTP/1.1 502 ") && all.contains("interim answers without end"), "{all}");
}

#[tokio::test]
async fn the_log_says_why_and_never_holds_what_a_url_may_hide() {
    let far = origin().start().await;
    let gate = gateway(
        config(far.port(), "[client.basic]\nbasic = { user = \"u\", sha256 = \"file:@DIR@/hash\" }")
            .replace("clients = [\"fn\"]", "clients = [\"fn\", \"basic\"]"),
    )
    .file("hash", "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b")
    .start()
    .await;
    let port = far.port();
    for request in [
        format!(
            "GET http://127.0.0.1:{port}/SECRET?token=SECRET HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
        ),
        format!("GET http://user:SECRET@127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("CONNECT user:SECRET@127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("CONNECT user:SEC/RET@127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET https://127.0.0.1:{port}/?SECRET HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET http://user:SECRET@127.0.0.1:{port}/?SECRET HTTP/1.1\r\n\r\n"),
        "GET /?SECRET HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ] {
        let said = ask(&gate, &request).await;
        assert!(said.status >= 400, "{said:?}");
    }
    ask(&gate, "CONNECT 10.1.1.1:443 HTTP/1.1\r\nHost: x\r\n\r\n").await.is(403, "destination_not_allowed");
    let told = gate.log(8).await;
    for line in &told {
        assert!(!line.to_string().contains("SEC"), "{line}");
    }
    assert_eq!(told.iter().filter(|line| line["target"] == format!("127.0.0.1:{port}")).count(), 5, "{told:#?}");
    // Where the password ends in `user:SEC/RET@host`, nobody can know; and a path is no destination.
    assert_eq!(told.iter().filter(|line| line["target"].is_null()).count(), 2, "{told:#?}");
    let last = told.iter().find(|line| line["target"] == "10.1.1.1:443").expect("a line");
    assert_eq!(last["detail"], "no rule takes client fn to 10.1.1.1:443", "{last}");
}
