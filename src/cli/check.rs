//! `gatepost check`

use std::net::IpAddr;

use clap::Args;
use serde_json::json;

use super::{
    ConfigFile,
    failure::{Failure, Outcome},
    term::{Ink, Terminal},
};
use crate::{
    config::{self, Config, Loaded, Mode, model::Listener},
    egress::here,
    serve::present,
};

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
        let (ok, problems, absent) = match &loaded {
            Ok(loaded) => (true, loaded.warnings.to_json(), absent(&loaded.config)),
            Err(report) => (false, report.to_json(), Vec::new()),
        };
        let absent: Vec<_> = (absent.iter())
            .map(|(listener, ip, freebind)| json!({ "listener": listener, "address": ip, "freebind": freebind }))
            .collect();
        term.json(&json!({ "ok": ok, "problems": problems, "absent": absent }))?;
        return if ok { Ok(()) } else { Err(Failure::Told(2)) };
    }
    let loaded = loaded.map_err(|report| Failure::Report(report.render(term.colour_err())))?;
    warnings(&loaded, term);
    for (listener, ip, freebind) in absent(&loaded.config) {
        let then = match freebind {
            true => "it would listen here, and be reached once the address comes (`freebind`)",
            false => "it could not listen here; for a floating address, say `freebind = true`",
        };
        term.complain_plainly(&format!(
            "note: this machine does not have {ip}, the address of listener {listener}: {then}"
        ));
    }
    term.line(format_args!("{}: {}", term.ink(Ink::Green, "ok"), counted(&loaded.config)))?;
    Ok(())
}

/// Listeners whose address this machine does not have, with that address, and whether they wait for it. No problem of the config's: it may be
/// for another machine.
fn absent(config: &Config) -> Vec<(String, IpAddr, bool)> {
    let way_in = config.listeners.iter().map(|listener| (listener.name.to_string(), listener));
    let way_out = config.egress.listeners.iter().map(|listener| (format!("egress.{}", listener.name), listener));
    let absent = |(name, listener): (String, &Listener)| {
        let ip = present::only(&listener.address).filter(|ip| !here::has(*ip))?;
        Some((name, ip, listener.freebind))
    };
    way_in.chain(way_out).filter_map(absent).collect()
}

/// Loads a config for another command, telling its warnings.
pub(super) fn loaded(file: &ConfigFile, term: &mut Terminal) -> Outcome<Loaded> {
    loaded_as(Mode::Check, file, term)
}

/// Loads a config for a command that asks what it says, and uses no key of it: whoever is on call may not be allowed to read these.
pub(super) fn asked(file: &ConfigFile, term: &mut Terminal) -> Outcome<Loaded> {
    loaded_as(Mode::Ask, file, term)
}

fn loaded_as(mode: Mode, file: &ConfigFile, term: &mut Terminal) -> Outcome<Loaded> {
    let loaded =
        config::load(&file.config, mode).map_err(|report| Failure::Report(report.render(term.colour_err())))?;
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
