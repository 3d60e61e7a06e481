//! The bundled broker as a library: from settings to an exit code.
//!
//! What an operator meets stands here: the configuration file, `mosquitto.conf`, where the broker
//! listens, whom it lets in, what it says while it starts, what it does on signals. Serving clients is
//! `mqtt-tokio`, who may do what is `mqtt-access`, MQTT is `mqtt-session`.
//!
//! Without an address it listens on this machine only, and where other machines can reach it, it
//! starts only if it knows whom to let in: a broker that was just tried out must not be open to the
//! world.
//!
//! ```no_run
//! # async fn example() -> Result<(), mqtt_broker::Error> {
//! let mut source = mqtt_broker::Source::default();
//! source.port = Some(1884);
//! source.overrides.set("limits.max_connections=10000")?;
//! let settings = source.read()?;
//! // Until a signal ends it.
//! let stopped = mqtt_broker::run(&source, settings).await?;
//! std::process::exit(stopped.exit_code().into());
//! # }
//! ```
#![deny(clippy::await_holding_refcell_ref)]

mod bind;
pub mod config;
mod descriptors;
mod http;
mod log;
mod mosquitto;
mod run;
mod security;
mod service;
mod settings;
mod signal;
mod storage;
mod transport;

pub use bind::{AddressError, Bind};
pub use log::{LogFile, LogTarget, LogTopics};
pub use mosquitto::Note;
pub use mqtt_access::FileError;
pub use mqtt_tokio::broker::{Address, BrokerConfig, Inherited, ListeningSocket, TraceOptions};
pub use run::{Error, run};
pub use settings::{Settings, Source, SourceFile};
pub use signal::{Signal, Stopped};
pub use storage::Data;

/// The port that MQTT without encryption has.
pub const DEFAULT_PORT: u16 = 1883;
