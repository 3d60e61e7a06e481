//! CONNECT: from the packet to a live session.

use super::Broker;
use super::connection::{Extras, Phase};
use super::message::Incoming;
use super::output::{DropReason, Event, Grant, Question};
use super::router::SessionKey;
use super::session::Session;
use super::timers::Timer;
use crate::acl::Identity;
use crate::defects::defect;
use crate::shared::alias::{InboundAliases, OutboundAliases};
use crate::shared::keep_alive::KeepAlive;
use crate::shared::rules::Rules;
use crate::shared::window::Window;
use crate::store::{StoredAuthor, StoredWill};
use crate::{StoreOp, Timestamp};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use bytes::Bytes;
use core::time::Duration;
use mqtt_proto::{
    ConnackRef, ConnectRef, MAX_PACKET_SIZE, PacketRef, PropertiesBuf, Property, QoS, ReasonCode, WillRef,
};

impl Broker {
    /// A CONNECT that is well formed. It is asked about, or accepted at once.
    pub(super) fn connect(&mut self, index: u32, packet: &ConnectRef<'_>, bytes: &[u8]) {
        if let Some(c) = self.connections.get_mut(index) {
            c.version = packet.version;
            c.max_packet = packet.properties.maximum_packet_size().unwrap_or(MAX_PACKET_SIZE);
            c.problem_information = packet.properties.request_problem_information().unwrap_or(true);
        }
        self.counters.connects += 1;
        if let Err(reason) = self.check_connect(packet) {
            self.refuse(index, Some(packet.client_id), reason);
            return;
        }
        if !self.config.ask.connect {
            self.accept(index, packet, Grant::default());
            return;
        }
        let method = packet.properties.authentication_method();
        let data = packet.properties.authentication_data().unwrap_or_default();
        let peer = self.connections.get(index).and_then(|c| c.peer.as_deref().cloned()).unwrap_or_default();
        let question = Question::Connect {
            version: packet.version,
            password: packet.password.map(Bytes::copy_from_slice),
            peer,
            authentication: method.map(|method| (method.into(), Bytes::copy_from_slice(data))),
        };
        let id = self.ask(index, packet.client_id.into(), packet.user_name.map(Into::into), question);
        self.wait_for(index, id, bytes);
    }

