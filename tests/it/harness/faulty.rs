//! A socket that fails as a script says, below whatever is spoken over it: so every protocol can be broken at every byte.

use std::{
    io,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// Numbers that a seed decides (SplitMix64): the same script again from the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    pub(crate) fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..=self.below(most)).map(|_| self.roll() as u8).collect()
    }

    /// A place in a stream: often right at its beginning, sometimes far in.
    pub(crate) fn place(&mut self) -> u64 {
        let most = self.pick(&[1, 20, 200, 200, 2_000, 50_000]);
        self.below(most)
    }
}

/// What happens to one direction of a connection, at a place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// RST.
    Reset,
    /// Both directions are closed.
    Close,
    /// No more is written, and the peer is told so. Of reading: as [`Close`](Self::Close).
    HalfClose,
    /// What is written is kept back for ever; nothing more is read, for [`STALL`], then it is a reset.
    Stall,
    /// A byte at a time, for a while.
    Dribble,
    /// Bytes that nobody meant come in between. Of reading: as [`Dribble`](Self::Dribble).
    Garbage,
}

/// How long a peer that stops reading stays.
pub(crate) const STALL: Duration = Duration::from_millis(1_500);

/// How many bytes are dribbled.
const DRIBBLED: u32 = 100;

/// When which fault strikes: after so many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) write: Option<(u64, Fault)>,
    pub(crate) read: Option<(u64, Fault)>,
}

impl Plan {
    /// A plan with one fault, or rarely two. Stalls are rare, for they take long.
    pub(crate) fn of(dice: &mut Dice) -> Self {
        let fault = |dice: &mut Dice| {
            let of = [Fault::Reset, Fault::Close, Fault::HalfClose, Fault::Dribble, Fault::Garbage];
            let fault = if dice.once_in(25) { Fault::Stall } else { dice.pick(&of) };
            Some((dice.place(), fault))
        };
        match dice.below(8) {
            0 => Self { write: fault(dice), read: fault(dice) },
            1..3 => Self { write: None, read: fault(dice) },
            _ => Self { write: fault(dice), read: None },
        }
    }

    pub(crate) fn has_stall(&self) -> bool {
        [self.write, self.read].iter().flatten().any(|(_, fault)| *fault == Fault::Stall)
    }
}

/// What a direction does from its fault on.
#[derive(Debug)]
enum Going {
    Fine,
    Dribbling(u32),
    /// These first.
    Garbage(Vec<u8>),
    Swallowing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Faulty {
    tcp: TcpStream,
    plan: Plan,
    written: u64,
    read: u64,
    writes: Going,
    reads: Going,
    stalled: Option<Pin<Box<Sleep>>>,
    is_dead: bool,
}

impl Faulty {
    pub(crate) fn new(tcp: TcpStream, plan: Plan) -> Self {
        let (writes, reads) = (Going::Fine, Going::Fine);
        Self { tcp, plan, written: 0, read: 0, writes, reads, stalled: None, is_dead: false }
    }

    fn die(&mut self, reset: bool) -> io::Error {
        if reset {
            // The socket closes when this is dropped, and then with RST.
            let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        }
        self.is_dead = true;
        io::ErrorKind::ConnectionReset.into()
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        loop {
            if me.is_dead {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let room = match (&mut me.writes, me.plan.write) {
                (Going::Swallowing, _) => return Poll::Ready(Ok(bytes.len())),
                (Going::Garbage(garbage), _) => {
                    let n = ready!(Pin::new(&mut me.tcp).poll_write(cx, garbage))?;
                    garbage.drain(..n);
                    if garbage.is_empty() {
                        me.writes = Going::Fine;
                    }
                    continue;
                }
                (Going::Dribbling(_), _) => 1,
                (Going::Fine, Some((at, _))) if at > me.written => usize::try_from(at - me.written).unwrap(),
                (Going::Fine, None) => usize::MAX,
                (Going::Fine, Some((at, fault))) => {
                    me.plan.write = None;
                    match fault {
                        Fault::Reset | Fault::Close => return Poll::Ready(Err(me.die(fault == Fault::Reset))),
                        Fault::HalfClose => {
                            let _ = SockRef::from(&me.tcp).shutdown(Shutdown::Write);
                            me.writes = Going::Swallowing;
                        }
                        Fault::Stall => me.writes = Going::Swallowing,
                        Fault::Dribble => me.writes = Going::Dribbling(DRIBBLED),
                        // Other garbage at each place, the same every time.
                        Fault::Garbage => me.writes = Going::Garbage(Dice::new(at).bytes(40)),
                    }
                    continue;
                }
            };
            let n = ready!(Pin::new(&mut me.tcp).poll_write(cx, &bytes[..bytes.len().min(room)]))?;
            me.written += n as u64;
            me.writes.step();
            return Poll::Ready(Ok(n));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.writes {
            // Whoever stalls doesn't say goodbye.
            Going::Swallowing => Poll::Ready(Ok(())),
            _ => Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Faulty {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if let Some(stalled) = &mut me.stalled {
            ready!(stalled.as_mut().poll(cx));
            return Poll::Ready(Err(me.die(true)));
        }
        if me.is_dead {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some((at, fault)) = me.plan.read
            && at <= me.read
        {
            me.plan.read = None;
            match fault {
                Fault::Reset => return Poll::Ready(Err(me.die(true))),
                Fault::Close | Fault::HalfClose => return Poll::Ready(Err(me.die(false))),
                Fault::Stall => {
                    me.stalled = Some(Box::pin(tokio::time::sleep(STALL)));
                    return Pin::new(me).poll_read(cx, buf);
                }
                Fault::Dribble | Fault::Garbage => me.reads = Going::Dribbling(DRIBBLED),
            }
        }
        let most = match (&me.reads, me.plan.read) {
            (Going::Dribbling(_), _) => 1,
            (_, Some((at, _))) => usize::try_from(at - me.read).unwrap(),
            _ => usize::MAX,
        };
        // Through a buffer of its own, since no more than that may be read.
        let mut piece = [0; 8 * 1024];
        let most = most.min(piece.len()).min(buf.remaining());
        let mut part = ReadBuf::new(&mut piece[..most]);
        ready!(Pin::new(&mut me.tcp).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        me.read += part.filled().len() as u64;
        me.reads.step();
        Poll::Ready(Ok(()))
    }
}

impl Going {
    /// A byte more was dribbled.
    fn step(&mut self) {
        if let Self::Dribbling(left) = self {
            *left -= 1;
            if *left == 0 {
                *self = Self::Fine;
            }
        }
    }
}
