//! `gatepost man DIR`: a page for gatepost, and one for each command.
//!
//! They say what `--help` says, for they are made of it; gatepost's own page also tells what concerns all commands.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory};

use super::{CommandLine, failure::Outcome, term::Terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The folder, which must be there.
    #[arg(value_name = "DIR")]
    into: PathBuf,
}

/// What holds for all commands, in man's own language (man(7)).
const COMMON: &str = r#".SH "EXIT STATUS"
.TP
0
Done.
.TP
1
It failed while running.
.TP
2
The config or the command line is wrong. What is wrong is on standard error.
.SH SIGNALS
Of \fBgatepost run\fR:
.TP
SIGHUP
Reads the config again.
.TP
SIGUSR2
Hands over to the binary as it is now, as \fBgatepost upgrade\fR asks for.
.TP
SIGTERM, SIGINT
Takes nothing new, finishes what is under way within \fIserver.drain\fR, and ends. A second one ends the wait.
.SH ENVIRONMENT
.TP
GATEPOST_LOG
What \fBgatepost run\fR says of itself: error, warn, info (the default), debug or trace.
.TP
NO_COLOR
No colours.
.SH FILES
.TP
/etc/gatepost/gatepost.toml
The config's main file, unless \fB\-\-config\fR names another. Every key of it is in configuration.md.
.TP
/etc/gatepost/conf.d/*.toml
More of it.
.TP
/etc/gatepost/tls, /etc/gatepost/secrets
Certificates with their keys, and secrets that the config names.
.TP
/var/lib/gatepost
Generations of the config, their history, the progress of releases: \fIserver.state_dir\fR.
.TP
/var/log/gatepost/access.log
A line for each request: \fIlog.access\fR.
.TP
/usr/share/doc/gatepost
operations.md is for those who run it, configuration.md has the keys.
.SH "SEE ALSO"
.BR systemctl (1),
.BR journalctl (1),
.BR systemd.exec (5)
"#;

pub(super) fn run(options: &Options, _: &mut Terminal) -> Outcome {
    let into = &options.into;
    // Not built before: clap would make pages for `help` and its subcommands too.
    clap_mangen::generate_to(CommandLine::command(), into)
        .with_context(|| format!("cannot write man pages into {}", into.display()))?;
    let own = into.join("gatepost.1");
    let page = fs::read_to_string(&own).with_context(|| format!("cannot read {}", own.display()))?;
    fs::write(&own, page + COMMON).with_context(|| format!("cannot write {}", own.display()))?;
    Ok(())
}
