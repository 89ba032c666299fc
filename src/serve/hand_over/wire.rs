//! Frames on the socket pair: four bytes of length, then JSON; descriptors behind a frame that announces them, one byte each.
//!
//! JSON, since two versions talk: what one does not know it leaves out. Lengths and numbers are bounded on both sides.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Instant,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::Message;

/// No frame is longer: what goes along is cut into pieces below that.
pub(super) const LONGEST: usize = 16 << 20;

/// One side of the pair.
#[derive(Debug)]
pub(super) struct Wire(UnixStream);

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// How long a further read or write may take; `None`: any time.
    pub(super) fn until(&self, deadline: Option<Instant>) -> io::Result<()> {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.0.set_read_timeout(left)?;
        self.0.set_write_timeout(left)
    }

    pub(super) fn say(&mut self, message: &Message) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > LONGEST {
            return Err(io::Error::other(format!("a frame of {} bytes is too long", text.len())));
        }
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.0.write_all(&length.to_be_bytes())?;
        self.0.write_all(&text)
    }

    /// The next message.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` where the other side is gone, `InvalidData` where it speaks otherwise, `WouldBlock` past the deadline.
    pub(super) fn hear(&mut self) -> io::Result<Message> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            let what = format!("a frame of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text)?;
        serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Hands descriptors over; the frame before has told how many.
    pub(super) fn give(&mut self, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        for fd in fds {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let one = [*fd];
            if !control.push(SendAncillaryMessage::ScmRights(&one)) {
                return Err(io::Error::other("no room for a descriptor"));
            }
            // One byte must go along.
            while sendmsg(&self.0, &[IoSlice::new(b"f")], &mut control, SendFlags::empty())? == 0 {}
        }
        Ok(())
    }

    /// Takes `count` descriptors that the other side gives.
    pub(super) fn take(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let told = recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            if told.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let before = taken.len();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    taken.extend(fds);
                }
            }
            if taken.len() != before + 1 {
                // The kernel leaves one out where we may have no more.
                return Err(io::Error::other("a socket did not arrive: is LimitNOFILE too small for two processes"));
            }
        }
        Ok(taken)
    }

    /// A second handle.
    pub(super) fn another(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn descriptors_arrive_in_order_between_frames() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut here, mut there) = (Wire::new(here), Wire::new(there));
        let listeners: Vec<_> = (0..100).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        let sender = std::thread::scope(|scope| {
            let sends = scope.spawn(|| {
                here.say(&Message::Go).unwrap();
                here.give(&fds).unwrap();
                here.say(&Message::Yours).unwrap();
            });
            assert!(matches!(there.hear().unwrap(), Message::Go));
            let taken = there.take(100).unwrap();
            assert!(matches!(there.hear().unwrap(), Message::Yours));
            sends.join().unwrap();
            taken
        });
        for (given, taken) in listeners.iter().zip(sender) {
            let taken = std::net::TcpListener::from(taken);
            assert_eq!(given.local_addr().unwrap(), taken.local_addr().unwrap());
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_what_is_not_known_is_left_out() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut there = Wire::new(there);
        let send = |here: &mut UnixStream, text: &[u8]| {
            here.write_all(&u32::try_from(text.len()).unwrap().to_be_bytes()).unwrap();
            here.write_all(text).unwrap();
        };
        send(&mut here, br#"{"say":"of_the_future","more":[1,2]}"#);
        assert!(matches!(there.hear().unwrap(), Message::Unknown));
        send(&mut here, b"hello");
        assert_eq!(there.hear().unwrap_err().kind(), io::ErrorKind::InvalidData);
        here.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(there.hear().unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(here);
        assert_eq!(there.hear().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
