use super::*;
use crate::config::model::{Check, ProbeMethod};

fn seconds(at: u64) -> Now {
    Now(at * 1_000_000_000)
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 443))
}

fn health() -> Health {
    Health {
        consecutive_failures: 3,
        base_ejection_time: Duration::from_secs(20),
        max_ejection_time: Duration::from_secs(60),
        check: None,
    }
}

/// An attempt at that second.
fn when(second: u64) -> (Now, Now) {
    (seconds(second), seconds(second))
}

fn fails(resting: &Resting, address: SocketAddr, second: u64, times: usize, all: &[SocketAddr]) {
    for _ in 0..times {
        resting.failed(address, when(second), &health(), all);
    }
}

fn out(resting: &Resting, all: &[SocketAddr]) -> Vec<(SocketAddr, u64)> {
    resting.told(all).iter().map(|rests| (rests.address, rests.time.as_secs())).collect()
}

fn standing(resting: &Resting, address: SocketAddr, second: u64) -> Standing {
    resting.look().standing(&address, seconds(second))
}

#[test]
fn one_that_fails_while_others_answer_goes_and_rests_longer_each_time() {
    let (resting, all) = (Resting::default(), [at(1), at(2)]);
    fails(&resting, at(1), 100, 2, &all);
    resting.answered(at(1), when(100));
    fails(&resting, at(1), 100, 2, &all);
    assert!(out(&resting, &all).is_empty() && resting.look().is_quiet(), "an answer ended the row");
    fails(&resting, at(1), 100, 1, &all);
    assert_eq!(out(&resting, &all), [(at(1), 20)]);
    assert_eq!((standing(&resting, at(1), 119), standing(&resting, at(2), 119)), (Standing::Bad, Standing::Good));
    // What was under way when it went says nothing of it now, well or not.
    resting.failed(at(1), (seconds(99), seconds(130)), &health(), &all);
    resting.answered(at(1), (seconds(110), seconds(130)));
    assert_eq!(out(&resting, &all), [(at(1), 20)]);
    assert_eq!(standing(&resting, at(1), 130), Standing::Probe, "one request tries it");
    assert_eq!(standing(&resting, at(1), 131), Standing::Bad, "and only one");
    fails(&resting, at(1), 131, 1, &all);
    assert_eq!(out(&resting, &all), [(at(1), 40)]);
    assert_eq!(standing(&resting, at(1), 170), Standing::Bad);
    assert_eq!(standing(&resting, at(1), 171), Standing::Probe);
    fails(&resting, at(1), 171, 1, &all);
    assert_eq!(out(&resting, &all), [(at(1), 60)], "never longer");
    assert_eq!(standing(&resting, at(1), 231), Standing::Probe);
    resting.answered(at(1), when(231));
    assert!(out(&resting, &all).is_empty());
    assert_eq!(standing(&resting, at(1), 231), Standing::Good);
    assert_eq!((resting.take_ejections(), resting.take_ejections()), (3, 0));
    // Well for twice as long as it had rested: two are forgotten, the next is the second.
    fails(&resting, at(1), 231 + 120, 3, &all);
    assert_eq!(out(&resting, &all), [(at(1), 40)]);
}

#[test]
fn where_all_fail_none_goes_and_the_last_one_never() {
    let (resting, all) = (Resting::default(), [at(1), at(2), at(3)]);
    for _ in 0..20 {
        all.iter().for_each(|address| fails(&resting, *address, 1, 1, &all));
    }
    assert!(out(&resting, &all).is_empty());
    // One of them is mended: the others are now seen to be worse, one after the other.
    resting.answered(at(3), when(2));
    fails(&resting, at(1), 2, 1, &all);
    fails(&resting, at(2), 2, 1, &all);
    assert_eq!(out(&resting, &all), [(at(1), 20), (at(2), 20)]);
    fails(&resting, at(3), 3, 50, &all);
    assert_eq!(out(&resting, &all).len(), 2, "it is the last");
    let alone = Resting::default();
    fails(&alone, at(1), 1, 50, &[at(1)]);
    assert_eq!((out(&alone, &[at(1)]).len(), alone.len()), (0, 0));
}

#[test]
fn one_that_cannot_be_connected_to_goes_at_once_and_out_when_that_goes_on() {
    let (resting, all) = (Resting::default(), [at(1), at(2)]);
    for probe in 0..3 {
        resting.unconnected(at(1), seconds(10 * probe), &all);
        fails(&resting, at(1), 10 * probe, 1, &all);
        assert_eq!(standing(&resting, at(1), 10 * probe + 9), Standing::Bad);
    }
    assert_eq!(out(&resting, &all), [(at(1), 20)]);
    resting.connected(at(1));
    assert_eq!(standing(&resting, at(1), 39), Standing::Bad, "a connection is no answer");
    let other = Resting::default();
    other.unconnected(at(1), seconds(1), &all);
    other.connected(at(1));
    assert_eq!(standing(&other, at(1), 1), Standing::Good);
    // One that others can't be connected to is not well either.
    other.unconnected(at(2), seconds(1), &all);
    fails(&other, at(1), 1, 9, &all);
    assert!(out(&other, &all).is_empty());
}

#[test]
fn probes_put_one_out_and_only_they_bring_it_back() {
    let (resting, all) = (Resting::default(), [at(1), at(2)]);
    let check = Check {
        method: ProbeMethod::Head,
        path: "/".to_owned(),
        every: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        statuses: vec![(200, 299)],
        fall: 2,
        rise: 2,
    };
    let health = Health { check: Some(check), ..health() };
    resting.follow(Some(&health));
    let probe = |second, is_well| resting.checked(at(1), is_well, seconds(second), &health, &all);
    probe(1, false);
    probe(2, true);
    probe(3, false);
    assert!(out(&resting, &all).is_empty());
    probe(4, false);
    assert_eq!(out(&resting, &all), [(at(1), 20)]);
    assert_eq!(standing(&resting, at(1), 100), Standing::Bad, "no request tries it");
    resting.answered(at(1), when(100));
    resting.failed(at(1), when(100), &health, &all);
    assert_eq!(out(&resting, &all), [(at(1), 20)]);
    probe(5, true);
    probe(6, true);
    assert_eq!(out(&resting, &all), [(at(1), 20)], "it rests at least so long");
    probe(30, true);
    assert!(out(&resting, &all).is_empty());
    // Where health is not asked for any more, nobody is out.
    probe(31, false);
    probe(32, false);
    assert_eq!(out(&resting, &all).len(), 1);
    resting.follow(None);
    assert!(out(&resting, &all).is_empty() && resting.look().is_quiet());
}

#[test]
fn what_the_name_no_longer_has_is_forgotten() {
    let (resting, all) = (Resting::default(), [at(1), at(2)]);
    fails(&resting, at(1), 1, 3, &all);
    let now = [at(2), at(3)];
    assert!(out(&resting, &now).is_empty());
    fails(&resting, at(3), 2, 1, &now);
    assert_eq!(resting.len(), 1);
}
