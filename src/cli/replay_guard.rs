//! `gatepost replay-guard`

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::anyhow;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    failure::{Failure, Outcome},
    lines,
    term::{Ink, Terminal},
};
use crate::{
    config::{self, Config, Mode, model::Guard},
    release::guard::{Line, Replay, Ruling, Verdict},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The access log, as JSON lines. It is read twice.
    #[arg(value_name = "ACCESS_LOG")]
    log: PathBuf,
    /// Only this function. Default: every one that the log has two versions of.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// The version that others are compared with. Default: the config's, or the one with the most requests.
    #[arg(long, value_name = "VERSION")]
    baseline: Option<String>,
    /// Take guards and baselines from this config. Default: the keys' own defaults.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what is said as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// How often the log names each version, by function.
type Named = BTreeMap<String, BTreeMap<String, u64>>;

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let config = match &options.config {
        None => None,
        Some(path) => {
            let loaded =
                config::load(path, Mode::Check).map_err(|report| Failure::Report(report.render(term.colour_err())))?;
            if loaded.config.log.sample_ok < 1.0 {
                term.warn("log.sample_ok leaves out successes: canaries look worse than they were");
            }
            Some(loaded.config)
        }
    };
    let mut named = Named::new();
    let mut first = None;
    let skipped = lines::each(&options.log, |at, line: Line| {
        first = first.or(Some(at));
        if let (Some(function), Some(version)) = (&line.function, &line.version) {
            *named.entry(function.clone()).or_default().entry(version.clone()).or_default() += 1;
        }
    })?;
    if skipped > 0 {
        term.warn(format_args!("{skipped} lines are no JSON lines of an access log, and count for nothing"));
    }
    named.retain(|function, _| options.function.as_ref().is_none_or(|only| only == function));
    if let Some(only) = options.function.as_ref().filter(|_| named.is_empty()) {
        return Err(Failure::Failed(anyhow!("the log has no request of function `{}`", only.escape_debug())));
    }
    named.retain(|_, versions| versions.len() > 1);
    let Some(first) = first.filter(|_| !named.is_empty()) else {
        return Err(Failure::Failed(anyhow!("the log has no function with two versions: there is nothing to compare")));
    };
    for (function, versions) in &named {
        replay(options, config.as_ref(), function, versions, first, term)?;
    }
    Ok(())
}

fn replay(
    options: &Options,
    config: Option<&Config>,
    function: &str,
    versions: &BTreeMap<String, u64>,
    first: u64,
    term: &mut Terminal,
) -> Outcome {
    let known = config.and_then(|config| config.functions.iter().find(|f| *f.name == *function));
    let guard: Option<&Guard> = known.and_then(|f| f.guard.as_ref());
    let in_file = known.and_then(|f| f.baseline.map(|id| f.versions[id.index()].name.to_string()));
    let most = versions.iter().max_by_key(|(_, count)| **count).map(|(name, _)| name.clone());
    let baseline = options.baseline.clone().or(in_file).or(most).unwrap_or_default();
    let names: Vec<String> = versions.keys().cloned().collect();
    let mut replay = Replay::new(&names, &baseline, guard, first).map_err(|why| Failure::Failed(anyhow!(why)))?;
    if !options.json {
        let name = term.ink(Ink::Bold, function);
        let terms = if guard.is_some() { "the config's guard" } else { "a guard with its defaults" };
        term.line(format_args!("function {name}, compared with {baseline}, by {terms}"))?;
    }
    let mut said = Vec::new();
    lines::each(&options.log, |at, line: Line| {
        if line.function.as_deref() == Some(function) {
            said.extend(replay.line(at, &line));
        }
    })?;
    said.extend(replay.end());
    for (at, Ruling { version, evidence, .. }) in &said {
        let name = replay.name(*version);
        tell(options, function, (name, &baseline), *at, evidence.words(name, &baseline), evidence.verdict, term)?;
    }
    for (version, evidence) in replay.evidence() {
        let name = replay.name(version);
        let json = evidence.json(name, &baseline);
        if options.json {
            term.line(json!({ "function": function, "version": name, "at_the_end": json }))?;
        } else {
            let words = evidence.words(name, &baseline);
            term.line(format_args!("  at the end           {:<15} {words}", evidence.verdict.as_str()))?;
        }
    }
    Ok(())
}

fn tell(
    options: &Options,
    function: &str,
    (version, baseline): (&str, &str),
    at: u64,
    words: String,
    verdict: Verdict,
    term: &mut Terminal,
) -> Outcome {
    let at = i64::try_from(at).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let at = at.map_or_else(String::new, |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let word = verdict.as_str();
    if options.json {
        let said = json!({
            "at": at, "function": function, "version": version, "baseline": baseline, "verdict": word, "says": words,
        });
        term.line(said)?;
    } else {
        term.line(format_args!("  {at} {word:<15} {words}"))?;
    }
    Ok(())
}
