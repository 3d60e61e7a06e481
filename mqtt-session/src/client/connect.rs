//! CONNACK, authentication, and disconnecting.

use super::event::{AuthError, AuthStep, Cause, Connected, Event, Limits};
use super::link::{AuthTurn, Link, Stage};
use super::reconnect::{Fault, Phase};
use super::{CleanStart, Client, persist};
use crate::Timestamp;
use crate::defects::defect;
use crate::shared::alias::{InboundAliases, OutboundAliases};
use crate::shared::keep_alive::KeepAlive;
use crate::shared::window::Window;
use crate::store::StoreOp;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use foldhash::fast::FixedState;
use mqtt_proto::{
    AuthRef, ConnackRef, DisconnectRef, MAX_PACKET_SIZE, PacketRef, Properties, PropertiesBuf, Property,
    PropertyId, QoS, ReasonCode, Version,
};

/// How to disconnect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisconnectOptions {
    /// What the server is told (5.0): [`ReasonCode::DisconnectWithWill`] publishes the will.
    pub reason: ReasonCode,
    /// How long the session outlives the connection from now on, in seconds (5.0).
    pub session_expiry_secs: Option<u32>,
    /// Further properties (5.0).
    pub properties: PropertiesBuf,
    /// How long to wait for everything that was accepted to be sent and answered; zero disconnects at
    /// once.
    pub drain: Duration,
}

impl Default for DisconnectOptions {
    fn default() -> Self {
        Self {
            reason: ReasonCode::Success,
            session_expiry_secs: None,
            properties: PropertiesBuf::new(),
            drain: Duration::from_secs(5),
        }
    }
}

/// A disconnect that is not carried out.
#[derive(Debug)]
pub(super) struct Closing {
    options: DisconnectOptions,
    pub(super) deadline: Timestamp,
}

/// Refusals that the next attempt would get as well.
const fn is_permanent(reason: ReasonCode) -> bool {
    !matches!(
        reason,
        ReasonCode::UnspecifiedError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::QuotaExceeded
            | ReasonCode::ConnectionRateExceeded
            | ReasonCode::MessageRateTooHigh
    )
}

impl Client {
    /// CONNACK.
    pub(super) fn handle_connack(&mut self, now: Timestamp, connack: &ConnackRef<'_>) -> Result<(), Fault> {
        let Some(link) = &self.link else { return Ok(()) };
        if link.stage != Stage::Connecting {
            return Err(Fault::violation(ReasonCode::ProtocolError, "second CONNACK [MQTT-3.2.0-2]"));
        }
        if connack.reason != ReasonCode::Success {
            // [MQTT-4.13.2-1]
            let stop = self.config.stop_when_refused && is_permanent(connack.reason);
            let fault =
                Fault { properties: connack.properties.into(), ..Fault::new(Cause::Refused(connack.reason)) };
            return Err(fault.final_if(stop));
        }
        if connack.session_present && link.clean_start {
            let what = "session present after Clean Start [MQTT-3.2.2-2]";
            return Err(Fault::violation(ReasonCode::ProtocolError, what));
        }
        let rules = self.rules();
        // 3.1 does not tell: there the server is trusted to keep what it was asked to keep.
        let trusted = !rules.tells_session_present && !link.clean_start && self.session.established;
        let present = connack.session_present || trusted;
        let unknown = present && !self.session.established && !self.config.adopt_session;
        if unknown && rules.unknown_session_closes {
            // [MQTT-3.2.2-4]. Starting clean is the way out, where the settings allow it.
            let stop = self.config.clean_start == CleanStart::Never;
            self.was_online = false;
            return Err(Fault::new(Cause::UnknownSession).final_if(stop));
        }
        self.check_method(connack.properties.authentication_method())?;
        let limits = self.negotiate(connack.properties);
        self.enter_session(connack, present, &limits);
        let Some(link) = &mut self.link else { return Ok(()) };
        link.stage = Stage::Online;
        link.auth = AuthTurn::Idle;
        link.since = now;
        link.progress = now;
        // [MQTT-4.9.0-1]
        link.window = Window::new(limits.in_flight);
        link.inbound = Window::new(self.config.receive_maximum);
        link.inbound_aliases = InboundAliases::new(self.config.topic_alias_maximum);
        link.aliases = OutboundAliases::new(limits.topic_aliases, FixedState::default());
        // [MQTT-3.1.2-21] [MQTT-3.2.2-21]
        link.sent = KeepAlive::new(limits.keep_alive_secs, now);
        link.received = KeepAlive::new(limits.keep_alive_secs, now);
        link.limits = limits;
        self.phase = Phase::Online;
        self.was_online = true;
        let connected = Connected {
            session_present: present,
            client_id: self.session.client_id.clone(),
            limits,
            properties: connack.properties.into(),
        };
        self.event(Event::Connected(Box::new(connected)));
        if !present || trusted {
            self.resubscribe();
        }
        self.flush();
        Ok(())
    }

