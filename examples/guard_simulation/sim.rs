//! Releases that never were, before the judge that the service runs.

use gatepost::release::guard::{Judge, Seen, Tally, Terms, Verdict};

/// What happens in a run.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Requests per second, of both versions together.
    pub rate: u64,
    /// The canary's share of them.
    pub weight: f64,
    /// The part of answers that fail.
    pub canary: f64,
    pub baseline: f64,
    /// From when to when so many times as many fail, in both.
    pub outage: Option<(u64, u64, f64)>,
    /// How often a caller whose request fails asks again, each time in vain.
    pub retries: u64,
    /// From when on the canary fails as told; before, as the baseline does.
    pub bad_from: u64,
    pub seconds: u64,
}

impl World {
    /// A canary like its baseline.
    pub const HEALTHY: Self = Self {
        rate: 200,
        weight: 0.05,
        canary: 0.002,
        baseline: 0.002,
        outage: None,
        retries: 0,
        bad_from: 0,
        seconds: 3600,
    };
}

pub const TERMS: Terms = Terms {
    tolerate: 1.0,
    false_alarm: 0.001,
    max_error_ratio: 0.2,
    min_requests: 500,
    min_time: 300.0,
    latency: None,
    warmup: 60.0,
};

/// The second in which the judge sends the canary back, and the one in which it first calls it healthy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ran {
    pub worse: Option<u64>,
    pub healthy: Option<u64>,
}

/// One run.
pub fn run(world: &World, terms: Terms, seed: u64) -> Ran {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
    let mut judge = Judge::new(terms);
    let mut callers = Retrying::new(world.retries);
    let mut ran = Ran::default();
    for second in 0..world.seconds {
        let times =
            world.outage.filter(|(from, to, _)| (*from..*to).contains(&second)).map_or(1.0, |(.., times)| times);
        let canary_fails = if second < world.bad_from { world.baseline } else { world.canary };
        let asked = dice.share(world.rate, world.weight);
        let mut canary = dice.tally(asked, (canary_fails * times).min(1.0));
        let mut baseline = dice.tally(world.rate - asked, (world.baseline * times).min(1.0));
        if world.retries > 0 {
            callers.second(second, &mut dice, [&mut canary, &mut baseline]);
        }
        match judge.second(1.0, &canary, &baseline) {
            Verdict::Worse(_) => {
                ran.worse = Some(second + 1);
                return ran;
            }
            Verdict::Healthy => ran.healthy = ran.healthy.or(Some(second + 1)),
            Verdict::NotEnough | Verdict::Unfit => {}
        }
    }
    ran
}

/// Callers that ask again once a second, and fail again.
struct Retrying {
    times: u64,
    /// Who, and how often he asks yet: of the canary and of the baseline.
    waiting: [Vec<(u64, u64)>; 2],
    seen: Option<Seen>,
}

impl Retrying {
    fn new(times: u64) -> Self {
        Self { times, waiting: [Vec::new(), Vec::new()], seen: (times > 0).then(Seen::new) }
    }

    fn second(&mut self, second: u64, dice: &mut Dice, versions: [&mut Tally; 2]) {
        let Some(seen) = &self.seen else { return };
        if second > 0 && second.is_multiple_of(60) {
            seen.turn();
        }
        for (waiting, tally) in self.waiting.iter_mut().zip(versions) {
            let first = tally.failures;
            waiting.extend((0..first).map(|_| (dice.next(), self.times)));
            tally.errors = 0;
            for (who, left) in waiting.iter_mut() {
                tally.errors += u64::from(seen.is_first(*who));
                *left -= 1;
            }
            let again = waiting.len() as u64 - first;
            tally.failures += again;
            tally.requests += again;
            waiting.retain(|(_, left)| *left > 0);
        }
    }
}

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn tally(&mut self, requests: u64, fails: f64) -> Tally {
        let failures = self.binomial(requests, fails);
        Tally { requests, failures, errors: failures, ..Tally::default() }
    }

    /// How many of `n` requests the canary gets: exact where there are few, by the normal law where there are thousands.
    fn share(&mut self, n: u64, p: f64) -> u64 {
        let mean = n as f64 * p;
        if mean < 200.0 {
            return self.binomial(n, p);
        }
        let normal = (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        ((mean + normal * (mean * (1.0 - p)).sqrt()).round() as u64).min(n)
    }

    /// Exactly binomial: by inversion, in pieces small enough for it.
    fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if p <= 0.0 || n == 0 {
            return 0;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        let piece = ((500.0 / p) as u64).max(1);
        if n > piece {
            return self.binomial(piece, p) + self.binomial(n - piece, p);
        }
        let odds = p / (1.0 - p);
        let mut left = self.unit();
        let mut chance = ((1.0 - p).ln() * n as f64).exp();
        let mut k = 0;
        while left >= chance && k < n {
            left -= chance;
            k += 1;
            chance *= odds * (n - k + 1) as f64 / k as f64;
        }
        k
    }
}
