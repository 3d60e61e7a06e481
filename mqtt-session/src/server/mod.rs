//! One connection as a server sees it, and nothing of what a broker does with it: for proxies, bridges
//! and peers in tests.
//!
//! A [`ServerConnection`] turns bytes into packets and packets into bytes, and keeps the rules that
//! concern a single connection: how large a packet may be, that CONNECT comes first and once, which
//! version is spoken, what a topic alias stands for, when a client has been silent for too long, what
//! may follow a farewell. What the packets mean is up to its owner: sessions, acknowledgements and
//! routing are not here.

mod inbound;
mod types;

pub use types::{Closed, Output, Phase, SendError, ServerConfig};

use crate::Timestamp;
use crate::random::KeyedHash;
use crate::shared::alias::{Alias, InboundAliases, OutboundAliases};
use crate::shared::keep_alive::KeepAlive;
use crate::shared::rules::Rules;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use inbound::Place;
use mqtt_proto::{
    ConnackRef, DisconnectRef, MAX_PACKET_SIZE, PacketRef, PropertiesBuf, Property, PublishRef, ReasonCode,
    Version,
};

/// Bytes that may wait unread beyond one packet.
const UNREAD: usize = 64 << 10;
/// Below this, bytes that were worked on are not moved away.
const COMPACT: usize = 4 << 10;

/// One connection of a server: bytes in, packets out, and the other way round.
///
/// ```text
/// handle_read(..), handle_timeout(..), send(..)      whatever happened or is wanted
/// while let Some(packet) = poll_packet(now) { .. }   what the client says
/// while let Some(output) = poll_output() { .. }      obey; drain outbox() on Flush
/// sleep until poll_timeout(), or until something happens
/// ```
///
/// A client that is not to be heard for a while is not polled and not read: what it sent waits, bounded.
#[derive(Debug)]
pub struct ServerConnection {
    config: ServerConfig,
    now: Timestamp,
    phase: Phase,
    version: Version,
    input: Vec<u8>,
    /// How much of `input` was worked on.
    used: usize,
    /// The packet that the owner looks at, if it does not stand in `input` as it is.
    resolved: Vec<u8>,
    out: Vec<u8>,
    /// How much of `out` the socket took.
    taken: usize,
    outputs: VecDeque<Output>,
    flush_queued: bool,
    keep_alive: KeepAlive,
    /// What CONNECT asked for.
    asked_keep_alive: u16,
    /// CONNECT and CONNACK, or the farewell, have to be done by then.
    limit: Timestamp,
    stalled: Timestamp,
    max_packet: u32,
    client_max_packet: u32,
    authenticates: bool,
    /// The socket is closed; what it sent is still polled.
    gone: bool,
    inbound: InboundAliases,
    outbound: OutboundAliases<KeyedHash>,
}

impl ServerConnection {
    /// A client has connected.
    #[must_use]
    pub fn new(config: ServerConfig, now: Timestamp) -> Self {
        let hasher = KeyedHash::new(config.seed, 0);
        Self {
            now,
            phase: Phase::Connecting,
            version: Version::V5,
            input: Vec::new(),
            used: 0,
            resolved: Vec::new(),
            out: Vec::new(),
            taken: 0,
            outputs: VecDeque::new(),
            flush_queued: false,
            keep_alive: KeepAlive::new(0, now),
            asked_keep_alive: 0,
            limit: now + config.connect_timeout,
            stalled: Timestamp::MAX,
            max_packet: config.max_packet_size,
            client_max_packet: MAX_PACKET_SIZE,
            authenticates: false,
            gone: false,
            inbound: InboundAliases::new(0),
            outbound: OutboundAliases::new(0, hasher),
            config,
        }
    }

    /// How far it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The version of CONNECT; 5.0 before that.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    // ---- what happened ----

    /// Bytes arrived; all are taken. What waits unpolled is bounded by a packet and a little: beyond
    /// that the connection ends, so stop reading the socket while not polling.
    pub fn handle_read(&mut self, now: Timestamp, data: &[u8]) {
        self.begin(now);
        if self.phase == Phase::Closing || self.gone || data.is_empty() {
            return;
        }
        self.keep_alive.touch(self.now);
        self.input.extend_from_slice(data);
        if self.input.len() - self.used > self.max_now() as usize + UNREAD {
            self.end(Closed::Violation(ReasonCode::QuotaExceeded), Some(ReasonCode::QuotaExceeded));
        }
    }

    /// The socket is closed. What came before is still to be polled: a DISCONNECT may be among it.
    pub fn handle_close(&mut self, now: Timestamp) {
        self.begin(now);
        self.gone = true;
        self.out = Vec::new();
        self.taken = 0;
        self.stalled = Timestamp::MAX;
    }

