//! How much of a second's evidence counts: less while far more of the baseline's answers fail than usual.
//!
//! In an outage that both versions share, errors come by the hundred, and with them evidence: an hour's worth in a minute, and an hour's
//! chances of a false alarm. So the likelihood ratio of such a second is taken to a power below 1, as if errors came hardly faster than usual. Whatever power
//! is chosen by what was seen before, and by the baseline alone, the odds stay a supermartingale: `E[L^w] ≤ E[L]^w ≤ 1` (Jensen).

use super::ratio::Count;

/// Of late: what was seen so many seconds ago counts by a factor of e less.
const LATE: f64 = 10.0;
/// So many times the usual errors are nothing special.
const SPECIAL: f64 = 3.0;
/// Nor are so many errors of late, whatever is usual.
const FEW: f64 = 6.0;
/// What an outage may add to what is usual, as a part of that.
const ADDS: f64 = 1.5;
/// What is usual before anything was seen: this part of so many requests.
const AT_FIRST: Count = Count { requests: 200.0, errors: 2.0 };
/// What is usual is forgotten by a factor of e in so many seconds.
const MEMORY: f64 = 6.0 * 3600.0;

/// What the baseline has done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calm {
    usual: Count,
    late: Count,
}

impl Calm {
    pub fn new() -> Self {
        Self { usual: AT_FIRST, late: Count::default() }
    }

    /// How much of the next second's evidence counts.
    pub fn weight(&self) -> f64 {
        let usual = self.usual.errors / self.usual.requests * self.late.requests;
        let most = FEW + SPECIAL * usual;
        if self.late.errors <= most { 1.0 } else { most / self.late.errors }
    }

    /// What the baseline did in so many seconds.
    pub fn take(&mut self, seconds: f64, baseline: Count) {
        let ratio = self.usual.errors / self.usual.requests;
        let fade = |count: &mut Count, memory: f64| {
            let keeps = (-seconds / memory).exp();
            count.requests *= keeps;
            count.errors *= keeps;
        };
        fade(&mut self.late, LATE);
        self.late.add(baseline);
        fade(&mut self.usual, MEMORY);
        // An outage that goes on is the usual thing in the end.
        let errors =
            if self.weight() < 1.0 { baseline.errors.min(ADDS * ratio * baseline.requests) } else { baseline.errors };
        self.usual.add(Count { requests: baseline.requests, errors });
    }
}

impl Default for Calm {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(requests: f64, fails: f64) -> Count {
        Count { requests, errors: requests * fails }
    }

    /// The weight after so many seconds like this.
    fn after(calm: &mut Calm, seconds: u32, count: Count) -> f64 {
        (0..seconds).for_each(|_| calm.take(1.0, count));
        calm.weight()
    }

    #[test]
    fn an_outage_counts_for_less_and_what_is_usual_in_full() {
        for requests in [19.0, 190.0, 19_000.0] {
            let mut calm = Calm::new();
            assert_eq!(after(&mut calm, 600, second(requests, 0.002)), 1.0);
            let in_it = after(&mut calm, 20, second(requests, 0.2));
            assert!(in_it < 0.4, "{requests}: {in_it}");
            let still = after(&mut calm, 280, second(requests, 0.2));
            assert!(still < 0.4, "{requests}: {still} at its end");
            assert_eq!(after(&mut calm, 120, second(requests, 0.002)), 1.0, "{requests}: it is over");
        }
    }

    #[test]
    fn what_lasts_becomes_the_usual_thing_and_a_baseline_that_always_failed_is_in_no_outage() {
        let mut calm = Calm::new();
        // It takes two minutes to be known for what it is.
        assert_eq!(after(&mut calm, 120, second(190.0, 0.2)), 1.0);
        let mut calm = Calm::new();
        after(&mut calm, 3600, second(190.0, 0.002));
        assert_eq!(after(&mut calm, 12 * 3600, second(190.0, 0.02)), 1.0);
    }

    #[test]
    fn a_few_errors_where_there_are_hardly_any_are_no_outage() {
        let mut calm = Calm::new();
        after(&mut calm, 7200, second(100.0, 0.0));
        calm.take(1.0, Count { requests: 100.0, errors: 5.0 });
        assert_eq!(calm.weight(), 1.0);
    }
}