    /// What the settings and the rules of the version say of it ([MQTT-3.1.4-2]). Any text is an
    /// identifier ([MQTT-3.1.3-5]).
    fn check_connect(&self, packet: &ConnectRef<'_>) -> Result<(), ReasonCode> {
        let rules = Rules::of(packet.version);
        if self.shutting_down {
            return Err(ReasonCode::ServerUnavailable);
        }
        // [MQTT-3.1.3-8] of 3.1.1; 3.1 has no empty identifiers at all.
        if packet.client_id.is_empty()
            && !(rules.empty_client_id && (packet.clean_start || rules.empty_client_id_without_clean))
        {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        // [MQTT-4.12.0-1]
        if packet.properties.authentication_method().is_some() && !self.config.ask.connect {
            return Err(ReasonCode::BadAuthenticationMethod);
        }
        if let Some(will) = &packet.will {
            // [MQTT-3.2.2-12] [MQTT-3.2.2-13]
            if will.qos > self.config.max_qos {
                return Err(ReasonCode::QosNotSupported);
            }
            if will.retain && !self.config.retain_available {
                return Err(ReasonCode::RetainNotSupported);
            }
            if !self.may_publish_to(will.topic.as_bytes()) {
                return Err(ReasonCode::TopicNameInvalid);
            }
        }
        let known = self.clients.get(packet.client_id).and_then(|&key| self.sessions.get(key as usize));
        let sessions = self.sessions.len() + self.used_elsewhere().sessions;
        if known.is_none() && sessions >= self.config.max_sessions as usize {
            return Err(ReasonCode::QuotaExceeded);
        }
        // What has to be stored before CONNACK cannot be promised while the store is failed.
        let stores =
            packet.will.is_some() || self.asked_expiry(packet) > 0 || known.is_some_and(|s| s.stored);
        if stores && self.journal.has_failed() {
            return Err(ReasonCode::ServerUnavailable);
        }
        Ok(())
    }

    /// Refuses a CONNECT: CONNACK where the version has a code for it ([MQTT-3.2.2-6] of 3.1.1),
    /// without a session ([MQTT-3.2.2-6] of 5.0), then the end ([MQTT-3.2.2-7], [MQTT-3.1.3-8]).
    pub(super) fn refuse(&mut self, index: u32, client_id: Option<&str>, reason: ReasonCode) {
        let conn = self.id_of(index);
        let Some(c) = self.connections.get_mut(index) else { return };
        if Rules::of(c.version).has_connack(reason) && !c.gone {
            let connack = ConnackRef { reason, ..ConnackRef::default() };
            self.spares.lend(c);
            super::outbox::put(c, &PacketRef::Connack(connack));
        }
        self.counters.refused += 1;
        self.counters.refusals.add(reason);
        self.event(Event::Refused { conn, client_id: client_id.map(Into::into), reason });
        self.hang_up(index, reason, false);
    }

    /// Makes the connection live, with the session that its identifier names ([MQTT-3.1.3-2]) or a new
    /// one, as Clean Start says ([MQTT-3.1.4-4]). Of two connections with one client identifier the later accepted
    /// one stays.
    pub(super) fn accept(&mut self, index: u32, packet: &ConnectRef<'_>, grant: Grant) {
        let before = self.journal.last();
        let assigned = packet.client_id.is_empty().then(|| self.new_client_id());
        let client_id = assigned.as_deref().unwrap_or(packet.client_id);
        let user_name = grant.user_name.as_deref().or(packet.user_name);
        if let Some(will) = &packet.will
            && self.acls.refuse_will(grant.acl, &Identity { user_name, client_id }, will.topic)
        {
            self.refuse(index, Some(client_id), ReasonCode::NotAuthorized);
            return;
        }
        let existing = self.clients.get(client_id).copied();
        if let Some(old) = existing.and_then(|key| self.sessions.get(key as usize)).and_then(|s| s.link) {
            // [MQTT-3.1.4-3] ([MQTT-3.1.4-2] of 3.1.1)
            self.hang_up(old, ReasonCode::SessionTakenOver, !defect!(TakeOverUntold));
        }
        // The take-over may have ended the session.
        let mut existing = self.clients.get(client_id).copied();
        let expired = |key: &SessionKey| {
            self.sessions.get(*key as usize).is_some_and(|s| s.link.is_none() && s.expires <= self.now)
        };
        // Its timer may be late.
        if let Some(key) =
            existing.filter(|key| packet.clean_start && !defect!(CleanStartIgnored) || expired(key))
        {
            // [MQTT-3.1.2-4] ([MQTT-3.1.2-6] of 3.1.1)
            self.end_session(key);
            existing = None;
        }
        // So may that of its will, whose delay has passed ([MQTT-3.1.2-8]).
        if let Some(key) = existing
            && self.sessions.get(key as usize).is_some_and(|s| s.link.is_none() && s.will_due <= self.now)
        {
            self.fire_will(key);
        }
        // Before the new CONNACK.
        self.publish_wills();
        let key = match existing {
            Some(key) => {
                // [MQTT-3.1.2-5] [MQTT-3.1.3-9]: a will that waited is not published.
                if defect!(WillNotCancelled) {
                    self.fire_will(key);
                }
                self.drop_will(key);
                key
            }
            None => self.new_session(client_id),
        };
        // [MQTT-3.2.2-2] [MQTT-3.2.2-3]
        let session_present = existing.is_some() || defect!(SessionPresentAlways);
        let listener = self.connections.get(index).map_or(0, |c| c.listener);
        let asked = self.asked_expiry(packet);
        let expiry = asked.min(self.config.max_session_expiry).min(grant.session_expiry.unwrap_or(u32::MAX));
        if let Some(session) = self.sessions.get_mut(key as usize) {
            session.link = Some(index);
            // What waits was queued by the rights of whoever it was then.
            session.recheck |= session.acl != grant.acl || session.user_name.as_deref() != user_name;
            session.user_name = user_name.map(Into::into);
            session.acl = grant.acl;
            session.listener = listener;
            session.expiry_secs = expiry;
            session.expires = Timestamp::MAX;
            session.ledger.rewind();
            if defect!(ForgetReceived) {
                session.received = crate::shared::received::Received::default();
            }
            if session.stored && !session.outlives_link() {
                // It ends with this connection, and so with a restart. What it has in the store is void.
                session.stored = false;
                session.replays.iter_mut().for_each(|replay| replay.noted = false);
                self.journal.op(StoreOp::DeleteSession(session.id));
            }
        }
        self.store_session(key);
        if let Some(will) = &packet.will {
            self.take_on_will(key, will, user_name);
        }
        let keep_alive = self.keep_alive_for(packet, &grant);
        self.go_live(index, key, packet, keep_alive);
        self.set_validity(index, grant.valid_for);
        self.drop_too_large(index, key);
        self.drop_unreadable(key, true);
        // CONNACK waits for what it changed, and for nothing that was under way before.
        let gate = Some(self.journal.commit(&mut self.outputs)).filter(|last| *last > before);
        let gate = gate.unwrap_or_default();
        if let Some(c) = self.connections.get_mut(index) {
            c.gate = gate;
        }
        if gate > self.journal.stored() {
            let conn = self.id_of(index);
            self.waiting.push_back((gate, conn));
        }
        let event = Event::Connected {
            conn: self.id_of(index),
            client_id: client_id.into(),
            user_name: user_name.map(Into::into),
            version: packet.version,
            clean_start: packet.clean_start,
            keep_alive,
            session_present,
        };
        self.event(event);
        let expiry = (expiry != asked).then_some(expiry);
        self.send_connack(index, packet, session_present, assigned.as_deref(), expiry, keep_alive, &grant);
        self.pump_groups_of(key);
        self.queue_flush(index);
    }

    /// What was sent on an earlier link may be more than this client takes now. It counts as sent
    /// ([MQTT-3.1.2-25]).
    fn drop_too_large(&mut self, index: u32, key: SessionKey) {
        let Some(c) = self.connections.get(index) else { return };
        let (version, max) = (c.version, c.max_packet as usize);
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.ledger.is_empty() {
            return;
        }
        let (messages, now) = (&self.messages, self.now);
        let dropped = session.ledger.extract(|exchange| {
            exchange.message.as_ref().is_some_and(|delivery| {
                messages.get(delivery.message).is_some_and(|held| {
                    let head = delivery.largest_head(held.expiry_left(now));
                    held.shared().encoded_len(version, &head) > max
                })
            })
        });
        for delivery in dropped.into_iter().filter_map(|exchange| exchange.message) {
            self.discard(key, delivery, false);
            self.count_drop(key, DropReason::TooLarge);
        }
    }

    /// Session Expiry Interval, or what Clean Session means below 5.0.
    fn asked_expiry(&self, packet: &ConnectRef<'_>) -> u32 {
        if Rules::of(packet.version).clean_session_ends {
            return if packet.clean_start { 0 } else { u32::MAX };
        }
        packet.properties.session_expiry_interval().unwrap_or(0)
    }

    /// The keep alive in force ([MQTT-3.1.2-21], [MQTT-3.2.2-22]).
    fn keep_alive_for(&self, packet: &ConnectRef<'_>, grant: &Grant) -> u16 {
        let asked = packet.keep_alive;
        if let Some(secs) = grant.keep_alive {
            return secs;
        }
        let max = self.config.max_keep_alive;
        let over = max != 0 && (asked == 0 || asked > max);
        // A client below 5.0 cannot be told, so it is held to what it asked.
        if over && packet.version.is_v5() { max } else { asked }
    }

    fn new_session(&mut self, client_id: &str) -> SessionKey {
        // [MQTT-3.1.2-6]
        let id = self.journal.new_session();
        let mut session = Session::new(client_id, id);
        session.ledger.start_ids(self.config.first_packet_id);
        let key = SessionKey::try_from(self.sessions.insert(session)).unwrap_or(SessionKey::MAX);
        self.clients.insert(client_id.into(), key);
        self.counters.most_sessions = self.counters.most_sessions.max(self.clients.len() as u64);
        key
    }

    /// An identifier that no session has ([MQTT-3.1.3-6], [MQTT-3.2.2-16]).
    fn new_client_id(&mut self) -> String {
        loop {
            let id = format!("auto-{:016x}{:016x}", self.random.next_u64(), self.random.next_u64());
            if !self.clients.contains_key(id.as_str()) && self.router.foreign_owner(&id).is_none() {
                return id;
            }
        }
    }

    fn take_on_will(&mut self, key: SessionKey, will: &WillRef<'_>, user_name: Option<&str>) {
        let incoming = Incoming {
            topic: will.topic.as_bytes(),
            properties: will.properties,
            payload: will.payload,
            qos: will.qos,
            // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
            retain: will.retain,
        };
        // Its lifetime is kept as if it began at the epoch, until it fires.
        let message = self.messages.insert(Timestamp::ZERO, &incoming);
        let delay_secs = will.properties.will_delay_interval().unwrap_or(0);
        self.set_will(key, message, delay_secs);
        let Some(session) = self.sessions.get(key as usize) else { return };
        if self.journal.is_on()
            && let Some(message) = self.messages.to_stored(message)
        {
            // Also of a session that is not stored: its connection counts as lost after a restart.
            let author = StoredAuthor {
                acl: session.acl,
                client_id: session.client_id.as_ref().into(),
                user_name: user_name.map(Into::into),
            };
            let will = StoredWill { message, delay_secs, author };
            self.journal.op(StoreOp::PutWill(session.id, Box::new(will)));
        }
    }

    fn go_live(&mut self, index: u32, key: SessionKey, packet: &ConnectRef<'_>, keep_alive: u16) {
        let properties = packet.properties;
        let now = self.now;
        // [MQTT-4.9.0-1]
        let window = properties.receive_maximum().unwrap_or(u16::MAX).min(self.config.max_inflight);
        let aliases = properties.topic_alias_maximum().unwrap_or(0).min(self.config.max_outbound_aliases);
        let method: Option<Box<str>> = properties.authentication_method().map(Into::into);
        let Some(c) = self.connections.get_mut(index) else { return };
        c.phase = Phase::Live;
        c.since = now;
        self.connected += 1;
        self.counters.accepted += 1;
        c.session = Some(key);
        c.window = Window::new(window);
        c.keep_alive = KeepAlive::new(keep_alive, now);
        c.limit = Timestamp::MAX;
        c.peer = None;
        if packet.version.is_v5() && (aliases > 0 || method.is_some()) {
            c.extras = Some(Box::new(Extras {
                inbound: InboundAliases::new(self.config.topic_alias_maximum),
                outbound: OutboundAliases::new(aliases, self.hasher.clone()),
                auth_method: method,
                handshake: None,
                held_packets: VecDeque::new(),
            }));
        } else {
            c.extras = None;
        }
        self.arm(index);
    }

    /// The connection's next deadline may have moved to an earlier time.
    pub(super) fn arm(&mut self, index: u32) {
        let Some(c) = self.connections.get_mut(index) else { return };
        let deadline = c.next_deadline();
        if deadline < c.deadline {
            c.deadline = deadline;
            let generation = c.generation;
            self.timers.at(deadline, Timer::Connection { index, generation });
        }
    }

    /// The client may be connected for so long from now on.
    pub(super) fn set_validity(&mut self, index: u32, valid_for: Option<Duration>) {
        let now = self.now;
        let Some(c) = self.connections.get_mut(index) else { return };
        c.limit = valid_for.map_or(Timestamp::MAX, |time| now + time);
        let (limit, generation) = (c.limit, c.generation);
        if limit < c.deadline {
            c.deadline = limit;
            self.timers.at(limit, Timer::Connection { index, generation });
        }
    }

    /// What the link needs beyond the usual, made when it is first needed.
    pub(super) fn extras(&mut self, index: u32) -> Option<&mut Extras> {
        let hasher = &self.hasher;
        let max = self.config.topic_alias_maximum;
        let c = self.connections.get_mut(index)?;
        Some(c.extras.get_or_insert_with(|| {
            Box::new(Extras {
                inbound: InboundAliases::new(max),
                outbound: OutboundAliases::new(0, hasher.clone()),
                auth_method: None,
                handshake: None,
                held_packets: VecDeque::new(),
            })
        }))
    }

    /// [MQTT-3.1.4-5] [MQTT-3.2.0-1]. Holds neither a Reason String nor User Properties
    /// ([MQTT-3.2.2-19], [MQTT-3.2.2-20]).
    #[allow(clippy::too_many_arguments, reason = "each is one field of one packet")]
    fn send_connack(
        &mut self,
        index: u32,
        packet: &ConnectRef<'_>,
        session_present: bool,
        assigned: Option<&str>,
        expiry: Option<u32>,
        keep_alive: u16,
        grant: &Grant,
    ) {
        let mut properties = PropertiesBuf::new();
        if packet.version.is_v5() {
            let config = &self.config;
            let asked = packet.properties;
            let flag = |available: bool, property| (!available).then_some(property);
            let list = [
                expiry.map(Property::SessionExpiryInterval),
                (config.receive_maximum != u16::MAX)
                    .then_some(Property::ReceiveMaximum(config.receive_maximum)),
                // [MQTT-3.2.2-9]
                (config.max_qos != QoS::ExactlyOnce).then_some(Property::MaximumQos(config.max_qos)),
                flag(config.retain_available, Property::RetainAvailable(false)),
                Some(Property::MaximumPacketSize(config.max_packet_size)),
                // [MQTT-3.1.3-7]
                assigned.map(Property::AssignedClientIdentifier),
                (config.topic_alias_maximum != 0)
                    .then_some(Property::TopicAliasMaximum(config.topic_alias_maximum)),
                flag(config.wildcards_available, Property::WildcardSubscriptionAvailable(false)),
                flag(config.shared_available, Property::SharedSubscriptionAvailable(false)),
                (keep_alive != packet.keep_alive).then_some(Property::ServerKeepAlive(keep_alive)),
                // [MQTT-3.1.2-28]
                config
                    .response_information
                    .as_deref()
                    .filter(|_| asked.request_response_information() == Some(true))
                    .map(Property::ResponseInformation),
                // [MQTT-4.12.0-5]
                asked.authentication_method().map(Property::AuthenticationMethod),
                grant.authentication_data.as_deref().map(Property::AuthenticationData),
            ];
            for property in list.into_iter().flatten() {
                // Each occurs once and is in range.
                let _ = properties.push(property);
            }
        }
        let connack = ConnackRef {
            session_present,
            reason: ReasonCode::Success,
            properties: properties.as_properties(),
        };
        let packet = PacketRef::Connack(connack);
        let Some(c) = self.connections.get_mut(index) else { return };
        self.spares.lend(c);
        if super::outbox::put(c, &packet) {
            return;
        }
        // A client whose limit has no room for CONNACK cannot be served ([MQTT-3.1.2-24]).
        self.hang_up(index, ReasonCode::PacketTooLarge, false);
    }
}
