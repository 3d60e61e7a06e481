//! The one place where a packet's bytes are taken apart. All arithmetic on lengths that a peer sent
//! happens here and is checked.
#![deny(clippy::arithmetic_side_effects)]

use crate::varint::{self, Varint};
use crate::{DecodeError, PacketId, Version, Violation};

/// Walks a slice of a packet from front to back. Its steps are inlined by force: it lives in
/// registers only where none of them is a call.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Offset in the packet of the end of `rest`; the position follows from it.
    end: usize,
    version: Version,
}

type Result<T> = core::result::Result<T, DecodeError>;

impl<'a> Reader<'a> {
    /// Reads `bytes`, which stand at `offset` of the packet.
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8], offset: usize, version: Version) -> Self {
        Self { rest: bytes, end: offset.saturating_add(bytes.len()), version }
    }

    #[inline(always)]
    pub(crate) fn offset(&self) -> usize {
        // `rest` is a suffix of what `end` was computed from, so this hides nothing.
        self.end.saturating_sub(self.rest.len())
    }

    /// The reader is taken apart here and not behind the call: a reader whose address escapes
    /// cannot be kept in registers.
    #[inline(always)]
    pub(crate) fn error(&self, violation: Violation) -> DecodeError {
        error_at(violation, self.version, self.offset())
    }

    #[inline]
    pub(crate) const fn version(&self) -> Version {
        self.version
    }

    #[inline]
    pub(crate) fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    #[inline(always)]
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    #[inline(always)]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(self.error(Violation::Truncated)),
        }
    }

    #[inline(always)]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        match self.rest {
            [byte, tail @ ..] => {
                self.rest = tail;
                Ok(*byte)
            }
            [] => Err(self.error(Violation::Truncated)),
        }
    }

    #[inline(always)]
    pub(crate) fn u16(&mut self) -> Result<u16> {
        match self.rest.split_first_chunk() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(u16::from_be_bytes(*head))
            }
            None => Err(self.error(Violation::Truncated)),
        }
    }

    #[inline(always)]
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
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u32> {
        if let [byte, tail @ ..] = self.rest
            && *byte < 0x80
        {
            self.rest = tail;
            return Ok(u32::from(*byte));
        }
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
    #[inline(always)]
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

    /// UTF-8 without surrogates [MQTT-1.5.4-1]; U+FEFF is kept [MQTT-1.5.4-3]. Whether it contains
    /// U+0000 is left to the caller.
    #[inline(always)]
    pub(crate) fn utf8(&mut self) -> Result<&'a str> {
        let at = *self;
        core::str::from_utf8(self.binary()?).map_err(|_| at.error(Violation::StringUtf8))
    }

    /// The bytes of a string of which nobody wants a `&str` yet; whether it contains U+0000 is left to
    /// the caller. Nearly all strings are ASCII, and seeing that is much cheaper than `from_utf8`.
    #[inline(always)]
    pub(crate) fn utf8_bytes(&mut self) -> Result<&'a [u8]> {
        let at = *self;
        let bytes = self.binary()?;
        if any_byte(bytes, |b| b >= 0x80) && core::str::from_utf8(bytes).is_err() {
            return Err(at.error(Violation::StringUtf8));
        }
        Ok(bytes)
    }

    /// Like [`Reader::string`], for a string of which nobody wants a `&str` yet.
    #[inline(always)]
    pub(crate) fn string_bytes(&mut self) -> Result<&'a [u8]> {
        let mut at = *self;
        let bytes = self.binary()?;
        // As signed numbers, U+0001 to U+007F are what is above zero.
        if any_byte(bytes, |b| b.cast_signed() <= 0) {
            at.string()?;
        }
        Ok(bytes)
    }

    /// A string: UTF-8 without U+0000 [MQTT-1.5.4-2].
    #[inline(always)]
    pub(crate) fn string(&mut self) -> Result<&'a str> {
        let at = *self;
        let text = self.utf8()?;
        if has_nul(text.as_bytes()) {
            return Err(at.error(Violation::StringNul));
        }
        Ok(text)
    }

    /// A packet identifier, which is never zero [MQTT-2.2.1-3] ([MQTT-2.3.1-1] of 3.1.1).
    #[inline(always)]
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

/// Packets are at most `MAX_PACKET_SIZE`, so offsets fit.
#[cold]
#[inline(never)]
fn error_at(violation: Violation, version: Version, offset: usize) -> DecodeError {
    DecodeError::new(violation, version, u32::try_from(offset).unwrap_or(u32::MAX))
}

/// Whether `wanted` holds for a byte. Looks at whole blocks, which takes a few vector instructions
/// each; what is left is looked at in a block that overlaps the one before.
#[inline(always)]
pub(crate) fn any_byte(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> bool {
    /// Without a branch and of known length, so that a block is compared at once.
    #[inline(always)]
    fn in_block<const N: usize>(block: &[u8; N], wanted: impl Fn(u8) -> bool) -> bool {
        block.iter().fold(false, |found, &b| found | wanted(b))
    }
    let mut rest = bytes;
    while let Some((block, behind)) = rest.split_first_chunk::<16>() {
        if in_block(block, &wanted) {
            return true;
        }
        rest = behind;
    }
    if rest.is_empty() {
        false
    } else if let Some(last) = bytes.last_chunk::<16>() {
        in_block(last, &wanted)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        in_block(first, &wanted) | in_block(last, &wanted)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        in_block(first, &wanted) | in_block(last, &wanted)
    } else {
        rest.iter().any(|&b| wanted(b))
    }
}

#[inline]
pub(crate) fn has_nul(bytes: &[u8]) -> bool {
    any_byte(bytes, |b| b == 0)
}
