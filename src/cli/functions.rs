//! `gatepost functions`: what is known of function platforms, and what a config's functions have in force.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, builder::PossibleValuesParser};
use serde::Serialize;

use super::{
    ConfigFile, check,
    failure::{Failure, Outcome},
    table::aligned,
    term::{Ink, Terminal},
};
use crate::config::{
    changes,
    model::{Function, PlatformName},
    preset::{Preset, preset},
};

const USUAL: &str = "/etc/gatepost/gatepost.toml";

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only this platform, and its functions; may be given several times.
    #[arg(long = "platform", short = 'p', value_name = "NAME", value_parser = PossibleValuesParser::new(PlatformName::ALL.map(PlatformName::as_str)))]
    platforms: Vec<String>,
    /// The config's main file. Default: /etc/gatepost/gatepost.toml, where there is one.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// All that is told.
#[derive(Debug, Serialize)]
struct Told {
    platforms: Vec<PlatformTold>,
    functions: Vec<FunctionTold>,
}

#[derive(Debug, Serialize)]
struct PlatformTold {
    name: &'static str,
    about: &'static str,
    example: &'static str,
    facts: Vec<FactTold>,
}

#[derive(Debug, Serialize)]
struct FactTold {
    key: &'static str,
    value: &'static str,
    mark: &'static str,
    source: &'static str,
}

#[derive(Debug, Serialize)]
struct FunctionTold {
    name: String,
    platform: &'static str,
    keys: Vec<KeyTold>,
}

#[derive(Debug, Serialize)]
struct KeyTold {
    key: &'static str,
    value: String,
    /// `file`, `platform` or `default`.
    from: &'static str,
    mark: Option<&'static str>,
    source: Option<&'static str>,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let asked =
        |name: PlatformName| options.platforms.is_empty() || options.platforms.iter().any(|p| p == name.as_str());
    let known = PlatformName::ALL.into_iter().filter(|name| asked(*name)).map(known).collect::<Outcome<Vec<_>>>()?;
    let file = options.config.clone().or_else(|| Some(PathBuf::from(USUAL)).filter(|usual| Path::exists(usual)));
    let functions = match file {
        None => Vec::new(),
        Some(config) => {
            let loaded = check::loaded(&ConfigFile { config }, term)?;
            let functions = loaded.config.functions.iter().filter(|f| asked(f.platform.name));
            functions.map(in_force).collect::<Outcome<Vec<_>>>()?
        }
    };
    let told = Told { platforms: known.into_iter().map(platform_told).collect(), functions };
    if options.json {
        term.json(&serde_json::to_value(&told)?)?;
        return Ok(());
    }
    for platform in &told.platforms {
        print_platform(platform, term)?;
    }
    for function in &told.functions {
        print_function(function, term)?;
    }
    if options.config.is_none() && told.functions.is_empty() {
        term.line(term.ink(Ink::Dim, "what your functions have in force: gatepost functions --config FILE"))?;
    }
    Ok(())
}

fn known(name: PlatformName) -> Outcome<&'static Preset> {
    // A test holds that all can be read.
    preset(name).map_err(|why| Failure::Failed(anyhow!("gatepost's own preset of {}: {why}", name.as_str())))
}

fn platform_told(preset: &'static Preset) -> PlatformTold {
    let told = |fact: &'static crate::config::preset::Fact| FactTold {
        key: &fact.key,
        value: &fact.value,
        mark: fact.mark.as_str(),
        source: &fact.source,
    };
    PlatformTold {
        name: preset.name.as_str(),
        about: &preset.about,
        example: &preset.example,
        facts: preset.facts.iter().map(told).collect(),
    }
}

/// Each key as it is in force, and whose word that is.
fn in_force(function: &Function) -> Outcome<FunctionTold> {
    let platform = &function.platform;
    let preset = known(platform.name)?;
    let mut keys: Vec<KeyTold> = changes::function_keys(function)
        .into_iter()
        .map(|(key, value)| {
            let fact = preset.facts.iter().find(|fact| fact.key == key);
            let (from, fact) = match fact {
                _ if platform.own.contains(&key) => ("file", None),
                None => ("default", None),
                fact => ("platform", fact),
            };
            KeyTold { key, value, from, mark: fact.map(|f| f.mark.as_str()), source: fact.map(|f| &*f.source) }
        })
        .collect();
    // The function's own rules come first.
    let of_preset = preset.facts.iter().filter(|fact| fact.key == "classify");
    let own = platform.classify.len().saturating_sub(preset.platform.classify.len());
    keys.extend(platform.classify.iter().take(own).map(|rule| KeyTold {
        key: "classify",
        value: changes::rule(rule),
        from: "file",
        mark: None,
        source: None,
    }));
    keys.extend(of_preset.map(|fact| KeyTold {
        key: "classify",
        value: fact.value.clone(),
        from: "platform",
        mark: Some(fact.mark.as_str()),
        source: Some(&fact.source),
    }));
    Ok(FunctionTold { name: function.name.to_string(), platform: platform.name.as_str(), keys })
}

fn print_platform(platform: &PlatformTold, term: &mut Terminal) -> Outcome {
    term.line(format_args!("{}: {}", term.ink(Ink::Bold, platform.name), platform.about))?;
    let mut rows = vec![vec![String::new(), "url".to_owned(), platform.example.to_owned()]];
    rows.extend(platform.facts.iter().map(|fact| {
        vec![String::new(), fact.key.to_owned(), fact.value.to_owned(), fact.mark.to_owned(), fact.source.to_owned()]
    }));
    print_rows(&rows, term)
}

fn print_function(function: &FunctionTold, term: &mut Terminal) -> Outcome {
    term.line(format_args!("function {} on {}", term.ink(Ink::Bold, &function.name), function.platform))?;
    let rows: Vec<_> = function
        .keys
        .iter()
        .map(|key| {
            let from = match (key.from, key.mark) {
                ("file", _) => "as the file says".to_owned(),
                ("platform", Some(mark)) => format!("as the platform has it ({mark})"),
                _ => "by default".to_owned(),
            };
            vec![String::new(), key.key.to_owned(), key.value.clone(), from]
        })
        .collect();
    print_rows(&rows, term)
}

fn print_rows(rows: &[Vec<String>], term: &mut Terminal) -> Outcome {
    for line in aligned(rows) {
        term.line(line)?;
    }
    term.line("")?;
    Ok(())
}
