//! What a socket is offered, and what it took of it.
//!
//! Large bodies are not copied into the outbox: they are offered from where they are held, between the bytes that
//! stand there. What the socket does not take of them is copied then, so nothing refers to them between two calls.

use super::Broker;
use super::message::MessageKey;
use crate::Timestamp;
use crate::broker::timers::Timer;
use alloc::vec::Vec;
use core::marker::PhantomData;

/// Payloads of at least this size are not copied. Below, a copy costs less than one more piece of a write: measured,
/// see `benches/README.md`.
const NOT_COPIED: usize = 2048;
/// Bodies that one drain offers at most, each with bytes before it, and bytes behind the last.
const MOST: usize = (Outbox::MOST_SLICES - 1) / 2;

/// Whether a held payload of this size is offered from where it is.
pub(super) const fn leaves_from_where_it_is(payload: usize) -> bool {
    payload >= NOT_COPIED
}

/// Bodies that are offered from where they are.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    list: Vec<Body>,
    bytes: usize,
}

#[derive(Debug)]
struct Body {
    /// It stands before this byte of the outbox.
    at: usize,
    message: MessageKey,
}

impl Bodies {
    /// Their bytes.
    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether one write has to do with these.
    pub(super) const fn is_full(&self) -> bool {
        self.list.len() >= MOST
    }

    /// Puts the payload of a message, which is held for this, behind the `at` bytes that the outbox has.
    pub(super) fn push(&mut self, at: usize, message: MessageKey, len: usize) {
        self.list.push(Body { at, message });
        self.bytes += len;
    }
}

/// The bytes that wait for one connection's socket.
///
/// It borrows the machine and is not `Send`, so it cannot be kept across an await. Dropping it
/// without [`Outbox::consume`] means that the socket took nothing.
#[derive(Debug)]
pub struct Outbox<'a> {
    broker: &'a mut Broker,
    index: Option<u32>,
    not_send: PhantomData<*const ()>,
}

impl<'a> Outbox<'a> {
    /// How many pieces there are at most.
    pub const MOST_SLICES: usize = 64;

    pub(super) const fn new(broker: &'a mut Broker, index: Option<u32>) -> Self {
        Self { broker, index, not_send: PhantomData }
    }

    fn bytes(&self) -> &[u8] {
        let connection = self.index.and_then(|index| self.broker.connections.get(index));
        connection.and_then(|c| c.out.get(c.out_taken..)).unwrap_or_default()
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // No body without its head.
        self.bytes().is_empty()
    }

    /// How many bytes are to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes().len() + self.broker.bodies.len()
    }

    /// What is to be written, if that is one piece, as mostly.
    #[must_use]
    pub fn in_one_piece(&self) -> Option<&[u8]> {
        Some(self.bytes()).filter(|_| self.broker.bodies.list.is_empty())
    }

    /// Puts what is to be written into `slices`, front first, and tells how many of them it used: all that there are
    /// if there is room for [`Outbox::MOST_SLICES`].
    pub fn fill_slices<'s>(&'s self, slices: &mut [&'s [u8]]) -> usize {
        let mut used = 0;
        let mut put = |piece: &'s [u8]| match slices.get_mut(used) {
            Some(slice) if !piece.is_empty() => {
                *slice = piece;
                used += 1;
            }
            _ => {}
        };
        if self.broker.bodies.list.is_empty() {
            put(self.bytes());
        } else if let Some(index) = self.index {
            self.broker.pieces(index, put);
        }
        used
    }

    /// The socket took the first `n` bytes. What it did not take is offered again; wait until the
    /// socket is writable before asking for it.
    pub fn consume(self, n: usize) {
        if let Some(index) = self.index {
            self.broker.taken(index, n);
        }
    }
}

impl Drop for Outbox<'_> {
    fn drop(&mut self) {
        if let Some(index) = self.index
            && !self.broker.bodies.list.is_empty()
        {
            self.broker.copy_bodies(index);
            self.broker.note_outbox(index);
            self.broker.finish();
        }
    }
}

impl Broker {
    /// Calls `put` for each piece of the outbox, bodies included.
    fn pieces<'s>(&'s self, index: u32, mut put: impl FnMut(&'s [u8])) {
        let Some(c) = self.connections.get(index) else { return };
        let mut from = c.out_taken;
        for body in &self.bodies.list {
            put(c.out.get(from..body.at).unwrap_or_default());
            put(self.messages.get(body.message).map_or(&[], |held| held.shared().payload));
            from = body.at;
        }
        put(c.out.get(from..).unwrap_or_default());
    }

    /// Copies the bodies into the outbox, where they stay for the socket.
    fn copy_bodies(&mut self, index: u32) {
        let mut out = Vec::with_capacity(
            self.connections.get(index).map_or(0, |c| c.out_len()).saturating_add(self.bodies.bytes),
        );
        self.pieces(index, |piece| out.extend_from_slice(piece));
        if let Some(c) = self.connections.get_mut(index) {
            c.out_taken = 0;
            self.spares.put(core::mem::replace(&mut c.out, out));
        }
        self.release_bodies();
    }

    fn release_bodies(&mut self) {
        let mut list = core::mem::take(&mut self.bodies.list);
        for body in list.drain(..) {
            self.release_message(body.message);
        }
        // Its memory is used again.
        self.bodies = Bodies { list, bytes: 0 };
    }

    /// The socket took `n` bytes.
    fn taken(&mut self, index: u32, n: usize) {
        if self.bodies.list.is_empty() {
            self.took(index, n);
            return self.note_outbox(index);
        }
        let rest = self.connections.get(index).map_or(0, |c| c.out_len());
        if n >= rest + self.bodies.bytes {
            self.counters.bytes_sent += self.bodies.bytes as u64;
            self.release_bodies();
            self.took(index, rest);
        } else {
            self.copy_bodies(index);
            self.took(index, n);
        }
        self.note_outbox(index);
        // With bodies goes what the store has of them, and other shards hear of it.
        self.finish();
    }

    fn took(&mut self, index: u32, n: usize) {
        let Some(c) = self.connections.get_mut(index) else { return };
        let n = c.out_len().min(n);
        c.out_taken += n;
        self.counters.bytes_sent += n as u64;
        if c.out_len() > 0 {
            if n > 0 || c.stalled == Timestamp::MAX {
                c.stalled = self.now + self.config.write_timeout;
                let (stalled, generation) = (c.stalled, c.generation);
                if stalled < c.deadline {
                    c.deadline = stalled;
                    self.timers.at(stalled, Timer::Connection { index, generation });
                }
            }
            return;
        }
        self.counters.packets_sent += u64::from(core::mem::take(&mut c.packets));
        c.stalled = Timestamp::MAX;
        c.out_taken = 0;
        c.out.clear();
        if c.out.capacity() > 0 {
            self.spares.put(core::mem::take(&mut c.out));
        }
        if c.more {
            self.queue_flush(index);
        }
    }
}
