//! Groups of shared subscriptions whose members are on several shards.
//!
//! The owner of a group has its queue. A shard with members announces how many messages these can have at once,
//! and gets at most that many; what finds no member after all goes back to the head of the queue.

use super::super::groups::Taker;
use super::super::message::{Held, MessageKey};
use super::super::router::{Group, GroupKey, Leaf, Left, SessionKey, SubscriptionIds, bit};
use super::super::session::Delivery;
use super::Broker;
use super::sync::Then;
use crate::defects::defect;
use crate::store::{SessionId, StoredMessage};
use crate::{Refused, ShardId, ShardMessage, StoreOp};
use alloc::string::String;
use alloc::vec::Vec;
use mqtt_proto::{QoS, TopicFilter};

/// What a subscriber of the program itself takes at once.
const LOCAL_SLOTS: usize = 64;
/// An owner may send at most so many messages before it hears of more room, however many members there are.
const MAX_SLOTS: usize = 1024;

/// What the members of a group can take.
struct Room {
    free: usize,
    /// If they had nothing, at most `MAX_SLOTS`.
    capacity: usize,
    /// Whether somebody is there.
    online: bool,
}

/// Whether more slots may have to be announced once members have room.
fn is_short(slots: u32, capacity: usize) -> bool {
    capacity > 0 && slots as usize <= capacity / 2
}

impl Broker {
    pub(super) fn group_named(&self, filter: &str) -> Option<GroupKey> {
        self.router.group_of_filter(TopicFilter::new(filter).ok()?)
    }

    // ---- the owner's side ----

    pub(super) fn group_joined(&mut self, from: ShardId, filter: &str, sync: u64, stored: bool) {
        if let Ok(parsed) = TopicFilter::new(filter) {
            self.router.add_share(parsed, from);
            if stored {
                self.store_group(parsed);
            }
        }
        self.sync(Then::Joined { to: from, sync });
    }

    pub(super) fn group_left(&mut self, from: ShardId, filter: &str) {
        let Some(key) = self.group_named(filter) else { return };
        let mut left = Left::default();
        self.router.remove_share(key, from, &mut left);
        self.release_left(left);
        self.pump_group(key);
    }

    pub(super) fn group_has_room(&mut self, from: ShardId, filter: &str, more: u32) {
        let Some(key) = self.group_named(filter) else { return };
        if let Some(group) = self.router.group_mut(key)
            && let Some(share) = group.shares.iter_mut().find(|share| share.shard == from)
        {
            share.slots = share.slots.saturating_add(more);
        }
        self.pump_group(key);
    }

    pub(super) fn group_tries_again(&mut self, from: ShardId, filter: &str) {
        let Some(key) = self.group_named(filter) else { return };
        if let Some(group) = self.router.group_mut(key) {
            group.try_again(from);
        }
        self.pump_group(key);
    }

    pub(super) fn group_closed(&mut self, from: ShardId, filter: &str) {
        if let Some(group) = self.group_named(filter).and_then(|key| self.router.group_mut(key))
            && let Some(share) = group.shares.iter_mut().find(|share| share.shard == from)
        {
            share.slots = 0;
        }
    }

    /// The other shard whose turn it is among those that have a member with room.
    pub(in crate::broker) fn ready_share(
        &self,
        key: GroupKey,
        message: MessageKey,
    ) -> Option<(usize, ShardId)> {
        let group = self.router.group(key)?;
        let turn = group.turn.saturating_sub(group.members.len()) % group.shares.len().max(1);
        let refused = group.refused(message);
        (turn..group.shares.len()).chain(0..turn).find_map(|at| {
            let share = group.shares.get(at)?;
            let may = share.slots > 0 && (refused.forbidden | refused.passed_over) & bit(share.shard) == 0;
            may.then_some((at, share.shard))
        })
    }

    /// Uses up a slot of another shard.
    fn give_to_share(&mut self, key: GroupKey, shard: ShardId, delivery: &Delivery, refused: Refused) {
        let Some(filter) = self.router.filter_of_group(key) else { return };
        let stored = self.router.group(key).and_then(|group| group.stored);
        if let Some(group) = self.router.group_mut(key)
            && let Some(share) = group.shares.iter_mut().find(|share| share.shard == shard)
        {
            share.slots = share.slots.saturating_sub(u32::from(!defect!(ShardSlotsIgnored)));
        }
        if let (Some(stored), Some(entry)) = (stored, delivery.entry) {
            self.journal.op(StoreOp::RemoveEntry(stored, entry));
            self.pass(shard, delivery.message, filter, false, refused);
        } else if let Some(message) = self.messages.to_stored(delivery.message) {
            self.tell_shard(shard, ShardMessage::GroupDeliver { filter, message, number: None, refused });
        }
    }

