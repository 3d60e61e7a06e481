//! The broker machine.
//!
//! One [`Broker`] owns many connections, their sessions, the subscriptions, retained messages, wills
//! and timers. It knows no socket: an adapter tells it what happened, and obeys its outputs.

mod access;
mod answers;
mod batch;
mod close;
mod config;
mod connect;
mod connection;
mod content;
mod count;
mod deferred;
mod groups;
mod inbound;
mod inspect;
mod journal;
mod message;
mod offer;
mod outbox;
mod output;
mod queue;
mod rate;
mod read;
mod replay;
mod replays;
mod restore;
mod route;
mod router;
mod session;
mod shards;
mod shrink;
mod subscribe;
mod sys;
mod through;
mod timers;

pub use config::{AskFor, BrokerConfig, ConfigError, Overflow, RefusedFilter31};
pub use count::{Counters, Denials, Drops, Endings, Refusals};
pub use inspect::{ClientInfo, LinkInfo, Page, RetainedInfo, SubscriptionInfo, VISITS};
pub use offer::Outbox;
pub use output::{
    Answer, Ask, Closed, ConnectionId, Denied, DropReason, Event, Grant, LocalId, Output, Peer, Question,
    QuestionId, ReadStatus,
};
pub use rate::Rates;
pub use restore::{Restoration, Restore, Restored};
pub use shards::Moved;

use crate::defects::defect;
use crate::random::{IdMap, KeyedHash, PeerMap, Purpose, Random};
use crate::store::StoredClock;
use crate::{Message, PublishError, PublishErrorKind, StoreSeq, Timestamp};
use access::Acls;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use answers::Asked;
use connection::{Connection, Connections};
use deferred::Deferred;
use journal::Journal;
pub(crate) use message::Content;
use message::{Incoming, Messages};
use mqtt_proto::{EncodeError, PropertiesBuf, QoS, ReasonCode, SubscriptionOptions, TopicFilter, TopicName};
use rate::Meter;
use route::Source;
use router::{Matches, Router, SessionKey};
use session::{DueWill, Session};
use shards::Shards;
use slab::Slab;
use sys::Sys;
use timers::{Timer, Timers};

/// Timers that one call looks after at most; what is left is due at once again.
const TIMERS_PER_CALL: usize = 4096;

/// Figures of a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Open connections.
    pub connections: usize,
    /// Of these, those whose CONNECT was accepted.
    pub connected: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions, shared ones included.
    pub subscriptions: usize,
    /// Shared subscriptions.
    pub shared_subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages held, each counted once: retained, queued, or under way to a session that may have to get them again.
    pub messages: usize,
    /// Bytes of the messages held.
    pub message_bytes: usize,
    /// PUBLISH packets received.
    pub received: u64,
    /// PUBLISH packets put into outboxes.
    pub sent: u64,
    /// Deliveries dropped.
    pub dropped: u64,
    /// How often a client had to wait because it sent faster than it may: see [`Rates`].
    pub slowed: u64,
    /// Packets in outboxes that sockets did not take yet.
    pub unsent_packets: usize,
    /// Bytes in outboxes that sockets did not take yet.
    pub unsent_bytes: usize,
    /// All that is counted.
    pub counters: Counters,
}

