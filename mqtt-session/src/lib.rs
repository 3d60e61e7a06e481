//! The MQTT client and broker as pure state machines.
//!
//! Everything that is hard about MQTT is a pure function of *bytes that arrived* and *time that
//! passed*. The machines in this crate own no socket, no clock, no thread and no randomness: they
//! take bytes and timestamps, and give bytes, events, store operations and a next deadline. The same
//! inputs give the same outputs, to the byte.
//!
//! * [`Client`] owns the whole life of a client, reconnecting included.
//! * [`Broker`] owns many connections, their sessions, subscriptions, retained messages and wills.
//!
//! * [`ServerConnection`] is one connection of a server without the broker behind it, for proxies and
//!   peers in tests.
//!
//! All have four kinds of methods, always named so: getters; `handle_*`, what happened; commands,
//! what the user wants; `poll_*`, what is to be done now. The loop is the same for all:
//!
//! ```text
//! loop {
//!     handle_*(..)                                  // whatever happened
//!     while let Some(output) = poll_output() { .. } // obey
//!     // drain outbox(..) of each connection that asked for it by Flush
//!     // sleep until poll_timeout(), or until something happens
//! }
//! ```
//! A broker and the first words of a client, without a socket:
//!
//! ```
//! use mqtt_session::broker::{BrokerConfig, Outbox, Output, Peer, ReadStatus};
//! use mqtt_session::{Broker, Timestamp};
//!
//! let now = Timestamp::ZERO;
//! let mut broker = Broker::new(BrokerConfig::default(), now)?;
//! let conn = broker.handle_accept(now);
//! broker.handle_identified(now, conn, Peer::default());
//!
//! let connect = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a'];
//! assert_eq!(broker.handle_read(now, conn, &connect), ReadStatus::Ready);
//!
//! let mut written = Vec::new();
//! while let Some(output) = broker.poll_output() {
//!     if output == Output::Flush(conn) {
//!         let outbox = broker.outbox(now, conn, 65_536);
//!         let mut slices = [&[][..]; Outbox::MOST_SLICES];
//!         let used = outbox.fill_slices(&mut slices);
//!         written.extend(slices[..used].concat());
//!         let all = outbox.len();
//!         outbox.consume(all);
//!     }
//! }
//! assert_eq!(written, [0x20, 2, 0, 0], "CONNACK: welcome");
//! # Ok::<(), mqtt_session::broker::ConfigError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::string_slice,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
#![warn(clippy::std_instead_of_core, clippy::std_instead_of_alloc, clippy::alloc_instead_of_core)]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(mqtt_defects)]
pub mod defects;
#[cfg(not(mqtt_defects))]
mod defects;

pub mod acl;
pub mod broker;
pub mod client;
/// The guide's Rust is compiled.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../docs/guide/embedding.md")]
    mod embedding {}
    #[doc = include_str!("../../docs/guide/fuzzing.md")]
    mod fuzzing {}
}
mod message;
mod random;
mod run;
pub mod server;
mod shard;
mod shared;
pub mod store;
mod time;

pub use broker::Broker;
pub use client::Client;
pub use message::{Message, PublishError, PublishErrorKind};
pub use random::Seed;
pub use run::Run;
pub use server::ServerConnection;
pub use shard::{Care, MAX_SHARDS, Refused, RetainedQuestion, ShardCredit, ShardId, ShardMessage, Usage};
pub use store::{Durability, StoreGroup, StoreOp, StoreSeq};
pub use time::Timestamp;
