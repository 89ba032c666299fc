use std::{
    collections::VecDeque,
    sync::atomic::AtomicUsize,
    task::{Wake, Waker},
    thread,
};

use proptest::prelude::*;

use super::{places as arrange, *};
use crate::config::{Sources, parse};

const V1: VersionId = VersionId(0);
const V2: VersionId = VersionId(1);
const NOW: Now = Now(0);

fn config(concurrency: &str, v2: &str) -> Config {
    let text = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\n\
         versions = {{ v1 = \"http://f.test\", v2 = {{ url = \"http://f.test\"{v2} }} }}\nweights = {{ v1 = 100 }}\n\
         {concurrency}\n[route.f]\nfunction = \"f\"\n"
    );
    parse(&Sources::new([("t.toml", text)])).unwrap_or_else(|report| panic!("{report}"))
}

fn of(concurrency: &str) -> Places {
    let config = config(&format!("concurrency = {{ {concurrency} }}"), "");
    arrange(&config, None, NOW).remove(0).unwrap()
}

fn got(asked: Asked) -> Place {
    match asked {
        Asked::Got(place) => place,
        other => panic!("no place: {other:?}"),
    }
}

fn waits(asked: Asked) -> Turn {
    match asked {
        Asked::Waits(turn) => turn,
        other => panic!("it does not wait: {other:?}"),
    }
}

fn ask(places: &Places, criticality: Criticality) -> Asked {
    places.ask(V1, criticality, NOW)
}

fn poll(turn: &mut Turn) -> Poll<Result<Place, NoPlace>> {
    turn.poll(&Context::from_waker(Waker::noop()), || NOW)
}

#[test]
fn without_concurrency_there_is_nothing() {
    assert!(arrange(&config("", ""), None, NOW)[0].is_none());
    assert!(arrange(&config("", ", concurrency = { max = 1 }"), None, NOW)[0].is_some());
}

#[test]
fn who_is_dropped_with_a_place_in_hand_hands_it_on() {
    let places = of("max = 1");
    let first = got(ask(&places, Criticality::Normal));
    let second = waits(ask(&places, Criticality::Normal));
    let mut third = waits(ask(&places, Criticality::Normal));
    places.give_back(first, NOW);
    // It was granted, and its task is dropped before it hears of it.
    drop(second);
    let Poll::Ready(Ok(place)) = poll(&mut third) else { panic!("the place is lost") };
    assert_eq!(places.numbers(NOW).in_use, 1);
    places.give_back(place, NOW);
    let numbers = places.numbers(NOW);
    assert_eq!((numbers.in_use, numbers.waiting, numbers.gone, numbers.served), (0, 0, 1, 1));
}

#[test]
fn who_gives_up_just_as_its_place_comes_has_it() {
    let places = of("max = 1");
    let first = got(ask(&places, Criticality::Normal));
    let second = waits(ask(&places, Criticality::Normal));
    places.give_back(first, NOW);
    let place = second.give_up(Now(5)).unwrap();
    assert_eq!(place.waited, Duration::from_nanos(5));
    places.give_back(place, NOW);
    let first = got(ask(&places, Criticality::Normal));
    let second = waits(ask(&places, Criticality::Normal));
    assert_eq!(second.give_up(NOW).unwrap_err(), NoPlace::Late);
    assert_eq!(places.numbers(NOW).waiting, 0);
    places.give_back(first, NOW);
}

#[test]
fn a_reload_knows_function_and_version_by_their_names() {
    let one = config("concurrency = { max = 5 }", ", concurrency = { max = 1 }");
    let old = arrange(&one, None, NOW);
    let places = old[0].clone().unwrap();
    let place = got(places.ask(V2, Criticality::Normal, NOW));
    let mut turn = waits(places.ask(V2, Criticality::Normal, NOW));
    // v2 loses its own cap: who waits for that waits no more.
    let two = config("concurrency = { max = 5 }", "");
    let next = arrange(&two, Some((&one, &old)), NOW);
    let Poll::Ready(Ok(second)) = poll(&mut turn) else { panic!("it waits on") };
    // And gets it back while calls of the time before are under way: they count.
    let last = arrange(&one, Some((&two, &next)), NOW);
    let last = last[0].clone().unwrap();
    let turn = waits(last.ask(V2, Criticality::Normal, NOW));
    places.give_back(place, NOW);
    assert_eq!(last.numbers(NOW).in_use, 1);
    places.give_back(second, NOW);
    drop(turn);
    assert_eq!(last.numbers(NOW).in_use, 0);
    assert_eq!(last.numbers(NOW).waiting, 0);
}

#[test]
fn versions_that_come_and_go_leave_nothing_behind() {
    let mut before: Option<(Config, Vec<Option<Places>>)> = None;
    for n in 0..50 {
        let text = format!(
            "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\n\
             versions = {{ v{n} = {{ url = \"http://f.test\", concurrency = {{ max = 1 }} }} }}\n[route.f]\nfunction = \"f\"\n"
        );
        let config = parse(&Sources::new([("t.toml", text)])).unwrap_or_else(|report| panic!("{report}"));
        let next = arrange(&config, before.as_ref().map(|(c, p)| (c, &p[..])), NOW);
        let place = got(next[0].as_ref().unwrap().ask(V1, Criticality::Normal, NOW));
        next[0].as_ref().unwrap().give_back(place, NOW);
        before = Some((config, next));
    }
    let places = before.unwrap().1.remove(0).unwrap();
    let lanes = places.shared.slow().lanes.len();
    assert!(lanes <= 3, "{lanes} lanes");
}

#[test]
fn time_alone_lets_those_who_wait_go_on() {
    let places = of("max = 10, growth = { rate = \"2/s\", burst = 1 }");
    let first = got(ask(&places, Criticality::Normal));
    let mut second = waits(ask(&places, Criticality::Normal));
    places.go_on(Now(250_000_000));
    assert!(poll(&mut second).is_pending());
    places.go_on(Now(510_000_000));
    let Poll::Ready(Ok(second)) = poll(&mut second) else { panic!("it waits on") };
    places.give_back(first, NOW);
    places.give_back(second, NOW);
}

#[test]
fn a_place_that_was_grown_is_gone_after_a_while_for_who_finds_one_free_too() {
    let places = of("growth = { rate = \"10/s\", burst = 1 }, queue = 0");
    let mut held = Vec::new();
    for ms in 0..1_000_u64 {
        if let Asked::Got(place) = places.ask(V1, Criticality::Normal, Now(ms * 1_000_000)) {
            held.push(place);
        }
    }
    assert_eq!(held.len(), 10);
    for place in held {
        places.give_back(place, Now(1_000_000_000));
    }
    let later = Now(200_000_000_000);
    let one = got(places.ask(V1, Criticality::Normal, later));
    assert!(matches!(places.ask(V1, Criticality::Normal, later), Asked::Refused(NoPlace::Full)));
    places.give_back(one, later);
}

#[derive(Debug, Clone)]
enum Step {
    Ask(bool, Criticality),
    GiveBack(usize),
    Leave(usize),
    Late(usize),
    SetMax(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let criticality = prop::sample::select(&Criticality::ALL[..]);
    prop_oneof![
        5 => (any::<bool>(), criticality).prop_map(|(second, criticality)| Step::Ask(second, criticality)),
        3 => any::<usize>().prop_map(Step::GiveBack),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::Late),
        1 => (1..6_u32).prop_map(Step::SetMax),
    ]
}

/// What places are, in the plainest words: two lists.
#[derive(Default)]
struct Naive {
    max: usize,
    /// Request, and whether it is of v2, which may have two.
    held: Vec<(usize, bool)>,
    waiting: VecDeque<(usize, bool, Criticality)>,
    displaced: Vec<usize>,
}

impl Naive {
    const QUEUE: usize = 4;

    fn has_room(&self, second: bool) -> bool {
        self.held.len() < self.max && !(second && self.held.iter().filter(|(_, s)| *s).count() >= 2)
    }

    fn settle(&mut self) {
        loop {
            let next = (0..self.waiting.len()).filter(|at| self.has_room(self.waiting[*at].1));
            let Some(at) = next.min_by_key(|at| (self.waiting[*at].2, self.waiting[*at].0)) else { return };
            let (name, second, _) = self.waiting.remove(at).unwrap();
            self.held.push((name, second));
        }
    }

    fn ask(&mut self, name: usize, second: bool, criticality: Criticality) {
        if self.has_room(second) {
            return self.held.push((name, second));
        }
        if self.waiting.len() >= Self::QUEUE {
            let below = (0..self.waiting.len()).filter(|at| self.waiting[*at].2 > criticality);
            let Some(at) = below.max_by_key(|at| (self.waiting[*at].2, self.waiting[*at].0)) else { return };
            self.displaced.push(self.waiting.remove(at).unwrap().0);
        }
        self.waiting.push_back((name, second, criticality));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn who_has_a_place_is_who_a_naive_model_says(steps in prop::collection::vec(step(), 0..120)) {
        let written = |max: u32| config(&format!("concurrency = {{ max = {max}, queue = 4 }}"), ", concurrency = { max = 2 }");
        let mut now = written(3);
        let mut all = arrange(&now, None, NOW);
        let mut naive = Naive { max: 3, ..Naive::default() };
        let mut held: Vec<(usize, Place)> = Vec::new();
        let mut turns: Vec<(usize, Turn)> = Vec::new();
        for (name, step) in steps.into_iter().enumerate() {
            let places = all[0].clone().unwrap();
            match step {
                Step::Ask(second, criticality) => {
                    naive.ask(name, second, criticality);
                    match places.ask(if second { V2 } else { V1 }, criticality, NOW) {
                        Asked::Got(place) => held.push((name, place)),
                        Asked::Waits(turn) => turns.push((name, turn)),
                        Asked::Refused(why) => prop_assert_eq!(why, NoPlace::Full),
                    }
                }
                Step::GiveBack(at) if !held.is_empty() => {
                    let (name, place) = held.remove(at % held.len());
                    naive.held.retain(|(other, _)| *other != name);
                    naive.settle();
                    places.give_back(place, NOW);
                }
                Step::Leave(at) if !turns.is_empty() => {
                    let (name, turn) = turns.remove(at % turns.len());
                    naive.waiting.retain(|(other, ..)| *other != name);
                    drop(turn);
                }
                Step::Late(at) if !turns.is_empty() => {
                    let (name, turn) = turns.remove(at % turns.len());
                    naive.waiting.retain(|(other, ..)| *other != name);
                    prop_assert_eq!(turn.give_up(NOW).unwrap_err(), NoPlace::Late);
                }
                Step::SetMax(max) => {
                    naive.max = max as usize;
                    naive.settle();
                    let next = written(max);
                    all = arrange(&next, Some((&now, &all)), NOW);
                    now = next;
                }
                _ => {}
            }
            let mut still = Vec::new();
            for (name, mut turn) in turns {
                match poll(&mut turn) {
                    Poll::Pending => still.push((name, turn)),
                    Poll::Ready(Ok(place)) => held.push((name, place)),
                    Poll::Ready(Err(why)) => {
                        prop_assert_eq!(why, NoPlace::Displaced);
                        prop_assert!(naive.displaced.contains(&name));
                    }
                }
            }
            turns = still;
            held.sort_by_key(|(name, _)| *name);
            let mut expected: Vec<_> = naive.held.iter().map(|(name, _)| *name).collect();
            expected.sort_unstable();
            prop_assert_eq!(held.iter().map(|(name, _)| *name).collect::<Vec<_>>(), expected);
            let numbers = all[0].as_ref().unwrap().numbers(NOW);
            prop_assert_eq!((numbers.in_use as usize, numbers.waiting as usize), (naive.held.len(), naive.waiting.len()));
        }
        let places = all[0].clone().unwrap();
        drop(turns);
        for (_, place) in held {
            places.give_back(place, NOW);
        }
        let numbers = places.numbers(NOW);
        prop_assert_eq!((numbers.in_use, numbers.waiting), (0, 0));
    }
}

/// Wakes a thread.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Many threads at once, some of which give up: never more than may be, nobody forgotten, nothing left.
#[test]
fn threads_never_have_too_many_and_none_is_forgotten() {
    const MAX: usize = 3;
    let places = of(&format!("max = {MAX}, queue = 1000"));
    let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..8_usize {
            let (places, inside, most) = (&places, &inside, &most);
            scope.spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                let cx = Context::from_waker(&waker);
                for n in 0..2_000_usize {
                    let place = match places.ask(V1, Criticality::ALL[n % 3], NOW) {
                        Asked::Got(place) => place,
                        Asked::Refused(why) => panic!("{why:?}"),
                        Asked::Waits(turn) if (n + number) % 7 == 0 => {
                            drop(turn);
                            continue;
                        }
                        Asked::Waits(mut turn) => loop {
                            match turn.poll(&cx, || NOW) {
                                Poll::Ready(place) => break place.unwrap(),
                                // Whoever is forgotten waits for ever here, and the test with it.
                                Poll::Pending => thread::park(),
                            }
                        },
                    };
                    most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                    if n % 5 == 0 {
                        thread::yield_now();
                    }
                    inside.fetch_sub(1, SeqCst);
                    places.give_back(place, NOW);
                }
            });
        }
    });
    assert!((1..=MAX).contains(&most.into_inner()));
    let numbers = places.numbers(NOW);
    assert_eq!((numbers.in_use, numbers.waiting), (0, 0));
}
