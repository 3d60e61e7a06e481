//! Variable byte integers: seven bits a byte, least significant first, at most four bytes.

use alloc::vec::Vec;

/// The largest variable byte integer: 268,435,455.
pub const MAX_VARINT: u32 = 0x0FFF_FFFF;

/// How many bytes `value` takes as a variable byte integer (1 to 4; 4 also for values beyond
/// [`MAX_VARINT`], which cannot be encoded).
#[must_use]
pub const fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// What stands at the head of `bytes`.
pub(crate) enum Varint {
    /// A value, and how many bytes it took.
    Value(u32, usize),
    /// The bytes end inside it.
    Incomplete,
    /// The fourth byte still says that another follows.
    TooLong,
}

#[inline]
pub(crate) fn read(bytes: &[u8]) -> Varint {
    let mut value = 0u32;
    let mut shift = 0u32;
    for (i, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Varint::Value(value, i + 1);
        }
        shift += 7;
    }
    if bytes.len() < 4 { Varint::Incomplete } else { Varint::TooLong }
}

/// The encoding of `value`, and its length. The value is at most [`MAX_VARINT`].
#[inline]
pub(crate) fn encode(value: u32) -> ([u8; 4], usize) {
    let len = varint_len(value);
    let low = |v: u32| v.to_le_bytes()[0] & 0x7F;
    let more = |last: usize| if len > last { 0x80 } else { 0 };
    ([low(value) | more(1), low(value >> 7) | more(2), low(value >> 14) | more(3), low(value >> 21)], len)
}

#[inline]
pub(crate) fn write(value: u32, dst: &mut Vec<u8>) {
    let (bytes, len) = encode(value);
    dst.extend_from_slice(bytes.get(..len).unwrap_or(&bytes));
}
