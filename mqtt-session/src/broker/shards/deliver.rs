//! Messages from shard to shard, and the credit that they use up.

use super::super::message::MessageKey;
use super::super::output::ConnectionId;
use super::super::router::{Matches, Origin, SessionKey, bit};
use super::super::sys::is_own;
use super::{Broker, each};
use crate::defects::defect;
use crate::store::StoredMessage;
use crate::{ShardCredit, ShardId, ShardMessage};

/// What a message counts against credit beyond its body.
const OVERHEAD: usize = 64;

impl Broker {
    /// Hands a message to the shards that want it (a bit for each) and to the one that retains it. Tells how many want it.
    ///
    /// A publisher whose message used up the room somewhere is not read until there is some again. So a slow
    /// shard has at most one message more of each publisher than it asked for.
    pub(in crate::broker) fn hand_over(
        &mut self,
        key: MessageKey,
        publisher: Option<SessionKey>,
        wanting: u64,
    ) -> usize {
        let owner = self.retained_owner(key);
        let targets = wanting | owner.map_or(0, bit);
        if targets == 0 {
            return 0;
        }
        let Some(held) = self.messages.get(key) else { return 0 };
        let message = held.to_stored();
        let size = message.body.len() + OVERHEAD;
        let mut full = None;
        for shard in each(targets) {
            let Some(shards) = &mut self.shards else { return 0 };
            let mut retain = None;
            if owner == Some(shard)
                && let Some(write) = shards.writes.get_mut(usize::from(shard.0))
            {
                *write += 1;
                retain = Some(*write);
            }
            let Some(neighbour) = shards.neighbours.get_mut(usize::from(shard.0)) else { continue };
            neighbour.messages -= 1;
            neighbour.bytes -= i64::try_from(size).unwrap_or(i64::MAX);
            if full.is_none() && (neighbour.messages <= 0 || neighbour.bytes <= 0) {
                full = Some(shard);
            }
            let deliver = wanting & bit(shard) != 0;
            self.tell_shard(shard, ShardMessage::Deliver { message: message.clone(), deliver, retain });
        }
        if let Some(shard) = full.filter(|_| !defect!(ShardCreditIgnored)) {
            self.let_wait(shard, publisher);
        }
        wanting.count_ones() as usize
    }

    fn let_wait(&mut self, shard: ShardId, publisher: Option<SessionKey>) {
        let link = publisher.and_then(|key| self.sessions.get(key as usize)).and_then(|session| session.link);
        let Some(index) = link else { return };
        let conn = self.id_of(index);
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
        message: &StoredMessage,
        deliver: bool,
        retain: Option<u64>,
    ) {
        let size = message.body.len() + OVERHEAD;
        if self.messages.bytes() + message.body.len() > self.config.max_message_bytes {
            self.counters.dropped.memory_full += 1;
            self.counters.dropped.not_retained += u64::from(retain.is_some());
        } else if let Some(key) = self.messages.restore(message) {
            if let Some(write) = retain {
                self.retain_from(key, from, write);
            }
            if deliver {
                self.route_here(key);
            }
            self.release_message(key);
        }
        if let Some(write) = retain {
            if let Some(neighbour) = self.neighbour(from) {
                neighbour.applied = write;
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

    /// Gives credit back, half of all at a time.
    fn handled(&mut self, from: ShardId, size: usize) {
        let Some(shards) = &mut self.shards else { return };
        let (messages, bytes) = (shards.credit.messages.div_ceil(2), shards.credit.bytes / 2);
        let Some(neighbour) = shards.neighbours.get_mut(usize::from(from.0)) else { return };
        neighbour.handled.messages += 1;
        neighbour.handled.bytes = neighbour.handled.bytes.saturating_add(size as u64);
        if neighbour.handled.messages >= messages || neighbour.handled.bytes >= bytes {
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
