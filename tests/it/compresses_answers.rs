//! `compression`: for callers who ask, of what shrinks, as it comes (RFC 9110 §8.4, §12.5.3).

use std::io::Read;

use crate::harness::{Answer, Gateway, Origin, Reply, gateway, get, h2::H2, origin, request};

/// A gatepost that compresses what this function says.
async fn compressing(reply: Reply) -> (Gateway, Origin) {
    let function = origin().reply(reply).start().await;
    (in_front_of(&function, "").await, function)
}

async fn in_front_of(function: &Origin, more: &str) -> Gateway {
    gateway(format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"{}\" }}\n{more}\n\
         [route.f]\nfunction = \"f\"\ncompression = true\n",
        function.url()
    ))
    .workers(1)
    .start()
    .await
}

fn text() -> String {
    (0..2000).fold(String::new(), |all, n| format!("{all}line {n} of a text that says the same again\n"))
}

fn plain() -> Reply {
    Reply::text(text()).header("content-type", "text/plain").header("etag", "\"abc\"").header("accept-ranges", "bytes")
}

fn decoded(answer: &Answer) -> String {
    let mut out = Vec::new();
    match answer.header("content-encoding") {
        Some("gzip") => drop(flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut out).unwrap()),
        Some("br") => drop(brotli::Decompressor::new(&answer.body[..], 4096).read_to_end(&mut out).unwrap()),
        Some("zstd") => out = zstd::stream::decode_all(&answer.body[..]).unwrap(),
        None => out.extend_from_slice(&answer.body),
        other => panic!("{other:?}"),
    }
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn each_coding_comes_out_as_it_went_in_and_the_head_is_right() {
    let (gateway, function) = compressing(plain()).await;
    let h2 = H2::plain(gateway.address("in")).await;
    for coding in ["gzip", "br", "zstd"] {
        let mut connection = gateway.connect().await;
        let one = connection.send(get("/").header("accept-encoding", coding)).await;
        let other = h2.send(get("/").header("accept-encoding", coding)).await;
        for answer in [one, other] {
            assert_eq!((answer.status, answer.header("content-encoding")), (200, Some(coding)));
            assert!(answer.body.len() < 20_000, "{coding}: {}", answer.body.len());
            assert_eq!(decoded(&answer), text());
            assert_eq!(answer.header("content-length"), None);
            assert_eq!(answer.header("etag"), Some("W/\"abc\""));
            assert_eq!(answer.header("accept-ranges"), None);
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        }
        assert_eq!(
            function.last().header("accept-encoding"),
            Some(coding),
            "the function is asked as the caller asked"
        );
        // The connection is kept: where the answer ended was clear.
        assert_eq!(connection.send("/").await.status, 200);
    }
    let bytes = gateway.log(9).await.iter().map(|line| line["bytes_out"].as_u64().unwrap()).min().unwrap();
    assert!(bytes < 20_000, "the log tells what went out");
}

#[tokio::test]
async fn who_does_not_ask_gets_it_as_it_is() {
    let (gateway, _f) = compressing(plain()).await;
    for accept in [None, Some("identity"), Some("gzip;q=0"), Some("deflate"), Some("gzip;q=0.3, identity")] {
        let asked = accept.map_or_else(|| get("/"), |accept| get("/").header("accept-encoding", accept));
        let answer = gateway.send(asked).await;
        assert_eq!((answer.header("content-encoding"), decoded(&answer)), (None, text()));
        assert_eq!(answer.header("etag"), Some("\"abc\""));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "a cache must not mix them up");
    }
    // RFC 9110 §15.2: HTTP/1.0 knows no chunks. RFC 9111 §5.2.1.6: no-transform.
    let old = gateway.raw("GET / HTTP/1.0\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n").await;
    assert!(!old.to_lowercase().contains("content-encoding") && old.ends_with("again\n"), "{old:.300}");
    let asked = get("/").header("accept-encoding", "gzip").header("cache-control", "no-transform");
    assert_eq!(gateway.send(asked).await.header("content-encoding"), None);
}

#[tokio::test]
async fn what_does_not_suit_is_left_alone() {
    let function = origin().start().await;
    let gateway = in_front_of(&function, "").await;
    for (why, reply) in [
        ("small", Reply::text("small").header("content-type", "text/plain")),
        ("an image", Reply::text(text()).header("content-type", "image/png")),
        ("no type", Reply::text(text())),
        ("gRPC", Reply::text(text()).header("content-type", "application/grpc+json")),
        ("coded", plain().header("content-encoding", "br")),
        ("partial", plain().status(206).header("content-range", "bytes 0-9/10")),
        ("no-transform", plain().header("cache-control", "public, No-Transform")),
        ("an event stream", Reply::text(text()).header("content-type", "text/event-stream")),
        ("a digest", plain().header("content-digest", "sha-256=:x:")),
    ] {
        let same = reply.clone();
        function.now_answers(move |_| same.clone());
        let answer = gateway.send(get("/").header("accept-encoding", "gzip, br")).await;
        let own = if why == "coded" { Some("br") } else { None };
        assert_eq!(answer.header("content-encoding"), own, "{why}: {answer:?}");
        if why != "small" {
            assert_eq!(answer.body, text().as_bytes(), "{why}");
        }
    }
    let json = Reply::text(text()).header("content-type", "application/problem+json; charset=utf-8").status(404);
    function.now_answers(move |_| json.clone());
    let answer = gateway.send(get("/").header("accept-encoding", "gzip")).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (404, Some("gzip")), "errors, too, are text");
}

