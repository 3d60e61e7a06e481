//! The ends of links, sessions and wills.

use super::Broker;
use super::connection::Phase;
use super::message::MessageKey;
use super::output::{Event, Output};
use super::route::Source;
use super::router::{Left, SessionKey};
use super::session::{DueWill, Will};
use super::timers::Timer;
use crate::defects::defect;
use crate::shared::rules::Rules;
use crate::store::StoredSession;
use crate::{StoreOp, Timestamp};
use alloc::boxed::Box;
use alloc::vec::Vec;
use mqtt_proto::{DisconnectRef, PacketRef, QoS, ReasonCode};

impl Broker {
    /// The client says goodbye.
    pub(super) fn disconnected(&mut self, index: u32, packet: &DisconnectRef<'_>) {
        let Some(key) = self.connections.get(index).and_then(|c| c.session) else { return };
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if let Some(secs) = packet.properties.session_expiry_interval() {
            // A session that was to end with its connection cannot be made to stay.
            if session.expiry_secs == 0 && secs != 0 {
                self.hang_up(index, ReasonCode::ProtocolError, true);
                return;
            }
            session.expiry_secs = secs.min(self.config.max_session_expiry);
        }
        if packet.reason != ReasonCode::DisconnectWithWill && !defect!(WillAfterDisconnect) {
            // [MQTT-3.14.4-3] [MQTT-3.1.2-10]
            self.drop_will(key);
        }
        self.hang_up(index, ReasonCode::Success, false);
    }

    /// Ends a connection from our side: the farewell packet, the end of the link for its session,
    /// then the hang-up. Nothing is sent after the farewell ([MQTT-3.14.4-1]).
    pub(super) fn hang_up(&mut self, index: u32, reason: ReasonCode, farewell: bool) {
        self.close_batch();
        let conn = self.id_of(index);
        let Some(c) = self.connections.get_mut(index) else { return };
        if c.phase == Phase::Closing {
            return;
        }
        // [MQTT-3.14.0-1]: never before a CONNACK.
        let may_tell = c.phase == Phase::Live && !c.gone && Rules::of(c.version).server_disconnect;
        if farewell && may_tell {
            // [MQTT-3.14.2-2]
            self.spares.lend(c);
            super::outbox::put(c, &PacketRef::Disconnect(DisconnectRef { reason, ..Default::default() }));
        }
        self.close_link(index, reason);
        if self.connections.get(index).is_some_and(|c| c.gone) {
            self.remove_connection(index);
        } else {
            self.outputs.push_back(Output::Hangup { conn, after_flush: true });
        }
    }

    /// Ends the link for its session and makes the connection wait for the adapter.
    pub(super) fn close_link(&mut self, index: u32, reason: ReasonCode) {
        let Some(c) = self.connections.get_mut(index) else { return };
        if c.phase == Phase::Connecting {
            // Never below zero: it was added when it was kept.
            self.unauthenticated = self.unauthenticated.saturating_sub(c.framer.len());
        }
        if c.phase == Phase::Live {
            self.connected -= 1;
        }
        c.phase = Phase::Closing;
        c.reason = reason;
        let closed = c.closed;
        c.framer.clear();
        c.acks.clear();
        c.extras = None;
        c.paused = false;
        if let Some(pending) = c.pending.take() {
            self.questions.remove(&pending.question.0);
        }
        let session = c.session.take();
        c.limit = self.now + self.config.close_timeout;
        let (limit, generation) = (c.limit, c.generation);
        c.deadline = c.deadline.min(limit);
        self.timers.at(limit, Timer::Connection { index, generation });
        let client_id =
            session.and_then(|key| self.sessions.get(key as usize)).map(|s| s.client_id.as_ref().into());
        if client_id.is_some() {
            let conn = self.id_of(index);
            self.counters.endings.add(reason);
            self.event(Event::Disconnected { conn, client_id, reason, closed });
        }
        if let Some(key) = session {
            self.detach(key);
        }
    }

    /// The socket is closed and all its bytes were worked on.
    pub(super) fn remove_connection(&mut self, index: u32) {
        let Some(c) = self.connections.get(index) else { return };
        if c.phase != Phase::Closing {
            self.close_link(index, ReasonCode::UnspecifiedError);
        }
        if let Some(c) = self.connections.get_mut(index) {
            (c.out, c.out_taken, c.packets) = (Vec::new(), 0, 0);
        }
        self.note_outbox(index);
        self.note_flushed(index);
        self.connections.remove(index);
    }

