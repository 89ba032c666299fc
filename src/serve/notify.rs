//! What systemd is told (sd_notify(3)). Outside systemd, without `$NOTIFY_SOCKET`, all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service serves a config.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it, whether it was applied or refused.
///
/// `Type=notify-reload` wants the monotonic time with it, to tell this reload from an earlier one.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic time for systemd"),
    }
}

/// The service drains and will end.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

/// A sign of life for `WatchdogSec=`; to be sent at least every [`watchdog_interval`].
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often a sign of life is due: half of what systemd waits; `None`: it does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// A message is one line per state, so a status must not hold line breaks of its own.
fn send(states: &[NotifyState<'_>]) {
    let flat: Vec<_> = states
        .iter()
        .map(|state| match state {
            NotifyState::Status(line) => line.replace(['\n', '\r'], " "),
            _ => String::new(),
        })
        .collect();
    let states: Vec<_> = states
        .iter()
        .zip(&flat)
        .map(|(state, line)| match state {
            NotifyState::Status(_) => NotifyState::Status(line),
            other => other.clone(),
        })
        .collect();
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
