//! `gatepost egress addresses`

use std::net::IpAddr;

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        ConfigFile, check,
        failure::Outcome,
        table::aligned,
        term::{Ink, Terminal},
    },
    config::{
        Config,
        model::{EgressRule, EgressSourceId},
    },
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Told {
    addresses: Vec<Address>,
    /// Rules that name no source: calls leave as the system chooses.
    without_source: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Address {
    /// What the world sees: for partners.
    public: IpAddr,
    source: String,
    bind: IpAddr,
    /// Whether this machine has it.
    here: bool,
    rules: Vec<String>,
    clients: Vec<String>,
    destinations: Vec<String>,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let config = check::loaded(&options.file, term)?.config;
    let told = told(&config);
    if options.json {
        term.json(&serde_json::to_value(&told)?)?;
        return Ok(());
    }
    if told.addresses.is_empty() {
        term.line("no `[egress.source.NAME]`: calls leave from the address that the system chooses")?;
        return Ok(());
    }
    let mut rows = vec![["whitelist", "source", "bind", "clients", "to"].map(str::to_owned).to_vec()];
    for one in &told.addresses {
        let bind = if one.here { one.bind.to_string() } else { format!("{} (not on this machine)", one.bind) };
        rows.push(vec![one.public.to_string(), one.source.clone(), bind, list(&one.clients), list(&one.destinations)]);
    }
    for (at, line) in aligned(&rows).iter().enumerate() {
        match at {
            0 => term.line(term.ink(Ink::Dim, line))?,
            _ => term.line(line)?,
        }
    }
    if !told.without_source.is_empty() {
        term.warn(format_args!(
            "{}: no `source`, so calls leave from the address that the system chooses",
            told.without_source.join(", ")
        ));
    }
    Ok(())
}

fn told(config: &Config) -> Told {
    let mut addresses = Vec::new();
    for (id, source) in (0..).map(EgressSourceId).zip(&config.egress.sources) {
        let rules: Vec<&EgressRule> = config.egress.rules.iter().filter(|rule| rule.source == Some(id)).collect();
        let clients = rules.iter().flat_map(|rule| &rule.clients).map(|id| config.clients[id.index()].name.to_string());
        let destinations = rules.iter().flat_map(|rule| &rule.to).map(ToString::to_string);
        let (clients, destinations) = (unique(clients), unique(destinations));
        for (at, bind) in source.bind.iter().enumerate() {
            addresses.push(Address {
                public: source.public_of(at).unwrap_or(*bind),
                source: source.name.to_string(),
                bind: *bind,
                here: super::is_local(*bind),
                rules: rules.iter().map(|rule| rule.name.to_string()).collect(),
                clients: clients.clone(),
                destinations: destinations.clone(),
            });
        }
    }
    let without = config.egress.rules.iter().filter(|rule| rule.source.is_none());
    Told { addresses, without_source: without.map(|rule| rule.name.to_string()).collect() }
}

fn unique(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut items: Vec<String> = items.collect();
    items.sort();
    items.dedup();
    items
}

/// A few of them.
fn list(items: &[String]) -> String {
    const SHOWN: usize = 4;
    match items {
        [] => "no rule uses it".to_owned(),
        few if few.len() <= SHOWN => few.join(", "),
        many => format!("{} and {} more", many[..SHOWN].join(", "), many.len() - SHOWN),
    }
}