    /// A session without its connection: its will and its end are due by their times
    /// ([MQTT-3.1.2-23]).
    fn detach(&mut self, key: SessionKey) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        session.link = None;
        session.ledger.rewind();
        let expiry = session.expiry_secs;
        session.expires = if expiry == u32::MAX || expiry > 0 && defect!(SessionNeverExpires) {
            Timestamp::MAX
        } else {
            now.plus_secs(expiry)
        };
        if let Some(will) = &session.will {
            // [MQTT-3.1.2-8]: after the delay or with the session, whichever is first.
            let delay = if defect!(WillAtOnce) { 0 } else { will.delay_secs };
            session.will_due = now.plus_secs(delay).min(session.expires);
        }
        if defect!(QueueLost) {
            session.queue = super::queue::Queue::default();
            session.queued_bytes = 0;
        }
        if expiry > 0 && !self.config.queue_qos0 {
            self.drop_unsent_qos0(key);
        }
        self.return_to_groups(key);
        self.store_session(key);
        if self.shutting_down && self.journal.is_on() {
            // Its will and its end are stored, and due by their times after the restart.
            return;
        }
        self.settle_session(key);
    }

    /// QoS 0 messages do not wait for a client that is away.
    fn drop_unsent_qos0(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.queue.iter().all(|(_, qos)| qos > QoS::AtMostOnce) {
            return;
        }
        for delivery in session.queue.extract(|delivery| delivery.qos == QoS::AtMostOnce) {
            self.discard(key, delivery, true);
        }
    }

    /// A timer of the session is due.
    pub(super) fn session_due(&mut self, key: SessionKey, incarnation: u64) {
        // [MQTT-4.1.0-1]
        let Some(session) = self.sessions.get_mut(key as usize).filter(|s| s.id.0 == incarnation) else {
            return;
        };
        session.armed = Timestamp::MAX;
        if session.link.is_none() {
            self.settle_session(key);
        }
    }

    /// Does what is due for a session without a connection, and arms the timer for what is not.
    fn settle_session(&mut self, key: SessionKey) {
        let now = self.now;
        let Some(session) = self.sessions.get(key as usize) else { return };
        let (will_due, expires, incarnation) = (session.will_due, session.expires, session.id.0);
        if will_due <= now {
            self.fire_will(key);
        }
        if expires <= now {
            // [MQTT-4.1.0-2]
            let outlives =
                self.sessions.get(key as usize).is_some_and(super::session::Session::outlives_link);
            self.counters.sessions_expired += u64::from(outlives);
            self.end_session(key);
            return;
        }
        let next = if will_due <= now { expires } else { will_due.min(expires) };
        // A timer that is armed for an earlier time will find out: clients that come and go leave no
        // trail of timers.
        if let Some(session) = self.sessions.get_mut(key as usize)
            && next < session.armed
        {
            session.armed = next;
            self.timers.at(next, Timer::Session { key, incarnation });
        }
    }

    /// Removes a session and all that is in it; a will that waited fires now ([MQTT-3.1.2-8]).
    pub(super) fn end_session(&mut self, key: SessionKey) {
        self.fire_will(key);
        // Others may have joined its groups since it was alone in them.
        self.return_to_groups(key);
        let mut left = Left::default();
        self.router.forget(key, &mut left);
        self.release_left(left);
        let Some(mut session) = self.sessions.try_remove(key as usize) else { return };
        let lost = self.empty_session(&mut session);
        if session.local.is_some() {
            return;
        }
        if self.clients.get(&session.client_id) == Some(&key) {
            self.clients.remove(&session.client_id);
        }
        if session.stored {
            self.journal.op(StoreOp::DeleteSession(session.id));
        }
        if session.outlives_link() || session.stored {
            let client_id = session.client_id.into_string();
            self.event(Event::SessionEnded { client_id, lost });
        }
    }

    /// Frees what is left of groups without members.
    pub(super) fn release_left(&mut self, left: Left) {
        for delivery in left.deliveries {
            self.release_message(delivery.message);
        }
        for id in left.stored {
            self.journal.op(StoreOp::DeleteGroup(id));
        }
        for (leaf, deliveries) in left.leaves {
            self.leave_owner(&leaf, deliveries);
        }
    }

    /// Writes the session's record, if it has one or is to have one.
    pub(super) fn store_session(&mut self, key: SessionKey) {
        if !self.journal.is_on() {
            return;
        }
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if !session.stored && (!session.outlives_link() || session.local.is_some()) {
            return;
        }
        session.stored = true;
        let disconnected_at = session.link.is_none().then_some(self.now.as_micros());
        let stored = StoredSession {
            client_id: session.client_id.as_ref().into(),
            user_name: session.user_name.as_deref().map(Into::into),
            acl: session.acl,
            expiry_secs: session.expiry_secs,
            disconnected_at,
        };
        self.journal.op(StoreOp::PutSession(session.id, Box::new(stored)));
    }

    /// Takes the will away unpublished.
    pub(super) fn drop_will(&mut self, key: SessionKey) {
        if let Some(will) = self.take_will(key) {
            self.forget_will(will);
        }
    }

    /// A will that is not published after all.
    pub(super) fn forget_will(&mut self, will: DueWill) {
        if let Some(stored) = will.stored {
            self.journal.op(StoreOp::DeleteWill(stored));
        }
        self.release_message(will.message);
    }

    fn take_will(&mut self, key: SessionKey) -> Option<DueWill> {
        let session = self.sessions.get_mut(key as usize)?;
        session.will_due = Timestamp::MAX;
        let will = session.will.take()?;
        let stored = self.journal.is_on().then_some(session.id);
        Some(DueWill { message: will.message, publisher: Some(key), stored })
    }

    /// Sets the will of a session that is about to get a connection ([MQTT-3.1.2-7]).
    pub(super) fn set_will(&mut self, key: SessionKey, message: MessageKey, delay_secs: u32) {
        if let Some(session) = self.sessions.get_mut(key as usize) {
            session.will = Some(Box::new(Will { message, delay_secs }));
        }
    }

    /// Publishes the will, once ([MQTT-3.1.2-10]), if there is one ([MQTT-3.1.2-12] of 3.1.1). If wills are asked about, the question goes out
    /// first.
    pub(super) fn fire_will(&mut self, key: SessionKey) {
        let Some(will) = self.take_will(key).filter(|_| !defect!(WillLost)) else { return };
        if !self.may_leave_will(key, will.message) {
            self.forget_will(will);
            return;
        }
        self.sign(will.message, Some(key));
        if self.config.ask.will {
            self.ask_about_will(key, will);
        } else {
            self.wills.push_back(will);
        }
    }

    /// Publishes the wills that are due. They wait in a line, so that one that ends another session
    /// whose will is due does not nest.
    pub(super) fn publish_wills(&mut self) {
        while let Some(will) = self.wills.pop_front() {
            self.publish_will(will);
        }
    }

    fn publish_will(&mut self, will: DueWill) {
        let DueWill { message, publisher, stored } = will;
        if let Some(stored) = stored {
            // In one group with what it changes: it is published once.
            self.journal.op(StoreOp::DeleteWill(stored));
        }
        // Its lifetime begins now, not when it was set.
        let now = self.now;
        if let Some(held) = self.messages.get_mut(message)
            && held.expires() != Timestamp::MAX
        {
            let lifetime = held.expires().since(Timestamp::ZERO);
            held.set_expires(now + lifetime);
        }
        let source = Source { publisher, is_will: true, ..Source::default() };
        self.route(message, source);
        if defect!(WillTwice) {
            self.route(message, source);
        }
        self.release_message(message);
    }

    /// A timer of the connection is due.
    pub(super) fn connection_due(&mut self, index: u32, generation: u32) {
        let now = self.now;
        let Some(c) = self.connections.get_mut(index).filter(|c| c.generation == generation) else { return };
        if c.phase == Phase::Live && c.resend <= now {
            self.resend(index);
        }
        self.metered(index);
        let Some(c) = self.connections.get_mut(index) else { return };
        let due = c.next_deadline();
        if due > now {
            c.deadline = due;
            self.timers.at(due, Timer::Connection { index, generation });
            return;
        }
        let conn = self.id_of(index);
        let Some(c) = self.connections.get_mut(index) else { return };
        match c.phase {
            // No CONNECT in time.
            Phase::Connecting => self.hang_up(index, ReasonCode::UnspecifiedError, false),
            // The farewell could not be written in time.
            Phase::Closing => {
                c.limit = Timestamp::MAX;
                c.stalled = Timestamp::MAX;
                self.outputs.push_back(Output::Hangup { conn, after_flush: false });
            }
            Phase::Live if c.stalled <= now => {
                self.hang_up(index, ReasonCode::UnspecifiedError, false);
                self.outputs.push_back(Output::Hangup { conn, after_flush: false });
            }
            // The permission to be connected has ended.
            Phase::Live if c.limit <= now => self.hang_up(index, ReasonCode::NotAuthorized, true),
            // [MQTT-3.1.2-22] ([MQTT-3.1.2-24] of 3.1.1)
            Phase::Live => self.hang_up(index, ReasonCode::KeepAliveTimeout, true),
        }
    }
}
