//! The bounds of a connection, as numbers that a sweeper looks at four times a second: no timer is set per tunnel.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, Waker},
    time::Duration,
};

use atomic_waker::AtomicWaker;

use crate::decide::Now;

/// Why a connection is to end before its peers end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The present step took too long.
    Late = 1,
    /// Nothing moved for too long.
    Idle,
    /// It is older than a tunnel may be.
    Total,
    /// Its listener is gone, or the process stops: it ends once no request is under way.
    Drain,
    /// The process stops now.
    Cut,
    /// A reload no longer allows it.
    Revoked,
}

impl End {
    fn of(number: u8) -> Option<Self> {
        [Self::Late, Self::Idle, Self::Total, Self::Drain, Self::Cut, Self::Revoked]
            .into_iter()
            .find(|end| *end as u8 == number)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Idle => "idle",
            Self::Total => "total",
            Self::Drain => "drain",
            Self::Cut => "cut",
            Self::Revoked => "revoked",
        }
    }
}

/// Whether a connection that stands is still allowed.
pub trait Allowed: Send + Sync {
    /// Asked after each reload.
    fn is_allowed(&self) -> bool;

    /// Whether what is not allowed ends at all, by the config that holds now.
    fn closes(&self) -> bool;
}

/// One connection; shared by its task and the sweeper of its worker.
#[derive(Default)]
pub struct Conn {
    listener: u32,
    /// Nanoseconds of [`Now`] at which the present step is late; 0: never.
    late_at: AtomicU64,
    /// Nanoseconds without a byte that are too many; 0: any number is right.
    idle: AtomicU64,
    last: AtomicU64,
    total_at: AtomicU64,
    /// Nanoseconds of [`Now`] up to which gatepost itself holds bytes back.
    paced: AtomicU64,
    ended: AtomicU8,
    /// The next request that comes is the last.
    is_retiring: AtomicBool,
    /// By what its listener takes now, it might not have come in.
    is_doubted: AtomicBool,
    waker: AtomicWaker,
    allowed: std::sync::OnceLock<Box<dyn Allowed>>,
}

thread_local! {
    static CONNS: RefCell<Vec<Weak<Conn>>> = const { RefCell::new(Vec::new()) };
    /// The time of the last sweep: good enough to say when something moved.
    static COARSE: Cell<u64> = const { Cell::new(0) };
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

impl Conn {
    /// A connection of this worker's.
    pub fn new(listener: u32, now: Now) -> Arc<Self> {
        let conn = Arc::new(Self { listener, ..Self::default() });
        COARSE.set(COARSE.get().max(now.0));
        CONNS.with_borrow_mut(|all| all.push(Arc::downgrade(&conn)));
        conn
    }

    /// The step that begins now may take so long.
    pub fn step(&self, now: Now, most: Duration) {
        self.late_at.store(now.0.saturating_add(nanos(most)), Relaxed);
    }

    /// Nothing is awaited that could be late.
    pub fn no_step(&self) {
        self.late_at.store(0, Relaxed);
    }

    /// The step was late, and what comes next is let go on all the same.
    pub fn forgives_late(&self) {
        self.no_step();
        let _ = self.ended.compare_exchange(End::Late as u8, 0, Relaxed, Relaxed);
    }

    /// Bounds of what is a tunnel from now on.
    pub fn tunnel(&self, now: Now, idle: Duration, total: Option<Duration>) {
        self.no_step();
        self.last.store(now.0, Relaxed);
        self.idle.store(nanos(idle), Relaxed);
        self.total_at.store(total.map_or(0, |total| now.0.saturating_add(nanos(total))), Relaxed);
    }

    /// What [`tunnel`](Self::tunnel) said holds no more.
    pub fn no_tunnel(&self) {
        self.idle.store(0, Relaxed);
        self.total_at.store(0, Relaxed);
    }

    /// Something moved.
    pub fn moved(&self) {
        self.last.store(COARSE.get(), Relaxed);
    }

    /// Nothing is to move for so long: it waits for its rate, and nobody is idle.
    pub fn pauses(&self, now: Now, wait: Duration) {
        self.paced.fetch_max(now.0.saturating_add(nanos(wait)), Relaxed);
    }

    pub fn is_doubted(&self) -> bool {
        self.is_doubted.load(Relaxed)
    }

    /// Who says, after a reload, whether it may go on.
    pub fn set_allowed(&self, allowed: Box<dyn Allowed>) {
        // Once: a connection becomes a tunnel once.
        let _ = self.allowed.set(allowed);
    }

    pub fn ended(&self) -> Option<End> {
        End::of(self.ended.load(Relaxed))
    }

    /// The first reason stands; but a drain is no end to what is under way.
    pub fn end(&self, end: End) {
        let may = |now: u8| (now == 0 || now == End::Drain as u8).then_some(end as u8);
        if self.ended.fetch_update(Relaxed, Relaxed, may).is_ok() {
            self.waker.wake();
        }
    }

    /// No further request is to be read.
    pub fn is_draining(&self) -> bool {
        self.ended().is_some() || self.is_retiring.load(Relaxed)
    }

    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Runs `future` for as long as the connection may go on; a drain lets it.
    pub async fn within<F: Future>(&self, future: F) -> Result<F::Output, End> {
        self.run(future, |end| end != End::Drain).await
    }

    /// Runs `future` while no request is under way.
    pub async fn while_idle<F: Future>(&self, future: F) -> Result<F::Output, End> {
        self.run(future, |_| true).await
    }

    async fn run<F: Future>(&self, future: F, counts: impl Fn(End) -> bool) -> Result<F::Output, End> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.register(cx.waker());
            self.ended().filter(|end| counts(*end)).map_or(Poll::Pending, |end| Poll::Ready(Err(end)))
        })
        .await
    }

    fn sweep(&self, now: u64, reloaded: bool) {
        let after = |at: &AtomicU64| {
            let at = at.load(Relaxed);
            at != 0 && now >= at
        };
        let idle = self.idle.load(Relaxed);
        if after(&self.total_at) {
            self.end(End::Total);
        } else if after(&self.late_at) {
            self.end(End::Late);
        } else if idle != 0 && now.saturating_sub(self.last.load(Relaxed).max(self.paced.load(Relaxed))) >= idle {
            self.end(End::Idle);
        } else if reloaded && self.allowed.get().is_some_and(|allowed| !allowed.is_allowed() || self.is_out(&**allowed))
        {
            self.end(End::Revoked);
        }
    }

    fn is_out(&self, allowed: &dyn Allowed) -> bool {
        self.is_doubted() && allowed.closes()
    }
}

