//! `gatepost status`

use std::{path::Path, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    ConfigFile,
    failure::{Failure, Outcome},
    http,
    place::{self, Place},
    table,
    term::{Ink, Terminal},
};
use crate::{
    config::{self, model::ListenAddress},
    release::Book,
    serve::generations,
};

const PATH: &str = "/api/v1/status";
/// A machine under load is slow, and not dead.
const READY_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Ask here instead of at the file's `admin.address`: `ip:port` or `unix:/path`.
    #[arg(long, value_name = "ADDRESS", value_parser = admin_address)]
    admin: Option<ListenAddress>,
    /// Print the answer as it came.
    #[arg(long)]
    json: bool,
    /// Only whether it takes requests: exit code 0, or 1 and why. For health checks: an answer may take 2 s.
    #[arg(long, conflicts_with = "json")]
    ready: bool,
}

fn admin_address(text: &str) -> Result<ListenAddress, String> {
    place::parse(text).ok_or_else(|| "write `ip:port` or `unix:/path`".to_owned())
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let (address, state_dir) = match &options.admin {
        Some(address) => (address.clone(), None),
        None => {
            let place = Place::of(&options.file.config);
            if let Some(doubt) = place.doubt {
                term.warn(doubt);
            }
            (place.admin, Some(place.state_dir))
        }
    };
    if options.ready {
        return is_ready(&address, term);
    }
    let answer = match (http::get(&address, PATH, Duration::from_secs(5)), state_dir) {
        (Ok(answer), _) => answer,
        // It runs all the same, and what it has written says the rest.
        (Err(error), Some(state_dir)) if generations::holder(&state_dir).unwrap_or(false) => {
            term.warn(format_args!("{error:#}: this is what {} has", state_dir.display()));
            let status = as_written(&state_dir, &options.file.config)?;
            return if options.json { Ok(term.json(&status)?) } else { tell(&status, 0, term) };
        }
        (Err(error), _) => return Err(error.into()),
    };
    if answer.status != 200 {
        return Err(Failure::Failed(anyhow!("{address} answered {} to {PATH}", answer.status)));
    }
    let mut status: Value =
        serde_json::from_str(&answer.body).with_context(|| format!("{address} did not answer with JSON"))?;
    if options.json {
        term.json(&status)?;
    } else {
        if status.pointer("/last_reload/result").and_then(Value::as_str) == Some("rejected") {
            let generation = table::cell(&status["generation"]);
            term.warn(format_args!("the last change was refused; generation {generation} goes on serving"));
        }
        // Its words are in `says`.
        for guard in status.get_mut("guards").and_then(Value::as_array_mut).into_iter().flatten() {
            guard.as_object_mut().map(|guard| guard.remove("evidence"));
        }
        tell(&status, 0, term)?;
    }
    Ok(())
}

/// By the admin alone: what a file or a lock says is no proof that it answers.
fn is_ready(address: &ListenAddress, term: &mut Terminal) -> Outcome {
    let answer = http::get(address, "/readyz", READY_WITHIN)?;
    match answer.status {
        200 => Ok(term.line(answer.body.trim_end())?),
        _ => Err(Failure::Failed(anyhow!("not ready: {}", answer.body.trim_end()))),
    }
}

/// What can be known without the admin port.
fn as_written(state_dir: &Path, file: &Path) -> Outcome<Value> {
    let history = generations::history(state_dir)?;
    let newest = history.last();
    let since = newest.and_then(|newest| history.iter().find(|entry| entry.generation == newest.generation));
    let config = config::texts(file).and_then(|texts| config::parse(&texts));
    let releases = match &config {
        Ok(config) => Book::as_written(state_dir, config)?.told(config, Timestamp::now()),
        Err(_) => Vec::new(),
    };
    Ok(json!({
        "generation": newest.map(|entry| entry.generation),
        "hash": newest.map(|entry| &entry.hash),
        "since": since.map(|entry| entry.at.to_string()),
        "releases": releases,
    }))
}

/// Scalars as `key  value` first, then lists of objects as tables, objects and texts of several lines indented under
/// their key: whatever the admin comes to say is shown without a change here.
fn tell(value: &Value, depth: usize, term: &mut Terminal) -> Outcome {
    let pad = "  ".repeat(depth);
    let Value::Object(fields) = value else {
        term.line(format_args!("{pad}{}", table::cell(value)))?;
        return Ok(());
    };
    let (blocks, scalars): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, value)| is_block(value));
    let width = scalars.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, value) in scalars {
        term.line(format_args!("{pad}{:<width$}  {}", term.ink(Ink::Bold, key), table::cell(value)))?;
    }
    for (key, value) in blocks {
        term.line(format_args!("{pad}{}", term.ink(Ink::Bold, key)))?;
        match value {
            Value::Array(rows) => {
                for line in table::of(rows) {
                    term.line(format_args!("{pad}  {line}"))?;
                }
            }
            Value::String(text) => {
                for line in text.trim_end().lines() {
                    term.line(format_args!("{pad}  {line}").to_string().trim_end())?;
                }
            }
            _ => tell(value, depth + 1, term)?,
        }
    }
    Ok(())
}

/// What does not fit on a line behind its key.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Array(rows) => rows.iter().any(Value::is_object),
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => text.contains('\n'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_reads_as_lines_and_tables() {
        let (mut term, out, _) = Terminal::on_pads();
        let status = json!({
            "generation": 3,
            "config": { "path": "/etc/gatepost/gatepost.toml", "error": "error: no\n\nsecond\n" },
            "listeners": [
                { "name": "public", "address": "0.0.0.0:443" },
                { "name": "in", "address": "10.0.0.1:80", "connections": 7 },
            ],
        });
        tell(&status, 0, &mut term).unwrap();
        assert_eq!(
            out.text(),
            "generation  3\nconfig\n  path  /etc/gatepost/gatepost.toml\n  error\n    error: no\n\n    second\nlisteners\n  \
             address      name    connections\n  0.0.0.0:443  public  -\n  10.0.0.1:80  in      7\n"
        );
    }

    #[test]
    fn an_admin_address_is_tcp_or_unix() {
        assert!(admin_address("127.0.0.1:9901").is_ok());
        assert!(admin_address("unix:/run/gatepost/admin.sock").is_ok());
        assert!(admin_address("localhost").is_err());
    }
}
