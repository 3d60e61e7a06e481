//! From bytes to packets.

use super::connection::{Pending, Phase};
use super::output::{Closed, ConnectionId, Event, QuestionId, ReadStatus};
use super::{Broker, outbox};
use crate::Timestamp;
use crate::shared::framer::Framer;
use crate::shared::rules::{answer_to_malformed_connect, is_no_connect};
use alloc::boxed::Box;
use mqtt_proto::{AckRef, DecodeError, PacketRef, PacketType, RawPublish, ReasonCode, Version};

/// What a connection may keep unread beyond one packet, while it is paused.
const UNREAD_LIMIT: usize = 1 << 20;

/// How a PUBLISH of QoS 0 begins that is not to be retained.
const PUBLISH_ONCE: u8 = 0x30;

impl Broker {
    /// Bytes arrived. All of `data` is taken; what may not be worked on yet is kept.
    pub fn handle_read(&mut self, now: Timestamp, conn: ConnectionId, data: &[u8]) -> ReadStatus {
        self.begin(now);
        let Some(index) = self.index_of(conn) else { return ReadStatus::Ready };
        self.counters.bytes_received += data.len() as u64;
        self.read(index, data);
        self.finish();
        match self.connections.get(index) {
            Some(c) if c.generation == conn.generation && (c.paused || c.backlogged) => ReadStatus::Paused,
            _ => ReadStatus::Ready,
        }
    }

    /// The connection is closed. What it sent before is still worked on, so that a DISCONNECT among
    /// it counts.
    pub fn handle_close(&mut self, now: Timestamp, conn: ConnectionId, why: Closed) {
        self.begin(now);
        let Some(index) = self.index_of(conn) else { return };
        if let Some(c) = self.connections.get_mut(index) {
            c.gone = true;
            if c.phase != Phase::Closing {
                c.closed = Some(why);
            }
            c.out = alloc::vec::Vec::new();
            c.out_taken = 0;
            c.packets = 0;
            let is_over = c.phase == Phase::Closing || !(c.paused || c.backlogged);
            self.note_outbox(index);
            if is_over {
                self.remove_connection(index);
            }
        }
        self.finish();
    }

    /// Takes up what was kept, unless it still has to wait.
    pub(super) fn continue_reading(&mut self, index: u32) {
        let Some(c) = self.connections.get_mut(index) else { return };
        let was_paused = c.paused || c.backlogged;
        if !was_paused || c.phase == Phase::Closing || c.pending.is_some() || c.starved || c.moving {
            return;
        }
        c.paused = false;
        c.backlogged = false;
        // The client could not be heard meanwhile.
        c.keep_alive.touch(self.now);
        let generation = c.generation;
        self.read(index, &[]);
        let Some(c) = self.connections.get(index) else { return };
        if c.generation != generation || c.paused || c.backlogged {
            return;
        }
        if c.gone {
            self.remove_connection(index);
        } else {
            self.outputs.push_back(super::Output::Resume(ConnectionId { index, generation }));
        }
    }

    fn read(&mut self, index: u32, data: &[u8]) {
        let Some(c) = self.connections.get_mut(index) else { return };
        // [MQTT-3.1.4-6]
        if c.phase == Phase::Closing {
            return;
        }
        if !data.is_empty() {
            c.keep_alive.touch(self.now);
        }
        let generation = c.generation;
        let before = c.framer.len();
        let connecting = c.phase == Phase::Connecting;
        let (buffer, taken) = c.framer.take(data).map_or((None, 0), |(buffer, taken)| (Some(buffer), taken));
        let mut rest = data.get(taken..).unwrap_or_default();
        let mut used = 0;
        if !(c.paused || c.backlogged) {
            let kept = buffer.as_deref().unwrap_or_default();
            self.since = c.held_since.min(self.now);
            used = self.work(index, kept);
            self.since = self.now;
            if used == kept.len() {
                let worked = self.work(index, rest);
                rest = rest.get(worked..).unwrap_or_default();
            }
            self.close_batch();
        }
        let Some(c) = self.connections.get_mut(index).filter(|c| c.generation == generation) else {
            self.count_unauthenticated(connecting, before, 0);
            return;
        };
        if c.phase != Phase::Closing {
            c.framer.put_back(buffer, used, rest);
            let waits = c.paused || c.backlogged;
            c.held_since = if waits { c.held_since.min(self.now) } else { Timestamp::MAX };
        }
        let kept = c.framer.len();
        let still_connecting = c.phase == Phase::Connecting;
        self.count_unauthenticated(connecting, before, if still_connecting { kept } else { 0 });
        let limit = self.config.max_packet_size as usize + UNREAD_LIMIT;
        let unauthenticated = self.unauthenticated + self.used_elsewhere().unauthenticated;
        if kept > limit || still_connecting && unauthenticated > self.config.max_unauthenticated_bytes {
            self.hang_up(index, ReasonCode::QuotaExceeded, true);
        }
    }

