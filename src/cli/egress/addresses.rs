//! `gatepost egress addresses`

use std::net::IpAddr;

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        ConfigFile, check,
        failure::{Failure, Outcome},
        table::aligned,
        term::{Ink, Terminal},
    },
    config::{
        Config, Loaded,
        model::{EgressRule, EgressSourceId},
    },
    serve::{client_tls::Connectors, echo},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Ask each source's echo (`check`) what the world sees of its addresses, from them.
    #[arg(long)]
    check: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Told {
    addresses: Vec<Address>,
    /// Rules that name no source: calls leave as the system chooses.
    without_source: Vec<String>,
    /// Rules that lead through a parent proxy: partners see that one's addresses.
    through_parents: Vec<Through>,
}

#[derive(Debug, Serialize)]
struct Address {
    /// What the world sees: for partners.
    public: IpAddr,
    source: String,
    bind: IpAddr,
    /// Whether this machine has it.
    here: bool,
    /// By `--check`: what the world sees, or why nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<String>,
    /// Whether that is `public`.
    #[serde(skip_serializing_if = "Option::is_none")]
    agrees: Option<bool>,
    rules: Vec<String>,
    clients: Vec<String>,
    destinations: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Through {
    rule: String,
    parent: String,
    clients: Vec<String>,
    destinations: Vec<String>,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let loaded = check::asked(&options.file, term)?;
    let mut told = told(&loaded.config);
    if options.check {
        told.ask(&loaded)?;
    }
    let told = told;
    if options.json {
        term.json(&serde_json::to_value(&told)?)?;
        return told.agrees();
    }
    if told.addresses.is_empty() {
        term.line("no `[egress.source.NAME]`: calls leave from the address that the system chooses")?;
        return told.parents(term);
    }
    let mut rows = vec![["whitelist", "source", "bind", "clients", "to"].map(str::to_owned).to_vec()];
    if options.check {
        rows[0].insert(3, "seen".to_owned());
    }
    for one in &told.addresses {
        let bind = if one.here { one.bind.to_string() } else { format!("{} (not on this machine)", one.bind) };
        let mut row =
            vec![one.public.to_string(), one.source.clone(), bind, list(&one.clients), list(&one.destinations)];
        if options.check {
            row.insert(3, one.seen.clone().unwrap_or_else(|| "no `check`".to_owned()));
        }
        rows.push(row);
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
    told.parents(term)?;
    if told.agrees().is_err() {
        term.warn(format_args!(
            "the world sees other addresses than `public`: partners may refuse what leaves from them"
        ));
    }
    told.agrees()
}

impl Told {
    /// Whether nobody was seen by another address.
    fn agrees(&self) -> Outcome {
        match self.addresses.iter().any(|one| one.agrees == Some(false)) {
            true => Err(Failure::Told(1)),
            false => Ok(()),
        }
    }

    /// What the world sees of each address, where the source says whom to ask.
    fn ask(&mut self, loaded: &Loaded) -> Outcome {
        let questions =
            echo::questions(loaded, &mut Connectors::default()).map_err(|why| Failure::Failed(anyhow!(why)))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for question in questions {
            let seen = runtime.block_on(question.ask());
            let of = |one: &&mut Address| *one.source == *question.source && one.bind == question.bind;
            if let Some(one) = self.addresses.iter_mut().find(of) {
                one.agrees = seen.as_ref().ok().map(|ip| *ip == question.public);
                one.seen = Some(seen.map_or_else(|why| format!("not known: {why}"), |ip| ip.to_string()));
            }
        }
        Ok(())
    }

    fn parents(&self, term: &mut Terminal) -> Outcome {
        for one in &self.through_parents {
            term.line(format_args!(
                "rule {} goes by {}, whose addresses are what to whitelist: {} to {}",
                one.rule,
                one.parent,
                list(&one.clients),
                list(&one.destinations)
            ))?;
        }
        Ok(())
    }
}

fn told(config: &Config) -> Told {
    let mut addresses = Vec::new();
    for (id, source) in (0..).map(EgressSourceId).zip(&config.egress.sources) {
        let rules: Vec<&EgressRule> = config.egress.rules.iter().filter(|rule| rule.source == Some(id)).collect();
        // Whom a parent stands before sees nothing of the source.
        let direct = || rules.iter().filter(|rule| rule.parent.is_none());
        let parents = rules.iter().filter_map(|rule| Some(format!("the parent {}", rule.parent.as_ref()?)));
        let clients = rules.iter().flat_map(|rule| names(config, rule));
        let destinations = direct().flat_map(|rule| &rule.to).map(ToString::to_string).chain(parents);
        let (clients, destinations) = (unique(clients), unique(destinations));
        for (at, bind) in source.bind.iter().enumerate() {
            addresses.push(Address {
                public: source.public_of(at).unwrap_or(*bind),
                source: source.name.to_string(),
                bind: *bind,
                here: super::is_local(*bind),
                seen: None,
                agrees: None,
                rules: rules.iter().map(|rule| rule.name.to_string()).collect(),
                clients: clients.clone(),
                destinations: destinations.clone(),
            });
        }
    }
    let rules = || config.egress.rules.iter();
    let without = rules().filter(|rule| rule.source.is_none()).map(|rule| rule.name.to_string());
    let through = rules().filter_map(|rule| {
        Some(Through {
            rule: rule.name.to_string(),
            parent: rule.parent.as_ref()?.to_string(),
            clients: names(config, rule).collect(),
            destinations: rule.to.iter().map(ToString::to_string).collect(),
        })
    });
    Told { addresses, without_source: without.collect(), through_parents: through.collect() }
}

fn names<'c>(config: &'c Config, rule: &'c EgressRule) -> impl Iterator<Item = String> + 'c {
    rule.clients.iter().map(|id| config.clients[id.index()].name.to_string())
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
        many => format!("{} and {} more (--json has all)", many[..SHOWN].join(", "), many.len() - SHOWN),
    }
}
