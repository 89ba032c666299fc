//! The two logs: of requests, and of the way out where it has a place of its own.

use std::{io, time::Duration};

use crate::{
    config::model::{AccessSink, Log},
    observe::{AccessLog, LogPort, Sink},
};

pub struct Logs {
    access: AccessLog,
    /// Writes nowhere, and sleeps, as long as the way out has no log of its own.
    egress: AccessLog,
}

/// The ports of one worker.
pub struct Ports {
    /// For requests.
    pub ingress: LogPort,
    /// For the way out, where its lines go among the others.
    pub shared: LogPort,
    /// For the way out, where it has a log of its own.
    pub own: LogPort,
}

/// What a reload has opened, and not yet begun to use.
#[derive(Default)]
pub struct Opened {
    access: Option<Sink>,
    egress: Option<Sink>,
}

/// Where lines go that only the way out writes.
fn own(log: &Log) -> &AccessSink {
    log.egress.as_ref().unwrap_or(&AccessSink::Off)
}

impl Logs {
    /// Opens what `log` names.
    ///
    /// # Errors
    ///
    /// A file can't be opened (the error names it), or a thread can't be started.
    pub fn start(log: &Log) -> io::Result<Self> {
        let access = AccessLog::start(log)?;
        let egress = AccessLog::beside(&access, own(log))?;
        Ok(Self { access, egress })
    }

    /// For what went wrong with either.
    pub fn access(&self) -> &AccessLog {
        &self.access
    }

    pub fn ports(&self) -> Ports {
        Ports { ingress: self.access.port(), shared: self.access.port(), own: self.egress.port() }
    }

    /// Opens what is new in a config.
    ///
    /// # Errors
    ///
    /// A file can't be opened: which key names it, and why.
    pub fn prepare(old: &Log, new: &Log) -> Result<Opened, String> {
        let open = |key: &str, old: &AccessSink, new: &AccessSink| match old == new {
            true => Ok(None),
            false => AccessLog::open(new).map(Some).map_err(|e| format!("{key}: {e}")),
        };
        Ok(Opened {
            access: open("log.access", &old.access, &new.access)?,
            egress: open("log.egress", own(old), own(new))?,
        })
    }

    /// Begins to use what wasn't used at all before: to be done before the first line that is meant for it.
    pub fn switch_on(&self, old: &Log, opened: &mut Opened) {
        for (log, was, sink) in self.each(old, opened) {
            if *was == AccessSink::Off
                && let Some(sink) = sink.take()
            {
                log.switch(sink);
            }
        }
    }

    /// Begins to use the rest: after the last line that is meant for what was there before.
    pub fn switch(&self, old: &Log, mut opened: Opened) {
        for (log, _, sink) in self.each(old, &mut opened) {
            if let Some(sink) = sink.take() {
                log.switch(sink);
            }
        }
    }

    fn each<'a>(
        &'a self,
        old: &'a Log,
        opened: &'a mut Opened,
    ) -> [(&'a AccessLog, &'a AccessSink, &'a mut Option<Sink>); 2] {
        [(&self.access, &old.access, &mut opened.access), (&self.egress, own(old), &mut opened.egress)]
    }

    pub fn reopen(&self) {
        self.access.reopen();
        self.egress.reopen();
    }

    /// Writes what waits, and ends.
    pub fn close(&self, bound: Duration) {
        self.access.close(bound);
        self.egress.close(bound);
    }
}
