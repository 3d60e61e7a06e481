//! The bundled broker as a library: from settings to an exit code.
//!
//! What an operator meets stands here: where it listens, what it says while it starts, what it does
//! when it is told to stop. Serving clients is `mqtt-tokio`; MQTT is `mqtt-session`.
//!
//! Without an address it listens on this machine only: a broker that was just tried out must not be
//! open to the world.
//!
//! ```no_run
//! # async fn example() -> Result<(), mqtt_broker::Error> {
//! let mut settings = mqtt_broker::Settings::default();
//! settings.port = 1884;
//! settings.broker.max_connections = 10_000;
//! // Until a signal ends it.
//! let stopped = mqtt_broker::run(settings).await?;
//! std::process::exit(stopped.exit_code().into());
//! # }
//! ```
#![deny(clippy::await_holding_refcell_ref)]

mod bind;
mod signal;

pub use bind::{AddressError, Bind};
pub use mqtt_tokio::broker::{BrokerConfig, TraceOptions};
pub use signal::{Signal, Stopped};

use mqtt_tokio::broker::{BindError, Broker, Config, ServeError};
use std::io;
use std::net::SocketAddr;

/// The port that MQTT without encryption has.
pub const DEFAULT_PORT: u16 = 1883;

/// Settings of the bundled broker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where to listen. Nowhere means: on this machine only.
    pub bind: Vec<Bind>,
    /// The port of each address that names none. Default 1883.
    pub port: u16,
    /// Settings of the machine: limits, times, policies.
    pub broker: BrokerConfig,
    /// Where a trace of everything that happens is written. Default: nowhere.
    pub trace: Option<TraceOptions>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { bind: Vec::new(), port: DEFAULT_PORT, broker: BrokerConfig::default(), trace: None }
    }
}

/// Why the broker did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Somebody listens there already.
    #[error("address {0} is already in use: stop the other broker or choose --port")]
    InUse(SocketAddr),
    /// The system does not let us.
    #[error("not allowed to listen on {0}: ports below 1024 need privileges; choose --port")]
    NotAllowed(SocketAddr),
    /// The address is not one of this machine.
    #[error("address {0} is not one of this machine's: choose another --bind")]
    NotOurs(SocketAddr),
    /// Anything else that kept the broker from starting.
    #[error(transparent)]
    Start(BindError),
    /// It ended by itself.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(io::Error),
}

impl From<BindError> for Error {
    fn from(e: BindError) -> Self {
        match e {
            BindError::Listen { address, ref source } => match source.kind() {
                io::ErrorKind::AddrInUse => Self::InUse(address),
                io::ErrorKind::PermissionDenied => Self::NotAllowed(address),
                io::ErrorKind::AddrNotAvailable => Self::NotOurs(address),
                _ => Self::Start(e),
            },
            _ => Self::Start(e),
        }
    }
}

/// Runs a broker until a signal ends it: the first takes leave of all clients, a second does not wait
/// for them.
///
/// # Errors
/// If it does not start, or ends by itself. The text says what to do.
///
/// # Panics
/// If called outside a Tokio runtime.
pub async fn run(settings: Settings) -> Result<Stopped, Error> {
    tracing::info!("mqtt version {} starting.", env!("CARGO_PKG_VERSION"));
    // From here on a signal finds somebody to hear it.
    let mut signals = signal::Signals::new().map_err(Error::Signals)?;
    let local_only = settings.bind.is_empty();
    let addresses = bind::resolve(&settings.bind, settings.port)?;
    let mut config = Config::listening_on(addresses);
    config.broker = settings.broker;
    config.trace = settings.trace;
    let broker = Broker::bind(config).await?;
    for address in broker.local_addrs() {
        tracing::info!("Listening on {address}.");
    }
    if local_only {
        tracing::info!(
            "No address was given, so only programs on this machine can connect. \
             Let others in with --bind 0.0.0.0 (everybody) or --bind and one of this machine's addresses."
        );
    } else if broker.local_addrs().iter().any(|address| !address.ip().is_loopback()) {
        tracing::warn!("Clients need no password: whoever reaches these addresses can read and write.");
    }
    tracing::info!("mqtt version {} running.", env!("CARGO_PKG_VERSION"));
    tokio::select! {
        ended = broker.serve() => {
            ended?;
            Ok(Stopped::InOrder)
        }
        first = signals.next() => {
            tracing::info!("{first}: taking leave of all clients. Once more to stop at once.");
            tokio::select! {
                ended = broker.shutdown() => {
                    ended?;
                    tracing::info!("mqtt version {} terminated.", env!("CARGO_PKG_VERSION"));
                    Ok(Stopped::InOrder)
                }
                second = signals.next() => Ok(Stopped::AtOnce(second)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_with_the_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let bind = vec![address.to_string().parse().unwrap()];
        let settings = Settings { bind, ..Settings::default() };
        let text = run(settings).await.unwrap_err().to_string();
        assert_eq!(
            text,
            format!("address {address} is already in use: stop the other broker or choose --port")
        );
    }

    #[tokio::test]
    async fn a_foreign_address_is_told() {
        // An address for documentation, which no machine has [RFC 5737].
        let bind = vec!["192.0.2.1:0".parse().unwrap()];
        let settings = Settings { bind, ..Settings::default() };
        let text = run(settings).await.unwrap_err().to_string();
        assert_eq!(text, "address 192.0.2.1:0 is not one of this machine's: choose another --bind");
    }
}
