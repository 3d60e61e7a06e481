//! What an adapter brings: a clock, a timer, a way to start tasks, sockets.
//!
//! [`Runtime`] is what a client needs, and whoever decides on behalf of a broker; [`Connect`] and
//! [`Wrap`] say which streams of the program's own it takes. [`LocalRuntime`] is what the thread of a
//! broker needs. Streams are those of `futures-io`; an adapter whose runtime has traits of its own
//! translates.

use futures_io::{AsyncRead, AsyncWrite};
use std::fmt::Debug;
use std::future::Future;
#[cfg(any(feature = "broker", feature = "client"))]
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::fd::OwnedFd;
#[cfg(any(feature = "broker", feature = "client"))]
use std::pin::pin;
use std::task::{Context, Poll};
#[cfg(feature = "broker")]
use std::time::Duration;
use std::time::Instant;

/// One timer. It costs nothing before it is polled.
pub trait Timer: Default + Unpin + 'static {
    /// Ready once the runtime's clock shows `at`, which may change from call to call. May be called
    /// again after it was ready.
    fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()>;
}

/// A runtime whose tasks may run on any thread.
pub trait Runtime: Clone + Debug + Send + Sync + 'static {
    /// Its timer.
    type Timer: Timer + Send;

    /// Its clock. Another one than the system's where tests turn it.
    #[must_use]
    fn now() -> Instant {
        Instant::now()
    }

    /// Starts a task that runs by itself.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Runs what takes its time where blocking is allowed. By default that is a thread of its own;
    /// whoever calls this limits how many there are at once.
    ///
    /// # Errors
    /// If the system gives no thread.
    fn spawn_blocking(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        std::thread::Builder::new().name("mqtt-blocking".to_owned()).spawn(job).map(|_| ())
    }
}

/// A runtime on which `C` opens connections.
#[diagnostic::on_unimplemented(
    message = "`{C}` does not open connections for this runtime",
    note = "a connector is a closure without arguments whose future gives a stream that can be read and written"
)]
pub trait Connect<C>: Runtime {
    /// What it opens.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a connection. Is called again for each attempt, and dropped when an attempt takes longer
    /// than the settings allow.
    fn connect(connector: &C) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static;
}

/// A runtime that can read and write an `S`.
#[diagnostic::on_unimplemented(
    message = "`{S}` is no stream of this runtime",
    note = "what is served has to be readable and writable by the traits of the runtime, and `Send + 'static`"
)]
pub trait Wrap<S>: 'static {
    /// The same stream, with the traits of `futures-io`.
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// Puts it into its new clothes.
    fn wrap(stream: S) -> Self::Stream;
}

/// A runtime whose tasks stay on the thread where they were started.
pub trait LocalRuntime: Clone + 'static {
    /// Its timer.
    type Timer: Timer;
    /// A task. Dropping it ends the task.
    type Task: LocalTask;
    /// A listening socket.
    type Listener: 'static;
    /// A connection.
    type Stream: StreamSocket;
    /// What watches a descriptor; [`NoWatch`] if nothing does.
    #[cfg(unix)]
    type Watch: Watch;

    /// Watches a descriptor. With this the connections of a shard share one task, over a poller that the runtime
    /// watches. Without it, which is `None`, each has a task and a [`Stream`](Self::Stream).
    #[cfg(unix)]
    fn watch(descriptor: OwnedFd) -> Option<io::Result<Self::Watch>>;

    /// Starts a task on this thread.
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Self::Task;

    /// Lets other tasks of this thread, and the sockets, go first, once.
    fn yield_now() -> impl Future<Output = ()>;

    /// Takes a listening socket, which does not block, to this thread.
    ///
    /// # Errors
    /// If the system refuses to watch it.
    #[cfg(feature = "broker")]
    fn listener(listener: crate::broker::ListeningSocket) -> io::Result<Self::Listener>;

    /// The port that is listened on; 0 if there is none, or the system does not say.
    fn port(listener: &Self::Listener) -> u16;

    /// The next connection, and where it comes from if it is one of TCP. That sends small packets at
    /// once (`TCP_NODELAY`), if the system lets it.
    ///
    /// # Errors
    /// What the system says, about one connection or about the listener.
    fn accept(
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, Option<SocketAddr>)>>;

    /// Takes a connection off this thread. What was read is read; nothing else is lost.
    ///
    /// # Errors
    /// If the system does not let go of it.
    #[cfg(feature = "broker")]
    fn leave(stream: Self::Stream) -> io::Result<crate::broker::MovingSocket>;

    /// Takes a connection to this thread.
    ///
    /// # Errors
    /// If the system refuses to watch it.
    #[cfg(feature = "broker")]
    fn enter(socket: crate::broker::MovingSocket) -> io::Result<Self::Stream>;
}

/// A descriptor that is watched.
#[cfg(unix)]
pub trait Watch: Unpin + 'static {
    /// Ready when the descriptor has become readable since this was ready last; each time it has may be told once.
    ///
    /// # Errors
    /// If the runtime cannot watch it any more.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Watches nothing.
#[cfg(unix)]
#[derive(Debug)]
pub enum NoWatch {}

#[cfg(unix)]
impl Watch for NoWatch {
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}

/// A task on this thread.
pub trait LocalTask: 'static {
    /// Lets the task run on by itself.
    fn detach(self);
}

/// A connection over TCP or a Unix socket, of which one task reads and whoever comes by writes.
pub trait StreamSocket: 'static {
    /// Reads; 0 is the end.
    ///
    /// # Errors
    /// What the system says.
    fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes what the socket takes now; `slices` is not empty.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now; otherwise what the system says.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ready when the socket takes bytes, or has failed.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends the writing side. Failures do not matter.
    fn shutdown_write(&self);
}

/// Waits so long.
#[cfg(feature = "broker")]
pub(crate) async fn sleep<T: Timer>(time: Duration) {
    until::<T, _>(Instant::now() + time, std::future::pending::<()>()).await;
}

/// `future`, unless `at` comes before it is ready.
#[cfg(any(feature = "broker", feature = "client"))]
pub(crate) async fn until<T: Timer, F: Future>(at: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = T::default();
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.poll_until(cx, at).map(|()| None),
    })
    .await
}
