use alloc::vec::Vec;
use mqtt_proto::{DecodeError, Frame, frame_header};

/// Keeps the bytes of a packet that is not complete. What is complete is never copied: it is taken
/// straight from what the socket gave.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    kept: Vec<u8>,
}

/// Above this a buffer is given back as soon as it is empty.
const KEEP: usize = 256;

impl Framer {
    /// The bytes to work on: what was kept, and `data` behind it. Hand the buffer back to
    /// [`Framer::put_back`].
    pub(crate) fn take(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        if self.kept.is_empty() {
            return None;
        }
        let mut buffer = core::mem::take(&mut self.kept);
        buffer.extend_from_slice(data);
        Some(buffer)
    }

    /// Keeps what is behind the first `used` bytes.
    pub(crate) fn put_back(&mut self, buffer: Option<Vec<u8>>, data: &[u8], used: usize) {
        match buffer {
            Some(mut buffer) => {
                buffer.drain(..used.min(buffer.len()));
                if buffer.is_empty() && buffer.capacity() > KEEP {
                    buffer = Vec::new();
                }
                self.kept = buffer;
            }
            None => {
                if let Some(rest @ [_, ..]) = data.get(used..) {
                    self.kept.extend_from_slice(rest);
                }
            }
        }
    }

    /// Whether no packet is cut: [`Framer::complete`] has nothing to complete.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Completes the packet that was cut with the head of `data`, which is taken off it. The packet,
    /// once it is complete; give its buffer to [`Framer::recycle`]. Copies nothing that is behind it.
    pub(crate) fn complete(&mut self, data: &mut &[u8], max: u32) -> Result<Option<Vec<u8>>, DecodeError> {
        loop {
            let wanted = match frame_header(&self.kept, max)? {
                Frame::Header { total, .. } if total == self.kept.len() => {
                    return Ok(Some(core::mem::take(&mut self.kept)));
                }
                Frame::Header { total, .. } => total,
                Frame::Incomplete { at_least } => at_least,
            };
            // What is kept is never more than the packet.
            let missing = wanted.saturating_sub(self.kept.len()).min(data.len());
            let Some((head, tail)) = data.split_at_checked(missing) else { return Ok(None) };
            if head.is_empty() {
                return Ok(None);
            }
            self.kept.extend_from_slice(head);
            *data = tail;
        }
    }

    /// Takes the buffer of a packet back.
    pub(crate) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.kept.capacity() == 0 && buffer.capacity() <= KEEP {
            buffer.clear();
            self.kept = buffer;
        }
    }

    /// Keeps the head of a packet that is cut. Nothing may be kept already.
    pub(crate) fn keep(&mut self, head: &[u8]) {
        self.kept.extend_from_slice(head);
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
