//! `gatepost schema`

use clap::Args;

use super::{failure::Outcome, term::Terminal};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct Options {}

pub(super) fn run(Options {}: &Options, term: &mut Terminal) -> Outcome {
    term.json(&config::schema())?;
    Ok(())
}
