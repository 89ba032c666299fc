//! What a caller of HTTP/1.1 says and hears, byte by byte.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::*;
use crate::{
    config::model::ListenerTimeouts,
    ingress::{
        conn::{Conn, Info, ListenerKey},
        io::{Next, Transport},
        wire::{Socket, Wire},
    },
};

fn connection() -> (Box<Io>, UnixStream) {
    let (caller, socket) = UnixStream::pair().unwrap();
    let info = Info { listener: ListenerKey(0), peer: None, tls: false, is_told: false };
    let second = Duration::from_secs(1);
    let timeouts =
        ListenerTimeouts { handshake: second, header: second, body: second, idle: second, min_body_rate: None };
    let conn: Arc<Conn> = Conn::new(info, timeouts);
    (Io::http1(Transport::Plain(Wire::new(Socket::Unix(socket))), conn), caller)
}

/// A request, and who sent it.
async fn asks(text: &str) -> (Http1, UnixStream) {
    let (io, mut caller) = connection();
    caller.write_all(text.as_bytes()).await.unwrap();
    (next(io).await, caller)
}

async fn next(mut io: Box<Io>) -> Http1 {
    let limits = HeadLimits::default();
    match poll_fn(|cx| io.poll_head(cx, &limits)).await {
        Next::Head(own, head) => Http1::new(io, own, &head).unwrap_or_else(|(_, bad)| panic!("{bad:?}")),
        other => panic!("{other:?}"),
    }
}

fn answer(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).unwrap();
    for (name, value) in fields {
        head.append_header(*name, *value).unwrap();
    }
    head
}

async fn hears(mut caller: UnixStream) -> String {
    let mut said = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), caller.read_to_end(&mut said)).await;
    let said = String::from_utf8(said).unwrap();
    // Not the day's.
    let date = said.find("Date: ").map(|at| said[at..at + 37].to_owned()).unwrap_or_default();
    said.replace(&date, "")
}

#[tokio::test]
async fn a_head_is_what_was_sent() {
    let (own, _caller) =
        asks("\r\nPOST /a?b=%20 HTTP/1.1\r\nHost: x\r\nX-One:  a \r\nx-one: b\r\nContent-Length: 1\r\n\r\nz").await;
    let request = own.request();
    assert_eq!((request.method.as_str(), request.raw_path()), ("POST", &b"/a?b=%20"[..]));
    assert_eq!(request.headers.get_all("x-one").iter().collect::<Vec<_>>(), ["a", "b"]);
    assert!(!own.is_body_empty() && !own.is_body_done());
}

#[tokio::test]
async fn an_absolute_target_is_a_path_and_a_host() {
    let (own, _caller) = asks("GET http://host:80/a?b HTTP/1.0\r\nX-One: a\r\n\r\n").await;
    assert_eq!(own.request().raw_path(), b"/a?b");
    assert_eq!(own.request().headers["host"], "host:80");
    assert_eq!(own.request().headers["x-one"], "a");
    let (own, _caller) = asks("GET http://host HTTP/1.1\r\nHost: host\r\nX-One: a\r\n\r\n").await;
    assert_eq!((own.request().raw_path(), &own.request().headers["x-one"]), (&b"/"[..], &"a".parse().unwrap()));
}

