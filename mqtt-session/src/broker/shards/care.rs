//! Messages for other shards that somebody depends on.
//!
//! - The publisher of a QoS 1 message gets its PUBACK when every shard that gets the message has told that it is
//!   safe there. Until then nothing is stored here for them.
//! - A QoS 2 message, a will above QoS 0 and what goes to or comes back from a group of another shard is *handed
//!   over*: the group of operations that says so here has a record for each receiver. The message is sent once
//!   that is stored; the receiver stores what it changes together with the record's number, and nobody sees the
//!   message before that. When the receiver tells that it is safe, the record goes. A restart finishes what is open
//!   (`restore`).
//!
//! What is safe is told in the order in which it came, so a count is enough.

use super::super::deferred::Deferred;
use super::super::message::MessageKey;
use super::super::output::ConnectionId;
use super::super::session::Delivery;
use super::deliver::Onward;
use super::{Broker, bit, each};
use crate::defects::defect;
use crate::store::{HandOver, SessionId, StoredHandOver, StoredMessage};
use crate::{Care, Refused, ShardId, ShardMessage, StoreOp, StoreSeq};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use mqtt_proto::TopicFilter;

/// What depends on a message that goes to other shards.
#[derive(Debug)]
pub(super) enum Watch {
    Nothing,
    /// The acknowledgement with this ticket.
    Ticket(u64),
    /// The hand-overs that are stored, by receiver.
    HandOvers(Vec<(ShardId, u64)>),
}

/// A message that another shard has not told to be safe.
#[derive(Debug)]
pub(super) enum Watched {
    /// An acknowledgement waits for it.
    Acknowledgement(u64),
    /// It is stored as handed over, and held.
    HandOver { number: u64, message: MessageKey },
}

/// What an acknowledgement waits for beyond the store of its own shard.
#[derive(Debug)]
pub(super) struct Ticket {
    conn: Option<ConnectionId>,
    /// How many shards have not told.
    waiting: u32,
}

/// A message that is handed over to a group or comes back to one, to be sent once that is stored.
#[derive(Debug)]
pub(in crate::broker) struct Passed {
    to: ShardId,
    number: u64,
    filter: String,
    /// It comes back.
    back: bool,
    refused: Refused,
}

impl Broker {
    // ---- the sender's side ----

    /// Makes sure that nothing is lost of a message that goes to other shards: stores hand-overs in the open group,
    /// or has its acknowledgement wait.
    pub(in crate::broker) fn take_care(
        &mut self,
        key: MessageKey,
        onward: &mut Onward,
        is_handed_over: bool,
    ) {
        if is_handed_over {
            let mut numbers = Vec::new();
            for shard in each(onward.targets()) {
                let deliver = onward.wanting & bit(shard) != 0;
                let retain = onward.owner == Some(shard);
                let purpose = HandOver::Publish { deliver, retain };
                numbers.extend(self.store_hand_over(shard, key, purpose).map(|number| (shard, number)));
            }
            onward.watch = Watch::HandOvers(numbers);
        } else if let Some(shards) = &mut self.shards {
            let ticket = shards.next();
            let waiting = onward.targets().count_ones();
            shards.tickets.insert(ticket, Ticket { conn: onward.conn, waiting });
            onward.watch = Watch::Ticket(ticket);
        }
    }

    fn store_hand_over(&mut self, to: ShardId, key: MessageKey, purpose: HandOver) -> Option<u64> {
        let message = self.messages.store_body(key, &mut self.journal)?;
        let from = self.config.shard;
        let neighbour = self.neighbour(to)?;
        neighbour.handed_over += 1;
        let number = neighbour.handed_over;
        if !defect!(ShardHandOverUnstored) {
            let record = StoredHandOver { from, to, number, message, purpose };
            self.journal.op(StoreOp::PutHandOver(Box::new(record)));
        }
        Some(number)
    }

    /// A message is being sent to `shard`: what the receiver has to know of it.
    pub(super) fn watch(&mut self, shard: ShardId, key: MessageKey, watch: &Watch) -> Care {
        let watched = match watch {
            Watch::Nothing => return Care::None,
            Watch::Ticket(ticket) => Watched::Acknowledgement(*ticket),
            Watch::HandOvers(numbers) => {
                let Some(&(_, number)) = numbers.iter().find(|(to, _)| *to == shard) else {
                    return Care::None;
                };
                self.messages.hold(key);
                Watched::HandOver { number, message: key }
            }
        };
        let care = match &watched {
            Watched::Acknowledgement(_) => Care::Acknowledged,
            Watched::HandOver { number, .. } => Care::HandedOver(*number),
        };
        if let Some(neighbour) = self.neighbour(shard) {
            neighbour.watched.push_back(watched);
        }
        care
    }

