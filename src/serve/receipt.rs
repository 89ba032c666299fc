//! What a reload answers: to the log, to `gatepost reload`, to the demo.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::changes::{Applied, Change};

/// The outcome of one reload.
///
/// `{}` writes it on one line (a report follows on lines of its own), `{:#}` with one line per change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// What serves now: the new one where it was applied, else the one that goes on.
    pub generation: u64,
    /// Of the texts of that generation.
    pub hash: String,
    pub result: ReloadResult,
    pub changes: Vec<Change>,
    /// Why it was rejected, for people.
    pub report: Option<String>,
    #[serde(rename = "took_ms", with = "as_ms")]
    pub took: Duration,
    #[serde(with = "as_text")]
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadResult {
    Applied,
    Rejected,
    Unchanged,
}

impl ReloadResult {
    /// The label of `gatepost_config_reloads_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Unchanged => "unchanged",
        }
    }
}

impl Receipt {
    /// The changes that the process must be started anew for.
    pub fn waiting(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.applies == Applied::NeedsRestart)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, took) = (self.generation, Took(self.took));
        match self.result {
            ReloadResult::Unchanged => {
                write!(f, "nothing changed; generation {generation} goes on serving")
            }
            ReloadResult::Rejected => {
                if let Some(report) = &self.report {
                    writeln!(f, "{}", report.trim_end())?;
                }
                write!(f, "the new config is refused; generation {generation} goes on serving")
            }
            ReloadResult::Applied => {
                write!(f, "generation {generation} applied in {took}:")?;
                match self.changes.as_slice() {
                    [] => f.write_str(" no setting differs"),
                    [one] => write!(f, " {one}"),
                    many if f.alternate() => many.iter().try_for_each(|change| write!(f, "\n  {change}")),
                    [first, rest @ ..] => {
                        write!(f, " {first}")?;
                        rest.iter().try_for_each(|change| write!(f, " | {change}"))
                    }
                }
            }
        }
    }
}

/// `0.4 ms`, `3 ms`, `12.5 s`.
struct Took(Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_secs_f64() * 1_000.0;
        match ms {
            ms if ms < 0.95 => write!(f, "{ms:.1} ms"),
            ms if ms < 9_999.5 => write!(f, "{ms:.0} ms"),
            ms => write!(f, "{:.1} s", ms / 1_000.0),
        }
    }
}

/// A duration as a number of milliseconds.
mod as_ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(took: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(took.as_micros() as f64 / 1_000.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let ms = f64::deserialize(from)?;
        let took = Duration::try_from_secs_f64(ms / 1_000.0).map_err(D::Error::custom)?;
        Ok(Duration::from_micros((took.as_nanos() as f64 / 1_000.0).round() as u64))
    }
}

/// A moment in RFC 3339.
pub(super) mod as_text {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::serve) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(at)
    }

    pub(in crate::serve) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(result: ReloadResult, changes: &[(&str, Applied)]) -> Receipt {
        Receipt {
            generation: 7,
            hash: "4f".into(),
            result,
            changes: changes.iter().map(|(text, applies)| Change { text: (*text).into(), applies: *applies }).collect(),
            report: None,
            took: Duration::from_micros(3_217),
            at: "2026-11-22T10:00:00.25Z".parse().unwrap(),
        }
    }

    #[test]
    fn tells_one_change_on_one_line() {
        let one = receipt(ReloadResult::Applied, &[("function orders: v42 5 % → 10 %", Applied::Live)]);
        let line = "generation 7 applied in 3 ms: function orders: v42 5 % → 10 %";
        assert_eq!(one.to_string(), line);
        assert_eq!(format!("{one:#}"), line);
    }

    #[test]
    fn tells_many_changes_and_what_waits() {
        let two = receipt(
            ReloadResult::Applied,
            &[("server.workers 2 → 4", Applied::NeedsRestart), ("route report: added", Applied::Live)],
        );
        assert_eq!(
            two.to_string(),
            "generation 7 applied in 3 ms: server.workers 2 → 4 (waits for a restart) | route report: added"
        );
        assert_eq!(
            format!("{two:#}"),
            "generation 7 applied in 3 ms:\n  server.workers 2 → 4 (waits for a restart)\n  route report: added"
        );
        assert_eq!(two.waiting().count(), 1);
    }

    #[test]
    fn tells_why_a_config_was_refused_and_what_serves() {
        let mut refused = receipt(ReloadResult::Rejected, &[]);
        refused.report = Some("error: unknown key `wieght`\n\n".into());
        assert_eq!(
            refused.to_string(),
            "error: unknown key `wieght`\nthe new config is refused; generation 7 goes on serving"
        );
        assert_eq!(receipt(ReloadResult::Unchanged, &[]).to_string(), "nothing changed; generation 7 goes on serving");
        assert_eq!(receipt(ReloadResult::Applied, &[]).to_string(), "generation 7 applied in 3 ms: no setting differs");
    }

    #[test]
    fn survives_json() {
        let one = receipt(ReloadResult::Applied, &[("log.query", Applied::Live)]);
        let json = serde_json::to_string(&one).unwrap();
        assert!(json.contains(r#""took_ms":3.217"#), "{json}");
        assert!(json.contains(r#""at":"2026-11-22T10:00:00.25Z""#), "{json}");
        assert!(json.contains(r#""result":"applied""#), "{json}");
        assert_eq!(serde_json::from_str::<Receipt>(&json).unwrap(), one);
    }

    #[test]
    fn short_and_long_times_are_readable() {
        let told = |us| Took(Duration::from_micros(us)).to_string();
        assert_eq!(told(412), "0.4 ms");
        assert_eq!(told(960), "1 ms");
        assert_eq!(told(12_500_000), "12.5 s");
    }
}
