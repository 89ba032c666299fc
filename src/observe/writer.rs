//! The thread that carries lines from the workers' rings to the sink.

use std::{
    io, mem,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use rtrb::Consumer;
use tracing::{info, warn};

use super::{
    access::{Shared, lock},
    sink::{Followed, Sink},
};

/// How often the rings are looked at.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Lines are gathered until they are this many bytes, then written by one call.
const BATCH: usize = 256 * 1024;

pub(super) struct Writer {
    shared: Arc<Shared>,
    sink: Sink,
    rings: Vec<Consumer<u8>>,
    /// The ring to look at first, so that none starves behind busier ones.
    next: usize,
    /// Gathered lines, of which `written` bytes are out.
    batch: Vec<u8>,
    written: usize,
    /// It was said that lines don't get out. Said once until they do again.
    troubled: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, sink: Sink) -> Self {
        Self { shared, sink, rings: Vec::new(), next: 0, batch: Vec::new(), written: 0, troubled: false }
    }

    pub(super) fn run(mut self) {
        loop {
            // Read before the rings: whatever was written before the close is seen below.
            let closing = self.shared.closing.load(Ordering::Acquire);
            self.rings.append(&mut lock(&self.shared.joining));
            let orders = mem::take(&mut *lock(&self.shared.orders));
            let mut out = self.carry(orders.reopen);
            if let Some(sink) = orders.sink {
                self.switch(sink);
                if let Some(switched) = orders.switched {
                    // Nobody may be waiting any more.
                    let _ = switched.try_send(());
                }
                out = self.carry(false);
            }
            if closing {
                return self.give_up();
            }
            if out && self.sink.is_off() {
                // Until there is something to be done: a half full ring, another sink, the end.
                thread::park();
            } else if out {
                thread::park_timeout(TICK);
            } else {
                // Full rings wake the thread with every line, which would be of no use now.
                thread::sleep(TICK);
            }
        }
    }

    /// Writes everything that waits; `false` if the sink does not take it now.
    fn carry(&mut self, reopen: bool) -> bool {
        self.gather();
        if self.batch.is_empty() && !reopen {
            return true;
        }
        let mut fine = true;
        match self.sink.follow(reopen) {
            Followed::Same => {}
            Followed::Replaced => self.skip_torn_line(),
            Followed::Moved(error) => {
                self.trouble(&error);
                fine = false;
            }
            Followed::Gone(error) => {
                self.trouble(&error);
                return false;
            }
        }
        while !self.batch.is_empty() {
            match self.sink.write(&self.batch[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A stdout that somebody made non-blocking, with a slow reader behind it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    self.trouble(&error);
                    return false;
                }
            }
            if self.written == self.batch.len() {
                self.batch.clear();
                self.written = 0;
                self.gather();
            }
        }
        if fine && self.troubled {
            self.recovered();
        }
        true
    }

    /// Takes whole lines out of the rings, unless a batch is under way.
    fn gather(&mut self) {
        if !self.batch.is_empty() {
            return;
        }
        for _ in 0..self.rings.len() {
            if self.batch.len() >= BATCH {
                return;
            }
            self.next = (self.next + 1) % self.rings.len();
            let ring = &mut self.rings[self.next];
            let abandoned = ring.is_abandoned();
            let waiting = ring.slots();
            if let Ok(chunk) = ring.read_chunk(waiting) {
                let (first, second) = chunk.as_slices();
                self.batch.extend_from_slice(first);
                self.batch.extend_from_slice(second);
                chunk.commit_all();
            }
            if abandoned && waiting == 0 {
                self.rings.swap_remove(self.next);
                if self.rings.is_empty() {
                    return;
                }
            }
        }
    }

    /// A new file must not begin with the rest of a line.
    fn skip_torn_line(&mut self) {
        if self.written == 0 || self.batch[self.written - 1] == b'\n' {
            return;
        }
        let rest = self.batch[self.written..].iter().position(|&byte| byte == b'\n');
        self.written += rest.map_or(self.batch.len() - self.written, |at| at + 1);
        self.shared.counts.drop_lines(1);
        if self.written == self.batch.len() {
            self.batch.clear();
            self.written = 0;
        }
    }

    fn switch(&mut self, sink: Sink) {
        self.sink = sink;
        self.skip_torn_line();
    }

    fn trouble(&mut self, error: &io::Error) {
        self.shared.counts.write_failed();
        if !self.troubled {
            self.troubled = true;
            let sink = self.sink.name();
            warn!(sink, %error, "access log cannot be written: lines wait, and are dropped once their room is full");
        }
    }

    fn recovered(&mut self) {
        self.troubled = false;
        self.shared.counts.is_well();
        let dropped_lines = self.shared.counts.dropped_lines();
        info!(sink = self.sink.name(), dropped_lines, "access log is written again");
    }

    /// Counts what is left at the end and can't be written.
    fn give_up(mut self) {
        let mut lost = 0;
        loop {
            let rest = &self.batch[self.written..];
            lost += rest.iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.batch.clear();
            self.written = 0;
            self.gather();
            if self.batch.is_empty() {
                break;
            }
        }
        if lost > 0 {
            self.shared.counts.drop_lines(lost);
            warn!(sink = self.sink.name(), lines = lost, "access log lines were lost at the end");
        }
    }
}
