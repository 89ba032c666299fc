//! What two readers could read in two ways reaches nobody: 400, one line in the log, and the connection is over.

use tokio::net::TcpStream;

use crate::harness::{Connection, Gateway, Origin, authority, gateway, origin};

async fn guarded() -> (Gateway, Origin) {
    let function = origin().start().await;
    let gateway =
        gateway(format!("[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n", function.url()))
            .start()
            .await;
    (gateway, function)
}

/// What would be run as a request of its own if the one before it were read shorter than it was meant.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends each of the requests on a connection of its own; each must be refused with `status`, whole and alone.
async fn refused(status: u16, reason: &str, requests: &[&str]) {
    let (gateway, function) = guarded().await;
    let mut wrong = Vec::new();
    for (n, request) in requests.iter().enumerate() {
        let said = gateway.raw(format!("{request}{SMUGGLED}")).await;
        // Status lines: a detail may name the version as well.
        let answers =
            said.match_indices("HTTP/1.1 ").filter(|(at, _)| said.as_bytes()[at + 9].is_ascii_digit()).count();
        let proper = said.starts_with(&format!("HTTP/1.1 {status} "))
            && said.contains("application/problem+json")
            && said.contains(&format!("\"{reason}\""))
            && answers == 1;
        let reached = function.seen().iter().any(|seen| seen.target.contains("smuggled"));
        if !proper || reached || function.requests() > 0 {
            let reached = function.requests();
            wrong.push(format!("{request:?}\n  → {said:?}, {reached} reached the function so far"));
        }
        let lines = gateway.log(n + 1).await;
        let line = &lines[n];
        if line["status"] != status || line["reason"] != reason {
            wrong.push(format!("{request:?}\n  is logged as {line}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The next caller is served as ever.
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn lengths_that_contradict_each_other() {
    refused(
        400,
        "bad_request",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \t5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn codings_that_nobody_agreed_on() {
    refused(
        400,
        "bad_request",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn heads_that_are_no_heads() {
    refused(
        400,
        "bad_request",
        &[
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "\0\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn hosts_that_are_no_hosts() {
    refused(
        400,
        "bad_request",
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a?\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a#\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:abc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn targets_that_are_no_paths() {
    refused(
        400,
        "bad_request",
        &[
            "GET t HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET host:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ../x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /../../x%00 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn too_much_of_a_head() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000));
    refused(414, "uri_too_long", &[&long]).await;
    let big = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(150));
    refused(431, "headers_too_large", &[&big, &many]).await;
}

/// Bodies break after their head was taken for good: the function may have seen the beginning, never the end, and what
/// follows is never run.
#[tokio::test]
async fn chunks_that_are_no_chunks_end_the_connection_and_nothing_behind_them_is_run() {
    let (gateway, function) = guarded().await;
    for chunks in [
        "\r\n",
        ";x\r\n",
        "\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
        "5;a=\0\r\nhello\r\n0\r\n\r\n",
        "0\r\nbad trailer\r\n\r\n",
        "0\r\n\n",
    ] {
        let head = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let said = gateway.raw(format!("{head}{chunks}{SMUGGLED}")).await;
        assert!(!said.contains(" 200 "), "{chunks:?}: {said}");
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{chunks:?}: {said}");
    }
    assert_eq!(function.requests(), 0, "{:?}", function.seen());
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn a_proper_request_behind_a_proper_one_is_its_own() {
    let (gateway, function) = guarded().await;
    let mut connection = gateway.connect().await;
    let chunked = "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;ext=\"v\"\r\nhello\r\nA\r\n, world!!!\r\n0\r\nX-Trailer: t\r\n\r\n";
    connection.write(chunked).await;
    assert_eq!(connection.answer().await.status, 200);
    assert_eq!(function.last().body, b"hello, world!!!");
    assert_eq!(connection.send("/2").await.status, 200);
    // Absolute-form that agrees with Host goes on as a path (RFC 9112 §3.2.2).
    assert_eq!(connection.send(crate::harness::get("http://gate.test/3?q")).await.status, 200);
    assert_eq!(function.last().target, "/3?q");
    // An empty line before a request is forgiven (RFC 9112 §2.2).
    connection.write("\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(connection.answer().await.status, 200);
}

#[tokio::test]
async fn tunnels_and_traces_are_not_for_functions() {
    let (gateway, function) = guarded().await;
    for request in [
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ] {
        let said = gateway.raw(request).await;
        let refused = said.starts_with("HTTP/1.1 400 ") || said.starts_with("HTTP/1.1 405 ");
        assert!(refused, "{request:?}: {said}");
    }
    assert_eq!(function.requests(), 0);
}

#[tokio::test]
async fn http_1_0_gets_what_it_can_read() {
    let (gateway, function) = guarded().await;
    function.now_answers(|_| crate::harness::Reply::chunks(&["one", "two"]));
    let said = gateway.raw("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body, "onetwo");
}

/// What was asked for in plain anybody on the way has read; only over TLS, or from who may have ended it, is an https target one.
#[tokio::test]
async fn https_in_a_target_that_came_in_plain() {
    let requests = [
        "GET https://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET https://a/x HTTP/1.0\r\n\r\n",
    ];
    refused(400, "bad_request", &requests).await;

    let house = authority();
    let function = origin().start().await;
    let route = format!("[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n", function.url());
    let asks = requests[0];
    let tls = house.leaf(&["one.test"]).toml();
    let listener = format!("[listener.in]\naddress = \"127.0.0.1:0\"\ntls = [{tls}]\n");
    let by_tls = gateway(format!("{listener}{route}")).start().await;
    let tcp = TcpStream::connect(by_tls.address("in")).await.unwrap();
    let (stream, _) = house.caller(&["http/1.1"]).handshake(tcp, "one.test").await.unwrap();
    let mut caller = Connection::over(stream);
    caller.write(asks).await;
    assert_eq!(caller.answer().await.status, 200);
    assert_eq!(function.last().target, "/x", "it goes on in origin-form");

    let trusting = gateway(format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{route}")).start().await;
    let mut caller = trusting.connect().await;
    caller.write(asks).await;
    assert_eq!(caller.answer().await.status, 200);
    trusting.swap("[\"127.0.0.1\"]", "[\"192.0.2.1\"]").await;
    caller.write(asks).await;
    caller.answer().await.is_problem(400, "bad_request");

    let listener = "[listener.in]\naddress = \"127.0.0.1:0\"\nproxy_protocol = { from = [\"127.0.0.1/32\"] }\n";
    let balanced = gateway(format!("{listener}{route}")).start().await;
    let mut caller = balanced.connect().await;
    caller.write(format!("PROXY TCP4 192.0.2.7 192.0.2.8 5 80\r\n{asks}")).await;
    assert_eq!(caller.answer().await.status, 200);
}
