//! Sockets that a poller watches.

use super::super::sockets::{ListeningSocket, MovingSocket};
use crate::runtime::{LocalRuntime, Watch};
use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Poll, ready};

#[cfg(test)]
thread_local! {
    /// Reads and writes of this thread's sockets.
    pub(super) static CALLS: std::cell::Cell<(usize, usize)> = const { std::cell::Cell::new((0, 0)) };
}

/// A connection.
#[derive(Debug)]
pub(in crate::broker) enum Polled {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Polled {
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        #[cfg(test)]
        CALLS.with(|calls| calls.set((calls.get().0 + 1, calls.get().1)));
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    #[inline]
    pub(in crate::broker) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        #[cfg(test)]
        CALLS.with(|calls| calls.set((calls.get().0, calls.get().1 + 1)));
        match (self, slices) {
            (Self::Tcp(stream), [one]) => stream.write(one),
            (Self::Tcp(stream), _) => stream.write_vectored(slices),
            (Self::Unix(stream), _) => stream.write_vectored(slices),
        }
    }
}

impl TryFrom<MovingSocket> for Polled {
    type Error = io::Error;

    fn try_from(socket: MovingSocket) -> io::Result<Self> {
        Ok(match socket {
            MovingSocket::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream)),
            MovingSocket::Unix(stream) => Self::Unix(UnixStream::from_std(stream)),
        })
    }
}

impl From<Polled> for MovingSocket {
    fn from(socket: Polled) -> Self {
        match socket {
            Polled::Tcp(stream) => Self::Tcp(stream.into()),
            Polled::Unix(stream) => Self::Unix(OwnedFd::from(stream).into()),
        }
    }
}

impl Source for Polled {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interest),
            Self::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interest),
            Self::Unix(stream) => stream.reregister(registry, token, interest),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}

/// Where connections come in that a poller is going to watch.
pub(in crate::broker) struct Entrance<L: LocalRuntime> {
    socket: Listening,
    /// Whether what is accepted writes without delay because the listener would, which saves a call.
    inherits: bool,
    watch: RefCell<L::Watch>,
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl<L: LocalRuntime> Entrance<L> {
    /// Takes a listening socket, which does not block, for a runtime that watches.
    ///
    /// # Errors
    /// If the system refuses to watch it.
    pub(in crate::broker) fn new(socket: ListeningSocket) -> io::Result<Self> {
        let mut inherits = false;
        let (descriptor, socket) = match socket {
            ListeningSocket::Tcp(listener) => {
                inherits =
                    cfg!(target_os = "linux") && SockRef::from(&listener).tcp_nodelay().unwrap_or(false);
                (listener.as_fd().try_clone_to_owned()?, Listening::Tcp(TcpListener::from_std(listener)))
            }
            ListeningSocket::Unix(listener) => {
                (listener.as_fd().try_clone_to_owned()?, Listening::Unix(UnixListener::from_std(listener)))
            }
        };
        let watch = L::watch(descriptor).unwrap_or_else(|| Err(ErrorKind::Unsupported.into()))?;
        Ok(Self { socket, inherits, watch: RefCell::new(watch) })
    }

    /// The port; 0 if there is none, or the system does not say.
    pub(in crate::broker) fn port(&self) -> u16 {
        match &self.socket {
            Listening::Tcp(listener) => listener.local_addr().map_or(0, |local| local.port()),
            Listening::Unix(_) => 0,
        }
    }

    /// The next connection, and where it comes from if it is one of TCP.
    ///
    /// # Errors
    /// What the system says, about one connection or about the listener.
    pub(in crate::broker) async fn accept(&self) -> io::Result<(Polled, Option<SocketAddr>)> {
        poll_fn(|cx| {
            loop {
                let accepted = match &self.socket {
                    Listening::Tcp(listener) => listener.accept().map(|(stream, address)| {
                        if !self.inherits {
                            // Without it messages are only later, so a failure does not matter.
                            let _ = stream.set_nodelay(true);
                        }
                        (Polled::Tcp(stream), Some(address))
                    }),
                    Listening::Unix(listener) => {
                        listener.accept().map(|(stream, _)| (Polled::Unix(stream), None))
                    }
                };
                match accepted {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        ready!(self.watch.borrow_mut().poll_readable(cx))?;
                    }
                    done => return Poll::Ready(done),
                }
            }
        })
        .await
    }
}
