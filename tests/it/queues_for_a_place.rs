//! A function with `concurrency` gets no more calls at a time than that; the others wait their turn, and no longer than they may.

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::harness::{
    Answer, Connection, Gateway, Origin, PATIENCE, Reply, eventually, gate, gateway, get, h2::H2, origin, post,
    reply::Gate, websocket::WebSocket, when,
};

/// A function that answers with the request's target, each call once its gate is opened.
struct Slow {
    origin: Origin,
    doors: std::sync::Arc<std::sync::Mutex<std::collections::HashMap<String, Gate>>>,
}

impl Slow {
    async fn start() -> Self {
        let doors = std::sync::Arc::<std::sync::Mutex<std::collections::HashMap<String, Gate>>>::default();
        let all = doors.clone();
        let origin = origin()
            .answers(move |seen| {
                let door = all.lock().unwrap().entry(seen.target.clone()).or_insert_with(gate).clone();
                Reply::text(seen.target.clone()).after(&door)
            })
            .start()
            .await;
        Self { origin, doors }
    }

    /// Lets the call to that target end.
    fn open(&self, target: &str) {
        self.doors.lock().unwrap().entry(target.to_owned()).or_insert_with(gate).open();
    }

    /// The targets of the calls so far, in their order.
    fn calls(&self) -> Vec<String> {
        self.origin.seen().into_iter().map(|seen| seen.target).collect()
    }

    async fn has(&self, calls: &[&str]) {
        eventually(&format!("{calls:?} reached the function, not {:?}", self.calls()), async || {
            when(self.calls() == calls)
        })
        .await;
    }
}

async fn capped(slow: &Slow, concurrency: &str, more: &str) -> Gateway {
    gateway(config(slow, concurrency, more)).start().await
}

fn config(slow: &Slow, concurrency: &str, more: &str) -> String {
    format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        [function.f]
        versions = {{ v1 = "{}" }}
        concurrency = {{ {concurrency} }}
        [route.f]
        path = "/*"
        function = "f"
        [route.bulk]
        path = "/bulk/*"
        function = "f"
        criticality = "bulk"
        [route.critical]
        path = "/critical/*"
        function = "f"
        criticality = "critical"
        {more}
        "#,
        slow.origin.url()
    )
}

/// Sends it on a connection of its own, and waits for nothing.
fn send(gateway: &Gateway, target: &str) -> JoinHandle<Answer> {
    let (address, target) = (gateway.address("in"), target.to_owned());
    tokio::spawn(async move { Connection::open(address).await.send(&*target).await })
}

/// So many wait.
async fn wait(gateway: &Gateway, waiting: usize) {
    gateway.counts("gatepost_queue_length", &[("function", "f")], waiting as f64).await;
}

async fn results(gateway: &Gateway, result: &str, count: usize) {
    gateway.counts("gatepost_queue_total", &[("function", "f"), ("result", result)], count as f64).await;
}

async fn in_use(gateway: &Gateway, calls: usize) {
    gateway.counts("gatepost_concurrency_in_use", &[("function", "f")], calls as f64).await;
}

fn line<'l>(log: &'l [Value], path: &str) -> &'l Value {
    log.iter().find(|line| line["path"] == path).unwrap_or_else(|| panic!("no line of {path}: {log:#?}"))
}

