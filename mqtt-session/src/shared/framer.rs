use alloc::vec::Vec;
use mqtt_proto::{DecodeError, Frame, MAX_PACKET_SIZE, frame_header};

/// Keeps the bytes of a packet that is not complete. What is complete is never copied: it is taken
/// straight from what the socket gave.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    kept: Vec<u8>,
}

/// Above this a buffer is given back as soon as it is empty.
const KEEP: usize = 256;

impl Framer {
    /// What was kept, and how many bytes of `data` were put behind it: as many as the packet that was
    /// cut still lacks, so that what follows is worked on where it is. `None` if nothing was kept.
    /// Hand the buffer back to [`Framer::put_back`].
    pub(crate) fn take(&mut self, data: &[u8]) -> Option<(Vec<u8>, usize)> {
        if self.kept.is_empty() {
            return None;
        }
        let mut buffer = core::mem::take(&mut self.kept);
        let mut taken = 0;
        loop {
            let lacks = match frame_header(&buffer, MAX_PACKET_SIZE) {
                Ok(Frame::Incomplete { at_least }) => at_least.saturating_sub(buffer.len()),
                Ok(Frame::Header { total, .. }) => total.saturating_sub(buffer.len()),
                // Whoever splits it will find out.
                Err(_) => 0,
            };
            let rest = data.get(taken..).unwrap_or_default();
            let more = rest.get(..lacks).unwrap_or(rest);
            if more.is_empty() {
                return Some((buffer, taken));
            }
            buffer.extend_from_slice(more);
            taken += more.len();
        }
    }

    /// Keeps what is behind the first `used` bytes of the buffer, and `rest` behind that.
    pub(crate) fn put_back(&mut self, buffer: Option<Vec<u8>>, used: usize, rest: &[u8]) {
        let mut buffer = buffer.unwrap_or_default();
        buffer.drain(..used.min(buffer.len()));
        buffer.extend_from_slice(rest);
        if buffer.is_empty() && buffer.capacity() > KEEP {
            buffer = Vec::new();
        }
        self.kept = buffer;
    }

    /// How many bytes are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn clear(&mut self) {
        self.kept = Vec::new();
    }

    /// The packet at the head of `bytes`, once it is complete.
    #[inline]
    pub(crate) fn split(bytes: &[u8], max: u32) -> Result<Option<&[u8]>, DecodeError> {
        match frame_header(bytes, max)? {
            Frame::Header { total, .. } => Ok(bytes.get(..total)),
            Frame::Incomplete { .. } => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_packet_that_was_cut_is_copied() {
        let stream: Vec<u8> = (0..50u8).flat_map(|n| [0x30, 5, 0, 1, b't', n, n]).collect();
        for cut in 1..40 {
            let mut framer = Framer::default();
            let mut seen = 0u8;
            for data in stream.chunks(cut) {
                let taken = framer.take(data);
                let (buffer, n) = taken.map_or((None, 0), |(buffer, n)| (Some(buffer), n));
                let mut used = 0;
                if let Some(buffer) = &buffer {
                    assert!(buffer.len() <= 7);
                    if let Some(packet) = Framer::split(buffer, 100).unwrap() {
                        assert_eq!(packet[5], seen);
                        seen += 1;
                        used = packet.len();
                    }
                }
                let mut rest = &data[n..];
                if used == buffer.as_ref().map_or(0, Vec::len) {
                    while let Some(packet) = Framer::split(rest, 100).unwrap() {
                        assert_eq!(packet[5], seen);
                        seen += 1;
                        rest = &rest[packet.len()..];
                    }
                }
                framer.put_back(buffer, used, rest);
            }
            assert_eq!((seen, framer.len()), (50, 0));
        }
    }
}
