//! Groups of shared subscriptions whose members are on several shards.
//!
//! The owner of a group has its queue. A shard with members announces how many messages these can have at once,
//! and gets at most that many; what finds no member after all goes back to the head of the queue.

use super::super::groups::Taker;
use super::super::message::{Held, MessageKey};
use super::super::router::{GroupKey, Leaf, Left, SubscriptionIds, bit};
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
        if let Some(leaf) = group.and_then(|key| self.router.group_mut(key)).and_then(|g| g.leaf.as_mut()) {
            leaf.slots = leaf.slots.saturating_sub(1);
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
        let stored = group.stored;
        let filter = String::from(&*leaf.filter);
        let room: usize = group.members.iter().map(|member| self.free_slots(member.session)).sum();
        let has_room = room > 0;
        let room = room.saturating_sub(coming);
        let online = group.members.iter().any(|member| self.is_online(member.session));
        if !online && had > 0 {
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
        if waiting.is_empty() && again && online {
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
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        if online && room > had && had <= room / 2 {
            self.tell_shard(owner, ShardMessage::GroupSlots { filter, more: room - had });
            if let Some(leaf) = self.router.group_mut(key).and_then(|group| group.leaf.as_mut()) {
                leaf.slots = room;
            }
        }
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
        let group = self.group_named(filter).filter(|_| refused.passed_over & own != 0);
        if let Some(leaf) = group.and_then(|key| self.router.group_mut(key)).and_then(|g| g.leaf.as_mut()) {
            leaf.passed_over = true;
        }
    }

    /// The last member of a group of another shard has left.
    pub(in crate::broker) fn leave_owner(&mut self, leaf: &Leaf, deliveries: Vec<Delivery>) {
        self.give_back_to(leaf.owner, &leaf.filter, None, deliveries, Refused::default());
        self.pass_back_what_comes(leaf.owner, &leaf.filter);
        self.tell_shard(leaf.owner, ShardMessage::GroupLeave { filter: (*leaf.filter).into() });
    }

    fn is_online(&self, session: u32) -> bool {
        self.sessions.get(session as usize).is_some_and(|s| s.link.is_some() || s.local.is_some())
    }

    fn free_slots(&self, session: u32) -> usize {
        let Some(session) = self.sessions.get(session as usize) else { return 0 };
        if session.local.is_some() {
            return LOCAL_SLOTS;
        }
        let Some(connection) = session.link.and_then(|link| self.connections.get(link)) else { return 0 };
        usize::from(connection.window.max()).saturating_sub(session.queue.len() + session.ledger.len())
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
