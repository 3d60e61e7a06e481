//! MQTT 3.1, 3.1.1 and 5.0 on Tokio.
//!
//! A thin adapter: it opens sockets, moves bytes, keeps timers and obeys. Everything that is MQTT is
//! in `mqtt-session`, and what is no matter of Tokio in `mqtt-io`.
//!
//! * [`client`] (feature `client`, on by default): a client with a handle, streams and a driver task.
//! * [`broker`] (feature `broker`, on by default): a broker inside your program.
//!
//! Both in one program:
//!
//! ```
//! use mqtt_tokio::broker::{Broker, Config};
//! use mqtt_tokio::client::{Client, Item};
//! use mqtt_proto::QoS;
//! use mqtt_session::Message;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
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
//! # }
//! ```

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
/// The guide's Rust, and that of the README, is compiled.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/guide/README.md")]
    mod quick_start {}
    #[doc = include_str!("../../docs/guide/client.md")]
    mod client {}
    #[doc = include_str!("../../docs/guide/broker.md")]
    mod broker {}
    #[doc = include_str!("../../docs/guide/traces.md")]
    mod traces {}
}
mod runtime;
mod stream;

#[cfg(feature = "client")]
pub use client::Client;
pub use runtime::{Tokio, TokioTimer};
pub use stream::Compat;
