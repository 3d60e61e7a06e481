//! From what is stored to a broker.
//!
//! Everything is rebuilt before the first connection is accepted, and sessions are routable at once.
//! What refers to nothing (a store that was damaged, or that still sweeps what was deleted) is dropped,
//! counted, and deleted from the store.

use super::message::MessageKey;
use super::router::{GroupKey, SessionKey, SubscriptionIds};
use super::session::{Delivery, Replay, Session, Will};
use super::sys::is_own;
use super::{Broker, BrokerConfig, ConfigError};
use crate::defects::defect;
use crate::random::IdMap;
use crate::shared::ledger::Stage;
use crate::shared::received::Receipt;
use crate::store::{
    EntryId, MessageId, SessionId, StoredClock, StoredDelivery, StoredLimits, StoredMessage, StoredSession,
    StoredStage, StoredWill,
};
use crate::{StoreOp, Timestamp};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use mqtt_proto::{PacketId, QoS, TopicFilter, TopicName};

/// A restart keeps this distance from the last packet identifier that it knows of, so that a late
/// acknowledgement hits nothing that is sent now.
const DISTANCE: u16 = 32_767;
/// Between wills that are due at the start, so that they do not come all at once.
const PACE: Duration = Duration::from_millis(1);
/// Operations that the restart makes itself go in groups of about this many.
const GROUP: usize = 1_000;

/// What a broker was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The machine's time: it continues over restarts. Clocks of the adapter have to go on from here.
    pub now: Timestamp,
    /// Sessions.
    pub sessions: usize,
    /// Their subscriptions, shared ones included.
    pub subscriptions: usize,
    /// Messages, each counted once.
    pub messages: usize,
    /// Retained messages.
    pub retained: usize,
    /// Wills that are going to be published unless their clients return in time.
    pub wills: usize,
    /// Records that referred to nothing or made no sense, and were dropped.
    pub dropped: usize,
}

/// Who has a queue in the store.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Session(SessionKey),
    Group(GroupKey),
}

/// An exchange whose place among the others is not settled yet.
#[derive(Debug)]
struct Begun {
    session: SessionKey,
    number: u64,
    packet_id: PacketId,
    qos: QoS,
    stage: Stage,
    entry: EntryId,
    delivery: Option<Delivery>,
}

/// Whether a Subscription Identifier can be sent.
const fn is_subscription_id(id: u32) -> bool {
    id != 0 && id < 1 << 28
}

/// Makes a [`Broker`] from what is stored.
///
/// Give it every record that the store has, in the order that
/// [`Contents::records`](crate::store::Contents::records) documents, then [`Restore::finish`].
///
/// ```
/// use mqtt_session::broker::{BrokerConfig, Restore};
/// use mqtt_session::store::Contents;
///
/// let stored = Contents::default();
/// let mut restore = Restore::new(BrokerConfig::default())?;
/// stored.records().for_each(|record| restore.record(record));
/// let (broker, restored) = restore.finish(1_700_000_000_000);
/// assert_eq!(restored.sessions, 0);
/// assert_eq!(broker.stats().sessions, 0);
/// # Ok::<(), mqtt_session::broker::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Restore {
    broker: Broker,
    clock: Option<StoredClock>,
    limits: StoredLimits,
    owners: IdMap<u64, Owner>,
    groups: BTreeMap<String, SessionId>,
    messages: IdMap<u64, MessageKey>,
    exchanges: IdMap<(u64, u64), (PacketId, u64, StoredStage)>,
    begun: Vec<Begun>,
    /// When sessions lost their connections.
    since: Vec<(SessionKey, Option<Timestamp>)>,
    wills: Vec<(SessionId, Box<StoredWill>)>,
    /// Sessions that another with the same client identifier replaces.
    replaced: Vec<SessionKey>,
    /// Those of whom something is left, but no record.
    void: BTreeSet<SessionId>,
    /// Shared filters whose groups have no record.
    unkept: BTreeSet<String>,
    dropped: usize,
}

