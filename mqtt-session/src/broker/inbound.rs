//! PUBLISH from clients, and the acknowledgements of both directions.

use super::Broker;
use super::connection::HeldAck;
use super::count::count;
use super::message::Incoming;
use super::output::Question;
use super::route::Source;
use super::router::SessionKey;
use crate::defects::defect;
use crate::shared::ledger::Acked;
use crate::shared::received::Receipt;
use crate::shared::rules::Rules;
use crate::store::StoredStage;
use crate::{StoreOp, StoreSeq, Timestamp};
use alloc::string::String;
use mqtt_proto::{
    AckRef, PacketId, PacketRef, PacketType, PropertiesBuf, PropertyId, QoS, RawPublish, ReasonCode,
};

impl Broker {
    /// Whether clients may publish there at all: `$SYS` is the broker's, and `$share` is no topic.
    pub(super) fn may_publish_to(&self, topic: &[u8]) -> bool {
        let is_share = || topic.strip_prefix(b"$share").is_some_and(|r| r.is_empty() || r.starts_with(b"/"));
        if topic.starts_with(b"$") && (super::sys::is_own(topic) || is_share()) {
            return false;
        }
        self.levels_fit(topic)
    }

    pub(super) fn levels_fit(&self, topic: &[u8]) -> bool {
        let max = usize::from(self.config.max_topic_levels);
        // A level takes at least its separator, so short topics need no counting.
        topic.len() < max || topic.iter().filter(|&&b| b == b'/').count() < max
    }

    /// A PUBLISH: the checks that need no answer, then the question, then on.
    pub(super) fn publish_arrived(&mut self, index: u32, packet: &RawPublish<'_>, bytes: &[u8]) {
        count(&mut self.counters.publish_received, packet.qos);
        self.counters.payload_received += packet.payload.len() as u64;
        if packet.qos > self.config.max_qos {
            self.hang_up(index, ReasonCode::QosNotSupported, true);
            return;
        }
        if packet.retain && !self.config.retain_available {
            self.hang_up(index, ReasonCode::RetainNotSupported, true);
            return;
        }
        // [MQTT-3.3.4-6]
        if packet.properties.contains(PropertyId::SubscriptionIdentifier) {
            self.hang_up(index, ReasonCode::ProtocolError, true);
            return;
        }
        let Some(c) = self.connections.get_mut(index) else { return };
        c.received += 1;
        let Some(key) = c.session else { return };
        if packet.properties.contains(PropertyId::TopicAlias) {
            let alias = packet.properties.topic_alias().unwrap_or(0);
            let Some(extras) = self.extras(index) else { return };
            let topic: String = match extras.inbound.resolve(alias, packet.topic_str()) {
                Ok(topic) => topic.into(),
                Err(reason) => {
                    self.hang_up(index, reason, true);
                    return;
                }
            };
            self.publish_to(index, key, &RawPublish { topic: topic.as_bytes(), ..*packet }, bytes);
        } else {
            self.publish_to(index, key, packet, bytes);
        }
    }

    fn publish_to(&mut self, index: u32, key: SessionKey, packet: &RawPublish<'_>, bytes: &[u8]) {
        if let Some(id) = packet.packet_id {
            let Some(session) = self.sessions.get(key as usize) else { return };
            if packet.qos == QoS::ExactlyOnce && session.received.get(id).is_some() && !defect!(Qos2Twice) {
                // [MQTT-4.3.3-10]: not new, however often it comes; answered as the first one is.
                let after = session.after;
                self.ack(index, PacketType::Pubrec, id, ReasonCode::Success, after);
                return;
            }
            let maximum = self.config.receive_maximum;
            let Some(c) = self.connections.get_mut(index) else { return };
            // Below 5.0 the client was never told, so it is not held to it.
            if c.version.is_v5() && c.inbound >= maximum {
                self.hang_up(index, ReasonCode::ReceiveMaximumExceeded, true);
                return;
            }
            c.inbound = c.inbound.saturating_add(1);
        }
        if !self.may_publish_to(packet.topic) {
            self.refuse_publish(index, packet, ReasonCode::TopicNameInvalid);
            return;
        }
        if !self.acls.is_empty() && !self.may_write(key, packet.topic_str()) {
            self.refuse_publish(index, packet, ReasonCode::NotAuthorized);
            return;
        }
        if packet.qos > QoS::AtMostOnce && self.journal.has_failed() {
            self.refuse_publish(index, packet, ReasonCode::QuotaExceeded);
            return;
        }
        if !self.has_memory_for(packet.payload.len()) {
            self.counters.dropped.memory_full += 1;
            self.refuse_publish(index, packet, ReasonCode::QuotaExceeded);
            return;
        }
        if self.config.ask.publish {
            let question = Question::Publish {
                topic: packet.topic_str().into(),
                qos: packet.qos,
                retain: packet.retain,
                payload_len: packet.payload.len(),
            };
            let id = self.ask_of_session(index, key, question);
            self.wait_for(index, id, bytes);
            return;
        }
        self.publish_allowed(index, key, packet, self.since);
    }

