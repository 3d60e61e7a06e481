//! Messages from shard to shard, and the credit that they use up.

use super::super::message::{Held, MessageKey};
use super::super::output::ConnectionId;
use super::super::route::Source;
use super::super::router::{Matches, Origin, SessionKey, bit};
use super::super::sys::is_own;
use super::care::Watch;
use super::{Broker, each};
use crate::defects::defect;
use crate::store::StoredMessage;
use crate::{Care, ShardCredit, ShardId, ShardMessage};

/// How a message came from another shard.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Arrival {
    pub(in crate::broker) from: ShardId,
    /// It is to be retained here: which retained write that is of those that the shard sent.
    pub(in crate::broker) retain: Option<u64>,
    pub(in crate::broker) care: Care,
}

/// What a message counts against credit beyond its body.
const OVERHEAD: usize = 64;

/// Where else a message goes.
#[derive(Debug)]
pub(in crate::broker) struct Onward {
    /// The shards with sessions that want it, a bit for each.
    pub(in crate::broker) wanting: u64,
    /// The shard that retains it.
    pub(super) owner: Option<ShardId>,
    /// Which retained write that is of those that go there.
    write: Option<u64>,
    /// The connection that it came by.
    pub(super) conn: Option<ConnectionId>,
    /// What depends on what becomes of it there.
    pub(super) watch: Watch,
}

impl Onward {
    /// All shards that get it.
    pub(super) fn targets(&self) -> u64 {
        self.wanting | self.owner.map_or(0, bit)
    }
}

impl Broker {
    /// Which other shards get a message: those that want it (a bit for each) and the one that retains it.
    pub(in crate::broker) fn onward(
        &self,
        key: MessageKey,
        publisher: Option<SessionKey>,
        wanting: u64,
    ) -> Option<Onward> {
        self.shards.as_ref()?;
        let owner = self.retained_owner(key);
        if wanting == 0 && owner.is_none() {
            return None;
        }
        let link = publisher.and_then(|key| self.sessions.get(key as usize)).and_then(|session| session.link);
        let conn = link.map(|index| self.id_of(index));
        Some(Onward { wanting, owner, write: None, conn, watch: Watch::Nothing })
    }

    /// A message is going to other shards, now or when it is stored: uses up room there, and counts as a retained write.
    ///
    /// A publisher whose message used up the room somewhere is not read until there is some again. So a slow
    /// shard has at most one message more of each publisher than it asked for.
    pub(in crate::broker) fn announce(&mut self, key: MessageKey, onward: &mut Onward) {
        if let (Some(owner), Some(shards)) = (onward.owner, &mut self.shards)
            && let Some(writes) = shards.writes.get_mut(usize::from(owner.0))
        {
            *writes += 1;
            onward.write = Some(*writes);
        }
        let size = self.messages.get(key).map_or(0, Held::body_len) + OVERHEAD;
        let mut full = None;
        for shard in each(onward.targets()) {
            let Some(neighbour) = self.neighbour(shard) else { continue };
            neighbour.messages -= 1;
            neighbour.bytes -= i64::try_from(size).unwrap_or(i64::MAX);
            if full.is_none() && (neighbour.messages <= 0 || neighbour.bytes <= 0) {
                full = Some(shard);
            }
        }
        if let Some(shard) = full.filter(|_| !defect!(ShardCreditIgnored)) {
            self.let_wait(shard, onward.conn);
        }
    }

    /// Sends a message to other shards, where it was announced.
    pub(in crate::broker) fn send_onward(&mut self, key: MessageKey, onward: &Onward) {
        let (wanting, owner) = (onward.wanting, onward.owner);
        let Some(held) = self.messages.get(key) else { return };
        let message = held.to_stored();
        let last = 63 - onward.targets().leading_zeros().min(63);
        let mut message = Some(message);
        for shard in each(onward.targets()) {
            let care = self.watch(shard, key, &onward.watch);
            let retain = onward.write.filter(|_| owner == Some(shard));
            let deliver = wanting & bit(shard) != 0;
            // Who is alone with it takes it over.
            let own = if u32::from(shard.0) == last { message.take() } else { message.clone() };
            let Some(message) = own else { return };
            self.tell_shard(shard, ShardMessage::Deliver { message, deliver, retain, care });
        }
    }

    fn let_wait(&mut self, shard: ShardId, publisher: Option<ConnectionId>) {
        let Some(conn) = publisher else { return };
        let Some(index) = self.index_of(conn) else { return };
        if let Some(c) = self.connections.get_mut(index)
            && !c.starved
        {
            c.starved = true;
            if let Some(neighbour) = self.neighbour(shard) {
                neighbour.waiting.push_back(conn);
            }
        }
    }

