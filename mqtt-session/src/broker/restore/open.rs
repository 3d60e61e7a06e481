//! What a restart settles before anything else: messages on their way from shard to shard, and what several shards
//! refer to. Each step is one group of operations that is complete or not there: a crash in between is no harm.

use super::super::router::Matches;
use super::super::session::Delivery;
use super::super::shards::Arrival;
use super::super::sys::is_own;
use super::{Body, Restore, StoreGroup, StoreOp, home, number};
use crate::broker::route::Source;
use crate::broker::router::SubscriptionIds;
use crate::defects::defect;
use crate::random::IdMap;
use crate::store::{HandOver, StoredHandOver, StoredMessage, StoredShards};
use crate::{Care, ShardId};
use alloc::vec::Vec;
use mqtt_proto::TopicFilter;

/// The topic of a message, if it has one.
fn topic(message: &StoredMessage) -> Option<&str> {
    core::str::from_utf8(message.body.get(..usize::from(message.topic_len))?).ok()
}

impl Restore {
    /// Does all that, and tells how many messages were delivered.
    pub(super) fn settle(&mut self, first: &mut Vec<StoreGroup>) -> usize {
        // With what was noted about broken records.
        self.parts.iter_mut().for_each(super::Part::keep_groups);
        self.group(Vec::new(), first);
        for part in 0..self.parts.len() {
            while self.with(part, super::Part::settle_copy) {
                self.group(Vec::new(), first);
            }
            while self.with(part, super::Part::settle_moving) {
                self.group(Vec::new(), first);
            }
        }
        let delivered = self.settle_hand_overs(first);
        self.settle_bodies();
        let mut last: Vec<StoreOp> = Vec::new();
        // Without hand-overs, their numbers begin anew.
        let taken = core::mem::take(&mut self.taken);
        last.extend(taken.into_keys().map(|(by, from)| StoreOp::DeleteTaken { by, from }));
        let shards = StoredShards { count: self.count(), key: self.homes.key() };
        let is_news = self.before.map_or(shards.count > 1, |before| before != shards);
        last.extend(is_news.then_some(StoreOp::PutShards(shards)));
        self.group(last, first);
        delivered
    }

    /// Makes one group of what is open on all shards and `more`.
    pub(super) fn group(&mut self, more: Vec<StoreOp>, first: &mut Vec<StoreGroup>) {
        if let [part] = self.parts.as_mut_slice() {
            let broker = &mut part.broker;
            more.into_iter().for_each(|op| broker.journal.op(op));
            broker.journal.commit(&mut broker.outputs);
            return;
        }
        let open = self.parts.iter_mut().filter_map(|part| part.broker.journal.take_open());
        let mut ops: Vec<StoreOp> = open.flat_map(|group| group.ops.to_vec()).collect();
        // A broker that stores nothing has no groups.
        if self.parts.iter().any(|part| part.broker.journal.is_on()) {
            ops.extend(more);
        }
        if !ops.is_empty() {
            first.push(StoreGroup::new(ops));
        }
    }

    fn settle_hand_overs(&mut self, first: &mut Vec<StoreGroup>) -> usize {
        let records = core::mem::take(&mut self.hand_overs);
        let mut left: IdMap<u64, usize> = IdMap::default();
        for record in &records {
            *left.entry(record.message.0).or_default() += 1;
        }
        let mut delivered = 0;
        for record in records {
            let StoredHandOver { from, to, number, message: id, purpose } = record;
            let is_taken = self.taken.get(&(to, from)).is_some_and(|taken| number <= *taken);
            let mut ops: Vec<StoreOp> = [StoreOp::DeleteHandOver { from, to, number }].into();
            match self.message(id) {
                _ if is_taken && !defect!(ShardTakenAgain) => {}
                // What the broker says of itself is never on its way.
                Some(message) if !topic(&message).is_some_and(|topic| is_own(topic.as_bytes())) => {
                    self.hold_back(true);
                    self.deliver(to, &message, &purpose);
                    delivered += 1;
                }
                _ => self.dropped += 1,
            }
            let last = left.get_mut(&id.0).is_none_or(|left| {
                *left -= 1;
                *left == 0
            });
            if last && matches!(self.bodies.get(&id.0), Some(Body::Waiting(_))) {
                self.bodies.remove(&id.0);
                ops.push(StoreOp::DeleteMessage(id));
            }
            self.hold_back(false);
            self.group(ops, first);
        }
        delivered
    }