/// An MQTT broker as a state machine.
///
/// # Order of calls
///
/// After each `handle_*` and each command, take all outputs with [`Broker::poll_output`] until it
/// gives `None`, and obey them in their order. Then, once for each connection that was named by
/// [`Output::Flush`], drain its [`Broker::outbox`]. Then sleep until [`Broker::poll_timeout`] or
/// until something happens. Calling anything too early or too often is harmless.
///
/// For each TCP connection: [`Broker::handle_accept`], [`Broker::handle_identified`], any number of
/// [`Broker::handle_read`], and exactly one [`Broker::handle_close`], also after [`Output::Hangup`].
///
/// Inputs never fail: what a peer does wrong ends that peer's connection, with the packet that the
/// standard asks for, and is told as an [`Event`].
#[derive(Debug)]
pub struct Broker {
    config: BrokerConfig,
    now: Timestamp,
    /// When what is being worked on came.
    since: Timestamp,
    hasher: KeyedHash,
    random: Random,
    connections: Connections,
    sessions: Slab<Session>,
    clients: PeerMap<Box<str>, SessionKey>,
    router: Router,
    messages: Messages,
    journal: Journal,
    timers: Timers,
    outputs: VecDeque<Output>,
    flushes: VecDeque<ConnectionId>,
    /// Connections whose input a call's budget did not reach.
    backlog: VecDeque<u32>,
    /// Connections that wait for the store, by what they wait for.
    waiting: VecDeque<(StoreSeq, ConnectionId)>,
    deferred: VecDeque<Deferred>,
    /// Retained messages that nobody may see before this much is stored.
    unstored_retained: IdMap<message::MessageKey, StoreSeq>,
    questions: IdMap<u64, Asked>,
    question_deadlines: VecDeque<(Timestamp, u64)>,
    /// Wills that are due.
    wills: VecDeque<DueWill>,
    /// Connections to be closed because of their queues.
    condemned: VecDeque<ConnectionId>,
    next_question: u64,
    next_local: u32,
    locals: IdMap<u32, SessionKey>,
    /// Deliveries that the present call may still make.
    budget: u32,
    /// Bytes kept for connections without an accepted CONNECT.
    unauthenticated: usize,
    shutting_down: bool,
    /// It took leave of everybody.
    has_left: bool,
    acls: Acls,
    /// The number of the last retained message that was set.
    retained_writes: u64,
    /// The number of the last replay.
    last_replay: u64,
    /// The wall clock as it was last told.
    wall_clock: Option<StoredClock>,
    matches: Matches,
    /// Properties of the message that is being routed.
    scratch: PropertiesBuf,
    spares: outbox::Spares,
    /// Empty but between an outbox and what the socket took of it.
    bodies: offer::Bodies,
    through: through::Through,
    batch: batch::Batch,
    /// A list that is kept for its memory.
    spare_deliveries: Vec<session::Delivery>,
    spare_groups: Vec<router::GroupKey>,
    counters: Counters,
    /// Connections whose CONNECT was accepted.
    connected: usize,
    /// Bytes and packets in outboxes.
    unsent: (usize, usize),
    sys: Sys,
    slowed: u64,
    /// What is known of the other shards, if there are any.
    shards: Option<Box<Shards>>,
}

impl Broker {
    /// A broker with nothing in it.
    ///
    /// # Errors
    /// Names the setting that cannot be.
    pub fn new(config: BrokerConfig, now: Timestamp) -> Result<Self, ConfigError> {
        config.check()?;
        let hasher = KeyedHash::new(config.seed, config.shard.0);
        let mut router = Router::new(hasher.clone());
        let shards = Shards::new(&config);
        if shards.is_some() {
            router.share_with(config.shard, config.shards, KeyedHash::of_homes(config.seed));
        }
        Ok(Self {
            shards,
            now,
            since: now,
            random: Random::new(config.seed, config.shard.0, Purpose::ClientIds),
            connections: Connections::default(),
            sessions: Slab::new(),
            clients: PeerMap::with_hasher(hasher.clone()),
            router,
            hasher,
            messages: Messages::default(),
            journal: Journal::new(&config),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            flushes: VecDeque::new(),
            backlog: VecDeque::new(),
            waiting: VecDeque::new(),
            deferred: VecDeque::new(),
            unstored_retained: IdMap::default(),
            questions: IdMap::default(),
            question_deadlines: VecDeque::new(),
            wills: VecDeque::new(),
            condemned: VecDeque::new(),
            next_question: 0,
            next_local: 0,
            locals: IdMap::default(),
            budget: 0,
            unauthenticated: 0,
            shutting_down: false,
            has_left: false,
            acls: Acls::default(),
            retained_writes: 0,
            last_replay: 0,
            wall_clock: None,
            matches: Matches::default(),
            scratch: PropertiesBuf::new(),
            spares: outbox::Spares::default(),
            bodies: offer::Bodies::default(),
            through: through::Through::default(),
            batch: batch::Batch::default(),
            spare_deliveries: Vec::new(),
            spare_groups: Vec::new(),
            counters: Counters::default(),
            connected: 0,
            unsent: (0, 0),
            sys: Sys::new(config.sys_interval, now),
            slowed: 0,
            config,
        })
    }

