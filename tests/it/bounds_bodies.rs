//! `max_body`: what is larger gets 413, before the function is bothered where the request says so itself.

use crate::harness::{Gateway, Origin, Reply, eventually, gateway, get, h2::H2, origin, post, request, when};

async fn bounded(bound: &str) -> (Gateway, Origin) {
    let function = origin().echo().start().await;
    let gateway = gateway(format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"{}\" }}\n\
         [route.f]\nfunction = \"f\"\nmax_body = \"{bound}\"\n",
        function.url()
    ))
    .workers(1)
    .start()
    .await;
    (gateway, function)
}

#[tokio::test]
async fn a_length_that_is_too_much_never_reaches_the_function() {
    let (gateway, function) = bounded("1KiB").await;
    let mut connection = gateway.connect().await;
    // The small rest of what came is read, so that the connection is kept.
    let answer = connection.send(post("/").body("x".repeat(1025))).await;
    answer.is_problem(413, "body_too_large");
    assert_eq!(answer.json()["detail"], "at most 1KiB are taken here");
    assert_eq!(connection.send(post("/").body("x".repeat(1024))).await.status, 200);
    assert_eq!((function.requests(), function.last().body_bytes), (1, 1024));
    let log = gateway.log(2).await;
    assert_eq!((&log[0]["class"], &log[0]["reason"]), (&"refused".into(), &"body_too_large".into()));
    assert_eq!(log[0]["status"], 413);
}

#[tokio::test]
async fn who_asks_first_is_told_at_once() {
    let (gateway, function) = bounded("1KiB").await;
    let mut connection = gateway.connect().await;
    connection.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n").await;
    // The very first line is the refusal: nobody is asked to send five megabytes for nothing.
    let head = connection.wire.head().await.unwrap().expect("an answer");
    assert_eq!(head.status(), 413);
    assert_eq!(function.connections(), 0);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_counted_as_it_comes() {
    let (gateway, function) = bounded("64KiB").await;
    let mut connection = gateway.connect().await;
    connection.write("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let piece = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    for _ in 0..4 {
        connection.write(&piece).await;
    }
    // So far all is well; one byte more is too much.
    eventually("the function was asked", async || when(function.connections() == 1)).await;
    connection.write("1\r\nx\r\n").await;
    let answer = connection.answer().await;
    answer.is_problem(413, "body_too_large");
    assert!(connection.closes_within(std::time::Duration::from_secs(10)).await, "what follows is not read");
    let log = gateway.log(1).await;
    assert_eq!((&log[0]["class"], &log[0]["reason"]), (&"refused".into(), &"body_too_large".into()));
    // Not a byte more than the bound, and not as a whole request.
    eventually("the function's connection is gone", async || when(function.open() == 0)).await;
    assert!(function.seen().iter().all(|seen| seen.body_bytes <= 65_536), "{:?}", function.seen());
    // A chunked body within the bound passes.
    let whole = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let mut connection = gateway.connect().await;
    connection.write(whole).await;
    assert_eq!(connection.answer().await.status, 200);
}

#[tokio::test]
async fn over_h2_as_well_and_other_streams_go_on() {
    let (gateway, function) = bounded("1KiB").await;
    let h2 = H2::plain(gateway.address("in")).await;
    let declared = h2.send(post("/").header("content-length", "1025").body("x".repeat(1025))).await;
    declared.is_problem(413, "body_too_large");
    assert_eq!(function.connections(), 0);
    let (feed, coming) = h2.start(request("POST", "/"));
    let coming = tokio::spawn(coming);
    feed.data("x".repeat(1000)).await;
    feed.data("x".repeat(25)).await;
    let coming = coming.await.unwrap().unwrap();
    assert_eq!(coming.status, 413);
    assert_eq!(h2.send(get("/")).await.status, 200);
    assert_eq!(h2.send(post("/").body("x".repeat(1024))).await.status, 200);
    let log = gateway.log(4).await;
    assert_eq!(log.iter().filter(|line| line["reason"] == "body_too_large").count(), 2, "{log:?}");
}

#[tokio::test]
async fn a_function_of_h2_is_spared_too() {
    let function = origin().echo().h2c().start().await;
    let gateway = gateway(format!(
        "[server]\nmax_body = \"1KiB\"\n[function.f]\nversions = {{ v1 = \"{}\" }}\nhttp = \"2\"\n[route.f]\nfunction = \"f\"\n",
        function.url()
    ))
    .start()
    .await;
    let mut connection = gateway.connect().await;
    connection.write("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    connection.write(format!("800\r\n{}\r\n", "x".repeat(0x800))).await;
    connection.answer().await.is_problem(413, "body_too_large");
}

#[tokio::test]
async fn a_body_that_is_sent_again_counts_once() {
    let (gateway, function) = bounded("64KiB").await;
    assert_eq!(gateway.get("/").await.status, 200);
    // A kept connection ends as the next request comes: it is sent again on another one.
    function.now_answers(|seen| match seen.nth {
        0 => Reply::text(format!("again, {} bytes", seen.body_bytes)),
        _ => Reply::vanish(),
    });
    let answer = gateway.send(request("PUT", "/").body(vec![b'x'; 60_000])).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "again, 60000 bytes"), "{answer:?}");
    assert_eq!(gateway.log(2).await[1]["attempts"], 2);
}
