//! `gatepost egress`: what the way out would do, what partners must know of it, and what its log tells.

mod addresses;
mod explain;
mod learn;
mod lines;
mod partners;

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::{failure::Outcome, term::Terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Would a client get to a destination? Walks through each step, and connects to nobody. The name is looked up if a rule takes it.
    Explain(explain::Options),
    /// The addresses that calls leave from: what partners must whitelist.
    Addresses(addresses::Options),
    /// Rules for what was refused, or only let through in report mode, out of an egress log: TOML to paste.
    Learn(learn::Options),
    /// Who called whom, from which address, and when it last worked, out of an egress log.
    Partners(partners::Options),
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    match &options.command {
        Command::Explain(options) => explain::run(options, term),
        Command::Addresses(options) => addresses::run(options, term),
        Command::Learn(options) => learn::run(options, term),
        Command::Partners(options) => partners::run(options, term),
    }
}

/// Whether an address is one of this machine's.
fn is_local(ip: IpAddr) -> bool {
    crate::egress::here::has(ip)
}

#[cfg(test)]
mod tests;
