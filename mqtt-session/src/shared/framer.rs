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