#[tokio::test]
async fn head_and_304_say_what_get_would_say() {
    let function = origin()
        .answers(|seen| match seen.header("if-none-match") {
            Some(_) => Reply::text("").status(304).header("etag", "\"abc\""),
            None => plain(),
        })
        .start()
        .await;
    let gateway = in_front_of(&function, "").await;
    let mut connection = gateway.connect().await;
    let head = connection.send(request("HEAD", "/").header("accept-encoding", "br")).await;
    assert_eq!((head.status, head.header("content-encoding"), head.body.len()), (200, Some("br"), 0));
    assert_eq!((head.header("content-length"), head.header("etag")), (None, Some("W/\"abc\"")));
    let again = |tag: &str| get("/").header("accept-encoding", "br").header("if-none-match", tag);
    let weak = connection.send(again("W/\"abc\"")).await;
    assert_eq!(
        (weak.status, weak.header("etag"), weak.header("vary")),
        (304, Some("W/\"abc\""), Some("Accept-Encoding"))
    );
    let strong = connection.send(again("\"abc\"")).await;
    assert_eq!((strong.status, strong.header("etag")), (304, Some("\"abc\"")));
    assert_eq!(connection.send(get("/")).await.text(), text());
}

#[tokio::test]
async fn a_stream_is_not_held_back() {
    let (reply, feed) = Reply::fed();
    let function = origin().reply(reply.header("content-type", "application/x-ndjson")).start().await;
    for coding in ["gzip", "br", "zstd"] {
        let (reply, feed) = if coding == "gzip" {
            (None, feed.clone())
        } else {
            let (reply, feed) = Reply::fed();
            (Some(reply.header("content-type", "application/x-ndjson")), feed)
        };
        if let Some(reply) = reply {
            function.now_answers(move |_| reply.clone());
        }
        let gateway = in_front_of(&function, "").await;
        let mut connection = gateway.connect().await;
        let asking = tokio::spawn(async move {
            let head = connection.begin(get("/").header("accept-encoding", coding)).await;
            (connection, head)
        });
        feed.send("{\"n\":1}\n");
        let (mut connection, head) = asking.await.unwrap();
        assert_eq!(head.fields.first("content-encoding"), Some(coding));
        // Each line arrives before the next is said.
        let mut coded = connection.piece().await.unwrap().expect("a piece").to_vec();
        for n in 2..5 {
            feed.send(format!("{{\"n\":{n}}}\n"));
            coded.extend_from_slice(&connection.piece().await.unwrap().expect("a piece"));
        }
        let line = "{\"n\":4}\n";
        let mut out = vec![0; 4 * line.len()];
        match coding {
            "gzip" => flate2::read::GzDecoder::new(&coded[..]).read_exact(&mut out).unwrap(),
            "br" => brotli::Decompressor::new(&coded[..], 4096).read_exact(&mut out).unwrap(),
            _ => zstd::stream::read::Decoder::new(&coded[..]).unwrap().read_exact(&mut out).unwrap(),
        }
        assert!(out.ends_with(line.as_bytes()), "{coding}: {}", String::from_utf8_lossy(&out));
    }
}

#[tokio::test]
async fn a_function_of_h2_is_compressed_too_with_trailers_or_without() {
    for trailers in [false, true] {
        let reply = if trailers { plain().trailer("x-sum", "1") } else { plain() };
        let function = origin().reply(reply).h2c().start().await;
        let gateway = in_front_of(&function, "http = \"2\"").await;
        let asked = || get("/").header("accept-encoding", "gzip");
        let one = gateway.send(asked()).await;
        let other = H2::plain(gateway.address("in")).await.send(asked()).await;
        for answer in [one, other] {
            assert_eq!(decoded(&answer), text(), "trailers {trailers}: {:?}", answer.fields);
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let function = origin().reply(plain().cut(5_000, crate::harness::reply::Cut::Close)).start().await;
    let gateway = in_front_of(&function, "").await;
    let answer = gateway.connect().await.try_send(get("/").header("accept-encoding", "gzip")).await;
    assert!(answer.is_err(), "{answer:?}");
    let log = gateway.log(1).await;
    assert_ne!(log[0]["class"], "ok");
}
