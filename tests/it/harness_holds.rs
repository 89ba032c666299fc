//! The harness's own parts, proven against each other: what a test says of gatepost is worth no more than these.

use std::{path::Path, time::Duration};

use crate::harness::{
    Connection, Reply, authority, eventually,
    faulty::{Fault, Faulty, Plan, STALL},
    gate,
    gateway::{Metrics, fill_in, word},
    get,
    h2::H2,
    load::load,
    origin, post,
    reply::{Cut, MadeCheck},
    websocket::WebSocket,
    when,
};

#[tokio::test]
async fn a_function_answers_and_tells_what_it_saw() {
    let function = origin().echo().start().await;
    let mut caller = Connection::open(function.address).await;
    let answer = caller.send(post("/a?b=c").host("x.test").header("X-One", "1").body("hello")).await;
    let seen = answer.json();
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["target"], "/a?b=c");
    assert_eq!(seen["body"], "hello");
    let last = function.last();
    assert_eq!(last.header("host"), Some("x.test"));
    assert_eq!(last.header("x-one"), Some("1"));
    caller.send("/again").await;
    assert_eq!((function.requests(), function.connections()), (2, 1));
    assert_eq!(function.last().nth, 1);
}

/// What a caller with that plan gets back of `0123456789` from a function that echoes the body.
async fn broken(write: Option<(u64, Fault)>, read: Option<(u64, Fault)>) -> Result<String, String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echoes = tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut io, &mut heard).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut io, b"0123456789").await;
        (ended.is_ok(), heard)
    });
    let mut caller = Faulty::new(tokio::net::TcpStream::connect(address).await.unwrap(), Plan { write, read });
    let wrote = tokio::io::AsyncWriteExt::write_all(&mut caller, b"abcdefghij").await;
    let mut heard = Vec::new();
    if wrote.is_ok() {
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut caller).await;
        let _ = tokio::time::timeout(2 * STALL, tokio::io::AsyncReadExt::read_to_end(&mut caller, &mut heard)).await;
    }
    drop(caller);
    let (ended, arrived) = echoes.await.unwrap();
    let arrived = String::from_utf8_lossy(&arrived).into_owned();
    if ended { Ok(format!("{arrived} {}", String::from_utf8_lossy(&heard))) } else { Err(arrived) }
}

#[tokio::test]
async fn each_fault_strikes_where_it_is_told_to() {
    let fine = Ok("abcdefghij 0123456789".to_owned());
    assert_eq!(broken(None, None).await, fine);
    assert_eq!(broken(Some((3, Fault::Reset)), None).await, Err("abc".to_owned()));
    assert_eq!(broken(Some((3, Fault::Close)), None).await, Ok("abc ".to_owned()));
    assert_eq!(broken(Some((3, Fault::HalfClose)), None).await, Ok("abc 0123456789".to_owned()));
    assert_eq!(broken(Some((3, Fault::Stall)), None).await, Ok("abc ".to_owned()));
    assert_eq!(broken(Some((3, Fault::Dribble)), None).await, fine);
    let garbled = broken(Some((3, Fault::Garbage)), None).await.unwrap();
    assert!(garbled.starts_with("abc") && garbled.ends_with("defghij 0123456789") && garbled.len() > 21, "{garbled}");
    assert_eq!(broken(None, Some((4, Fault::Reset))).await, Ok("abcdefghij 0123".to_owned()));
    assert_eq!(broken(None, Some((4, Fault::Close))).await, Ok("abcdefghij 0123".to_owned()));
    assert_eq!(broken(None, Some((4, Fault::Stall))).await, Ok("abcdefghij 0123".to_owned()));
    assert_eq!(broken(None, Some((0, Fault::Dribble))).await, fine);
}

#[tokio::test]
async fn chunks_trailers_and_made_bodies_arrive_whole() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/chunks" => Reply::chunks(&["one", "two"]).trailer("x-sum", "6"),
            _ => Reply::made(1_000_003),
        })
        .start()
        .await;
    let mut caller = Connection::open(function.address).await;
    let answer = caller.send("/chunks").await;
    assert_eq!(answer.text(), "onetwo");
    assert_eq!(answer.trailers.first("x-sum"), Some("6"));
    let answer = caller.send("/made").await;
    let mut check = MadeCheck::default();
    check.take(&answer.body);
    assert_eq!(check.bytes, 1_000_003);
}

#[tokio::test]
async fn faults_look_like_faults() {
    let function = origin()
        .answers(|seen| match seen.target.as_str() {
            "/vanish" => Reply::vanish(),
            "/close" => Reply::made(1000).cut(10, Cut::Close),
            "/reset" => Reply::made(1000).cut(10, Cut::Reset),
            "/short" => Reply::text("short").claims(100).then_close(),
            _ => Reply::raw("HTTP/9.9 what\r\n").cut(5, Cut::Reset),
        })
        .start()
        .await;
    for (path, how) in [
        ("/vanish", "no answer: closed"),
        ("/close", "answer broke off: ended in the middle of a body"),
        ("/reset", "answer broke off: Connection reset"),
        ("/short", "answer broke off: ended in the middle of a body"),
    ] {
        let mut caller = Connection::open(function.address).await;
        let broken = caller.try_send(path).await.unwrap_err().to_string();
        assert!(broken.starts_with(how), "{path}: {broken}");
    }
}