impl Restore {
    /// Begins with a broker with nothing in it.
    ///
    /// # Errors
    /// Names the setting that cannot be.
    pub fn new(config: BrokerConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            broker: Broker::new(config, Timestamp::ZERO)?,
            clock: None,
            limits: StoredLimits::default(),
            owners: IdMap::default(),
            groups: BTreeMap::new(),
            messages: IdMap::default(),
            exchanges: IdMap::default(),
            begun: Vec::new(),
            since: Vec::new(),
            wills: Vec::new(),
            replaced: Vec::new(),
            void: BTreeSet::new(),
            unkept: BTreeSet::new(),
            dropped: 0,
        })
    }

    /// Takes one record. Deletions are not records of a store and are ignored.
    pub fn record(&mut self, record: StoreOp) {
        let fits = match record {
            StoreOp::PutLimits(limits) => {
                self.limits = limits;
                true
            }
            StoreOp::PutClock(clock) => {
                self.clock = Some(clock);
                true
            }
            StoreOp::PutSession(id, session) => self.session(id, &session),
            StoreOp::PutPacketId(id, packet_id) => {
                self.with_session(id, |session| session.noted_id = packet_id.get())
            }
            StoreOp::PutGroup(id, filter) => {
                self.limits.sessions = self.limits.sessions.max(id.0);
                let replaced = self.groups.insert(filter, id);
                if let Some(id) = replaced {
                    self.broker.journal.op(StoreOp::DeleteGroup(id));
                }
                replaced.is_none()
            }
            StoreOp::PutSubscription { session, filter, options, id } => {
                self.subscription(session, &filter, options, id)
            }
            StoreOp::PutReplay { session, filter, after, until } => {
                self.replay(session, &filter, after, until)
            }
            StoreOp::PutMessage(id, message) => self.message(id, &message),
            StoreOp::PutReceived(id, packet_id) => {
                let set = |session: &mut Session| session.received.set(packet_id, Receipt::Acknowledged);
                self.with_session(id, |session| {
                    if !defect!(RestoreForgetsReceived) {
                        set(session)
                    }
                })
            }
            StoreOp::PutExchange { session, entry, packet_id, number, stage } => {
                self.limits.entries = self.limits.entries.max(number);
                self.exchanges.insert((session.0, entry.0), (packet_id, number, stage)).is_none()
            }
            StoreOp::Append(message, deliveries) => {
                for delivery in deliveries {
                    self.entry(message, delivery);
                }
                true
            }
            StoreOp::PutRetained(topic, id) => self.retained(&topic, id),
            StoreOp::PutWill(id, will) => {
                self.limits.sessions = self.limits.sessions.max(id.0);
                self.wills.push((id, will));
                true
            }
            StoreOp::DeleteSession(_)
            | StoreOp::DeleteGroup(_)
            | StoreOp::DeleteSubscription { .. }
            | StoreOp::DeleteReplay { .. }
            | StoreOp::DeleteMessage(_)
            | StoreOp::RemoveEntry(..)
            | StoreOp::DeleteReceived(..)
            | StoreOp::DeleteRetained(_)
            | StoreOp::DeleteWill(_) => true,
        };
        self.dropped += usize::from(!fits);
    }

    fn with_session(&mut self, id: SessionId, act: impl FnOnce(&mut Session)) -> bool {
        let Some(key) = self.owner(id) else { return false };
        self.broker.sessions.get_mut(key as usize).map(act).is_some()
    }

    /// The session with this number. What else is stored for one that is not there is void, and goes
    /// in the end.
    fn owner(&mut self, id: SessionId) -> Option<SessionKey> {
        if let Some(Owner::Session(key)) = self.owners.get(&id.0) {
            return Some(*key);
        }
        self.void.insert(id);
        None
    }

    fn session(&mut self, id: SessionId, stored: &StoredSession) -> bool {
        self.limits.sessions = self.limits.sessions.max(id.0);
        let broker = &mut self.broker;
        let mut session = Session::new(&stored.client_id, id);
        session.user_name = stored.user_name.as_deref().map(Into::into);
        session.acl = stored.acl;
        session.expiry_secs = stored.expiry_secs;
        session.stored = true;
        // Which rights it has is known when it is back.
        session.recheck = true;
        let key = SessionKey::try_from(broker.sessions.insert(session)).unwrap_or(SessionKey::MAX);
        self.owners.insert(id.0, Owner::Session(key));
        self.since.push((key, stored.disconnected_at.map(Timestamp::from_micros)));
        let replaced = broker.clients.insert(stored.client_id.as_str().into(), key);
        self.replaced.extend(replaced);
        replaced.is_none()
    }

    fn subscription(
        &mut self,
        id: SessionId,
        filter: &str,
        options: mqtt_proto::SubscriptionOptions,
        subscription_id: Option<u32>,
    ) -> bool {
        let Some(key) = self.owner(id) else { return false };
        let subscription_id = subscription_id.filter(|id| is_subscription_id(*id));
        let broker = &mut self.broker;
        let Ok(parsed) = TopicFilter::new(filter) else {
            broker.journal.op(StoreOp::DeleteSubscription { session: id, filter: filter.into() });
            return false;
        };
        broker.router.subscribe(key, parsed, options, subscription_id);
        if let Some(group) = broker.router.group_of_filter(parsed) {
            let Some(stored) = self.groups.get(filter) else {
                self.unkept.insert(filter.into());
                return true;
            };
            self.owners.insert(stored.0, Owner::Group(group));
            if let Some(group) = broker.router.group_mut(group) {
                group.stored = Some(*stored);
            }
        }
        true
    }

    fn replay(&mut self, id: SessionId, filter: &str, after: MessageId, until: MessageId) -> bool {
        let Some(key) = self.owner(id) else { return false };
        let subscription =
            TopicFilter::new(filter).ok().and_then(|parsed| self.broker.router.subscription(key, parsed));
        let Some((options, id)) = subscription else {
            self.broker.journal.op(StoreOp::DeleteReplay { session: id, filter: filter.into() });
            return false;
        };
        let Some(session) = self.broker.sessions.get_mut(key as usize) else { return false };
        session.replays.push_back(Replay {
            filter: filter.into(),
            after: after.0,
            until: until.0,
            found: None,
            next: 0,
            qos: options.qos,
            ids: SubscriptionIds::new(id),
            far: None,
        });
        true
    }

    fn message(&mut self, id: MessageId, stored: &StoredMessage) -> bool {
        self.limits.messages = self.limits.messages.max(id.0);
        let Some(key) = self.broker.messages.restore(stored) else {
            self.broker.journal.op(StoreOp::DeleteMessage(id));
            return false;
        };
        if let Some(held) = self.broker.messages.get_mut(key) {
            held.stored = Some(id);
        }
        self.messages.insert(id.0, key);
        true
    }

    fn entry(&mut self, message: MessageId, delivery: StoredDelivery) {
        let StoredDelivery { session: id, entry, qos, retain, subscription_ids } = delivery;
        self.limits.entries = self.limits.entries.max(entry.0);
        let exchange = self.exchanges.remove(&(id.0, entry.0)).filter(|_| !defect!(RestoreForgetsStage));
        // A record that is not ours: what is of QoS 0 has no exchange.
        let exchange =
            exchange.filter(|(_, _, stage)| qos > QoS::AtMostOnce || *stage == StoredStage::Released);
        let message = self.messages.get(&message.0).copied();
        let mut subscription_ids = subscription_ids.into_vec();
        subscription_ids.retain(|id| is_subscription_id(*id));
        let Some(&owner) = self.owners.get(&id.0) else {
            self.void.insert(id);
            self.dropped += 1;
            return;
        };
        let delivery = message.map(|message| Delivery {
            message,
            group: match owner {
                Owner::Session(_) => None,
                Owner::Group(group) => Some(group),
            },
            qos,
            retain,
            entry: Some(entry),
            ids: SubscriptionIds::from(&*subscription_ids),
        });
        let broker = &mut self.broker;
        let size = message.and_then(|key| broker.messages.get(key)).map_or(0, super::message::Held::size);
        match (owner, exchange, delivery) {
            (Owner::Session(session), Some((packet_id, number, StoredStage::Released)), _) => {
                let (stage, qos) = (Stage::Release, QoS::ExactlyOnce);
                self.begun.push(Begun { session, number, packet_id, qos, stage, entry, delivery: None });
            }
            (Owner::Session(session), Some((packet_id, number, StoredStage::Published)), Some(delivery)) => {
                broker.messages.hold(delivery.message);
                let (stage, delivery) = (Stage::Publish, Some(delivery));
                self.begun.push(Begun { session, number, packet_id, qos, stage, entry, delivery });
            }
            (Owner::Session(session), None, Some(delivery)) => {
                if let Some(session) = broker.sessions.get_mut(session as usize) {
                    broker.messages.hold(delivery.message);
                    session.queued_bytes += size;
                    session.queue.push_back(delivery);
                }
            }
            (Owner::Group(group), _, Some(delivery)) => {
                if let Some(group) = broker.router.group_mut(group) {
                    broker.messages.hold(delivery.message);
                    group.queued_bytes += size;
                    group.queue.push_back(delivery);
                }
            }
            (_, _, None) => {
                self.dropped += 1;
                broker.journal.op(StoreOp::RemoveEntry(id, entry));
            }
        }
    }

    fn retained(&mut self, topic: &str, id: MessageId) -> bool {
        let broker = &mut self.broker;
        let is_its_topic = |key: &MessageKey| {
            broker.messages.get(*key).is_some_and(|held| held.topic_str() == topic)
                && TopicName::new(topic).is_ok()
                && !is_own(topic)
        };
        let key = self.messages.get(&id.0).copied().filter(is_its_topic);
        let Some(key) = key else {
            broker.journal.op(StoreOp::DeleteRetained(topic.into()));
            return false;
        };
        broker.messages.hold(key);
        if let Some(old) = broker.router.retain(topic, Some(key)) {
            broker.release_message(old);
        }
        if let Some(held) = broker.messages.get_mut(key) {
            held.retained_at = id.0;
        }
        broker.retained_writes = broker.retained_writes.max(id.0);
        true
    }

    /// The broker, at `unix_ms` milliseconds since 1970. Its outputs hold the operations that the
    /// restart itself makes; connections that were open count as lost now.
    #[must_use]
    pub fn finish(mut self, unix_ms: u64) -> (Broker, Restored) {
        let max_downtime = self.broker.config.max_downtime;
        let now = self.clock.map_or(Timestamp::ZERO, |clock| clock.resume(unix_ms, max_downtime));
        self.broker.now = now;
        self.broker.sys = super::sys::Sys::new(self.broker.config.sys_interval, now);
        // What follows may give new numbers.
        self.broker.journal.restore_limits(self.limits);
        self.finish_exchanges();
        self.finish_groups();
        self.finish_void();
        let wills = self.finish_wills(now);
        self.finish_sessions(now);
        // Until here each message was held once for the restore itself.
        let mut messages: Vec<_> = self.messages.iter().map(|(&id, &key)| (id, key)).collect();
        messages.sort_unstable();
        for (at, (_, key)) in messages.into_iter().enumerate() {
            let before = self.broker.messages.len();
            self.broker.release_message(key);
            self.dropped += before - self.broker.messages.len();
            self.commit_now_and_then(at);
        }
        let mut broker = self.broker;
        broker.wall_clock = None;
        broker.handle_wall_clock(now, unix_ms);
        let stats = broker.stats();
        let restored = Restored {
            now,
            sessions: self.since.len() - self.replaced.len(),
            subscriptions: stats.subscriptions,
            messages: stats.messages,
            retained: stats.retained,
            wills,
            dropped: self.dropped,
        };
        (broker, restored)
    }

    fn commit_now_and_then(&mut self, at: usize) {
        if at % GROUP == GROUP - 1 {
            self.broker.journal.commit(&mut self.broker.outputs);
        }
    }

    fn finish_exchanges(&mut self) {
        self.begun.sort_unstable_by_key(|begun| (begun.session, begun.number));
        for begun in core::mem::take(&mut self.begun) {
            let Begun { session, packet_id, qos, stage, entry, delivery, .. } = begun;
            let Some(session) = self.broker.sessions.get_mut(session as usize) else { continue };
            if session.ledger.contains(packet_id) {
                // Never the case in a store that is whole.
                self.dropped += 1;
                self.broker.journal.op(StoreOp::RemoveEntry(session.id, entry));
                if let Some(delivery) = delivery {
                    self.broker.release_message(delivery.message);
                }
                continue;
            }
            if stage == Stage::Release {
                session.releasing.insert(packet_id.get(), entry);
            }
            // It may have been sent, so what is sent now is a repetition.
            session.ledger.restore(packet_id, qos, stage, true, delivery);
        }
        // Exchanges without an entry; else they would stay for ever.
        let mut left: Vec<_> = core::mem::take(&mut self.exchanges).into_keys().collect();
        left.sort_unstable();
        self.dropped += left.len();
        for (session, entry) in left {
            self.broker.journal.op(StoreOp::RemoveEntry(SessionId(session), EntryId(entry)));
        }
    }

    /// Deletes what sessions and groups left behind that have no record. The store may be at it already;
    /// saying it again is harmless.
    fn finish_void(&mut self) {
        for id in core::mem::take(&mut self.void) {
            self.broker.journal.op(StoreOp::DeleteSession(id));
        }
    }

    /// Groups that no stored session is a member of go; those that lost their record get another.
    fn finish_groups(&mut self) {
        for filter in core::mem::take(&mut self.unkept) {
            if let Ok(filter) = TopicFilter::new(&filter) {
                self.broker.store_group(filter);
            }
        }
        for id in core::mem::take(&mut self.groups).into_values() {
            if !self.owners.contains_key(&id.0) {
                self.dropped += 1;
                self.broker.journal.op(StoreOp::DeleteGroup(id));
            }
        }
    }

    /// Gives wills back to their sessions. A session that was to end with its connection has no record
    /// and is there only until its will is published.
    fn finish_wills(&mut self, now: Timestamp) -> usize {
        let mut wills = 0;
        for (id, will) in core::mem::take(&mut self.wills) {
            let broker = &mut self.broker;
            // A will for a topic of the broker's own was never taken.
            let restored = broker.messages.restore(&will.message);
            let restored = restored.filter(|key| {
                let fits = broker.messages.get(*key).is_some_and(|held| !is_own(held.topic_str()));
                if !fits {
                    broker.messages.release(*key);
                }
                fits
            });
            let Some(message) = restored else {
                self.dropped += 1;
                broker.journal.op(StoreOp::DeleteWill(id));
                continue;
            };
            let key = match self.owners.get(&id.0) {
                Some(&Owner::Session(key)) => key,
                _ => {
                    let mut session = Session::new(&will.author.client_id, id);
                    session.user_name = will.author.user_name.as_deref().map(Into::into);
                    session.acl = will.author.acl;
                    let key =
                        SessionKey::try_from(broker.sessions.insert(session)).unwrap_or(SessionKey::MAX);
                    self.since.push((key, Some(now)));
                    key
                }
            };
            if let Some(session) = broker.sessions.get_mut(key as usize) {
                session.will = Some(Box::new(Will { message, delay_secs: will.delay_secs }));
                wills += 1;
            }
        }
        wills
    }

    fn finish_sessions(&mut self, now: Timestamp) {
        for key in &self.replaced {
            self.broker.end_session(*key);
        }
        let mut paced = now;
        for (at, (key, since)) in self.since.clone().into_iter().enumerate() {
            let broker = &mut self.broker;
            let Some(session) = broker.sessions.get_mut(key as usize) else { continue };
            let next = session.noted_id.wrapping_add(DISTANCE);
            session.ledger.continue_after(PacketId::new(next).unwrap_or(PacketId::MIN));
            // A clock that was set back must not make it live longer than it may.
            let lost = since.map_or(now, |since| since.min(now));
            let expiry = session.expiry_secs;
            session.expires =
                if expiry == u32::MAX { Timestamp::MAX } else { lost.plus_secs(session.expiry_secs) };
            let mut due = session.expires;
            if let Some(will) = &session.will {
                session.will_due = lost.plus_secs(will.delay_secs).min(session.expires);
                due = session.will_due;
                if due <= now {
                    // It stays due: a client that returns first does not cancel it.
                    due = paced;
                    session.expires = session.expires.max(paced);
                    paced = paced + PACE;
                }
            }
            let incarnation = session.id.0;
            session.armed = due;
            broker.timers.at(due, super::timers::Timer::Session { key, incarnation });
            if since.is_none() {
                // From now on it counts as lost at this moment, also after the next restart.
                broker.store_session(key);
            }
            self.commit_now_and_then(at);
        }
    }
}
