//! Callers that take all the time in the world are closed at their deadline, and those beside them notice nothing.
//!
//! Each story prints what it measured; `GATEPOST_FULL=1` sends 2,000 slow callers in place of 200.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::{Barrier, watch},
    task::JoinSet,
};

use crate::harness::{Connection, Gateway, Origin, Reply, eventually, full, gateway, get, origin, when};

/// What a slow caller does once all of them are connected.
#[derive(Clone, Copy)]
struct Slow {
    /// Sent at once.
    first: &'static str,
    /// Sent again and again, after [`PAUSE`] each.
    then: &'static str,
    /// Whether it reads: so little, as often.
    reads: bool,
    /// What gatepost may hold for each, in bytes.
    holds: u64,
}

/// Of one that has sent a part of a head; of a body; that reads little of an answer.
const HEAD: u64 = 48 << 10;
const BODY: u64 = 256 << 10;
const ANSWER: u64 = 448 << 10;

/// What gatepost's memory may grow by for all together, beside.
const SLACK: u64 = 16 << 20;

/// Far beyond every deadline of the config.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// Well within every deadline that a caller could stretch by a sign of life.
const PAUSE: Duration = Duration::from_millis(200);

async fn in_front() -> (Gateway, Origin) {
    let function = origin()
        .answers(|seen| if seen.target == "/large" { Reply::made(1 << 30) } else { Reply::text("ok") })
        .start()
        .await;
    let gateway = gateway(format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        timeouts = {{ handshake = "2s", header = "2s", body = "2s", idle = "3s" }}
        [function.f]
        versions = {{ v1 = "{}" }}
        pool = {{ idle = "1s" }}
        [route.f]
        function = "f"
        "#,
        function.url()
    ))
    .start()
    .await;
    (gateway, function)
}

