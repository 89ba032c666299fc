//! Sticky callers: the same key goes to the same version, on every gatepost and after every restart.
//!
//! # The formula
//!
//! ```text
//! hash   = XXH64(salt ‖ 0x00 ‖ value, seed 0)       salt: `group`, or else the function's name, in UTF-8
//! bucket = ⌊hash × 10,000 / 2^64⌋                    0 to 9,999
//! ```
//!
//! `value` is the first key present: the header's first value or the cookie's value, byte for byte, or the caller's
//! address as text (`192.0.2.7`, or RFC 5952 for IPv6, which counts whole). An empty value counts as absent. What kind
//! of key it is doesn't enter the hash: with a common `group`, functions that find the same value in a header here and
//! in a cookie there place its caller alike. For example, `orders` and `alice` make bucket 4,050.
//!
//! # Who gets which buckets
//!
//! The versions beside the baseline take theirs in the order of their names, those with weight 0 counted in. Each has
//! an anchor and a direction, in which it takes the buckets that those before it left: the first from bucket 0
//! upwards, the second from 9,999 downwards, the third from 5,000 upwards, the fourth from 4,999 downwards, then 2,500
//! up, 2,499 down, 7,500 up, 7,499 down, and so on in eighths. The baseline has what is left. So:
//!
//! - shares are exact to the bucket;
//! - with up to two versions beside the baseline, raising one (at the baseline's cost) moves only callers of the
//!   baseline, never one off it, and nobody between the two;
//! - with more, it never moves a caller off the raised one either; a third version loses callers (and gets others)
//!   only where the raised one has grown into its buckets;
//! - versions may be listed at weight 0 before and after: which end a version grows from changes only when a name
//!   that sorts before it comes or goes.
//!
//! Without a baseline the first version by name stands in for it.

use std::{fmt, hash::Hasher};

use twox_hash::XxHash64;

use super::{PickFacts, cookie};
use crate::config::model::{Function, STICKY_COOKIE, Share, Sticky, StickyKey, VersionId};

/// How many buckets there are: one per hundredth of a percent.
const BUCKETS: u16 = Share::WHOLE.0;

/// The buckets of a function and how callers get into them.
#[derive(Debug)]
pub(super) struct Buckets {
    sticky: Sticky,
    /// Runs of buckets in order: where each starts, and whose it is. Empty where no version has weight.
    runs: Vec<(u16, VersionId)>,
}

/// Where a sticky caller is, and what decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<'s> {
    /// 0 to 9,999.
    pub bucket: u16,
    /// `None`: the cookie that `issue_cookie` had handed out.
    pub key: Option<&'s StickyKey>,
}

/// The random value of the cookie that `issue_cookie` hands out: 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickyId(pub u128);

impl fmt::Display for StickyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl StickyId {
    /// The value of `Set-Cookie` (RFC 6265 §4.1.1): for the whole site and a year, not for scripts; `secure` where the
    /// request came by TLS.
    pub fn set_cookie(self, secure: bool) -> String {
        let secure = if secure { "; Secure" } else { "" };
        format!("{STICKY_COOKIE}={self}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax{secure}")
    }
}

/// The bucket (0 to 9,999) of a key's value; see the [formula](self).
pub fn bucket(salt: &str, value: &[u8]) -> u16 {
    let mut hasher = salted(salt);
    hasher.write(value);
    scaled(hasher.finish())
}

fn salted(salt: &str) -> XxHash64 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(salt.as_bytes());
    hasher.write(&[0]);
    hasher
}

fn scaled(hash: u64) -> u16 {
    ((u128::from(hash) * u128::from(BUCKETS)) >> 64) as u16
}

/// Hashes what is formatted into it, so that the text of an address needs no buffer.
struct Text<'h>(&'h mut XxHash64);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Buckets {
    /// `shares`: those in force.
    pub(super) fn new(function: &Function, shares: &[Share], sticky: &Sticky) -> Self {
        Self { sticky: sticky.clone(), runs: runs(function, shares) }
    }

