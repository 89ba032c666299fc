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
    let status: Value =
        serde_json::from_str(&answer.body).with_context(|| format!("{address} did not answer with JSON"))?;
    if options.json {
        term.json(&status)?;
    } else {
        tell(&status, 0, term)?;
    }
    Ok(())
}

/// Scalars as `key  value`, lists of objects as tables, objects indented under their key: whatever the admin comes to
/// say is shown without a change here.
fn tell(value: &Value, depth: usize, term: &mut Terminal) -> Outcome {
    let pad = "  ".repeat(depth);
    let Value::Object(fields) = value else {
        term.line(format_args!("{pad}{}", table::cell(value)))?;
        return Ok(());
    };
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in fields {
        match value {
            Value::Array(rows) if rows.iter().any(Value::is_object) => {
                term.line(format_args!("{pad}{}", term.ink(Ink::Bold, key)))?;
                for line in table::of(rows) {
                    term.line(format_args!("{pad}  {line}"))?;
                }
            }
            Value::Object(inner) if !inner.is_empty() => {
                term.line(format_args!("{pad}{}", term.ink(Ink::Bold, key)))?;
                tell(value, depth + 1, term)?;
            }
            _ => term.line(format_args!("{pad}{:<width$}  {}", term.ink(Ink::Bold, key), table::cell(value)))?,
        }
    }
    Ok(())
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
            "config": { "path": "/etc/gatepost/gatepost.toml", "error": null },
            "listeners": [
                { "name": "public", "address": "0.0.0.0:443" },
                { "name": "in", "address": "10.0.0.1:80", "connections": 7 },
            ],
        });
        tell(&status, 0, &mut term).unwrap();
        assert_eq!(
            out.text(),
            "config\n  error  -\n  path   /etc/gatepost/gatepost.toml\ngeneration  3\nlisteners\n  \
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