    /// The answer to the question about a PUBLISH.
    pub(super) fn publish_answered(
        &mut self,
        index: u32,
        packet: &RawPublish<'_>,
        since: Timestamp,
        verdict: Result<(), ReasonCode>,
    ) {
        let Some(key) = self.connections.get(index).and_then(|c| c.session) else { return };
        let mut topic = String::from(packet.topic_str());
        if let Some(alias) = packet.properties.topic_alias()
            && let Some(extras) = self.extras(index)
            && let Ok(known) = extras.inbound.resolve(alias, packet.topic_str())
        {
            topic = known.into();
        }
        let packet = RawPublish { topic: topic.as_bytes(), ..*packet };
        match verdict {
            Ok(()) => self.publish_allowed(index, key, &packet, since),
            Err(reason) => self.refuse_publish(index, &packet, reason),
        }
    }

    fn publish_allowed(&mut self, index: u32, key: SessionKey, packet: &RawPublish<'_>, since: Timestamp) {
        let incoming = Incoming {
            topic: packet.topic,
            properties: packet.properties,
            payload: packet.payload,
            qos: packet.qos,
            retain: packet.retain,
        };
        let twice = packet.qos == QoS::ExactlyOnce;
        let is_counted = packet.packet_id.is_some();
        let connection = self.connections.get(index).filter(|_| is_counted);
        let tells = connection.is_some_and(|c| Rules::of(c.version).tells_no_subscribers);
        let source = Source {
            publisher: Some(key),
            exactly_once: packet.packet_id.filter(|_| twice),
            may_refuse: tells,
            ..Source::default()
        };
        let has_some = !packet.properties.is_empty();
        let mut scratch = if has_some { core::mem::take(&mut self.scratch) } else { PropertiesBuf::new() };
        // Its lifetime counts from when it came ([MQTT-3.3.2-6]).
        let routed = self.route_content(&incoming.content(since, &mut scratch), source);
        if has_some {
            self.scratch = scratch;
        }
        let Some(id) = packet.packet_id else { return };
        if let Some(session) = self.sessions.get_mut(key as usize) {
            session.after = session.after.max(routed.after);
        }
        let reason = if routed.is_refused {
            // The identifier is new again [MQTT-4.3.3-9].
            ReasonCode::QuotaExceeded
        } else if routed.matched == 0 && tells {
            ReasonCode::NoMatchingSubscribers
        } else {
            ReasonCode::Success
        };
        let kind = if twice { PacketType::Pubrec } else { PacketType::Puback };
        self.ack_with(index, HeldAck { kind, id, reason, after: routed.after, ticket: routed.ticket });
    }

    /// A PUBLISH that is not taken. QoS 0 is dropped; above, 5.0 is told why, and below it is
    /// acknowledged and dropped ([MQTT-3.3.5-2] of 3.1.1), except where the broker itself cannot take it
    /// and saying so is the only way not to lose it.
    fn refuse_publish(&mut self, index: u32, packet: &RawPublish<'_>, reason: ReasonCode) {
        let Some(id) = packet.packet_id else { return };
        let Some(c) = self.connections.get(index) else { return };
        let mut reason = reason;
        if !Rules::of(c.version).acks_refuse {
            if reason == ReasonCode::QuotaExceeded {
                // [MQTT-4.8.0-2] of 3.1.1
                self.hang_up(index, reason, true);
                return;
            }
            reason = ReasonCode::Success;
        } else if !reason.is_allowed_in(PacketType::Puback) {
            // [MQTT-3.4.2-1] [MQTT-3.5.2-1]: an answer may name any code.
            reason = ReasonCode::UnspecifiedError;
        }
        let Some(key) = c.session else { return };
        let after = self.sessions.get(key as usize).map_or(StoreSeq(0), |session| session.barrier);
        if packet.qos == QoS::ExactlyOnce {
            if !reason.is_error()
                && let Some(session) = self.sessions.get_mut(key as usize)
            {
                session.received.set(id, Receipt::Taken);
            }
            // [MQTT-4.3.3-9]: after a refusal the identifier is new again.
            self.ack(index, PacketType::Pubrec, id, reason, after);
        } else {
            self.ack(index, PacketType::Puback, id, reason, after);
        }
    }

