//! Routing of what is stored: one group of operations holds everything that a message changes, and a QoS 2 message is
//! seen by nobody before that is safe.

use super::message::MessageKey;
use super::route::{Fate, Routed, Source};
use super::router::{GroupKey, Matches, SessionKey};
use super::session::Delivery;
use super::shards::{Arrival, Onward, Passed};
use super::{Broker, delivery_qos};
use crate::defects::defect;
use crate::store::{EntryId, SessionId, StoredDelivery};
use crate::{Care, ShardId, StoreOp, StoreSeq};
use alloc::boxed::Box;
use alloc::vec::Vec;
use mqtt_proto::QoS;

/// A message whose routing is stored and must not be seen before that is confirmed.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) after: StoreSeq,
    pub(super) message: MessageKey,
    pub(super) deliveries: Vec<(SessionKey, SessionId, Delivery)>,
    pub(super) groups: Vec<(GroupKey, Option<EntryId>)>,
    /// Of the one group, if it belongs to another shard.
    pub(super) leaf: Option<(ShardId, Box<str>)>,
    /// Where else it goes.
    pub(super) onward: Option<Onward>,
    pub(super) passed: Option<Box<Passed>>,
}

impl Deferred {
    /// For nobody yet.
    pub(super) const fn new(after: StoreSeq, message: MessageKey) -> Self {
        Self {
            after,
            message,
            deliveries: Vec::new(),
            groups: Vec::new(),
            leaf: None,
            onward: None,
            passed: None,
        }
    }
}

impl Broker {
    /// One group of operations holds everything that the message changes; see the module `store`.
    pub(super) fn route_stored(&mut self, key: MessageKey, source: Source, matches: &Matches) -> Routed {
        let mut deliveries = Vec::with_capacity(matches.receivers.len());
        let mut groups = Vec::with_capacity(matches.groups.len());
        let mut appended = Vec::new();
        let mut routed = Routed::default();
        let Some(held) = self.messages.get(key) else {
            return Routed::default();
        };
        let (qos, retain, size) = (held.qos, held.retain(), held.size());
        for receiver in &matches.receivers {
            let Some(session) = self.sessions.get(receiver.session as usize) else { continue };
            let (id, stored) = (session.id, session.stored);
            let qos = delivery_qos(qos, receiver.qos);
            let retain = retain && (receiver.retain_as_published || defect!(RetainAsPublished));
            let fate = self.room_for(receiver.session, size, qos);
            routed.count(fate);
            if fate != Fate::Taken {
                continue;
            }
            let entry = (stored && qos > QoS::AtMostOnce).then(|| self.journal.new_entry());
            if let Some(entry) = entry {
                let subscription_ids = receiver.ids.as_slice().into();
                appended.push(StoredDelivery { session: id, entry, qos, retain, subscription_ids });
            }
            let ids = receiver.ids.clone();
            deliveries.push((
                receiver.session,
                id,
                Delivery { message: key, group: None, qos, retain, entry, ids },
            ));
        }
        for &group in &matches.groups {
            let fate = self.group_takes(group, key);
            routed.count(fate);
            if fate != Fate::Taken {
                continue;
            }
            let stored = self.router.group(group).and_then(|group| group.stored);
            let entry = stored.filter(|_| qos > QoS::AtMostOnce).map(|session| {
                let (entry, subscription_ids) = (self.journal.new_entry(), Box::default());
                appended.push(StoredDelivery { session, entry, qos, retain, subscription_ids });
                entry
            });
            groups.push((group, entry));
        }
        let mut onward = None;
        if source.arrival.is_none() {
            onward = self.onward(key, source.publisher, matches.elsewhere);
            let elsewhere = matches.elsewhere.count_ones() as usize;
            routed.matched += elsewhere;
            routed.accepted += elsewhere;
        }
        let barrier = match source.arrival {
            Some(arrival) => self.waits_behind(arrival.from),
            None => self.barrier_of(source.publisher),
        };
        if source.may_refuse && !retain && routed.has_no_room() {
            return Routed { is_refused: true, after: barrier, ..routed };
        }
        self.note_received(source);
        if !appended.is_empty()
            && !defect!(AppendMissing)
            && let Some(stored) = self.messages.store_body(key, &mut self.journal)
        {
            self.journal.op(StoreOp::Append(stored, appended));
        }
        let is_handed_over = source.exactly_once.is_some() || source.is_will;
        if let Some(onward) = &mut onward {
            self.announce(key, onward);
            if qos > QoS::AtMostOnce {
                self.take_care(key, onward, is_handed_over);
                routed.ticket = Self::ticket_of(onward);
            }
        }
        let mut is_seen_late = source.exactly_once.is_some();
        match source.arrival {
            Some(Arrival { from, retain, care }) => {
                if let Some(write) = retain {
                    self.retain_from(key, from, write);
                }
                if let Care::HandedOver(number) = care {
                    is_seen_late = true;
                    self.note_taken(from, number);
                }
            }
            None => self.retain_if_asked(key),
        }
        let own = self.journal.commit(&mut self.outputs);
        let stored = self.journal.stored();
        let after = if qos == QoS::AtMostOnce { barrier } else { own.max(barrier) };
        if (barrier > stored || is_seen_late && own > stored) && !defect!(RouteEarly) {
            if let Some(arrival) = source.arrival {
                self.set_waits_behind(arrival.from, after);
            } else if let Some(session) = source.publisher.and_then(|p| self.sessions.get_mut(p as usize)) {
                session.barrier = after;
            }
            if retain {
                self.unstored_retained.insert(key, after);
            }
            self.messages.hold(key);
            self.deferred.push_back(Deferred { deliveries, groups, onward, ..Deferred::new(after, key) });
        } else {
            for (session, _, mut delivery) in deliveries {
                self.enqueue(session, &mut delivery, size);
            }
            for (group, entry) in groups {
                self.hand_to_group(group, key, entry);
            }
            match onward {
                // Others hear of it when it is stored that they are to.
                Some(onward) if source.is_will && own > stored => {
                    self.messages.hold(key);
                    self.deferred.push_back(Deferred { onward: Some(onward), ..Deferred::new(own, key) });
                }
                Some(onward) => self.send_onward(key, &onward),
                None => {}
            }
        }
        if let Some(Arrival { from, care, .. }) = source.arrival {
            self.owe(from, care, own);
        }
        Routed { after, ..routed }
    }

    /// Routes what is confirmed by now.
    pub(super) fn route_deferred(&mut self) {
        while let Some(at) = self.deferred.iter().position(|d| d.after <= self.journal.stored()) {
            let Some(deferred) = self.deferred.remove(at) else { return };
            self.unstored_retained.remove(&deferred.message);
            let size = self.messages.get(deferred.message).map_or(0, super::message::Held::size);
            for (session, id, mut delivery) in deferred.deliveries {
                if self.sessions.get(session as usize).is_some_and(|s| s.id == id) {
                    self.enqueue(session, &mut delivery, size);
                }
            }
            for (group, entry) in deferred.groups {
                if let Some(leaf) = self.router.group_mut(group).and_then(|group| group.leaf.as_mut()) {
                    leaf.coming = leaf.coming.saturating_sub(u32::from(deferred.leaf.is_some()));
                }
                self.hand_to_group(group, deferred.message, entry);
                // It may have come back from the last shard that had not refused it.
                self.pump_group(group);
            }
            if let Some(onward) = deferred.onward {
                self.send_onward(deferred.message, &onward);
            }
            if let Some(passed) = deferred.passed {
                self.send_passed(deferred.message, *passed);
            }
            self.release_message(deferred.message);
        }
    }
}
