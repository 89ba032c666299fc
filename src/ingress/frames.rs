//! What comes in on an h2 connection, frame by frame, before the h2 library takes it: nine bytes of each are looked at. Pure.
//!
//! The library bounds what is kept in memory, and some floods. What it does not bound is counted here: frames that cost
//! work and carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones), and requests that are
//! taken back (RFC 9113 §10.5).

use super::conn::H2;

/// RFC 9113 §3.4.
const PREFACE: u8 = 24;
/// RFC 9113 §4.1: length, type, flags, stream.
const HEAD: usize = 9;

/// RFC 9113 §6.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const CONTINUATION: u8 = 9;
}
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// An allowance that comes back with time and with work that is done.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: u32,
    most: u32,
    per_second: u32,
    /// In milliseconds.
    then: u64,
}

impl Allowance {
    const fn new(most: u32, per_second: u32) -> Self {
        Self { left: most, most, per_second, then: 0 }
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.most);
    }

    /// `false`: there is nothing left.
    fn spend(&mut self, cost: u32, now_ms: u64) -> bool {
        if self.left < cost {
            let gone = if self.then == 0 { 0 } else { now_ms.saturating_sub(self.then) };
            self.then = now_ms;
            self.earn(u32::try_from(gone * u64::from(self.per_second) / 1000).unwrap_or(u32::MAX));
        }
        let (left, is_over) = self.left.overflowing_sub(cost);
        self.left = if is_over { 0 } else { left };
        !is_over
    }
}

/// Frames that carry nothing: so many at once, and so many a second. A request, a piece of a body and a piece of an answer
/// each allow for some more: callers open windows, and ask for round-trip times, as bytes move.
const IDLE_FRAMES: Allowance = Allowance::new(1000, 100);
/// Requests that their caller takes back. Each one answered to its end allows for another.
const RESETS: Allowance = Allowance::new(200, 20);

/// What a request allows for (Chrome sends some PRIORITY with each), and a piece of a body.
const PER_REQUEST: u32 = 8;
const PER_PIECE: u32 = 2;
/// All streams' windows change with one of these.
const COST_OF_SETTINGS: u32 = 10;
/// The library buffers it, and wakes its request.
const COST_OF_EMPTY_DATA: u32 = 5;

/// The caller sends what costs work and asks for nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Flood;

/// Where in the caller's frames we are.
#[derive(Debug)]
pub struct Frames {
    preface: u8,
    head: [u8; HEAD],
    have: u8,
    /// Of the present frame's payload.
    left: u32,
    is_settled: bool,
    /// HEADERS or CONTINUATION without END_HEADERS was the last frame.
    in_block: bool,
    /// The present block opens a stream.
    opens: bool,
    last_stream: u32,
    idle: Allowance,
    resets: Allowance,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            preface: PREFACE,
            head: [0; HEAD],
            have: 0,
            left: 0,
            is_settled: false,
            in_block: false,
            opens: false,
            last_stream: 0,
            idle: IDLE_FRAMES,
            resets: RESETS,
        }
    }
}

impl Frames {
    /// Looks at the next bytes. What was done for the caller meanwhile is taken from `h2`, and requests are counted there.
    ///
    /// # Errors
    ///
    /// Too much of it is empty work: nothing of these bytes is to be handed on.
    pub fn take(&mut self, mut bytes: &[u8], h2: &H2, now_ms: u64) -> Result<(), Flood> {
        let (pieces, answers) = h2.take_earned();
        self.idle.earn(pieces);
        self.resets.earn(answers);
        let mut opened = 0;
        if self.preface > 0 {
            let n = bytes.len().min(usize::from(self.preface));
            self.preface -= n as u8;
            bytes = &bytes[n..];
        }
        while !bytes.is_empty() {
            if usize::from(self.have) < HEAD {
                let have = usize::from(self.have);
                let n = bytes.len().min(HEAD - have);
                self.head[have..have + n].copy_from_slice(&bytes[..n]);
                self.have += n as u8;
                bytes = &bytes[n..];
                if usize::from(self.have) < HEAD {
                    break;
                }
                self.begins(now_ms)?;
            }
            let n = bytes.len().min(self.left as usize);
            self.left -= n as u32;
            bytes = &bytes[n..];
            if self.left == 0 {
                self.have = 0;
                opened += u32::from(self.ends());
            }
        }
        h2.opens(opened);
        Ok(())
    }

    /// A frame's head is whole.
    fn begins(&mut self, now_ms: u64) -> Result<(), Flood> {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.left = u32::from_be_bytes([0, a, b, c]);
        let cost = match kind {
            kind::DATA if self.left == 0 && flags & END_STREAM == 0 => COST_OF_EMPTY_DATA,
            kind::DATA => {
                self.idle.earn(PER_PIECE);
                0
            }
            kind::HEADERS => {
                // RFC 9113 §5.1.1: a stream's id is higher than all before it.
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                self.opens = stream > self.last_stream;
                if self.opens {
                    self.last_stream = stream;
                    self.idle.earn(PER_REQUEST);
                }
                u32::from(!self.opens)
            }
            kind::RST_STREAM => {
                if !self.resets.spend(1, now_ms) {
                    return Err(Flood);
                }
                1
            }
            kind::SETTINGS if flags & ACK == 0 => COST_OF_SETTINGS,
            _ => 1,
        };
        if cost == 0 || self.idle.spend(cost, now_ms) { Ok(()) } else { Err(Flood) }
    }