#[tokio::test]
async fn one_at_a_time_the_next_waits_and_the_third_is_told_to_come_again() {
    let slow = Slow::start().await;
    let gateway = capped(&slow, r#"max = 1, queue = 1, wait = "60s""#, "").await;
    let first = send(&gateway, "/1");
    slow.has(&["/1"]).await;
    let second = send(&gateway, "/2");
    wait(&gateway, 1).await;
    let third = gateway.get("/3").await;
    third.is_problem(503, "overloaded");
    assert_eq!(third.header("retry-after"), Some("1"));
    slow.open("/1");
    assert_eq!(first.await.unwrap().text(), "/1");
    slow.has(&["/1", "/2"]).await;
    slow.open("/2");
    assert_eq!(second.await.unwrap().text(), "/2");
    let log = gateway.all_told(3).await;
    assert_eq!(line(&log, "/1")["queue_ms"], 0);
    assert!(line(&log, "/2")["queue_ms"].as_f64().unwrap() > 0.0, "{log:#?}");
    assert_eq!((&line(&log, "/3")["class"], &line(&log, "/3")["attempts"]), (&"refused".into(), &Value::Null));
    in_use(&gateway, 0).await;
    results(&gateway, "served", 1).await;
    results(&gateway, "full", 1).await;
    let metrics = gateway.metrics().await;
    assert!(metrics.sum("gatepost_queue_wait_seconds_total", &[("function", "f")]) > 0.0);
    assert_eq!(metrics.sum("gatepost_concurrency_limit", &[("function", "f")]), 1.0);
}

#[tokio::test]
async fn the_connection_is_kept_over_a_refusal_and_a_wait() {
    let slow = Slow::start().await;
    let gateway = capped(&slow, r#"max = 1, queue = 0"#, "").await;
    let first = send(&gateway, "/1");
    slow.has(&["/1"]).await;
    let mut caller = gateway.connect().await;
    for _ in 0..3 {
        caller.send(post("/2").body("little")).await.is_problem(503, "overloaded");
    }
    slow.open("/1");
    first.await.unwrap();
    slow.open("/2");
    in_use(&gateway, 0).await;
    assert_eq!(caller.send("/2").await.text(), "/2");
}

#[tokio::test]
async fn a_place_that_does_not_come_in_time_is_a_503() {
    let slow = Slow::start().await;
    let gateway = capped(&slow, r#"max = 1, wait = "50ms""#, "").await;
    let first = send(&gateway, "/1");
    slow.has(&["/1"]).await;
    let late = gateway.get("/2").await;
    late.is_problem(503, "overloaded");
    assert!(late.header("retry-after").is_some());
    results(&gateway, "late", 1).await;
    wait(&gateway, 0).await;
    slow.open("/1");
    first.await.unwrap();
    let log = gateway.all_told(2).await;
    assert!(line(&log, "/2")["queue_ms"].as_f64().unwrap() >= 50.0, "{log:#?}");
    assert_eq!(slow.calls(), ["/1"], "who was told to come again did not reach the function");
}

#[tokio::test]
async fn the_whole_requests_time_counts_while_it_waits() {
    let slow = Slow::start().await;
    let gateway = capped(&slow, r#"max = 1, wait = "60s""#, "").await;
    let first = send(&gateway, "/1");
    slow.has(&["/1"]).await;
    // Of the first it is not asked: a request goes on with the config that it began with.
    gateway.swap("concurrency =", "timeouts = { total = \"300ms\" }\nconcurrency =").await;
    let h2 = H2::plain(gateway.address("in")).await;
    gateway.get("/2").await.is_problem(503, "overloaded");
    h2.send("/3").await.is_problem(503, "overloaded");
    drop(first);
}

#[tokio::test]
async fn who_goes_away_leaves_the_queue() {
    let slow = Slow::start().await;
    let gateway = capped(&slow, r#"max = 1, wait = "60s""#, "").await;
    let first = send(&gateway, "/1");
    slow.has(&["/1"]).await;
    // Over HTTP/1.1, without and with a body that nobody has read yet; over h2 by a reset and by the connection's end.
    let mut plain = gateway.connect().await;
    plain.write(get("/2").bytes()).await;
    let mut posts = gateway.connect().await;
    posts.write("POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    let h2 = H2::plain(gateway.address("in")).await;
    let (_feed, answer) = h2.start(get("/4"));
    let reset = tokio::spawn(answer);
    let other = H2::plain(gateway.address("in")).await;
    let (_feed, cut) = other.start(get("/5"));
    let cut = tokio::spawn(cut);
    wait(&gateway, 4).await;
    drop(plain);
    wait(&gateway, 3).await;
    drop(posts);
    wait(&gateway, 2).await;
    reset.abort();
    wait(&gateway, 1).await;
    cut.abort();
    drop(other);
    wait(&gateway, 0).await;
    results(&gateway, "gone", 4).await;
    slow.open("/1");
    first.await.unwrap();
    in_use(&gateway, 0).await;
    slow.open("/6");
    assert_eq!(gateway.get("/6").await.text(), "/6");
    assert_eq!(slow.calls(), ["/1", "/6"]);
    let log = gateway.all_told(6).await;
    for path in ["/2", "/3", "/4", "/5"] {
        assert_eq!(line(&log, path)["class"], "aborted", "{log:#?}");
    }
}

#[tokio::test]
async fn a_body_waits_with_its_request_and_arrives_whole() {
    let slow = Slow::start().await;
    let gateway = capped(&slow, r#"max = 1, wait = "60s""#, "").await;
    let first = send(&gateway, "/1");
    slow.has(&["/1"]).await;
    let body: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (address, whole) = (gateway.address("in"), body.clone());
    let second = tokio::spawn(async move { Connection::open(address).await.send(post("/2").body(whole)).await });
    wait(&gateway, 1).await;
    // One that comes in pieces, the last of which is sent while it waits.
    let mut pieces = gateway.connect().await;
    pieces.write("POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    wait(&gateway, 2).await;
    pieces.write("2\r\nde\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for target in ["/1", "/2", "/3", "/4"] {
        slow.open(target);
    }
    first.await.unwrap();
    assert_eq!(second.await.unwrap().text(), "/2");
    assert_eq!(pieces.answer().await.text(), "/3");
    assert_eq!(pieces.answer().await.text(), "/4", "what was sent ahead is the next request");
    let seen = slow.origin.seen();
    let of = |target: &str| seen.iter().find(|seen| seen.target == target).unwrap();
    assert!(of("/2").body == body, "{} bytes", of("/2").body_bytes);
    assert_eq!(of("/3").body, b"abcde");
}

#[tokio::test]
async fn the_more_critical_goes_first_and_of_the_same_who_came_first() {
    let slow = Slow::start().await;
    let gateway = capped(&slow, r#"max = 1, queue = 6, wait = "60s""#, "").await;
    let first = send(&gateway, "/0");
    slow.has(&["/0"]).await;
    let mut waiting = Vec::new();
    let order = ["/bulk/1", "/2", "/critical/3", "/bulk/4", "/5", "/critical/6"];
    for (n, target) in order.iter().enumerate() {
        waiting.push(send(&gateway, target));
        wait(&gateway, n + 1).await;
    }
    let by_turn = ["/0", "/critical/3", "/critical/6", "/2", "/5", "/bulk/1", "/bulk/4"];
    for (n, target) in by_turn.iter().enumerate() {
        slow.has(&by_turn[..=n]).await;
        slow.open(target);
    }
    first.await.unwrap();
    for (answer, target) in waiting.into_iter().zip(order) {
        assert_eq!(answer.await.unwrap().text(), target);
    }
}

#[tokio::test]
async fn a_full_queue_makes_room_for_the_more_critical() {
    let slow = Slow::start().await;
    let gateway = capped(&slow, r#"max = 1, queue = 2, wait = "60s""#, "").await;
    let first = send(&gateway, "/0");
    slow.has(&["/0"]).await;
    let older = send(&gateway, "/bulk/1");
    wait(&gateway, 1).await;
    let younger = send(&gateway, "/bulk/2");
    wait(&gateway, 2).await;
    gateway.get("/bulk/3").await.is_problem(503, "overloaded");
    let normal = send(&gateway, "/4");
    younger.await.unwrap().is_problem(503, "overloaded");
    let critical = send(&gateway, "/critical/5");
    older.await.unwrap().is_problem(503, "overloaded");
    gateway.get("/6").await.is_problem(503, "overloaded");
    results(&gateway, "displaced", 2).await;
    results(&gateway, "full", 2).await;
    for target in ["/0", "/4", "/critical/5"] {
        slow.open(target);
    }
    for answer in [first, normal, critical] {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(slow.calls(), ["/0", "/critical/5", "/4"]);
}

#[tokio::test]
async fn a_cap_of_a_version_stands_in_no_other_versions_way() {
    let slow = Slow::start().await;
    let gateway = gateway(format!(
        r#"
        [function.f]
        versions = {{ v1 = "{url}", v2 = {{ url = "{url}", concurrency = {{ max = 1 }} }} }}
        weights = {{ v1 = 100 }}
        concurrency = {{ max = 3, wait = "60s" }}
        [route.one]
        path = "/v1/*"
        function = "f"
        version = "v1"
        [route.two]
        path = "/v2/*"
        function = "f"
        version = "v2"
        "#,
        url = slow.origin.url()
    ))
    .start()
    .await;
    let first = send(&gateway, "/v2/1");
    slow.has(&["/v2/1"]).await;
    let second = send(&gateway, "/v2/2");
    wait(&gateway, 1).await;
    let others = [send(&gateway, "/v1/3"), send(&gateway, "/v1/4")];
    in_use(&gateway, 3).await;
    // The function is full by now as well.
    let last = send(&gateway, "/v1/5");
    wait(&gateway, 2).await;
    slow.open("/v1/3");
    slow.open("/v1/4");
    for other in others {
        other.await.unwrap();
    }
    wait(&gateway, 1).await;
    assert!(!slow.calls().contains(&"/v2/2".to_owned()), "{:?}", slow.calls());
    for target in ["/v1/5", "/v2/1", "/v2/2"] {
        slow.open(target);
    }
    for answer in [first, second, last] {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    in_use(&gateway, 0).await;
}

#[tokio::test]
async fn a_reload_keeps_the_count_and_the_queue_and_its_number_holds_at_once() {
    let slow = Slow::start().await;
    let gateway = capped(&slow, r#"max = 1, wait = "60s""#, "").await;
    let first = send(&gateway, "/1");
    slow.has(&["/1"]).await;
    let second = send(&gateway, "/2");
    wait(&gateway, 1).await;
    let receipt = gateway.swap("max = 1,", "max = 2,").await;
    assert!(receipt.line.contains("concurrency.max 1 → 2"), "{receipt:?}");
    slow.has(&["/1", "/2"]).await;
    // Both count under the new one, and under a smaller one again.
    let third = send(&gateway, "/3");
    wait(&gateway, 1).await;
    gateway.swap("max = 2,", "max = 1,").await;
    slow.open("/1");
    first.await.unwrap();
    in_use(&gateway, 1).await;
    wait(&gateway, 1).await;
    slow.open("/2");
    second.await.unwrap();
    slow.has(&["/1", "/2", "/3"]).await;
    let fourth = send(&gateway, "/4");
    wait(&gateway, 1).await;
    // Without a cap nobody waits.
    gateway.edit(|text| text.replace("concurrency = {", "# concurrency = {")).await;
    eventually("nobody waits any more", async || when(slow.origin.requests() == 4)).await;
    for target in ["/3", "/4"] {
        slow.open(target);
    }
    for answer in [third, fourth] {
        assert_eq!(answer.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn streams_and_websockets_hold_their_place() {
    let streams = origin()
        .answers(|seen| match seen.target.as_str() {
            "/ws" => Reply::websocket(),
            _ => Reply::text("ok"),
        })
        .start()
        .await;
    let gateway = gateway(format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\nconcurrency = {{ max = 1, queue = 0 }}\n\
         [route.f]\nfunction = \"f\"\n",
        streams.url()
    ))
    .start()
    .await;
    let mut socket = WebSocket::open(gateway.connect().await, "/ws").await;
    socket.say("one").await.unwrap();
    assert_eq!(socket.hear().await.unwrap().as_deref(), Some("one"));
    gateway.get("/").await.is_problem(503, "overloaded");
    socket.close().await.unwrap();
    in_use(&gateway, 0).await;
    assert_eq!(gateway.get("/").await.text(), "ok");
}

/// What one worker gives back another one's caller gets: none waits for a worker that has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_those_of_all_workers_together() {
    const MAX: usize = 3;
    let function = origin().reply(Reply::text("ok")).start().await;
    let gateway = gateway(format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\nconcurrency = {{ max = {MAX}, wait = \"60s\" }}\n\
         [route.f]\nfunction = \"f\"\n",
        function.url()
    ))
    .workers(4)
    .start()
    .await;
    let address = gateway.address("in");
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..24 {
        callers.spawn(async move {
            let mut connection = Connection::open(address).await;
            for _ in 0..40 {
                assert_eq!(connection.send("/").await.text(), "ok");
            }
        });
    }
    let all = tokio::time::timeout(4 * PATIENCE, callers.join_all());
    all.await.expect("everybody had their turn");
    in_use(&gateway, 0).await;
    wait(&gateway, 0).await;
    assert_eq!(function.requests(), 24 * 40);
}
