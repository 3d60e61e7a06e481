//! MQTT 3.1, 3.1.1 and 5.0 on Tokio.
//!
//! A thin adapter: it opens sockets, moves bytes, keeps timers and obeys. Everything that is MQTT is
//! in `mqtt-session`.
//!
//! * `client` (feature `client`, on by default): a client with a handle, streams and a driver task.
//! * `broker` (feature `broker`, on by default): a broker inside your program.
#![deny(clippy::await_holding_refcell_ref)]

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "client")]
pub use client::Client;
