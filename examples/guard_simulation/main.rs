//! How often the guard errs and how soon it sees, over thousands of releases that never were:
//! `cargo run --release --example guard_simulation [RUNS]`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod sim;

use std::{env, thread, time::Instant};

use gatepost::release::guard::Terms;
use sim::{Ran, TERMS, World, run};

fn main() {
    let runs = env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
    println!(
        "{runs} runs a row; seeds 1 to {runs}; the canary has 5 % of the requests; of the baseline's answers 0.2 % fail\n"
    );
    println!(
        "one hour of a canary that is no worse; bound on false alarms 0.1 %: {} in {runs}; asked: 20 in 10,000",
        runs as f64 / 1000.0
    );
    println!("{:<52} {:>10} {:>16} {:>9}", "", "sent back", "called healthy", "took");
    for tolerate in [1.0, 1.5] {
        for rate in [20, 200, 20_000] {
            row(&format!("{rate} requests/s"), World { rate, ..World::HEALTHY }, tolerate, runs);
        }
        row("200 requests/s, who fails tries 20 times", World { retries: 20, ..World::HEALTHY }, tolerate, runs);
    }
    shared_outage(runs);
    println!("\na canary that is worse, 200 requests/s");
    println!("asked of the medians: `tolerate = 1.0` 400, 45, 14 and 3 s, `1.5` 900, 60, 16 and 3 s");
    println!("{:<52} {:>10} {:>7} {:>7} {:>7} {:>9}", "", "sent back", "median", "95 %", "99 %", "took");
    for (bad_from, seconds) in [(0, 3600), (3600, 7200)] {
        for tolerate in [1.0, 1.5] {
            for percent in [0.6, 2.0, 5.0, 50.0] {
                let world = World { canary: percent / 100.0, bad_from, seconds, ..World::HEALTHY };
                let since = if bad_from > 0 { ", after a good hour" } else { "" };
                let begun = Instant::now();
                let runs = if bad_from > 0 { runs / 10 } else { runs };
                let all = all(&world, Terms { tolerate, ..TERMS }, runs);
                let mut worse: Vec<u64> =
                    all.iter().map(|ran| ran.worse.map_or(u64::MAX, |s| s.saturating_sub(bad_from))).collect();
                worse.sort_unstable();
                let seen = worse.iter().filter(|s| **s < u64::MAX).count();
                let at = |part: f64| match worse[((worse.len() - 1) as f64 * part) as usize] {
                    u64::MAX => "-".to_owned(),
                    seconds => format!("{seconds} s"),
                };
                println!(
                    "{:<52} {:>10} {:>7} {:>7} {:>7} {:>7.1} s",
                    format!("{percent} % fail{since}, tolerate = {tolerate:?}"),
                    format!("{seen}"),
                    at(0.5),
                    at(0.95),
                    at(0.99),
                    begun.elapsed().as_secs_f64()
                );
            }
        }
    }
}

fn row(what: &str, world: World, tolerate: f64, runs: u64) {
    let begun = Instant::now();
    let all = all(&world, Terms { tolerate, ..TERMS }, runs);
    let worse = all.iter().filter(|ran| ran.worse.is_some()).count();
    let mut healthy: Vec<u64> = all.iter().filter_map(|ran| ran.healthy).collect();
    healthy.sort_unstable();
    let median = healthy.get(all.len() / 2).map_or_else(|| "not in an hour".to_owned(), |s| format!("median {s} s"));
    let name = format!("{what}, tolerate = {tolerate:?}");
    println!("{name:<52} {worse:>10} {median:>16} {:>7.1} s", begun.elapsed().as_secs_f64());
}

/// Both versions fail 25 times as often for five minutes of twenty: who is sent back by that, and who is anyway.
fn shared_outage(runs: u64) {
    let (from, to, times) = (600, 900, 25.0);
    let world = World { outage: Some((from, to, times)), seconds: 1200, ..World::HEALTHY };
    println!("\n20 minutes at 200 requests/s, in which both fail {times} times as often from second {from} to {to}");
    println!("sent back, of {runs}; asked: none in the outage");
    println!(
        "{:<52} {:>10} {:>13} {:>16} {:>11} {:>9}",
        "", "before it", "in the outage", "the minute after", "later on", "took"
    );
    for tolerate in [1.0, 1.5] {
        let begun = Instant::now();
        let all = all(&world, Terms { tolerate, ..TERMS }, runs);
        // `worse` is the number of the second at whose end it fell, and counts from 1.
        let within = |first: u64, last: u64| {
            all.iter().filter(|ran| ran.worse.is_some_and(|second| (first..=last).contains(&second))).count()
        };
        println!(
            "{:<52} {:>10} {:>13} {:>16} {:>11} {:>7.1} s",
            format!("tolerate = {tolerate:?}"),
            within(1, from),
            within(from + 1, to),
            within(to + 1, to + 60),
            within(to + 61, world.seconds),
            begun.elapsed().as_secs_f64()
        );
    }
}

/// All runs of a world, on all cores; the same whatever their number.
fn all(world: &World, terms: Terms, runs: u64) -> Vec<Ran> {
    let cores = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    thread::scope(|scope| {
        let of =
            |core| move || (1..=runs).filter(|seed| seed % cores == core).map(|seed| run(world, terms, seed)).collect();
        let threads: Vec<_> = (0..cores).map(|core| scope.spawn(of(core))).collect();
        threads
            .into_iter()
            .flat_map(|thread: thread::ScopedJoinHandle<'_, Vec<Ran>>| thread.join().unwrap_or_default())
            .collect()
    })
}
