//! Bytes on their way to a socket: small ones copied behind each other, large ones shared.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;

/// From this length a payload is shared instead of copied.
pub(crate) const SHARE: usize = 2048;
/// A buffer beyond this is given back once it is empty.
const KEEP: usize = 64 * 1024;

/// A byte stream whose head the socket has not taken yet. Positions count from its beginning and
/// never wrap in practice.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// What was copied.
    copied: Vec<u8>,
    /// How much of `copied` the socket took.
    taken: usize,
    /// What was shared, each with how much is copied in front of it, counted as `copied_before` is.
    shared: VecDeque<(u64, Bytes)>,
    /// How much was copied and dropped from `copied` again.
    copied_before: u64,
    shared_len: usize,
    /// Position of the first byte that the socket has not taken.
    position: u64,
}

impl Segments {
    /// How many bytes the socket has not taken.
    pub(crate) fn len(&self) -> usize {
        self.copied.len() - self.taken + self.shared_len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Position of the first byte that the socket has not taken.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Position behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.len() as u64
    }

    /// Append to this what is to be copied; do nothing else with it.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.taken > KEEP && self.taken > self.copied.len() / 2 {
            self.copied.drain(..self.taken);
            self.copied_before += self.taken as u64;
            self.taken = 0;
        }
        &mut self.copied
    }

    /// Appends `bytes` without copying them.
    pub(crate) fn share(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.shared_len += bytes.len();
        self.shared.push_back((self.copied_before + self.copied.len() as u64, bytes));
    }

    /// Offers the head of the stream in order; tells how many slices were set.
    pub(crate) fn fill<'a>(&'a self, slices: &mut [&'a [u8]]) -> usize {
        let mut from = self.taken;
        let mut filled = 0;
        let mut room = slices.iter_mut();
        let mut put = |slice: &'a [u8]| {
            if slice.is_empty() {
                return true;
            }
            match room.next() {
                Some(place) => {
                    *place = slice;
                    filled += 1;
                    true
                }
                None => false,
            }
        };
        for (at, bytes) in &self.shared {
            let to = usize::try_from(at.saturating_sub(self.copied_before)).unwrap_or(usize::MAX);
            if !put(self.copied.get(from..to).unwrap_or_default()) || !put(bytes) {
                return filled;
            }
            from = to;
        }
        put(self.copied.get(from..).unwrap_or_default());
        filled
    }

    /// The socket took `n` bytes; more than there are counts as all.
    pub(crate) fn consume(&mut self, n: usize) {
        let mut n = n.min(self.len());
        self.position += n as u64;
        while n > 0 {
            let until = match self.shared.front() {
                Some((at, _)) => usize::try_from(at.saturating_sub(self.copied_before)).unwrap_or(usize::MAX),
                None => self.copied.len(),
            };
            let copied = until.saturating_sub(self.taken).min(n);
            self.taken += copied;
            n -= copied;
            if n == 0 {
                break;
            }
            let Some((_, bytes)) = self.shared.front_mut() else { break };
            let part = bytes.len().min(n);
            bytes::Buf::advance(bytes, part);
            self.shared_len -= part;
            n -= part;
            if bytes.is_empty() {
                self.shared.pop_front();
            }
        }
        if self.is_empty() {
            self.copied_before += self.copied.len() as u64;
            self.taken = 0;
            if self.copied.capacity() > KEEP {
                self.copied = Vec::new();
            } else {
                self.copied.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(segments: &Segments) -> Vec<u8> {
        let mut slices = [&[][..]; 8];
        let n = segments.fill(&mut slices);
        slices[..n].concat()
    }

    #[test]
    fn any_way_of_taking_gives_the_same_stream() {
        for step in 1..12 {
            let mut segments = Segments::default();
            segments.tail().extend_from_slice(b"head");
            segments.share(Bytes::from_static(b"SHARED"));
            segments.share(Bytes::from_static(b"TWICE"));
            segments.tail().extend_from_slice(b"tail");
            assert_eq!(all(&segments), b"headSHAREDTWICEtail");
            let mut taken = Vec::new();
            while !segments.is_empty() {
                let rest = all(&segments);
                taken.extend_from_slice(&rest[..step.min(rest.len())]);
                segments.consume(step);
                assert_eq!(segments.position(), taken.len() as u64);
            }
            assert_eq!(taken, b"headSHAREDTWICEtail");
            segments.tail().extend_from_slice(b"again");
            assert_eq!(all(&segments), b"again");
        }
    }

    #[test]
    fn offers_no_more_slices_than_there_is_room_for() {
        let mut segments = Segments::default();
        segments.tail().extend_from_slice(b"a");
        segments.share(Bytes::from_static(b"b"));
        let mut one = [&[][..]];
        assert_eq!(segments.fill(&mut one), 1);
        assert_eq!(one[0], b"a");
        assert_eq!(segments.fill(&mut []), 0);
    }
}
