use super::{
    EntryId, HandOver, MessageId, SessionId, StoreGroup, StoreOp, StoredClock, StoredDelivery,
    StoredHandOver, StoredLimits, StoredMessage, StoredReplay, StoredSession, StoredShards, StoredStage,
    StoredWill,
};
use crate::ShardId;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use mqtt_proto::{PacketId, QoS, SubscriptionOptions};

/// Everything that groups of operations leave, as a value: a store in memory, and the measure for
/// every other store.
///
/// ```
/// use mqtt_session::store::{Contents, SessionId, StoredSession};
/// use mqtt_session::{StoreGroup, StoreOp};
///
/// let mut contents = Contents::default();
/// let record = StoredSession {
///     client_id: "sensor".into(),
///     user_name: None,
///     acl: 0,
///     expiry_secs: 3600,
///     disconnected_at: None,
/// };
/// contents.apply(&StoreGroup { ops: [StoreOp::PutSession(SessionId(1), record.into())].into() });
/// assert_eq!(contents.records().count(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    shards: Option<StoredShards>,
    limits: BTreeMap<ShardId, StoredLimits>,
    clock: Option<StoredClock>,
    sessions: BTreeMap<SessionId, StoredSession>,
    packet_ids: BTreeMap<SessionId, PacketId>,
    groups: BTreeMap<SessionId, String>,
    subscriptions: BTreeMap<(SessionId, String), (SubscriptionOptions, Option<u32>)>,
    replays: BTreeMap<(SessionId, String), StoredReplay>,
    messages: BTreeMap<MessageId, StoredMessage>,
    received: BTreeSet<(SessionId, PacketId)>,
    exchanges: BTreeMap<(SessionId, EntryId), (PacketId, u64, StoredStage)>,
    entries: BTreeMap<(SessionId, EntryId), Entry>,
    retained: BTreeMap<String, MessageId>,
    wills: BTreeMap<SessionId, StoredWill>,
    hand_overs: BTreeMap<(ShardId, ShardId, u64), (MessageId, HandOver)>,
    taken: BTreeMap<(ShardId, ShardId), u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    message: MessageId,
    qos: QoS,
    retain: bool,
    subscription_ids: Box<[u32]>,
}

impl Contents {
    /// Applies a group.
    pub fn apply(&mut self, group: &StoreGroup) {
        for op in &*group.ops {
            self.apply_op(op.clone());
        }
    }

    fn apply_op(&mut self, op: StoreOp) {
        match op {
            StoreOp::PutShards(shards) => self.shards = Some(shards),
            StoreOp::PutLimits(shard, limits) => {
                self.limits.insert(shard, limits);
            }
            StoreOp::PutClock(clock) => self.clock = Some(clock),
            StoreOp::PutSession(id, session) => {
                self.sessions.insert(id, *session);
            }
            StoreOp::DeleteSession(id) => {
                self.sessions.remove(&id);
                self.sweep(id);
            }
            StoreOp::PutPacketId(session, id) => {
                self.packet_ids.insert(session, id);
            }
            StoreOp::PutGroup(id, filter) => {
                self.groups.insert(id, filter);
            }
            StoreOp::DeleteGroup(id) => {
                self.groups.remove(&id);
                self.sweep(id);
            }
            StoreOp::PutSubscription { session, filter, options, id } => {
                self.subscriptions.insert((session, filter), (options, id));
            }
            StoreOp::DeleteSubscription { session, filter } => {
                self.subscriptions.remove(&(session, filter));
            }
            StoreOp::PutReplay { session, filter, replay } => {
                self.replays.insert((session, filter), *replay);
            }
            StoreOp::DeleteReplay { session, filter } => {
                self.replays.remove(&(session, filter));
            }
            StoreOp::PutMessage(id, message) => {
                self.messages.insert(id, *message);
            }
            StoreOp::DeleteMessage(id) => {
                self.messages.remove(&id);
            }
            StoreOp::Append(message, deliveries) => {
                for StoredDelivery { session, entry, qos, retain, subscription_ids } in deliveries {
                    self.entries.insert((session, entry), Entry { message, qos, retain, subscription_ids });
                }
            }
            StoreOp::RemoveEntry(session, entry) => {
                self.entries.remove(&(session, entry));
                self.exchanges.remove(&(session, entry));
            }
            StoreOp::PutExchange { session, entry, packet_id, number, stage } => {
                self.exchanges.insert((session, entry), (packet_id, number, stage));
            }
            StoreOp::PutReceived(session, id) => {
                self.received.insert((session, id));
            }
            StoreOp::DeleteReceived(session, id) => {
                self.received.remove(&(session, id));
            }
            StoreOp::PutRetained(topic, message) => {
                self.retained.insert(topic, message);
            }
            StoreOp::DeleteRetained(topic) => {
                self.retained.remove(&topic);
            }
            StoreOp::PutWill(session, will) => {
                self.wills.insert(session, *will);
            }
            StoreOp::DeleteWill(session) => {
                self.wills.remove(&session);
            }
            StoreOp::PutHandOver(record) => {
                let StoredHandOver { from, to, number, message, purpose } = *record;
                self.hand_overs.insert((from, to, number), (message, purpose));
            }
            StoreOp::DeleteHandOver { from, to, number } => {
                self.hand_overs.remove(&(from, to, number));
            }
            StoreOp::PutTaken { by, from, number } => {
                self.taken.insert((by, from), number);
            }
            StoreOp::DeleteTaken { by, from } => {
                self.taken.remove(&(by, from));
            }
        }
    }