    /// What is in force: the server's word, or the standard's default.
    fn negotiate(&self, properties: Properties<'_>) -> Limits {
        let config = &self.config;
        let receive_maximum = properties.receive_maximum().unwrap_or(u16::MAX);
        let flag = |value: Option<bool>| value.unwrap_or(true);
        let starts_clean = self.link.as_ref().is_some_and(|link| link.clean_start);
        let session_expiry_secs = match (self.rules().clean_session_ends, starts_clean) {
            (true, true) => 0,
            (true, false) => u32::MAX,
            (false, _) => properties.session_expiry_interval().unwrap_or(config.session_expiry_secs),
        };
        Limits {
            in_flight: if self.rules().flow_control {
                receive_maximum.min(config.max_in_flight)
            } else {
                config.max_in_flight_3x
            },
            max_packet_size: properties.maximum_packet_size().unwrap_or(MAX_PACKET_SIZE),
            max_qos: properties.maximum_qos().unwrap_or(QoS::ExactlyOnce),
            retain: flag(properties.retain_available()),
            wildcard_subscriptions: flag(properties.wildcard_subscription_available()),
            shared_subscriptions: flag(properties.shared_subscription_available()),
            subscription_ids: config.version.is_v5() && flag(properties.subscription_identifier_available()),
            // [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-9]
            topic_aliases: properties.topic_alias_maximum().unwrap_or(0).min(config.outbound_topic_aliases),
            keep_alive_secs: properties.server_keep_alive().unwrap_or(config.keep_alive_secs),
            session_expiry_secs,
        }
    }

    /// Resumes the session, or begins a new one.
    fn enter_session(&mut self, connack: &ConnackRef<'_>, present: bool, limits: &Limits) {
        let had_id = !self.session.client_id.is_empty();
        if let Some(id) = connack.properties.assigned_client_identifier().filter(|_| !had_id) {
            self.session.client_id = id.into();
        }
        let old = self.store.session;
        let mut over = Vec::new();
        if !present {
            // [MQTT-3.2.2-5], [MQTT-3.1.2-4]
            if !defect!(ClientKeepsSession) {
                over = self.session.lost(self.config.republish);
            }
        }
        self.session.established = limits.session_expiry_secs > 0;
        if self.store.is_on() {
            let expiry = limits.session_expiry_secs;
            let mut ops = vec![];
            if !present {
                // One group: the new session takes over what is still wanted, the old one ends.
                self.store.session.0 += 1;
                for outgoing in self.session.queue.iter().filter(|outgoing| outgoing.stored) {
                    ops.push(persist::append(self.store.session, outgoing));
                }
                // With what is over, else a crash would leave its bodies behind.
                for (token, ..) in over.iter().filter(|(_, stored, _)| *stored) {
                    ops.extend(persist::remove(old, *token));
                }
                ops.push(StoreOp::DeleteSession(old));
            }
            ops.insert(0, persist::put_session(self.store.session, &self.session, &self.config, expiry));
            self.store_ops(|| ops);
        }
        for (token, _, outcome) in over {
            self.done(token, outcome);
        }
    }