/// One honest caller: a request after another, until told to stop. How long each took, and what failed.
async fn honest(address: SocketAddr, stop: watch::Receiver<bool>) -> (Vec<Duration>, Vec<String>) {
    let (mut took, mut failed) = (Vec::new(), Vec::new());
    let mut connection = Connection::open(address).await;
    while !*stop.borrow() {
        let start = Instant::now();
        match connection.try_send(get("/")).await {
            Ok(answer) if answer.status == 200 => took.push(start.elapsed()),
            Ok(answer) => failed.push(format!("{answer:?}")),
            Err(broken) => {
                failed.push(broken.to_string());
                connection = Connection::open(address).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (took, failed)
}

/// How many honest callers there are.
const HONEST: usize = 4;

/// Honest callers while `beside` runs: the 99th percentile, how many requests, and what failed.
async fn honest_ones(address: SocketAddr, beside: impl Future<Output = ()>) -> (Duration, usize, Vec<String>) {
    let stop = watch::Sender::new(false);
    let callers: Vec<_> = (0..HONEST).map(|_| tokio::spawn(honest(address, stop.subscribe()))).collect();
    beside.await;
    stop.send_replace(true);
    let (mut took, mut failed) = (Vec::new(), Vec::new());
    for caller in callers {
        let (some, wrong) = caller.await.unwrap();
        took.extend(some);
        failed.extend(wrong);
    }
    took.sort();
    (took[took.len() * 99 / 100], took.len(), failed)
}

/// Dribbles on, whatever gatepost makes of it.
async fn slow(address: SocketAddr, slow: Slow, all: Arc<Barrier>) {
    let socket = TcpSocket::new_v4().unwrap();
    // What it doesn't read waits at gatepost, not here.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    all.wait().await;
    let _ = stream.write_all(slow.first.as_bytes()).await;
    loop {
        tokio::time::sleep(PAUSE).await;
        let _ = stream.write_all(slow.then.as_bytes()).await;
        if slow.reads {
            let _ = stream.read_u8().await;
        }
    }
}

/// So many slow callers at once: how many of them gatepost has not closed, when it was done with the others, and its memory at
/// its height.
async fn attack(gateway: &Gateway, kind: Slow, count: usize) -> (usize, Duration, u64) {
    let all = Arc::new(Barrier::new(count + 1));
    let mut callers: JoinSet<_> = (0..count).map(|_| slow(gateway.address("in"), kind, all.clone())).collect();
    all.wait().await;
    let (mut left, start, mut height) = (count, Instant::now(), 0);
    while left > 0 && start.elapsed() < GIVEN_UP {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let open = gateway.metrics().await.sum("gatepost_connections", &[]) as usize;
        left = open.saturating_sub(HONEST);
        height = height.max(gateway.process().rss());
    }
    callers.shutdown().await;
    (left, start.elapsed(), height)
}

/// Waits until nothing is left, and tells memory and descriptors.
async fn rest(gateway: &Gateway, function: &Origin) -> (u64, usize) {
    gateway.counts("gatepost_connections", &[], 0.0).await;
    gateway.counts("gatepost_in_flight", &[], 0.0).await;
    eventually("nothing is kept", async || when(function.open() == 0)).await;
    (gateway.process().rss(), gateway.process().fds())
}

async fn outlived(name: &str, kind: Slow) {
    let count = if full() { 2_000 } else { 200 };
    let (mut gateway, function) = in_front().await;
    let address = gateway.address("in");
    let alone = honest_ones(address, tokio::time::sleep(Duration::from_secs(2))).await;
    let before = rest(&gateway, &function).await;
    let mut slow = (count, Duration::ZERO, 0);
    let beside = honest_ones(address, async { slow = attack(&gateway, kind, count).await }).await;
    let after = rest(&gateway, &function).await;
    println!(
        "{name}: {count} closed within {:?}; honest p99 {:?} alone ({} requests), {:?} beside ({}); RSS {} → {} → {} KiB ({} each), {} → {} descriptors",
        slow.1,
        alone.0,
        alone.1,
        beside.0,
        beside.1,
        before.0 / 1024,
        slow.2 / 1024,
        after.0 / 1024,
        slow.2.saturating_sub(before.0) / 1024 / count as u64,
        before.1,
        after.1,
    );
    assert_eq!(slow.0, 0, "slow callers are still there");
    assert_eq!((alone.2, beside.2), (Vec::new(), Vec::new()), "honest ones that failed");
    let height = before.0 + SLACK + kind.holds * count as u64;
    assert!(slow.2 <= height, "memory: {} → {} KiB, at most {}", before.0 / 1024, slow.2 / 1024, height / 1024);
    assert!(after.1 <= before.1 + 8, "descriptors: {} → {}", before.1, after.1);
    // What was freed goes back to the system as others ask for memory; what many need for a moment is much more than this.
    eventually("memory goes back", async || {
        gateway.get("/").await;
        when(gateway.process().rss() <= before.0 + (48 << 20))
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dribbles_a_header() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ";
    outlived("slow header", Slow { first: head, then: "a", reads: false, holds: HEAD }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_at_all() {
    outlived("silence", Slow { first: "", then: "", reads: false, holds: HEAD }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_in_a_body() {
    let half = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhalf";
    outlived("stuck body", Slow { first: half, then: "", reads: false, holds: BODY }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read() {
    outlived(
        "no read",
        Slow { first: "GET /large HTTP/1.1\r\nHost: a\r\n\r\n", then: "", reads: false, holds: ANSWER },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_byte_now_and_then() {
    outlived(
        "slow read",
        Slow { first: "GET /large HTTP/1.1\r\nHost: a\r\n\r\n", then: "", reads: true, holds: ANSWER },
    )
    .await;
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dribbles_a_body() {
    let half = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhalf";
    outlived("slow body", Slow { first: half, then: "a", reads: false, holds: BODY }).await;
}

#[tokio::test]
async fn who_pauses_longer_than_its_function_may_has_the_whole_answer() {
    const SIZE: usize = 16 << 20;
    let function = origin().answers(|_| Reply::made(SIZE as u64)).start().await;
    let mut gateway = gateway(format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        timeouts = {{ body = "20s" }}
        [function.f]
        versions = {{ v1 = "{}" }}
        timeouts = {{ idle = "1s" }}
        [route.f]
        function = "f"
        "#,
        function.url()
    ))
    .start()
    .await;
    let mut caller = tokio::net::TcpStream::connect(gateway.address("in")).await.unwrap();
    caller.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    // It is the caller who is waited for: longer than its function may be silent.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let mut all = Vec::new();
    caller.read_to_end(&mut all).await.unwrap();
    assert!(all.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&all[..100.min(all.len())]));
    assert!(all.len() > SIZE, "{} of {SIZE} bytes", all.len());
    gateway.stop().await;
}
