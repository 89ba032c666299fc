//! `gatepost egress learn LOG`

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::lines::{self, Line};
use crate::{
    cli::{ConfigFile, check, failure::Outcome, term::Terminal},
    config::{Config, model::ClientId, special::special},
    decide::{
        Now, Reason,
        egress::{self, Authority, Choice, Host, Policy},
    },
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Logs with egress lines, the oldest first; `-` is stdin.
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
    /// Leave out what the rules of this config allow already.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this client.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// So many destinations are kept: a client that tries more is looking for something, and is not learned from.
const MOST: usize = 100_000;

#[derive(Debug, Default, Serialize)]
struct Told {
    /// By client.
    rules: BTreeMap<String, BTreeMap<String, Seen>>,
    /// Lines that no rule can be made of: without a client, or of what is no destination.
    left_out: u64,
}

#[derive(Debug, Default, Serialize)]
struct Seen {
    times: u64,
    first: String,
    last: String,
    /// The destination is an address that is not public: what it is.
    special: Option<&'static str>,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let config = match &options.config {
        Some(config) => Some(check::loaded(&ConfigFile { config: config.clone() }, term)?.config),
        None => None,
    };
    let known = config.as_ref().map(|config| (config, Policy::new(config, None, Now::default())));
    let mut told = Told::default();
    let mut kept = 0;
    lines::each(&options.logs, term, |line| {
        if options.client.as_ref().is_none_or(|client| line.client.as_ref() == Some(client)) {
            told.learn(&line, known.as_ref().map(|(config, policy)| (*config, policy)), &mut kept);
        }
    })?;
    if options.json {
        term.json(&serde_json::to_value(&told)?)?;
    } else {
        term.line(told.toml())?;
    }
    if told.left_out > 0 {
        term.warn(format_args!("{} lines are left out: no client, or no destination", told.left_out));
    }
    if kept >= MOST {
        term.warn(format_args!("only the first {MOST} destinations are told"));
    }
    Ok(())
}

impl Told {
    fn learn(&mut self, line: &Line, known: Option<(&Config, &Policy)>, kept: &mut usize) {
        let reason = Reason::DestinationNotAllowed.as_str();
        // What a parent proxy refuses had a rule here.
        let is_refused = line.reason.as_deref() == Some(reason) && line.parent.is_none();
        if !is_refused && line.would_refuse.as_deref() != Some(reason) {
            return;
        }
        let target = line.target.as_deref().and_then(|target| egress::connect(target.as_bytes()).ok());
        let (Some(client), Some(to)) = (&line.client, target) else {
            self.left_out += 1;
            return;
        };
        if known.is_some_and(|(config, policy)| is_allowed(config, policy, client, &to)) {
            return;
        }
        let to_text = to.to_string();
        let seen = self.rules.entry(client.clone()).or_default();
        if !seen.contains_key(&to_text) {
            if *kept >= MOST {
                return;
            }
            *kept += 1;
        }
        let seen = seen.entry(to_text).or_default();
        if seen.times == 0 {
            seen.first.clone_from(&line.ts);
            if let Host::Address(ip) = to.host {
                seen.special = special(ip).map(|what| what.words());
            }
        }
        seen.times += 1;
        seen.last.clone_from(&line.ts);
    }

    /// Rules to paste. What would be refused all the same stands there as a comment, for a person to think about.
    fn toml(&self) -> String {
        let mut out = String::new();
        for (client, destinations) in &self.rules {
            let name = format!("learned-{client}");
            // As long as names may be.
            let name = name.get(..64).unwrap_or(&name);
            let (special, plain): (Vec<_>, Vec<_>) = destinations.iter().partition(|(_, seen)| seen.special.is_some());
            // A rule that leads nowhere is no rule.
            let dead = if plain.is_empty() { "# " } else { "" };
            let _ = writeln!(out, "{dead}[egress.rule.{}]", quoted_key(name));
            let _ = writeln!(out, "{dead}clients = [{client:?}]");
            let _ = writeln!(out, "{dead}to = [");
            let width = plain.iter().map(|(to, _)| written(to).len()).max().unwrap_or(0) + 3;
            for (to, seen) in plain {
                let word = format!("\"{}\",", written(to));
                let _ = writeln!(out, "  {word:<width$} # {}", times(seen));
            }
            for (to, seen) in special {
                let what = seen.special.unwrap_or_default();
                let _ = writeln!(out, "  # \"{}\",  # {what}: needs `private` as well; {}", written(to), times(seen));
            }
            let _ = writeln!(out, "{dead}]\n");
        }
        match out.is_empty() {
            true => "# nothing was refused, or let through in report mode, for its destination".to_owned(),
            false => out.trim_end().to_owned(),
        }
    }
}

fn is_allowed(config: &Config, policy: &Policy, client: &str, to: &Authority<'_>) -> bool {
    let id = config.clients.iter().position(|one| *one.name == *client).and_then(|at| u32::try_from(at).ok());
    id.is_some_and(|id| matches!(policy.choose(ClientId(id), to), Choice::Rule(_)))
}

fn times(seen: &Seen) -> String {
    match seen.times {
        1 => format!("once, {}", seen.last),
        n => format!("{n} times, last {}", seen.last),
    }
}

/// Without the port that need not be written.
fn written(to: &str) -> &str {
    to.strip_suffix(":443").unwrap_or(to)
}

/// A name with a dot is more than one key of TOML.
fn quoted_key(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}
