//! `gatepost check`

use clap::Args;
use serde_json::json;

use super::{
    ConfigFile,
    failure::{Failure, Outcome},
    term::{Ink, Terminal},
};
use crate::config::{self, Config, Loaded, Mode};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the problems as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let loaded = config::load(&options.file.config, Mode::Check);
    if options.json {
        let (ok, problems) = match &loaded {
            Ok(loaded) => (true, loaded.warnings.to_json()),
            Err(report) => (false, report.to_json()),
        };
        term.json(&json!({ "ok": ok, "problems": problems }))?;
        return if ok { Ok(()) } else { Err(Failure::Told(2)) };
    }
    let loaded = loaded.map_err(|report| Failure::Report(report.render(term.colour_err())))?;
    warnings(&loaded, term);
    term.line(format_args!("{}: {}", term.ink(Ink::Green, "ok"), counted(&loaded.config)))?;
    Ok(())
}

/// Loads a config for another command, telling its warnings.
pub(super) fn loaded(file: &ConfigFile, term: &mut Terminal) -> Outcome<Loaded> {
    let loaded =
        config::load(&file.config, Mode::Check).map_err(|report| Failure::Report(report.render(term.colour_err())))?;
    warnings(&loaded, term);
    Ok(loaded)
}

/// Tells what does not hinder, on stderr.
pub(super) fn warnings(loaded: &Loaded, term: &mut Terminal) {
    if !loaded.warnings.is_empty() {
        let text = loaded.warnings.render(term.colour_err());
        term.complain_plainly(&text);
    }
}

/// `2 listeners, 1 function, 3 routes`
fn counted(config: &Config) -> String {
    let count = |number: usize, one: &str| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    };
    let mut parts = vec![
        count(config.listeners.len(), "listener"),
        count(config.functions.len(), "function"),
        count(config.routes.len(), "route"),
    ];
    let others = [
        (config.clients.len(), "client"),
        (config.limits.len(), "shared limit"),
        (config.egress.listeners.len(), "egress listener"),
        (config.egress.sources.len(), "egress source"),
        (config.egress.rules.len(), "egress rule"),
    ];
    for (number, one) in others {
        if number > 0 {
            parts.push(count(number, one));
        }
    }
    parts.join(", ")
}
