//! The access log: each worker writes its lines into a ring of its own, one thread carries them to the file.
//!
//! A worker never waits: not for a file, not for a lock, not for the thread. A line that finds its worker's ring full is dropped and
//! counted. The thread looks at the rings every [`TICK`](super::writer::TICK), so that a line is in the file in about a tenth of a
//! second even if no other follows, and is woken earlier only by a ring that is half full. While the file can't be written
//! (a full disk, a directory that is gone), lines wait in the rings; what no longer fits is dropped and counted.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver},
    },
    thread::{self, Thread},
    time::Duration,
};

use rtrb::{Consumer, Producer, RingBuffer};

use super::{
    clock::Stamp,
    format,
    format::{Entry, egress::EgressEntry, mirror::MirrorEntry},
    sink::Sink,
    writer::Writer,
};
use crate::{
    config::model::{AccessSink, Log},
    decide::Class,
};

/// Bytes of lines that may wait per worker.
const RING: usize = 1024 * 1024;

/// A worker's line buffer that grew past this by one huge line is given back.
const KEPT_LINE: usize = 16 * 1024;

/// The running access log: hands out a [`LogPort`] to each worker.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Thread,
    /// Speaks once, when the thread has written what there was.
    done: Mutex<Receiver<()>>,
}

/// What the handle, the ports and the thread have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Rings of new ports, until the thread has seen them.
    pub(super) joining: Mutex<Vec<Consumer<u8>>>,
    pub(super) orders: Mutex<Orders>,
    pub(super) closing: AtomicBool,
    pub(super) counts: Arc<Counts>,
}

/// What the thread is to do next.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) sink: Option<Sink>,
    pub(super) reopen: bool,
    /// Told when `sink` is in use.
    pub(super) switched: Option<mpsc::SyncSender<()>>,
}

/// What went wrong since the start.
#[derive(Debug, Default)]
pub struct Counts {
    dropped: AtomicU64,
    write_errors: AtomicU64,
    /// The last attempt failed.
    troubled: AtomicBool,
}

impl Counts {
    /// Lines that found no room, or were never written.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Attempts to write or to reopen that failed.
    pub fn write_errors(&self) -> u64 {
        self.write_errors.load(Ordering::Relaxed)
    }

    /// Whether lines don't get out.
    pub fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    pub(super) fn is_well(&self) {
        self.troubled.store(false, Ordering::Relaxed);
    }

    pub(super) fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn write_failed(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        self.troubled.store(true, Ordering::Relaxed);
    }
}

/// How long a change of the sink is waited for: a few looks of the writer.
const SWITCH: Duration = Duration::from_millis(300);

impl AccessLog {
    /// Opens what `log.access` names and starts the thread that writes to it.
    ///
    /// # Errors
    ///
    /// The file can't be opened (the error names it), or the thread can't be started.
    pub fn start(log: &Log) -> io::Result<Self> {
        Self::with(Sink::open(&log.access)?, Arc::default(), "access-log")
    }

    /// A log of its own for the way out. What goes wrong is counted with `other`.
    ///
    /// # Errors
    ///
    /// As of [`start`](Self::start).
    pub fn beside(other: &Self, sink: &AccessSink) -> io::Result<Self> {
        Self::with(Sink::open(sink)?, other.counts(), "egress-log")
    }

    fn with(sink: Sink, counts: Arc<Counts>, thread: &str) -> io::Result<Self> {
        let shared = Arc::new(Shared { counts, ..Shared::default() });
        let (finish, done) = mpsc::sync_channel(1);
        let writer = Writer::new(Arc::clone(&shared), sink);
        let handle = thread::Builder::new().name(thread.to_owned()).spawn(move || {
            writer.run();
            // Nobody may be waiting.
            let _ = finish.send(());
        })?;
        Ok(Self { shared, writer: handle.thread().clone(), done: Mutex::new(done) })
    }

    /// A port for one worker.
    pub fn port(&self) -> LogPort {
        let (ring, lines) = RingBuffer::new(RING);
        lock(&self.shared.joining).push(lines);
        LogPort {
            ring,
            writer: self.writer.clone(),
            counts: Arc::clone(&self.shared.counts),
            line: Vec::with_capacity(1024),
            stamp: Stamp::new(),
            dealt: 0,
        }
    }