    /// The ticket for which an acknowledgement has to wait; 0 for none.
    pub(in crate::broker) const fn ticket_of(onward: &Onward) -> u64 {
        match onward.watch {
            Watch::Ticket(ticket) => ticket,
            _ => 0,
        }
    }

    /// Whether an acknowledgement with this ticket may leave.
    pub(in crate::broker) fn is_settled(&self, ticket: u64) -> bool {
        ticket == 0 || !self.shards.as_ref().is_some_and(|shards| shards.tickets.contains_key(&ticket))
    }

    /// Whether other shards have all told of what somebody here depends on.
    pub(in crate::broker) fn is_cared_for(&self) -> bool {
        let mut neighbours = self.shards.iter().flat_map(|shards| &shards.neighbours);
        neighbours.all(|neighbour| neighbour.watched.is_empty())
    }

    /// The next messages that were sent to `from` are safe.
    pub(super) fn told_safe(&mut self, from: ShardId, messages: u32) {
        for _ in 0..messages {
            let Some(watched) = self.neighbour(from).and_then(|there| there.watched.pop_front()) else {
                return;
            };
            match watched {
                Watched::Acknowledgement(ticket) => self.settle_ticket(ticket),
                Watched::HandOver { number, message } => {
                    let own = self.config.shard;
                    self.journal.op(StoreOp::DeleteHandOver { from: own, to: from, number });
                    self.release_message(message);
                }
            }
        }
        self.take_leave();
    }

    fn settle_ticket(&mut self, number: u64) {
        let Some(shards) = &mut self.shards else { return };
        let Some(ticket) = shards.tickets.get_mut(&number) else { return };
        ticket.waiting = ticket.waiting.saturating_sub(1);
        if ticket.waiting > 0 {
            return;
        }
        let conn = ticket.conn;
        shards.tickets.remove(&number);
        if let Some(index) = conn.and_then(|conn| self.index_of(conn)) {
            self.release_held(index);
            self.queue_flush(index);
        }
    }

    /// Hands a message over to a group of another shard, or back to the shard of one: sent once that is stored.
    pub(super) fn pass(
        &mut self,
        to: ShardId,
        key: MessageKey,
        filter: String,
        back: bool,
        refused: Refused,
    ) {
        let purpose = if back { HandOver::Back(filter.clone()) } else { HandOver::Group(filter.clone()) };
        let Some(number) = self.store_hand_over(to, key, purpose) else { return };
        let after = self.journal.next_seq();
        self.messages.hold(key);
        let passed = Some(Box::new(Passed { to, number, filter, back, refused }));
        self.deferred.push_back(Deferred { passed, ..Deferred::new(after, key) });
    }

    /// It is stored.
    pub(in crate::broker) fn send_passed(&mut self, key: MessageKey, passed: Passed) {
        let Passed { to, number, filter, back, mut refused } = passed;
        let Some(message) = self.messages.to_stored(key) else { return };
        self.watch(to, key, &Watch::HandOvers([(to, number)].into()));
        let number = Some(number);
        let message = if back {
            // A member that can have it may have come meanwhile.
            let group = self.group_named(&filter);
            if group.is_some_and(|group| self.has_ready_member(group, key)) {
                refused.passed_over &= !bit(self.config.shard);
            }
            self.note_passed_over(&filter, refused);
            ShardMessage::GroupReturn { filter, messages: [(message, number)].into(), refused }
        } else {
            ShardMessage::GroupDeliver { filter, message, number, refused }
        };
        self.tell_shard(to, message);
    }

    // ---- the receiver's side ----

    /// The latest of what came from another shard and waits to be routed; what comes later waits behind it.
    pub(in crate::broker) fn waits_behind(&self, from: ShardId) -> StoreSeq {
        let there = self.shards.as_ref().and_then(|shards| shards.neighbours.get(usize::from(from.0)));
        there.map_or(StoreSeq(0), |there| there.barrier)
    }

