//! Places for calls: how many a function, and each of its versions, may have at a time over all workers; who waits for one, and how.
//!
//! While there is room and nobody waits, a place costs one atomic addition per cap and no lock. The lock is for whoever finds none,
//! and for whoever gives one back while others wait: it is held for a look at the queue, never while anybody waits for anything.
//! A place that was given back goes to the next in the queue at once, whichever worker that is on: it is woken with it in its hand.

mod ceiling;
mod queue;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use atomic_waker::AtomicWaker;

use crate::{
    config::{
        Config,
        model::{Concurrency, Criticality, Function, Name, VersionId},
    },
    decide::Now,
};
use ceiling::{ANY, Ceiling, Load};
use queue::{Queue, Ticket};

/// The places of one function, as one generation of the config knows them.
#[derive(Debug, Clone)]
pub struct Places {
    shared: Arc<Shared>,
    /// By [`VersionId`]; `None`: it has no cap of its own.
    lanes: Box<[Option<Arc<Lane>>]>,
}

/// A place; to be given back ([`Places::give_back`]).
#[derive(Debug)]
#[must_use]
pub struct Place {
    version: VersionId,
    /// How long it was waited for.
    pub waited: Duration,
}

/// What came of asking for a place.
#[derive(Debug)]
pub enum Asked {
    Got(Place),
    Waits(Turn),
    /// No place, and no room in the queue.
    Refused(NoPlace),
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// As many wait as may.
    Full,
    /// Somebody more critical came, and no room was left in the queue.
    Displaced,
    /// None came free in time.
    Late,
}

impl NoPlace {
    /// For callers.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Full => "the function works on as many requests as it may, and as many wait as may",
            Self::Displaced => {
                "the function works on as many requests as it may; a more critical one waits in this one's stead"
            }
            Self::Late => "the function works on as many requests as it may, and was not done with one in time",
        }
    }
}

/// What all generations and workers share of a function.
#[derive(Debug)]
struct Shared {
    name: Name,
    in_flight: AtomicU32,
    /// In force, as it came out last.
    limit: AtomicU32,
    waiting: AtomicU32,
    /// [`Now`] from which the limit must be looked at anew.
    due: AtomicU64,
    /// The most in flight since the limit was looked at.
    high: AtomicU32,
    is_adaptive: AtomicBool,
    slow: Mutex<Slow>,
    counts: Counts,
}

/// A version's own cap.
#[derive(Debug)]
struct Lane {
    version: Name,
    /// Its number in the queue.
    number: usize,
    in_flight: AtomicU32,
    limit: AtomicU32,
}

/// What only those touch who find no place, or others that wait.
#[derive(Debug)]
struct Slow {
    ceiling: Ceiling,
    bound: usize,
    wait: Duration,
    queue: Queue<Arc<Waiter>>,
    /// By number. The first is of the versions without a cap.
    lanes: Vec<Option<Arc<Lane>>>,
    /// The latest time that was told: workers read their clocks apart from each other.
    now: Now,
}

#[derive(Debug, Default)]
struct Counts {
    served: AtomicU64,
    waited_nanos: AtomicU64,
    late: AtomicU64,
    full: AtomicU64,
    displaced: AtomicU64,
    gone: AtomicU64,
    cuts: AtomicU64,
}

/// For metrics and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    pub in_use: u32,
    /// In force; `None`: none.
    pub limit: Option<u32>,
    /// What adapting has come to (`Some(None)`: no limit); `None`: the function does not.
    pub adapted: Option<Option<u32>>,
    pub waiting: u32,
    /// Requests that waited and got a place, and how long they waited together.
    pub served: u64,
    pub waited: Duration,
    /// Requests that got none.
    pub late: u64,
    pub full: u64,
    pub displaced: u64,
    /// Callers that went away while they waited.
    pub gone: u64,
    /// How often a throttled answer made the limit smaller.
    pub cuts: u64,
}

