//! MQTT 3.1, 3.1.1 and 5.0 on `futures-io` and `async-io`: for async-std, smol, and executors of your
//! own.
//!
//! **async-std is discontinued** ([RUSTSEC-2025-0052](https://rustsec.org/advisories/RUSTSEC-2025-0052)).
//! This crate is for programs that still run on it, and for those that moved on to smol, whose reactor,
//! `async-io`, async-std shares. Users of smol write
//!
//! ```toml
//! mqtt-async-std = { version = "0.1", default-features = false, features = ["client", "broker", "smol"] }
//! ```
//!
//! and are rid of async-std. New programs on Tokio use `mqtt-tokio`, which looks the same.
//!
//! * [`client`] (feature `client`, on by default): a client with a handle, streams and a driver task.
//! * [`broker`] (feature `broker`, on by default): a broker inside your program.
//! * Features `async-std` (on by default) and `smol` say on whose executor tasks run; see [`AsyncIo`].
//!   All else is the same code, which knows neither.
//!
//! Both in one program:
//!
//! ```
//! use mqtt_async_std::broker::{Broker, Config};
//! use mqtt_async_std::client::{Client, Item};
//! use mqtt_proto::QoS;
//! use mqtt_session::Message;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # futures_lite::future::block_on(async {
//! let broker = Broker::bind(Config::listening_on(["127.0.0.1:0".parse()?])).await?;
//! let client = Client::connect(&format!("mqtt://{}", broker.local_addrs()[0])).await?;
//! let mut hello = client.subscribe("hello/#", QoS::AtLeastOnce).await?;
//! client.publish(Message::new("hello/world", "Hi!").with_qos(QoS::AtLeastOnce)).await?;
//! match hello.recv().await {
//!     Some(Item::Message(message)) => assert_eq!(message.payload, "Hi!"),
//!     other => panic!("{other:?}"),
//! }
//! client.disconnect().await?;
//! broker.shutdown().await?;
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! A thin adapter: it opens sockets, moves bytes, keeps timers and obeys. Everything that is MQTT is
//! in `mqtt-session`, and what is no matter of a runtime in `mqtt-io`. (That has channels of
//! `tokio::sync`, which need no runtime; nothing of Tokio runs here.)

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
mod runtime;

#[cfg(feature = "client")]
pub use client::Client;
pub use runtime::{AsyncIo, IoTimer, Task};