    /// Removes what is void without the record of `id`.
    fn sweep(&mut self, id: SessionId) {
        self.packet_ids.remove(&id);
        self.subscriptions.retain(|(session, _), _| *session != id);
        self.replays.retain(|(session, _), _| *session != id);
        self.received.retain(|(session, _)| *session != id);
        self.exchanges.retain(|(session, _), _| *session != id);
        self.entries.retain(|(session, _), _| *session != id);
    }

    /// The clocks as they were last stored.
    #[must_use]
    pub const fn clock(&self) -> Option<StoredClock> {
        self.clock
    }

    /// What a machine is restored from: the puts that are left, and nothing else, in the order shards, limits,
    /// clock, sessions, packet identifiers, groups, subscriptions, replays, messages, received
    /// identifiers, exchanges, entries (each as an `Append` of one delivery; those of a queue in their
    /// order), retained messages, wills, hand-overs, what is taken.
    pub fn records(&self) -> impl Iterator<Item = StoreOp> {
        let shards = self.shards.into_iter().map(StoreOp::PutShards);
        let limits = self.limits.iter().map(|(shard, limits)| StoreOp::PutLimits(*shard, *limits));
        let clock = self.clock.into_iter().map(StoreOp::PutClock);
        let sessions = self.sessions.iter().map(|(id, s)| StoreOp::PutSession(*id, Box::new(s.clone())));
        let packet_ids = self.packet_ids.iter().map(|(session, id)| StoreOp::PutPacketId(*session, *id));
        let groups = self.groups.iter().map(|(id, filter)| StoreOp::PutGroup(*id, filter.clone()));
        let subscriptions = self.subscriptions.iter().map(|((session, filter), (options, id))| {
            let (session, filter, options, id) = (*session, filter.clone(), *options, *id);
            StoreOp::PutSubscription { session, filter, options, id }
        });
        let replays = self.replays.iter().map(|((session, filter), replay)| {
            let (session, filter, replay) = (*session, filter.clone(), Box::new(replay.clone()));
            StoreOp::PutReplay { session, filter, replay }
        });
        let messages = self.messages.iter().map(|(id, m)| StoreOp::PutMessage(*id, Box::new(m.clone())));
        let received = self.received.iter().map(|(session, id)| StoreOp::PutReceived(*session, *id));
        let exchanges = self.exchanges.iter().map(|((session, entry), (packet_id, number, stage))| {
            let (session, entry, packet_id) = (*session, *entry, *packet_id);
            StoreOp::PutExchange { session, entry, packet_id, number: *number, stage: *stage }
        });
        let entries = self.entries.iter().map(|((session, entry), kept)| {
            let Entry { message, qos, retain, subscription_ids } = kept.clone();
            let (session, entry) = (*session, *entry);
            let delivery = StoredDelivery { session, entry, qos, retain, subscription_ids };
            StoreOp::Append(message, vec![delivery])
        });
        let retained = self.retained.iter().map(|(topic, id)| StoreOp::PutRetained(topic.clone(), *id));
        let wills = self.wills.iter().map(|(id, will)| StoreOp::PutWill(*id, Box::new(will.clone())));
        let hand_overs = self.hand_overs.iter().map(|((from, to, number), (message, purpose))| {
            let (from, to, number, message) = (*from, *to, *number, *message);
            let purpose = purpose.clone();
            StoreOp::PutHandOver(Box::new(StoredHandOver { from, to, number, message, purpose }))
        });
        let taken = self.taken.iter().map(|((by, from), number)| {
            let (by, from, number) = (*by, *from, *number);
            StoreOp::PutTaken { by, from, number }
        });
        shards
            .chain(limits)
            .chain(clock)
            .chain(sessions)
            .chain(packet_ids)
            .chain(groups)
            .chain(subscriptions)
            .chain(replays)
            .chain(messages)
            .chain(received)
            .chain(exchanges)
            .chain(entries)
            .chain(retained)
            .chain(wills)
            .chain(hand_overs)
            .chain(taken)
    }
}
