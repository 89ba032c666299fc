//! Bytes that go from one plain socket to another without passing through this process: socket → pipe → socket (splice(2)).
//!
//! For what comes in large pieces that is half the CPU of reading and writing. A pipe is two descriptors and, while bytes are in it, memory of the
//! kernel's: a tunnel has one only from a read until the other side has taken what was read, so tunnels that wait have none, and a worker has at
//! most [`MOST`]. Whoever finds none, or a kernel or a sandbox that refuses, reads and writes as ever.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

/// Pipes of a worker, those in use and those that wait. Those who read slowly may hold all of them: so much memory of the kernel's, at most, is theirs.
const MOST: usize = 64;
/// What a pipe holds, where the system allows it (its own measure is 64 KiB).
const SIZE: usize = 256 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static ALIVE: Cell<usize> = const { Cell::new(0) };
    /// Whether one was taken since the last sweep.
    static IS_USED: Cell<bool> = const { Cell::new(false) };
    /// It does not work here.
    static IS_OFF: Cell<bool> = const { Cell::new(false) };
}

/// A pipe, with what is in it.
#[derive(Debug)]
pub struct Pipe {
    head: OwnedFd,
    tail: OwnedFd,
    left: usize,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // The thread may be at its end.
        let _ = ALIVE.try_with(|alive| alive.set(alive.get().saturating_sub(1)));
    }
}

/// What a read gave.
#[derive(Debug)]
pub enum Read {
    /// So many bytes, on their way in this pipe.
    Bytes(Pipe, usize),
    End,
    /// To be read as ever: there is no pipe, or nothing that a pipe can take.
    Not,
}

/// Reads from a socket that is readable.
///
/// # Errors
///
/// The connection's.
pub fn read(from: &TcpStream) -> io::Result<Read> {
    let Some(mut pipe) = take() else { return Ok(Read::Not) };
    let got = loop {
        match splice(from, None, &pipe.tail, None, SIZE, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Err(Errno::INTR) => {}
            got => break got,
        }
    };
    match got {
        Ok(0) => {
            give_back(pipe);
            Ok(Read::End)
        }
        Ok(n) => {
            pipe.left = n;
            Ok(Read::Bytes(pipe, n))
        }
        // Nothing there; or urgent data, which a pipe does not take and recv(2) passes over.
        Err(Errno::AGAIN) => {
            give_back(pipe);
            Ok(Read::Not)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::NOMEM) => {
            IS_OFF.set(true);
            Ok(Read::Not)
        }
        Err(error) => Err(error.into()),
    }
}

impl Pipe {
    /// Writes what is in it; then it can be [given back](give_back). `moved` is told of each piece.
    pub fn drain(&mut self, cx: &mut Context<'_>, to: &TcpStream, moved: impl Fn()) -> Poll<io::Result<()>> {
        while self.left > 0 {
            ready!(to.poll_write_ready(cx))?;
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            let put = || splice(&self.head, None, to, None, self.left, flags).map_err(io::Error::from);
            match to.try_io(Interest::WRITABLE, put) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.left = self.left.saturating_sub(n);
                    moved();
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn take() -> Option<Pipe> {
    if IS_OFF.get() {
        return None;
    }
    IS_USED.set(true);
    if let Some(pipe) = FREE.with_borrow_mut(Vec::pop) {
        return Some(pipe);
    }
    if ALIVE.get() >= MOST {
        return None;
    }
    // Without descriptors, later perhaps.
    let (head, tail) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    ALIVE.set(ALIVE.get() + 1);
    // A system that is short of pages for pipes gives small ones: those do as well.
    let _ = fcntl_setpipe_size(&tail, SIZE);
    Some(Pipe { head, tail, left: 0 })
}

/// Keeps an empty pipe for whoever needs one next.
pub fn give_back(pipe: Pipe) {
    if pipe.left == 0 {
        FREE.with_borrow_mut(|free| free.push(pipe));
    }
}

/// Closes the pipes that nobody has wanted for a while.
pub fn sweep() {
    if !IS_USED.replace(false) {
        FREE.with_borrow_mut(Vec::clear);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, two) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), two.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_pass_through_a_pipe_and_the_pipe_comes_back() {
        let ((mut a, from), (to, mut b)) = (pair().await, pair().await);
        a.write_all(b"some bytes").await.unwrap();
        from.readable().await.unwrap();
        let Read::Bytes(mut pipe, n) = read(&from).unwrap() else { panic!("no bytes") };
        assert_eq!(n, 10);
        poll_fn(|cx| pipe.drain(cx, &to, || ())).await.unwrap();
        give_back(pipe);
        let mut got = [0; 10];
        b.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"some bytes");
        // Nothing there; then its end.
        assert!(matches!(read(&from).unwrap(), Read::Not));
        drop(a);
        from.readable().await.unwrap();
        assert!(matches!(read(&from).unwrap(), Read::End));
        assert_eq!((ALIVE.get(), FREE.with_borrow(Vec::len)), (1, 1));
        // Used since the last sweep, and not since this one.
        sweep();
        assert_eq!(ALIVE.get(), 1);
        sweep();
        assert_eq!((ALIVE.get(), FREE.with_borrow(Vec::len)), (0, 0));
    }

    #[tokio::test]
    async fn who_reads_slowly_takes_no_more_than_a_worker_has() {
        let (mut a, from) = pair().await;
        let mut held = Vec::new();
        for n in 0..=MOST {
            a.write_all(b"x").await.unwrap();
            from.readable().await.unwrap();
            match read(&from).unwrap() {
                Read::Bytes(pipe, 1) => held.push(pipe),
                Read::Not => assert_eq!(n, MOST),
                other => panic!("{n}: {other:?}"),
            }
        }
        assert_eq!((ALIVE.get(), held.len()), (MOST, MOST));
        held.clear();
        assert_eq!(ALIVE.get(), 0);
    }
}
