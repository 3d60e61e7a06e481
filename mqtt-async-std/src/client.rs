//! A client: a handle that is cheap to clone, a driver task that does the work, and streams.
//!
//! ```no_run
//! use mqtt_async_std::client::{Client, Item};
//! use mqtt_session::Message;
//! use mqtt_proto::QoS;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("mqtt://localhost").await?;
//! let mut hello = client.subscribe("hello/#", QoS::AtLeastOnce).await?;
//! client.publish(Message::new("hello/world", "Hi!").with_qos(QoS::AtLeastOnce)).await?;
//! if let Some(Item::Message(message)) = hello.recv().await {
//!     println!("{}: {:?}", message.topic, message.payload);
//! }
//! client.disconnect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The driver runs whether or not anything is polled, connects again by itself, and never stops
//! reading because a stream is full: publishing from a receive loop cannot deadlock. It runs on the
//! executor that [`AsyncIo`] says, whatever polls the handles.
//!
//! # What is lost when
//!
//! Dropping all handles and streams disconnects like [`Client::disconnect`], as well as it can: if the
//! program ends before that is done, what was not sent is lost, and the server publishes the will. So
//! end with `client.disconnect().await?`.

use crate::AsyncIo;
use async_net::TcpStream;
#[cfg(unix)]
use async_net::unix::UnixStream;
use futures_io::{AsyncRead, AsyncWrite};
pub use mqtt_io::client::{
    AuthFailed, AuthHandler, Completion, Delivery, Error, Item, Receipt, Server, State, Subscription, Target,
    Tcp,
};
use mqtt_io::client::{Dialed, Layered};
use mqtt_io::runtime::Connect;
#[cfg(feature = "tls")]
pub use mqtt_io::tls::{self, TlsClient};
use std::future::Future;
use std::io;

/// A handle of a client. Clones are handles of the same client.
pub type Client = mqtt_io::client::Client<AsyncIo>;

/// Settings of a [`Client`]. What is not set has a default; limits are all finite.
pub type Options<C = Server> = mqtt_io::client::Options<AsyncIo, C>;

/// Opens connections to the server. Each stream of `futures-io` will do: TCP, TLS, WebSocket, a pipe
/// in a test. A closure that returns a future is a connector:
///
/// ```
/// # use mqtt_async_std::client::Options;
/// let options = Options::new("localhost", 1883)
///     .connector(|| async_net::TcpStream::connect("127.0.0.1:1883"));
/// ```
pub trait Connector: Send + Sync + 'static {
    /// What it opens.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a connection. Is called again for each attempt, and dropped when an attempt takes longer
    /// than the settings allow.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static;
}

impl<F, R, S> Connector for F
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = S;

    fn connect(&self) -> impl Future<Output = io::Result<S>> + Send + 'static {
        self()
    }
}

/// Opens TCP connections [MQTT-4.2-1]; the name is looked up anew for each.
impl Connector for Tcp {
    type Stream = TcpStream;

    fn connect(&self) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        let Self { host, port, .. } = self.clone();
        async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }
}

impl<C: Connector> Connect<C> for AsyncIo {
    type Stream = C::Stream;

    fn connect(connector: &C) -> impl Future<Output = io::Result<C::Stream>> + Send + 'static {
        connector.connect()
    }
}

#[cfg(unix)]
type Socket = Dialed<TcpStream, UnixStream>;
#[cfg(not(unix))]
type Socket = Dialed<TcpStream, TcpStream>;

/// By TCP or a Unix socket, and with the layers that the server's URL says.
impl Connect<Server> for AsyncIo {
    type Stream = Layered<Socket>;

    fn connect(server: &Server) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static {
        let server = server.clone();
        async move {
            let stream = match server.target() {
                Target::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Dialed::Tcp(stream)
                }
                #[cfg(unix)]
                Target::Unix(path) => Dialed::Unix(UnixStream::connect(path).await?),
                #[cfg(not(unix))]
                Target::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
            };
            server.open(stream).await
        }
    }
}