    /// There is room again.
    pub(super) fn credited(&mut self, from: ShardId, credit: ShardCredit) {
        let Some(neighbour) = self.neighbour(from) else { return };
        neighbour.messages += i64::from(credit.messages);
        neighbour.bytes = neighbour.bytes.saturating_add_unsigned(credit.bytes);
        // Who waits now; who is stopped again meanwhile waits for the next time.
        for _ in 0..neighbour.waiting.len() {
            let Some(neighbour) = self.neighbour(from) else { return };
            if neighbour.messages <= 0 || neighbour.bytes <= 0 {
                return;
            }
            if let Some(conn) = neighbour.waiting.pop_front() {
                self.feed(conn);
            }
        }
    }

    fn feed(&mut self, conn: ConnectionId) {
        let Some(index) = self.index_of(conn) else { return };
        if let Some(c) = self.connections.get_mut(index) {
            c.starved = false;
            self.continue_reading(index);
        }
    }

    /// A message from another shard.
    pub(super) fn arrived(
        &mut self,
        from: ShardId,
        message: StoredMessage,
        deliver: bool,
        retain: Option<u64>,
        care: Care,
    ) {
        let size = message.body.len() + OVERHEAD;
        let is_full = self.messages.bytes() + message.body.len() > self.config.max_message_bytes;
        let restored = (!is_full).then(|| self.messages.adopt(message));
        if is_full {
            self.counters.dropped.memory_full += 1;
            self.counters.dropped.not_retained += u64::from(retain.is_some());
        }
        let waits = self.waits_behind(from) > self.journal.stored();
        match restored {
            Some(key) if self.journal.is_on() && (care != Care::None || waits) => {
                self.route_behind(key, deliver, Arrival { from, retain, care });
                self.release_message(key);
            }
            Some(key) => {
                if let Some(write) = retain {
                    self.retain_from(key, from, write);
                }
                if deliver {
                    self.route_here(key);
                }
                self.release_message(key);
            }
            None => {
                if let Care::HandedOver(number) = care {
                    self.note_taken(from, number);
                }
                let after = self.journal.commit(&mut self.outputs);
                self.owe(from, care, after);
            }
        }
        if let Some(write) = retain {
            if let Some(neighbour) = self.neighbour(from) {
                neighbour.apply(write);
            }
            self.answer_who_waits();
        }
        self.handled(from, size);
    }

    /// Delivers a message to the sessions and groups here.
    fn route_here(&mut self, key: MessageKey) {
        let mut matches = core::mem::take(&mut self.matches);
        let origin = self.match_here(key, None, &mut matches);
        self.route_at_once(key, &matches);
        self.router.give_back(origin, &mut matches);
        self.matches = matches;
    }

    /// The same for a message that is stored here, or stands behind one that is.
    fn route_behind(&mut self, key: MessageKey, deliver: bool, arrival: Arrival) {
        let (mut matches, mut origin) = (Matches::default(), Origin::default());
        if deliver {
            matches = core::mem::take(&mut self.matches);
            origin = self.match_here(key, None, &mut matches);
        }
        self.route_stored(key, Source { arrival: Some(arrival), ..Source::default() }, &matches);
        if deliver {
            self.router.give_back(origin, &mut matches);
            self.matches = matches;
        }
    }

    /// Finds the sessions and groups here that get a message.
    pub(in crate::broker) fn match_here(
        &mut self,
        key: MessageKey,
        publisher: Option<SessionKey>,
        matches: &mut Matches,
    ) -> Origin {
        let Some(held) = self.messages.get(key) else { return Origin::default() };
        let origin = self.router.matching(held.topic(), publisher, matches);
        if self.acls.is_empty() || !self.withhold(held.topic_str(), matches) {
            return origin;
        }
        Origin::default()
    }

    fn handled(&mut self, from: ShardId, size: usize) {
        let Some(neighbour) = self.neighbour(from) else { return };
        neighbour.handled.messages += 1;
        neighbour.handled.bytes = neighbour.handled.bytes.saturating_add(size as u64);
        self.give_credit(from);
    }

    /// Gives credit back, half of all at a time, and none while too much is on its way to the store.
    pub(super) fn give_credit(&mut self, from: ShardId) {
        let is_full = self.journal.is_full();
        let Some(shards) = &mut self.shards else { return };
        let (messages, bytes) = (shards.credit.messages.div_ceil(2), shards.credit.bytes / 2);
        let Some(neighbour) = shards.neighbours.get_mut(usize::from(from.0)) else { return };
        if !is_full && (neighbour.handled.messages >= messages || neighbour.handled.bytes >= bytes.max(1)) {
            let credit = core::mem::replace(&mut neighbour.handled, ShardCredit { messages: 0, bytes: 0 });
            if defect!(ShardCreditLost) {
                return;
            }
            self.tell_shard(from, ShardMessage::Credit(credit));
        }
    }

    /// The other shard that retains this message, if it is to be retained and that is another one.
    pub(in crate::broker) fn retained_owner(&self, key: MessageKey) -> Option<ShardId> {
        let held = self.messages.get(key).filter(|held| held.retain)?;
        // What the broker says of itself stays where it is said.
        let topic = held.topic_str();
        self.router.foreign_owner(topic).filter(|_| !is_own(topic))
    }
}
