//! `[function.NAME] timeouts`: each is short for the one gatepost and long for the other, and the function is too slow for the one.

use std::time::Duration;

use tokio::{net::TcpListener, task::JoinHandle};

use super::{Proof, leaf::Leaf, table};
use crate::harness::{Gateway, Reply, gate, get, h2::H2, origin, post};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.timeouts.connect", connect),
        ("function.*.timeouts.first_byte", first_byte),
        ("function.*.timeouts.idle", idle),
        ("function.*.timeouts.write", write),
        ("function.*.timeouts.total", total),
    ]
}

/// With these other times.
async fn hasty(leaf: &Leaf, url: &str, others: &str) -> [Gateway; 2] {
    let config = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n\
         [function.f]\nversions = {{ v1 = \"{url}\" }}\ntimeouts = {{ {others}LEAF }}\n[route.f]\nfunction = \"f\"\n"
    );
    let key = leaf.key();
    leaf.pair(&config, &format!("{key} = \"400ms\""), &format!("{key} = \"50s\"")).start().await
}

/// The one's access log has this to say of its only request, and the other waits on.
async fn gives_up(both: &[Gateway; 2], class: &str) {
    assert_eq!(both[0].log_line().await["class"], class);
    let other = std::fs::read_to_string(both[1].dir().join("access.log")).unwrap_or_default();
    assert_eq!(other, "", "the other one gave up as well");
}

/// Sends it to both over h2, the patient one first, and leaves it there.
async fn send_h2(both: &[Gateway; 2]) -> Vec<JoinHandle<()>> {
    let mut callers = Vec::new();
    for gateway in both.iter().rev() {
        let h2 = H2::plain(gateway.address("in")).await;
        callers.push(tokio::spawn(async move { drop(h2.try_send("/").await) }));
    }
    callers
}

/// Somebody who takes connections and never says a word: TLS with it comes to no end.
async fn connect(leaf: Leaf) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let both = hasty(&leaf, &format!("https://{}", silent.local_addr().unwrap()), "").await;
    let mut patient = both[1].connect().await;
    patient.write(get("/").bytes()).await;
    let answer = both[0].get("/").await;
    assert!([502, 504].contains(&answer.status), "{answer:?}");
    assert!(["upstream_unreachable", "upstream_timeout"].contains(&answer.reason()), "{answer:?}");
    let (said, closed) = patient.wire.rest(Duration::from_millis(10)).await;
    assert!(said.is_empty() && !closed, "the other one gave up as well");
}

async fn first_byte(leaf: Leaf) {
    let never = gate();
    let f = origin().reply(Reply::text("late").after(&never)).start().await;
    let both = hasty(&leaf, &f.url(), "").await;
    let mut patient = both[1].connect().await;
    patient.write(get("/").bytes()).await;
    both[0].get("/").await.is_problem(504, "upstream_timeout");
    gives_up(&both, "timeout").await;
    never.open();
    assert_eq!(patient.answer().await.text(), "late");

    // Over h2 an attempt has one time for every read, the longer of this and `idle`.
    let never = gate();
    let f = origin().reply(Reply::text("late").after(&never)).start().await;
    let both = hasty(&leaf, &f.url(), "idle = \"100ms\", ").await;
    let _callers = send_h2(&both).await;
    gives_up(&both, "timeout").await;
}

async fn idle(leaf: Leaf) {
    let stalls = || origin().reply(Reply::chunks(&["one", "two"]).cut(4, crate::harness::reply::Cut::Hang)).start();
    let f = stalls().await;
    let both = hasty(&leaf, &f.url(), "").await;
    let (mut hasty_one, mut patient) = (both[0].connect().await, both[1].connect().await);
    patient.begin("/").await;
    hasty_one.begin("/").await;
    while let Ok(piece) = hasty_one.piece().await {
        assert!(piece.is_some(), "the answer had a proper end");
    }
    gives_up(&both, "timeout").await;

    let f = stalls().await;
    let both = hasty(&leaf, &f.url(), "first_byte = \"100ms\", ").await;
    let _callers = send_h2(&both).await;
    gives_up(&both, "timeout").await;
}

/// A function that takes the connection and reads nothing. It may have answered even so: that is waited for before the caller is told.
async fn write(leaf: Leaf) {
    const OTHERS: &str = "first_byte = \"1s\", idle = \"1s\", ";
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let both = hasty(&leaf, &format!("http://{}", deaf.local_addr().unwrap()), OTHERS).await;
    let mut callers = Vec::new();
    for gateway in both.iter().rev() {
        let mut caller = gateway.connect().await;
        // More than the kernel's buffers hold.
        let large = post("/").body(vec![0; 48 * 1024 * 1024]);
        callers.push(tokio::spawn(async move { drop(caller.try_send(large).await) }));
    }
    gives_up(&both, "timeout").await;
}

/// Never silent, and too long all the same.
async fn total(leaf: Leaf) {
    let trickle = || async {
        let feeding = tokio::sync::mpsc::unbounded_channel::<crate::harness::reply::Feed>();
        let (feeds, mut to_feed) = feeding;
        let f = origin()
            .answers(move |_| {
                let (reply, feed) = Reply::fed();
                drop(feeds.send(feed));
                reply
            })
            .start()
            .await;
        let feeder = tokio::spawn(async move {
            let mut all = Vec::new();
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            loop {
                tick.tick().await;
                while let Ok(feed) = to_feed.try_recv() {
                    all.push(feed);
                }
                all.retain(|feed| feed.try_send("x"));
            }
        });
        (f, feeder)
    };
    let (f, _feeder) = trickle().await;
    let both = hasty(&leaf, &f.url(), "").await;
    let (mut hasty_one, mut patient) = (both[0].connect().await, both[1].connect().await);
    patient.begin("/").await;
    hasty_one.begin("/").await;
    while let Ok(piece) = hasty_one.piece().await {
        assert!(piece.is_some(), "the answer had a proper end");
    }
    gives_up(&both, "timeout").await;

    let (f, _feeder) = trickle().await;
    let both = hasty(&leaf, &f.url(), "").await;
    let _callers = send_h2(&both).await;
    gives_up(&both, "timeout").await;
}
