//! From bytes to the packets that the owner sees.

use super::{COMPACT, Closed, Phase, ServerConnection};
use crate::random::KeyedHash;
use crate::shared::alias::OutboundAliases;
use crate::shared::framer::Framer;
use crate::shared::rules::{answer_to_malformed_connect, is_no_connect};
use alloc::vec::Vec;
use mqtt_proto::{
    ConnectRef, DecodeError, MAX_PACKET_SIZE, PacketRef, PropertiesBuf, PropertyId, PublishRef, ReasonCode,
    Version,
};

impl ServerConnection {
    /// Finds the next packet that is the owner's to see, and does what it causes.
    pub(super) fn next_packet(&mut self) -> Option<Place> {
        if self.used == self.input.len() && self.used > COMPACT {
            // An idle connection keeps no large buffer.
            (self.input, self.used) = (Vec::new(), 0);
            self.resolved = Vec::new();
        } else if self.used > COMPACT && self.used > self.input.len() / 2 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        let rest = self.input.get(self.used..).unwrap_or_default();
        if self.phase == Phase::Closing || rest.is_empty() {
            return None;
        }
        if self.phase == Phase::Connecting && is_no_connect(rest) {
            // [MQTT-3.1.0-1]: HTTP, TLS and the like are known by their first byte.
            self.end(Closed::Violation(ReasonCode::ProtocolError), None);
            return None;
        }
        let split = Framer::split(rest, self.max_now()).map(|packet| packet.map(<[u8]>::len));
        let start = self.used;
        let len = match split {
            Ok(len) => len?,
            Err(error) => {
                self.malformed(error);
                return None;
            }
        };
        let bytes = rest.get(..len).unwrap_or_default();
        let packet = match PacketRef::decode(bytes, self.version) {
            Ok(packet) => packet,
            Err(error) => {
                self.malformed(error);
                return None;
            }
        };
        let next = match (self.phase, &packet) {
            (Phase::Connecting, PacketRef::Connect(connect)) => Next::Connect(Greeting::of(connect)),
            (Phase::Greeted, PacketRef::Auth(_)) if self.authenticates => Next::Plain,
            (_, PacketRef::Disconnect(disconnect)) => Next::Disconnect(disconnect.reason),
            (Phase::Greeted, PacketRef::Connect(_) | PacketRef::Auth(_)) => Next::Violation,
            // It waits for CONNACK ([MQTT-3.1.4-6]: what a refused client sent is never seen).
            (Phase::Greeted, _) => return None,
            // [MQTT-3.1.0-2], and what only a server sends.
            (
                _,
                PacketRef::Connect(_)
                | PacketRef::Connack(_)
                | PacketRef::Suback(_)
                | PacketRef::Unsuback(_)
                | PacketRef::Pingresp,
            ) => Next::Violation,
            (Phase::Connecting, _) => Next::Violation,
            (_, PacketRef::Pingreq) => Next::Ping,
            (_, PacketRef::Publish(publish)) => match publish.properties.topic_alias() {
                None => Next::Plain,
                Some(alias) => match self.inbound.resolve(alias, publish.topic) {
                    Ok(topic) => {
                        let mut properties = PropertiesBuf::new();
                        properties.extend_except(publish.properties, &[PropertyId::TopicAlias]);
                        let properties = properties.as_properties();
                        self.resolved.clear();
                        // The same packet as arrived, but for three bytes and a known topic.
                        let _ = PublishRef { topic, properties, ..*publish }
                            .encode(self.version, &mut self.resolved);
                        Next::Resolved
                    }
                    // [MQTT-3.3.2-8]
                    Err(reason) => Next::Refused(reason),
                },
            },
            _ => Next::Plain,
        };
        self.used += len;
        let whole = Some(Place::Input(start, start + len));
        match next {
            Next::Plain => whole,
            Next::Resolved => Some(Place::Resolved),
            Next::Connect(greeting) => {
                self.greeted(greeting);
                whole
            }
            Next::Ping => {
                // [MQTT-3.12.4-1]
                if self.config.answer_pings && self.phase == Phase::Live {
                    if self.out_len() >= self.config.max_outbox_bytes {
                        // It asks, and does not take the answers.
                        self.end(Closed::Violation(ReasonCode::QuotaExceeded), None);
                        return None;
                    }
                    let _ = PacketRef::Pingresp.encode(self.version, &mut self.out);
                    self.queue_flush();
                }
                whole
            }
            Next::Disconnect(reason) => {
                self.end(Closed::ByClient(reason), None);
                whole
            }
            Next::Violation => {
                self.end(Closed::Violation(ReasonCode::ProtocolError), Some(ReasonCode::ProtocolError));
                None
            }
            Next::Refused(reason) => {
                self.end(Closed::Violation(reason), Some(reason));
                None
            }
        }
    }

    fn greeted(&mut self, greeting: Greeting) {
        self.phase = Phase::Greeted;
        self.version = greeting.version;
        self.asked_keep_alive = greeting.keep_alive;
        self.client_max_packet = greeting.max_packet;
        self.authenticates = greeting.authenticates;
        let aliases = greeting.aliases.min(self.config.max_outbound_aliases);
        self.outbound = OutboundAliases::new(aliases, KeyedHash::new(self.config.seed, 0));
    }

    fn malformed(&mut self, error: DecodeError) {
        let mut tell = Some(error.reason());
        if self.phase == Phase::Connecting {
            let (version, told) = answer_to_malformed_connect(&error);
            self.version = version;
            if told {
                self.refuse(error.reason());
            }
            tell = None;
        }
        // [MQTT-4.13.1-1] ([MQTT-4.8.0-1] of 3.1.1)
        self.end(Closed::Malformed(error), tell);
    }
}

/// What a connection has to know of CONNECT.
struct Greeting {
    version: Version,
    keep_alive: u16,
    max_packet: u32,
    aliases: u16,
    authenticates: bool,
}

impl Greeting {
    fn of(connect: &ConnectRef<'_>) -> Self {
        let properties = connect.properties;
        Self {
            version: connect.version,
            keep_alive: connect.keep_alive,
            max_packet: properties.maximum_packet_size().unwrap_or(MAX_PACKET_SIZE),
            aliases: properties.topic_alias_maximum().unwrap_or(0),
            authenticates: properties.authentication_method().is_some(),
        }
    }
}

/// Where a packet is that the owner looks at.
pub(super) enum Place {
    /// From here to there in `input`.
    Input(usize, usize),
    /// In `resolved`.
    Resolved,
}

/// What becomes of a packet.
enum Next {
    /// The owner sees it as it is.
    Plain,
    /// The owner sees it with its alias resolved.
    Resolved,
    Connect(Greeting),
    Ping,
    Disconnect(ReasonCode),
    Violation,
    Refused(ReasonCode),
}
