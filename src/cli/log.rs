//! Where the service's own log goes: stderr, which under systemd is the journal.

use std::{
    env, io,
    panic::{self, PanicHookInfo},
    thread,
};

use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

/// Names what is logged, as tracing-subscriber's `EnvFilter` takes it: `debug`, `info,gatepost::upstream=debug`.
const FILTER: &str = "GATEPOST_LOG";

/// What became of a request is told by the access log; pingora tells it again, a caller's slips as errors.
const DEFAULT: &str = "info,pingora=off,h2=error,hickory=error";

/// Begins to log.
///
/// # Errors
///
/// Where `GATEPOST_LOG` is not a filter.
pub(super) fn start(colour: bool) -> anyhow::Result<()> {
    let filter = match env::var(FILTER) {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).with_context(|| format!("{FILTER}={text} is not a filter"))?
        }
        _ => EnvFilter::try_new(DEFAULT)?,
    };
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).with_target(false);
    // The journal has its own time at each line.
    let started = if env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().with_ansi(false).try_init()
    } else {
        log.with_ansi(colour).try_init()
    };
    started.map_err(|error| anyhow!(error))?;
    panic::set_hook(Box::new(tell_of_panic));
    Ok(())
}

/// A panic ends what panicked, and the others go on: it is told like everything else.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let said = panic.payload();
    let said = said.downcast_ref::<&str>().copied().or_else(|| said.downcast_ref::<String>().map(String::as_str));
    let at = panic.location().map_or_else(String::new, ToString::to_string);
    tracing::error!(thread = thread.name().unwrap_or("-"), at, "panicked: {}", said.unwrap_or("without words"));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_told_in_the_log_with_its_place() {
        let said = Said::default();
        let writer = said.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let before = panic::take_hook();
        panic::set_hook(Box::new(tell_of_panic));
        let ended =
            tracing::subscriber::with_default(log, || panic::catch_unwind(|| panic!("a slip {}", "of the code")));
        panic::set_hook(before);
        assert!(ended.is_err());
        let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("ERROR") && said.contains("panicked: a slip of the code"), "{said}");
        assert!(said.contains("src/cli/log.rs:"), "{said}");
    }
}