    pub(super) fn issue_cookie(&self) -> bool {
        self.sticky.issue_cookie
    }

    /// The caller's bucket by the first key present. An empty value is none.
    pub(super) fn place(&self, facts: &PickFacts) -> Option<Placed<'_>> {
        let salt = self.sticky.salt.as_str();
        let by_key = self.sticky.by.iter().find_map(|key| {
            let value = match key {
                StickyKey::Header(name) => facts.headers.get(name)?.as_bytes(),
                StickyKey::Cookie(name) => cookie::value(facts.headers, name)?.as_bytes(),
                StickyKey::ClientIp => {
                    let bucket = text_bucket(salt, &facts.client_ip.to_canonical());
                    return Some(Placed { bucket, key: Some(key) });
                }
            };
            (!value.is_empty()).then(|| Placed { bucket: bucket(salt, value), key: Some(key) })
        });
        let by_issued = || {
            let value = cookie::value(facts.headers, STICKY_COOKIE)?;
            (self.sticky.issue_cookie && !value.is_empty())
                .then(|| Placed { bucket: bucket(salt, value.as_bytes()), key: None })
        };
        by_key.or_else(by_issued)
    }

    /// The bucket that a freshly issued cookie puts its caller into, now and when it comes back.
    pub(super) fn bucket_of_id(&self, id: StickyId) -> u16 {
        text_bucket(&self.sticky.salt, &id)
    }

    /// Whose a bucket is; `None` where no version has weight.
    pub(super) fn version(&self, bucket: u16) -> Option<VersionId> {
        let after = self.runs.partition_point(|(start, _)| *start <= bucket);
        self.runs.get(after.checked_sub(1)?).map(|(_, v)| *v)
    }
}

fn text_bucket(salt: &str, text: &dyn fmt::Display) -> u16 {
    use fmt::Write;

    let mut hasher = salted(salt);
    // Writing into a hasher can't fail.
    let _ = write!(Text(&mut hasher), "{text}");
    scaled(hasher.finish())
}

/// Deals the buckets out; see [the module](self).
fn runs(function: &Function, shares: &[Share]) -> Vec<(u16, VersionId)> {
    let versions = || (0u32..).map(VersionId).zip(shares);
    if versions().all(|(_, share)| share.0 == 0) {
        return Vec::new();
    }
    let baseline = function.baseline.unwrap_or(VersionId(0));
    let mut owners = vec![baseline; usize::from(BUCKETS)];
    for (nth, (version, share)) in versions().filter(|(v, _)| *v != baseline).enumerate() {
        let (anchor, up) = anchor(nth);
        let mut at = anchor;
        let (mut wanted, mut looked_at) = (share.0, 0);
        while wanted > 0 && looked_at < BUCKETS {
            let owner = &mut owners[usize::from(at)];
            if *owner == baseline {
                *owner = version;
                wanted -= 1;
            }
            looked_at += 1;
            at = if up { (at + 1) % BUCKETS } else { (at + BUCKETS - 1) % BUCKETS };
        }
    }
    let mut runs: Vec<(u16, VersionId)> = Vec::new();
    for (bucket, version) in (0..BUCKETS).zip(owners) {
        if runs.last().is_none_or(|(_, last)| *last != version) {
            runs.push((bucket, version));
        }
    }
    runs
}

/// Where the nth version beside the baseline starts, and whether it goes upwards: two at each point, at 0, then
/// halves, quarters, eighths and so on of the whole, in the order of van der Corput.
fn anchor(nth: usize) -> (u16, bool) {
    let (point, up) = ((nth / 2) as u16, nth.is_multiple_of(2));
    let start = (u32::from(point.reverse_bits()) * u32::from(BUCKETS)) >> 16;
    let start = start as u16;
    if up { (start, true) } else { ((start + BUCKETS - 1) % BUCKETS, false) }
}