/// Ends what is past its bounds, on this worker; `reloaded`: the rules may be others since the last sweep.
pub fn sweep(now: Now, reloaded: bool) {
    COARSE.set(now.0);
    CONNS.with_borrow_mut(|all| {
        all.retain(|conn| match conn.upgrade() {
            Some(conn) => {
                conn.sweep(now.0, reloaded);
                true
            }
            None => false,
        });
        if all.capacity() > 64 && all.len() < all.capacity() / 4 {
            all.shrink_to(all.len() * 2);
        }
    });
}

/// Lets those of this worker end: of one listener, or all. Who waits for a request ends now, others after theirs.
pub fn drain(listener: Option<u32>) {
    each(|conn| {
        if listener.is_none_or(|listener| listener == conn.listener) {
            conn.end(End::Drain);
        }
    });
}

/// Those of a listener that takes callers by other ways from now on, or believes others of them: tunnels end where the config closes what it would not
/// open.
pub fn doubt(listener: u32) {
    each(|conn| {
        if listener == conn.listener {
            conn.is_doubted.store(true, Relaxed);
            if conn.allowed.get().is_some_and(|allowed| conn.is_out(&**allowed)) {
                conn.end(End::Revoked);
            }
        }
    });
}

/// Lets each of this worker have one more request. Who waits for one goes on waiting, until its own end.
pub fn retire() {
    each(|conn| conn.is_retiring.store(true, Relaxed));
}

/// Ends all of this worker; says whether there were any.
pub fn cut() -> bool {
    let mut any = false;
    each(|conn| {
        any = true;
        conn.end(End::Cut);
    });
    any
}

fn each(mut act: impl FnMut(&Conn)) {
    // Not under the borrow: a task that is woken may not run now, but nothing here should have to know that.
    let all: Vec<_> = CONNS.with_borrow(|all| all.iter().filter_map(Weak::upgrade).collect());
    for conn in all {
        act(&conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn each_bound_ends_a_connection_and_the_first_one_counts() {
        let begin = Now(S);
        let conn = |set: &dyn Fn(&Conn)| {
            let conn = Conn::new(0, begin);
            set(&conn);
            conn
        };
        let late = conn(&|c| c.step(begin, Duration::from_secs(5)));
        let in_time = conn(&|c| {
            c.step(begin, Duration::from_secs(5));
            c.no_step();
        });
        let idle = conn(&|c| c.tunnel(begin, Duration::from_secs(5), None));
        let old = conn(&|c| c.tunnel(begin, Duration::from_secs(60), Some(Duration::from_secs(5))));
        sweep(Now(5 * S), false);
        assert!([&late, &in_time, &idle, &old].iter().all(|c| c.ended().is_none()));
        sweep(Now(6 * S), false);
        let forgiven = conn(&|c| c.step(begin, Duration::from_secs(5)));
        sweep(Now(6 * S), false);
        assert_eq!(forgiven.ended(), Some(End::Late));
        forgiven.forgives_late();
        idle.forgives_late();
        sweep(Now(7 * S), false);
        assert_eq!((forgiven.ended(), idle.ended()), (None, Some(End::Idle)), "and nothing else");
        let ends = [&late, &in_time, &idle, &old].map(|c| c.ended());
        assert_eq!(ends, [Some(End::Late), None, Some(End::Idle), Some(End::Total)]);
        drain(Some(1));
        assert_eq!(in_time.ended(), None);
        drain(None);
        assert_eq!(in_time.ended(), Some(End::Drain));
        // What is under way may still be cut.
        in_time.end(End::Cut);
        assert_eq!((in_time.ended(), late.ended()), (Some(End::Cut), Some(End::Late)));
        drop((late, in_time, idle, old, forgiven));
        sweep(Now(8 * S), false);
        assert!(!cut());
    }

    struct Never;

    impl Allowed for Never {
        fn is_allowed(&self) -> bool {
            false
        }

        fn closes(&self) -> bool {
            true
        }
    }

    #[test]
    fn who_waits_for_its_rate_is_not_idle() {
        let conn = Conn::new(0, Now(S));
        conn.tunnel(Now(S), Duration::from_secs(5), None);
        conn.pauses(Now(S), Duration::from_secs(20));
        sweep(Now(25 * S), false);
        assert_eq!(conn.ended(), None);
        sweep(Now(26 * S), false);
        assert_eq!(conn.ended(), Some(End::Idle));
    }

    #[test]
    fn who_is_no_longer_allowed_ends_at_the_sweep_after_a_reload() {
        let conn = Conn::new(0, Now(S));
        conn.set_allowed(Box::new(Never));
        sweep(Now(2 * S), false);
        assert_eq!(conn.ended(), None);
        sweep(Now(2 * S), true);
        assert_eq!(conn.ended(), Some(End::Revoked));
    }
}
