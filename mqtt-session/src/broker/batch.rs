//! Small messages of one input to the same sessions: encoded once, and copied into each outbox together.
//!
//! A batch is open only while the messages of one input are worked on, and is closed before anything else happens
//! that a receiver could see, so that nobody can tell it from messages delivered one by one.

use super::Broker;
use super::connection::Connection;
use super::message::{Content, MessageKey, expiry_left};
use super::router::{Matches, Origin, Receiver, SessionKey, SubscriptionIds};
use super::through::Way;
use crate::{Run, Timestamp};
use alloc::vec::Vec;
use mqtt_proto::{PublishHead, Version};

/// With fewer receivers it is not worth being copied twice.
const LEAST_RECEIVERS: usize = 3;
/// What its messages may have together.
const MOST_BYTES: usize = 16 << 10;

/// Messages that wait until the input brings no more of their kind.
#[derive(Debug, Default)]
pub(super) struct Batch {
    run: Run,
    /// The topic of the message that opened it.
    topic: Vec<u8>,
    publisher: Option<SessionKey>,
    matches: Matches,
    origin: Origin,
    encoded: [Encoded; 2],
    /// The messages as they are held for those who have to wait, by their place in the run.
    held: Vec<Option<MessageKey>>,
}

/// The packets of a batch for receivers of one protocol version.
#[derive(Debug, Default)]
struct Encoded {
    bytes: Vec<u8>,
    messages: u32,
    /// Bytes of the largest packet.
    largest: usize,
    /// Bytes of all payloads.
    payload: usize,
}

impl Batch {
    pub(super) const fn is_open(&self) -> bool {
        self.run.messages() > 0
    }

    /// Whether a message to `topic` has the receivers of this batch.
    #[inline]
    pub(super) fn is_for(&self, topic: &[u8], publisher: Option<SessionKey>) -> bool {
        self.is_open() && self.topic == topic && self.publisher == publisher
    }

    pub(super) const fn matches(&self) -> &Matches {
        &self.matches
    }

    fn has_room_for(&self, content: &Content<'_>) -> bool {
        self.run.size() + content.len() <= MOST_BYTES
    }

    /// All messages, encoded for a version.
    fn encode(&mut self, version: Version, now: Timestamp) -> &Encoded {
        let [older, v5] = &mut self.encoded;
        let encoded = if version.is_v5() { v5 } else { older };
        if encoded.messages == 0 {
            for (content, _) in self.run.iter() {
                let before = encoded.bytes.len();
                let message_expiry = expiry_left(content.expires, now);
                let head = PublishHead { message_expiry, ..PublishHead::default() };
                if content.shared.encode(version, &head, &mut encoded.bytes) {
                    encoded.messages += 1;
                    encoded.largest = encoded.largest.max(encoded.bytes.len() - before);
                    encoded.payload += content.shared.payload.len();
                }
            }
        }
        encoded
    }

    fn clear(&mut self) {
        self.run = Run::within(core::mem::take(&mut self.run).into_memory());
        self.origin = Origin::default();
        for encoded in &mut self.encoded {
            encoded.bytes.clear();
            *encoded = Encoded { bytes: core::mem::take(&mut encoded.bytes), ..Encoded::default() };
        }
    }
}

impl Encoded {
    /// Puts all packets into the outbox, unless its client takes no packet that is so large as one of them.
    fn write(&self, c: &mut Connection, sent: &mut u64, payload_sent: &mut u64) -> bool {
        if self.largest > c.max_packet as usize {
            return false;
        }
        c.out.extend_from_slice(&self.bytes);
        c.packets = c.packets.saturating_add(self.messages);
        c.sent += u64::from(self.messages);
        *sent += u64::from(self.messages);
        *payload_sent += self.payload as u64;
        true
    }
}

impl Broker {
    /// Whether [`Broker::join_batch`] has to be asked; it need not for most messages.
    #[inline]
    pub(super) const fn may_join_batch(&self, matches: &Matches) -> bool {
        self.batch.is_open() || matches.receivers.len() >= LEAST_RECEIVERS
    }

