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
//! current-thread runtime, and a slow task of yours does not hold it up. Your code never runs on that
//! thread: an [`Authorizer`] runs on the runtime that called [`Broker::bind`].
//!
//! What happens is logged through `tracing`, in lines like Mosquitto's: connections at info, the rest
//! at debug, what needs attention as warnings. [`BrokerHandle::events`] gives the same as values.
//!
//! # Cost
//!
//! A connection has one task, which waits only for bytes to read; nobody is woken to write. All
//! connections share one read buffer, and an idle connection owns none.

#[cfg(feature = "access")]
mod access;
mod auth;
mod bind;
mod foreign;
mod handle;
mod link;
mod listen;
mod log;
mod node;
mod run;

#[cfg(feature = "access")]
pub use access::{Gate, GateConfig};
pub use auth::{Authorizer, Decision};
pub use bind::{BindError, Broker, Config, Listener};
pub use handle::{BrokerHandle, Ended, Events, Lagged, Messages, PublishFailed, ServeError, SubscribeFailed};
pub use mqtt_session::broker::{
    Answer, Ask, AskFor, BrokerConfig, Denied, Event, Grant, Overflow, Peer, Question, RefusedFilter31, Stats,
};