    /// Operations wait for the group that they belong to.
    fn hold_back(&mut self, held_back: bool) {
        self.parts.iter_mut().for_each(|part| part.broker.journal.hold_back(held_back));
    }

    fn deliver(&mut self, to: ShardId, message: &StoredMessage, purpose: &HandOver) {
        match purpose {
            HandOver::Publish { deliver, retain } => {
                for part in 0..self.parts.len() {
                    let retain = *retain && topic(message).is_some_and(|topic| self.home(topic) == part);
                    self.publish(part, to, message, *deliver, retain);
                }
            }
            HandOver::Group(filter) | HandOver::Back(filter) => self.queue(filter, message),
        }
    }

    /// Delivers to those whose shard was `to`.
    fn publish(&mut self, part: usize, to: ShardId, message: &StoredMessage, deliver: bool, retain: bool) {
        let before = self.before.map_or(self.parts.len(), |before| usize::from(before.count));
        let homes = self.homes.clone();
        let was_there = |name: &str| number(home(&homes, before, name)) == to;
        let Some(broker) = self.parts.get_mut(part).map(|part| &mut part.broker) else { return };
        let Some(key) = broker.messages.restore(message) else { return };
        let mut matches = Matches::default();
        if deliver {
            broker.match_here(key, None, &mut matches);
            let sessions = &broker.sessions;
            matches.receivers.retain(|receiver| {
                sessions.get(receiver.session as usize).is_some_and(|session| was_there(&session.client_id))
            });
            let router = &broker.router;
            matches.groups.retain(|group| router.filter_of_group(*group).is_some_and(|f| was_there(&f)));
        }
        let arrival = Arrival { from: broker.config.shard, retain: None, care: Care::None };
        broker.route_stored(key, Source { arrival: Some(arrival), ..Source::default() }, &matches);
        if retain {
            broker.retain_here(key);
        }
        broker.release_message(key);
    }

    /// Puts it into the queue of its group.
    fn queue(&mut self, filter: &str, message: &StoredMessage) {
        let owner = self.home(filter);
        let Some(part) = self.parts.get_mut(owner) else { return };
        let broker = &mut part.broker;
        let parsed = TopicFilter::new(filter).ok();
        let group = parsed.and_then(|parsed| Some((parsed, broker.router.group_of_filter(parsed)?)));
        let Some((parsed, group)) = group else {
            broker.counters.dropped.no_member += 1;
            return;
        };
        let Some(key) = broker.messages.restore(message) else { return };
        let Some(entry) = broker.append_to_group(parsed, key) else { return };
        let (qos, retain, ids) = (message.qos, message.retain, SubscriptionIds::None);
        let size = broker.messages.get(key).map_or(0, super::super::message::Held::size);
        if let Some(its) = broker.router.group_mut(group) {
            its.queued_bytes += size;
            let delivery =
                Delivery { message: key, group: Some(group), qos, retain, entry: Some(entry), ids };
            its.queue.push_back(&delivery);
        }
    }

    /// Bodies that nobody refers to go.
    fn settle_bodies(&mut self) {
        let mut waiting: Vec<_> = core::mem::take(&mut self.bodies).into_iter().collect();
        waiting.retain(|(_, body)| matches!(body, Body::Waiting(_)));
        waiting.sort_unstable_by_key(|(id, _)| *id);
        for (id, _) in waiting {
            self.with(0, |part| {
                part.forget_body(crate::store::MessageId(id));
                true
            });
        }
        // Not among what goes first.
        for part in &mut self.parts {
            part.broker.journal.commit(&mut part.broker.outputs);
        }
    }
}
