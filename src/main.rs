//! The thin binary: argv → [`gatepost::cli`] → exit code.

use std::process::ExitCode;

/// Against the system's allocator: fewer instructions a request, and memory that goes back when connections close.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gatepost::cli::main(std::env::args_os())
}
