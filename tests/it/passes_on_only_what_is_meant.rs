//! What a caller says reaches the function as it was meant, and once; what a function says reaches the caller so.

use crate::harness::{Gateway, Origin, Reply, gateway, get, origin, request};

async fn passing() -> (Gateway, Origin) {
    let function = origin().start().await;
    let gateway =
        gateway(format!("[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n", function.url()))
            .start()
            .await;
    (gateway, function)
}

#[tokio::test]
async fn a_caller_cannot_take_a_fields_meaning_away_by_naming_it_in_connection() {
    let (gateway, function) = passing().await;
    for named in ["Transfer-Encoding", "te, transfer-encoding", "Content-Length", "Host", "X-Forwarded-For"] {
        let answer = gateway.send(get("/").header("Connection", named)).await;
        answer.is_problem(400, "bad_request");
    }
    assert_eq!(function.requests(), 0);
}

#[tokio::test]
async fn a_name_that_reads_as_another_goes_and_an_ordinary_one_with_underscores_stays() {
    let (gateway, function) = passing().await;
    let asked = get("/")
        .header("X_Forwarded_For", "6.6.6.6")
        .header("x_real_ip", "6.6.6.6")
        .header("X_Request-Id", "mine")
        .header("X.Forwarded.Proto", "https")
        .header("Transfer_Encoding", "chunked")
        .header("Proxy", "http://evil.test")
        .header("X-User", "one")
        .header("X_User", "two")
        .header("access_token", "t");
    assert_eq!(gateway.send(asked).await.status, 200);
    let seen = function.last();
    for name in
        ["x_forwarded_for", "x_real_ip", "x_request-id", "x.forwarded.proto", "transfer_encoding", "proxy", "x_user"]
    {
        assert!(!seen.fields.has(name), "{seen:?}");
    }
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-user"), Some("one"));
    assert_eq!(seen.header("access_token"), Some("t"));
}

#[tokio::test]
async fn an_options_that_may_go_no_further_is_answered_by_gatepost() {
    let (gateway, function) = passing().await;
    let mut connection = gateway.connect().await;
    for asked in [
        request("OPTIONS", "/x").header("Max-Forwards", "0"),
        request("OPTIONS", "*"),
        // RFC 9112 §3.2.4: without a path, it is the server that is asked.
        request("OPTIONS", "http://gate.test"),
    ] {
        let answer = connection.send(asked).await;
        assert_eq!(answer.status, 204);
        assert!(answer.header("allow").unwrap().contains("OPTIONS"), "{answer:?}");
        assert!(answer.fields.has("x-request-id") && !answer.fields.has("content-length"), "{answer:?}");
    }
    assert_eq!(function.requests(), 0);
    let lines = gateway.log(3).await;
    assert!(lines.iter().all(|line| line["class"] == "ok" && line["status"] == 204), "{lines:?}");
    assert_eq!(connection.send(request("OPTIONS", "/x").header("Max-Forwards", "7")).await.status, 200);
    assert_eq!(function.last().header("max-forwards"), Some("6"));
    // To other methods the field means nothing (RFC 9110 §7.6.2).
    assert_eq!(connection.send(get("/x").header("Max-Forwards", "0")).await.status, 200);
    assert_eq!(function.last().header("max-forwards"), Some("0"));
}

#[tokio::test]
async fn http_1_0_may_name_its_host_in_the_target_alone() {
    let (gateway, function) = passing().await;
    let said = gateway.raw("GET http://gate.test:80/a HTTP/1.0\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert_eq!(function.last().header("x-forwarded-host"), Some("gate.test:80"));
}

#[tokio::test]
async fn a_close_in_any_connection_line_closes() {
    let (gateway, function) = passing().await;
    let said = gateway
        .raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert!(said.to_lowercase().contains("connection: close"), "{said}");
    assert_eq!(function.requests(), 1);
}

#[tokio::test]
async fn only_a_get_without_a_body_becomes_a_websocket() {
    let (gateway, function) = passing().await;
    for (method, body) in [("POST", ""), ("GET", "hello")] {
        let asked = request(method, "/").header("Connection", "Upgrade").header("Upgrade", "websocket").body(body);
        assert_eq!(gateway.send(asked).await.status, 200);
        let seen = function.last();
        assert!(!seen.fields.has("upgrade") && !seen.fields.has("connection"), "{seen:?}");
        assert_eq!(seen.body, body.as_bytes());
    }
    let twice = get("/").header("Connection", "Upgrade").header("Upgrade", "websocket").header("Upgrade", "h2c");
    assert_eq!(gateway.send(twice).await.status, 200);
    assert!(!function.last().fields.has("upgrade"));
}

#[tokio::test]
async fn head_comes_with_get() {
    let function = origin().start().await;
    let gateway = gateway(format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nmethods = [\"GET\"]\nfunction = \"f\"\n",
        function.url()
    ))
    .start()
    .await;
    assert_eq!(gateway.send(request("HEAD", "/")).await.status, 200);
    let refused = gateway.send(request("PUT", "/")).await;
    refused.is_problem(405, "method_not_allowed");
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
}

/// An answer is given by its bytes; the caller asks twice on one connection.
async fn answered(bytes: &'static str) -> (String, Gateway, Origin) {
    let (gateway, function) = passing().await;
    function.now_answers(move |_| Reply::raw(bytes));
    let said = gateway.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    (said, gateway, function)
}

#[tokio::test]
async fn an_answer_without_content_has_no_length_and_no_coding() {
    for bytes in [
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: x\r\nX: y\r\n\r\n\
         HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let (said, ..) = answered(bytes).await;
        let said = said.to_lowercase();
        assert!(said.contains("http/1.1 204 ") && said.ends_with("\r\n\r\n"), "{bytes:?}: {said}");
        for name in ["content-length", "transfer-encoding", "hello", "\nx: y"] {
            assert!(!said.contains(name), "{bytes:?}: {said}");
        }
    }
}

#[tokio::test]
async fn a_length_that_is_said_twice_alike_goes_on_once() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let (said, ..) = answered(bytes).await;
        assert_eq!(said.to_lowercase().matches("content-length: 5\r\n").count(), 1, "{bytes:?}: {said}");
        assert!(said.ends_with("\r\n\r\nhello"), "{bytes:?}: {said}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_could_frame_is_the_functions_fault() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    ] {
        let (said, gateway, _function) = answered(bytes).await;
        assert!(said.starts_with("HTTP/1.1 502 ") && said.contains("upstream_reset"), "{bytes:?}: {said}");
        let line = gateway.log_line().await;
        assert_eq!((&line["class"], &line["reason"]), (&"function".into(), &"upstream_reset".into()), "{line}");
    }
}

#[tokio::test]
async fn what_a_function_says_to_gatepost_alone_stays_here() {
    let (said, ..) = answered(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
         TE: gzip\r\nUpgrade: h2c\r\nX-Gatepost-Reason: overloaded\r\nX-Request-Id: theirs\r\nX-Stays: 1\r\n\
         Content-Length: 2\r\n\r\nok",
    )
    .await;
    let said = said.to_lowercase();
    for name in ["x-hop", "keep-alive", "proxy-auth", "\nte:", "upgrade", "x-gatepost-reason", "theirs"] {
        assert!(!said.contains(name), "{name}: {said}");
    }
    assert!(said.contains("x-stays: 1"), "{said}");
}
