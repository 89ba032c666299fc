use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn key(turn: u64) -> Key {
    Key { address: "192.0.2.1:443".parse().unwrap(), group: turn }
}

/// Puts a connection into the pool at time 0; the other end of it.
fn kept(key: Key, idle: Duration) -> DuplexStream {
    let (near, far) = duplex(64);
    put(key, Box::new(near), Now(0), idle);
    far
}

async fn is_closed(far: &mut DuplexStream) -> bool {
    matches!(far.read(&mut [0]).await, Ok(0))
}

#[tokio::test]
async fn the_one_that_was_put_back_last_is_taken_first_and_each_once() {
    let (mut first, mut second) = (kept(key(0), MINUTE), kept(key(0), MINUTE));
    for far in [&mut second, &mut first] {
        let mut near = take(key(0), Now(1)).unwrap();
        near.write_all(b"x").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
    }
    assert!(take(key(0), Now(1)).is_none());
}

#[tokio::test]
async fn connections_of_another_kind_are_not_taken() {
    let _far = kept(key(0), MINUTE);
    assert!(take(key(1), Now(1)).is_none());
    assert!(take(Key { address: "192.0.2.2:443".parse().unwrap(), ..key(0) }, Now(1)).is_none());
    assert!(take(key(0), Now(1)).is_some());
}

#[tokio::test]
async fn one_that_is_closed_or_speaks_unasked_or_waited_too_long_is_not_taken() {
    drop(kept(key(0), MINUTE));
    let mut speaks = kept(key(0), MINUTE);
    speaks.write_all(b"HTTP/1.1 408 Request Timeout\r\n").await.unwrap();
    let mut late = kept(key(0), Duration::from_nanos(5));
    assert!(take(key(0), Now(5)).is_none());
    assert!(is_closed(&mut late).await);
}

#[tokio::test]
async fn the_sweeper_closes_what_nobody_would_take_and_keeps_the_others() {
    let (mut late, gone) = (kept(key(0), Duration::from_nanos(5)), kept(key(1), MINUTE));
    let _stays = kept(key(1), MINUTE);
    drop(gone);
    sweep(Now(5));
    assert!(is_closed(&mut late).await);
    assert_eq!(COUNT.get(), 1);
    assert!(take(key(1), Now(6)).is_some());
    assert_eq!(COUNT.get(), 0);
}

#[tokio::test]
async fn a_worker_keeps_so_many_and_no_more() {
    let all: Vec<_> = (0..MOST).map(|_| kept(key(0), MINUTE)).collect();
    let mut one_more = kept(key(0), MINUTE);
    assert!(is_closed(&mut one_more).await);
    drop(all);
    sweep(Now(0));
    assert_eq!(COUNT.get(), 0);
}
