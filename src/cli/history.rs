//! `gatepost history`

use std::io;

use anyhow::anyhow;
use clap::Args;
use serde_json::Value;

use super::{
    ConfigFile,
    failure::{Failure, Outcome},
    place::Place,
    term::{Ink, Terminal},
};
use crate::serve::generations::{self, Entry};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Only the newest so many.
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 20)]
    last: usize,
    /// Print them as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let place = Place::of(&options.file.config);
    if let Some(doubt) = place.doubt {
        term.warn(doubt);
    }
    // Said apart from a history that is empty: it is the wrong folder, most likely.
    if place.state_dir.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(Failure::Failed(anyhow!(
            "{} is not there: no gatepost has run with this server.state_dir; name its config with --config",
            place.state_dir.display()
        )));
    }
    let entries = generations::history(&place.state_dir)?;
    let newest = &entries[entries.len().saturating_sub(options.last)..];
    if newest.is_empty() && !options.json {
        term.line(format_args!("no config has been applied yet ({})", place.state_dir.display()))?;
    }
    for entry in newest {
        if options.json {
            term.line(serde_json::to_value(entry).map(|value: Value| value.to_string())?)?;
        } else {
            tell(entry, term)?;
        }
    }
    Ok(())
}

fn tell(entry: &Entry, term: &mut Terminal) -> Outcome {
    let number = term.ink(Ink::Bold, entry.generation);
    let hash: String = entry.hash.chars().take(12).collect();
    let at = entry.at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z");
    let by = entry.author.by.as_ref().map_or_else(String::new, |by| format!("  by {by}"));
    let reason = entry.author.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    term.line(format_args!("{number}  {at}  {}{by}{reason}", term.ink(Ink::Dim, hash)))?;
    for change in &entry.change {
        term.line(format_args!("    {change}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, CommandLine};

    #[test]
    fn tells_what_changed_when_and_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"generation":1,"at":"2026-11-22T10:00:00Z","hash":"aabbccddeeff0011","change":["first config"]}"#,
            r#"{"generation":2,"at":"2026-11-22T11:00:00Z","hash":"ff","change":["function orders: v42 5 % → 10 %"],"by":"ann","reason":"canary looks good"}"#,
        ];
        std::fs::write(dir.path().join("history.jsonl"), lines.join("\n") + "\n").unwrap();
        let config = dir.path().join("gatepost.toml");
        std::fs::write(&config, format!("[server]\nstate_dir = '{}'\n", dir.path().display())).unwrap();
        let told = |more: &[&str]| {
            let words = ["gatepost", "history", "--config", config.to_str().unwrap()];
            let line = CommandLine::try_parse_from(words.iter().chain(more)).unwrap();
            let Command::History(options) = line.command else { panic!("not history") };
            let (mut term, out, _) = Terminal::on_pads();
            run(&options, &mut term).unwrap();
            out.text()
        };
        let all = told(&[]);
        assert!(all.starts_with("1  2026-11-2") && all.contains("aabbccddeeff\n    first config\n"), "{all}");
        assert!(all.contains("ff  by ann: canary looks good\n    function orders: v42 5 % → 10 %\n"), "{all}");
        assert!(told(&["-n", "1"]).starts_with("2  "));
        assert_eq!(told(&["--json"]).lines().count(), 2);
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_an_empty_history() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("gatepost.toml");
        std::fs::write(&config, "[server]\nstate_dir = \"state\"\n").unwrap();
        let history = || {
            let line = CommandLine::try_parse_from(["gatepost", "history", "--config", config.to_str().unwrap()]);
            let Command::History(options) = line.unwrap().command else { panic!("not history") };
            let (mut term, out, _) = Terminal::on_pads();
            run(&options, &mut term).map(|()| out.text())
        };
        let Err(Failure::Failed(error)) = history() else { panic!("no folder, and no error") };
        assert!(error.to_string().contains("state is not there"), "{error}");
        std::fs::create_dir(dir.path().join("state")).unwrap();
        assert!(history().unwrap().starts_with("no config has been applied yet"));
    }
}
