//! Asked to stop, gatepost takes nothing new, lets everything under way finish, and goes as soon as all is done.

use std::time::{Duration, Instant};

use crate::harness::{
    Connection, Gateway, Origin, Reply, eventually, gate, gateway, get, h2::H2, origin, websocket::WebSocket, when,
};

async fn draining(drain: &str, function: Origin) -> (Gateway, Origin) {
    let gateway = gateway(format!(
        r#"
        [server]
        drain = "{drain}"
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        "#,
        function.url()
    ))
    .start()
    .await;
    (gateway, function)
}

#[tokio::test]
async fn with_nothing_under_way_it_goes_at_once() {
    let (mut gateway, _function) = draining("30s", origin().start().await).await;
    let mut idle = gateway.connect().await;
    idle.send("/").await;
    let untouched = gateway.connect().await;
    let asked = Instant::now();
    gateway.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(idle.closes_within(Duration::from_secs(1)).await);
    drop(untouched);
}

#[tokio::test]
async fn a_download_completes_while_new_callers_are_refused() {
    let (reply, feed) = Reply::fed();
    let (mut gateway, _function) = draining("30s", origin().reply(reply).start().await).await;
    let address = gateway.address("in");
    let mut download = gateway.connect().await;
    download.begin("/").await;
    feed.send("first half, ");
    assert_eq!(download.piece().await.unwrap().unwrap(), "first half, ");
    gateway.terminate();
    eventually("new callers are refused", async || when(Connection::try_open(address).await.is_err())).await;
    feed.send("second half");
    drop(feed);
    assert_eq!(download.piece().await.unwrap().unwrap(), "second half");
    assert_eq!(download.piece().await.unwrap(), None);
    let status = gateway.exit().await;
    assert!(status.success(), "{status}");
    let line = gateway.log_line().await;
    assert_eq!((&line["status"], &line["class"]), (&200.into(), &"ok".into()));
}

#[tokio::test]
async fn a_request_that_was_waiting_is_answered_with_connection_close() {
    let door = gate();
    let function = origin().reply(Reply::text("late").after(&door)).start().await;
    let (mut gateway, function) = draining("30s", function).await;
    let address = gateway.address("in");
    let mut caller = gateway.connect().await;
    caller.write(get("/").bytes()).await;
    eventually("it reached the function", async || when(function.requests() == 1)).await;
    gateway.terminate();
    eventually("new callers are refused", async || when(Connection::try_open(address).await.is_err())).await;
    door.open();
    let answer = caller.answer().await;
    assert_eq!(answer.text(), "late");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(caller.closes_within(Duration::from_secs(5)).await);
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn a_websocket_lives_until_the_drain_is_over() {
    let function = origin().reply(Reply::websocket()).start().await;
    let (mut gateway, _function) = draining("2s", function).await;
    let address = gateway.address("in");
    let mut socket = WebSocket::open(gateway.connect().await, "/").await;
    let asked = Instant::now();
    gateway.terminate();
    eventually("new callers are refused", async || when(Connection::try_open(address).await.is_err())).await;
    socket.say("still here?").await.unwrap();
    assert_eq!(socket.hear().await.unwrap().as_deref(), Some("still here?"));
    gateway.exit().await;
    let spent = asked.elapsed();
    assert!(spent > Duration::from_millis(1_800), "gone after {spent:?}");
    assert!(spent < Duration::from_secs(6), "gone after {spent:?}");
}

#[tokio::test]
async fn a_websocket_that_ends_lets_it_go_early() {
    let function = origin().reply(Reply::websocket()).start().await;
    let (mut gateway, _function) = draining("60s", function).await;
    let mut socket = WebSocket::open(gateway.connect().await, "/").await;
    socket.say("hello").await.unwrap();
    socket.hear().await.unwrap();
    gateway.terminate();
    socket.close().await.unwrap();
    let asked = Instant::now();
    assert!(gateway.exit().await.success());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn h2_callers_finish_their_streams() {
    let door = gate();
    let function = origin().reply(Reply::text("late").after(&door)).start().await;
    let (mut gateway, function) = draining("30s", function).await;
    let h2 = H2::plain(gateway.address("in")).await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let h2 = h2.clone();
            tokio::spawn(async move { h2.send("/").await.text() })
        })
        .collect();
    eventually("all reached the function", async || when(function.requests() == 3)).await;
    gateway.terminate();
    door.open();
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), "late");
    }
    assert!(gateway.exit().await.success());
    eventually("the connection is gone", async || when(h2.is_closed())).await;
}

#[tokio::test]
async fn readiness_goes_before_the_process_does() {
    let (reply, feed) = Reply::fed();
    let (mut gateway, _function) = draining("30s", origin().reply(reply).start().await).await;
    let mut download = gateway.connect().await;
    download.begin("/").await;
    assert_eq!(gateway.ask_admin("/readyz").await.status, 200);
    gateway.terminate();
    eventually("it says that it isn't ready", async || when(gateway.ask_admin("/readyz").await.status == 503)).await;
    assert_eq!(gateway.ask_admin("/healthz").await.status, 200);
    drop(feed);
    assert!(download.piece().await.unwrap().is_none());
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn an_idle_h2_caller_is_told_to_go_away() {
    let (mut gateway, _function) = draining("30s", origin().start().await).await;
    let mut caller = gateway.connect().await;
    // The preface, and empty settings (RFC 9113 §3.4).
    caller.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    // A request: HEADERS, the end of both headers and stream; static table: GET, http, /, and `:authority: a`.
    caller.write(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a").await;
    gateway.log(1).await;
    let asked = Instant::now();
    gateway.terminate();
    let (bytes, closed) = caller.wire.rest(Duration::from_secs(10)).await;
    assert!(closed, "still open");
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let Some((head, behind)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        frames.push(head[3]);
        rest = &behind[length.min(behind.len())..];
    }
    assert!(frames.contains(&7), "no GOAWAY among frames {frames:?}");
    gateway.exit().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let function = origin().reply(Reply::websocket()).start().await;
    let (mut gateway, _function) = draining("60s", function).await;
    let address = gateway.address("in");
    let _socket = WebSocket::open(gateway.connect().await, "/").await;
    gateway.terminate();
    eventually("new callers are refused", async || when(Connection::try_open(address).await.is_err())).await;
    let asked = Instant::now();
    gateway.terminate();
    assert!(gateway.exit().await.success());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    gateway.says(&["stopped", "cut=1"]).await;
}

#[tokio::test]
async fn a_request_that_was_on_its_way_is_still_answered() {
    let (mut gateway, _function) = draining("30s", origin().start().await).await;
    let address = gateway.address("in");
    let mut waiting = gateway.connect().await;
    gateway.terminate();
    eventually("new callers are refused", async || when(Connection::try_open(address).await.is_err())).await;
    let answer = waiting.send("/").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(gateway.exit().await.success());
}