/// One that waits: changed under the lock alone, read by its own task.
#[derive(Debug)]
struct Waiter {
    state: AtomicU8,
    waker: AtomicWaker,
}

const WAITS: u8 = 0;
const GRANTED: u8 = 1;
const DISPLACED: u8 = 2;

impl Waiter {
    fn is(&self, state: u8) -> bool {
        self.state.load(SeqCst) == state
    }
}

/// The places of every function with `concurrency`, by [`FunctionId`](crate::config::model::FunctionId). Counts and queues of functions that
/// go by the same name go on; new numbers hold from here on, also for those who wait already.
pub fn places(config: &Config, old: Option<(&Config, &[Option<Places>])>, now: Now) -> Vec<Option<Places>> {
    let mut known: HashMap<&str, &Arc<Shared>> = HashMap::new();
    if let Some((old, places)) = old {
        let pairs = old.functions.iter().zip(places);
        known.extend(pairs.filter_map(|(function, places)| Some((&*function.name, &places.as_ref()?.shared))));
    }
    let new = config
        .functions
        .iter()
        .map(|function| {
            let written = function.concurrency.as_ref()?;
            let shared = known.remove(&*function.name).cloned().unwrap_or_else(|| Shared::new(&function.name));
            let lanes = shared.set(written, function, now);
            Some(Places { shared, lanes })
        })
        .collect();
    // Whose cap is gone, or who is: nobody there waits any more.
    for shared in known.into_values() {
        shared.lift(now);
    }
    new
}

impl Places {
    /// A place, if one is free and nobody waits. No lock, nothing allocated.
    pub fn take(&self, version: VersionId, now: Now) -> Option<Place> {
        let shared = &*self.shared;
        if shared.waiting.load(SeqCst) != 0 || now.0 >= shared.due.load(Relaxed) {
            return None;
        }
        let lane = self.lane(version);
        let before = shared.in_flight.fetch_add(1, SeqCst);
        if before >= shared.limit.load(Relaxed) || !lane.is_none_or(Lane::enter) {
            // Whoever saw this one come as one too many looks again: see `ask`.
            shared.in_flight.fetch_sub(1, SeqCst);
            return None;
        }
        shared.saw(before + 1);
        Some(Place { version, waited: Duration::ZERO })
    }

    /// A place, or one in the queue, or neither.
    pub fn ask(&self, version: VersionId, criticality: Criticality, now: Now) -> Asked {
        if let Some(place) = self.take(version, now) {
            return Asked::Got(place);
        }
        let (lane, shared) = (self.lane(version), &self.shared);
        let mut slow = shared.slow();
        let mut woken = shared.hand_out(&mut slow, now);
        let asked = if shared.enter(lane.map(|lane| &**lane)) {
            Asked::Got(Place { version, waited: Duration::ZERO })
        } else {
            let number = lane.map_or(0, |lane| lane.number);
            match shared.line_up(&mut slow, number, criticality) {
                Err(why) => Asked::Refused(why),
                Ok((ticket, waiter, displaced)) => {
                    woken.extend(displaced);
                    // A place that was given back before anybody waited is nobody's: now is the time to see it.
                    woken.extend(shared.hand_out(&mut slow, now));
                    let deadline = slow.wait;
                    let places = self.clone();
                    Asked::Waits(Turn { places, version, ticket, waiter, since: now, wait: deadline, is_over: false })
                }
            }
        };
        drop(slow);
        wake(woken);
        asked
    }

    /// Gives a place back; the next in the queue has it.
    pub fn give_back(&self, place: Place, now: Now) {
        if let Some(lane) = self.lane(place.version) {
            lane.in_flight.fetch_sub(1, SeqCst);
        }
        self.shared.in_flight.fetch_sub(1, SeqCst);
        self.go_on(now);
    }

    /// Gives out what has become free, or was granted by time. To be called now and then while requests wait.
    pub fn go_on(&self, now: Now) {
        let shared = &self.shared;
        if shared.waiting.load(SeqCst) != 0 {
            let woken = shared.hand_out(&mut shared.slow(), now);
            wake(woken);
        }
    }

