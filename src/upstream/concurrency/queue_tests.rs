use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push(usize, Criticality),
    /// The next one of the lanes with room.
    Take([bool; 3]),
    /// Somebody leaves: whoever stands there.
    Leave(usize),
    Displace(Criticality),
}

fn criticality() -> impl Strategy<Value = Criticality> {
    prop::sample::select(&Criticality::ALL[..])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, criticality()).prop_map(|(lane, criticality)| Step::Push(lane, criticality)),
        2 => any::<[bool; 3]>().prop_map(Step::Take),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => criticality().prop_map(Step::Displace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Against a plain list of all, sorted whenever somebody asks.
    #[test]
    fn the_order_is_that_of_a_sorted_list(steps in prop::collection::vec(step(), 0..200)) {
        let mut queue = Queue::new();
        let mut list: Vec<(usize, Criticality, u32, Ticket)> = Vec::new();
        for (name, step) in (0_u32..).zip(steps) {
            match step {
                Step::Push(lane, criticality) => {
                    let ticket = queue.push(lane, criticality, name);
                    prop_assert_eq!(ticket.lane(), lane);
                    list.push((lane, criticality, name, ticket));
                }
                Step::Take(has_room) => {
                    let expected = list.iter().filter(|one| has_room[one.0]).min_by_key(|one| (one.1, one.2)).copied();
                    let ticket = queue.first(|lane| has_room[lane]);
                    prop_assert_eq!(ticket, expected.map(|one| one.3));
                    if let (Some(ticket), Some(one)) = (ticket, expected) {
                        prop_assert_eq!(queue.remove(ticket), Some(one.2));
                        list.retain(|other| other.2 != one.2);
                    }
                }
                Step::Leave(at) if !list.is_empty() => {
                    let (_, _, name, ticket) = list.remove(at % list.len());
                    prop_assert_eq!(queue.remove(ticket), Some(name));
                    prop_assert_eq!(queue.remove(ticket), None, "twice");
                }
                Step::Leave(_) => {}
                Step::Displace(criticality) => {
                    let below = list.iter().filter(|one| one.1 > criticality);
                    let expected = below.max_by_key(|one| (one.1, one.2)).map(|one| one.3);
                    prop_assert_eq!(queue.last_below(criticality), expected);
                }
            }
            prop_assert_eq!(queue.len(), list.len());
            for lane in 0..3 {
                prop_assert_eq!(queue.lane_is_empty(lane), !list.iter().any(|one| one.0 == lane));
            }
        }
    }
}
