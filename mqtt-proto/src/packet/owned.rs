//! Packets that own their bytes.

use super::{PacketRef, PublishRef};
use crate::property::Properties;
use crate::{DecodeError, PacketId, QoS, Version, Violation};
use bytes::Bytes;

/// A PUBLISH that owns its bytes: one handle and a few offsets, so that one reference count covers
/// topic, properties and payload. Cloning it copies no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Publish {
    packet: Bytes,
    version: Version,
    first_byte: u8,
    packet_id: Option<PacketId>,
    topic: (u32, u32),
    properties: (u32, u32),
    present: u64,
    payload: u32,
}

/// Where `part`, a slice of `whole`, stands in it.
fn place(whole: &[u8], part: &[u8]) -> (u32, u32) {
    // Empty slices may point anywhere. Packets are below 2^32 bytes.
    let start = if part.is_empty() { 0 } else { part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr()) };
    let end = start.saturating_add(part.len());
    (u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX))
}

impl Publish {
    /// Decodes and keeps one complete PUBLISH.
    ///
    /// # Errors
    /// As [`PacketRef::decode`]; [`Violation::PacketType`] if it is another packet.
    pub fn decode(packet: Bytes, version: Version) -> Result<Self, DecodeError> {
        let PacketRef::Publish(p) = PacketRef::decode(&packet, version)? else {
            return Err(DecodeError::new(Violation::PacketType, version, 0));
        };
        let first_byte = packet.first().copied().unwrap_or_default();
        let (topic, properties) =
            (place(&packet, p.topic.as_bytes()), place(&packet, p.properties.as_bytes()));
        let (packet_id, present) = (p.packet_id, p.properties.present());
        let payload = u32::try_from(packet.len().saturating_sub(p.payload.len())).unwrap_or(u32::MAX);
        Ok(Self { packet, version, first_byte, packet_id, topic, properties, present, payload })
    }

    fn part(&self, (start, end): (u32, u32)) -> &[u8] {
        let at = |n| usize::try_from(n).unwrap_or(usize::MAX);
        self.packet.get(at(start)..at(end)).unwrap_or_default()
    }

    /// Whether this packet may have been sent before.
    #[must_use]
    pub const fn dup(&self) -> bool {
        self.first_byte & 8 != 0
    }

    /// How often the message may arrive.
    #[must_use]
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.first_byte >> 1 & 3).unwrap_or_default()
    }

    /// The retain flag.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.first_byte & 1 != 0
    }

    /// The identifier; present exactly above QoS 0.
    #[must_use]
    pub const fn packet_id(&self) -> Option<PacketId> {
        self.packet_id
    }

    /// The topic name; empty only in 5.0 with a Topic Alias.
    #[must_use]
    pub fn topic(&self) -> &str {
        // Checked when it was decoded.
        core::str::from_utf8(self.part(self.topic)).unwrap_or_default()
    }

    /// The properties (5.0).
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        Properties::from_parts(self.part(self.properties), self.present)
    }

    /// The application's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.part((self.payload, u32::try_from(self.packet.len()).unwrap_or(u32::MAX)))
    }

    /// The application's bytes as a handle of their own. It keeps the whole packet in memory.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.packet.slice_ref(self.payload())
    }

    /// The packet on the wire.
    #[must_use]
    pub const fn packet(&self) -> &Bytes {
        &self.packet
    }

    /// The version that the packet is encoded in.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The borrowed view.
    #[must_use]
    pub fn view(&self) -> PublishRef<'_> {
        PublishRef {
            dup: self.dup(),
            qos: self.qos(),
            retain: self.retain(),
            topic: self.topic(),
            packet_id: self.packet_id,
            properties: self.properties(),
            payload: self.payload(),
        }
    }
}

impl core::fmt::Debug for Publish {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.view().fmt(f)
    }
}

/// Any packet that owns its bytes, checked when it was made.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Packet {
    bytes: Bytes,
    version: Version,
}

impl Packet {
    /// Checks and keeps one complete packet.
    ///
    /// # Errors
    /// As [`PacketRef::decode`].
    pub fn decode(bytes: Bytes, version: Version) -> Result<Self, DecodeError> {
        let packet = PacketRef::decode(&bytes, version)?;
        let version = if let PacketRef::Connect(connect) = packet { connect.version } else { version };
        Ok(Self { bytes, version })
    }

    /// The borrowed view, found by walking the packet again.
    ///
    /// # Errors
    /// None: the packet was checked when it was made.
    pub fn view(&self) -> Result<PacketRef<'_>, DecodeError> {
        PacketRef::decode(&self.bytes, self.version)
    }

    /// The packet on the wire.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The version that the packet is encoded in.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }
}

impl core::fmt::Debug for Packet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.view() {
            Ok(packet) => packet.fmt(f),
            Err(error) => error.fmt(f),
        }
    }
}