    /// A deadline came; calling it early is fine.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.begin(now);
        if self.stalled <= self.now {
            self.cut(Closed::Stalled);
        } else if self.limit <= self.now {
            match self.phase {
                // The farewell could not be written in time.
                Phase::Closing => self.cut(Closed::Stalled),
                _ => self.end(Closed::Timeout, None),
            }
        } else if self.keep_alive_due().is_some_and(|due| due <= self.now) {
            // [MQTT-3.1.2-22] ([MQTT-3.1.2-24] of 3.1.1)
            self.end(Closed::Timeout, Some(ReasonCode::KeepAliveTimeout));
        }
    }

    // ---- what is wanted ----

    /// Puts a packet into the outbox. CONNACK makes the connection live, and what it says of limits and
    /// keep alive holds from then on; one that refuses ends it. So does DISCONNECT (5.0).
    ///
    /// # Errors
    /// If the packet is not taken; nothing has happened then.
    pub fn send(&mut self, now: Timestamp, packet: &PacketRef<'_>) -> Result<(), SendError> {
        self.begin(now);
        let allowed = match (self.phase, packet) {
            _ if self.gone => return Err(SendError::Closed),
            (Phase::Closing, _) => return Err(SendError::Closed),
            (Phase::Connecting, _) => false,
            // [MQTT-3.2.0-1]
            (Phase::Greeted, PacketRef::Connack(_)) => true,
            (Phase::Greeted, PacketRef::Auth(_)) => self.authenticates,
            (Phase::Greeted, _) => false,
            (Phase::Live, PacketRef::Disconnect(_)) => Rules::of(self.version).server_disconnect,
            // [MQTT-3.2.0-2], and what only a client sends.
            (
                Phase::Live,
                PacketRef::Connack(_)
                | PacketRef::Connect(_)
                | PacketRef::Subscribe(_)
                | PacketRef::Unsubscribe(_)
                | PacketRef::Pingreq,
            ) => false,
            (Phase::Live, _) => true,
        };
        if !allowed {
            return Err(SendError::NotNow);
        }
        let size = packet.encoded_len(self.version)?;
        if size > self.client_max_packet as usize {
            return Err(SendError::TooLarge { size, max: self.client_max_packet });
        }
        if self.out_len() + size > self.config.max_outbox_bytes {
            return Err(SendError::Full);
        }
        match packet {
            PacketRef::Publish(publish) => self.put_publish(publish, size)?,
            _ => {
                packet.encode(self.version, &mut self.out)?;
            }
        }
        self.queue_flush();
        match packet {
            PacketRef::Connack(connack) => self.answered(connack),
            PacketRef::Disconnect(disconnect) => self.end(Closed::ByOwner(disconnect.reason), None),
            _ => {}
        }
        Ok(())
    }

    /// Ends the connection: the client is told the reason if it can be (CONNACK before it was answered,
    /// DISCONNECT in 5.0 afterwards).
    pub fn hang_up(&mut self, now: Timestamp, reason: ReasonCode) {
        self.begin(now);
        match self.phase {
            Phase::Greeted if Rules::of(self.version).has_connack(reason) => self.refuse(reason),
            _ => {}
        }
        self.end(Closed::ByOwner(reason), Some(reason));
    }

    // ---- what is to be done ----

    /// The next packet of the client. Topic aliases are resolved: a PUBLISH has its topic, and no alias.
    pub fn poll_packet(&mut self, now: Timestamp) -> Option<PacketRef<'_>> {
        self.begin(now);
        let found = self.next_packet();
        if found.is_none() && self.gone && self.phase != Phase::Closing {
            self.cut(Closed::Socket);
        }
        let packet = match found? {
            Place::Input(start, end) => self.input.get(start..end)?,
            Place::Resolved => &self.resolved,
        };
        // It was decoded before.
        PacketRef::decode(packet, self.version).ok()
    }

    /// What is to be done now. Packets are polled first: they cause it.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`ServerConnection::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let due = self.limit.min(self.stalled).min(self.keep_alive_due().unwrap_or(Timestamp::MAX));
        (due < Timestamp::MAX).then_some(due)
    }

    /// The bytes that are to be written. Tell by [`ServerConnection::consume`] how many the socket took.
    #[must_use]
    pub fn outbox(&self) -> &[u8] {
        self.out.get(self.taken..).unwrap_or_default()
    }

    /// The socket took the first `n` bytes of the outbox. If that is not all, wait until it is writable
    /// and go on.
    pub fn consume(&mut self, now: Timestamp, n: usize) {
        self.begin(now);
        self.taken = self.taken.saturating_add(n).min(self.out.len());
        self.flush_queued = false;
        if self.out_len() > 0 {
            if n > 0 || self.stalled == Timestamp::MAX {
                self.stalled = self.now + self.config.write_timeout;
            }
            return;
        }
        self.stalled = Timestamp::MAX;
        self.taken = 0;
        self.out.clear();
    }

    // ---- inside ----

    fn begin(&mut self, now: Timestamp) {
        // Time does not go back.
        self.now = self.now.max(now);
    }

    const fn out_len(&self) -> usize {
        self.out.len() - self.taken
    }

    const fn max_now(&self) -> u32 {
        match self.phase {
            Phase::Live => self.max_packet,
            _ => self.config.max_connect_size,
        }
    }

    fn keep_alive_due(&self) -> Option<Timestamp> {
        self.keep_alive.peer_deadline().filter(|_| self.phase == Phase::Live)
    }

    fn queue_flush(&mut self) {
        if !core::mem::replace(&mut self.flush_queued, true) {
            self.outputs.push_back(Output::Flush);
        }
    }

    /// CONNACK is on its way.
    fn answered(&mut self, connack: &ConnackRef<'_>) {
        if connack.reason != ReasonCode::Success {
            // [MQTT-3.2.2-7] ([MQTT-3.2.2-5] of 3.1.1)
            self.end(Closed::ByOwner(connack.reason), None);
            return;
        }
        let properties = connack.properties;
        self.phase = Phase::Live;
        self.limit = Timestamp::MAX;
        // [MQTT-3.1.2-21]
        let keep_alive = properties.server_keep_alive().unwrap_or(self.asked_keep_alive);
        self.keep_alive = KeepAlive::new(keep_alive, self.now);
        self.max_packet = properties.maximum_packet_size().unwrap_or(u32::MAX).min(self.max_packet);
        self.inbound = InboundAliases::new(properties.topic_alias_maximum().unwrap_or(0));
    }

    fn put_publish(&mut self, publish: &PublishRef<'_>, size: usize) -> Result<(), SendError> {
        if publish.properties.topic_alias().is_some() {
            return Err(SendError::TopicAlias);
        }
        // An alias makes a packet a few bytes longer, which must still fit.
        let fits = size.saturating_add(8) <= self.client_max_packet as usize;
        let alias = if fits { self.outbound.assign(publish.topic.as_bytes()) } else { Alias::None };
        let (topic, number) = match alias {
            Alias::None => {
                publish.encode(self.version, &mut self.out)?;
                return Ok(());
            }
            Alias::Set(number) => (publish.topic, number),
            Alias::Use(number) => ("", number),
        };
        let mut properties = PropertiesBuf::new();
        properties.push(Property::TopicAlias(number))?;
        properties.extend_except(publish.properties, &[]);
        let properties = properties.as_properties();
        PublishRef { topic, properties, ..*publish }.encode(self.version, &mut self.out)?;
        Ok(())
    }

    /// CONNACK that says no, where the version has a code for it.
    fn refuse(&mut self, reason: ReasonCode) {
        let connack = ConnackRef { reason, ..ConnackRef::default() };
        if PacketRef::Connack(connack).encode(self.version, &mut self.out).is_ok() {
            self.queue_flush();
        }
    }

    /// Ends the connection, with a farewell if there is a reason to tell and a packet for it.
    fn end(&mut self, why: Closed, tell: Option<ReasonCode>) {
        if self.phase == Phase::Closing {
            return;
        }
        if let Some(reason) = tell
            && self.phase == Phase::Live
            && Rules::of(self.version).server_disconnect
        {
            // [MQTT-3.14.0-1] [MQTT-4.13.2-1]
            let disconnect = DisconnectRef { reason, ..DisconnectRef::default() };
            if PacketRef::Disconnect(disconnect).encode(self.version, &mut self.out).is_ok() {
                self.queue_flush();
            }
        }
        self.phase = Phase::Closing;
        self.limit = self.now + self.config.close_timeout;
        self.outputs.push_back(Output::Closed(why));
        self.outputs.push_back(Output::Hangup { after_flush: true });
    }

    /// Ends it without waiting for what is to be written.
    fn cut(&mut self, why: Closed) {
        self.limit = Timestamp::MAX;
        self.stalled = Timestamp::MAX;
        if self.phase != Phase::Closing {
            self.phase = Phase::Closing;
            self.outputs.push_back(Output::Closed(why));
        }
        self.outputs.push_back(Output::Hangup { after_flush: false });
    }
}
