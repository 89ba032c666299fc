//! Shares that are made more or less together.

use super::Share;

impl Share {
    /// Percent with at most two decimals: `5`, `0.5`, `12.34`.
    pub fn percent(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let part = part.trim_end_matches('0');
        if part.len() > 2 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let whole: u16 = whole.parse().ok().filter(|whole| *whole <= 100)?;
        let part: u16 = format!("{part:0<2}").parse().ok()?;
        Some(whole * 100 + part).filter(|share| *share <= Self::WHOLE.0).map(Self)
    }
}

/// Makes the shares total `total`, in proportion to what they are, exactly: the largest remainders are rounded up. Where all are
/// nothing, they stay so.
pub fn in_proportion(shares: &mut [Share], total: Share) {
    let has: u64 = shares.iter().map(|share| u64::from(share.0)).sum();
    if has == 0 {
        return;
    }
    let mut left = total.0;
    let mut remainders: Vec<(u64, usize)> = Vec::with_capacity(shares.len());
    for (at, share) in shares.iter_mut().enumerate() {
        let exact = u64::from(share.0) * u64::from(total.0);
        // At most `total`, since the share is a part of `has`.
        *share = Share(u16::try_from(exact / has).unwrap_or(total.0));
        left -= share.0;
        remainders.push((exact % has, at));
    }
    remainders.sort_by_key(|(remainder, at)| (std::cmp::Reverse(*remainder), *at));
    for (_, at) in remainders.into_iter().take(usize::from(left)) {
        shares[at].0 += 1;
    }
}
