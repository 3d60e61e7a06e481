//! What lies between a socket's bytes and MQTT's.
//!
//! A stack holds no socket. The shard passes it what the socket gave and takes from it what the
//! machine is to read; it passes it what the machine has to say and takes from it what the socket is
//! to write. So layers (PROXY, TLS, WebSocket) can be put in without an adapter noticing: an adapter
//! only makes stacks and hands them over.

use std::io::IoSlice;

/// The layers of one connection. A plain one has none, occupies nothing and copies nothing.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Stack {}

impl Stack {
    /// A plain connection: the socket carries MQTT itself.
    #[must_use]
    pub const fn plain() -> Self {
        Self {}
    }

    /// The socket gave `wire`. What it holds for MQTT comes from [`Plain::next`], piece by piece.
    #[inline]
    pub(crate) fn handle_wire<'a>(&'a mut self, wire: &'a [u8]) -> Plain<'a> {
        Plain { wire: Some(wire) }
    }

    /// How many bytes of MQTT may be given to [`Stack::write_plain`]: none while too much of what
    /// was given before waits for the socket, so that messages wait in the machine, where they can
    /// still expire, and not here.
    #[inline]
    pub(crate) const fn room(&self) -> usize {
        usize::MAX
    }

    /// Turns bytes of MQTT into bytes for the socket.
    #[inline]
    pub(crate) const fn write_plain<'a>(&'a mut self, plain: &'a [IoSlice<'a>]) -> WireOut<'a> {
        WireOut { slices: plain }
    }
}

/// Bytes of MQTT that arrived.
pub(crate) struct Plain<'a> {
    wire: Option<&'a [u8]>,
}

impl Plain<'_> {
    /// The next piece.
    #[inline]
    pub(crate) const fn next(&mut self) -> Option<&[u8]> {
        self.wire.take()
    }
}

/// Bytes for the socket.
pub(crate) struct WireOut<'a> {
    slices: &'a [IoSlice<'a>],
}

impl WireOut<'_> {
    /// What to write.
    #[inline]
    pub(crate) const fn slices(&self) -> &[IoSlice<'_>] {
        self.slices
    }

    /// The socket took the first `n` bytes. Tells how many bytes of MQTT are thereby done with: they
    /// need not be given again.
    #[inline]
    pub(crate) const fn consume(self, n: usize) -> usize {
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_stack_passes_bytes_through_and_costs_nothing() {
        let mut stack = Stack::plain();
        assert_eq!(size_of::<Stack>(), 0);
        let bytes = [1, 2, 3];
        let mut plain = stack.handle_wire(&bytes);
        let first = plain.next().unwrap();
        assert_eq!(first.as_ptr(), bytes.as_ptr(), "nothing was copied");
        assert_eq!(first, [1, 2, 3]);
        assert!(plain.next().is_none());

        assert_eq!(stack.room(), usize::MAX);
        let out = [IoSlice::new(&bytes), IoSlice::new(&bytes)];
        let wire = stack.write_plain(&out);
        assert_eq!(wire.slices().len(), 2);
        assert_eq!(wire.consume(4), 4);
    }
}
