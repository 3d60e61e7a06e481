//! The signals that ask a program to stop.

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

#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
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

    pub(crate) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            // Where Ctrl-C cannot be heard, nobody can ask.
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}
