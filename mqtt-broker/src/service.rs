//! What a service manager is told (systemd's `NOTIFY_SOCKET`): that the broker serves, reloads or ends,
//! and, if it watches over it, that the broker's thread still turns. Without one, nobody is told.

#[cfg(unix)]
use sd_notify::{NotifyState, notify, watchdog_enabled};
use std::time::Duration;

/// Clients can connect.
pub(crate) fn ready(summary: &str) {
    #[cfg(unix)]
    tell(&[NotifyState::Ready, NotifyState::Status(summary)]);
    #[cfg(not(unix))]
    let _ = summary;
}

/// Settings are read again; [`ready`] comes when that is over.
pub(crate) fn reloading() {
    #[cfg(unix)]
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The end has begun.
pub(crate) fn stopping() {
    #[cfg(unix)]
    tell(&[NotifyState::Stopping]);
}

/// The broker has just shown that it lives.
pub(crate) fn alive() {
    #[cfg(unix)]
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is to be called, if anybody waits for it.
pub(crate) fn watchdog() -> Option<Duration> {
    #[cfg(unix)]
    return watchdog_enabled().map(|limit| limit / 3);
    #[cfg(not(unix))]
    None
}

#[cfg(unix)]
fn tell(state: &[NotifyState<'_>]) {
    if let Err(e) = notify(state) {
        tracing::warn!("The service manager cannot be told: {e}.");
    }
}