#[tokio::test]
async fn a_target_that_is_no_uri_is_refused() {
    let (mut io, mut caller) = connection();
    caller.write_all(b"GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let limits = HeadLimits::default();
    let Next::Head(own, head) = poll_fn(|cx| io.poll_head(cx, &limits)).await else { panic!("the gate lets it pass") };
    let Err((_, bad)) = Http1::new(io, own, &head) else { panic!("it is no URI") };
    assert_eq!(bad.reason, Reason::BadRequest);
}

#[tokio::test]
async fn a_body_comes_without_its_framing_and_its_beginning_is_kept() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab";
    let (mut own, mut caller) = asks(head).await;
    own.keeps_body();
    assert_eq!(poll_fn(|cx| own.poll_piece(cx)).await.unwrap().unwrap(), "ab");
    caller.write_all(b"c\r\n2;x=y\r\nde\r\n0\r\nT: r\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(poll_fn(|cx| own.poll_piece(cx)).await.unwrap().unwrap(), "cde");
    assert!(poll_fn(|cx| own.poll_piece(cx)).await.unwrap().is_none());
    assert_eq!(own.kept().and_then(Kept::whole).unwrap(), "abcde");
    assert_eq!(own.bytes(), (5, 0));
    own.write_head(&mut answer(204, &[])).await.unwrap();
    let own = next(own.finish().await.unwrap()).await;
    assert_eq!(own.request().raw_path(), b"/next");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_of_its_caller() {
    let (mut own, caller) = asks("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    assert_eq!(poll_fn(|cx| own.poll_piece(cx)).await.unwrap().unwrap(), "ab");
    drop(caller);
    let error = poll_fn(|cx| own.poll_piece(cx)).await.unwrap_err();
    assert_eq!(error.esource(), &pingora_error::ErrorSource::Downstream);
}

#[tokio::test]
async fn answers_are_framed_by_their_length_by_chunks_or_by_the_connection() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut own, caller) = asks(get).await;
    own.write_head(&mut answer(200, &[("Content-Length", "5"), ("Connection", "upgrade")])).await.unwrap();
    own.write_body("hello, and more".into(), false).await.unwrap();
    assert_eq!(own.bytes(), (0, 5), "no more than was said goes out");
    drop(own.finish().await.expect("the connection serves another"));
    assert_eq!(hears(caller).await, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello");

    let (mut own, caller) = asks(get).await;
    own.write_head(&mut answer(200, &[("Transfer-Encoding", "chunked")])).await.unwrap();
    own.write_body("hello".into(), false).await.unwrap();
    own.write_body(Bytes::new(), true).await.unwrap();
    drop(own.finish().await.unwrap());
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(hears(caller).await, format!("{head}5\r\nhello\r\n0\r\n\r\n"));

    let (mut own, caller) = asks("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    own.write_head(&mut answer(103, &[])).await.unwrap();
    own.write_head(&mut answer(200, &[])).await.unwrap();
    own.write_body("hello".into(), true).await.unwrap();
    assert!(own.finish().await.is_none(), "its end is the connection's");
    assert_eq!(hears(caller).await, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello");
}

#[tokio::test]
async fn an_answer_shorter_than_it_says_ends_the_connection() {
    let (mut own, caller) = asks("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    own.write_head(&mut answer(200, &[("Content-Length", "5")])).await.unwrap();
    own.write_body("he".into(), false).await.unwrap();
    assert!(own.finish().await.is_none());
    drop(caller);
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    for (line, status) in [("HEAD / HTTP/1.1", 200), ("GET / HTTP/1.1", 204), ("GET / HTTP/1.1", 304)] {
        let (mut own, caller) = asks(&format!("{line}\r\nHost: a\r\n\r\n")).await;
        own.write_head(&mut answer(100, &[])).await.unwrap();
        own.write_head(&mut answer(status, &[("Content-Length", "5")])).await.unwrap();
        own.write_head(&mut answer(500, &[])).await.unwrap();
        own.write_body("hello".into(), true).await.unwrap();
        drop(own.finish().await.unwrap_or_else(|| panic!("{line} {status}")));
        let said = hears(caller).await;
        assert!(said.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 "), "{said}");
        assert!(said.ends_with("keep-alive\r\n\r\n") && !said.contains("500"), "{said}");
    }
}

/// RFC 9112 §9.6.
#[tokio::test]
async fn who_closes_his_side_may_wait_for_his_answer_unless_he_stands_in_a_queue() {
    let (mut own, mut caller) = asks("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    AsyncWriteExt::shutdown(&mut caller).await.unwrap();
    let waits = poll_fn(|cx| own.poll_gone(cx));
    assert!(tokio::time::timeout(Duration::from_millis(50), waits).await.is_err());
    own.aborts(true);
    assert!(poll_fn(|cx| own.poll_gone(cx)).await.is_err());
    own.aborts(false);
    own.write_head(&mut answer(204, &[])).await.unwrap();
    assert!(own.finish().await.is_none(), "nothing more comes");
    assert!(hears(caller).await.ends_with("Connection: close\r\n\r\n"));
}
