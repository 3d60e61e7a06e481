//! The broker's machine, seen by a shard: the same methods, and each input goes into the trace, if there
//! is one.

use super::{Input, Recorder};
use mqtt_proto::{EncodeError, ReasonCode, SubscriptionOptions};
use mqtt_session::acl::Acl;
use mqtt_session::broker::{
    Answer, Closed, ConnectionId, LocalId, Moved, Outbox, Output, Peer, QuestionId, ReadStatus, Stats,
};
use mqtt_session::{Broker, Message, PublishError, ShardId, ShardMessage, StoreSeq, Timestamp};
use std::fmt::Debug;
use std::sync::Arc;

/// Who is told what happens to a machine and what it gives.
pub(super) trait Trace {
    /// Something happens. Outputs and notes that follow are its.
    fn input(&mut self, now: Timestamp, input: Input);
    /// Bytes arrive.
    fn read(&mut self, now: Timestamp, conn: ConnectionId, bytes: &[u8]);
    /// What came of it.
    fn output(&mut self, output: &Output);
    /// What the call returned.
    fn note(&mut self, value: &dyn Debug);
    /// A socket took these.
    fn sent(&mut self, conn: ConnectionId, bytes: &[u8]);
    /// All that came of what happened was taken.
    fn settled(&mut self) {}
}

/// It gives no access to the broker itself: what is done to it has to be recorded.
pub(crate) struct Machine {
    broker: Broker,
    trace: Option<Box<dyn Trace>>,
}

impl Machine {
    pub(crate) fn new(broker: Broker, trace: Option<Recorder>) -> Self {
        Self { broker, trace: trace.map(|trace| Box::new(trace) as _) }
    }

    pub(super) fn watched(broker: Broker, trace: impl Trace + 'static) -> Self {
        Self { broker, trace: Some(Box::new(trace)) }
    }

    #[inline]
    fn record(&mut self, now: Timestamp, input: impl FnOnce() -> Input) {
        if let Some(trace) = &mut self.trace {
            trace.input(now, input());
        }
    }

    #[inline]
    fn note(&mut self, value: &dyn Debug) {
        if let Some(trace) = &mut self.trace {
            trace.note(value);
        }
    }

    pub(crate) fn handle_accept(&mut self, now: Timestamp) -> ConnectionId {
        self.record(now, || Input::Accept);
        let conn = self.broker.handle_accept(now);
        self.note(&conn);
        conn
    }

    pub(crate) fn handle_identified(&mut self, now: Timestamp, conn: ConnectionId, peer: Peer) {
        self.record(now, || Input::Identified(conn, peer.clone()));
        self.broker.handle_identified(now, conn, peer);
    }

    #[inline]
    pub(crate) fn handle_read(&mut self, now: Timestamp, conn: ConnectionId, data: &[u8]) -> ReadStatus {
        if let Some(trace) = &mut self.trace {
            trace.read(now, conn, data);
        }
        let status = self.broker.handle_read(now, conn, data);
        self.note(&status);
        status
    }

    pub(crate) fn handle_close(&mut self, now: Timestamp, conn: ConnectionId, why: Closed) {
        self.record(now, || Input::Close(conn, why));
        self.broker.handle_close(now, conn, why);
    }

    // What goes on between shards is not recorded: a trace is of a broker with one shard.

    pub(crate) fn handle_shard(&mut self, now: Timestamp, from: ShardId, message: ShardMessage) {
        self.broker.handle_shard(now, from, message);
    }

    pub(crate) fn handle_shard_lost(&mut self, now: Timestamp, lost: ShardId) {
        self.broker.handle_shard_lost(now, lost);
    }

    pub(crate) const fn has_left(&self) -> bool {
        self.broker.has_left()
    }

    pub(crate) fn take_moving(&mut self, now: Timestamp, conn: ConnectionId) -> Option<Moved> {
        self.broker.take_moving(now, conn)
    }

