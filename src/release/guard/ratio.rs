//! Whether errors fall on the canary more often than its share of the requests explains: tests that may be looked at after every
//! second, and stopped at any.
//!
//! In one batch, `x` is the canary's requests for each of the baseline's. Were the canary `ρ` times as bad as the baseline, an
//! error would be the canary's with the probability `ρx / (1 + ρx)`. Of two such claims, `ρ` and `ρr`, the errors seen
//! (`c` in the canary, `b` in the baseline) give the likelihood ratio
//!
//! ```text
//! L = r^c · ((1 + ρx) / (1 + ρxr))^(c + b)
//! ```
//!
//! Let every answer fail with some probability that may depend on all that went before: `q` in the baseline, at most `ρq` in the
//! canary. By `1 + y ≤ e^y` the expectation of `L` is at most `exp(q·n_b·(ρx(A - 1) + (B - 1)))`, where `A` and `B` are what one
//! error in the canary and in the baseline multiply `L` by; the exponent is 0. So whatever `q` does, a product of such `L`
//! is a supermartingale that starts at 1, as is any mixture of them: by Ville's inequality it ever reaches `1/α` with
//! probability `α` at most. docs/guard.md has the proof, and what it does not cover.

/// What happened in one version over one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    pub requests: f64,
    pub errors: f64,
}

impl Count {
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
    }
}

/// Two versions over the same batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pair {
    pub canary: Count,
    pub baseline: Count,
}

impl Pair {
    /// `ln L` for the claim `r·ρ` against the claim `ρ`. 0 where one of both had no requests: then nothing is compared.
    fn ln_likelihood(&self, rho: f64, r: f64) -> f64 {
        let x = rho * self.canary.requests / self.baseline.requests;
        self.canary.errors * r.ln() - (self.canary.errors + self.baseline.errors) * ((1.0 + x * r) / (1.0 + x)).ln()
    }

    pub fn add(&mut self, other: &Self) {
        self.canary.add(other.canary);
        self.baseline.add(other.baseline);
    }

    /// Both were asked, so that their errors can be compared.
    pub fn is_comparable(&self) -> bool {
        self.canary.requests > 0.0 && self.baseline.requests > 0.0
    }
}

/// How many times worse than tolerated a canary is looked for, and how much of the evidence is staked on each.
///
/// Worlds with a high `r` show themselves within seconds whatever is staked on them (every error in the canary
/// multiplies their part by nearly `r`), so most is staked on those that take minutes.
const STAKES: [(f64, f64); 6] = [(1.5, 0.20), (2.0, 0.34), (4.0, 0.26), (8.0, 0.10), (16.0, 0.06), (32.0, 0.04)];

/// The share of the stakes that is kept back for a canary that goes bad later on.
const KEPT: f64 = 0.3;

/// After this many seconds half of it is staked, after twice as many two thirds, and so on.
const PACE: f64 = 600.0;

/// The evidence that the canary's errors exceed `tolerate` times the baseline's.
///
/// A canary that was healthy for days has used up what was staked at first: its errors multiplied those parts down to nothing. So a part
/// of the stakes is brought in little by little. That costs a fresh canary a few percent of the time that it takes to
/// be found out, and keeps a later one within a few times of it, instead of as long again as it has been healthy. What isn't staked yet counts as
/// itself, so that the sum stays a supermartingale.
#[derive(Debug, Clone, PartialEq)]
pub struct Excess {
    tolerate: f64,
    parts: [f64; STAKES.len()],
    unstaked: f64,
    seconds: f64,
}

impl Excess {
    pub fn new(tolerate: f64) -> Self {
        Self { tolerate, parts: STAKES.map(|(_, stake)| stake * (1.0 - KEPT)), unstaked: KEPT, seconds: 0.0 }
    }

