//! What the tests of the workspace share.
//!
//! [`World`] runs a broker on virtual time with peers that send whatever packets a test
//! wants, well formed or not. [`brief`] writes a packet in a few characters, so that a test can list
//! what it expects. `adapters` (feature `adapters`) is one script for every runtime adapter.
//!
//! ```
//! use mqtt_proto::Version;
//! use mqtt_session::broker::BrokerConfig;
//! use mqtt_testkit::{World, packets};
//!
//! let mut world = World::new(BrokerConfig::default());
//! let sub = world.client(Version::V311, "sub");
//! world.send(sub, &packets::subscribe(1, &packets::filter("a/+", mqtt_proto::QoS::AtMostOnce)));
//! let from = world.client(Version::V5, "pub");
//! world.send(from, &packets::publish("a/b", 0, 0, "hi"));
//! assert_eq!(world.got(sub), ["SUBACK #1 00", "PUBLISH a/b q0 \"hi\""]);
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "adapters")]
pub mod adapters;

/// How many shards the brokers of the tests have that are not about one: `MQTT_SHARDS`, or one.
#[must_use]
pub fn shards() -> u16 {
    std::env::var("MQTT_SHARDS").ok().and_then(|shards| shards.parse().ok()).unwrap_or(1)
}
mod brief;
mod pair;
mod world;

pub use brief::{brief, brief_all};
pub use pair::Pair;
pub use world::{PeerId, Shards, World, packets};
