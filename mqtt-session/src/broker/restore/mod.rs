//! From what is stored to a broker, in one or more shards.
//!
//! Everything is rebuilt before the first connection is accepted, and sessions are routable at once.
//! What refers to nothing (a store that was damaged, or that still sweeps what was deleted) is dropped,
//! counted, and deleted from the store.
//!
//! Each record goes to the shard that it belongs to now (`part`). The number of shards may be another one than before: a
//! body that several of them refer to is copied, and what was on its way from shard to shard is delivered by the old
//! number before anything else happens (`open`).

mod finish;
mod open;
mod part;

use super::{Broker, BrokerConfig, ConfigError};
use crate::random::{IdMap, KeyedHash};
use crate::store::{
    MessageId, SessionId, StoredClock, StoredHandOver, StoredLimits, StoredMessage, StoredShards,
};
use crate::{ShardId, StoreGroup, StoreOp, Timestamp};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::hash::BuildHasher;
use part::Part;

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
    /// Messages, each counted once for each shard that has it.
    pub messages: usize,
    /// Retained messages.
    pub retained: usize,
    /// Wills that are going to be published unless their clients return in time.
    pub wills: usize,
    /// Messages that were on their way from shard to shard and are delivered now.
    pub handed_over: usize,
    /// The number of shards that the broker had before, if it was another one.
    pub shards_before: Option<u16>,
    /// Records that referred to nothing or made no sense, and were dropped.
    pub dropped: usize,
}

/// What [`Restore::finish`] gives.
#[derive(Debug)]
#[non_exhaustive]
pub struct Restoration {
    /// The shards, by their numbers. Their outputs hold the operations that the restart itself makes;
    /// connections that were open count as lost now.
    pub shards: Vec<Broker>,
    /// Groups to be written before anything that the shards emit: what spans several of them. With one shard there are
    /// none.
    pub first: Vec<StoreGroup>,
    /// What they were made of.
    pub restored: Restored,
}

/// Where the body of a message is.
#[derive(Debug)]
enum Body {
    /// Nobody has asked for it.
    Waiting(Box<StoredMessage>),
    /// On this shard.
    Given(usize),
}

/// Makes the shards of a broker from what is stored.
///
/// Give it every record that the store has, in the order that
/// [`Contents::records`](crate::store::Contents::records) documents, then [`Restore::finish`].
///
/// ```
/// use mqtt_session::broker::{BrokerConfig, Restore};
/// use mqtt_session::store::Contents;
///
/// let stored = Contents::default();
/// let mut config = BrokerConfig::default();
/// config.shards = 2;
/// let mut restore = Restore::new(config)?;
/// stored.records().for_each(|record| restore.record(record));
/// let restoration = restore.finish(1_700_000_000_000);
/// assert_eq!(restoration.restored.sessions, 0);
/// assert_eq!(restoration.shards.len(), 2);
/// # Ok::<(), mqtt_session::broker::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Restore {
    parts: Vec<Part>,
    /// Tells what belongs to which shard.
    homes: KeyedHash,
    /// How it was before.
    before: Option<StoredShards>,
    clock: Option<StoredClock>,
    limits: StoredLimits,
    /// The shard of each session and group.
    owners: IdMap<u64, usize>,
    /// With one shard there are none: they are all there.
    bodies: IdMap<u64, Body>,
    hand_overs: Vec<StoredHandOver>,
    taken: BTreeMap<(ShardId, ShardId), u64>,
    dropped: usize,
}