    /// Takes in a batch that lasted so many seconds, its likelihood ratio to the power `weight`: 0 to 1, chosen without a look at it.
    pub fn take(&mut self, seconds: f64, pair: &Pair, weight: f64) {
        self.seconds += seconds;
        let unstaked = KEPT / (1.0 + self.seconds / PACE);
        let staked = self.unstaked - unstaked;
        self.unstaked = unstaked;
        let has_errors = pair.is_comparable() && pair.canary.errors + pair.baseline.errors > 0.0;
        for (part, (r, stake)) in self.parts.iter_mut().zip(STAKES) {
            *part += stake * staked;
            if has_errors {
                // A bound, so that `alert` may go on counting for days.
                *part = (*part * (weight * pair.ln_likelihood(self.tolerate, r)).exp()).min(1e300);
            }
        }
    }

    /// How many times the stakes have grown: by luck it ever reaches `k` in one of `k` lives at most.
    pub fn value(&self) -> f64 {
        self.parts.iter().sum::<f64>() + self.unstaked
    }
}

/// The ratios that a canary may be said to stay under.
const LADDER: [f64; 10] = [1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0];

/// How far under each of them a canary is looked for: as a part of it, in equal stakes.
const UNDER: [f64; 3] = [0.2, 0.4, 0.7];

/// The evidence that the canary's errors are less than so many times the baseline's: the same test with its sides changed, for each rung of
/// [`LADDER`].
#[derive(Debug, Clone, PartialEq)]
pub struct Upper {
    rungs: [[f64; UNDER.len()]; LADDER.len()],
}

impl Upper {
    pub fn new() -> Self {
        Self { rungs: [[1.0 / UNDER.len() as f64; UNDER.len()]; LADDER.len()] }
    }

    pub fn take(&mut self, pair: &Pair) {
        if !pair.is_comparable() || pair.canary.errors + pair.baseline.errors == 0.0 {
            return;
        }
        for (rung, rho) in self.rungs.iter_mut().zip(LADDER) {
            for (part, r) in rung.iter_mut().zip(UNDER) {
                *part = (*part * pair.ln_likelihood(rho, r).exp()).min(1e300);
            }
        }
    }

    /// The lowest ratio that the canary stays under but for the chance `alpha`; `None`: none that is known.
    pub fn bound(&self, alpha: f64) -> Option<f64> {
        let holds = |rung: &[f64; UNDER.len()]| rung.iter().sum::<f64>() >= 1.0 / alpha;
        // Evidence against a ratio is evidence against every higher one; the ladder is climbed from above so that a rung that wavers ends it.
        let from = self.rungs.iter().rposition(|rung| !holds(rung)).map_or(0, |last| last + 1);
        LADDER.get(from).copied()
    }
}

impl Default for Upper {
    fn default() -> Self {
        Self::new()
    }
}