    /// The platform said that a call, begun at `began`, was one too many.
    pub fn throttled(&self, now: Now, began: Now) {
        let shared = &self.shared;
        if !shared.is_adaptive.load(Relaxed) {
            return;
        }
        let mut slow = shared.slow();
        shared.look(&mut slow, now);
        let (now, in_flight) = (slow.now, shared.in_flight.load(SeqCst));
        if slow.ceiling.throttled(now, began, in_flight) {
            shared.counts.cuts.fetch_add(1, Relaxed);
        }
        shared.look(&mut slow, now);
    }

    pub fn name(&self) -> &Name {
        &self.shared.name
    }

    pub fn numbers(&self, now: Now) -> Numbers {
        let (shared, counts) = (&self.shared, &self.shared.counts);
        let mut slow = shared.slow();
        let limit = shared.look(&mut slow, now);
        let some = |limit| Some(limit).filter(|limit| *limit != ANY);
        Numbers {
            in_use: shared.in_flight.load(SeqCst),
            limit: some(limit),
            adapted: slow.ceiling.adapted().map(some),
            waiting: shared.waiting.load(SeqCst),
            served: counts.served.load(Relaxed),
            waited: Duration::from_nanos(counts.waited_nanos.load(Relaxed)),
            late: counts.late.load(Relaxed),
            full: counts.full.load(Relaxed),
            displaced: counts.displaced.load(Relaxed),
            gone: counts.gone.load(Relaxed),
            cuts: counts.cuts.load(Relaxed),
        }
    }

    fn lane(&self, version: VersionId) -> Option<&Arc<Lane>> {
        self.lanes.get(version.index())?.as_ref()
    }
}

impl Lane {
    /// Counts one more, if there is room.
    fn enter(self: &Arc<Self>) -> bool {
        let has_room = self.in_flight.fetch_add(1, SeqCst) < self.limit.load(Relaxed);
        if !has_room {
            self.in_flight.fetch_sub(1, SeqCst);
        }
        has_room
    }

    fn has_room(&self) -> bool {
        self.in_flight.load(SeqCst) < self.limit.load(Relaxed)
    }
}

impl Shared {
    fn new(name: &Name) -> Arc<Self> {
        Arc::new(Self {
            name: name.clone(),
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(ANY),
            waiting: AtomicU32::new(0),
            due: AtomicU64::new(u64::MAX),
            high: AtomicU32::new(0),
            is_adaptive: AtomicBool::new(false),
            slow: Mutex::new(Slow {
                ceiling: Ceiling::none(),
                bound: 0,
                wait: Duration::ZERO,
                queue: Queue::new(),
                lanes: vec![None],
                now: Now(0),
            }),
            counts: Counts::default(),
        })
    }

    /// A panic within would have left no half step: every change is one of plain data.
    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts new numbers in force. Gives back the lanes of the versions.
    fn set(&self, written: &Concurrency, function: &Function, now: Now) -> Box<[Option<Arc<Lane>>]> {
        let mut slow = self.slow();
        slow.ceiling = Ceiling::new(written, Some(&slow.ceiling), now);
        slow.bound = usize::try_from(written.queue).unwrap_or(usize::MAX);
        slow.wait = written.wait;
        self.is_adaptive.store(slow.ceiling.is_adaptive(), Relaxed);
        let capped = |name: &Name| function.versions.iter().any(|v| v.name == *name && v.max_concurrency.is_some());
        for number in 1..slow.lanes.len() {
            let Some(lane) = slow.lanes[number].clone() else { continue };
            if !capped(&lane.version) {
                // Whoever waits there waits for the function alone.
                lane.limit.store(ANY, Relaxed);
                if slow.queue.lane_is_empty(number) && lane.in_flight.load(SeqCst) == 0 {
                    slow.lanes[number] = None;
                }
            }
        }
        let lanes = function.versions.iter().map(|version| {
            let max = version.max_concurrency?;
            let known = slow.lanes.iter().flatten().find(|lane| lane.version == version.name).cloned();
            let lane = known.unwrap_or_else(|| slow.add_lane(&version.name));
            lane.limit.store(max.get(), Relaxed);
            Some(lane)
        });
        let lanes = lanes.collect();
        let woken = self.hand_out(&mut slow, now);
        drop(slow);
        wake(woken);
        lanes
    }

