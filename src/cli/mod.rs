//! In: the command line. Out: an exit code. One file per command; what they share is in [`term`] and [`place`].
//!
//! Exit codes: 0 done, 1 it failed while running, 2 the config or the command line is wrong.

mod check;
mod completions;
mod demo;
mod diff;
mod doctor;
mod egress;
mod explain;
mod failure;
mod functions;
mod history;
mod http;
mod lines;
mod log;
mod man;
mod place;
mod reload;
mod replay_guard;
mod run;
mod save;
mod schema;
mod shift;
mod status;
mod table;
mod term;
mod upgrade;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use failure::Outcome;
use term::Terminal;

use crate::serve::requests::Kind;

/// One fixed address for serverless functions.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, about, propagate_version = false, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve by the config until SIGTERM.
    Run(run::Options),
    /// Two versions of a sample function, a gatepost in front, a file to edit: see what it does, ready in a second.
    Demo(demo::Options),
    /// Is the config right? Prints every problem, with its place.
    Check(check::Options),
    /// Apply the config now, and wait for what came of it. Saving the file does the same.
    Reload(reload::Options),
    /// Give versions of a function other weights, in the file: `gatepost shift orders v42=10`.
    Shift(shift::ShiftOptions),
    /// Give the baseline of a function everything, in the file; or put the files of a generation back.
    Rollback(shift::RollbackOptions),
    /// Lift the latches of a function, and let its ramp go on.
    Resume(shift::AboutRamp),
    /// Hold the ramp of a function where it is.
    Pause(shift::AboutRamp),
    /// What would happen to a request: route, callers, limits, version. Needs no running gatepost.
    Explain(explain::Options),
    /// What a running gatepost is doing: its config, functions and listeners.
    Status(status::Options),
    /// Hand over to the binary as it is now, after a new one was installed, with no connection refused.
    Upgrade(upgrade::Options),
    /// The configs that were applied: when, what changed, who and why where known.
    History(history::Options),
    /// What changes from one config to another, and which requests of a log would fare otherwise.
    Diff(diff::Options),
    /// What the guard would have said of a past release, from the lines of its access log.
    ReplayGuard(replay_guard::Options),
    /// What is known of function platforms, each fact with its source, and what the config's functions have in force.
    Functions(functions::Options),
    /// The way out: explain a refusal, list the addresses to whitelist, learn rules from the log.
    Egress(egress::Options),
    /// Does every version answer as it should, from here, and only through the gate? Calls them, safely.
    Doctor(doctor::Options),
    /// Print the JSON Schema of the config file, for editors.
    Schema(schema::Options),
    /// Print the completions of a shell: `gatepost completions bash > /etc/bash_completion.d/gatepost`.
    Completions(completions::Options),
    /// Write the man pages into a folder: what the package does when it is built.
    #[command(hide = true)]
    Man(man::Options),
}

/// Which config file is meant.
#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// The config's main file.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/gatepost/gatepost.toml")]
    config: PathBuf,
}

/// Runs the command of `args` (the program's name first) and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut term = Terminal::of_process();
    let command = match CommandLine::try_parse_from(args) {
        Ok(line) => line.command,
        // Help and the version come this way too; `print` knows where to, and in which colours.
        Err(usage) => {
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(command, &mut term) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(&mut term);
            failure.code()
        }
    }
}

fn dispatch(command: Command, term: &mut Terminal) -> Outcome {
    match command {
        Command::Run(options) => run::run(options, term),
        Command::Demo(options) => demo::run(options, term),
        Command::Reload(options) => reload::run(&options, term),
        Command::Shift(options) => shift::shift(&options, term),
        Command::Rollback(options) => shift::rollback(&options, term),
        Command::Resume(options) => shift::about_ramp(&options, Kind::Resume, term),
        Command::Pause(options) => shift::about_ramp(&options, Kind::Pause, term),
        Command::History(options) => history::run(&options, term),
        Command::Check(options) => check::run(&options, term),
        Command::Explain(options) => explain::run(&options, term),
        Command::Diff(options) => diff::run(&options, term),
        Command::ReplayGuard(options) => replay_guard::run(&options, term),
        Command::Functions(options) => functions::run(&options, term),
        Command::Egress(options) => egress::run(&options, term),
        Command::Doctor(options) => doctor::run(&options, term),
        Command::Schema(options) => schema::run(&options, term),
        Command::Status(options) => status::run(&options, term),
        Command::Upgrade(options) => upgrade::run(&options, term),
        Command::Completions(options) => completions::run(&options, term),
        Command::Man(options) => man::run(&options, term),
    }
}

#[cfg(test)]
mod tests;