    pub(in crate::broker) fn set_waits_behind(&mut self, from: ShardId, after: StoreSeq) {
        if let Some(there) = self.neighbour(from) {
            there.barrier = after;
        }
    }

    /// Stores that a hand-over was taken.
    pub(in crate::broker) fn note_taken(&mut self, from: ShardId, number: u64) {
        let by = self.config.shard;
        if !defect!(ShardTakenUnstored) {
            self.journal.op(StoreOp::PutTaken { by, from, number });
        }
    }

    /// What came from `from` is safe once `after` is stored: it is to be told so.
    pub(in crate::broker) fn owe(&mut self, from: ShardId, care: Care, after: StoreSeq) {
        if care == Care::None {
            return;
        }
        let after = if defect!(ShardSafeEarly) { StoreSeq(0) } else { after };
        if let Some(there) = self.neighbour(from) {
            there.owed.push_back(after);
        }
        self.pay(from);
    }

    fn pay(&mut self, from: ShardId) {
        let stored = self.journal.stored();
        let Some(shards) = &mut self.shards else { return };
        let Some(there) = shards.neighbours.get_mut(usize::from(from.0)) else { return };
        while there.owed.front().is_some_and(|after| *after <= stored) {
            there.owed.pop_front();
            there.safe += 1;
            shards.untold |= bit(from);
        }
    }

    /// More is stored: others are told what of theirs is safe, and may send more.
    pub(in crate::broker) fn stored_for_others(&mut self) {
        let others = self.shards.as_ref().map_or(0, |shards| shards.others());
        for shard in each(others) {
            self.pay(shard);
            self.give_credit(shard);
        }
        if others != 0 {
            self.go_on_answering();
        }
    }

    /// Takes over a message for a group here, or one that comes back to a group of this shard.
    pub(super) fn take_over(
        &mut self,
        from: ShardId,
        filter: &str,
        stored: &StoredMessage,
        number: u64,
        back: bool,
        refused: Refused,
    ) {
        self.note_taken(from, number);
        if let Some(key) = self.messages.restore(stored) {
            self.take_into_group(from, filter, key, back, refused);
            self.release_message(key);
        }
        // There is an operation.
        let after = self.journal.next_seq();
        self.owe(from, Care::HandedOver(number), after);
    }

    fn take_into_group(
        &mut self,
        from: ShardId,
        filter: &str,
        key: MessageKey,
        back: bool,
        refused: Refused,
    ) {
        let Ok(parsed) = TopicFilter::new(filter) else { return };
        let Some(group) = self.router.group_of_filter(parsed) else {
            if back {
                self.counters.dropped.no_member += 1;
            } else {
                // The last member left meanwhile.
                self.pass(from, key, filter.into(), true, refused);
            }
            return;
        };
        let Some(entry) = self.append_to_group(parsed, key) else { return };
        let mut leaf = None;
        if let Some(group) = self.router.group_mut(group) {
            if back {
                group.came_back(key, from, refused);
            } else {
                group.note_refused(key, refused);
            }
            if let Some(its) = &mut group.leaf {
                its.coming += 1;
                leaf = Some((its.owner, its.filter.clone()));
            }
        }
        let after = self.journal.next_seq();
        self.messages.hold(key);
        let groups = [(group, Some(entry))].into();
        self.deferred.push_back(Deferred { groups, leaf, ..Deferred::new(after, key) });
    }

    /// The last member of a group of another shard has left: what was on its way to it goes back.
    pub(super) fn pass_back_what_comes(&mut self, owner: ShardId, filter: &str) {
        let mut coming = Vec::new();
        for deferred in &mut self.deferred {
            if deferred.leaf.take_if(|(_, its)| **its == *filter).is_some() {
                deferred.groups.clear();
                coming.push(deferred.message);
            }
        }
        for key in coming {
            self.pass(owner, key, filter.into(), true, Refused::default());
        }
    }

    /// Hands what is in the store of a group of another shard back, and removes it here.
    pub(super) fn pass_back(
        &mut self,
        owner: ShardId,
        filter: &str,
        stored: Option<SessionId>,
        delivery: &Delivery,
        refused: Refused,
    ) {
        if let (Some(entry), Some(stored)) = (delivery.entry, stored) {
            self.journal.op(StoreOp::RemoveEntry(stored, entry));
        }
        self.pass(owner, delivery.message, filter.into(), true, refused);
    }
}
