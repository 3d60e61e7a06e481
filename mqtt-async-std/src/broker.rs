//! A broker inside your program.
//!
//! ```no_run
//! use mqtt_async_std::broker::{Broker, Config};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::bind(Config::listening_on(["127.0.0.1:1883".parse()?])).await?;
//! let mut news = broker.subscribe("news/#", Default::default()).await?;
//! while let Some(message) = news.recv().await? {
//!     println!("{}: {} bytes", message.topic, message.payload.len());
//! }
//! broker.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The broker runs on a thread of its own, with an executor of its own, so a slow task of yours does
//! not hold it up. What an [`Authorizer`] does not decide at once it decides on the executor that
//! [`AsyncIo`] says.
//!
//! What happens is logged through `tracing`, in lines like Mosquitto's: connections at info, the rest
//! at debug, what needs attention as warnings. [`BrokerHandle::events`] gives the same as values.
//!
//! # Cost
//!
//! A connection has one task, which waits only for bytes to read; nobody is woken to write. All
//! connections share one read buffer, and an idle connection owns none.

use crate::{AsyncIo, IoTimer};
use async_executor::LocalExecutor;
use async_io::Async;
use futures_io::{AsyncRead, AsyncWrite};
pub use mqtt_io::TransportStats;
#[cfg(feature = "access")]
pub use mqtt_io::broker::GateConfig;
pub use mqtt_io::broker::{
    Address, Answer, Ask, AskFor, Authorizer, BindError, BrokerConfig, ClientInfo, Config, Decision, Denied,
    Ended, Event, Events, Grant, Inherited, Lagged, Listed, Listener, ListeningSocket, LogStyle, Messages,
    Network, Overflow, Peer, Place, PublishFailed, Question, Rates, RefusedFilter31, RetainedInfo,
    ServeError, SharedTransport, Stats, SubscribeFailed, SubscriptionInfo, TraceOptions, Transport,
};
use mqtt_io::broker::{Life, MovingSocket, bind};
#[cfg(unix)]
use mqtt_io::runtime::NoWatch;
use mqtt_io::runtime::{LocalRuntime, LocalTask, StreamSocket, Wrap};
use std::cell::Cell;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::fd::OwnedFd;
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

/// A running broker. Cloning gives another handle of the same one; when the last is dropped, it is
/// shut down, without anybody waiting for the end.
pub type BrokerHandle = mqtt_io::broker::BrokerHandle<AsyncIo>;

/// Decides by an `mqtt_access::Access`: passwords, tokens, web services.
#[cfg(feature = "access")]
pub type Gate = mqtt_io::broker::Gate<AsyncIo>;

/// Starts brokers.
#[derive(Debug)]
pub struct Broker(());

impl Broker {
    /// Binds every listener and starts a broker on a thread of its own. When this returns, clients
    /// can connect. Authorizers run on the default executor.
    ///
    /// The broker lives until [`BrokerHandle::shutdown`] is called or the last handle is dropped.
    ///
    /// # Errors
    /// If a setting is wrong or an address is not to be had; nothing is left running then.
    pub async fn bind(config: Config) -> Result<BrokerHandle, BindError> {
        Self::bind_with(AsyncIo::default(), config).await
    }

    /// As [`Broker::bind`], and says where authorizers run.
    ///
    /// # Errors
    /// As [`Broker::bind`].
    pub async fn bind_with(runtime: AsyncIo, config: Config) -> Result<BrokerHandle, BindError> {
        bind(runtime, config, thread).await
    }
}

fn thread(life: Life) -> Result<(), ServeError> {
    let executor = Rc::new(LocalExecutor::new());
    let local = Local(Rc::downgrade(&executor));
    async_io::block_on(executor.run(life.run(local)))
}

