//! The broker machine. THIS IS A STUB of the public interface; the real one replaces this file.
mod config;
mod output;

pub use config::{AskFor, BrokerConfig, ConfigError, Overflow, RefusedFilter31};
pub use output::{
    Answer, Ask, Closed, ConnectionId, DropReason, Event, Grant, LocalId, Output, Peer, Question, QuestionId,
    ReadStatus,
};

use crate::{Message, PublishError, ShardId, ShardMessage, StoreSeq, Timestamp};
use mqtt_proto::{ReasonCode, SubscriptionOptions};

/// Figures of a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Open connections.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages held, and their bytes.
    pub messages: usize,
    /// Bytes of the messages held.
    pub message_bytes: usize,
    /// PUBLISH packets received.
    pub received: u64,
    /// PUBLISH packets put into outboxes.
    pub sent: u64,
    /// Deliveries dropped.
    pub dropped: u64,
}

/// The machine.
#[derive(Debug)]
pub struct Broker {}

/// Bytes for one connection.
pub struct Outbox<'a> {
    bytes: &'a [u8],
    not_send: core::marker::PhantomData<*const ()>,
}

impl<'a> Outbox<'a> {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    /// How many bytes are to be written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    /// Puts the bytes to write into `slices`, front first, and tells how many slices it used.
    pub fn fill_slices<'s>(&'s self, slices: &mut [&'s [u8]]) -> usize {
        if let Some(first) = slices.first_mut() {
            *first = self.bytes;
            1
        } else {
            0
        }
    }
    /// The socket took the first `n` bytes. What it did not take is offered again next time.
    pub fn consume(self, n: usize) {
        let _ = n;
    }
}

impl Broker {
    pub fn new(config: BrokerConfig, now: Timestamp) -> Result<Self, ConfigError> {
        config.check()?;
        let _ = now;
        Ok(Self {})
    }
    // inputs
    pub fn handle_accept(&mut self, now: Timestamp) -> ConnectionId {
        let _ = now;
        ConnectionId { index: 0, generation: 0 }
    }
    pub fn handle_identified(&mut self, now: Timestamp, conn: ConnectionId, peer: Peer) {
        let _ = (now, conn, peer);
    }
    pub fn handle_read(&mut self, now: Timestamp, conn: ConnectionId, data: &[u8]) -> ReadStatus {
        let _ = (now, conn, data);
        ReadStatus::Ready
    }
    pub fn handle_close(&mut self, now: Timestamp, conn: ConnectionId, why: Closed) {
        let _ = (now, conn, why);
    }
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let _ = now;
    }
    pub fn handle_answer(&mut self, now: Timestamp, id: QuestionId, answer: Answer) {
        let _ = (now, id, answer);
    }
    pub fn handle_stored(&mut self, now: Timestamp, through: StoreSeq) {
        let _ = (now, through);
    }
    pub fn handle_store_failed(&mut self, now: Timestamp, from: StoreSeq) {
        let _ = (now, from);
    }
    pub fn handle_shard(&mut self, now: Timestamp, from: ShardId, message: ShardMessage) {
        let _ = (now, from, message);
    }
    pub fn handle_wall_clock(&mut self, now: Timestamp, unix_ms: u64) {
        let _ = (now, unix_ms);
    }
    // commands
    /// Publishes for the program itself; tells how many deliveries it made.
    pub fn publish(&mut self, now: Timestamp, message: Message) -> Result<usize, PublishError> {
        let _ = (now, message);
        Ok(0)
    }
    /// Subscribes for the program itself; messages come as Event::Message.
    pub fn subscribe(
        &mut self,
        now: Timestamp,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<LocalId, mqtt_proto::EncodeError> {
        let _ = (now, filter, options);
        Ok(LocalId(0))
    }
    pub fn unsubscribe(&mut self, now: Timestamp, id: LocalId) -> bool {
        let _ = (now, id);
        false
    }
    /// Closes the connection of a client.
    pub fn disconnect(&mut self, now: Timestamp, client_id: &str, reason: ReasonCode) -> bool {
        let _ = (now, client_id, reason);
        false
    }
    /// Refuses new connections, tells each client (0x8B) and hangs up after flush.
    pub fn shutdown(&mut self, now: Timestamp) {
        let _ = now;
    }
    // getters
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
    // outputs
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
    /// Builds up to about `max` bytes (one packet may go over) for the connection.
    pub fn outbox(&mut self, now: Timestamp, conn: ConnectionId, max: usize) -> Outbox<'_> {
        let _ = (now, conn, max);
        Outbox { bytes: &[], not_send: core::marker::PhantomData }
    }
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}