#[tokio::test]
async fn a_gated_answer_waits_and_a_fed_one_comes_piece_by_piece() {
    let door = gate();
    let function = origin().reply(Reply::text("late").after(&door)).start().await;
    let mut caller = Connection::open(function.address).await;
    caller.write(get("/").bytes()).await;
    eventually("the request arrived", async || when(function.requests() == 1)).await;
    door.open();
    assert_eq!(caller.answer().await.text(), "late");

    let (reply, feed) = Reply::fed();
    function.now_answers(move |_| reply.clone());
    caller.begin("/").await;
    for piece in ["one", "two"] {
        feed.send(piece);
        assert_eq!(caller.piece().await.unwrap().unwrap(), piece);
    }
    drop(feed);
    function.now_answers(|_| Reply::text("over"));
    assert!(caller.piece().await.unwrap().is_none());
}

#[tokio::test]
async fn idle_connections_close_and_a_dead_function_refuses() {
    let function = origin().start().await;
    let mut caller = Connection::open(function.address).await;
    caller.send("/").await;
    assert_eq!(function.open(), 1);
    function.close_idle().await;
    assert!(caller.closes_within(Duration::from_secs(5)).await);
    function.die().await;
    assert!(Connection::try_open(function.address).await.is_err());
}

#[tokio::test]
async fn h2_and_tls_reach_a_function() {
    let authority = authority();
    let leaf = authority.leaf(&["fn.test"]);
    let function = origin().reply(Reply::text("over tls").trailer("grpc-status", "0")).tls_h2(&leaf).start().await;
    let caller = authority.caller(&["h2"]);
    let (h2, agreed) = H2::tls(function.address, &caller, "fn.test").await;
    assert_eq!(agreed.peer, leaf.der);
    let answer = h2.send(post("/x").body("ping")).await;
    assert_eq!(answer.text(), "over tls");
    assert_eq!(answer.trailers.first("grpc-status"), Some("0"));
    assert_eq!(function.last().sni.as_deref(), Some("fn.test"));
    assert_eq!(function.last().version, "HTTP/2.0");
    assert_eq!(function.last().body, b"ping");

    let plain = origin().h2c().reply("plain h2").start().await;
    let answer = H2::plain(plain.address).await.send("/").await;
    assert_eq!(answer.text(), "plain h2");
}

#[tokio::test]
async fn a_websocket_echoes() {
    let function = origin().reply(Reply::websocket()).start().await;
    let caller = Connection::open(function.address).await;
    let mut socket = WebSocket::open(caller, "/ws").await;
    for text in ["hello", &"x".repeat(300)] {
        socket.say(text).await.unwrap();
        assert_eq!(socket.hear().await.unwrap().as_deref(), Some(text));
    }
    socket.close().await.unwrap();
}

#[tokio::test]
async fn the_load_counts_stale_connections_apart_from_failures() {
    // Every connection is closed, unannounced, behind its second answer.
    let function = origin()
        .answers(|seen| match seen.nth {
            1 => Reply::text("ok").then_close(),
            _ => Reply::text("ok"),
        })
        .start()
        .await;
    let load = load(function.address, 400);
    eventually("a hundred answers", async || when(load.so_far().ok() >= 100)).await;
    function.now_answers(|seen| match seen.nth {
        1 => Reply::text("ok").then_close(),
        _ => Reply::text("down").status(503),
    });
    eventually("a failure", async || when(!load.so_far().failed.is_empty())).await;
    let tally = load.finish().await;
    assert!(tally.stale > 0, "{tally:?}");
    assert!(tally.failed.iter().all(|f| f == "503 down"), "{tally:?}");
    assert_eq!(tally.ok() + tally.failed.len(), tally.sent);
}

#[test]
fn a_config_is_filled_in_where_a_test_says_nothing() {
    let text =
        "[server]\n    drain = \"1s\"\n[listener.x]\naddress = \"unix:@DIR@/x\"\n[admin]\n[route.f]\nworkers = 9\n";
    let filled: toml::Table = fill_in(text, Path::new("/tmp/t"), 3).parse().unwrap();
    assert_eq!(filled["server"]["drain"].as_str(), Some("1s"));
    assert_eq!(filled["server"]["workers"].as_integer(), Some(3));
    assert_eq!(filled["server"]["state_dir"].as_str(), Some("/tmp/t/state"));
    assert_eq!(filled["admin"]["address"].as_str(), Some("127.0.0.1:0"));
    assert_eq!(filled["log"]["access"].as_str(), Some("/tmp/t/access.log"));
    let listeners = filled["listener"].as_table().unwrap();
    assert_eq!(listeners.len(), 1);
    assert_eq!(listeners["x"]["address"].as_str(), Some("unix:/tmp/t/x"));

    let filled: toml::Table = fill_in("", Path::new("/tmp/t"), 1).parse().unwrap();
    assert_eq!(filled["listener"]["in"]["address"].as_str(), Some("127.0.0.1:0"));
}

#[test]
fn log_lines_and_metrics_are_read() {
    let line = "2026 INFO gatepost: reload result=\"applied\" generation=7 change=\"a b\"";
    assert_eq!(word(line, "result").as_deref(), Some("applied"));
    assert_eq!(word(line, "generation").as_deref(), Some("7"));
    assert_eq!(word(line, "change").as_deref(), Some("a b"));
    assert_eq!(word(line, "none"), None);

    let metrics = Metrics::parse("# HELP a x\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nb 5e-1\n");
    assert_eq!(metrics.sum("a", &[("x", "1")]), 7.0);
    assert_eq!(metrics.sum("a", &[("x", "1"), ("y", "3")]), 4.0);
    assert_eq!((metrics.sum("b", &[]), metrics.sum("c", &[])), (0.5, 0.0));
}
