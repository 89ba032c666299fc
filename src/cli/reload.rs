//! `gatepost reload`: what the unit's `ExecReload=` calls.

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::Args;

use super::{
    ConfigFile, check,
    failure::{Failure, Outcome},
    term::Terminal,
};
use crate::{
    config::{self, Mode},
    serve::{
        generations::Author,
        receipt::{Receipt, ReloadResult},
        requests::{self, Kind, Request},
    },
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Why, for the history.
    #[arg(long, short = 'm', value_name = "TEXT")]
    reason: Option<String>,
    /// How many seconds to wait for the receipt.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Print the receipt as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    // A wrong file fails here, with its report, and the service is not even asked.
    let state_dir = state_dir(&options.file, options.json, ["rejected", "reloaded"], term)?;
    let request = Request::new(Kind::Reload, author(options.reason.clone()));
    let receipt: Receipt = requests::ask(&state_dir, &request, Duration::from_secs(options.timeout))
        .map_err(|error| Failure::Failed(anyhow!(error)))?;
    tell(&receipt, options.json, term)
}

/// Where the service of this file is asked, if the file is right. The file may name another folder than the one that the running service uses; it was read
/// at its start. `said` is the result in JSON of a wrong file, and what then was not done.
pub(super) fn state_dir(
    file: &ConfigFile,
    json: bool,
    [said, done]: [&str; 2],
    term: &mut Terminal,
) -> Result<PathBuf, Failure> {
    match config::load(&file.config, Mode::Check) {
        Ok(loaded) => {
            check::warnings(&loaded, term);
            Ok(loaded.config.server.state_dir)
        }
        Err(report) if json => {
            term.json(&serde_json::json!({ "result": said, "problems": report.to_json() }))?;
            Err(Failure::Told(2))
        }
        Err(report) => {
            let mut text = report.render(term.colour_err());
            text.push_str(&format!("\nnot {done}: what serves goes on as it is"));
            Err(Failure::Report(text))
        }
    }
}

fn tell(receipt: &Receipt, json: bool, term: &mut Terminal) -> Outcome {
    if json {
        term.json(&serde_json::to_value(receipt)?)?;
    }
    match receipt.result {
        ReloadResult::Rejected if json => Err(Failure::Told(1)),
        ReloadResult::Rejected => {
            term.complain_plainly(&format!("{receipt:#}"));
            Err(Failure::Told(1))
        }
        ReloadResult::Applied | ReloadResult::Unchanged if json => Ok(()),
        ReloadResult::Applied | ReloadResult::Unchanged => Ok(term.line(format_args!("{receipt:#}"))?),
    }
}

/// Who types this; behind sudo, the one who called it.
pub(super) fn author(reason: Option<String>) -> Author {
    let name = |key: &str| std::env::var(key).ok().filter(|name| !name.is_empty());
    let number = || Some(format!("uid {}", rustix::process::getuid().as_raw()));
    Author { by: name("SUDO_USER").or_else(|| name("USER")).or_else(number), reason }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, CommandLine};

    fn reload(config: &str) -> (Outcome, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gatepost.toml");
        std::fs::write(&file, config.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let line = CommandLine::try_parse_from(["gatepost", "reload", "--config", file.to_str().unwrap()]).unwrap();
        let Command::Reload(options) = line.command else { panic!("not reload") };
        let (mut term, out, _) = Terminal::on_pads();
        (run(&options, &mut term), out.text())
    }

    #[test]
    fn a_wrong_file_is_reported_before_anybody_is_asked() {
        let (outcome, _) = reload("[listener.web]\nadress = \"127.0.0.1:80\"\n");
        let Err(Failure::Report(text)) = outcome else { panic!("{outcome:?}") };
        assert!(text.contains("adress") && text.ends_with("not reloaded: what serves goes on as it is"), "{text}");
    }

    #[test]
    fn nobody_there_is_a_failure() {
        let (outcome, _) = reload("[server]\nstate_dir = \"DIR/state\"\n[listener.web]\naddress = \"127.0.0.1:80\"\n");
        let Err(Failure::Failed(error)) = outcome else { panic!("{outcome:?}") };
        assert!(error.to_string().contains("no gatepost is running"), "{error}");
    }

    #[test]
    fn a_receipt_says_what_changed_and_a_rejected_one_fails() {
        let receipt = |result: &str| -> Receipt {
            serde_json::from_value(serde_json::json!({
                "generation": 4, "hash": "aa", "result": result, "report": "error: no", "took_ms": 1.5,
                "changes": [{ "text": "function orders: v42 5 % → 10 %", "applies": "live" }],
                "at": "2026-11-22T10:00:00Z",
            }))
            .unwrap()
        };
        let (mut term, out, err) = Terminal::on_pads();
        tell(&receipt("applied"), false, &mut term).unwrap();
        assert!(out.text().contains("function orders: v42 5 % → 10 %"), "{}", out.text());
        assert!(matches!(tell(&receipt("rejected"), false, &mut term), Err(Failure::Told(1))));
        assert!(err.text().contains("error: no\nthe new config is refused"), "{}", err.text());
    }
}
