//! Evidence in words and numbers: for the log, the history and whoever asks.

use serde_json::{Value, json};

use super::{Cause, Evidence, Tally, Verdict};

impl Evidence {
    /// On one line, for people: `v42 fails 12 of 240 (5 %), v41 9 of 4560 (0.2 %), in 31 s: odds 1830 to 1, of 1000 needed`.
    pub fn words(&self, canary: &str, baseline: &str) -> String {
        let part = |count: u64, of: u64| format!("{count} of {of} ({} %)", percent(count, of));
        let both = |what: &str, count: fn(&Tally) -> (u64, u64)| {
            let ((c, n), (b, m)) = (count(&self.canary), count(&self.baseline));
            format!("{canary} {what} {}, {baseline} {}", part(c, n), part(b, m))
        };
        let did = match self.verdict {
            Verdict::Worse(Cause::Latency) => both("is slow in", |t| (t.slow, t.timed)),
            Verdict::Worse(Cause::Config) => both("is refused by its platform in", |t| (t.misfits, t.requests)),
            _ => both("fails", |t| (t.failures, t.requests)),
        };
        let mut text = format!("{did}, in {:.0} s", self.seconds);
        match (self.verdict, self.at_most) {
            (Verdict::Worse(Cause::Config), _) => {}
            (Verdict::Healthy, Some(times)) => text += &format!(": at most {times} times as many errors"),
            _ => text += &format!(": odds {} to 1, of {:.0} needed", odds(self.odds), self.needed),
        }
        text
    }

    /// In numbers, for the history.
    pub fn json(&self, canary: &str, baseline: &str) -> Value {
        let tally = |version: &str, tally: &Tally| {
            let Tally { requests, failures, errors, misfits, misfit_callers: _, timed, slow } = tally;
            json!({
                "version": version, "requests": requests, "failures": failures, "errors_counted": errors,
                "config_errors": misfits, "timed": timed, "slow_counted": slow,
            })
        };
        json!({
            "verdict": self.verdict.as_str(),
            "seconds": self.seconds.round(),
            "canary": tally(canary, &self.canary),
            "baseline": tally(baseline, &self.baseline),
            "odds": finite(self.odds),
            "odds_needed": self.needed.round(),
            "ratio_at_most": self.at_most,
        })
    }
}

/// With two decimals where they say something.
fn percent(count: u64, of: u64) -> f64 {
    let part = count as f64 / of.max(1) as f64;
    (part * 1e4).round() / 1e2
}

/// Odds are evidence, not a measurement: three digits will do.
fn odds(odds: f64) -> String {
    match odds {
        odds if odds >= 1e6 => "over a million".to_owned(),
        odds if odds >= 10.0 => format!("{odds:.0}"),
        odds => format!("{odds:.2}"),
    }
}

/// What JSON can hold, without digits that nobody needs.
pub(super) fn finite(odds: f64) -> f64 {
    (odds.min(1e12) * 1e3).round() / 1e3
}
