//! Servers, and how they are reached: from URLs to connections.

use super::{Error, Layered};
use crate::Stack;
#[cfg(feature = "websocket")]
use crate::stack::WebSocketClient;
#[cfg(feature = "tls")]
use crate::tls::{TlsClient, rustls};
use futures_io::{AsyncRead, AsyncWrite};
use std::fmt;
use std::io;
use std::path::PathBuf;
#[cfg(feature = "tls")]
use std::sync::{Arc, OnceLock};

/// The path that is asked for where a URL of WebSocket has none.
#[cfg(feature = "websocket")]
const PATH: &str = "/mqtt";

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// By TCP at this name or address, which is looked up anew for each connection, and port.
    Tcp(String, u16),
    /// At this Unix socket.
    Unix(PathBuf),
}

/// A server, and how it is reached: by TCP or a Unix socket [MQTT-4.2-1], with TLS or WebSocket above
/// that or both.
#[derive(Clone)]
pub struct Server {
    target: Target,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    #[cfg(feature = "websocket")]
    websocket: Option<String>,
}

#[cfg(feature = "tls")]
#[derive(Clone)]
struct Tls {
    settings: TlsClient,
    /// What the settings came to, once they were needed.
    config: Arc<OnceLock<Arc<rustls::ClientConfig>>>,
}

/// What a URL says.
pub(super) struct FromUrl {
    pub(super) server: Server,
    /// Percent-encoded, with a password behind a colon perhaps.
    pub(super) user: Option<String>,
}

impl Server {
    /// A server by name or address, and port.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::at(Target::Tcp(host.into(), port))
    }

    /// A server at a Unix socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::at(Target::Unix(path.into()))
    }

    const fn at(target: Target) -> Self {
        Self {
            target,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "websocket")]
            websocket: None,
        }
    }

    /// The same by TLS. The files are read when the first connection is opened, and again if that
    /// fails.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, settings: TlsClient) -> Self {
        self.tls = Some(Tls { settings, config: Arc::default() });
        self
    }

    /// The same by WebSocket: `path` is what is asked for, as `/mqtt`.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn with_websocket(mut self, path: impl Into<String>) -> Self {
        self.websocket = Some(path.into());
        self
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub const fn has_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Where it is.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// What a URL says: see [`Options::from_url`](super::Options::from_url).
    pub(super) fn from_url(url: &str) -> Result<FromUrl, Error> {
        const SCHEMES: &str = "the address has to begin with mqtt://, mqtts://, ws://, wss:// or unix://";
        let (scheme, rest) = url.split_once("://").ok_or(Error::Address(SCHEMES))?;
        let (default_port, tls, websocket) = match scheme {
            "mqtt" | "tcp" => (1883, false, false),
            "mqtts" | "ssl" | "tls" => (8883, true, false),
            "ws" => (80, false, true),
            "wss" => (443, true, true),
            "unix" => return Self::from_unix(rest),
            _ => return Err(Error::Address(SCHEMES)),
        };
        let (rest, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, server) = match rest.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, rest),
        };
        if !matches!(path, "" | "/") && !websocket {
            return Err(Error::Address("behind mqtt:// there is a server and a port, and no path"));
        }
        let (host, port) = match server.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, port))) => (host, port.strip_prefix(':').or(port.is_empty().then_some(""))),
            Some(None) => return Err(Error::Address("the address has no closing bracket")),
            None => match server.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (server, Some("")),
            },
        };
        let port = match port {
            Some("") => default_port,
            Some(port) => port.parse().map_err(|_| Error::Address("the port is no number below 65,536"))?,
            None => return Err(Error::Address("behind the bracket there is more than a port")),
        };
        if host.is_empty() {
            return Err(Error::Address("the address names no server"));
        }
        let server = Self::tcp(host, port).layered(tls, websocket, path)?;
        Ok(FromUrl { server, user: user.map(str::to_owned) })
    }

    fn from_unix(rest: &str) -> Result<FromUrl, Error> {
        let (user, path) = match rest.split_once('@') {
            Some((user, path)) if !user.contains('/') => (Some(user.to_owned()), path),
            _ => (None, rest),
        };
        if !path.starts_with('/') || path.len() < 2 {
            return Err(Error::Address("behind unix:// there is the path of a socket, which begins with /"));
        }
        Ok(FromUrl { server: Self::unix(path), user })
    }

    #[cfg_attr(
        not(all(feature = "tls", feature = "websocket")),
        allow(unused_mut, unused_variables, reason = "what was not built in is refused")
    )]
    fn layered(mut self, tls: bool, websocket: bool, path: &str) -> Result<Self, Error> {
        if tls {
            #[cfg(not(feature = "tls"))]
            return Err(Error::Address("this program was built without TLS: enable the feature tls"));
            #[cfg(feature = "tls")]
            {
                self = self.with_tls(TlsClient::default());
            }
        }
        if websocket {
            #[cfg(not(feature = "websocket"))]
            return Err(Error::Address(
                "this program was built without WebSocket: enable the feature websocket",
            ));
            #[cfg(feature = "websocket")]
            {
                self = self.with_websocket(if path.is_empty() { PATH } else { path });
            }
        }
        Ok(self)
    }

    /// Opens the layers over a connection to [`Server::target`].
    ///
    /// # Errors
    /// If a file of TLS cannot be used, or a layer does not open; what the system says.
    pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<Layered<S>> {
        Layered::open(stream, self.stack()?).await
    }

    fn stack(&self) -> io::Result<Stack> {
        let stack = Stack::plain();
        #[cfg(feature = "tls")]
        let stack = match &self.tls {
            Some(tls) => {
                let name = self.tls_name(tls).map_err(invalid)?;
                stack.tls_client(tls.config()?, name).map_err(invalid)?
            }
            None => stack,
        };
        #[cfg(feature = "websocket")]
        let stack = match &self.websocket {
            Some(path) => {
                let request = WebSocketClient::new(self.host(), path).map_err(invalid)?;
                stack.websocket_client(&request)
            }
            None => stack,
        };
        Ok(stack)
    }

    #[cfg(feature = "tls")]
    fn tls_name(
        &self,
        tls: &Tls,
    ) -> Result<rustls::pki_types::ServerName<'static>, rustls::pki_types::InvalidDnsNameError> {
        let name = match (&tls.settings.server_name, &self.target) {
            (Some(name), _) => name.clone(),
            (None, Target::Tcp(host, _)) => host.clone(),
            (None, Target::Unix(_)) => "localhost".to_owned(),
        };
        name.try_into()
    }

    /// The server as HTTP names it.
    #[cfg(feature = "websocket")]
    fn host(&self) -> String {
        match &self.target {
            Target::Tcp(host, port) => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let usual = if self.has_tls() { 443 } else { 80 };
                if *port == usual { host } else { format!("{host}:{port}") }
            }
            Target::Unix(_) => "localhost".to_owned(),
        }
    }
}

#[cfg(feature = "tls")]
impl Tls {
    fn config(&self) -> io::Result<Arc<rustls::ClientConfig>> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let config = self.settings.read().map_err(invalid)?;
        Ok(Arc::clone(self.config.get_or_init(|| config)))
    }
}

#[cfg(any(feature = "tls", feature = "websocket"))]
fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Server");
        debug.field("target", &self.target).field("tls", &self.has_tls());
        #[cfg(feature = "websocket")]
        debug.field("websocket", &self.websocket);
        debug.finish()
    }
}
