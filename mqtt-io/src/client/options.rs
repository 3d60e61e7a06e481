//! Settings of a client.

use super::driver::Driver;
use super::server::{FromUrl, Server};
use super::shared::Shared;
use super::{AuthHandler, Client, Error, State};
use crate::runtime::Connect;
use bytes::Bytes;
use mqtt_proto::Version;
use mqtt_session::client::{Authentication, Cause, CleanStart, ClientConfig, Will};
use mqtt_session::{Durability, Seed};
use mqtt_store::Store;
use std::fmt::Write;
use std::time::Duration;

/// A server that TCP connections are opened to [MQTT-4.2-1]; the name is looked up anew for each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tcp {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Tcp {
    /// A server by name or address, and port.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

/// Settings of a [`Client`]. What is not set has a default; limits are all finite.
///
/// `R` is the runtime that the client runs on, and `C` what opens its connections.
pub struct Options<R, C = Server> {
    runtime: R,
    config: ClientConfig,
    connector: C,
    auth: Option<Box<dyn AuthHandler>>,
    store: Option<Box<dyn Store>>,
    limits: Limits,
}

/// Limits of the adapter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) stream: usize,
    pub(super) unclaimed: usize,
    pub(super) manual_ack: bool,
    pub(super) request_timeout: Duration,
    pub(super) close_timeout: Duration,
}

impl<R: Default> Options<R> {
    /// A server by name or address, and port, by plain TCP.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self::to(Server::tcp(host, port))
    }

    /// A server, and how it is reached.
    #[must_use]
    pub fn to(server: Server) -> Self {
        let config = ClientConfig {
            // With streams, what is not taken is not acknowledged; see `stream_capacity`.
            max_unacknowledged: 10_000,
            ..ClientConfig::default()
        };
        Self {
            runtime: R::default(),
            config,
            connector: server,
            auth: None,
            store: None,
            limits: Limits {
                stream: 1000,
                unclaimed: 100,
                manual_ack: false,
                request_timeout: Duration::from_secs(30),
                close_timeout: Duration::from_secs(1),
            },
        }
    }

    /// A server by URL:
    ///
    /// * `mqtt://[user[:password]@]host[:port]` (port 1883 if left out),
    /// * `mqtts://...` with TLS (port 8883; feature `tls`),
    /// * `ws://...[/path]` and `wss://...[/path]` by WebSocket (ports 80 and 443, path `/mqtt`; feature
    ///   `websocket`),
    /// * `unix://[user[:password]@]/path/of/socket`.
    ///
    /// User and password may hold percent-encoded characters. The certificate of a server is checked
    /// against the authorities that the system trusts; [`Options::tls`] changes that.
    ///
    /// # Errors
    /// If it is no such URL.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let FromUrl { server, user } = Server::from_url(url)?;
        let mut options = Self::to(server);
        if let Some(user) = user {
            let (name, password) = match user.split_once(':') {
                Some((name, password)) => (name, Some(password)),
                None => (user.as_str(), None),
            };
            let text =
                |bytes| String::from_utf8(bytes).map_err(|_| Error::Address("the user name is no UTF-8"));
            options.config.user_name = Some(text(unescape(name)?)?);
            options.config.password = password.map(unescape).transpose()?.map(Bytes::from);
        }
        Ok(options)
    }

    /// How TLS is done. Without this, a URL with `mqtts` or `wss` gets the defaults of
    /// [`TlsClient`](crate::tls::TlsClient); with it, TLS is used whatever the URL says.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, settings: crate::tls::TlsClient) -> Self {
        self.connector = self.connector.with_tls(settings);
        self
    }
}

/// Undoes percent-encoding.
fn unescape(text: &str) -> Result<Vec<u8>, Error> {
    let bad = || Error::Address("behind % there have to be two hexadecimal digits");
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
        let (high, low) = (digit()?, digit()?);
        plain.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    Ok(plain)
}

impl<R, C> Options<R, C> {
    /// Opens connections in a way of your own: by a closure, for one, whose future gives any stream that
    /// can be read and written, as one through a proxy, or a pipe in a test. It is
    /// called again for each attempt, and its future is dropped when an attempt takes longer than the
    /// settings allow.
    #[must_use]
    pub fn connector<D>(self, connector: D) -> Options<R, D>
    where
        R: Connect<D>,
    {
        let Self { runtime, config, auth, store, limits, .. } = self;
        Options { runtime, config, connector, auth, store, limits }
    }

    /// Has the driver run somewhere else than on the default runtime.
    #[must_use]
    pub fn runtime(mut self, runtime: R) -> Self {
        self.runtime = runtime;
        self
    }