    /// A connection that was too fast goes on when its time has come.
    pub(super) fn metered(&mut self, index: u32) {
        let now = self.now;
        let Some(meter) = self.connections.get_mut(index).and_then(|c| c.meter.as_mut()) else { return };
        if meter.until <= now {
            meter.until = Timestamp::MAX;
            self.continue_reading(index);
        }
    }

    fn count_unauthenticated(&mut self, counted: bool, before: usize, after: usize) {
        if counted {
            // Never below zero: `before` was added when it was kept.
            self.unauthenticated = self.unauthenticated.saturating_sub(before) + after;
        }
    }

    /// Works on whole packets at the head of `input` and tells how many bytes that were.
    fn work(&mut self, index: u32, input: &[u8]) -> usize {
        let mut used = 0;
        let (packet_size, connect_size) = (self.config.max_packet_size, self.config.max_connect_size);
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let Some(c) = self.connections.get_mut(index) else { return input.len() };
            let max = match c.phase {
                Phase::Closing => return input.len(),
                Phase::Connecting => connect_size,
                Phase::Live => packet_size,
            };
            let (version, is_plain) = (c.version, c.phase == Phase::Live && c.meter.is_none());
            if self.shutting_down && c.phase == Phase::Live {
                // As if it had never come.
                return input.len();
            }
            if c.pending.is_some() || c.starved || c.moving {
                c.paused = true;
                return used;
            }
            if rest.is_empty() {
                return used;
            }
            if self.journal.is_full() {
                c.paused = true;
                let conn = self.id_of(index);
                // Whatever is confirmed next may make room.
                self.waiting.push_front((self.journal.stored().next(), conn));
                return used;
            }
            if self.budget == 0 {
                c.backlogged = true;
                self.backlog.push_back(index);
                return used;
            }
            if let Some(meter) = &mut c.meter
                && c.phase == Phase::Live
                && !meter.is_open(self.now)
            {
                c.paused = true;
                self.slowed += 1;
                self.arm(index);
                return used;
            }
            if c.phase == Phase::Connecting
                && c.extras.as_ref().is_none_or(|e| e.handshake.is_none())
                && is_no_connect(rest)
            {
                // [MQTT-3.1.0-1]
                self.hang_up(index, ReasonCode::ProtocolError, false);
                return input.len();
            }
            match Framer::split(rest, max) {
                Ok(Some(packet)) if is_plain => {
                    used += packet.len();
                    self.live_packet(index, version, packet);
                }
                Ok(Some(packet)) => {
                    if let Some(to) = self.foreign_home(index, packet) {
                        self.send_home(index, to);
                        return used;
                    }
                    let Some(c) = self.connections.get_mut(index) else { return input.len() };
                    used += packet.len();
                    if let Some(meter) = &mut c.meter {
                        let publishes = packet.first().is_some_and(|first| first >> 4 == 3);
                        meter.take(usize::from(publishes), packet.len());
                    }
                    self.packet(index, packet);
                }
                Ok(None) => return used,
                Err(error) => {
                    self.malformed(index, error);
                    return input.len();
                }
            }
        }
    }

    fn packet(&mut self, index: u32, bytes: &[u8]) {
        let Some(c) = self.connections.get(index) else { return };
        let version = c.version;
        if c.phase == Phase::Live {
            self.live_packet(index, version, bytes);
        } else {
            self.counters.packets_received += 1;
            self.any_packet(index, version, bytes);
        }
    }

    /// A packet of a connection whose CONNECT was accepted. Those that come all the time are not moved about.
    #[inline(always)]
    fn live_packet(&mut self, index: u32, version: Version, bytes: &[u8]) {
        self.counters.packets_received += 1;
        let first_byte = bytes.first().copied().unwrap_or_default();
        if first_byte != PUBLISH_ONCE {
            self.close_batch();
        }
        if first_byte >> 4 == PacketType::Publish as u8 {
            match RawPublish::decode(bytes, version) {
                Ok(publish) => self.publish_arrived(index, &publish, bytes),
                Err(error) => self.malformed(index, error),
            }
            return;
        }
        match AckRef::from_short(bytes) {
            Some((PacketType::Puback, ack)) => self.puback(index, &ack),
            Some((PacketType::Pubrec, ack)) => self.pubrec(index, &ack),
            Some((PacketType::Pubrel, ack)) => self.pubrel(index, &ack),
            Some((PacketType::Pubcomp, ack)) => self.pubcomp(index, &ack),
            _ => self.any_packet(index, version, bytes),
        }
    }

    #[inline(never)]
    fn any_packet(&mut self, index: u32, version: Version, bytes: &[u8]) {
        match PacketRef::decode(bytes, version) {
            Ok(packet) => self.dispatch(index, packet, bytes),
            Err(error) => self.malformed(index, error),
        }
    }

    fn dispatch(&mut self, index: u32, packet: PacketRef<'_>, bytes: &[u8]) {
        let Some(c) = self.connections.get(index) else { return };
        match (c.phase, packet) {
            (Phase::Connecting, PacketRef::Connect(connect)) => {
                if c.extras.as_ref().is_some_and(|e| e.handshake.is_some()) {
                    // [MQTT-3.1.2-30]
                    self.refuse(index, Some(connect.client_id), ReasonCode::ProtocolError);
                } else {
                    self.connect(index, &connect, bytes);
                }
            }
            (Phase::Connecting, PacketRef::Auth(auth)) => self.auth(index, &auth),
            // Given up during authentication.
            (Phase::Connecting, PacketRef::Disconnect(_)) => self.hang_up(index, ReasonCode::Success, false),
            (Phase::Connecting, _) => self.refuse(index, None, ReasonCode::ProtocolError),
            (Phase::Closing, _) => {}
            (Phase::Live, PacketRef::Publish(publish)) => self.publish_arrived(index, &publish.into(), bytes),
            (Phase::Live, PacketRef::Puback(ack)) => self.puback(index, &ack),
            (Phase::Live, PacketRef::Pubrec(ack)) => self.pubrec(index, &ack),
            (Phase::Live, PacketRef::Pubrel(ack)) => self.pubrel(index, &ack),
            (Phase::Live, PacketRef::Pubcomp(ack)) => self.pubcomp(index, &ack),
            (Phase::Live, PacketRef::Subscribe(subscribe)) => {
                self.subscribe_arrived(index, &subscribe, bytes)
            }
            (Phase::Live, PacketRef::Unsubscribe(unsubscribe)) => {
                self.unsubscribe_arrived(index, &unsubscribe)
            }
            (Phase::Live, PacketRef::Pingreq) => {
                // [MQTT-3.12.4-1]
                self.put(index, &PacketRef::Pingresp);
            }
            (Phase::Live, PacketRef::Disconnect(disconnect)) => self.disconnected(index, &disconnect),
            (Phase::Live, PacketRef::Auth(auth)) => self.auth(index, &auth),
            // [MQTT-3.1.0-2], and packets that only a server sends.
            (
                Phase::Live,
                PacketRef::Connect(_)
                | PacketRef::Connack(_)
                | PacketRef::Suback(_)
                | PacketRef::Unsuback(_)
                | PacketRef::Pingresp,
            ) => self.hang_up(index, ReasonCode::ProtocolError, true),
        }
    }

    /// Puts a packet into the outbox; no window holds it back ([MQTT-3.3.4-10], [MQTT-4.9.0-3]), unless the link has ended ([MQTT-3.14.4-1]): routing a client's
    /// message may have closed its own link. A peer that sends without reading is cut off, and so is
    /// one that asked for an answer that it does not take.
    #[inline(never)]
    pub(super) fn put(&mut self, index: u32, packet: &PacketRef<'_>) {
        self.put_here(index, packet);
    }

    /// The same, built into its caller.
    #[inline(always)]
    pub(super) fn put_here(&mut self, index: u32, packet: &PacketRef<'_>) {
        debug_assert!(!self.batch.is_open(), "what came before is delivered before");
        let Some(c) = self.connections.get_mut(index) else { return };
        if c.gone || c.phase == Phase::Closing {
            return;
        }
        self.spares.lend(c);
        if !outbox::put(c, packet) {
            self.hang_up(index, ReasonCode::PacketTooLarge, true);
            return;
        }
        if c.out_len() > self.config.max_outbox_bytes && c.stalled != Timestamp::MAX {
            self.hang_up(index, ReasonCode::QuotaExceeded, false);
            return;
        }
        self.queue_flush(index);
    }

    /// A packet that broke a rule closes its connection, with the code that says why
    /// ([MQTT-4.13.1-1], [MQTT-3.1.4-1]; [MQTT-4.8.0-1] of 3.1.1).
    fn malformed(&mut self, index: u32, error: DecodeError) {
        let conn = self.id_of(index);
        let Some(c) = self.connections.get_mut(index) else { return };
        let phase = c.phase;
        let (version, told) = answer_to_malformed_connect(&error);
        if phase == Phase::Connecting {
            c.version = version;
        }
        self.counters.malformed += 1;
        self.event(Event::Malformed { conn, error });
        match phase {
            Phase::Connecting if told => self.refuse(index, None, error.reason()),
            Phase::Connecting => self.hang_up(index, error.reason(), false),
            _ => self.hang_up(index, error.reason(), true),
        }
    }

    /// Keeps a packet until its question is answered.
    pub(super) fn wait_for(&mut self, index: u32, question: QuestionId, packet: &[u8]) {
        let since = self.since;
        if let Some(c) = self.connections.get_mut(index) {
            c.pending = Some(Box::new(Pending { question, since, packet: packet.into() }));
        }
    }
}
