//! When what happened to the files has come to rest. Pure: the clock is an argument.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// After a change that is complete, alone.
const SETTLE: Duration = Duration::from_millis(10);
/// After the last of several.
const QUIET: Duration = Duration::from_millis(30);
/// Several changes are told at the latest so long after the first.
const AT_MOST: Duration = Duration::from_millis(250);
/// A file that vanished may be about to be written anew (an editor's backup by rename).
const VANISHED: Duration = Duration::from_millis(100);
/// A writer that neither writes nor closes for so long is not waited for.
const HELD: Duration = Duration::from_millis(400);
/// A file that nobody asked for by name does not hold up the others for longer.
const HELD_STRANGER: Duration = Duration::from_secs(5);
/// An empty file that somebody has open to write is waited for so long.
const HELD_EMPTY: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum State {
    /// Being written: its writer has not closed it.
    Held {
        since: Instant,
        last: Instant,
        stranger: bool,
    },
    Gone(Instant),
    /// Closed, or come into its place at once.
    Complete(Instant),
}

/// What changed since the last firing, by file.
#[derive(Debug)]
pub(super) struct Settle<K> {
    files: HashMap<K, State>,
    /// The first change that was complete.
    first: Option<Instant>,
}

impl<K: Hash + Eq> Settle<K> {
    pub(super) fn new() -> Self {
        Self { files: HashMap::new(), first: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Something was written, and the writer has the file still open. A `stranger` was not asked for by name.
    pub(super) fn written(&mut self, file: K, stranger: bool, now: Instant) {
        let since = match self.files.get(&file) {
            Some(State::Held { since, .. }) => *since,
            _ => now,
        };
        let held = State::Held { since, last: now, stranger };
        self.files.insert(file, held);
    }

    /// The file is as its writer wants it.
    pub(super) fn complete(&mut self, file: K, now: Instant) {
        self.first.get_or_insert(now);
        self.files.insert(file, State::Complete(now));
    }

    /// The file is not there any more. Strangers that go leave nothing to wait for.
    pub(super) fn gone(&mut self, file: K, stranger: bool, now: Instant) {
        self.first.get_or_insert(now);
        match stranger {
            true => self.complete(file, now),
            false => {
                self.files.insert(file, State::Gone(now));
            }
        }
    }

    /// Waits longer for the writers of the files that `is_empty`: they have emptied them, and not begun to write.
    ///
    /// Whether there is one to wait for.
    pub(super) fn wait_for_empty(&mut self, now: Instant, is_empty: impl Fn(&K) -> bool) -> bool {
        let mut waits = false;
        for (file, state) in &mut self.files {
            if let State::Held { since, last, stranger } = state {
                let patience = if *stranger { HELD_STRANGER } else { HELD_EMPTY };
                if now < *since + patience && is_empty(file) {
                    *last = now;
                    waits = true;
                }
            }
        }
        waits
    }

    /// When to fire, if nothing more happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let quiet = if self.files.len() == 1 { SETTLE } else { QUIET };
        let rested = self.files.values().filter_map(|state| match state {
            State::Held { .. } => None,
            State::Gone(at) => Some(*at + VANISHED),
            State::Complete(at) => Some(*at + quiet),
        });
        let held = self.files.values().filter_map(|state| match state {
            State::Held { since, last, stranger: true } => Some((*last + HELD).min(*since + HELD_STRANGER)),
            State::Held { last, .. } => Some(*last + HELD),
            _ => None,
        });
        let latest = self.first.map(|first| first + AT_MOST);
        let rested = rested.max().map(|at| latest.map_or(at, |l| at.min(l)));
        rested.max(held.max())
    }

    /// Told: nothing is waited for any more.
    pub(super) fn clear(&mut self) {
        self.files.clear();
        self.first = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn after(settle: &Settle<&str>, start: Instant) -> Duration {
        settle.deadline().unwrap() - start
    }

    #[test]
    fn one_change_fires_after_a_moment() {
        let (mut settle, t) = (Settle::new(), Instant::now());
        assert_eq!(settle.deadline(), None);
        settle.complete("a", t);
        assert_eq!(after(&settle, t), ms(10));
        settle.clear();
        assert_eq!(settle.deadline(), None);
    }

    #[test]
    fn several_fire_together_but_not_ever_later() {
        let (mut settle, t) = (Settle::new(), Instant::now());
        settle.complete("a", t);
        settle.complete("b", t + ms(5));
        assert_eq!(after(&settle, t), ms(35));
        for i in 1..100 {
            settle.complete("a", t + ms(20 * i));
        }
        assert_eq!(after(&settle, t), ms(250));
    }

    #[test]
    fn a_writer_that_goes_on_is_waited_for() {
        let (mut settle, t) = (Settle::new(), Instant::now());
        for i in 0..50 {
            settle.written("a", false, t + ms(40 * i));
            settle.complete("b", t + ms(40 * i + 1));
        }
        assert_eq!(after(&settle, t), ms(49 * 40 + 400));
        settle.complete("a", t + ms(2_000));
        assert!(settle.deadline().unwrap() <= t + ms(2_000));
    }

    #[test]
    fn a_stranger_does_not_hold_up_the_others_for_ever() {
        let (mut settle, t) = (Settle::new(), Instant::now());
        settle.complete("a", t);
        for i in 0..100 {
            settle.written("stranger", true, t + ms(100 * i));
        }
        assert_eq!(after(&settle, t), ms(5_000));
    }

    #[test]
    fn an_empty_file_is_waited_for_but_not_for_ever() {
        let (mut settle, t) = (Settle::new(), Instant::now());
        settle.written("lock", true, t);
        settle.written("a", false, t);
        assert!(settle.wait_for_empty(t + ms(400), |_| true));
        assert_eq!(after(&settle, t), ms(800));
        assert!(!settle.wait_for_empty(t + ms(5_000), |file| *file == "lock"));
        assert!(settle.wait_for_empty(t + ms(59_999), |_| true));
        assert!(!settle.wait_for_empty(t + ms(60_000), |_| true));
    }

    #[test]
    fn a_file_that_vanishes_may_come_back() {
        let (mut settle, t) = (Settle::new(), Instant::now());
        settle.gone("a", false, t);
        assert_eq!(after(&settle, t), ms(100));
        settle.written("a", false, t + ms(1));
        assert_eq!(after(&settle, t), ms(401));
        settle.complete("a", t + ms(2));
        assert_eq!(after(&settle, t), ms(12));
    }
}
