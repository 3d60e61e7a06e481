//! A broker inside your program.
//!
//! ```no_run
//! use mqtt_tokio::broker::{Broker, Config};
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
//! The broker runs on a thread of its own, so it works the same inside a multi-threaded and a
//! current-thread runtime, and a slow task of yours does not hold it up. What an [`Authorizer`] does not
//! decide at once it decides on the runtime that called [`Broker::bind`].
//!
//! What happens is logged through `tracing`, in lines like Mosquitto's: connections at info, the rest
//! at debug, what needs attention as warnings. [`BrokerHandle::events`] gives the same as values.
//!
//! # Cost
//!
//! All connections share one task and one read buffer, over a poller that the runtime watches; nobody is woken to
//! write. (On systems whose pollers do not nest, such as Windows, each connection has a task.)

use crate::Tokio;
use crate::runtime::TokioTimer;
use crate::stream::Compat;
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
use mqtt_io::runtime::Watch;
use mqtt_io::runtime::{LocalRuntime, LocalTask, StreamSocket, Wrap};
use socket2::SockRef;
use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
#[cfg(unix)]
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
#[cfg(unix)]
use tokio::io::Interest;
#[cfg(unix)]
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::task::{JoinHandle, spawn_local};

/// A running broker. Cloning gives another handle of the same one; when the last is dropped, it is
/// shut down, without anybody waiting for the end.
pub type BrokerHandle = mqtt_io::broker::BrokerHandle<Tokio>;

/// Decides by an `mqtt_access::Access`: passwords, tokens, web services.
#[cfg(feature = "access")]
pub type Gate = mqtt_io::broker::Gate<Tokio>;

/// Starts brokers.
#[derive(Debug)]
pub struct Broker(());

impl Broker {
    /// Binds every listener and starts a broker on a thread of its own. When this returns, clients
    /// can connect.
    ///
    /// The broker lives until [`BrokerHandle::shutdown`] is called or the last handle is dropped.
    ///
    /// # Errors
    /// If a setting is wrong or an address is not to be had; nothing is left running then.
    ///
    /// # Panics
    /// If called outside a Tokio runtime.
    pub async fn bind(config: Config) -> Result<BrokerHandle, BindError> {
        bind(Tokio::from(Handle::current()), config, thread).await
    }
}

fn thread(life: Life) -> Result<(), ServeError> {
    match Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime.block_on(life.run(Local)),
        Err(e) => life.fail(e),
    }
}

/// The runtime of a broker's thread.
#[derive(Clone)]
struct Local;

impl LocalRuntime for Local {
    type Timer = TokioTimer;
    type Task = Task;
    type Listener = Listening;
    type Stream = Socket;
    #[cfg(unix)]
    type Watch = Watched;

    #[cfg(unix)]
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for descriptors that change; an owned one does not"
    )]
    fn watch(descriptor: OwnedFd) -> Option<io::Result<Watched>> {
        Some(AsyncFd::with_interest(descriptor, Interest::READABLE).map(Watched))
    }

    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Task {
        Task(Some(spawn_local(task)))
    }

    fn yield_now() -> impl Future<Output = ()> {
        tokio::task::yield_now()
    }

    fn listener(listener: ListeningSocket) -> io::Result<Listening> {
        match listener {
            ListeningSocket::Tcp(listener) => TcpListener::from_std(listener).map(Listening::Tcp),
            #[cfg(unix)]
            ListeningSocket::Unix(listener) => UnixListener::from_std(listener).map(Listening::Unix),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn port(listener: &Listening) -> u16 {
        match listener {
            Listening::Tcp(listener) => listener.local_addr().map_or(0, |local| local.port()),
            #[cfg(unix)]
            Listening::Unix(_) => 0,
        }
    }

    async fn accept(listener: &Listening) -> io::Result<(Socket, Option<SocketAddr>)> {
        match listener {
            Listening::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Without it messages are only later, so a failure does not matter.
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(RefCell::new(stream)), Some(address)))
            }
            #[cfg(unix)]
            Listening::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(RefCell::new(stream)), None))
            }
        }
    }

    fn leave(stream: Socket) -> io::Result<MovingSocket> {
        match stream {
            Socket::Tcp(stream) => stream.into_inner().into_std().map(MovingSocket::Tcp),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.into_inner().into_std().map(MovingSocket::Unix),
        }
    }

    fn enter(socket: MovingSocket) -> io::Result<Socket> {
        match socket {
            MovingSocket::Tcp(stream) => TcpStream::from_std(stream).map(|s| Socket::Tcp(RefCell::new(s))),
            #[cfg(unix)]
            MovingSocket::Unix(stream) => UnixStream::from_std(stream).map(|s| Socket::Unix(RefCell::new(s))),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A descriptor that is watched.
#[cfg(unix)]
struct Watched(AsyncFd<OwnedFd>);

#[cfg(unix)]
impl Watch for Watched {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}

/// A socket that is listened on.
enum Listening {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

struct Task(Option<JoinHandle<()>>);

impl LocalTask for Task {
    fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A connection. It is borrowed for single calls only, none of which comes back here.
enum Socket {
    Tcp(RefCell<TcpStream>),
    #[cfg(unix)]
    Unix(RefCell<UnixStream>),
}

impl StreamSocket for Socket {
    fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        // Not `try_read`: this knows from a buffer that was not filled that the socket is empty.
        match self {
            Self::Tcp(stream) => ready!(Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut into))?,
            #[cfg(unix)]
            Self::Unix(stream) => ready!(Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut into))?,
        }
        Poll::Ready(Ok(into.filled().len()))
    }

    #[inline]
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Self::Tcp(stream), [one]) => stream.borrow().try_write(one),
            (Self::Tcp(stream), _) => stream.borrow().try_write_vectored(slices),
            #[cfg(unix)]
            (Self::Unix(stream), _) => stream.borrow().try_write_vectored(slices),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(stream) => stream.borrow().poll_write_ready(cx).map(|_| ()),
            #[cfg(unix)]
            Self::Unix(stream) => stream.borrow().poll_write_ready(cx).map(|_| ()),
        }
    }

    fn shutdown_write(&self) {
        let _ = match self {
            Self::Tcp(stream) => SockRef::from(&*stream.borrow()).shutdown(Shutdown::Write),
            #[cfg(unix)]
            Self::Unix(stream) => SockRef::from(&*stream.borrow()).shutdown(Shutdown::Write),
        };
    }
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Wrap<S> for Tokio {
    type Stream = Compat<Pin<Box<S>>>;

    fn wrap(stream: S) -> Self::Stream {
        Compat(Box::pin(stream))
    }
}