    /// With a method in CONNECT every AUTH and the accepting CONNACK name it [MQTT-4.12.0-5]; without,
    /// none does [MQTT-4.12.0-6].
    fn check_method(&self, method: Option<&str>) -> Result<(), Fault> {
        let ours = self.config.authentication.as_ref().map(|authentication| authentication.method.as_str());
        if method == ours {
            return Ok(());
        }
        let what = "authentication method is not that of CONNECT [MQTT-4.12.0-5] [MQTT-4.12.0-6]";
        Err(Fault::violation(ReasonCode::ProtocolError, what))
    }

    // ---- authentication ----

    /// AUTH.
    pub(super) fn handle_auth(&mut self, auth: &AuthRef<'_>) -> Result<(), Fault> {
        if self.config.authentication.is_none() {
            let what = "AUTH without a method in CONNECT [MQTT-4.12.0-6]";
            return Err(Fault::violation(ReasonCode::ProtocolError, what));
        }
        // An AUTH without a body names no method and means success.
        if auth.properties.contains(PropertyId::AuthenticationMethod) || auth.reason != ReasonCode::Success {
            self.check_method(auth.properties.authentication_method())?;
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        let wants_answer = match (auth.reason, link.auth, link.stage) {
            (ReasonCode::ContinueAuthentication, AuthTurn::Server, _)
            | (ReasonCode::ContinueAuthentication, AuthTurn::Idle, Stage::Connecting) => true,
            (ReasonCode::Success, AuthTurn::Server, Stage::Online) => false,
            _ => {
                let what = "AUTH out of turn [MQTT-4.12.0-2]";
                return Err(Fault::violation(ReasonCode::ProtocolError, what));
            }
        };
        link.auth = if wants_answer { AuthTurn::Application } else { AuthTurn::Idle };
        let step = AuthStep {
            wants_answer,
            data: auth.properties.authentication_data().map(Bytes::copy_from_slice),
            properties: auth.properties.into(),
        };
        self.event(Event::Auth(Box::new(step)));
        Ok(())
    }

    /// Answers [`Event::Auth`].
    ///
    /// # Errors
    /// If the server did not ask, or `data` does not fit into a packet.
    pub fn authenticate(&mut self, now: Timestamp, data: &[u8]) -> Result<(), AuthError> {
        self.advance(now);
        if self.config.authentication.is_none() {
            return Err(AuthError::NoMethod);
        }
        if self.link.as_ref().is_none_or(|l| l.auth != AuthTurn::Application || l.stage == Stage::Farewell) {
            return Err(AuthError::NotDue);
        }
        // [MQTT-4.12.0-3]
        self.send_auth(ReasonCode::ContinueAuthentication, data)
    }

    /// Authenticates again on a live connection, as before credentials run out.
    ///
    /// # Errors
    /// Without a connection or while an exchange is under way, without a method in the settings
    /// [MQTT-4.12.0-7], or if `data` does not fit into a packet.
    pub fn reauthenticate(&mut self, now: Timestamp, data: &[u8]) -> Result<(), AuthError> {
        self.advance(now);
        if self.config.authentication.is_none() {
            return Err(AuthError::NoMethod);
        }
        if self.link.as_ref().is_none_or(|link| link.auth != AuthTurn::Idle || !link.is_online()) {
            return Err(AuthError::NotDue);
        }
        // [MQTT-4.12.1-1]
        self.send_auth(ReasonCode::ReAuthenticate, data)
    }

    fn send_auth(&mut self, reason: ReasonCode, data: &[u8]) -> Result<(), AuthError> {
        let Some(authentication) = &self.config.authentication else { return Err(AuthError::NoMethod) };
        let Some(link) = &mut self.link else { return Err(AuthError::NotDue) };
        let properties = PropertiesBuf::new()
            .with(Property::AuthenticationMethod(&authentication.method))
            .and_then(|list| list.with(Property::AuthenticationData(data)))
            .map_err(|_| AuthError::TooLarge)?;
        let packet = PacketRef::Auth(AuthRef { reason, properties: properties.as_properties() });
        let len = packet.encoded_len(Version::V5).map_err(|_| AuthError::TooLarge)?;
        if u32::try_from(len).map_or(true, |len| len > link.limits.max_packet_size) {
            return Err(AuthError::TooLarge);
        }
        packet.encode(Version::V5, link.out.tail()).map_err(|_| AuthError::TooLarge)?;
        link.auth = AuthTurn::Server;
        self.flush();
        Ok(())
    }

    /// Changes user name and password for the next CONNECT, as when a token was renewed.
    pub fn set_credentials(&mut self, user_name: Option<String>, password: Option<Bytes>) {
        self.config.user_name = user_name;
        self.config.password = password;
    }

    /// Changes the data that goes with the next CONNECT, as for a method that begins with a nonce.
    pub fn set_authentication_data(&mut self, data: Option<Bytes>) {
        if let Some(authentication) = &mut self.config.authentication {
            authentication.data = data;
        }
    }

    // ---- disconnecting ----

    /// Disconnects and stops: waits until everything accepted before was sent and answered, at most
    /// for [`DisconnectOptions::drain`], then sends DISCONNECT. From now on nothing is accepted.
    pub fn disconnect(&mut self, now: Timestamp, options: DisconnectOptions) {
        let now = self.advance(now);
        if self.is_stopped() {
            self.phase = Phase::Stopped;
            return;
        }
        self.closing = Some(Closing { deadline: now + options.drain, options });
        self.finish_closing(now);
    }

    /// Sends DISCONNECT if one is wanted and nothing has to go before it.
    pub(super) fn finish_closing(&mut self, now: Timestamp) {
        let Some(closing) = &self.closing else { return };
        let sent = match &self.link {
            Some(link) => link.replies.is_empty() && link.acks.ready(self.store.stored()).is_none(),
            None => true,
        };
        if closing.deadline > now && !(self.session.is_idle() && sent) {
            return;
        }
        let Some(Closing { options, .. }) = self.closing.take() else { return };
        match self.phase {
            Phase::Online => {
                let mut properties = PropertiesBuf::new();
                // A session that ended with CONNECT cannot be prolonged by DISCONNECT (3.14.2.2.2), and
                // below 5.0 the server is not told.
                let tells = !self.rules().clean_session_ends && self.config.session_expiry_secs > 0;
                let expiry = options.session_expiry_secs.filter(|_| tells);
                if let Some(secs) = expiry {
                    // Fits: it is the first.
                    let _ = properties.push(Property::SessionExpiryInterval(secs));
                }
                if expiry == Some(0) {
                    self.session.established = false;
                }
                properties.extend_except(options.properties.as_properties(), &[]);
                self.farewell(options.reason, properties.as_properties());
                self.close(now, Fault::new(Cause::Requested).final_if(true));
            }
            Phase::New | Phase::Stopped | Phase::Waiting(_) | Phase::Dialing(_) | Phase::Connecting(_) => {
                self.close(now, Fault::new(Cause::Requested).final_if(true));
            }
        }
    }

    /// DISCONNECT from the server.
    pub(super) fn handle_disconnect(&mut self, disconnect: &DisconnectRef<'_>) -> Result<(), Fault> {
        if !self.rules().server_disconnect {
            return Err(Fault::violation(ReasonCode::ProtocolError, "DISCONNECT from a server below 5.0"));
        }
        if disconnect.properties.contains(PropertyId::SessionExpiryInterval) {
            let what = "session expiry in the server's DISCONNECT [MQTT-3.14.2-2]";
            return Err(Fault::violation(ReasonCode::ProtocolError, what));
        }
        let stop = match disconnect.reason {
            ReasonCode::SessionTakenOver => self.config.stop_when_taken_over,
            ReasonCode::UseAnotherServer | ReasonCode::ServerMoved | ReasonCode::NotAuthorized => {
                self.config.stop_when_refused
            }
            _ => false,
        };
        let cause = Cause::ByServer(disconnect.reason);
        Err(Fault { properties: disconnect.properties.into(), ..Fault::new(cause) }.final_if(stop))
    }
}

impl Link {
    /// Whether packets other than CONNACK and AUTH are allowed [MQTT-3.2.0-1].
    pub(super) fn may_receive(&self, packet: &PacketRef<'_>) -> bool {
        self.is_online() || matches!(packet, PacketRef::Connack(_) | PacketRef::Auth(_))
    }
}