    /// The version to speak; 5.0 if not set.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.config.version = version;
        self
    }

    /// The client identifier. Without one, a 5.0 server assigns it, and for others a random one is
    /// made.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.config.client_id = id.into();
        self
    }

    /// User name and password.
    #[must_use]
    pub fn credentials(mut self, user_name: impl Into<String>, password: impl Into<Bytes>) -> Self {
        self.config.user_name = Some(user_name.into());
        self.config.password = Some(password.into());
        self
    }

    /// When to ask for a fresh session.
    #[must_use]
    pub fn clean_start(mut self, clean_start: CleanStart) -> Self {
        self.config.clean_start = clean_start;
        self
    }

    /// The longest silence; whole seconds.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.config.keep_alive_secs = u16::try_from(interval.as_secs()).unwrap_or(u16::MAX);
        self
    }

    /// What the server publishes when the connection is lost.
    #[must_use]
    pub fn will(mut self, will: Will) -> Self {
        self.config.will = Some(will);
        self
    }

    /// Enhanced authentication: the method, and what carries it out.
    #[must_use]
    pub fn authentication(mut self, method: impl Into<String>, handler: impl AuthHandler) -> Self {
        self.config.authentication = Some(Authentication { method: method.into(), data: None });
        self.auth = Some(Box::new(handler));
        self
    }

    /// Leave acknowledging to the application: [`Delivery::ack`](super::Delivery::ack). Otherwise a
    /// message is acknowledged when [`Subscription::recv`](super::Subscription::recv) hands it out.
    #[must_use]
    pub fn manual_ack(mut self) -> Self {
        self.limits.manual_ack = true;
        self
    }

    /// From how many waiting messages a stream drops those of QoS 0. Others are bounded by the receive
    /// maximum (5.0), or by the limits for what is unacknowledged.
    #[must_use]
    pub fn stream_capacity(mut self, messages: usize) -> Self {
        self.limits.stream = messages.max(1);
        self
    }

    /// How many messages that no stream claims are kept while nobody takes them.
    #[must_use]
    pub fn unclaimed_capacity(mut self, messages: usize) -> Self {
        self.limits.unclaimed = messages.max(1);
        self
    }

    /// How long [`Client::request`] waits for the response.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.limits.request_timeout = timeout;
        self
    }

    /// Keeps the session in a store of its own, so that it survives the end of this process: messages
    /// above QoS 0 that the server did not acknowledge, also those that wait without a connection, and
    /// the identifiers of QoS 2 messages that arrived. Needs a [client identifier](Self::client_id),
    /// and clean start that is not [`CleanStart::Always`].
    ///
    /// What that means:
    ///
    /// * A message is sent only after its packet identifier is stored, and repeated under the same after
    ///   a restart: QoS 2 reaches the server exactly once.
    /// * Exactly once towards the application ends at its acknowledgement. With
    ///   [`manual_ack`](Self::manual_ack), what was not acknowledged is shown again after a restart, as
    ///   the server repeats it ([`Message`](mqtt_session::Message)s marked as duplicates). Otherwise a
    ///   message is acknowledged when it is handed out: at most once over a crash.
    /// * QoS 0 and subscriptions that the server has not confirmed are not stored.
    ///
    /// With [`Durability::Synced`] all this survives a loss of power, with [`Durability::Written`] the
    /// end of the process. The store is read in [`start`](Self::start), which blocks meanwhile.
    #[must_use]
    pub fn session_store(mut self, durability: Durability, store: impl Store + 'static) -> Self {
        self.config.durability = durability;
        self.store = (durability != Durability::Off).then(|| -> Box<dyn Store> { Box::new(store) });
        self
    }

    /// How long closing a connection may take before it is dropped.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.limits.close_timeout = timeout;
        self
    }

    /// Changes what has no method of its own here: every setting of the machine.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut ClientConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts the client without waiting for the connection: what is published before waits in the
    /// queue, and [`Client::state`] tells how it goes.
    ///
    /// The driver runs on the runtime; where tasks can be started only within it, this has to be called
    /// there.
    ///
    /// # Errors
    /// If a setting cannot work.
    pub fn start(mut self) -> Result<Client<R>, Error>
    where
        R: Connect<C>,
        C: Send + 'static,
    {
        let config = &mut self.config;
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|_| Error::Random)?;
        let (seed, id) = random.split_at(16);
        config.seed = Seed(seed.try_into().unwrap_or_default());
        if config.client_id.is_empty() && !config.version.is_v5() {
            config.client_id = hex("m", id);
        }
        config.ack_mode = mqtt_session::client::AckMode::Manual;
        match &self.store {
            None => config.durability = Durability::Off,
            Some(_) if config.client_id.is_empty() => return Err(Error::NoClientId),
            Some(_) => {}
        }
        // What a 5.0 server may send must fit.
        config.max_unacknowledged = config.max_unacknowledged.max(config.receive_maximum.into());
        // A backlog must not fill the window of those who do take their messages.
        let half = usize::from(config.receive_maximum / 2).max(1);
        self.limits.unclaimed = self.limits.unclaimed.min(half);
        let shared = Shared::start(self.config, self.store, self.limits, &hex("", id), R::now)?;
        self.runtime.spawn(Driver::<R, C>::new(shared.clone(), self.connector, self.auth).run());
        Ok(Client::new(shared))
    }

    /// Starts the client and waits for the connection.
    ///
    /// Cancel safety: dropping the future disconnects.
    ///
    /// # Errors
    /// If a setting cannot work, or the first attempt fails; the client is gone then. To have it try on,
    /// use [`Options::start`].
    pub async fn connect(self) -> Result<Client<R>, Error>
    where
        R: Connect<C>,
        C: Send + 'static,
    {
        let client = self.start()?;
        let mut state = client.state();
        loop {
            let failed = match &*state.borrow_and_update() {
                State::Connecting => None,
                State::Connected(_) => return Ok(client.clone()),
                State::Disconnected { cause, io, .. } | State::Closed { cause, io } => {
                    Some(Error::Connect { cause: *cause, io: io.clone() })
                }
            };
            if let Some(error) = failed {
                return Err(error);
            }
            if state.changed().await.is_err() {
                return Err(Error::Closed(Cause::Requested));
            }
        }
    }
}

fn hex(prefix: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(prefix.to_owned(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl<R, C> std::fmt::Debug for Options<R, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("config", &self.config).finish_non_exhaustive()
    }
}
