//! What a caller gets who closes his side at the worst moment.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{super::conn::Info, *};
use crate::{
    config::model::ListenerTimeouts,
    ingress::{
        conn::ListenerKey,
        wire::{Socket, Wire},
    },
};

/// An IO that has read a request without a body, and who sent it.
async fn asked() -> (Box<Io>, UnixStream) {
    let (mut caller, socket) = UnixStream::pair().unwrap();
    let info = Info { listener: ListenerKey(0), peer: None, tls: false, is_told: false };
    let second = Duration::from_secs(1);
    let timeouts =
        ListenerTimeouts { handshake: second, header: second, body: second, idle: second, min_body_rate: None };
    let transport = Transport::Plain(Wire::new(Socket::Unix(socket)));
    let mut io = Io::http1(transport, Conn::new(info, timeouts));
    caller.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let limits = HeadLimits::default();
    let next = std::future::poll_fn(|cx| io.poll_head(cx, &limits)).await;
    assert!(matches!(next, Next::Head(..)), "{next:?}");
    (io, caller)
}

/// The end of his stream comes between the answer's first piece and the look for it, and nobody looks again.
#[tokio::test]
async fn what_was_gathered_goes_out_when_the_callers_end_is_seen() {
    let (mut io, mut caller) = asked().await;
    io.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
    AsyncWriteExt::shutdown(&mut caller).await.unwrap();
    // Until tokio has heard of it, so that one look finds it.
    std::future::poll_fn(|cx| match &io.transport {
        Transport::Plain(wire) if wire.is_quiet(cx) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
    assert_eq!(io.read(&mut [0; 1]).await.unwrap(), 0);
    // Straight from the socket: it is there by now, or never comes.
    let mut said = [0; 64];
    let read = rustix::io::read(&caller, &mut said).unwrap();
    assert_eq!(&said[..read], b"HTTP/1.1 200 OK\r\n\r\nhello");
}
