//! `gatepost diff`

mod traffic;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{
    failure::{Failure, Outcome},
    term::{Ink, Terminal},
};
use crate::config::{
    self, Loaded, Mode,
    changes::{Applied, Change, changes},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The config that serves now: its main file.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The config that is to serve.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Say of the requests in this access log (JSON lines) which would fare otherwise.
    #[arg(long, value_name = "ACCESS_LOG")]
    traffic: Option<PathBuf>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let (old, new) = (loaded(&options.old, term)?, loaded(&options.new, term)?);
    let changes = changes(&old.config, &new.config);
    let traffic = match &options.traffic {
        None => None,
        Some(log) => Some(traffic::judge(log, &old.config, &new.config, term)?),
    };
    if options.json {
        let told =
            |change: &Change| json!({ "text": change.text, "needs_restart": change.applies == Applied::NeedsRestart });
        let mut all = json!({ "changes": changes.iter().map(told).collect::<Vec<_>>() });
        if let Some(traffic) = &traffic {
            all["traffic"] = serde_json::to_value(traffic)?;
        }
        return Ok(term.json(&all)?);
    }
    if changes.is_empty() {
        term.line("the two mean the same")?;
    }
    for change in &changes {
        term.line(change)?;
    }
    if let Some(traffic) = &traffic {
        term.line("")?;
        let total = term.ink(Ink::Bold, traffic.requests);
        term.line(format_args!("of {total} requests {} would fare as before", traffic.as_before))?;
        for moved in &traffic.moved {
            let traffic::Moved { requests, was, would_be, example } = moved;
            term.line(format_args!("{requests:>8}  {was} → {would_be}, such as {example}"))?;
        }
        for shares in &traffic.shares {
            let traffic::Shares { function, version, was, would_be } = shares;
            term.line(format_args!("function {function}: {version} has about {was:.0} → {would_be:.0} of them"))?;
        }
    }
    Ok(())
}

fn loaded(path: &Path, term: &Terminal) -> Outcome<Loaded> {
    config::load(path, Mode::Check).map_err(|report| Failure::Report(report.render(term.colour_err())))
}
