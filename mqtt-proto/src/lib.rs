//! The wire format of MQTT 3.1, 3.1.1 and 5.0.
//!
//! A pure codec: bytes in, checked packets out, and back. It keeps no state, reads no clock, needs
//! `core` and `alloc` only, and contains no `unsafe`.
//!
//! * [`frame_header`] judges a packet from its first bytes, size limit included, before its body
//!   has arrived. Nothing is ever reserved on the peer's word.
//! * [`PacketRef::decode`] makes one validating pass over a complete packet and returns views into
//!   it: nothing is allocated for any packet type. [`Packet`] and [`Publish`] own their bytes.
//! * [`PacketRef::encoded_len`] is exact, and once it succeeds [`PacketRef::encode`] cannot fail.
//! * Each rejection is a [`DecodeError`] that names the broken [`Rule`], the byte offset and the
//!   [`ReasonCode`] to answer with.
//!
//! ```
//! use mqtt_proto::{PacketRef, PublishRef, Version};
//!
//! let hello = PacketRef::Publish(PublishRef { topic: "a/b", payload: b"hi", ..Default::default() });
//! let mut wire = Vec::new();
//! hello.encode(Version::V5, &mut wire)?;
//! assert_eq!(wire, [0x30, 8, 0, 3, b'a', b'/', b'b', 0, b'h', b'i']);
//! assert_eq!(PacketRef::decode(&wire, Version::V5)?, hello);
//! # Ok::<(), Box<dyn std::error::Error>>(())
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

mod error;
mod frame;
pub mod packet;
pub mod property;
mod qos;
mod reader;
mod reason;
mod rule;
pub mod topic;
mod varint;
mod version;

pub use error::{DecodeError, EncodeError};
pub use frame::{Frame, frame_header};
pub use packet::{
    AckRef, AuthRef, ConnackRef, ConnectRef, DisconnectRef, Packet, PacketRef, PacketType, Publish,
    PublishHead, PublishRef, RawPublish, SharedPublish, SubackRef, SubscribeFilters, SubscribeFiltersBuf,
    SubscribeRef, SubscriptionOptions, UnsubackRef, UnsubscribeFilters, UnsubscribeFiltersBuf,
    UnsubscribeRef, WillRef,
};
pub use property::{Properties, PropertiesBuf, Property, PropertyContext, PropertyId};
pub use qos::{QoS, RetainHandling};
pub use reason::ReasonCode;
pub use rule::{Rule, Violation};
pub use topic::{SharedFilter, TopicFilter, TopicName};
pub use varint::{MAX_VARINT, varint_len};
pub use version::Version;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The identifier of one exchange that is in progress on a connection; never zero.
pub type PacketId = core::num::NonZeroU16;

/// The largest packet the format can express: five bytes of header and 268,435,455 of body.
pub const MAX_PACKET_SIZE: u32 = MAX_VARINT + 5;
