//! What systemd is told (sd_notify(3)). Outside systemd, without `$NOTIFY_SOCKET`, all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service serves a config.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&flat(status))]);
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

/// Another process is the service's main one from now on: it is believed, and this one is not any more.
pub fn main_is(pid: u32) {
    send(&[NotifyState::MainPid(pid)]);
}

/// The service drains and will end.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(&flat(status))]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    send(&[NotifyState::Status(&flat(line))]);
}

/// A sign of life for `WatchdogSec=`; to be sent at least every [`watchdog_interval`].
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often a sign of life is due: half of what systemd waits; `None`: it does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// A message has one line per state, so a status must not hold line breaks of its own.
fn flat(line: &str) -> String {
    line.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_smuggle_in_another_state() {
        assert_eq!(flat("fine\nMAINPID=1"), "fine MAINPID=1");
    }

    #[test]
    fn outside_systemd_nothing_happens() {
        ready("serves generation 1");
        reloading();
        status("degraded");
        watchdog();
        stopping("drains");
    }
}
