//! The one place where a packet's bytes are taken apart. All arithmetic on lengths that a peer sent
//! happens here and is checked.
#![deny(clippy::arithmetic_side_effects)]

use crate::varint::{self, Varint};
use crate::{DecodeError, PacketId, Version, Violation};

/// Walks a slice of a packet from front to back.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Offset in the packet of the end of `rest`; the position follows from it.
    end: u32,
    version: Version,
}

type Result<T> = core::result::Result<T, DecodeError>;

impl<'a> Reader<'a> {
    /// Reads `bytes`, which stand at `offset` of the packet. Packets are at most
    /// `MAX_PACKET_SIZE`, so offsets fit.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], offset: usize, version: Version) -> Self {
        let end = u32::try_from(offset.saturating_add(bytes.len())).unwrap_or(u32::MAX);
        Self { rest: bytes, end, version }
    }

    #[inline]
    pub(crate) fn offset(&self) -> u32 {
        // `rest` is a suffix of what `end` was computed from, so this hides nothing.
        self.end.saturating_sub(u32::try_from(self.rest.len()).unwrap_or(u32::MAX))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn error(&self, violation: Violation) -> DecodeError {
        DecodeError::new(violation, self.version, self.offset())
    }

    pub(crate) const fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    #[inline]
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(self.error(Violation::Truncated)),
        }
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        match self.rest {
            [byte, tail @ ..] => {
                self.rest = tail;
                Ok(*byte)
            }
            [] => Err(self.error(Violation::Truncated)),
        }
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16> {
        match self.rest.split_first_chunk() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(u16::from_be_bytes(*head))
            }
            None => Err(self.error(Violation::Truncated)),
        }
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32> {
        match self.rest.split_first_chunk() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(u32::from_be_bytes(*head))
            }
            None => Err(self.error(Violation::Truncated)),
        }
    }

    /// A variable byte integer in its shortest form [MQTT-1.5.5-1].
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32> {
        match varint::read(self.rest) {
            Varint::Value(value, len) => {
                if len != varint::varint_len(value) {
                    return Err(self.error(Violation::VarintNotMinimal));
                }
                self.bytes(len)?;
                Ok(value)
            }
            Varint::Incomplete => Err(self.error(Violation::Truncated)),
            Varint::TooLong => Err(self.error(Violation::VarintTooLong)),
        }
    }

    /// A two-byte length and that many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8]> {
        let at = *self;
        let len = self.u16()?;
        match self.rest.split_at_checked(usize::from(len)) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(at.error(Violation::Truncated)),
        }
    }

    /// A string: UTF-8 without surrogates [MQTT-1.5.4-1] and without U+0000 [MQTT-1.5.4-2];
    /// U+FEFF is kept [MQTT-1.5.4-3].
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str> {
        let at = *self;
        let bytes = self.binary()?;
        let text = core::str::from_utf8(bytes).map_err(|_| at.error(Violation::StringUtf8))?;
        if has_nul(bytes) {
            return Err(at.error(Violation::StringNul));
        }
        Ok(text)
    }

    /// A packet identifier, which is never zero [MQTT-2.2.1-3] [MQTT-2.3.1-1].
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId> {
        let at = *self;
        PacketId::new(self.u16()?).ok_or_else(|| at.error(Violation::PacketIdZero))
    }

    /// Nothing may be left.
    #[inline]
    pub(crate) fn finish(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(Violation::TrailingBytes)) }
    }
}

/// Branch-free over the whole string, so that it vectorises.
#[inline]
pub(crate) fn has_nul(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, &b| found | (b == 0))
}
