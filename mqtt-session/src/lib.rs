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

pub mod acl;
pub mod broker;
pub mod client;
mod message;
mod random;
pub mod server;
mod shard;
mod shared;
pub mod store;
mod time;

pub use broker::Broker;
pub use client::Client;
pub use message::{Message, PublishError, PublishErrorKind};
pub use random::Seed;
pub use server::ServerConnection;
pub use shard::{HandOver, ShardCredit, ShardId, ShardMark, ShardMessage};
pub use store::{Durability, StoreGroup, StoreOp, StoreSeq};
pub use time::Timestamp;