    pub(crate) fn handle_moved(&mut self, now: Timestamp, moved: Moved) -> ConnectionId {
        self.broker.handle_moved(now, moved)
    }

    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        self.record(now, || Input::Timeout);
        self.broker.handle_timeout(now);
    }

    pub(crate) fn handle_wall_clock(&mut self, now: Timestamp, unix_ms: u64) {
        self.record(now, || Input::WallClock(unix_ms));
        self.broker.handle_wall_clock(now, unix_ms);
    }

    pub(crate) fn handle_stored(&mut self, now: Timestamp, through: StoreSeq) {
        self.record(now, || Input::Stored(through));
        self.broker.handle_stored(now, through);
    }

    pub(crate) fn handle_store_failed(&mut self, now: Timestamp, from: StoreSeq) {
        self.record(now, || Input::StoreFailed(from));
        self.broker.handle_store_failed(now, from);
    }

    pub(crate) fn handle_answer(&mut self, now: Timestamp, id: QuestionId, answer: Answer) {
        self.record(now, || Input::Answer(id, answer.clone()));
        self.broker.handle_answer(now, id, answer);
    }

    pub(crate) fn publish(&mut self, now: Timestamp, message: Message) -> Result<usize, PublishError> {
        let traced = self.trace.as_ref().map(|_| message.clone());
        let result = self.broker.publish(now, message);
        // What is refused changes nothing.
        if let (Some(message), Ok(_)) = (traced, &result) {
            self.record(now, || Input::Publish(message));
            self.note(&result);
        }
        result
    }

    pub(crate) fn subscribe(
        &mut self,
        now: Timestamp,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<LocalId, EncodeError> {
        self.record(now, || Input::Subscribe(filter.to_owned(), options));
        let result = self.broker.subscribe(now, filter, options);
        self.note(&result);
        result
    }

    pub(crate) fn unsubscribe(&mut self, now: Timestamp, id: LocalId) {
        self.record(now, || Input::Unsubscribe(id));
        self.broker.unsubscribe(now, id);
    }

    pub(crate) fn disconnect(&mut self, now: Timestamp, client_id: &str, reason: ReasonCode) -> bool {
        self.record(now, || Input::Disconnect(client_id.to_owned(), reason));
        let found = self.broker.disconnect(now, client_id, reason);
        self.note(&found);
        found
    }

    pub(crate) fn disconnect_user(
        &mut self,
        now: Timestamp,
        user_name: Option<&str>,
        reason: ReasonCode,
    ) -> usize {
        self.record(now, || Input::DisconnectUser(user_name.map(str::to_owned), reason));
        let count = self.broker.disconnect_user(now, user_name, reason);
        self.note(&count);
        count
    }

    pub(crate) fn remove_session(&mut self, now: Timestamp, client_id: &str) -> bool {
        self.record(now, || Input::RemoveSession(client_id.to_owned()));
        let found = self.broker.remove_session(now, client_id);
        self.note(&found);
        found
    }

    pub(crate) fn remove_retained(&mut self, now: Timestamp, topic: &str) -> bool {
        self.record(now, || Input::RemoveRetained(topic.to_owned()));
        let found = self.broker.remove_retained(now, topic);
        self.note(&found);
        found
    }

    pub(crate) fn handle_memory(&mut self, now: Timestamp, bytes: u64) {
        self.record(now, || Input::Memory(bytes));
        self.broker.handle_memory(now, bytes);
    }

    /// It is not recorded, since it changes nothing.
    pub(crate) const fn look(&self) -> &Broker {
        &self.broker
    }

    pub(crate) fn set_acls(&mut self, now: Timestamp, acls: Vec<Arc<Acl>>) {
        self.record(now, || Input::SetAcls(acls.clone()));
        self.broker.set_acls(now, acls);
    }

    pub(crate) fn shutdown(&mut self, now: Timestamp) {
        self.record(now, || Input::Shutdown);
        self.broker.shutdown(now);
    }

    #[inline]
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        let output = self.broker.poll_output()?;
        if let Some(trace) = &mut self.trace {
            trace.output(&output);
        }
        Some(output)
    }

    /// A turn is over, and every output was taken.
    #[inline]
    pub(crate) fn settled(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.settled();
        }
    }

    #[inline]
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.broker.poll_timeout()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.broker.stats()
    }

    #[inline]
    pub(crate) fn outbox(&mut self, now: Timestamp, conn: ConnectionId, max: usize) -> Drain<'_> {
        let outbox = self.broker.outbox(now, conn, max);
        let trace = self.trace.as_deref_mut();
        Drain { outbox, trace: trace.map(|trace| Draining { trace, now, conn, max, recorded: false }) }
    }
}

/// The broker's outbox. Whether it is drained or dropped, the trace is told: to look at it is an input.
pub(crate) struct Drain<'a> {
    outbox: Outbox<'a>,
    trace: Option<Draining<'a>>,
}

impl Drain<'_> {
    pub(crate) fn len(&self) -> usize {
        self.outbox.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    #[inline]
    pub(crate) fn in_one_piece(&self) -> Option<&[u8]> {
        self.outbox.in_one_piece()
    }

    #[inline]
    pub(crate) fn fill_slices<'s>(&'s self, slices: &mut [&'s [u8]]) -> usize {
        self.outbox.fill_slices(slices)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut slices = [&[][..]; Outbox::MOST_SLICES];
        let used = self.fill_slices(&mut slices);
        slices.get(..used).unwrap_or_default().concat()
    }

    #[inline]
    pub(crate) fn consume(mut self, n: usize) {
        if let Some(mut draining) = self.trace.take() {
            let bytes = self.bytes();
            draining.record(Some(n));
            draining.trace.note(&bytes.len());
            draining.trace.sent(draining.conn, bytes.get(..n).unwrap_or(&bytes));
        }
        self.outbox.consume(n);
    }
}

struct Draining<'a> {
    trace: &'a mut (dyn Trace + 'static),
    now: Timestamp,
    conn: ConnectionId,
    max: usize,
    recorded: bool,
}

impl Draining<'_> {
    fn record(&mut self, taken: Option<usize>) {
        let Self { now, conn, max, .. } = *self;
        self.trace.input(now, Input::Outbox { conn, max, taken });
        self.recorded = true;
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            self.record(None);
        }
    }
}
