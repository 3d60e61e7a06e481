//! Messages from shard to shard, and the credit that they use up.

use super::super::message::{Content, Held, MessageKey};
use super::super::output::ConnectionId;
use super::super::route::Source;
use super::super::router::{Matches, Origin, SessionKey, bit};
use super::super::sys::is_own;
use super::care::Watch;
use super::{Broker, Shards, each};
use crate::defects::defect;
use crate::store::StoredMessage;
use crate::{Care, Run, ShardCredit, ShardId, ShardMessage};

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

/// Memory of runs that is kept for each other shard.
const KEPT: usize = 16 << 10;

impl Shards {
    fn put_into_run(&mut self, to: ShardId, content: &Content<'_>, is_awaited: bool) {
        if let Some(there) = self.neighbours.get_mut(usize::from(to.0)) {
            if there.run.messages() == 0 {
                there.run.reserve(there.last_run.min(KEPT));
            }
            there.run.push(content, is_awaited);
            self.untold |= bit(to);
        }
    }

    /// The memory of what came serves for what goes back.
    fn keep_memory(&mut self, from: ShardId, run: Run) {
        let memory = run.into_memory();
        if let Some(there) = self.neighbours.get_mut(usize::from(from.0))
            && there.run.size() == 0
            && memory.capacity() <= KEPT
        {
            there.run = Run::within(memory);
        }
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
        let conn = self.link_of(publisher);
        Some(Onward { wanting, owner, write: None, conn, watch: Watch::Nothing })
    }

    fn link_of(&self, publisher: Option<SessionKey>) -> Option<ConnectionId> {
        let session = publisher.and_then(|key| self.sessions.get(key as usize))?;
        session.link.map(|index| self.id_of(index))
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
        let size = self.messages.get(key).map_or(0, Held::body_len);
        self.use_credit(onward.targets(), size, onward.conn);
    }

    /// Uses up room for a message in other shards, a bit for each.
    fn use_credit(&mut self, targets: u64, len: usize, publisher: Option<ConnectionId>) {
        let mut full = None;
        for shard in each(targets) {
            let Some(neighbour) = self.neighbour(shard) else { continue };
            neighbour.messages -= 1;
            neighbour.bytes -= i64::try_from(len + OVERHEAD).unwrap_or(i64::MAX);
            if full.is_none() && (neighbour.messages <= 0 || neighbour.bytes <= 0) {
                full = Some(shard);
            }
        }
        if let Some(shard) = full.filter(|_| !defect!(ShardCreditIgnored)) {
            self.let_wait(shard, publisher);
        }
    }

    /// Sends a message that is not held to other shards, a bit for each, if there are any. It is one of a size that [`Run`]
    /// takes.
    #[inline]
    pub(in crate::broker) fn cross(
        &mut self,
        content: &Content<'_>,
        wanting: u64,
        publisher: Option<SessionKey>,
    ) {
        if wanting == 0 {
            return;
        }
        let conn = self.link_of(publisher);
        self.use_credit(wanting, content.len(), conn);
        if let Some(shards) = &mut self.shards {
            for shard in each(wanting) {
                shards.put_into_run(shard, content, false);
            }
        }
    }

    /// Sends a message to other shards, where it was announced.
    pub(in crate::broker) fn send_onward(&mut self, key: MessageKey, onward: &Onward) {
        let (wanting, owner) = (onward.wanting, onward.owner);
        let last = 63 - onward.targets().leading_zeros().min(63);
        let mut shared = None;
        for shard in each(onward.targets()) {
            let care = self.watch(shard, key, &onward.watch);
            let retain = onward.write.filter(|_| owner == Some(shard));
            let deliver = wanting & bit(shard) != 0;
            let Some(held) = self.messages.get(key) else { return };
            if let Some(shards) = &mut self.shards
                && retain.is_none()
                && deliver
                && !matches!(care, Care::HandedOver(_))
                && Run::takes(held.body_len())
            {
                shards.put_into_run(shard, &held.content(), care == Care::Acknowledged);
                continue;
            }
            let Some(stored) = shared.take().or_else(|| self.messages.to_stored(key)) else { return };
            // Who is alone with it takes it over.
            shared = (u32::from(shard.0) != last).then(|| stored.clone());
            let message = stored;
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
        let is_full = !self.has_memory_for(message.body.len());
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
            self.settle_who_waits();
        }
        self.handled(from, 1, size);
    }

    /// Small messages from another shard.
    pub(super) fn run_arrived(&mut self, from: ShardId, run: Run) {
        let mut size = 0;
        for (content, is_awaited) in run.iter() {
            size += content.len() + OVERHEAD;
            let care = if is_awaited { Care::Acknowledged } else { Care::None };
            self.content_arrived(from, &content, care);
        }
        self.close_batch();
        let messages = run.messages();
        if let Some(shards) = &mut self.shards {
            shards.keep_memory(from, run);
        }
        self.handled(from, messages, size);
    }

    fn content_arrived(&mut self, from: ShardId, content: &Content<'_>, care: Care) {
        if !self.has_memory_for(content.len()) {
            self.counters.dropped.memory_full += 1;
            let after = self.journal.commit(&mut self.outputs);
            self.owe(from, care, after);
            return;
        }
        if self.journal.is_on() && (care != Care::None || self.waits_behind(from) > self.journal.stored()) {
            self.close_batch();
            let key = self.messages.hold_content(content);
            self.route_behind(key, true, Arrival { from, retain: None, care });
            self.release_message(key);
            return;
        }
        if self.batch.is_for(content.shared.topic, None)
            && self.goes_through(content, self.batch.matches(), None)
        {
            self.push_to_batch(content);
            return;
        }
        let mut matches = core::mem::take(&mut self.matches);
        let mut origin = self.match_content(content, None, &mut matches);
        if self.goes_through(content, &matches, None) {
            if !self.may_join_batch(&matches) || !self.join_batch(content, None, &mut matches, &mut origin) {
                self.deliver_through(content, &matches);
            }
        } else if self.may_go_unheld(content, &matches) {
            self.close_batch();
            self.deliver_counted(content, &matches);
        } else if !(matches.receivers.is_empty() && matches.groups.is_empty()) {
            self.close_batch();
            let key = self.messages.hold_content(content);
            self.route_at_once(key, &matches);
            self.release_message(key);
        }
        self.router.give_back(origin, &mut matches);
        self.matches = matches;
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

    /// The same of one that is not held.
    #[inline]
    pub(in crate::broker) fn match_content(
        &mut self,
        content: &Content<'_>,
        publisher: Option<SessionKey>,
        matches: &mut Matches,
    ) -> Origin {
        let origin = self.router.matching(content.shared.topic, publisher, matches);
        if self.acls.is_empty() || !self.withhold(content.topic_str(), matches) {
            return origin;
        }
        Origin::default()
    }

    fn handled(&mut self, from: ShardId, messages: u32, size: usize) {
        let Some(neighbour) = self.neighbour(from) else { return };
        neighbour.handled.messages = neighbour.handled.messages.saturating_add(messages);
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
        let held = self.messages.get(key).filter(|held| held.retain())?;
        // What the broker says of itself stays where it is said.
        let topic = held.topic_str();
        self.router.foreign_owner(topic).filter(|_| !is_own(topic.as_bytes()))
    }
}
