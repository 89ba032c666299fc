//! Fair shares: while there is room enough, a client may have as many tunnels as its rules allow; when connections run short, nobody keeps the others out.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// Connections that are open, and how many there may be: of a listener, or of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub open: usize,
    pub most: usize,
}

/// What the clients of the way out hold together; outlives reloads.
#[derive(Debug, Default)]
pub struct Active(AtomicU32);

/// What a client holds over all rules and listeners; outlives reloads.
#[derive(Debug)]
pub struct Held {
    tunnels: AtomicU32,
    active: Arc<Active>,
}

/// A tunnel's, or a forwarded request's, place among its client's; given back when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Held>);

/// A client that has its share already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverShare {
    /// What it holds.
    pub holds: u32,
    /// What it may hold, while connections are short.
    pub share: u32,
    pub room: Room,
}

impl Held {
    pub fn new(active: Arc<Active>) -> Arc<Self> {
        Arc::new(Self { tunnels: AtomicU32::new(0), active })
    }

    /// Takes a place. `rooms` are all that the connection counts in, itself included; `above`: the percentage of one at which it is short.
    ///
    /// A room is divided by the clients that hold anything, and one more: so there is always something left for who comes next.
    ///
    /// # Errors
    ///
    /// [`OverShare`]; the place is not taken.
    pub fn enter(self: &Arc<Self>, rooms: impl IntoIterator<Item = Room>, above: u8) -> Result<Place, OverShare> {
        let holds = self.tunnels.fetch_add(1, Relaxed);
        if holds == 0 {
            self.active.0.fetch_add(1, Relaxed);
        }
        let place = Place(Arc::clone(self));
        for room in rooms {
            if room.open.saturating_mul(100) <= room.most.saturating_mul(usize::from(above)) {
                continue;
            }
            let parts = u64::from(self.active.0.load(Relaxed)) + 1;
            let share = u32::try_from(room.most as u64 / parts).unwrap_or(u32::MAX).max(1);
            if holds >= share {
                return Err(OverShare { holds, share, room });
            }
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.tunnels.fetch_sub(1, Relaxed) == 1 {
            self.0.active.0.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 100;

    struct Clients(Vec<Arc<Held>>);

    impl Clients {
        fn new(n: usize) -> Self {
            let active = Arc::<Active>::default();
            Self((0..n).map(|_| Held::new(active.clone())).collect())
        }

        /// One more tunnel, where `open` connections are.
        fn enter(&self, client: usize, open: usize) -> Result<Place, OverShare> {
            self.0[client].enter([Room { open, most: MOST }], 80)
        }
    }

    #[test]
    fn one_alone_has_all_but_what_is_kept_for_the_next() {
        let clients = Clients::new(2);
        let held: Vec<_> = (1..=80).map(|open| clients.enter(0, open).unwrap()).collect();
        let over = clients.enter(0, 81).unwrap_err();
        assert_eq!((over.holds, over.share), (80, 50));
        // Who comes now finds a place, up to a third.
        let others: Vec<_> = (0..33).map(|_| clients.enter(1, 99).unwrap()).collect();
        assert_eq!(clients.enter(1, 99).unwrap_err().share, 33);
        drop((held, others));
        // What was refused was not counted, and what is over counts no more.
        assert_eq!((clients.0[0].tunnels.load(Relaxed), clients.0[0].active.0.load(Relaxed)), (0, 0));
    }

    #[test]
    fn however_many_there_are_and_however_they_push_each_has_a_place() {
        for n in [2, 3, 7, 50, 99] {
            let clients = Clients::new(n);
            let mut held = Vec::new();
            for client in (0..MOST * n).map(|turn| turn % n) {
                if held.len() < MOST
                    && let Ok(place) = clients.enter(client, held.len() + 1)
                {
                    held.push(place);
                }
            }
            for (client, held) in clients.0.iter().enumerate() {
                assert!(held.tunnels.load(Relaxed) > 0, "client {client} of {n} has nothing");
            }
        }
    }

    #[test]
    fn at_a_hundred_percent_nobody_is_asked_to_share() {
        let clients = Clients::new(1);
        let held: Vec<_> = (1..=MOST).map(|open| clients.0[0].enter([Room { open, most: MOST }], 100)).collect();
        assert!(held.iter().all(Result::is_ok));
    }
}
