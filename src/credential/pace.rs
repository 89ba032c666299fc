//! When a token is fetched again.

use std::time::Duration;

const RETRY_LEAST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// A server that says when to come back is believed up to this.
const TOLD_MOST: Duration = Duration::from_secs(600);

/// After so much of a token's `life`: early enough to try for minutes before it ends, not twice at once on two machines. `dice` is
/// anything.
pub fn refresh(life: Duration, dice: u64) -> Duration {
    let due = match life < Duration::from_secs(600) {
        true => life / 2,
        false => (life * 4 / 5).min(life - Duration::from_secs(300)),
    };
    due - due.mul_f64((dice % 1000) as f64 / 10_000.0)
}

/// After so many `failures` in a row. `refused`: by its own fault, which time alone does not mend.
pub fn retry(failures: u32, refused: bool, told: Option<Duration>, dice: u64) -> Duration {
    if let Some(told) = told {
        return told.clamp(RETRY_LEAST, TOLD_MOST);
    }
    if refused {
        return RETRY_MOST;
    }
    let most = RETRY_LEAST.saturating_mul(1 << failures.min(10)).min(RETRY_MOST);
    RETRY_LEAST.max(most.mul_f64((dice % 1000) as f64 / 1000.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_hour_is_refreshed_after_three_quarters_and_a_short_life_at_half() {
        let secs = |life: u64| refresh(Duration::from_secs(life), 0).as_secs();
        assert_eq!([secs(3600), secs(1000), secs(600), secs(500), secs(0)], [2880, 700, 300, 250, 0]);
    }

    proptest! {
        #[test]
        fn it_is_refreshed_before_it_ends(life in 0_u64..100_000, dice: u64) {
            let life = Duration::from_secs(life);
            let due = refresh(life, dice);
            prop_assert!(due <= life && due >= life / 3);
        }

        #[test]
        fn nobody_hammers(failures: u32, refused: bool, told in proptest::option::of(0_u64..100_000), dice: u64) {
            let wait = retry(failures, refused, told.map(Duration::from_secs), dice);
            prop_assert!(wait >= RETRY_LEAST && wait <= TOLD_MOST);
            prop_assert!(told.is_some() || wait <= RETRY_MOST);
        }
    }
}