impl Restore {
    /// Begins with a broker of [`BrokerConfig::shards`] shards with nothing in it. [`BrokerConfig::shard`] does not
    /// matter.
    ///
    /// # Errors
    /// Names the setting that cannot be.
    pub fn new(config: BrokerConfig) -> Result<Self, ConfigError> {
        let homes = KeyedHash::of_homes(config.seed);
        let parts = (0..config.shards.max(1))
            .map(|shard| Part::new(BrokerConfig { shard: ShardId(shard), ..config.clone() }));
        Ok(Self {
            parts: parts.collect::<Result<_, _>>()?,
            homes,
            before: None,
            clock: None,
            limits: StoredLimits::default(),
            owners: IdMap::default(),
            bodies: IdMap::default(),
            hand_overs: Vec::new(),
            taken: BTreeMap::new(),
            dropped: 0,
        })
    }

    /// Takes one record. Deletions are not records of a store and are ignored.
    pub fn record(&mut self, record: StoreOp) {
        self.raise_limits(&record);
        let fits = match record {
            StoreOp::PutShards(shards) => self.spread_as(shards),
            StoreOp::PutLimits(_, limits) => {
                let StoredLimits { sessions, messages, entries } = &mut self.limits;
                *sessions = limits.sessions.max(*sessions);
                *messages = limits.messages.max(*messages);
                *entries = limits.entries.max(*entries);
                true
            }
            StoreOp::PutClock(clock) => {
                self.clock = Some(clock);
                true
            }
            StoreOp::PutSession(id, session) => {
                let home = self.home(&session.client_id);
                self.owners.insert(id.0, home);
                self.with(home, |part| part.session(id, &session))
            }
            StoreOp::PutPacketId(id, packet_id) => self.of(id, |part| part.packet_id(id, packet_id)),
            StoreOp::PutGroup(id, filter) => {
                let owner = self.home(&filter);
                self.owners.insert(id.0, owner);
                self.with(owner, |part| {
                    part.group(id, filter);
                    true
                })
            }
            StoreOp::PutSubscription { session, filter, options, id } => {
                let home = self.owner(session);
                let owner = self.home(&filter);
                let fits = self.with(home, |part| part.subscription(session, &filter, options, id));
                if fits && owner != home && filter.starts_with("$share/") {
                    self.with(owner, |part| {
                        part.share(&filter, number(home));
                        true
                    });
                }
                fits
            }
            StoreOp::PutReplay { session, filter, replay } => {
                self.of(session, |part| part.replay(session, &filter, *replay))
            }
            StoreOp::PutMessage(id, message) => {
                if let [part] = self.parts.as_mut_slice() {
                    part.message(id, &message)
                } else {
                    self.bodies.insert(id.0, Body::Waiting(message)).is_none()
                }
            }
            StoreOp::PutReceived(id, packet_id) => self.of(id, |part| part.received(id, packet_id)),
            StoreOp::PutExchange { session, entry, packet_id, number, stage } => {
                self.of(session, |part| part.exchange(session, entry, (packet_id, number, stage)))
            }
            StoreOp::Append(message, deliveries) => {
                for delivery in deliveries {
                    let owner = self.owner(delivery.session);
                    self.give_body(owner, message);
                    self.with(owner, |part| {
                        part.entry(message, delivery);
                        true
                    });
                }
                true
            }
            StoreOp::PutRetained(topic, id) => {
                let owner = self.home(&topic);
                self.give_retained(owner, id);
                self.with(owner, |part| part.retained(&topic, id))
            }
            StoreOp::PutWill(id, will) => {
                let home = self.owners.get(&id.0).copied();
                let home = home.unwrap_or_else(|| self.home(&will.author.client_id));
                self.with(home, |part| {
                    part.will(id, will);
                    true
                })
            }
            StoreOp::PutHandOver(record) => {
                self.hand_overs.push(*record);
                true
            }
            StoreOp::PutTaken { by, from, number } => {
                self.taken.insert((by, from), number);
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
            | StoreOp::DeleteWill(_)
            | StoreOp::DeleteHandOver { .. }
            | StoreOp::DeleteTaken { .. } => true,
        };
        self.dropped += usize::from(!fits);
    }

    /// A damaged store may hold numbers beyond those that it says it reserved, also of what is not there any more.
    fn raise_limits(&mut self, record: &StoreOp) {
        let StoredLimits { sessions, messages, entries } = &mut self.limits;
        let mut raise = |session: Option<SessionId>, message: Option<MessageId>, entry: u64| {
            *sessions = session.map_or(0, |id| id.0).max(*sessions);
            *messages = message.map_or(0, |id| id.0).max(*messages);
            *entries = entry.max(*entries);
        };
        match record {
            StoreOp::PutSession(id, _)
            | StoreOp::PutGroup(id, _)
            | StoreOp::PutWill(id, _)
            | StoreOp::PutPacketId(id, _)
            | StoreOp::PutSubscription { session: id, .. }
            | StoreOp::PutReplay { session: id, .. }
            | StoreOp::PutReceived(id, _) => raise(Some(*id), None, 0),
            StoreOp::PutMessage(id, _) | StoreOp::PutRetained(_, id) => raise(None, Some(*id), 0),
            StoreOp::PutHandOver(record) => raise(None, Some(record.message), 0),
            StoreOp::PutExchange { session, entry, number, .. } => {
                raise(Some(*session), None, entry.0.max(*number));
            }
            StoreOp::Append(message, deliveries) => {
                for delivery in deliveries {
                    raise(Some(delivery.session), Some(*message), delivery.entry.0);
                }
            }
            _ => {}
        }
    }

    fn spread_as(&mut self, shards: StoredShards) -> bool {
        self.before = Some(shards);
        self.homes = KeyedHash::from_key(shards.key);
        let count = number(self.parts.len()).0;
        for (shard, part) in self.parts.iter_mut().enumerate().filter(|_| count > 1) {
            part.broker.router.share_with(number(shard), count, self.homes.clone());
        }
        self.owners.is_empty()
    }

    /// The shard that something with this name belongs to.
    fn home(&self, name: &str) -> usize {
        home(&self.homes, self.parts.len(), name)
    }

    /// The shard of a session or group; the first for what belongs to none, which drops it.
    fn owner(&self, id: SessionId) -> usize {
        self.owners.get(&id.0).copied().unwrap_or_default()
    }

    fn of(&mut self, id: SessionId, act: impl FnOnce(&mut Part) -> bool) -> bool {
        let owner = self.owner(id);
        self.with(owner, act)
    }

    fn with(&mut self, part: usize, act: impl FnOnce(&mut Part) -> bool) -> bool {
        self.parts.get_mut(part).is_some_and(act)
    }

    /// Makes sure that a shard that refers to a body has it.
    fn give_body(&mut self, to: usize, id: MessageId) {
        let Some(body) = self.bodies.get_mut(&id.0) else { return };
        match core::mem::replace(body, Body::Given(to)) {
            Body::Waiting(message) => {
                let fits = self.with(to, |part| part.message(id, &message));
                self.dropped += usize::from(!fits);
            }
            Body::Given(other) => {
                // It stays there.
                *body = Body::Given(other);
                let is_there = |part: &Part| part.messages.contains_key(&id.0);
                if other == to || self.parts.get(to).is_none_or(is_there) {
                    return;
                }
                if let Some(message) = self.message(id) {
                    self.with(to, |part| {
                        part.copy(id, &message);
                        true
                    });
                }
            }
        }
    }

    /// The same for the one that keeps the number if several refer to it: that where it is retained.
    fn give_retained(&mut self, to: usize, id: MessageId) {
        let before = match self.bodies.get(&id.0) {
            // A damaged store may have it under two topics: it is that of the first.
            Some(&Body::Given(before)) if before != to && !self.is_retained(before, id) => before,
            _ => return self.give_body(to, id),
        };
        let Some(message) = self.message(id) else { return };
        if self.with(to, |part| part.take_back(id) || part.message(id, &message)) {
            self.bodies.insert(id.0, Body::Given(to));
            self.with(before, |part| {
                part.give_away(id);
                true
            });
        }
    }

    fn is_retained(&self, part: usize, id: MessageId) -> bool {
        self.parts.get(part).is_some_and(|part| part.is_retained(id))
    }

    /// The message with this number, wherever it is.
    fn message(&self, id: MessageId) -> Option<StoredMessage> {
        let given = match self.bodies.get(&id.0) {
            Some(Body::Waiting(message)) => return Some((**message).clone()),
            Some(Body::Given(part)) => *part,
            None => 0,
        };
        let part = self.parts.get(given)?;
        let key = part.messages.get(&id.0)?;
        part.broker.messages.to_stored(*key)
    }

    /// The broker, at `unix_ms` milliseconds since 1970.
    #[must_use]
    pub fn finish(mut self, unix_ms: u64) -> Restoration {
        let max_downtime = self.parts.first().map(|part| part.broker.config.max_downtime);
        let resume = |clock: StoredClock| clock.resume(unix_ms, max_downtime.unwrap_or_default());
        let now = self.clock.map_or(Timestamp::ZERO, resume);
        let mut wanted: BTreeSet<u64> = self.hand_overs.iter().map(|record| record.message.0).collect();
        wanted.extend(self.parts.iter().flat_map(Part::copied));
        for part in &mut self.parts {
            part.resume(now, self.limits);
            part.count_orphans(|id| wanted.contains(&id));
        }
        let mut first = Vec::new();
        let handed_over = self.settle(&mut first);
        self.resume_replays(&mut first);
        let mut restored = Restored {
            now,
            handed_over,
            shards_before: self.before.map(|before| before.count).filter(|&count| count != self.count()),
            ..Restored::default()
        };
        for part in &mut self.parts {
            restored.wills += part.finish(now);
        }
        self.exchange_interest();
        let mut shards = Vec::with_capacity(self.parts.len());
        restored.dropped = self.dropped;
        for part in self.parts {
            restored.sessions += part.sessions();
            restored.dropped += part.dropped;
            let mut broker = part.broker;
            broker.wall_clock = None;
            broker.handle_wall_clock(now, unix_ms);
            let stats = broker.stats();
            restored.subscriptions += stats.subscriptions;
            restored.messages += stats.messages;
            restored.retained += stats.retained;
            shards.push(broker);
        }
        Restoration { shards, first, restored }
    }

    /// What the shards retain from now on comes live to all subscriptions that are there. Stored before any of it is.
    fn resume_replays(&mut self, first: &mut Vec<StoreGroup>) {
        let last = MessageId(self.limits.messages);
        let mut now: Vec<_> = self.parts.iter().map(|part| part.broker.journal.last_message()).collect();
        // No shard gives the numbers beyond.
        now.resize(now.len().next_power_of_two(), last);
        self.parts.iter_mut().for_each(|part| part.resume_replays(last, &now));
        self.group(Vec::new(), first);
    }

    fn count(&self) -> u16 {
        number(self.parts.len()).0
    }

    /// Every shard knows what the others want before the first connection is accepted.
    fn exchange_interest(&mut self) {
        for from in 0..self.parts.len() {
            let changes = self.parts.get_mut(from).map(|part| part.broker.router.take_changes());
            let changes = changes.unwrap_or_default();
            for (_, other) in self.parts.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                for (filter, wanted) in &changes {
                    other.broker.router.set_wanting(number(from), filter, *wanted);
                }
            }
        }
    }
}

/// The number of a shard by its place.
fn number(place: usize) -> ShardId {
    ShardId(u16::try_from(place).unwrap_or(u16::MAX))
}

/// Which of `count` shards something with this name belongs to.
fn home(homes: &KeyedHash, count: usize, name: &str) -> usize {
    if count < 2 {
        return 0;
    }
    let count = u64::try_from(count).unwrap_or(1);
    usize::try_from(homes.hash_one(name) % count).unwrap_or_default()
}
