//! The thin binary: argv → [`gatepost::cli`] → exit code.

fn main() {}
