//! Packets from the server.

use super::bundle::Head;
use super::event::{AckError, Cause, Delivery, Outcome};
use super::link::{Link, MAX_REPLIES, OwedAck, Reply, ReplyKind, Stage};
use super::reconnect::Fault;
use super::{AckMode, Client};
use crate::Timestamp;
use crate::defects::defect;
use crate::shared::framer::Framer;
use crate::shared::ledger::Acked;
use crate::shared::received::Receipt;
use crate::store::{StoreOp, StoreSeq, StoredStage};
use alloc::vec;
use mqtt_proto::{
    AckRef, DecodeError, PacketId, PacketRef, PacketType, Properties, QoS, RawPublish, ReasonCode,
};

use super::persist;

impl Client {
    /// Bytes arrived. All of `data` is taken; what is not a complete packet is kept.
    pub fn handle_read(&mut self, now: Timestamp, data: &[u8]) {
        let now = self.advance(now);
        let Some(link) = self.link.as_mut().filter(|link| link.stage != Stage::Farewell) else { return };
        link.received.touch(now);
        let (kept, taken) = link.framer.take(data).map_or((None, 0), |(kept, taken)| (Some(kept), taken));
        let head = kept.as_deref().unwrap_or_default();
        let mut rest = data.get(taken..).unwrap_or_default();
        let Some(used) = self.work(now, head) else { return };
        if used == head.len() {
            let Some(used) = self.work(now, rest) else { return };
            rest = rest.get(used..).unwrap_or_default();
        }
        if let Some(link) = &mut self.link {
            link.framer.put_back(kept, used, rest);
        }
        self.finish_closing(now);
    }