    /// Nothing is capped any more.
    fn lift(&self, now: Now) {
        let mut slow = self.slow();
        slow.ceiling = Ceiling::none();
        self.is_adaptive.store(false, Relaxed);
        for lane in slow.lanes.iter().flatten() {
            lane.limit.store(ANY, Relaxed);
        }
        let woken = self.hand_out(&mut slow, now);
        drop(slow);
        wake(woken);
    }

    fn saw(&self, in_flight: u32) {
        if in_flight > self.high.load(Relaxed) {
            self.high.fetch_max(in_flight, Relaxed);
        }
    }

    fn load(&self, slow: &Slow) -> Load {
        Load {
            in_flight: self.in_flight.load(SeqCst),
            waiting: u32::try_from(slow.queue.len()).unwrap_or(u32::MAX),
            high: self.high.load(Relaxed),
        }
    }

    /// Brings the limit up to date.
    fn look(&self, slow: &mut Slow, now: Now) -> u32 {
        slow.now = slow.now.max(now);
        let load = self.load(slow);
        self.high.store(load.in_flight, Relaxed);
        let limit = slow.ceiling.look(slow.now, load);
        self.limit.store(limit, Relaxed);
        self.due.store(slow.ceiling.due().0, Relaxed);
        limit
    }

    /// Counts one more of the function and of the lane, if both have room.
    fn enter(&self, lane: Option<&Lane>) -> bool {
        let limit = self.limit.load(Relaxed);
        if lane.is_some_and(|lane| !lane.has_room()) {
            return false;
        }
        let more = |in_flight: u32| (in_flight < limit).then_some(in_flight + 1);
        let Ok(before) = self.in_flight.fetch_update(SeqCst, SeqCst, more) else { return false };
        if let Some(lane) = lane {
            let limit = lane.limit.load(Relaxed);
            let more = |in_flight: u32| (in_flight < limit).then_some(in_flight + 1);
            if lane.in_flight.fetch_update(SeqCst, SeqCst, more).is_err() {
                self.in_flight.fetch_sub(1, SeqCst);
                return false;
            }
        }
        self.saw(before + 1);
        true
    }

    /// Gives what places there are to those who wait, in their order. Who is to be woken, once the lock is let go.
    fn hand_out(&self, slow: &mut Slow, now: Now) -> Vec<Arc<Waiter>> {
        let mut woken = Vec::new();
        self.look(slow, now);
        loop {
            let lanes = &slow.lanes;
            let lane_of = |number: usize| lanes.get(number).and_then(Option::as_deref);
            let Some(ticket) = slow.queue.first(|number| lane_of(number).is_none_or(Lane::has_room)) else { break };
            // One that is just trying, and will not have it, may stand in the way: it comes here itself then.
            if !self.enter(lane_of(ticket.lane())) {
                break;
            }
            let Some(waiter) = slow.queue.remove(ticket) else { break };
            self.waiting.fetch_sub(1, SeqCst);
            waiter.state.store(GRANTED, SeqCst);
            woken.push(waiter);
        }
        woken
    }

