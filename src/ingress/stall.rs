//! An answer that its caller takes more slowly than its function gives it.
//!
//! A function that speaks HTTP/1.1 is read no further than its caller takes ([`exchange`](super::exchange)). Of one that speaks h2 pingora reads
//! ahead: while it waits for the caller it takes five pieces of 64 KiB off the function's connection, and then copies them into
//! one. For one download that is speed; for thousands of callers who ask and don't read it is two thirds of a megabyte each. So,
//! where the caller's socket (or its h2 window) is full:
//!
//! - the request's future isn't polled until there is room again, or its time is over. Nothing else can read for it, and what the
//!   function sends stays in its socket, where TCP slows it down.
//! - what is left of the task's turn is given up, so that pingora's other half does not read on within it.
//!
//! And once an answer is large its turns are short: a piece or two, then the next task. That is what callers beside it wait for.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::task::coop::{RestoreOnPending, has_budget_remaining, poll_proceed};

use super::conn::Conn;

/// From here on an answer is large, if its pieces are so as well: messages of a stream that lasts for hours are not.
const LARGE: u64 = 64 * 1024;
const PIECE: usize = 4 * 1024;

/// How much a large answer's turn may do, in tokio's units: a piece that is read, handed over, taken and written takes one each.
const TURN: usize = 4;

/// tokio gives a task 128 units a turn. A task without a bound would have no end of them.
const MOST: usize = 1024;

/// Of one request.
#[derive(Debug, Default)]
pub struct Stall {
    is_full: AtomicBool,
    is_large: AtomicBool,
}

impl Stall {
    pub fn request_begins(&self) {
        self.is_full.store(false, Relaxed);
        self.is_large.store(false, Relaxed);
    }

    /// After so many bytes of an answer comes a piece of that size.
    pub fn goes_out(&self, bytes: u64, piece: usize) {
        self.is_large.store(bytes > LARGE && piece >= PIECE, Relaxed);
    }
}

/// Of the connection (or h2 request) that it is a waker of: there is room.
impl Wake for Conn {
    fn wake(self: Arc<Self>) {
        self.stall.is_full.store(false, Relaxed);
        Self::wake(&self);
    }
}

/// There is no room for more of the answer. `watch` is to leave its waker where room is told of; ready: there is some by now.
///
/// To be called only where the whole request was passed on: what a caller still sends may be what the function waits for.
pub fn is_full<T>(conn: &Arc<Conn>, cx: &mut Context<'_>, watch: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    let waker = Waker::from(conn.clone());
    let room = watch(&mut Context::from_waker(&waker));
    if room.is_pending() {
        conn.stall.is_full.store(true, Relaxed);
        leave::<0>(cx);
    }
    room
}

/// Polls a request that is under way, where that can lead anywhere.
pub fn poll<T>(conn: &Conn, cx: &mut Context<'_>, request: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    if conn.stall.is_full.load(Relaxed) {
        if conn.ended().is_none() {
            return Poll::Pending;
        }
        conn.stall.is_full.store(false, Relaxed);
    }
    if conn.stall.is_large.load(Relaxed) {
        leave::<TURN>(cx);
    }
    request(cx)
}

/// Leaves `N` units of this task's turn. tokio has no word for that: all are taken, and the last ones given back.
fn leave<const N: usize>(cx: &mut Context<'_>) {
    let mut last: [Option<RestoreOnPending>; N] = array::from_fn(|_| None);
    let mut at = 0;
    for _ in 0..MOST {
        if !has_budget_remaining() {
            break;
        }
        let Poll::Ready(unit) = poll_proceed(cx) else { break };
        let spent = match last.get_mut(at) {
            Some(place) => place.replace(unit),
            None => Some(unit),
        };
        if let Some(spent) = spent {
            spent.made_progress();
        }
        at = (at + 1) % N.max(1);
    }
    // Each gives back to what there was before it: the oldest last.
    for back in 1..=N {
        drop(last[(at + N - back) % N].take());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// What is left of this task's turn.
    fn left(cx: &mut Context<'_>) -> usize {
        let mut n = 0;
        while has_budget_remaining() && n < MOST {
            if let Poll::Ready(unit) = poll_proceed(cx) {
                unit.made_progress();
            }
            n += 1;
        }
        n
    }

    async fn turn<T>(f: impl Fn(&mut Context<'_>) -> T + Send + 'static) -> T
    where
        T: Send + 'static,
    {
        tokio::spawn(poll_fn(move |cx| Poll::Ready(f(cx)))).await.unwrap()
    }

    #[tokio::test]
    async fn of_a_turn_so_much_is_left_and_no_more() {
        let whole = turn(left).await;
        assert!(whole > TURN && whole < MOST, "{whole}");
        assert_eq!(turn(|cx| (leave::<4>(cx), left(cx)).1).await, 4);
        assert_eq!(turn(|cx| (leave::<0>(cx), left(cx)).1).await, 0);
        // Where there is less, that stays as it is.
        assert_eq!(turn(|cx| (leave::<2>(cx), leave::<4>(cx), left(cx)).2).await, 2);
    }
}
