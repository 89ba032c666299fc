//! `gatepost upgrade`: asks the running service to hand over to a new process, and says what came of it.

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::Args;

use super::{
    ConfigFile,
    failure::{Failure, Outcome},
    reload::{self, author},
    term::Terminal,
};
use crate::serve::{
    hand_over::{UpgradeReceipt, UpgradeResult},
    requests::{self, Kind, Request},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// The binary to start; else the one that the service was started from, as it is now. It holds for the service's further life.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// How many seconds the new process has until it serves.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// Why, for the log.
    #[arg(long, short = 'm', value_name = "TEXT")]
    reason: Option<String>,
    /// Print the receipt as JSON.
    #[arg(long)]
    json: bool,
}

/// The service tells of a new process that is late; this is for a service that tells nothing.
const BEYOND: Duration = Duration::from_secs(10);

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    // A file that is wrong for this version fails here already, with its report.
    let state_dir = reload::state_dir(&options.file, options.json, ["failed", "upgraded"], term)?;
    // The service's folder is another one than ours.
    let binary = options.binary.as_ref().map(std::path::absolute).transpose()?;
    let patience = Some(options.timeout);
    let request = Request { binary, patience, ..Request::new(Kind::Upgrade, author(options.reason.clone())) };
    let receipt: UpgradeReceipt = requests::ask(&state_dir, &request, Duration::from_secs(options.timeout) + BEYOND)
        .map_err(|error| Failure::Failed(anyhow!(error)))?;
    tell(&receipt, options.json, term)
}

fn tell(receipt: &UpgradeReceipt, json: bool, term: &mut Terminal) -> Outcome {
    if json {
        term.json(&serde_json::to_value(receipt)?)?;
    }
    match receipt.result {
        UpgradeResult::Upgraded if json => Ok(()),
        UpgradeResult::Upgraded => Ok(term.line(format_args!("{receipt}"))?),
        UpgradeResult::Failed => {
            if !json {
                term.complain_plainly(&receipt.to_string());
            }
            Err(Failure::Told(1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(result: &str) -> UpgradeReceipt {
        serde_json::from_value(serde_json::json!({
            "result": result, "from": { "pid": 7, "version": "0.1.0" }, "to": { "pid": 8, "version": "0.2.0" },
            "binary": "/usr/bin/gatepost", "report": "it ended before it served (exit status: 2)",
            "at": "2026-11-29T10:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn who_serves_is_said_and_a_failure_fails() {
        let (mut term, out, err) = Terminal::on_pads();
        tell(&receipt("upgraded"), false, &mut term).unwrap();
        assert_eq!(out.text(), "gatepost 0.2.0 (pid 8) serves; 0.1.0 (pid 7) finishes what it has and ends\n");
        assert!(matches!(tell(&receipt("failed"), false, &mut term), Err(Failure::Told(1))));
        let said = "it ended before it served (exit status: 2)\nnot upgraded: gatepost 0.1.0 (pid 7) goes on serving";
        assert!(err.text().contains(said), "{}", err.text());
    }
}
