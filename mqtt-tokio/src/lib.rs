//! MQTT 3.1, 3.1.1 and 5.0 on Tokio.
//!
//! A thin adapter: it opens sockets, moves bytes, keeps timers and obeys. Everything that is MQTT is
//! in `mqtt-session`, and what is no matter of Tokio in `mqtt-io`.
//!
//! * [`client`] (feature `client`, on by default): a client with a handle, streams and a driver task.
//! * [`broker`] (feature `broker`, on by default): a broker inside your program.

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
mod runtime;
mod stream;

#[cfg(feature = "client")]
pub use client::Client;
pub use runtime::{Tokio, TokioTimer};
pub use stream::Compat;
