//! The server name that a TLS client asks for, out of its first bytes (RFC 8446 §4.1.2, RFC 6066 §3), however they are cut into records and reads.
//!
//! Only what is needed is read, strictly: what is no ClientHello of TLS 1.0 to 1.3 is not let through as one. What is encrypted in it (ECH) stays
//! unseen: then the name is the outer one.

use std::borrow::Cow;

use super::authority;

/// A hello is at most so long; with post-quantum keys and a session ticket it is some 2 KiB.
const LONGEST: usize = 16 * 1024;
/// With what records cost: a hello in records of one byte is not finished within it, and nobody honest sends one.
const LONGEST_RAW: usize = 2 * LONGEST;
/// RFC 8446 §5.1.
const LONGEST_RECORD: usize = 1 << 14;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What is known of a hello so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// It is not all there.
    NeedMore,
    /// Lower case, without a dot at its end.
    Name(String),
    /// A hello that asks for no name.
    NoName,
    /// The first bytes are none of TLS.
    NotTls,
    /// TLS, and wrong.
    Bad(&'static str),
}

impl Hello {
    /// For the log, where it was not what was wanted.
    pub fn words(&self) -> Cow<'static, str> {
        match self {
            Self::NeedMore => "no whole TLS hello came in time".into(),
            Self::Name(name) => format!("the TLS hello asks for {name}").into(),
            Self::NoName => "the TLS hello asks for no name".into(),
            Self::NotTls => "what the client sends is not TLS".into(),
            Self::Bad(why) => format!("the TLS hello is malformed: {why}").into(),
        }
    }
}

/// Reads a hello as it comes. What it was fed is the caller's to keep.
#[derive(Debug, Default)]
pub struct HelloReader {
    /// The header of the record at hand.
    header: [u8; 5],
    header_len: usize,
    /// Of the record at hand, so much is still to come.
    left: usize,
    /// The handshake message, without the records.
    message: Vec<u8>,
    raw: usize,
    verdict: Option<Hello>,
}

impl HelloReader {
    /// Reads on. Once it has said anything but [`Hello::NeedMore`], it stays with that, whatever else it is fed.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Hello {
        while self.verdict.is_none() && !bytes.is_empty() {
            let used = self.step(bytes);
            self.raw += used;
            bytes = &bytes[used..];
            if self.verdict.is_none() && self.raw > LONGEST_RAW {
                self.verdict = Some(Hello::Bad("the hello is too long"));
            }
        }
        self.verdict.clone().unwrap_or(Hello::NeedMore)
    }

    /// Takes at least one byte.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let n = bytes.len().min(self.left);
            self.message.extend_from_slice(&bytes[..n]);
            self.left -= n;
            self.verdict = self.whole();
            return n;
        }
        self.header[self.header_len] = bytes[0];
        self.header_len += 1;
        // The first bytes that cannot be TLS end it at once: nobody waits for more.
        self.verdict = match self.header[..self.header_len] {
            [HANDSHAKE] | [_, 3] | [_, _, 0..=4] | [_, _, _, _] => None,
            [HANDSHAKE, _, _, high, low] => {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.header_len = 0;
                match self.left {
                    // RFC 8446 §5.1: handshake messages have no empty records.
                    0 => Some(Hello::Bad("an empty record")),
                    1..=LONGEST_RECORD => None,
                    _ => Some(Hello::Bad("a record that is too long")),
                }
            }
            _ if self.message.is_empty() => Some(Hello::NotTls),
            _ => Some(Hello::Bad("something else within the hello")),
        };
        1
    }

    /// The verdict, once the message is all there.
    fn whole(&self) -> Option<Hello> {
        let (&kind, rest) = self.message.split_first()?;
        if kind != CLIENT_HELLO {
            return Some(Hello::Bad("the first message is no ClientHello"));
        }
        let (length, body) = rest.split_first_chunk::<3>()?;
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
        if length > LONGEST {
            return Some(Hello::Bad("the hello is too long"));
        }
        // What follows it in its record would be a second message, which no client sends before it is answered.
        match body.len().cmp(&length) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Greater => Some(Hello::Bad("something follows the hello in its record")),
            std::cmp::Ordering::Equal if self.left > 0 => Some(Hello::Bad("something follows the hello in its record")),
            std::cmp::Ordering::Equal => Some(read(body)),
        }
    }
}

/// What remains of a message.
struct Rest<'r>(&'r [u8]);

impl<'r> Rest<'r> {
    fn take(&mut self, n: usize) -> Option<&'r [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn short(&mut self) -> Option<&'r [u8]> {
        let n = self.u8()?;
        self.take(n.into())
    }

    fn long(&mut self) -> Option<&'r [u8]> {
        let n = self.u16()?;
        self.take(n.into())
    }
}

fn read(body: &[u8]) -> Hello {
    const BROKEN: Hello = Hello::Bad("the hello is malformed");
    let mut rest = Rest(body);
    // legacy_version, random, legacy_session_id, cipher_suites, legacy_compression_methods
    let Some([3, 1..=4]) = rest.take(2) else { return Hello::Bad("the hello is of no version that is known") };
    let fields = rest.take(32).and_then(|_| rest.short()).and_then(|_| rest.long()).and_then(|_| rest.short());
    if fields.is_none() {
        return BROKEN;
    }
    if rest.0.is_empty() {
        // RFC 8446 §4.1.2: the oldest clients have no extensions at all.
        return Hello::NoName;
    }
    let Some(extensions) = rest.long().filter(|_| rest.0.is_empty()) else { return BROKEN };
    let mut extensions = Rest(extensions);
    let mut found = None;
    while !extensions.0.is_empty() {
        let (Some(kind), Some(data)) = (extensions.u16(), extensions.long()) else { return BROKEN };
        // RFC 8446 §4.2: one of each kind. Of two readers each might take another.
        if kind == SERVER_NAME && found.replace(data).is_some() {
            return Hello::Bad("two server names");
        }
    }
    match found {
        None => Hello::NoName,
        Some(data) => server_name(data).unwrap_or(Hello::Bad("the server name is malformed")),
    }
}

fn server_name(data: &[u8]) -> Option<Hello> {
    let mut rest = Rest(data);
    let list = rest.long().filter(|_| rest.0.is_empty())?;
    let mut list = Rest(list);
    // RFC 6066 §3: one name of a kind, and there is one kind.
    if list.u8()? != HOST_NAME {
        return None;
    }
    let name = list.long().filter(|_| list.0.is_empty())?;
    Some(match authority::server_name(name) {
        Ok(name) => Hello::Name(name.into_owned()),
        Err(_) => Hello::Bad("the server name is no name"),
    })
}

#[cfg(test)]
mod tests;