    /// Sends an acknowledgement ([MQTT-3.3.4-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8]) once `after` is stored, in
    /// the order of the calls.
    fn ack(&mut self, index: u32, kind: PacketType, id: PacketId, reason: ReasonCode, after: StoreSeq) {
        self.ack_with(index, HeldAck { kind, id, reason, after, ticket: 0 });
    }

    /// The same, and once all that its ticket stands for is safe.
    fn ack_with(&mut self, index: u32, held: HeldAck) {
        let stored = self.journal.stored();
        let is_settled = self.is_settled(held.ticket);
        let Some(c) = self.connections.get_mut(index) else { return };
        // They leave in order, so this one waits for what the one before it waits for.
        let after = if defect!(AckEarly) { StoreSeq(0) } else { held.after };
        let after = c.acks.back().map_or(after, |before| before.after.max(after));
        let held = HeldAck { after, ..held };
        if c.acks.is_empty() && after <= stored && is_settled {
            self.write_ack(index, held);
            return;
        }
        c.acks.push_back(held);
        let conn = self.id_of(index);
        if after > stored {
            self.waiting.push_back((after, conn));
        }
    }

    /// Sends what waited for the store and may leave now.
    pub(super) fn release_held(&mut self, index: u32) {
        let stored = self.journal.stored();
        loop {
            let front = self.connections.get(index).and_then(|c| c.acks.front()).copied();
            let Some(ack) = front.filter(|ack| ack.after <= stored && self.is_settled(ack.ticket)) else {
                break;
            };
            if let Some(c) = self.connections.get_mut(index) {
                c.acks.pop_front();
            }
            self.write_ack(index, ack);
        }
        let Some(c) = self.connections.get_mut(index) else { return };
        self.spares.lend(c);
        if let Some(extras) = &mut c.extras {
            while let Some((after, _)) = extras.held_packets.front()
                && *after <= stored
            {
                if let Some((_, packet)) = extras.held_packets.pop_front() {
                    c.packets += 1;
                    c.out.extend_from_slice(&packet);
                }
            }
        }
    }

    /// Holds neither a Reason String nor User Properties ([MQTT-3.1.2-29], [MQTT-3.4.2-2], [MQTT-3.4.2-3],
    /// [MQTT-3.5.2-2], [MQTT-3.5.2-3], [MQTT-3.6.2-2], [MQTT-3.6.2-3], [MQTT-3.7.2-2], [MQTT-3.7.2-3]).
    fn write_ack(&mut self, index: u32, held: HeldAck) {
        let HeldAck { kind, id, reason, .. } = held;
        let Some(c) = self.connections.get_mut(index) else { return };
        let ends = match kind {
            PacketType::Puback | PacketType::Pubcomp => true,
            PacketType::Pubrec => reason.is_error(),
            _ => false,
        };
        if ends {
            // Stays at zero for exchanges that began on an earlier link.
            c.inbound = c.inbound.saturating_sub(1);
        }
        if let (PacketType::Pubrec, false, Some(key)) = (kind, reason.is_error(), c.session)
            && let Some(session) = self.sessions.get_mut(key as usize)
            && session.received.get(id).is_some()
        {
            session.received.set(id, Receipt::Acknowledged);
        }
        let ack = AckRef { reason, ..AckRef::from(id) };
        let packet = match kind {
            // By far the most.
            PacketType::Puback => return self.put_here(index, &PacketRef::Puback(ack)),
            PacketType::Pubrec => PacketRef::Pubrec(ack),
            PacketType::Pubrel => PacketRef::Pubrel(ack),
            _ => PacketRef::Pubcomp(ack),
        };
        self.put(index, &packet);
    }

    /// PUBREL: the identifier is new again once PUBCOMP left ([MQTT-4.3.3-11], [MQTT-4.3.3-12]). An
    /// unknown one is answered all the same, and the link stays up. What became of the message does not
    /// matter ([MQTT-4.3.3-13]).
    pub(super) fn pubrel(&mut self, index: u32, packet: &AckRef<'_>) {
        let id = packet.packet_id;
        let Some(key) = self.connections.get(index).and_then(|c| c.session) else { return };
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if !session.received.remove(id) {
            let after = session.after;
            self.ack(index, PacketType::Pubcomp, id, ReasonCode::PacketIdentifierNotFound, after);
            return;
        }
        if session.stored {
            self.journal.op(StoreOp::DeleteReceived(session.id, id));
        }
        let after = self.own_operations(key);
        self.ack(index, PacketType::Pubcomp, id, ReasonCode::Success, after);
    }

