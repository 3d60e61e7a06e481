//! SUBSCRIBE and UNSUBSCRIBE.

use super::output::{Event, Question};
use super::router::{Left, SessionKey};
use super::shards::Then;
use super::{Broker, RefusedFilter31, delivery_qos};
use crate::defects::defect;
use crate::shared::rules::Rules;
use crate::{StoreOp, StoreSeq};
use alloc::vec::Vec;
use mqtt_proto::{
    PacketRef, PacketType, Properties, QoS, ReasonCode, SubackRef, SubscribeRef, SubscriptionOptions,
    TopicFilter, UnsubackRef, UnsubscribeRef,
};

impl Broker {
    pub(super) fn subscribe_arrived(&mut self, index: u32, packet: &SubscribeRef<'_>, bytes: &[u8]) {
        let Some(key) = self.connections.get(index).and_then(|c| c.session) else { return };
        if self.config.ask.subscribe {
            let filters =
                packet.filters.into_iter().map(|(f, options)| (f.as_str().into(), options.qos)).collect();
            let id = self.ask_of_session(index, key, Question::Subscribe { filters });
            self.wait_for(index, id, bytes);
            return;
        }
        self.subscribe_answered(index, packet, |_| Ok(()));
    }

    /// Carries out and answers [MQTT-3.8.4-1] a SUBSCRIBE for whose filters `verdict` tells, by their number, whether they are
    /// allowed. Several filters act like several SUBSCRIBEs ([MQTT-3.8.4-5]; [MQTT-3.8.4-4] of 3.1.1).
    pub(super) fn subscribe_answered(
        &mut self,
        index: u32,
        packet: &SubscribeRef<'_>,
        verdict: impl Fn(usize) -> Result<(), ReasonCode>,
    ) {
        let Some(c) = self.connections.get(index) else { return };
        let (Some(key), rules) = (c.session, Rules::of(c.version)) else { return };
        let id = packet.properties.subscription_identifier();
        // One code for each filter, in their order ([MQTT-3.8.4-6], [MQTT-3.8.4-7], [MQTT-3.9.3-1]).
        let mut codes = Vec::new();
        for (number, (filter, options)) in packet.filters.into_iter().enumerate() {
            let granted = match verdict(number) {
                Ok(()) => self.subscribe_one(key, filter, options, id),
                Err(reason) => Err(reason),
            };
            match granted {
                Ok(qos) => codes.push(qos.as_u8()),
                Err(_) if !rules.suback_refuses => {
                    if self.config.refused_filter_31 == RefusedFilter31::Hangup {
                        self.hang_up(index, ReasonCode::NotAuthorized, true);
                        return;
                    }
                    codes.push(0);
                }
                // [MQTT-3.9.3-2]: an answer may name any code.
                Err(reason)
                    if rules.acks_refuse && reason.is_error() && reason.is_allowed_in(PacketType::Suback) =>
                {
                    codes.push(reason.as_u8());
                }
                Err(_) => codes.push(ReasonCode::UnspecifiedError.as_u8()),
            }
        }
        if self.shards.is_some() {
            // Once every shard knows of it.
            let (conn, packet_id) = (self.id_of(index), packet.packet_id);
            let after = self.last_operation();
            self.sync(Then::Suback { conn, packet_id, codes, after });
            return;
        }
        // [MQTT-2.2.1-6] [MQTT-3.9.2-1] [MQTT-3.9.2-2]
        let suback = SubackRef { packet_id: packet.packet_id, properties: Properties::EMPTY, codes: &codes };
        self.put_stored(index, &PacketRef::Suback(suback));
    }

    /// Sends a packet once the operations of the one that it answers are stored.
    fn put_stored(&mut self, index: u32, packet: &PacketRef<'_>) {
        let after = self.last_operation();
        self.put_after(index, packet, after);
    }

    /// Closes the open group: what an answer waits for.
    fn last_operation(&mut self) -> StoreSeq {
        if self.journal.is_open() { self.journal.commit(&mut self.outputs) } else { StoreSeq(0) }
    }

