//! `gatepost shift` and `gatepost rollback`: weights are changed in the file, and the running gatepost's word for it is waited for.
//!
//! Neither needs the admin port. The request that says who and why is there before the file changes, and knows the config by its hash: whichever
//! comes to the service first, the change is told with its author.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::{
    ConfigFile,
    failure::{Failure, Outcome},
    reload::author,
    save::save,
    term::Terminal,
};
use crate::{
    config::{
        self, SourceFile, Sources,
        edit::{self, Asked, CannotEdit, Weights},
        model::Share,
    },
    serve::{
        generations,
        receipt::{Receipt, ReloadResult},
        requests::{AskError, Asking, Kind, Request},
    },
};

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Why, for the history.
    #[arg(long, short = 'm', value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// How many seconds to wait for the running gatepost.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Print what came of it as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShiftOptions {
    /// The function.
    function: String,
    /// `VERSION=PERCENT` or `VERSION=rest`; the `rest` version, or else the others in proportion, get what is left.
    #[arg(required = true, value_name = "VERSION=PERCENT", value_parser = wanted)]
    weights: Vec<(String, Asked)>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct RollbackOptions {
    /// The function whose baseline gets everything; its ramp is paused.
    #[arg(required_unless_present = "to", conflicts_with = "to")]
    function: Option<String>,
    /// Put the files of this generation back (see `gatepost history`), with all that they say.
    #[arg(long, value_name = "GENERATION")]
    to: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// `v42=10`
fn wanted(text: &str) -> Result<(String, Asked), String> {
    let (version, word) = text.split_once('=').ok_or("write `VERSION=PERCENT`, such as `v42=10`")?;
    let word = word.trim().trim_end_matches('%').trim_end();
    if word == "rest" {
        return Ok((version.trim().to_owned(), Asked::Rest));
    }
    let share = Share::percent(word)
        .ok_or_else(|| format!("`{word}` is not a percentage from 0 to 100 with at most two decimals, nor `rest`"))?;
    Ok((version.trim().to_owned(), Asked::Percent(share)))
}

pub(super) fn shift(options: &ShiftOptions, term: &mut Terminal) -> Outcome {
    let common = &options.common;
    let sources = texts(common, term)?;
    let weights =
        edit::shift(&sources, &options.function, &options.weights).map_err(|error| told(error, common, term))?;
    change(common, &options.function, &sources, &weights, Kind::Reload, term)
}

pub(super) fn rollback(options: &RollbackOptions, term: &mut Terminal) -> Outcome {
    let common = &options.common;
    match (&options.function, options.to) {
        (Some(function), _) => {
            let sources = texts(common, term)?;
            let weights = edit::to_baseline(&sources, function).map_err(|error| told(error, common, term))?;
            change(common, function, &sources, &weights, Kind::Rollback, term)
        }
        (None, Some(generation)) => back_to(generation, common, term),
        // clap asks for one of the two.
        (None, None) => Err(Failure::Usage("name a function, or a generation with --to".to_owned())),
    }
}

fn texts(common: &Common, term: &mut Terminal) -> Outcome<Sources> {
    config::texts(&common.file.config).map_err(|report| told(CannotEdit::Wrong(Box::new(report)), common, term))
}

/// What can't be done, for a person or a script. The files are as they were.
fn told(error: CannotEdit, common: &Common, term: &mut Terminal) -> Failure {
    if common.json {
        let problems = match &error {
            CannotEdit::Wrong(report) => report.to_json(),
            CannotEdit::Asked(why) => json!([{ "message": why }]),
        };
        return match term.json(&json!({ "result": "refused", "problems": problems })) {
            Ok(()) => Failure::Told(2),
            Err(error) => error.into(),
        };
    }
    match error {
        CannotEdit::Wrong(report) => {
            let mut text = report.render(term.colour_err());
            text.push_str("\nnothing is changed: mend the file first, or go back to the files of a generation that served with `gatepost rollback --to N`");
            Failure::Report(text)
        }
        CannotEdit::Asked(why) => Failure::Usage(format!("{why}; nothing is changed")),
    }
}

fn change(
    common: &Common,
    function: &str,
    sources: &Sources,
    weights: &Weights,
    kind: Kind,
    term: &mut Terminal,
) -> Outcome {
    let mut after = sources.clone();
    let mut files = Vec::new();
    if let Some(edit) = &weights.edit {
        let file = &mut after.files[edit.file];
        files.push((file.path.clone(), Some(file.text.to_string()), edit.text.clone()));
        file.text = edit.text.as_str().into();
    }
    let state_dir = state_dir(&after)?;
    let request = Request {
        function: (kind != Kind::Reload).then(|| function.to_owned()),
        // Where nothing is written nothing is to come.
        expects: weights.edit.as_ref().map(|_| after.hash()),
        ..Request::new(kind, author(common.reason.clone()))
    };
    let moved: Vec<String> = (weights.versions.iter())
        .filter(|(_, was, is)| was != is)
        .map(|(version, was, is)| format!("{version} {was} % → {is} %"))
        .collect();
    let words = match moved.is_empty() {
        true => format!("{function}: the file's weights are that already"),
        false => format!("{function}: {}", moved.join(", ")),
    };
    let shares: serde_json::Map<String, Value> =
        weights.versions.iter().map(|(version, _, is)| (version.clone(), json!(f64::from(is.0) / 100.0))).collect();
    let about = json!({ "function": function, "weights": shares });
    carry_out(common, &state_dir, &request, &files, &words, about, term)
}

/// A file, what it is expected to hold (`None`: it is not there), and what it is to hold.
type Writes = (PathBuf, Option<String>, String);

fn carry_out(
    common: &Common,
    state_dir: &std::path::Path,
    request: &Request,
    files: &[Writes],
    words: &str,
    mut about: Value,
    term: &mut Terminal,
) -> Outcome {
    let asking = Asking::new(state_dir, request);
    for (path, before, text) in files {
        let saved = match before {
            Some(before) => save(path, before, text).map_err(|error| anyhow!(error)),
            None => fs::write(path, text).map_err(|error| anyhow!("cannot write {}: {error}", path.display())),
        };
        if let Err(error) = saved {
            if let Ok(asking) = asking {
                asking.withdraw();
            }
            return Err(Failure::Failed(error));
        }
    }
    if !common.json {
        let written: Vec<_> = files.iter().map(|(path, ..)| path.display().to_string()).collect();
        let where_to = if written.is_empty() { String::new() } else { format!(" ({})", written.join(", ")) };
        term.line(format_args!("{words}{where_to}"))?;
    }
    about["files"] = files.iter().map(|(path, ..)| json!(path)).collect();
    let receipt = asking.and_then(|asking| asking.wait(Duration::from_secs(common.timeout)));
    told_what_came(receipt, about, common.json, term)
}

/// What the running gatepost made of it.
pub(super) fn told_what_came(
    receipt: Result<Receipt, AskError>,
    mut about: Value,
    json: bool,
    term: &mut Terminal,
) -> Outcome {
    match receipt {
        Ok(receipt) => {
            let good = receipt.result != ReloadResult::Rejected;
            if json {
                about["result"] = json!(receipt.result);
                about["receipt"] = serde_json::to_value(&receipt)?;
                term.json(&about)?;
            } else if good {
                term.line(format_args!("{receipt:#}"))?;
            } else {
                term.complain_plainly(&format!("{receipt:#}"));
            }
            if good { Ok(()) } else { Err(Failure::Told(1)) }
        }
        // What is asked for waits for the next start.
        Err(AskError::NotRunning { dir }) => {
            if json {
                about["result"] = json!("not_running");
                term.json(&about)?;
            } else {
                term.warn(format_args!(
                    "no gatepost is running with state_dir {}: it is done when one starts",
                    dir.display()
                ));
            }
            Ok(())
        }
        Err(error) if json => {
            about["result"] = json!("unknown");
            about["error"] = json!(error.to_string());
            term.json(&about)?;
            Err(Failure::Told(1))
        }
        Err(error) => {
            Err(Failure::Failed(anyhow!(error).context("the file is changed, but what came of it is not known")))
        }
    }
}

/// Where the running gatepost keeps its state, by a config that is right.
fn state_dir(sources: &Sources) -> Outcome<PathBuf> {
    let config = config::parse(sources).map_err(|report| Failure::Report(report.to_string()))?;
    Ok(config.server.state_dir)
}

/// The files of a generation, put back.
fn back_to(generation: u64, common: &Common, term: &mut Terminal) -> Outcome {
    let place = super::place::Place::of(&common.file.config);
    if let Some(doubt) = place.doubt {
        term.warn(doubt);
    }
    let home = common.file.config.parent().unwrap_or_else(|| std::path::Path::new("")).to_path_buf();
    let texts = generations::read(&place.state_dir, generation)?;
    let after = Sources::new(texts.into_iter().map(|(name, text)| (home.join(name), text)));
    if let Err(report) = config::parse(&after) {
        return Err(told(CannotEdit::Wrong(Box::new(report)), common, term));
    }
    // What an include would find beside them would be a part of the config as well.
    let found = config::included(&after);
    let itself = |path: &std::path::Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let known: Vec<PathBuf> = after.files.iter().map(|file| itself(&file.path)).collect();
    let strangers: Vec<_> =
        found.iter().filter(|path| !known.contains(&itself(path))).map(|path| path.display().to_string()).collect();
    if !strangers.is_empty() {
        let why = format!("not a part of generation {generation}: {}; move it away first", strangers.join(", "));
        return Err(told(CannotEdit::Asked(why), common, term));
    }
    let mut files: Vec<Writes> = Vec::new();
    for SourceFile { path, text } in &after.files {
        let before = match fs::read(path) {
            // Whatever bytes it holds: it is not for them that it is kept.
            Ok(bytes) => Some(
                String::from_utf8(bytes)
                    .map_err(|_| anyhow!("{} is not UTF-8 text: move it away first", path.display()))?,
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::Failed(anyhow!("cannot read {}: {error}", path.display()))),
        };
        if before.as_deref() != Some(&**text) {
            files.push((path.clone(), before, text.to_string()));
        }
    }
    // The main file comes last: the others are nothing without it, and what it says decides.
    files.reverse();
    let request = Request {
        expects: (!files.is_empty()).then(|| after.hash()),
        ..Request::new(Kind::Reload, author(common.reason.clone()))
    };
    let words = match files.is_empty() {
        true => format!("the files are those of generation {generation} already"),
        false => format!("the files of generation {generation} are back"),
    };
    carry_out(common, &place.state_dir, &request, &files, &words, json!({ "to": generation }), term)
}

/// `gatepost resume` and `gatepost pause`.
#[derive(Debug, Args)]
pub(super) struct AboutRamp {
    /// The function.
    function: String,
    #[command(flatten)]
    common: Common,
}

pub(super) fn about_ramp(options: &AboutRamp, kind: Kind, term: &mut Terminal) -> Outcome {
    let common = &options.common;
    let place = super::place::Place::of(&common.file.config);
    if let Some(doubt) = place.doubt {
        term.warn(doubt);
    }
    let function = Some(options.function.clone());
    let request = Request { function, ..Request::new(kind, author(common.reason.clone())) };
    let receipt =
        Asking::new(&place.state_dir, &request).and_then(|asking| asking.wait(Duration::from_secs(common.timeout)));
    told_what_came(receipt, json!({ "function": options.function }), common.json, term)
}
