//! Between the machines and the sockets, for any runtime.
//!
//! The machines of `mqtt-session` take bytes and give bytes. An adapter owns sockets, tasks and
//! timers of one runtime. What every adapter would otherwise write again stands here, and needs no
//! runtime:
//!
//! * [`Shard`] owns the machine and its links, obeys the machine's outputs, and writes each dirty
//!   link once per turn through [`Wire`], the adapter's handle of a socket.
//! * [`Stack`] is what lies between a socket's bytes and MQTT's. A plain connection is a stack
//!   without layers and costs nothing.
//! * [`Command`] is what other threads want of a shard; replies come through callbacks, so that no
//!   channel of any runtime appears here.
//! * [`Clock`] turns the machine's time into the operating system's and back.
//! * `client` (feature `client`) is the whole client but for sockets, timer and executor, and `broker`
//!   (feature `broker`) the same of a broker's thread. `runtime` holds the few traits by which an
//!   adapter brings these.
//!
//! A shard whose sockets are nothing but memory:
//!
//! ```
//! use mqtt_io::{Reading, Shard, Stack, Wire};
//! use mqtt_session::Timestamp;
//! use mqtt_session::broker::{BrokerConfig, Peer};
//! use std::cell::RefCell;
//! use std::io::{self, IoSlice};
//! use std::rc::Rc;
//! use std::task::Waker;
//!
//! #[derive(Clone, Default)]
//! struct Memory(Rc<RefCell<Vec<u8>>>);
//!
//! impl Wire for Memory {
//!     fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
//!         let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
//!         self.0.borrow_mut().extend(&bytes);
//!         Ok(bytes.len())
//!     }
//! }
//!
//! let now = Timestamp::ZERO;
//! let mut shard = Shard::new(BrokerConfig::default(), now).expect("default settings");
//! let socket = Memory::default();
//! let conn = shard.accept(now, Peer::default(), Stack::plain(), |_| socket.clone());
//! let connect = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a'];
//! assert_eq!(shard.read(now, conn, &connect, Waker::noop()), Reading::Go);
//! shard.flush(now);
//! assert_eq!(*socket.0.borrow(), [0x20, 2, 0, 0], "CONNACK: welcome");
//! ```
//!
//! # The turn
//!
//! ```text
//! a socket is readable:   shard.read(now, conn, bytes, waker)    Paused: wait for the waker
//!                                                                Gone: throw bytes away
//! a socket ended:         shard.closed(now, conn, why)
//! a command came:         shard.command(now, command)
//! the deadline came:      shard.tick(now)
//! after each of these:    take shard.effects() and perform them, with the shard released
//!                         if shard.is_dirty(), have shard.flush(now) called soon, once
//!                         sleep until shard.deadline() at most
//! ```
//!
//! Nothing in the shard calls into code of the program's user: whatever could do that leaves as an
//! [`Effect`], to be performed when nobody borrows the shard.

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
mod clock;
mod command;
/// The guide's Rust is compiled.
#[cfg(all(doctest, feature = "client"))]
mod guide {
    #[doc = include_str!("../../docs/guide/adapter.md")]
    mod adapter {}
}
mod link;
pub mod runtime;
mod shard;
pub mod stack;
#[cfg(feature = "tls")]
pub mod tls;
pub mod trace;

pub use clock::Clock;
pub use command::{Command, Look, Reply, Sink, Taken, View};
pub use link::Wire;
pub use shard::{Effect, Reading, Shard, ShardError, TransportEvent, TransportStats, Travelling};
pub use stack::Stack;