    /// Leaves a message that [goes through](Self::goes_through) to the batch that is open, if it has the same receivers, or
    /// to a new one. False if it is none for a batch; then none is open.
    pub(super) fn join_batch(
        &mut self,
        content: &Content<'_>,
        publisher: Option<SessionKey>,
        matches: &mut Matches,
        origin: &mut Origin,
    ) -> bool {
        let fits = Run::takes(content.len())
            && matches.groups.is_empty()
            && matches.receivers.len() >= LEAST_RECEIVERS;
        if self.batch.is_open() && !(fits && self.batch.matches.receivers == matches.receivers) {
            self.close_batch();
        }
        if fits && !self.batch.is_open() {
            core::mem::swap(&mut self.batch.matches, matches);
            self.batch.origin = core::mem::take(origin);
            self.batch.publisher = publisher;
            self.batch.topic.clear();
            self.batch.topic.extend_from_slice(content.shared.topic);
        }
        if fits {
            self.push_to_batch(content);
        }
        fits
    }

    /// Adds a message for the receivers of the open batch.
    pub(super) fn push_to_batch(&mut self, content: &Content<'_>) {
        self.batch.run.push(content, false);
        // As if it were delivered now.
        let receivers = u32::try_from(self.batch.matches.receivers.len()).unwrap_or(u32::MAX);
        self.budget = self.budget.saturating_sub(receivers);
        if !self.batch.has_room_for(content) {
            self.close_batch();
        }
    }

    /// What waits in the batch goes to its receivers, before anything else does.
    #[inline(always)]
    pub(super) fn close_batch(&mut self) {
        if self.batch.is_open() {
            self.deliver_batch();
        }
    }

    #[inline(never)]
    fn deliver_batch(&mut self) {
        let mut batch = core::mem::take(&mut self.batch);
        for at in 0..batch.matches.receivers.len() {
            if !self.write_batch(&mut batch, at) {
                self.deliver_each(&mut batch, at);
            }
        }
        for held in batch.held.drain(..).flatten() {
            self.release_message(held);
        }
        self.router.give_back(batch.origin, &mut batch.matches);
        batch.clear();
        self.batch = batch;
    }

    /// Writes all messages into the outbox of a receiver. False if they have to be looked at one by one.
    fn write_batch(&mut self, batch: &mut Batch, at: usize) -> bool {
        let Some(Receiver { session, ids: SubscriptionIds::None, .. }) = batch.matches.receivers.get(at)
        else {
            return false;
        };
        // Of each message.
        let size = batch.run.size() / (batch.run.messages() as usize).max(1);
        let index = match self.way_to(*session, size) {
            Way::Gone => return true,
            Way::Barred => return false,
            Way::Free(index) => index,
        };
        let Some(c) = self.connections.get_mut(index).filter(|c| c.extras.is_none()) else { return false };
        self.spares.lend(c);
        let before = c.out.len();
        let encoded = batch.encode(c.version, self.now);
        let [sent, ..] = &mut self.counters.publish_sent;
        if !encoded.write(c, sent, &mut self.counters.payload_sent) {
            return false;
        }
        self.through.note(c, before);
        if !c.flush_queued {
            self.queue_flush(index);
        }
        true
    }

    fn deliver_each(&mut self, batch: &mut Batch, at: usize) {
        let Some(receiver) = batch.matches.receivers.get(at) else { return };
        for (place, (content, _)) in batch.run.iter().enumerate() {
            if self.write_through(receiver, &content, true) {
                continue;
            }
            if batch.held.len() <= place {
                batch.held.resize(place + 1, None);
            }
            let Some(held) = batch.held.get_mut(place) else { return };
            let message = *held.get_or_insert_with(|| self.messages.hold_content(&content));
            self.enqueue_through(receiver, message);
        }
    }
}
