//! Many tunnels at once, for long: what is left behind, and what a reload does to them. With `GATEPOST_FULL=1` as many as the issue asks for.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::harness::{
    Gateway, eventually, full, gateway,
    proxy::{Client, Destination, echo},
    when,
};

async fn world() -> (Destination, Gateway, String) {
    let far = echo("127.0.0.9:0").await;
    let to = format!("127.0.0.9:{}", far.port());
    let text = format!(
        r#"
        [client.fn]
        networks = ["127.0.0.1/32"]
        [egress.listener.out]
        address = "127.0.0.1:0"
        [egress.rule.r]
        clients = ["fn"]
        to = ["{to}"]
        private = ["127.0.0.0/8"]
        "#
    );
    (far, gateway(text).start().await, to)
}

/// Comes, does something, and goes; `chance`: what.
async fn come_and_go(gate: std::net::SocketAddr, to: &str, chance: u64) {
    // Anything from gone at once to more bytes through than sockets hold.
    let Ok(mut stream) = TcpStream::connect(gate).await else { return };
    let kind = chance % 8;
    if kind == 0 {
        return;
    }
    let head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let part = if kind == 1 { &head[..head.len() / 2] } else { &head[..] };
    let _ = stream.write_all(part.as_bytes()).await;
    if kind == 2 {
        let _ = stream.set_zero_linger();
    }
    if kind > 3 {
        let _ = stream.write_all(&[b'x'; 30_000]).await;
    }
    if kind > 4 {
        let mut some = [0; 1000];
        let _ = stream.read(&mut some).await;
    }
    if kind > 6 {
        // Enough for a pipe, half of it ended, and gone with a reset while the echo comes.
        let mut some = vec![0; 256 * 1024];
        let (mut reader, mut writer) = stream.split();
        let there = async {
            for _ in 0..12 {
                let _ = writer.write_all(&[b'y'; 100_000]).await;
            }
            let _ = writer.shutdown().await;
        };
        let back = async {
            for _ in 0..12 {
                let _ = reader.read(&mut some).await;
            }
        };
        tokio::select! { () = there => {}, () = back => {} }
        let _ = stream.set_zero_linger();
    }
}

fn dice(seed: u64, round: u64) -> u64 {
    (seed << 32 | round).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40
}

#[tokio::test]
async fn clients_that_come_and_go_at_random_leave_nothing_behind() {
    let (_far, gate, to) = world().await;
    let (clients, rounds) = if full() { (2_000, [10, 50]) } else { (200, [0, 0]) };
    drop(gate.opened(&to).await);
    gate.counts("gatepost_egress_open", &[], 0.0).await;
    let before = gate.process().fds();
    let out = gate.address("egress.out");
    let mut held = Vec::new();
    let mut came = 0;
    for seconds in rounds {
        let until = Instant::now() + Duration::from_secs(seconds);
        let one = |seed: u64, to: String| async move {
            let mut round = 0;
            while round < 2 || Instant::now() < until {
                come_and_go(out, &to, dice(seed, round)).await;
                sleep(Duration::from_millis(dice(seed, round) % 400)).await;
                round += 1;
            }
            round
        };
        let all: Vec<_> = (0..clients).map(|seed| tokio::spawn(one(seed, to.clone()))).collect();
        for client in all {
            came += client.await.unwrap();
        }
        gate.counts("gatepost_egress_open", &[], 0.0).await;
        gate.counts("gatepost_connections", &[("listener", "egress.out")], 0.0).await;
        // Pipes that moved bytes are closed once nobody has wanted one for a while.
        eventually("all descriptors are closed", async || when(gate.process().fds() <= before + 2)).await;
        held.push(gate.process().anonymous());
    }
    println!(
        "{came} connections of {clients} clients; {} and then {} KiB of its own memory",
        held[0] / 1024,
        held[1] / 1024
    );
    // What the first round made the process take once is used again.
    assert!(held[1] <= held[0] + 8 * 1024 * 1024, "{held:?}");
}

#[tokio::test]
async fn reloads_under_load_fail_no_tunnel() {
    let (far, gate, to) = world().await;
    let (out, ask) = (gate.address("egress.out"), format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n"));
    // 500 a second for a minute, with a reload every 500 ms; whoever is late makes up for it.
    let (callers, each, reloads, pause) = if full() { (32, 938, 120, 500) } else { (8, 20, 6, 50) };
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let ask = ask.clone();
            tokio::spawn(async move {
                let mut tick = interval(Duration::from_millis(if full() { 64 } else { 10 }));
                tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
                for _ in 0..each {
                    tick.tick().await;
                    let mut client = Client(TcpStream::connect(out).await.unwrap());
                    assert_eq!(client.ask(&ask).await.status, 200);
                    assert_eq!(client.echoes("x").await, "x");
                }
                each
            })
        })
        .collect();
    let begun = Instant::now();
    for n in 0..reloads {
        gate.edit(|text| format!("{text}\n# {n}\n")).await;
        sleep(Duration::from_millis(pause)).await;
    }
    let reloaded = begun.elapsed();
    let mut opened = 0;
    for caller in callers {
        opened += caller.await.unwrap();
    }
    println!("{opened} tunnels in {:?}, {reloads} reloads in {reloaded:?}, 0 failed", begun.elapsed());
    gate.counts("gatepost_egress_connections_total", &[("result", "ok")], f64::from(opened)).await;
    assert_eq!(far.accepted(), opened as usize);
}

/// More than goes through user memory: long transfers take another way, and must give the same bytes.
#[tokio::test]
async fn long_transfers_arrive_whole_both_ways_whoever_is_slow() {
    let (_far, gate, to) = world().await;
    let size = if full() { 256 << 20 } else { 24 << 20 };
    // An odd period, so that what is lost, doubled or swapped shows.
    let byte = |at: usize| (at % 251) as u8;
    let mut client = gate.opened(&to).await;
    // Its output goes to some.
    let before = gate.process().pipes();
    let (mut reader, mut writer) = client.0.split();
    let send = async {
        let mut at = 0;
        let mut piece = 1000;
        while at < size {
            let n = piece.min(size - at);
            let bytes: Vec<u8> = (at..at + n).map(byte).collect();
            writer.write_all(&bytes).await.unwrap();
            at += n;
            // Small pieces and large ones: by a pipe, by a copy, and by a pipe again.
            piece = if at % 3 == 0 { 1_000 } else { 300_000 };
        }
        writer.shutdown().await.unwrap();
    };
    let receive = async {
        let (mut at, mut buffer) = (0, vec![0; 100_000]);
        let mut most = 0;
        loop {
            let n = reader.read(&mut buffer).await.unwrap();
            if n == 0 {
                break;
            }
            for got in &buffer[..n] {
                let want = if at < size { byte(at) } else { b" bye"[at - size] };
                assert_eq!(*got, want, "at {at}");
                at += 1;
            }
            most = most.max(gate.process().pipes());
            if at % 7 == 0 {
                // Behind now and then, so that what the other side has read must wait.
                sleep(Duration::from_millis(2)).await;
            }
        }
        (at, most)
    };
    let ((), (got, most)) = tokio::join!(send, receive);
    assert_eq!(got, size + 4);
    assert!(most > before, "it had no pipe of its own, ever: {most} ends, {before} before");
    eventually("its pipes are closed", async || when(gate.process().pipes() == before)).await;
    drop(client);
    let line = &gate.log(1).await[0];
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(size as u64), Some(size as u64 + 4)));
}
