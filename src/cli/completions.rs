//! `gatepost completions SHELL`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{CommandLine, failure::Outcome, term::Terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Which shell they are for.
    shell: Shell,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut CommandLine::command(), "gatepost", &mut script);
    term.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(())
}
