//! `gatepost demo`: two versions of a sample function and a gatepost in front of them, with a file to edit.

mod file;
mod folder;
mod function;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use tokio::sync::watch;

use super::{
    failure::{Failure, Outcome},
    run::failure,
    term::{Ink, Terminal},
};
use crate::serve::{
    self,
    receipt::{Receipt, ReloadResult},
};
use folder::Folder;
use function::{Functions, Version};

/// Where the demo listens, if that is free.
const PORT: u16 = 8080;
/// How often the counts are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Calls that go on are told of so often.
const WINDOW: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Keep the config here. Default: a new folder, removed at the end.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Listen on this port of 127.0.0.1. Default: 8080, or a free one if that is taken.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// End by itself after this time, e.g. `10s`.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    lasts: Option<Duration>,
}

/// `500ms`, `10s`, `2m`
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err("write a time such as `500ms`, `10s` or `2m`".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a time such as `10s`".to_owned())?;
    Ok(Duration::from_millis(number.saturating_mul(factor)))
}

/// What the demo waits for.
enum Event {
    Ready,
    Receipt(Receipt),
    Ended(anyhow::Result<()>),
    Interrupted,
}

pub(super) fn run(options: Options, term: &mut Terminal) -> Outcome {
    let started = Instant::now();
    let functions = Functions::start(&["v1", "v2"]).context("cannot start the sample function")?;
    let folder = Folder::new(options.config_dir)?;
    let listen = address(options.port)?;
    let file = folder.path().join("gatepost.toml");
    write(&file, &file::text(listen, &functions.versions, &folder.state()?))?;

    let (events, inbox) = mpsc::channel();
    let (stop, stopped) = watch::channel(false);
    let served = serve_in_thread(file.clone(), events.clone(), stopped)?;
    interrupts(events)?;
    let ends = options.lasts.map(|lasts| started + lasts);
    let mut counts = Counts::new(functions.versions.clone());
    let mut outcome = Ok(());
    loop {
        match inbox.recv_timeout(TICK) {
            Ok(Event::Ready) => welcome(term, listen, &file, started.elapsed())?,
            Ok(Event::Receipt(receipt)) => {
                // What came before the change is told before it.
                counts.tell(term, true)?;
                tell(term, &receipt)?;
            }
            Ok(Event::Ended(result)) => {
                outcome = result.map_err(|error| failure(error, term));
                break;
            }
            Ok(Event::Interrupted) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => counts.tell(term, false)?,
        }
        if ends.is_some_and(|ends| Instant::now() >= ends) {
            break;
        }
    }
    let _ = stop.send(true);
    let _ = served.join();
    counts.tell(term, true)?;
    outcome?;
    match folder.remove()? {
        Some(removed) => term.line(format_args!("demo ended; {} is removed", removed.display()))?,
        None => term.line(format_args!("demo ended; the config stays at {}", file.display()))?,
    }
    Ok(())
}

/// The port asked for, or 8080, or any that is free.
fn address(port: Option<u16>) -> Outcome<SocketAddr> {
    let on = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let free = |port: u16| TcpListener::bind(on(port)).and_then(|listener| listener.local_addr());
    Ok(match port {
        Some(port) => free(port).with_context(|| format!("cannot listen on {}", on(port)))?,
        None => free(PORT).or_else(|_| free(0)).context("no port of 127.0.0.1 is free")?,
    })
}

/// A file that is there already is somebody's.
fn write(file: &Path, text: &str) -> Outcome {
    if file.exists() {
        return Err(Failure::Usage(format!("{} exists already: name another folder", file.display())));
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}

fn serve_in_thread(
    config: PathBuf,
    events: Sender<Event>,
    stop: watch::Receiver<bool>,
) -> io::Result<thread::JoinHandle<()>> {
    let (ready, receipts) = (events.clone(), events.clone());
    let options = serve::Options {
        config,
        on_ready: Some(Box::new(move |_| {
            let _ = ready.send(Event::Ready);
        })),
        on_receipt: Some(Box::new(move |receipt: &Receipt| {
            let _ = receipts.send(Event::Receipt(receipt.clone()));
        })),
        stop: Some(stop),
        program: None,
    };
    thread::Builder::new().name("gatepost".to_owned()).spawn(move || {
        let _ = events.send(Event::Ended(serve::run(options)));
    })
}

/// Ctrl-C and SIGTERM end the demo.
fn interrupts(events: Sender<Event>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut terminate = {
        let _entered = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        let _ = events.send(Event::Interrupted);
    })?;
    Ok(())
}

