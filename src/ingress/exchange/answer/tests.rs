use proptest::prelude::*;

use super::*;

fn head(text: &str) -> ResponseHeader {
    *parse(text.as_bytes()).unwrap().unwrap()
}

fn left(text: &str, is_head: bool) -> Result<Left> {
    Left::of(&mut head(text), is_head)
}

fn read(left: &mut Left, bytes: &[u8]) -> (Vec<u8>, BytesMut) {
    let mut inbox = BytesMut::from(bytes);
    (left.take(&mut inbox).unwrap().to_vec(), inbox)
}

#[test]
fn a_head_is_read_with_its_reason_and_the_case_of_its_names() {
    let head = head("HTTP/1.1 418 Short And Stout\r\nX-Pot: a\r\nx-pot: b\r\n\r\n");
    assert_eq!((head.status.as_u16(), head.get_reason_phrase()), (418, Some("Short And Stout")));
    assert_eq!(head.headers.get_all("x-pot").iter().collect::<Vec<_>>(), ["a", "b"]);
    let mut wire = Vec::new();
    head.header_to_h1_wire(&mut wire);
    assert_eq!(wire, b"X-Pot: a\r\nx-pot: b\r\n");
}

#[test]
fn a_folded_field_becomes_one_line() {
    let head = head("HTTP/1.1 200 OK\r\nX-Long: one\r\n two\r\n\r\n");
    assert_eq!(head.headers["x-long"], "one two");
}

#[test]
fn what_is_no_head_is_refused() {
    for text in ["hello\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n"] {
        assert!(parse(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(parse(b"\r\n\r\n").unwrap().is_none());
}

#[test]
fn bodies_end_as_the_rfc_says() {
    let is = |text: &str, is_head, what: fn(&Left) -> bool| assert!(what(&left(text, is_head).unwrap()), "{text:?}");
    is("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, |left| matches!(left, Left::Bytes(5)));
    is("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n", false, |left| {
        matches!(left, Left::Bytes(5))
    });
    is("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, Left::is_over);
    is("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", false, Left::is_over);
    is("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 5\r\n\r\n", false, |left| {
        matches!(left, Left::Chunks(_))
    });
    is("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", false, |left| matches!(left, Left::Rest));
    is("HTTP/1.1 200 OK\r\n\r\n", false, |left| matches!(left, Left::Rest));
}

#[test]
fn lengths_that_contradict_each_other_are_none() {
    for length in ["5\r\nContent-Length: 6", "5, 6", "-5", "+5", "5 5", "", "99999999999999999999"] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        assert!(left(&text, false).is_err(), "{text:?}");
        assert!(left(&text, true).is_err(), "{text:?}");
    }
}

#[test]
fn a_connection_is_kept_where_both_sides_know_its_answers_end() {
    let keeps = |text: &str| {
        let mut head = head(text);
        Left::of(&mut head, false).unwrap().keeps(&head)
    };
    assert!(keeps("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"));
    assert!(keeps("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\n"));
    for text in [
        "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert!(!keeps(text), "{text:?}");
    }
}

#[test]
fn what_is_behind_a_body_stays() {
    let (body, behind) = read(&mut Left::Bytes(5), b"helloHTTP");
    assert_eq!((&body[..], &behind[..]), (&b"hello"[..], &b"HTTP"[..]));
    let mut chunks = Left::Chunks(Chunks::new());
    let (body, behind) = read(&mut chunks, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nHTTP");
    assert_eq!((&body[..], &behind[..]), (&b"hello"[..], &b"HTTP"[..]));
    assert!(chunks.is_over());
    assert!(Left::Chunks(Chunks::new()).take(&mut BytesMut::from(&b"zz\r\n"[..])).is_err());
}

proptest! {
    #[test]
    fn a_chunked_body_is_the_same_however_it_comes(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..6000), 0..6),
        cuts in prop::collection::vec(1usize..5000, 1..40),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            wire.extend_from_slice(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\nTrailer: t\r\n\r\n");
        let (mut left, mut inbox, mut body, mut at) = (Left::Chunks(Chunks::new()), BytesMut::new(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            prop_assert!(!left.is_over());
            let end = wire.len().min(at + cut);
            inbox.extend_from_slice(&wire[at..end]);
            at = end;
            body.extend_from_slice(&left.take(&mut inbox).unwrap());
            if at == wire.len() {
                break;
            }
        }
        prop_assert!(left.is_over() && inbox.is_empty());
        prop_assert_eq!(body, chunks.concat());
    }
}