    /// Messages come back. They are older than all that wait.
    pub(super) fn group_gets_back(
        &mut self,
        from: ShardId,
        filter: &str,
        messages: &[(StoredMessage, Option<u64>)],
        refused: Refused,
    ) {
        let key = self.group_named(filter);
        for (stored, number) in messages.iter().rev() {
            if let Some(number) = *number {
                self.take_over(from, filter, stored, number, true, refused);
                continue;
            }
            let Some(message) = self.messages.restore(stored) else { continue };
            let size = self.messages.get(message).map_or(0, Held::size);
            let Some(group) = key.and_then(|key| self.router.group_mut(key)) else {
                self.counters.dropped.no_member += 1;
                self.release_message(message);
                continue;
            };
            let (qos, retain, ids) = (stored.qos, stored.retain, SubscriptionIds::None);
            group.queued_bytes += size;
            group.queue.push_front(&Delivery { message, group: key, qos, retain, entry: None, ids });
            group.came_back(message, from, refused);
        }
        if let Some(key) = key {
            self.pump_group(key);
        }
    }

    // ---- the members' side ----

    /// A message of a group of another shard, against a slot.
    pub(super) fn group_gets(
        &mut self,
        from: ShardId,
        filter: String,
        stored: StoredMessage,
        number: Option<u64>,
        refused: Refused,
    ) {
        let group = self.group_named(&filter);
        if let Some(key) = group
            && let Some(leaf) = self.router.group_mut(key).and_then(|group| group.leaf.as_mut())
        {
            leaf.slots = leaf.slots.saturating_sub(1);
            self.router.set_hungry(key, true);
        }
        if let Some(number) = number {
            self.take_over(from, &filter, &stored, number, false, refused);
            return;
        }
        let Some(key) = group else {
            let messages = [(stored, None)].into();
            self.tell_shard(from, ShardMessage::GroupReturn { filter, messages, refused });
            return;
        };
        if let Some(message) = self.messages.restore(&stored) {
            if let Some(group) = self.router.group_mut(key) {
                group.note_refused(message, refused);
            }
            self.hand_to_group(key, message, None);
            self.release_message(message);
        }
        self.pump_group(key);
    }

    pub(super) fn settle_leaf_of(&mut self, filter: &str) {
        if let Some(key) = self.group_named(filter) {
            self.pump_group(key);
        }
    }

    /// Gives back what no member can have now, and tells the owner how many more there is room for.
    pub(in crate::broker) fn settle_leaf(&mut self, key: GroupKey) {
        let Some(group) = self.router.group(key) else { return };
        let Some(leaf) = &group.leaf else { return };
        let (owner, had, coming, again) = (leaf.owner, leaf.slots, leaf.coming as usize, leaf.passed_over);
        let Room { free, capacity, online } = self.room_of(group, MAX_SLOTS.saturating_add(coming));
        let has_room = free > 0;
        let room = u32::try_from(free.saturating_sub(coming)).unwrap_or(u32::MAX);
        let closes = !online && had > 0;
        let grants = online && room > had && had <= room / 2;
        let retries = group.queue.is_empty() && again && online;
        if group.queue.is_empty() && !closes && !grants && !retries {
            self.router.set_hungry(key, again || is_short(had, capacity));
            return;
        }
        let stored = group.stored;
        let filter = String::from(&*leaf.filter);
        if closes {
            // Before anything goes back, or it would be sent again at once.
            self.tell_shard(owner, ShardMessage::GroupClosed { filter: filter.clone() });
            if let Some(leaf) = self.router.group_mut(key).and_then(|group| group.leaf.as_mut()) {
                leaf.slots = 0;
            }
        }
        let mut waiting: Vec<(Delivery, Refused)> = Vec::new();
        if let Some(group) = self.router.group_mut(key) {
            group.queued_bytes = 0;
            let queue = core::mem::take(&mut group.queue);
            waiting.extend(queue.into_iter().map(|delivery| {
                let refused = group.take_refused(delivery.message);
                (delivery, refused)
            }));
        }
        if retries {
            if let Some(leaf) = self.router.group_mut(key).and_then(|group| group.leaf.as_mut()) {
                leaf.passed_over = false;
            }
            self.tell_shard(owner, ShardMessage::GroupAgain { filter: filter.clone() });
        }
        // Only the first one was offered to the members.
        if has_room && let Some((_, refused)) = waiting.first_mut() {
            refused.passed_over |= bit(self.config.shard);
        }
        // What comes back later stands before the rest.
        while let Some((last, refused)) = waiting.pop() {
            let others = waiting.iter().rposition(|(_, other)| *other != refused).map_or(0, |at| at + 1);
            let alike = waiting.drain(others..).map(|(delivery, _)| delivery);
            let alike: Vec<Delivery> = alike.chain([last]).collect();
            self.give_back_to(owner, &filter, stored, alike, refused);
        }
        if grants {
            self.tell_shard(owner, ShardMessage::GroupSlots { filter, more: room - had });
        }
        let Some(leaf) = self.router.group_mut(key).and_then(|group| group.leaf.as_mut()) else { return };
        if grants {
            leaf.slots = room;
        }
        let hungry = leaf.passed_over || is_short(leaf.slots, capacity);
        self.router.set_hungry(key, hungry);
    }

