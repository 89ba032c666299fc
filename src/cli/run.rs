//! `gatepost run`

use clap::Args;

use super::{
    ConfigFile,
    failure::{Failure, Outcome},
    log,
    term::Terminal,
};
use crate::{
    config::Report,
    serve::{self, hand_over::old::Program},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(options: Options, term: &mut Terminal) -> Outcome {
    log::start(term.colour_err())?;
    let program = Some(Program::own(std::env::args_os()));
    let served = serve::run(serve::Options { config: options.file.config, program, ..serve::Options::default() });
    served.map_err(|error| failure(error, term))
}

/// A wrong config is exit code 2, whatever else goes wrong is 1.
pub(super) fn failure(error: anyhow::Error, term: &Terminal) -> Failure {
    match error.downcast_ref::<Report>() {
        Some(report) => Failure::Report(report.render(term.colour_err())),
        None => Failure::Failed(error),
    }
}
