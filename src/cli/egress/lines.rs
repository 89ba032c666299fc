//! The lines of an egress log, read back.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Deserialize;

use crate::cli::{failure::Outcome, term::Terminal};

/// What is read of a line; keys that mean nothing there are left out of it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Line {
    #[serde(default)]
    pub(super) ts: String,
    /// `connect` or `forward`; the access log's other lines have none.
    #[serde(default)]
    pub(super) kind: String,
    pub(super) client: Option<String>,
    pub(super) target: Option<String>,
    /// The URL of a parent proxy.
    pub(super) parent: Option<String>,
    pub(super) source: Option<String>,
    pub(super) source_address: Option<String>,
    pub(super) rule: Option<String>,
    pub(super) would_refuse: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) status: Option<u16>,
    #[serde(default)]
    pub(super) bytes_in: u64,
    #[serde(default)]
    pub(super) bytes_out: u64,
}

impl Line {
    /// Whether it got through: the destination was reached, whatever it said.
    pub(super) fn worked(&self) -> bool {
        self.reason.is_none() && self.status.is_some_and(|status| status < 500)
    }
}

/// A line is at most so long: a longer one is none of gatepost's.
const LONGEST: u64 = 256 * 1024;

/// Calls `take` with each egress line of the logs, in order; `-` is stdin. What is no JSON is counted, and told at the end.
pub(super) fn each(logs: &[PathBuf], term: &mut Terminal, mut take: impl FnMut(Line)) -> Outcome {
    for path in logs {
        let mut odd = 0u64;
        if path == Path::new("-") {
            read(&mut io::stdin().lock(), &mut odd, &mut take).context("cannot read stdin")?;
        } else {
            let shown = path.display();
            let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
            read(&mut BufReader::new(file), &mut odd, &mut take).with_context(|| format!("cannot read {shown}"))?;
        }
        if odd > 0 {
            let lines = if odd == 1 { "1 line is".to_owned() } else { format!("{odd} lines are") };
            term.warn(format_args!(
                "{}: {lines} no JSON: logs are read as `format = \"json\"` writes them",
                path.display()
            ));
        }
    }
    Ok(())
}

fn read(from: &mut impl BufRead, odd: &mut u64, take: &mut impl FnMut(Line)) -> io::Result<()> {
    let mut text = Vec::new();
    loop {
        text.clear();
        if from.by_ref().take(LONGEST).read_until(b'\n', &mut text)? == 0 {
            return Ok(());
        }
        if text.last() != Some(&b'\n') && text.len() as u64 == LONGEST {
            *odd += 1;
            from.skip_until(b'\n')?;
            continue;
        }
        match serde_json::from_slice::<Line>(&text) {
            Ok(line) if matches!(&*line.kind, "connect" | "forward") => take(line),
            Ok(_) => {}
            Err(_) if text.trim_ascii().is_empty() => {}
            Err(_) => *odd += 1,
        }
    }
}
