//! The signals that ask a program to stop, or to read its settings again.

use std::fmt;
use std::io;

/// How the broker stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It took leave of all clients.
    InOrder,
    /// A second signal did not let it.
    AtOnce(Signal),
}

impl Stopped {
    /// What the program is to end with: 0, or what a shell expects of a program that a signal ended.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::InOrder => 0,
            Self::AtOnce(Signal::Interrupt) => 130,
            Self::AtOnce(Signal::Terminate) => 143,
        }
    }
}

/// A signal that asks to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, or Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "Interrupted",
            Self::Terminate => "Told to terminate",
        })
    }
}

/// What a signal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The end.
    Stop(Signal),
    /// SIGHUP: the settings as they are now.
    #[cfg_attr(not(unix), allow(dead_code, reason = "only Unix has this signal"))]
    Reload,
}

#[cfg(unix)]
pub(crate) struct Signals {
    hangup: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.hangup.recv() => Wanted::Reload,
            _ = self.interrupt.recv() => Wanted::Stop(Signal::Interrupt),
            _ = self.terminate.recv() => Wanted::Stop(Signal::Terminate),
        }
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) -> Wanted {
        if tokio::signal::ctrl_c().await.is_err() {
            // Where Ctrl-C cannot be heard, nobody can ask.
            std::future::pending::<()>().await;
        }
        Wanted::Stop(Signal::Interrupt)
    }
}

impl Signals {
    /// The next one that wants the end.
    pub(crate) async fn stop(&mut self) -> Signal {
        loop {
            if let Wanted::Stop(signal) = self.next().await {
                return signal;
            }
        }
    }
}