    /// Into the queue, in another's stead where it is full.
    fn line_up(&self, slow: &mut Slow, lane: usize, criticality: Criticality) -> Result<Lined, NoPlace> {
        let mut displaced = None;
        if slow.queue.len() >= slow.bound {
            let last = if slow.bound == 0 { None } else { slow.queue.last_below(criticality) };
            let Some(waiter) = last.and_then(|ticket| slow.queue.remove(ticket)) else {
                self.counts.full.fetch_add(1, Relaxed);
                return Err(NoPlace::Full);
            };
            self.waiting.fetch_sub(1, SeqCst);
            self.counts.displaced.fetch_add(1, Relaxed);
            waiter.state.store(DISPLACED, SeqCst);
            displaced = Some(waiter);
        }
        let waiter = Arc::new(Waiter { state: AtomicU8::new(WAITS), waker: AtomicWaker::new() });
        let ticket = slow.queue.push(lane, criticality, waiter.clone());
        self.waiting.fetch_add(1, SeqCst);
        Ok((ticket, waiter, displaced))
    }
}

/// A place in the queue, who stands there, and who had to go for it.
type Lined = (Ticket, Arc<Waiter>, Option<Arc<Waiter>>);

impl Slow {
    fn add_lane(&mut self, version: &Name) -> Arc<Lane> {
        let free = self.lanes.iter().skip(1).position(Option::is_none).map(|at| at + 1);
        let number = free.unwrap_or(self.lanes.len());
        let lane = Arc::new(Lane {
            version: version.clone(),
            number,
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(ANY),
        });
        match self.lanes.get_mut(number) {
            Some(free) => *free = Some(lane.clone()),
            None => self.lanes.push(Some(lane.clone())),
        }
        lane
    }
}

fn wake(woken: Vec<Arc<Waiter>>) {
    for waiter in woken {
        waiter.waker.wake();
    }
}

/// One that waits for a place. Dropped, it leaves the queue, and what it was given meanwhile goes to the next.
#[derive(Debug)]
pub struct Turn {
    places: Places,
    version: VersionId,
    ticket: Ticket,
    waiter: Arc<Waiter>,
    since: Now,
    wait: Duration,
    is_over: bool,
}

impl Turn {
    /// How long it may wait in all.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Its time is over: leaves the queue, unless it has its place by now.
    ///
    /// # Errors
    ///
    /// Why it has none.
    pub fn give_up(mut self, now: Now) -> Result<Place, NoPlace> {
        if self.leave() {
            self.places.shared.counts.late.fetch_add(1, Relaxed);
            return Err(NoPlace::Late);
        }
        self.settle(now)
    }

    /// How it ended. Only once it has.
    fn settle(&mut self, now: Now) -> Result<Place, NoPlace> {
        self.is_over = true;
        if self.waiter.is(DISPLACED) {
            return Err(NoPlace::Displaced);
        }
        let waited = now.0.saturating_sub(self.since.0);
        let counts = &self.places.shared.counts;
        counts.served.fetch_add(1, Relaxed);
        counts.waited_nanos.fetch_add(waited, Relaxed);
        Ok(Place { version: self.version, waited: Duration::from_nanos(waited) })
    }

    /// Leaves the queue; `false`: it stands there no more.
    fn leave(&mut self) -> bool {
        let shared = &self.places.shared;
        let mut slow = shared.slow();
        let is_there = self.waiter.is(WAITS) && slow.queue.remove(self.ticket).is_some();
        if is_there {
            shared.waiting.fetch_sub(1, SeqCst);
            self.is_over = true;
        }
        is_there
    }

    /// Ready with the place, or without one. `now` is asked for once it is.
    pub fn poll(&mut self, cx: &Context<'_>, now: impl FnOnce() -> Now) -> Poll<Result<Place, NoPlace>> {
        self.waiter.waker.register(cx.waker());
        if self.waiter.is(WAITS) {
            return Poll::Pending;
        }
        Poll::Ready(self.settle(now()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let has_left = self.leave();
        let is_granted = !has_left && self.waiter.is(GRANTED);
        if has_left || is_granted {
            self.places.shared.counts.gone.fetch_add(1, Relaxed);
        }
        if is_granted {
            self.places.give_back(Place { version: self.version, waited: Duration::ZERO }, self.since);
        }
    }
}

#[cfg(test)]
mod tests;