    /// What the members of a group can take, as far as it matters: those behind who has `enough` are not asked.
    fn room_of(&self, group: &Group, enough: usize) -> Room {
        let mut room = Room { free: 0, capacity: 0, online: false };
        for member in &group.members {
            let Some(session) = self.sessions.get(member.session as usize) else { continue };
            let (free, capacity) = if session.local.is_some() {
                (LOCAL_SLOTS, LOCAL_SLOTS)
            } else if let Some(connection) = session.link.and_then(|link| self.connections.get(link)) {
                let capacity = usize::from(connection.window.max());
                (capacity.saturating_sub(session.queue.len() + session.ledger.len()), capacity)
            } else {
                continue;
            };
            room.online = true;
            room.free = room.free.saturating_add(free).min(enough);
            room.capacity = room.capacity.saturating_add(capacity).min(MAX_SLOTS);
            if room.free == enough {
                break;
            }
        }
        room
    }

    /// Whether none of a session's groups, as far as they are looked at, wants something of it that is not among the
    /// hungry ones. For checks.
    pub(in crate::broker) fn only_the_hungry_want_something(&self, key: SessionKey) -> bool {
        let groups = self.router.groups_of(key).iter().take(16);
        groups.filter_map(|&key| self.router.group(key)).all(|group| {
            let is_short = |leaf: &Leaf| {
                leaf.passed_over || is_short(leaf.slots, self.room_of(group, usize::MAX).capacity)
            };
            group.is_hungry() || group.queue.is_empty() && !group.leaf.as_deref().is_some_and(is_short)
        })
    }

    pub(in crate::broker) fn give_back_to(
        &mut self,
        owner: ShardId,
        filter: &str,
        stored: Option<SessionId>,
        deliveries: impl IntoIterator<Item = Delivery>,
        refused: Refused,
    ) {
        let mut messages = Vec::new();
        for delivery in deliveries {
            if delivery.entry.is_some() && !defect!(ShardReturnLost) {
                self.pass_back(owner, filter, stored, &delivery, refused);
            } else {
                let stored = self.messages.to_stored(delivery.message);
                let stored = stored.filter(|stored| stored.qos > QoS::AtMostOnce);
                messages.extend(stored.map(|stored| (stored, None)));
            }
            self.release_message(delivery.message);
        }
        if !messages.is_empty() && !defect!(ShardReturnLost) {
            self.note_passed_over(filter, refused);
            let filter = filter.into();
            self.tell_shard(owner, ShardMessage::GroupReturn { filter, messages, refused });
        }
    }

    /// The owner is to hear when members can have what goes back now.
    pub(super) fn note_passed_over(&mut self, filter: &str, refused: Refused) {
        let own = bit(self.config.shard);
        let Some(key) = self.group_named(filter).filter(|_| refused.passed_over & own != 0) else { return };
        if let Some(leaf) = self.router.group_mut(key).and_then(|group| group.leaf.as_mut()) {
            leaf.passed_over = true;
            self.router.set_hungry(key, true);
        }
    }

    /// The last member of a group of another shard has left.
    pub(in crate::broker) fn leave_owner(&mut self, leaf: &Leaf, deliveries: Vec<Delivery>) {
        self.give_back_to(leaf.owner, &leaf.filter, None, deliveries, Refused::default());
        self.pass_back_what_comes(leaf.owner, &leaf.filter);
        self.tell_shard(leaf.owner, ShardMessage::GroupLeave { filter: (*leaf.filter).into() });
    }

    /// Whom a message of a group goes to.
    pub(in crate::broker) fn hand_to(
        &mut self,
        key: GroupKey,
        taker: Taker,
        delivery: Delivery,
        size: usize,
    ) {
        let group = self.router.group_mut(key);
        let refused = group.map(|group| group.take_refused(delivery.message)).unwrap_or_default();
        match taker {
            Taker::Member(member) => {
                let _ = self.give_to_member(member, delivery, size);
            }
            Taker::Shard(shard) => self.give_to_share(key, shard, &delivery, refused),
        }
    }
}