    /// A frame is whole: whether a request came with it.
    fn ends(&mut self) -> bool {
        self.is_settled = true;
        let (kind, flags) = (self.head[3], self.head[4]);
        self.in_block = matches!(kind, kind::HEADERS | kind::CONTINUATION) && flags & END_HEADERS == 0;
        let comes = !self.in_block && self.opens && matches!(kind, kind::HEADERS | kind::CONTINUATION);
        self.opens &= self.in_block;
        comes
    }

    /// The caller's first frame is here, its SETTINGS.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// A frame, or a header block, has begun, and its rest is still to come. Not DATA: a body has deadlines of its own.
    pub fn is_midway(&self) -> bool {
        self.in_block || (self.have > 0 && (usize::from(self.have) < HEAD || self.head[3] != kind::DATA))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
        let mut out = (length as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.resize(HEAD + length, 0);
        out
    }

    fn after_preface() -> (Frames, H2) {
        let (mut frames, h2) = (Frames::default(), H2::default());
        frames.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &h2, 0).unwrap();
        assert!(!frames.is_settled() && !frames.is_midway());
        frames.take(&frame(0, kind::SETTINGS, 0, 0), &h2, 0).unwrap();
        assert!(frames.is_settled() && !frames.is_midway());
        (frames, h2)
    }

    /// How many of these pass, of 10,000, in a second.
    fn pass(frames: &mut Frames, h2: &H2, one: &[u8], from: u64) -> u64 {
        (0..10_000).take_while(|n| frames.take(one, h2, from + n / 10).is_ok()).count() as u64
    }

    #[test]
    fn requests_are_counted_however_they_are_cut() {
        let bytes = [
            frame(5, kind::HEADERS, END_HEADERS, 1),
            frame(5, kind::HEADERS, 0, 3),
            frame(7, kind::CONTINUATION, 0, 3),
            frame(7, kind::CONTINUATION, END_HEADERS, 3),
            frame(100, kind::DATA, END_STREAM, 1),
            // Trailers.
            frame(4, kind::HEADERS, END_HEADERS | END_STREAM, 3),
            frame(0, kind::HEADERS, END_HEADERS, 5),
        ]
        .concat();
        for size in 1..=bytes.len() {
            let (mut frames, h2) = after_preface();
            for piece in bytes.chunks(size) {
                frames.take(piece, &h2, 0).unwrap();
            }
            assert_eq!(h2.opened(), 3, "in pieces of {size}");
            assert!(!frames.is_midway());
        }
    }

    #[test]
    fn what_is_unfinished_is_seen() {
        let (mut frames, h2) = after_preface();
        let headers = frame(5, kind::HEADERS, 0, 1);
        for n in 0..headers.len() {
            frames.take(&headers[n..=n], &h2, 0).unwrap();
            assert!(frames.is_midway(), "{n}");
        }
        frames.take(&frame(0, kind::CONTINUATION, END_HEADERS, 1), &h2, 0).unwrap();
        assert!(!frames.is_midway());
        frames.take(&frame(9, kind::DATA, 0, 1)[..12], &h2, 0).unwrap();
        assert!(!frames.is_midway(), "a body");
    }

    #[test]
    fn empty_work_runs_out() {
        for (one, most) in [
            (frame(8, 6, 0, 0), 1200),
            (frame(0, kind::SETTINGS, 0, 0), 120),
            (frame(0, kind::SETTINGS, ACK, 0), 1200),
            (frame(5, 2, 0, 1), 1200),
            (frame(4, 8, 0, 0), 1200),
            (frame(0, kind::DATA, 0, 1), 240),
            (frame(3, 99, 0, 0), 1200),
            (frame(4, kind::RST_STREAM, 0, 1), 240),
        ] {
            let (mut frames, h2) = after_preface();
            let passed = pass(&mut frames, &h2, &one, 0);
            assert!(passed <= most && passed >= most * 3 / 4, "{}: {passed}", one[3]);
        }
    }

    #[test]
    fn it_comes_back_with_time() {
        let (mut frames, h2) = after_preface();
        let ping = frame(8, 6, 0, 0);
        pass(&mut frames, &h2, &ping, 0);
        assert_eq!(frames.take(&ping, &h2, 0), Err(Flood));
        let after = pass(&mut Frames { have: 0, left: 0, ..frames }, &h2, &ping, 6000);
        assert!((500..700).contains(&after), "{after}");
    }

    #[test]
    fn work_allows_for_more() {
        let (mut frames, h2) = after_preface();
        let update = frame(4, 8, 0, 0);
        // An answer in many pieces, a window opened twice for each.
        for _ in 0..10_000 {
            h2.piece_is_sent(100);
            frames.take(&update, &h2, 0).unwrap();
            frames.take(&update, &h2, 0).unwrap();
        }
        // Requests with a PRIORITY each, half of them taken back.
        for n in 0..10_000 {
            frames.take(&frame(5, kind::HEADERS, END_HEADERS | END_STREAM, 2 * n + 1), &h2, 0).unwrap();
            frames.take(&frame(5, 2, 0, 2 * n + 1), &h2, 0).unwrap();
            if n % 2 == 0 {
                frames.take(&frame(4, kind::RST_STREAM, 0, 2 * n + 1), &h2, 0).unwrap();
            } else {
                h2.request_is_answered();
            }
        }
        assert_eq!(h2.opened(), 10_000);
    }
}
