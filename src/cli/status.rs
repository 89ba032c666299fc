//! `gatepost status`

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::Value;

use super::{
    ConfigFile,
    failure::{Failure, Outcome},
    http,
    place::{self, Place},
    table,
    term::{Ink, Terminal},
};
use crate::config::model::ListenAddress;

const PATH: &str = "/api/v1/status";

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
}

fn admin_address(text: &str) -> Result<ListenAddress, String> {
    place::parse(text).ok_or_else(|| "write `ip:port` or `unix:/path`".to_owned())
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let address = match &options.admin {
        Some(address) => address.clone(),
        None => {
            let place = Place::of(&options.file.config);
            if let Some(doubt) = place.doubt {
                term.warn(doubt);
            }
            place.admin
        }
    };
    let answer = http::get(&address, PATH, Duration::from_secs(5))?;
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
