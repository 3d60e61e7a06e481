use crate::varint::{self, Varint};
use crate::{DecodeError, Version, Violation};

/// What the first bytes of a packet tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The fixed header is not complete.
    Incomplete {
        /// The packet has at least this many bytes, header included.
        at_least: usize,
    },
    /// The fixed header is complete; the body may not be.
    Header {
        /// Packet type and flags.
        first_byte: u8,
        /// Length of the fixed header in bytes: 2 to 5.
        header_len: usize,
        /// Length of the whole packet in bytes, header included.
        total: usize,
    },
}

/// Judges a packet from its first bytes: its length, and whether that is more than `max` bytes,
/// before the body has arrived. Never allocates.
///
/// # Errors
/// [`Violation::RemainingLength`] if the length is longer than four bytes, and
/// [`Violation::PacketTooLarge`] if the packet is over the limit.
#[inline]
pub fn frame_header(buf: &[u8], max: u32) -> Result<Frame, DecodeError> {
    let Some((&first_byte, rest)) = buf.split_first() else { return Ok(Frame::Incomplete { at_least: 2 }) };
    // Packets below 128 bytes are by far the most common.
    let (body, len_len) = match rest {
        [body, ..] if *body < 0x80 => (u32::from(*body), 1),
        _ => match varint::read(rest) {
            Varint::Value(body, len) => (body, len),
            Varint::Incomplete => return Ok(Frame::Incomplete { at_least: buf.len() + 1 }),
            Varint::TooLong => return Err(DecodeError::new(Violation::RemainingLength, Version::V5, 1)),
        },
    };
    let header_len = 1 + len_len;
    let total = usize::try_from(body).unwrap_or(usize::MAX).saturating_add(header_len);
    // Saturates only where `usize` has 16 bits, and is then over any limit.
    if total > usize::try_from(max).unwrap_or(usize::MAX) {
        let size = u32::try_from(total).unwrap_or(u32::MAX);
        return Err(DecodeError::new(Violation::PacketTooLarge, Version::V5, 1).with_detail(size));
    }
    Ok(Frame::Header { first_byte, header_len, total })
}
