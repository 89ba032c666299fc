//! `gatepost egress partners LOG`: the answer to "who calls us, and from where?"

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::lines::{self, Line};
use crate::{
    cli::{
        ConfigFile, check,
        failure::Outcome,
        table::aligned,
        term::{Ink, Terminal},
    },
    config::Config,
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Logs with egress lines, the oldest first; `-` is stdin.
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
    /// Tells what the world sees in the place of an address of a source.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only destinations that have this in their name.
    #[arg(long, value_name = "TEXT")]
    to: Option<String>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// So many are kept: names that were refused are whatever callers wrote.
const MOST: usize = 100_000;

/// Destination, client and the address that it left from.
type Key = (String, String, Option<String>);

#[derive(Debug, Default, Serialize)]
struct Calls {
    destination: String,
    client: String,
    source: Option<String>,
    /// The local address.
    from: Option<String>,
    /// What the partner sees, where it is known.
    public: Option<String>,
    /// The proxy by which it went: the partner sees that one's address.
    parent: Option<String>,
    rule: Option<String>,
    worked: u64,
    failed: u64,
    last_success: Option<String>,
    last_failure: Option<String>,
    last_reason: Option<String>,
    bytes_in: u64,
    bytes_out: u64,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let config = match &options.config {
        Some(config) => Some(check::asked(&ConfigFile { config: config.clone() }, term)?.config),
        None => None,
    };
    let mut calls: BTreeMap<Key, Calls> = BTreeMap::new();
    let (mut left_out, mut strangers) = (0u64, 0u64);
    lines::each(&options.logs, term, |line| {
        let wanted = |target: &String| options.to.as_ref().is_none_or(|text| target.contains(text.as_str()));
        let Some(target) = line.target.clone().filter(wanted) else { return };
        // Whoever never said who he was called nobody: his target is whatever he wrote.
        let Some(client) = line.client.clone() else {
            strangers += 1;
            return;
        };
        let key = (target, client, line.source_address.clone());
        if calls.len() >= MOST && !calls.contains_key(&key) {
            left_out += 1;
            return;
        }
        let (destination, client) = (key.0.clone(), key.1.clone());
        calls
            .entry(key)
            .or_insert_with(|| Calls { destination, client, ..Calls::default() })
            .count(line, config.as_ref());
    })?;
    if options.json {
        term.json(&serde_json::to_value(calls.values().collect::<Vec<_>>())?)?;
    } else {
        print(calls.values(), term)?;
    }
    if strangers > 0 {
        let lines = if strangers == 1 { "1 line is".to_owned() } else { format!("{strangers} lines are") };
        term.warn(format_args!("{lines} left out: no client"));
    }
    if left_out > 0 {
        term.warn(format_args!("only the first {MOST} are told; {left_out} lines are of others"));
    }
    Ok(())
}

impl Calls {
    fn count(&mut self, line: Line, config: Option<&Config>) {
        self.bytes_in += line.bytes_in;
        self.bytes_out += line.bytes_out;
        if line.worked() {
            self.worked += 1;
            self.last_success = Some(line.ts);
        } else {
            self.failed += 1;
            self.last_failure = Some(line.ts);
            self.last_reason = line.reason.or_else(|| line.status.map(|status| status.to_string()));
        }
        self.parent = line.parent.or_else(|| self.parent.take());
        if self.from.is_none() {
            self.public = line.source_address.as_ref().and_then(|ip| public(ip, line.source.as_deref(), config?));
            (self.from, self.source) = (line.source_address, line.source);
        }
        self.rule = line.rule.or_else(|| self.rule.take());
    }
}

fn public(ip: &str, source: Option<&str>, config: &Config) -> Option<String> {
    let ip: std::net::IpAddr = ip.parse().ok()?;
    let source = config.egress.sources.iter().find(|one| Some(&*one.name) == source)?;
    let at = source.bind.iter().position(|one| *one == ip)?;
    source.public_of(at).map(|public| public.to_string())
}

fn print<'c>(calls: impl Iterator<Item = &'c Calls>, term: &mut Terminal) -> Outcome {
    let mut rows =
        vec![["destination", "client", "from", "worked", "last success", "failed", "why"].map(str::to_owned).to_vec()];
    rows.extend(calls.map(|one| {
        let from = match (&one.public, &one.from) {
            _ if one.parent.is_some() => format!("by {}", one.parent.as_deref().unwrap_or_default()),
            (Some(public), Some(from)) if public != from => format!("{public} ({from})"),
            (_, Some(from)) => from.clone(),
            (_, None) => "-".to_owned(),
        };
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            one.destination.clone(),
            one.client.clone(),
            from,
            one.worked.to_string(),
            or(&one.last_success),
            one.failed.to_string(),
            or(&one.last_reason),
        ]
    }));
    if rows.len() == 1 {
        term.line("no egress lines there")?;
        return Ok(());
    }
    for (at, line) in aligned(&rows).iter().enumerate() {
        match at {
            0 => term.line(term.ink(Ink::Dim, line))?,
            _ => term.line(line)?,
        }
    }
    Ok(())
}
