//! The guard's statistics, by a short run of the simulation that `cargo run --release --example guard_simulation` prints in full.

#[path = "../../examples/guard_simulation/sim.rs"]
mod sim;

use std::thread;

use gatepost::release::guard::Terms;
use sim::{Ran, TERMS, World};

use crate::harness::full;

fn run(world: World, tolerate: f64, runs: u64) -> Vec<Ran> {
    let runs = if full() { runs * 10 } else { runs };
    thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                let seeds = (1..=runs).filter(|seed| seed % 2 == half);
                seeds.map(|seed| sim::run(&world, Terms { tolerate, ..TERMS }, seed)).collect::<Vec<_>>()
            })
        });
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    })
}

fn sent_back(world: World, tolerate: f64, runs: u64) -> usize {
    run(world, tolerate, runs).iter().filter(|ran| ran.worse.is_some()).count()
}

#[test]
fn a_healthy_canary_is_hardly_ever_sent_back() {
    // 0.1 % of a few hundred is less than one; three would be a chance of one in thousands.
    for rate in [20, 200, 20_000] {
        let sent_back = sent_back(World { rate, seconds: 1800, ..World::HEALTHY }, 1.0, 100);
        assert!(sent_back <= 2, "{rate}/s: {sent_back}");
    }
}

#[test]
fn an_outage_of_what_both_share_sends_nobody_back() {
    let world = World { outage: Some((60, 360, 25.0)), seconds: 600, ..World::HEALTHY };
    assert!(sent_back(world, 1.0, 200) <= 2);
    assert_eq!(sent_back(world, 1.5, 200), 0);
}

#[test]
fn one_caller_who_tries_again_and_again_is_one_caller() {
    let world = World { retries: 20, seconds: 1800, ..World::HEALTHY };
    assert!(sent_back(world, 1.0, 50) <= 2);
}

#[test]
fn a_bad_canary_is_found_out_in_time() {
    for (tolerate, within) in [(1.0, [400, 45, 14, 3]), (1.5, [900, 60, 16, 3])] {
        for (percent, within) in [0.6, 2.0, 5.0, 50.0].into_iter().zip(within) {
            let mut all: Vec<u64> = run(World { canary: percent / 100.0, ..World::HEALTHY }, tolerate, 101)
                .iter()
                .map(|ran| ran.worse.unwrap_or(u64::MAX))
                .collect();
            all.sort_unstable();
            let median = all[all.len() / 2];
            assert!(median <= within, "{percent} %, tolerate = {tolerate}: {median} s");
        }
    }
}
