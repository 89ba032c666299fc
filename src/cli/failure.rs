//! How a command ends when it doesn't end well.

use std::{io, process::ExitCode};

use super::term::Terminal;

/// What every command returns.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The config or the command line is wrong (exit code 2). The text is whole: it has its own `error:`.
    Report(String),
    /// The command line is wrong in a way that clap can't see (exit code 2).
    Usage(String),
    /// It failed while running (exit code 1).
    Failed(anyhow::Error),
    /// Nothing is left to say, e.g. because an answer with `--json` has said it (exit code as given).
    Told(u8),
}

impl Failure {
    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Report(_) | Self::Usage(_) => 2,
            Self::Failed(error) if is_closed_pipe(error) => 0,
            Self::Failed(_) => 1,
            Self::Told(code) => *code,
        })
    }

    /// Prints it on stderr.
    pub(super) fn tell(&self, term: &mut Terminal) {
        match self {
            Self::Report(text) => term.complain_plainly(text),
            Self::Usage(text) => term.complain(text),
            Self::Failed(error) if is_closed_pipe(error) => {}
            Self::Failed(error) => term.complain(&format!("{error:#}")),
            Self::Told(_) => {}
        }
    }
}

/// `gatepost history | head`: the reader has seen enough, which is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
