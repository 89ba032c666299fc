//! A steady stream of requests, every one of them accounted for.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

use super::client::{Broken, Connection, Request, get};

/// What became of the requests.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    /// Answered with 200, by what the body said.
    pub(crate) by_body: BTreeMap<String, usize>,
    /// Kept connections that were closed before an answer's first byte, as HTTP/1.1 allows while nothing is in flight
    /// on them (RFC 9112 §9.3.1); the request went again on a fresh one.
    pub(crate) stale: usize,
    /// Everything else, in words.
    pub(crate) failed: Vec<String>,
}

impl Tally {
    pub(crate) fn ok(&self) -> usize {
        self.by_body.values().sum()
    }
}

/// A load that runs until [`Load::finish`].
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    pacer: JoinHandle<()>,
    tally: Arc<Mutex<Tally>>,
}

/// Sends so many requests a second to `address`, every second one on a kept connection, the others on fresh ones.
pub(crate) fn load(address: SocketAddr, per_second: u32) -> Load {
    load_of(address, per_second, get("/"))
}

pub(crate) fn load_of(address: SocketAddr, per_second: u32, request: Request) -> Load {
    let stop = watch::Sender::new(false);
    let tally = Arc::<Mutex<Tally>>::default();
    let pacer = tokio::spawn(pace(address, per_second, request, stop.subscribe(), tally.clone()));
    Load { stop, pacer, tally }
}

impl Load {
    pub(crate) fn so_far(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Stops sending, waits for every answer, and tells.
    pub(crate) async fn finish(self) -> Tally {
        self.stop.send_replace(true);
        self.pacer.await.unwrap();
        let tally = self.tally.lock().unwrap();
        tally.clone()
    }
}

type Kept = Arc<Mutex<Vec<Connection>>>;

async fn pace(
    address: SocketAddr,
    per_second: u32,
    request: Request,
    mut stop: watch::Receiver<bool>,
    tally: Arc<Mutex<Tally>>,
) {
    let kept = Kept::default();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
    // What a busy machine misses is caught up with, so that the rate holds.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running = tokio::task::JoinSet::new();
    for n in 0_usize.. {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        let (kept, tally, request) = (kept.clone(), tally.clone(), request.clone());
        tally.lock().unwrap().sent += 1;
        running.spawn(async move {
            let keep = n.is_multiple_of(2);
            one(address, request, keep.then_some(&kept), &tally).await;
        });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

async fn one(address: SocketAddr, request: Request, kept: Option<&Kept>, tally: &Mutex<Tally>) {
    let old = kept.and_then(|kept| kept.lock().unwrap().pop());
    let mut result = None;
    if let Some(mut connection) = old {
        match connection.try_send(request.clone()).await {
            Err(Broken::Nothing(_)) => tally.lock().unwrap().stale += 1,
            other => result = Some((connection, other)),
        }
    }
    if result.is_none() {
        match Connection::try_open(address).await {
            Ok(mut connection) => {
                let answer = connection.try_send(request).await;
                result = Some((connection, answer));
            }
            Err(e) => tally.lock().unwrap().failed.push(format!("connect: {e}")),
        }
    }
    match result {
        None => {}
        Some((_, Err(broken))) => tally.lock().unwrap().failed.push(broken.to_string()),
        Some((connection, Ok(answer))) => {
            if answer.status == 200 {
                let text = answer.text();
                *tally.lock().unwrap().by_body.entry(text).or_default() += 1;
            } else {
                let told = format!("{} {}", answer.status, answer.text());
                tally.lock().unwrap().failed.push(told);
            }
            let closes = answer.header("connection") == Some("close");
            if let (Some(kept), false) = (kept, closes) {
                kept.lock().unwrap().push(connection);
            }
        }
    }
}