    /// Sends a packet once this much is stored.
    pub(super) fn put_after(&mut self, index: u32, packet: &PacketRef<'_>, after: StoreSeq) {
        if after <= self.journal.stored() {
            self.put(index, packet);
            return;
        }
        let Some((version, max)) = self.connections.get(index).map(|c| (c.version, c.max_packet)) else {
            return;
        };
        // [MQTT-3.1.2-24]
        if packet.encoded_len(version).is_ok_and(|len| len > max as usize) {
            self.hang_up(index, ReasonCode::PacketTooLarge, true);
            return;
        }
        let mut bytes = Vec::new();
        if packet.encode(version, &mut bytes).is_ok()
            && let Some(extras) = self.extras(index)
        {
            extras.held_packets.push_back((after, bytes));
            let conn = self.id_of(index);
            self.waiting.push_back((after, conn));
        }
    }

    fn subscribe_one(
        &mut self,
        key: SessionKey,
        filter: TopicFilter<'_>,
        options: SubscriptionOptions,
        id: Option<u32>,
    ) -> Result<QoS, ReasonCode> {
        if !self.may_subscribe(key, filter) {
            return Err(ReasonCode::NotAuthorized);
        }
        let config = &self.config;
        // [MQTT-3.8.3-2] of 3.1.1
        if !config.wildcards_available && filter.has_wildcard() {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        if !config.shared_available && filter.shared().is_some() {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if !self.levels_fit(filter.as_str().as_bytes()) {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        if self.router.subscriptions_of(key) >= config.max_subscriptions as usize {
            return Err(ReasonCode::QuotaExceeded);
        }
        // SUBACK would wait for a store that does not work.
        if self.journal.has_failed() && self.sessions.get(key as usize).is_some_and(|s| s.stored) {
            return Err(ReasonCode::QuotaExceeded);
        }
        // [MQTT-3.2.2-10]: asking for more than there is is allowed, and granted as far as it goes.
        let options = SubscriptionOptions { qos: delivery_qos(options.qos, config.max_qos), ..options };
        let added = self.router.subscribe(key, filter, options, id);
        self.open_join(filter.as_str());
        if let Some(session) = self.sessions.get(key as usize).filter(|s| s.stored).map(|s| s.id) {
            self.store_group(filter);
            let filter = filter.as_str().into();
            self.journal.op(StoreOp::PutSubscription { session, filter, options, id });
        }
        if let Some(session) = self.sessions.get(key as usize) {
            let event = Event::Subscribed {
                client_id: session.client_id.as_ref().into(),
                filter: filter.as_str().into(),
                qos: options.qos,
            };
            self.event(event);
        }
        // [MQTT-3.8.4-4] ([MQTT-3.8.4-3] of 3.1.1)
        self.replay_retained(key, filter, options, id, added);
        Ok(options.qos)
    }

    /// Answered even if there was nothing to remove ([MQTT-3.10.4-4], [MQTT-3.10.4-5]). What was
    /// begun is completed ([MQTT-3.10.4-3]).
    pub(super) fn unsubscribe_arrived(&mut self, index: u32, packet: &UnsubscribeRef<'_>) {
        let Some(key) = self.connections.get(index).and_then(|c| c.session) else { return };
        let mut codes = Vec::new();
        let mut left = Left::default();
        let mut groups = Vec::new();
        for filter in packet.filters {
            groups.extend(self.router.group_of_filter(filter));
            self.leave_group(key, filter);
            let found = defect!(UnsubscribeIgnored) || self.router.unsubscribe(key, filter, &mut left);
            self.cancel_replay(key, filter);
            let code = if found { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
            codes.push(code.as_u8());
            let Some(session) = self.sessions.get(key as usize).filter(|_| found) else { continue };
            if session.stored {
                let op = StoreOp::DeleteSubscription { session: session.id, filter: filter.as_str().into() };
                self.journal.op(op);
            }
            let event = Event::Unsubscribed {
                client_id: session.client_id.as_ref().into(),
                filter: filter.as_str().into(),
            };
            self.event(event);
        }
        self.release_left(left);
        for group in groups {
            self.pump_group(group);
        }
        // [MQTT-2.2.1-6] [MQTT-3.10.4-6] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.11.3-1]
        let unsuback =
            UnsubackRef { packet_id: packet.packet_id, properties: Properties::EMPTY, codes: &codes };
        self.put_stored(index, &PacketRef::Unsuback(unsuback));
    }
}
