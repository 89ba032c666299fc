//! Hashes of secrets, as files hold them.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use ring::digest::{Context, Digest, SHA256, digest};
use subtle::{Choice, ConstantTimeEq};

/// A SHA-256 of something secret. Two of them are compared in constant time, and it shows itself to nobody.
#[derive(Clone, Copy, Eq)]
pub struct Digest32([u8; 32]);

/// By ring, which is faster than `sha2` where the processor has no instructions for it: one is made for each request with a key.
impl From<Digest> for Digest32 {
    fn from(digest: Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl Digest32 {
    pub fn of(secret: &[u8]) -> Self {
        Self::from(digest(&SHA256, secret))
    }

    /// Of several parts, each with its length before it, so that none can be taken for two.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hasher = Context::new(&SHA256);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self::from(hasher.finish())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 hex digits.
    fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| (byte as char).to_digit(16);
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self(bytes))
    }
}

impl PartialEq for Digest32 {
    fn eq(&self, other: &Self) -> bool {
        // Eight bytes at a time: one by one they would cost five times as much, for each request with a key.
        let word = |of: &Self, at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&of.0[8 * at..][..8]);
            u64::from_ne_bytes(bytes)
        };
        let same = (0..4).fold(Choice::from(1), |same, at| same & word(self, at).ct_eq(&word(other, at)));
        same.into()
    }
}

impl Hash for Digest32 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for Digest32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest32(***)")
    }
}

/// So many keys of one client may be good at once: enough to change one for another.
const MOST: usize = 16;

/// Every hash of a secret's text: one per line, in hex; what `sha256sum` puts behind it, blank lines and lines that begin
/// with `#` don't count.
///
/// # Errors
///
/// What is wrong, without a word of the text.
pub(super) fn all(text: &str) -> Result<Vec<Digest32>, String> {
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut digests = Vec::new();
    for (number, line) in lines {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        let digest =
            Digest32::parse(first).ok_or_else(|| format!("line {number} does not begin with 64 hexadecimal digits"))?;
        if !digests.contains(&digest) {
            digests.push(digest);
        }
    }
    match digests.len() {
        0 => Err("it has comments only".to_owned()),
        1..=MOST => Ok(digests),
        n => Err(format!("it has {n} hashes, and {MOST} is the most")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_hold_several_hashes_as_sha256sum_writes_them() {
        let (one, two) = ("ab".repeat(32), "CD".repeat(32));
        let all_of = |text: &str| all(text).map(|digests| digests.len());
        assert_eq!(all_of(&one), Ok(1));
        assert_eq!(all_of(&format!("# old\n{one}  -\n\n# new\r\n{two}\r\n")), Ok(2));
        assert_eq!(all_of(&format!("{one}\n{}", one.to_uppercase())), Ok(1));
        assert_eq!(all(&two).unwrap()[0].as_bytes(), &[0xcd; 32]);
    }

    #[test]
    fn what_is_no_hash_is_refused_without_being_shown() {
        for bad in ["hunter2", "# only a comment", &"ab".repeat(31), &"ab".repeat(33), &"zz".repeat(32)] {
            let error = all(bad).unwrap_err();
            assert!(!error.contains("hunter2") && !error.contains("zz"), "{error}");
        }
        let many: String = (0..17).map(|n| format!("{n:064x}\n")).collect();
        assert!(all(&many).is_err());
        assert_eq!(format!("{:?}", Digest32::of(b"x")), "Digest32(***)");
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(Digest32::of_parts(&[b"ab", b"c"]), Digest32::of_parts(&[b"a", b"bc"]));
        assert_eq!(Digest32::of_parts(&[b"ab", b"c"]), Digest32::of_parts(&[b"ab", b"c"]));
    }
}
