//! How a connection to the server is opened.

use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Opens connections to the server. Each stream that can be read and written will do: TCP, TLS,
/// WebSocket, a pipe in a test. A closure that returns a future is a connector:
///
/// ```
/// # use mqtt_tokio::client::Options;
/// let options = Options::new("localhost", 1883)
///     .connector(|| async { Ok(tokio::io::duplex(1024).0) });
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
#[derive(Clone, Debug)]
pub struct Tcp {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Connector for Tcp {
    type Stream = TcpStream;

    fn connect(&self) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        let Self { host, port } = self.clone();
        async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }
}