    /// Works on the whole packets at the head of `bytes` and tells how many bytes that were; `None` if
    /// the link ended.
    fn work(&mut self, now: Timestamp, bytes: &[u8]) -> Option<usize> {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            // The size limit is judged from the header, before the body is there.
            match Framer::split(rest, self.config.max_packet_size) {
                Ok(Some(packet)) => {
                    used += packet.len();
                    if let Err(fault) = self.handle_packet(now, packet) {
                        self.close(now, fault);
                    }
                }
                Ok(None) => break,
                Err(error) => self.close(now, malformed(error)),
            }
            if self.link.as_ref().is_none_or(|link| link.stage == Stage::Farewell) {
                return None;
            }
        }
        Some(used)
    }

    fn handle_packet(&mut self, now: Timestamp, packet: &[u8]) -> Result<(), Fault> {
        let is_online = self.link.as_ref().is_some_and(Link::is_online);
        let first_byte = packet.first().copied().unwrap_or_default();
        if is_online && first_byte >> 4 == PacketType::Publish as u8 {
            // What comes all the time is not moved about.
            let version = self.config.version;
            let handled = RawPublish::decode_then(packet, version, |publish| {
                let is_plain = publish.packet_id.is_none() && publish.properties.is_empty();
                if is_plain && self.outputs.push_plain(&publish) {
                    return Ok(());
                }
                self.handle_publish(&publish)
            });
            return handled.unwrap_or_else(|error| Err(malformed(error)));
        }
        match AckRef::from_short(packet).filter(|_| is_online) {
            Some((PacketType::Puback, ack)) => self.handle_puback(now, &ack),
            _ => self.handle_any_packet(now, packet),
        }
    }

    #[inline(never)]
    fn handle_any_packet(&mut self, now: Timestamp, packet: &[u8]) -> Result<(), Fault> {
        let packet = PacketRef::decode(packet, self.config.version).map_err(malformed)?;
        let Some(link) = &mut self.link else { return Ok(()) };
        if !link.may_receive(&packet) {
            // [MQTT-3.2.0-1]
            return Err(Fault::violation(ReasonCode::ProtocolError, "packet before CONNACK [MQTT-3.2.0-1]"));
        }
        match packet {
            PacketRef::Publish(publish) => self.handle_publish(&publish.into()),
            PacketRef::Puback(ack) => self.handle_puback(now, &ack),
            PacketRef::Pubrec(ack) => self.handle_pubrec(now, &ack),
            PacketRef::Pubrel(ack) => self.handle_pubrel(&ack),
            PacketRef::Pubcomp(ack) => self.handle_pubcomp(now, &ack),
            PacketRef::Suback(ack) => self.handle_suback(&ack),
            PacketRef::Unsuback(ack) => self.handle_unsuback(&ack),
            PacketRef::Pingresp => {
                link.ping = None;
                Ok(())
            }
            PacketRef::Connack(connack) => self.handle_connack(now, &connack),
            PacketRef::Auth(auth) => self.handle_auth(&auth),
            PacketRef::Disconnect(disconnect) => self.handle_disconnect(&disconnect),
            PacketRef::Connect(_)
            | PacketRef::Subscribe(_)
            | PacketRef::Unsubscribe(_)
            | PacketRef::Pingreq => {
                Err(Fault::violation(ReasonCode::ProtocolError, "packet that only a client sends"))
            }
        }
    }

    // ---- messages ----

    fn handle_publish(&mut self, publish: &RawPublish<'_>) -> Result<(), Fault> {
        let Some(link) = &mut self.link else { return Ok(()) };
        // Before anything else: a repetition sets an alias as well.
        let topic = match publish.properties.topic_alias() {
            Some(alias) => {
                let topic = link.inbound_aliases.resolve(alias, publish.topic_str());
                topic.map(str::as_bytes).map_err(|reason| {
                    Fault::violation(reason, "topic alias out of range or unknown [MQTT-3.3.2-11]")
                })?
            }
            None => publish.topic,
        };
        let Some(id) = publish.packet_id else {
            let content = self.outputs.copy(publish, topic);
            self.outputs.push_message(content, Head::of(publish));
            return Ok(());
        };
        let size = topic.len() + publish.payload.len() + publish.properties.as_bytes().len();
        let exactly_once = publish.qos == QoS::ExactlyOnce;
        // [MQTT-4.3.2-5] [MQTT-4.3.3-10]
        let is_new =
            !exactly_once || self.session.received.get(id).is_none() || defect!(ClientForgetsReceived);
        let content = is_new.then(|| self.outputs.copy(publish, topic));
        self.count_inbound(publish.qos, id)?;
        let auto = self.config.ack_mode == AckMode::Auto;
        let mut after = StoreSeq(0);
        let mut reason = auto.then_some(ReasonCode::Success);
        if exactly_once {
            match self.session.received.get(id) {
                None if auto => {
                    self.session.received.set(id, Receipt::Acknowledged);
                    let session = self.store.session;
                    after = self.store_ops(|| vec![StoreOp::PutReceived(session, id)]);
                }
                None => self.session.received.set(id, Receipt::Taken),
                Some(Receipt::Taken) => reason = None,
                Some(Receipt::Acknowledged) => {
                    reason = Some(ReasonCode::Success);
                    after = self.store.last();
                }
            }
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        let number = link.acks.push(OwedAck { id, qos: publish.qos, reason, after, size });
        if link.acks.len() > self.config.max_unacknowledged
            || link.acks.bytes() > self.config.max_unacknowledged_bytes
        {
            let fault = Fault::new(Cause::TooManyUnacknowledged);
            return Err(Fault { tell: Some(ReasonCode::QuotaExceeded), ..fault });
        }
        if let Some(content) = content {
            let epoch = if exactly_once { self.session.epoch } else { link.epoch };
            let delivery = (!auto).then_some(Delivery { epoch, id, qos: publish.qos, number });
            self.outputs.push_message(content, Head { delivery, ..Head::of(publish) });
        }
        if reason.is_some() {
            self.flush();
        }
        Ok(())
    }

    /// Counts a PUBLISH against the Receive Maximum that we announced. Repetitions on the same link
    /// count once, as for a server that keeps to the rules.
    fn count_inbound(&mut self, qos: QoS, id: PacketId) -> Result<(), Fault> {
        if !self.rules().flow_control {
            return Ok(());
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        if qos == QoS::ExactlyOnce && link.counted.insert(id.get(), ()).is_some() {
            return Ok(());
        }
        if link.inbound.take() {
            return Ok(());
        }
        let what = "more messages than Receive Maximum [MQTT-3.3.4-9]";
        Err(Fault::violation(ReasonCode::ReceiveMaximumExceeded, what))
    }

    /// Acknowledges a message. Acknowledgements may be given in any order; they leave in the order in
    /// which the messages came. From 0x80 on, `reason` refuses the message (5.0; below, it is
    /// acknowledged all the same).
    ///
    /// # Errors
    /// [`AckError::Stale`] if the server no longer waits for it: nothing has to be done then.
    pub fn ack(&mut self, now: Timestamp, delivery: Delivery, reason: ReasonCode) -> Result<(), AckError> {
        self.advance(now);
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
        if !reason.is_allowed_in(PacketType::Puback) {
            return Err(AckError::Reason(reason));
        }
        let reason = if self.rules().acks_refuse { reason } else { ReasonCode::Success };
        match delivery.qos {
            QoS::ExactlyOnce => self.ack_qos2(&delivery, reason)?,
            _ => {
                let link = self.link.as_mut().filter(|link| link.epoch == delivery.epoch && link.is_online());
                let ack = link.and_then(|link| link.acks.get_mut(delivery.number)).ok_or(AckError::Stale)?;
                ack.reason = Some(reason);
            }
        }
        self.flush();
        Ok(())
    }

    fn ack_qos2(&mut self, delivery: &Delivery, reason: ReasonCode) -> Result<(), AckError> {
        let id = delivery.id;
        if delivery.epoch != self.session.epoch || self.session.received.get(id) != Some(Receipt::Taken) {
            return Err(AckError::Stale);
        }
        let mut after = StoreSeq(0);
        if reason.is_error() {
            // [MQTT-4.3.3-9]
            self.session.received.remove(id);
        } else {
            self.session.received.set(id, Receipt::Acknowledged);
            let session = self.store.session;
            after = self.store_ops(|| vec![StoreOp::PutReceived(session, id)]);
        }
        // If the link is a new one and the message has not come again yet, its repetition is answered.
        if let Some(link) = &mut self.link {
            for ack in link.acks.of_qos2(id).filter(|ack| ack.reason.is_none()) {
                ack.reason = Some(reason);
                ack.after = after;
            }
        }
        Ok(())
    }

    /// PUBREL.
    fn handle_pubrel(&mut self, ack: &AckRef<'_>) -> Result<(), Fault> {
        let id = ack.packet_id;
        let (reason, after) = match self.session.received.get(id) {
            Some(Receipt::Taken) => {
                let what = "PUBREL before PUBREC [MQTT-4.3.3-4]";
                return Err(Fault::violation(ReasonCode::ProtocolError, what));
            }
            Some(Receipt::Acknowledged) => {
                // [MQTT-4.3.3-11] [MQTT-4.3.3-12]
                self.session.received.remove(id);
                let session = self.store.session;
                (ReasonCode::Success, self.store_ops(|| vec![StoreOp::DeleteReceived(session, id)]))
            }
            // As after a PUBCOMP that was lost: the exchange ends, the link stays.
            None => (ReasonCode::PacketIdentifierNotFound, self.store.last()),
        };
        self.reply(Reply { kind: ReplyKind::Pubcomp, id, reason, after })
    }

    fn reply(&mut self, reply: Reply) -> Result<(), Fault> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if link.replies.len() >= MAX_REPLIES {
            let what = "packets that have to be answered faster than it takes the answers";
            return Err(Fault::violation(ReasonCode::MessageRateTooHigh, what));
        }
        link.replies.push_back(reply);
        self.flush();
        Ok(())
    }

    // ---- acknowledgements ----

    fn handle_puback(&mut self, now: Timestamp, ack: &AckRef<'_>) -> Result<(), Fault> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.progress = now;
        // [MQTT-4.4.0-2]: also a refusal acknowledges.
        match self.session.ledger.puback(ack.packet_id, &mut link.window) {
            Acked::Done(outgoing) => {
                if let Some(outgoing) = outgoing {
                    let outcome = acked(ack.reason, ack.properties);
                    self.finish(outgoing.token, outgoing.stored, outcome);
                }
                self.flush();
                Ok(())
            }
            Acked::WrongKind | Acked::Release => Err(wrong_kind("PUBACK for QoS 2 [MQTT-4.3.3-3]")),
            // As after a message that was given up: nothing waits for it.
            Acked::Unknown => Ok(()),
        }
    }

    fn handle_pubrec(&mut self, now: Timestamp, ack: &AckRef<'_>) -> Result<(), Fault> {
        let id = ack.packet_id;
        let Some(link) = &mut self.link else { return Ok(()) };
        link.progress = now;
        let refused = ack.reason.is_error();
        // A refused message is finished, and its place in the window free.
        let (acked_as, outgoing) = match self.session.ledger.pubrec(id, refused, &mut link.window) {
            (Acked::Done(outgoing), _) => (Acked::Done(None), outgoing),
            other => other,
        };
        match acked_as {
            Acked::Done(_) => {
                if let Some(outgoing) = outgoing {
                    let outcome = acked(ack.reason, ack.properties);
                    self.finish(outgoing.token, outgoing.stored, outcome);
                }
                self.flush();
                Ok(())
            }
            Acked::Release => self.release(id, outgoing),
            Acked::WrongKind => Err(wrong_kind("PUBREC for QoS 1 [MQTT-4.3.2-3]")),
            Acked::Unknown => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.reply(Reply { kind: ReplyKind::Pubrel, id, reason, after: StoreSeq(0) })
            }
        }
    }

    /// The server has the message: PUBREL is next [MQTT-4.3.3-4], in the order of the PUBRECs
    /// [MQTT-4.6.0-4].
    fn release(&mut self, id: PacketId, outgoing: Option<super::session::Outgoing>) -> Result<(), Fault> {
        if let Some(outgoing) = outgoing {
            self.session.released.insert(id.get(), (outgoing.token, outgoing.stored));
            if outgoing.stored {
                let session = self.store.session;
                let op = persist::put_exchange(session, outgoing.token, id, StoredStage::Released);
                self.session.released_after = self.store_ops(|| vec![op]);
            }
        }
        if self.session.ledger.cursor_passed(id) {
            let after = self.session.released_after;
            return self.reply(Reply { kind: ReplyKind::Pubrel, id, reason: ReasonCode::Success, after });
        }
        // Its turn to be sent again has not come on this link; PUBREL goes then.
        self.flush();
        Ok(())
    }

    fn handle_pubcomp(&mut self, now: Timestamp, ack: &AckRef<'_>) -> Result<(), Fault> {
        let id = ack.packet_id;
        let Some(link) = &mut self.link else { return Ok(()) };
        link.progress = now;
        match self.session.ledger.pubcomp(id, &mut link.window) {
            Acked::Done(_) => {
                if let Some((token, stored)) = self.session.released.remove(&id.get()) {
                    // 0x92 means that the server had finished it before.
                    let outcome = acked(ReasonCode::Success, ack.properties);
                    self.finish(token, stored, outcome);
                }
                self.flush();
                Ok(())
            }
            Acked::WrongKind | Acked::Release => Err(wrong_kind("PUBCOMP before PUBREL [MQTT-4.3.3-5]")),
            Acked::Unknown => Ok(()),
        }
    }
}

impl Link {
    /// An acknowledgement leaves: the server may send one message more.
    pub(super) fn give_inbound(&mut self, qos2: Option<PacketId>) {
        if let Some(id) = qos2 {
            self.counted.remove(&id.get());
        }
        // The server's quota never grows beyond the maximum either (section 4.9), so nothing is lost
        // if it was full: that was an exchange from an earlier link.
        let _ = self.inbound.give();
    }
}

fn acked(reason: ReasonCode, properties: Properties<'_>) -> Outcome {
    Outcome::Acked { reason, properties: properties.into() }
}

#[cold]
fn malformed(error: DecodeError) -> Fault {
    Fault { tell: Some(error.reason()), ..Fault::new(Cause::Malformed(error)) }
}

#[cold]
fn wrong_kind(what: &'static str) -> Fault {
    Fault::violation(ReasonCode::ProtocolError, what)
}