    /// Opens what a new config names, without using it yet: a reload that can't have its log is refused before it changes anything.
    ///
    /// # Errors
    ///
    /// As of [`start`](Self::start).
    pub fn open(sink: &AccessSink) -> io::Result<Sink> {
        Sink::open(sink)
    }

    /// Lines written so far go to the old sink, later ones to this.
    ///
    /// Returns when that is so: a line that is written from then on is in the new place. A sink that takes nothing now is not waited for.
    pub fn switch(&self, sink: Sink) {
        let (switched, told) = mpsc::sync_channel(1);
        let mut orders = lock(&self.shared.orders);
        orders.sink = Some(sink);
        orders.switched = Some(switched);
        drop(orders);
        self.writer.unpark();
        // Late or gone: the writer does it as soon as it can.
        let _ = told.recv_timeout(SWITCH);
    }

    /// [`open`](Self::open) and [`switch`](Self::switch) in one. Format and sampling come with each line and need neither.
    ///
    /// # Errors
    ///
    /// As of [`start`](Self::start); the old sink stays.
    pub fn reconfigure(&self, log: &Log) -> io::Result<()> {
        self.switch(Self::open(&log.access)?);
        Ok(())
    }

    /// Opens the file anew, for rotation. Not needed after a rename or removal, which is noticed; harmless then.
    pub fn reopen(&self) {
        lock(&self.shared.orders).reopen = true;
        self.writer.unpark();
    }

    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.shared.counts)
    }

    /// Writes what waits and ends the thread; `false` if that took longer than `bound`. For when the workers have ended: later lines are lost.
    pub fn close(&self, bound: Duration) -> bool {
        self.shared.closing.store(true, Ordering::Release);
        self.writer.unpark();
        match lock(&self.done).recv_timeout(bound) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => true,
            Err(mpsc::RecvTimeoutError::Timeout) => false,
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.writer.unpark();
    }
}

/// One worker's way into the log. One thread writes to it at a time.
#[derive(Debug)]
pub struct LogPort {
    ring: Producer<u8>,
    writer: Thread,
    counts: Arc<Counts>,
    /// The line in the making.
    line: Vec<u8>,
    stamp: Stamp,
    /// What successes are owed, in 2⁻³² of a line.
    dealt: u64,
}

impl LogPort {
    /// Writes the line of one request, if `log` (of the config that the request was served by) wants it. Never waits.
    pub fn write(&mut self, log: &Log, entry: &Entry<'_>) {
        if log.access == AccessSink::Off || (entry.class == Class::Ok && !self.deal(log.sample_ok)) {
            return;
        }
        self.line.clear();
        format::line(&mut self.line, log.format, log.query, &mut self.stamp, entry);
        self.push();
    }

    /// Writes the line of a tunnel, or of a request that went out: each one. Never waits.
    pub fn write_egress(&mut self, log: &Log, entry: &EgressEntry<'_>) {
        self.line.clear();
        format::egress::line(&mut self.line, log.format, &mut self.stamp, entry);
        self.push();
    }

    /// Writes the line of a copied request, where there is a log. Who calls has sampled. Never waits.
    pub fn write_mirror(&mut self, log: &Log, entry: &MirrorEntry<'_>) {
        if log.access == AccessSink::Off {
            return;
        }
        self.line.clear();
        format::mirror::line(&mut self.line, log.format, &mut self.stamp, entry);
        self.push();
    }

    fn push(&mut self) {
        if self.ring.push_entire_slice(&self.line).is_err() {
            self.counts.drop_lines(1);
        }
        // The cached number is never too high; the true one costs a look at the thread's cache line.
        if self.ring.cached_slots() < RING / 2 && self.ring.slots() < RING / 2 {
            self.writer.unpark();
        }
        if self.line.capacity() > KEPT_LINE {
            self.line = Vec::with_capacity(1024);
        }
    }

    /// Whether it is this success's turn: evenly, not by dice, so that any run of n of them has n × share lines, give or take one.
    fn deal(&mut self, share: f64) -> bool {
        const WHOLE: u64 = 1 << 32;
        if share >= 1.0 {
            return true;
        }
        // A cast of a negative number or NaN gives 0.
        self.dealt += (share * WHOLE as f64) as u64;
        let turn = self.dealt >= WHOLE;
        if turn {
            self.dealt -= WHOLE;
        }
        turn
    }
}

/// A poisoned lock of this room only means that another thread panicked between two whole steps.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