    /// A broker with one shard made from `records`, at `unix_ms` milliseconds since 1970; see [`Restore`].
    ///
    /// # Errors
    /// Names the setting that cannot be.
    pub fn restore(
        config: BrokerConfig,
        unix_ms: u64,
        records: impl IntoIterator<Item = crate::StoreOp>,
    ) -> Result<(Self, Restored), ConfigError> {
        let mut restore = Restore::new(BrokerConfig { shards: 1, ..config })?;
        records.into_iter().for_each(|record| restore.record(record));
        let Restoration { shards, restored, .. } = restore.finish(unix_ms);
        // There is one, and with one nothing has to be written first.
        let shard = shards.into_iter().next().ok_or(ConfigError::NO_SHARDS)?;
        Ok((shard, restored))
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// Figures of the moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.len(),
            connected: self.connected,
            sessions: self.sessions.len(),
            subscriptions: self.router.subscriptions(),
            shared_subscriptions: self.router.shared_subscriptions(),
            retained: self.router.retained(),
            messages: self.messages.len(),
            message_bytes: self.messages.bytes(),
            received: count::total(&self.counters.publish_received),
            sent: count::total(&self.counters.publish_sent),
            dropped: self.counters.dropped.total(),
            unsent_packets: self.unsent.1,
            unsent_bytes: self.unsent.0,
            counters: self.counters,
            slowed: self.slowed,
        }
    }

    /// A peer opened a connection. Its CONNECT has to be accepted within
    /// [`BrokerConfig::connect_timeout`].
    pub fn handle_accept(&mut self, now: Timestamp) -> ConnectionId {
        self.begin(now);
        self.counters.connections += 1;
        let limit = self.now + self.config.connect_timeout;
        let (index, generation) =
            self.connections.insert(|generation| Connection::new(generation, now, limit));
        self.timers.at(limit, Timer::Connection { index, generation });
        let id = ConnectionId { index, generation };
        let open = self.connections.len() + self.used_elsewhere().connections;
        if open > self.config.max_connections as usize {
            self.hang_up(index, ReasonCode::QuotaExceeded, false);
        }
        id
    }

    /// Who the peer is, before its first byte is read.
    pub fn handle_identified(&mut self, now: Timestamp, conn: ConnectionId, peer: Peer) {
        self.begin(now);
        if let Some(connection) = self.index_of(conn).and_then(|index| self.connections.get_mut(index)) {
            connection.listener = peer.listener;
            connection.meter = Meter::new(peer.rates.unwrap_or(self.config.rates), self.now).map(Box::new);
            connection.peer = Some(Box::new(peer));
        }
    }

    /// Time passed. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.begin(now);
        for _ in 0..self.backlog.len() {
            let Some(index) = self.backlog.pop_front() else { break };
            self.continue_reading(index);
        }
        for _ in 0..TIMERS_PER_CALL {
            if self.budget == 0 {
                break;
            }
            let Some(timer) = self.timers.pop(self.now) else { break };
            match timer {
                Timer::Connection { index, generation } => self.connection_due(index, generation),
                Timer::Session { key, incarnation } => self.session_due(key, incarnation),
            }
        }
        self.settle_questions();
        self.settle_sys();
        self.finish();
    }

    /// What the clock on the wall says, in milliseconds since 1970; to be told every ten seconds or
    /// so. It is needed only to tell how long a broker was down, so without a store it has no effect
    /// on anything that anybody sees. Memory that was needed once and is not any more goes back to the allocator then.
    pub fn handle_wall_clock(&mut self, now: Timestamp, unix_ms: u64) {
        self.begin(now);
        let clock = StoredClock { time: self.now, unix_ms };
        // The store is not bothered by a broker where nothing happens.
        let news = self.journal.is_on() && self.clock_is_news();
        if news {
            self.wall_clock = Some(clock);
            self.journal.op(crate::StoreOp::PutClock(clock));
        }
        self.finish();
        if news {
            self.clock_noted();
        }
        self.shrink();
    }

    /// Everything up to `through` is stored. When a store works again after a failure and nothing is
    /// to be stored, any number tells that.
    pub fn handle_stored(&mut self, now: Timestamp, through: StoreSeq) {
        self.begin(now);
        if self.journal.confirm(through) {
            self.event(Event::StoreRecovered);
        }
        self.route_deferred();
        self.stored_for_others();
        while let Some((after, conn)) = self.waiting.front()
            && *after <= self.journal.stored()
        {
            let conn = *conn;
            self.waiting.pop_front();
            if let Some(index) = self.index_of(conn) {
                self.release_held(index);
                self.queue_flush(index);
                self.continue_reading(index);
            }
        }
        self.take_leave();
        self.finish();
    }

    /// The store failed at `from`: it and all later groups are not safe. They are emitted again, for
    /// the store once it works. Until they are confirmed, what would have to be stored is refused:
    /// publishes above QoS 0 (0x97 in 5.0; below, the connection is closed), subscriptions of stored
    /// sessions (0x97), and connections with a session or a will to store (0x88). QoS 0 goes on.
    pub fn handle_store_failed(&mut self, now: Timestamp, from: StoreSeq) {
        self.begin(now);
        if self.journal.fail(from, &mut self.outputs) {
            self.event(Event::StoreFailed);
        }
        self.take_leave();
        self.finish();
    }

    /// The adapter's answer to an [`Output::Ask`]. Answers to questions that are no longer open are
    /// ignored.
    pub fn handle_answer(&mut self, now: Timestamp, id: QuestionId, answer: Answer) {
        self.begin(now);
        self.answered(id.0, answer);
        self.finish();
    }

    /// Publishes for the program that the broker is part of, and tells how many sessions and groups
    /// the message matched. Authorisation is not asked.
    ///
    /// # Errors
    /// Hands the message back if it breaks a rule or the message memory is full.
    pub fn publish(&mut self, now: Timestamp, message: Message) -> Result<usize, PublishError> {
        self.begin(now);
        let properties = message.properties.as_properties();
        let invalid = match TopicName::new(&message.topic) {
            Err(error) => Some(error.violation()),
            Ok(_) => mqtt_proto::PublishRef { topic: &message.topic, properties, ..Default::default() }
                .encode(mqtt_proto::Version::V5, &mut Vec::new())
                .err()
                .map(|error| error.violation()),
        };
        if let Some(violation) = invalid {
            return Err(PublishError::new(PublishErrorKind::Invalid(violation), message));
        }
        if !self.has_memory_for(0) {
            return Err(PublishError::new(PublishErrorKind::QueueFull, message));
        }
        let incoming = Incoming {
            topic: message.topic.as_bytes(),
            properties,
            payload: &message.payload,
            qos: message.qos,
            retain: message.retain,
        };
        let key = self.messages.insert(self.now, &incoming);
        let routed = self.route(key, Source::default());
        self.release_message(key);
        self.finish();
        Ok(routed.matched)
    }

    /// Subscribes for the program that the broker is part of. Messages come as [`Event::Message`]. With several
    /// shards, [`Event::InForce`] tells that from now on it hears of all messages.
    ///
    /// # Errors
    /// Names the rule if `filter` is no topic filter.
    pub fn subscribe(
        &mut self,
        now: Timestamp,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<LocalId, EncodeError> {
        self.begin(now);
        let filter = TopicFilter::new(filter)?;
        let id = LocalId(self.next_local);
        self.next_local += 1;
        let mut session = Session::new("", self.journal.new_session());
        session.local = Some(id);
        let key = SessionKey::try_from(self.sessions.insert(session)).unwrap_or(SessionKey::MAX);
        self.locals.insert(id.0, key);
        let added = self.router.subscribe(key, filter, options, None);
        self.open_join(filter.as_str());
        self.open_local(id);
        self.replay_retained(key, filter, options, None, added);
        self.finish();
        Ok(id)
    }

    /// Ends a subscription of [`Broker::subscribe`]. False if there is none.
    pub fn unsubscribe(&mut self, now: Timestamp, id: LocalId) -> bool {
        self.begin(now);
        let Some(key) = self.locals.remove(&id.0) else { return false };
        self.end_session(key);
        self.finish();
        true
    }

    /// Closes the connection of a client, telling it why (5.0). False if it has none.
    pub fn disconnect(&mut self, now: Timestamp, client_id: &str, reason: ReasonCode) -> bool {
        self.begin(now);
        let session = self.clients.get(client_id).and_then(|&key| self.sessions.get(key as usize));
        let Some(link) = session.and_then(|session| session.link) else { return false };
        self.hang_up(link, reason, true);
        self.finish();
        true
    }

    /// Refuses new connections and reads nothing more from now on; once everything is stored and
    /// acknowledged, tells each client why (5.0: 0x8B) and hangs up. Wills are published by their
    /// rules, or, with a store, after the restart.
    pub fn shutdown(&mut self, now: Timestamp) {
        self.begin(now);
        self.shutting_down = true;
        self.take_leave();
        self.finish();
    }

    /// Whether [`Broker::shutdown`] was called and there is nothing to wait for but that connections close.
    #[must_use]
    pub const fn has_left(&self) -> bool {
        self.has_left
    }

    /// Hangs up on everybody if the broker is shutting down and waits for nothing.
    fn take_leave(&mut self) {
        let has_failed = self.journal.has_failed();
        if !self.shutting_down
            || !self.journal.is_settled()
            || !(self.is_cared_for() || has_failed)
            || !self.all_shards_leave()
        {
            return;
        }
        self.has_left = true;
        for index in self.connections.indices() {
            self.hang_up(index, ReasonCode::ServerShuttingDown, true);
        }
    }

    /// The next thing to do; `None` when there is nothing more. Call it after each `handle_*` and
    /// each command.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        self.flushes.pop_front().map(Output::Flush)
    }

    /// When [`Broker::handle_timeout`] is to be called next. It may change with every call of
    /// anything else.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if !self.backlog.is_empty() {
            return Some(self.now);
        }
        // What one call did not get to is due now.
        let sys = Some(self.sys.due).filter(|due| *due != Timestamp::MAX);
        let next = [self.timers.next(), self.next_question_deadline(), sys].into_iter().flatten().min();
        next.map(|due| due.max(self.now))
    }

    /// Each input begins here.
    fn begin(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.since = self.now;
        self.budget = self.config.work_budget;
    }

    /// Each input ends here.
    fn finish(&mut self) {
        self.close_batch();
        while !(self.wills.is_empty() && self.condemned.is_empty()) {
            self.publish_wills();
            if let Some(conn) = self.condemned.pop_front()
                && let Some(index) = self.index_of(conn)
            {
                self.hang_up(index, ReasonCode::QuotaExceeded, true);
            }
        }
        self.finish_shards();
        self.journal.commit(&mut self.outputs);
    }

    /// The place of a connection, if it is still open.
    fn index_of(&self, conn: ConnectionId) -> Option<u32> {
        let connection = self.connections.get(conn.index)?;
        (connection.generation == conn.generation).then_some(conn.index)
    }

    fn id_of(&self, index: u32) -> ConnectionId {
        let generation = self.connections.get(index).map_or(0, |c| c.generation);
        ConnectionId { index, generation }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(Box::new(event)));
    }

    /// Has the adapter drain the connection's outbox.
    fn queue_flush(&mut self, index: u32) {
        if let Some(connection) = self.connections.get_mut(index)
            && !connection.flush_queued
            && !connection.gone
        {
            connection.flush_queued = true;
            let generation = connection.generation;
            self.flushes.push_back(ConnectionId { index, generation });
        }
    }

    /// One holder of a message less.
    fn release_message(&mut self, key: message::MessageKey) {
        if let Some(stored) = self.messages.release(key) {
            self.journal.op(crate::StoreOp::DeleteMessage(stored));
        }
    }
}

/// Delivery QoS: the lesser of published and granted ([MQTT-3.8.4-8]; [MQTT-3.8.4-6] of 3.1.1).
fn delivery_qos(published: QoS, granted: QoS) -> QoS {
    if defect!(QosAsPublished) {
        return published;
    }
    published.min(granted)
}
