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

/// Appends `value`, which is at most [`MAX_VARINT`].
#[inline(always)]
pub(crate) fn write(value: u32, dst: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(byte @ ..0x80) => dst.push(byte),
        _ => write_long(value, dst),
    }
}

#[inline(never)]
fn write_long(value: u32, dst: &mut Vec<u8>) {
    let low = |shift: u32| (value >> shift).to_le_bytes()[0] & 0x7F;
    let more = |shift: u32| low(shift) | 0x80;
    // Copies of a known length are a store each.
    match varint_len(value) {
        ..=2 => dst.extend_from_slice(&[more(0), low(7)]),
        3 => dst.extend_from_slice(&[more(0), more(7), low(14)]),
        _ => dst.extend_from_slice(&[more(0), more(7), more(14), low(21)]),
    }
}