/// The evidence that fewer than `limit` of all answers fail: a bet on each answer, mixed over how much less they might.
///
/// Of answers that fail with probability `limit` or more, one multiplies the stake by `1 / (1 - limit·(1 - s))` where it
/// succeeds and by `s` times that where it fails: 1 in expectation at most.
pub fn stays_under(limit: f64, requests: f64, failures: f64) -> f64 {
    let bet = |s: f64| {
        let luck = if failures > 0.0 { failures * s.ln() } else { 0.0 };
        (luck - requests * (1.0 - limit * (1.0 - s)).ln()).exp()
    };
    [0.0, 0.1, 0.4].map(bet).iter().sum::<f64>() / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chances of 0 to `n` failures among `n`.
    fn binomial(n: u32, p: f64) -> Vec<f64> {
        let mut all = vec![1.0];
        for _ in 0..n {
            let mut next = vec![0.0; all.len() + 1];
            for (k, chance) in all.iter().enumerate() {
                next[k] += chance * (1.0 - p);
                next[k + 1] += chance * p;
            }
            all = next;
        }
        all
    }

    /// The exact expectation of what a batch multiplies by, over all that may happen in it.
    fn expectation(requests: (u32, u32), fails: (f64, f64), of: impl Fn(&Pair) -> f64) -> f64 {
        let (canary, baseline) = (binomial(requests.0, fails.0), binomial(requests.1, fails.1));
        let mut sum = 0.0;
        for (c, chance_c) in canary.iter().enumerate() {
            for (b, chance_b) in baseline.iter().enumerate() {
                let count =
                    |requests: u32, errors: usize| Count { requests: f64::from(requests), errors: errors as f64 };
                let pair = Pair { canary: count(requests.0, c), baseline: count(requests.1, b) };
                sum += chance_c * chance_b * of(&pair);
            }
        }
        sum
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

        /// What the bound on false alarms stands on: nothing that is within what is tolerated makes the odds grow, on average.
        #[test]
        fn a_canary_within_what_is_tolerated_gains_no_odds(
            requests in (1u32..30, 1u32..60), q in 0.0f64..1.0, tolerate in 1.0f64..5.0, better in 0.0f64..1.0, before in 0u32..5000, weight in 0.0f64..=1.0,
        ) {
            let mut excess = Excess::new(tolerate);
            excess.take(f64::from(before), &Pair::default(), 1.0);
            let was = excess.value();
            let canary = (q * tolerate * better).min(1.0);
            let then = expectation(requests, (canary, q), |pair| {
                let mut excess = excess.clone();
                excess.take(1.0, pair, weight);
                excess.value()
            });
            assert!(then <= was + 1e-9, "{was} → {then}");
        }

        /// The same of the upper bound: a canary that is at least so many times as bad gains no credit.
        #[test]
        fn a_canary_as_bad_as_a_rung_gains_no_credit(requests in (1u32..30, 1u32..60), q in 0.0f64..1.0, rung in 0usize..LADDER.len(), worse in 1.0f64..3.0) {
            let canary = q;
            let baseline = q / (LADDER[rung] * worse);
            let credit = expectation(requests, (canary, baseline), |pair| {
                let mut upper = Upper::new();
                upper.take(pair);
                upper.rungs[rung].iter().sum()
            });
            assert!(credit <= 1.0 + 1e-9, "{credit}");
        }

        #[test]
        fn answers_that_fail_too_often_gain_no_credit(n in 1u32..60, limit in 0.001f64..0.5, more in 0.0f64..0.5) {
            let chances = binomial(n, limit + more);
            let credit: f64 = chances.iter().enumerate().map(|(k, p)| p * stays_under(limit, f64::from(n), k as f64)).sum();
            assert!(credit <= 1.0 + 1e-9, "{credit}");
        }
    }

    #[test]
    fn stakes_are_whole_and_time_alone_changes_nothing() {
        assert!(close(STAKES.iter().map(|(_, stake)| stake).sum::<f64>(), 1.0));
        let mut excess = Excess::new(1.5);
        for _ in 0..10_000 {
            excess.take(1.0, &Pair::default(), 1.0);
            assert!(close(excess.value(), 1.0));
        }
    }

    #[test]
    fn what_cannot_be_compared_says_nothing() {
        let some = Count { requests: 10.0, errors: 9.0 };
        for pair in [Pair { canary: some, ..Pair::default() }, Pair { baseline: some, ..Pair::default() }] {
            let (mut excess, mut upper) = (Excess::new(1.0), Upper::new());
            excess.take(1.0, &pair, 1.0);
            upper.take(&pair);
            assert!(close(excess.value(), 1.0));
            assert_eq!(upper, Upper::new());
        }
    }

    #[test]
    fn a_ratio_is_bounded_once_enough_has_failed() {
        let pair = |c, b| Pair {
            canary: Count { requests: 1000.0, errors: c },
            baseline: Count { requests: 19_000.0, errors: b },
        };
        let mut upper = Upper::new();
        assert_eq!(upper.bound(0.05), None);
        for _ in 0..10 {
            upper.take(&pair(2.0, 38.0));
        }
        let early = upper.bound(0.05).unwrap();
        for _ in 0..200 {
            upper.take(&pair(2.0, 38.0));
        }
        let later = upper.bound(0.05).unwrap();
        assert!((1.25..=1.5).contains(&later) && later < early, "{early} {later}");
    }
}
