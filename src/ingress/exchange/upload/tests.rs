use std::future::poll_fn;

use tokio::io::AsyncReadExt;

use super::*;

fn head(fields: &[(&'static str, &'static str)]) -> RequestHeader {
    let mut head = RequestHeader::build("PUT", b"/a?b", None).unwrap();
    for (name, value) in fields {
        head.insert_header(*name, *value).unwrap();
    }
    head
}

/// What goes out of it.
async fn sent(mut upload: Upload, pieces: &[&[u8]]) -> String {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut stream: Stream = Box::new(near);
    for (i, piece) in pieces.iter().enumerate() {
        upload.push(Bytes::copy_from_slice(piece), i + 1 == pieces.len()).unwrap();
        poll_fn(|cx| upload.poll(cx, &mut stream)).await;
    }
    assert!(upload.is_sent() && !upload.waits());
    drop(stream);
    let mut all = String::new();
    far.read_to_string(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn a_body_goes_out_as_it_was_announced() {
    let with_length = Upload::new(&head(&[("Content-Length", "5")]), true);
    assert_eq!(sent(with_length, &[b"he", b"llo"]).await, "PUT /a?b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
    let chunked = Upload::new(&head(&[("Transfer-Encoding", "chunked")]), true);
    let text = sent(chunked, &[b"he", b"", b"llo", b""]).await;
    assert!(text.ends_with("\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), "{text}");
    let text = sent(Upload::new(&head(&[]), false), &[b""]).await;
    assert_eq!(text, "PUT /a?b HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn a_body_of_unknown_length_is_chunked() {
    let text = sent(Upload::new(&head(&[]), true), &[b"hello"]).await;
    assert_eq!(text, "PUT /a?b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_large_piece_goes_out_whole_and_closed() {
    let large = vec![b'x'; 100_000];
    let text = sent(Upload::new(&head(&[]), true), &[&large, b"y"]).await;
    let body = text.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body, format!("186a0\r\n{}\r\n1\r\ny\r\n0\r\n\r\n", "x".repeat(100_000)));
}

#[test]
fn a_body_that_is_shorter_or_longer_than_it_said_goes_no_further() {
    let upload = || Upload::new(&head(&[("Content-Length", "5")]), true);
    assert!(upload().push("hell".into(), true).is_err());
    assert!(upload().push("hello!".into(), false).is_err());
    assert!(upload().push("hello".into(), true).is_ok());
}