/// The runtime of a broker's thread. The tasks hold it, so it must not hold them.
#[derive(Clone)]
struct Local(Weak<LocalExecutor<'static>>);

impl LocalRuntime for Local {
    type Timer = IoTimer;
    type Task = Task;
    type Listener = Listening;
    type Stream = Socket;
    #[cfg(unix)]
    type Watch = NoWatch;

    #[cfg(unix)]
    fn watch(_: OwnedFd) -> Option<io::Result<NoWatch>> {
        // async-io watches by a thread of its own for all threads; a task for each connection stays nearer to it.
        None
    }

    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Task {
        // Without an executor the thread is ending, and nothing begins any more.
        Task(self.0.upgrade().map(|executor| executor.spawn(task)))
    }

    fn yield_now() -> impl Future<Output = ()> {
        futures_lite::future::yield_now()
    }

    fn listener(listener: ListeningSocket) -> io::Result<Listening> {
        match listener {
            ListeningSocket::Tcp(listener) => Async::new_nonblocking(listener).map(Listening::Tcp),
            #[cfg(unix)]
            ListeningSocket::Unix(listener) => Async::new_nonblocking(listener).map(Listening::Unix),
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn port(listener: &Listening) -> u16 {
        match listener {
            Listening::Tcp(listener) => listener.get_ref().local_addr().map_or(0, |local| local.port()),
            #[cfg(unix)]
            Listening::Unix(_) => 0,
        }
    }

    async fn accept(listener: &Listening) -> io::Result<(Socket, Option<SocketAddr>)> {
        match listener {
            Listening::Tcp(listener) => {
                let (io, address) = listener.accept().await?;
                // Without it messages are only later, so a failure does not matter.
                let _ = io.get_ref().set_nodelay(true);
                Ok((Socket { io: Io::Tcp(io), empty: Cell::new(false) }, Some(address)))
            }
            #[cfg(unix)]
            Listening::Unix(listener) => {
                let (io, _) = listener.accept().await?;
                Ok((Socket { io: Io::Unix(io), empty: Cell::new(false) }, None))
            }
        }
    }

    fn leave(stream: Socket) -> io::Result<MovingSocket> {
        match stream.io {
            Io::Tcp(io) => io.into_inner().map(MovingSocket::Tcp),
            #[cfg(unix)]
            Io::Unix(io) => io.into_inner().map(MovingSocket::Unix),
        }
    }

    fn enter(socket: MovingSocket) -> io::Result<Socket> {
        let io = match socket {
            MovingSocket::Tcp(stream) => Async::new_nonblocking(stream).map(Io::Tcp),
            #[cfg(unix)]
            MovingSocket::Unix(stream) => Async::new_nonblocking(stream).map(Io::Unix),
            _ => Err(ErrorKind::Unsupported.into()),
        };
        Ok(Socket { io: io?, empty: Cell::new(false) })
    }
}

/// A socket that is listened on.
enum Listening {
    Tcp(Async<TcpListener>),
    #[cfg(unix)]
    Unix(Async<UnixListener>),
}

struct Task(Option<async_executor::Task<()>>);

impl LocalTask for Task {
    fn detach(self) {
        if let Some(task) = self.0 {
            task.detach();
        }
    }
}

/// A connection.
struct Socket {
    io: Io,
    /// The last read took everything: to ask again before the system says that there is more would be
    /// a call for nothing.
    empty: Cell<bool>,
}

enum Io {
    Tcp(Async<TcpStream>),
    #[cfg(unix)]
    Unix(Async<UnixStream>),
}

impl Io {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(io) => io.poll_readable(cx),
            #[cfg(unix)]
            Self::Unix(io) => io.poll_readable(cx),
        }
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(io) => io.get_ref().read(into),
            #[cfg(unix)]
            Self::Unix(io) => io.get_ref().read(into),
        }
    }
}

impl StreamSocket for Socket {
    fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.empty.get() {
                ready!(self.io.poll_readable(cx))?;
                self.empty.set(false);
            }
            match self.io.read(into) {
                Ok(n) => {
                    self.empty.set(n > 0 && n < into.len());
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.empty.set(true),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    #[inline]
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&self.io, slices) {
            (Io::Tcp(io), [one]) => io.get_ref().write(one),
            (Io::Tcp(io), _) => io.get_ref().write_vectored(slices),
            #[cfg(unix)]
            (Io::Unix(io), _) => io.get_ref().write_vectored(slices),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.io {
            Io::Tcp(io) => io.poll_writable(cx).map(|_| ()),
            #[cfg(unix)]
            Io::Unix(io) => io.poll_writable(cx).map(|_| ()),
        }
    }

    fn shutdown_write(&self) {
        let _ = match &self.io {
            Io::Tcp(io) => io.get_ref().shutdown(Shutdown::Write),
            #[cfg(unix)]
            Io::Unix(io) => io.get_ref().shutdown(Shutdown::Write),
        };
    }
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Wrap<S> for AsyncIo {
    type Stream = S;

    fn wrap(stream: S) -> S {
        stream
    }
}