fn welcome(term: &mut Terminal, listen: SocketAddr, file: &Path, took: Duration) -> Outcome {
    let (url, file) = (format!("http://{listen}"), shell_word(file));
    let head = |term: &Terminal, text: &str| term.ink(Ink::Bold, text.to_owned()).to_string();
    let title = head(term, "gatepost demo");
    term.line(format_args!("{title}: a function in two versions, and a gatepost in front of it"))?;
    term.line(format_args!("ready in {} ms at {}", took.as_millis(), term.ink(Ink::Cyan, &url)))?;
    term.line("")?;
    term.line(format_args!("{}  {}", head(term, "edit"), term.ink(Ink::Cyan, &file)))?;
    term.line("      e.g. the weight of v2: save, and the effect is told here")?;
    term.line(format_args!("{}   in another terminal", head(term, "try")))?;
    for line in [
        format!("curl -s {url}/hello"),
        format!("for i in $(seq 20); do curl -s {url}/version; done | sort | uniq -c"),
        format!("curl -s -H 'x-tester: yes' {url}/version"),
        format!("for i in $(seq 8); do curl -s -o /dev/null -w '%{{http_code}}\\n' {url}/limited/; done | uniq -c"),
        // At least one digit: the version's URL begins with `v2 = ` too.
        format!("sed -i 's/^v2 = [0-9][0-9]*/v2 = 50/' {file}"),
    ] {
        term.line(format_args!("      {line}"))?;
    }
    term.line("")?;
    term.line(term.ink(Ink::Dim, "Ctrl-C ends it").to_string())?;
    term.line("")?;
    Ok(())
}

fn tell(term: &mut Terminal, receipt: &Receipt) -> Outcome {
    let ink = match receipt.result {
        ReloadResult::Applied => Ink::Green,
        ReloadResult::Rejected => Ink::Red,
        ReloadResult::Unchanged => Ink::Dim,
    };
    // A receipt begins by saying what came of the change; a report begins with the mistake.
    let text = match receipt.result {
        ReloadResult::Rejected => format!("{}: {receipt:#}", receipt.result.as_str()),
        ReloadResult::Applied | ReloadResult::Unchanged => format!("{receipt:#}"),
    };
    let (first, rest) = text.split_at(text.find('\n').unwrap_or(text.len()));
    term.line(format_args!("{}{rest}", term.ink(ink, first)))?;
    Ok(())
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    match text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,=@%".contains(c)) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// What the versions have served since it was last told.
struct Counts {
    versions: Vec<Version>,
    /// At the last telling.
    told: Vec<u64>,
    /// At the last look.
    seen: Vec<u64>,
    /// When the first call since the last telling was seen.
    since: Option<Instant>,
}

impl Counts {
    fn new(versions: Vec<Version>) -> Self {
        let now: Vec<u64> = versions.iter().map(Version::served).collect();
        Self { versions, told: now.clone(), seen: now, since: None }
    }

    /// Tells them once the calls pause, or have gone on for a while; `now`: whatever they do.
    fn tell(&mut self, term: &mut Terminal, now: bool) -> Outcome {
        let counts: Vec<u64> = self.versions.iter().map(Version::served).collect();
        let paused = counts == self.seen;
        self.seen.clone_from(&counts);
        if counts == self.told {
            self.since = None;
            return Ok(());
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if !now && !paused && since.elapsed() < WINDOW {
            return Ok(());
        }
        let new: Vec<u64> = counts.iter().zip(&self.told).map(|(now, then)| now - then).collect();
        let total: u64 = new.iter().sum();
        let parts: Vec<String> = self
            .versions
            .iter()
            .zip(&new)
            .map(|(version, count)| format!("{} {count} ({:.1} %)", version.name, 100.0 * *count as f64 / total as f64))
            .collect();
        let calls = if total == 1 { "call" } else { "calls" };
        term.line(format_args!("{}: {}", term.ink(Ink::Cyan, format!("{total} {calls}")), parts.join("  ")))?;
        self.told = counts;
        self.since = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "10", "s", "10h", "-1s", "99999999999999999999s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_taken_port_is_an_error_only_if_it_was_asked_for() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(address(Some(taken.local_addr().unwrap().port())).is_err());
        assert!(address(None).unwrap().ip().is_loopback());
    }

    #[test]
    fn a_config_that_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gatepost.toml");
        write(&file, "a").unwrap();
        assert!(matches!(write(&file, "b"), Err(Failure::Usage(_))));
        assert_eq!(fs::read_to_string(file).unwrap(), "a");
    }
}