    /// Closes the open group for a session: what it depends on from now on.
    fn own_operations(&mut self, key: SessionKey) -> StoreSeq {
        if !self.journal.is_on() {
            return StoreSeq(0);
        }
        let after = self.journal.commit(&mut self.outputs);
        match self.sessions.get_mut(key as usize) {
            Some(session) if session.stored => {
                session.after = session.after.max(after);
                session.after
            }
            Some(session) => session.barrier,
            None => StoreSeq(0),
        }
    }

    /// PUBACK for a message of ours. A code of 0x80 or more acknowledges too ([MQTT-4.4.0-2],
    /// [MQTT-4.8.2-6]).
    pub(super) fn puback(&mut self, index: u32, packet: &AckRef<'_>) {
        let Some((key, acked)) =
            self.with_ledger(index, |ledger, window| ledger.puback(packet.packet_id, window))
        else {
            return;
        };
        self.exchange_answered(index, key, acked);
    }

    /// PUBREC for a message of ours.
    pub(super) fn pubrec(&mut self, index: u32, packet: &AckRef<'_>) {
        let id = packet.packet_id;
        let refused = packet.reason.is_error();
        let Some((key, (acked, message))) =
            self.with_ledger(index, |ledger, window| ledger.pubrec(id, refused, window))
        else {
            return;
        };
        match acked {
            Acked::Release => {
                let Some(session) = self.sessions.get_mut(key as usize) else { return };
                let passed = session.ledger.cursor_passed(id);
                let (session_id, stored) = (session.id, session.stored);
                let mut after = session.after;
                if let Some(delivery) = message {
                    if let Some(entry) = delivery.entry.filter(|_| stored) {
                        // From now on its place among the session's exchanges is that of its PUBREC.
                        let number = self.journal.new_entry().0;
                        self.journal.op(StoreOp::PutExchange {
                            session: session_id,
                            entry,
                            packet_id: id,
                            number,
                            stage: StoredStage::Released,
                        });
                        // The entry stays in the store until PUBCOMP; the body is needed no more.
                        if let Some(session) = self.sessions.get_mut(key as usize) {
                            session.releasing.get_or_insert_default().insert(id.get(), entry);
                        }
                    }
                    self.release_message(delivery.message);
                    after = self.own_operations(key);
                }
                // Also a PUBREL that leaves with the repetitions waits for its stage.
                if let Some(session) = self.sessions.get_mut(key as usize) {
                    session.ledger.wait_for(id, after);
                }
                if passed {
                    self.ack(index, PacketType::Pubrel, id, ReasonCode::Success, after);
                } else if after > self.journal.stored() {
                    let conn = self.id_of(index);
                    self.waiting.push_back((after, conn));
                }
            }
            // Answered so that the client can forget it; the link stays up.
            Acked::Unknown if !refused => {
                let after = StoreSeq(0);
                self.ack(index, PacketType::Pubrel, id, ReasonCode::PacketIdentifierNotFound, after);
            }
            acked => self.exchange_answered(index, key, acked),
        }
    }

    /// PUBCOMP for a message of ours.
    pub(super) fn pubcomp(&mut self, index: u32, packet: &AckRef<'_>) {
        let id = packet.packet_id;
        let Some((key, acked)) = self.with_ledger(index, |ledger, window| ledger.pubcomp(id, window)) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(key as usize)
            && let Some(entry) = session.releasing.as_mut().and_then(|all| all.remove(&id.get()))
        {
            self.journal.op(StoreOp::RemoveEntry(session.id, entry));
        }
        self.exchange_answered(index, key, acked);
    }

    #[inline(always)]
    fn with_ledger<T>(
        &mut self,
        index: u32,
        act: impl FnOnce(
            &mut crate::shared::ledger::Ledger<super::session::Delivery>,
            &mut crate::shared::window::Window,
        ) -> T,
    ) -> Option<(SessionKey, T)> {
        let c = self.connections.get_mut(index)?;
        let key = c.session?;
        let session = self.sessions.get_mut(key as usize)?;
        Some((key, act(&mut session.ledger, &mut c.window)))
    }

    #[inline]
    fn exchange_answered(&mut self, index: u32, key: SessionKey, acked: Acked<super::session::Delivery>) {
        match acked {
            Acked::Done(message) => {
                if let Some(delivery) = message {
                    self.discard(key, delivery, false);
                }
                self.arm_resend(index);
                // The window has room again.
                if self.sessions.get_mut(key as usize).is_some_and(super::session::Session::has_work) {
                    self.queue_flush(index);
                } else if !self.router.groups_of(key).is_empty() {
                    self.pump_hungry_groups_of(key);
                }
            }
            // A repetition, or about something that ended: nothing to do.
            Acked::Unknown | Acked::Release => {}
            Acked::WrongKind => self.hang_up(index, ReasonCode::ProtocolError, true),
        }
    }
}
