//! Listening on the wire: whole packets out of bytes that come in pieces.

use crate::trace::Hash;
use mqtt_proto::{MAX_PACKET_SIZE, PacketRef, PacketType, QoS, SubscriptionOptions, Version};

/// A message of ours: which node published it, and the how manieth of that node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Who published it.
    pub node: usize,
    /// Counts from 1.
    pub number: u64,
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "m{}.{}", self.node, self.number)
    }
}

impl MessageId {
    /// The payload that carries it, at least `len` bytes long.
    #[must_use]
    pub fn payload(self, len: usize) -> Vec<u8> {
        let mut payload = format!("m{}.{}|", self.node, self.number).into_bytes();
        payload.resize(payload.len().max(len), b'x');
        payload
    }

    /// The message that has this payload, if it is one of ours.
    #[must_use]
    pub fn of(payload: &[u8]) -> Option<Self> {
        let end = payload.iter().position(|&byte| byte == b'|')?;
        let text = std::str::from_utf8(&payload[..end]).ok()?.strip_prefix('m')?;
        let (node, number) = text.split_once('.')?;
        Some(Self { node: node.parse().ok()?, number: number.parse().ok()? })
    }
}

/// A packet, as far as the checkers look at it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its type.
    pub kind: PacketType,
    /// Its identifier, or 0.
    pub id: u16,
    /// Length with its header.
    pub size: usize,
    /// Reason code; success if there is none.
    pub reason: u8,
    /// PUBLISH: the QoS.
    pub qos: QoS,
    /// PUBLISH: sent before.
    pub dup: bool,
    /// PUBLISH: the retain flag.
    pub retain: bool,
    /// PUBLISH: the topic as it stands there.
    pub topic: String,
    /// PUBLISH: the alias, or 0.
    pub alias: u16,
    /// PUBLISH: what is left of its lifetime.
    pub expiry: Option<u32>,
    /// PUBLISH: what tells the content from others.
    pub content: u64,
    /// PUBLISH: which message of ours it is.
    pub message: Option<MessageId>,
    /// SUBSCRIBE, UNSUBSCRIBE: the filters.
    pub filters: Vec<(String, SubscriptionOptions)>,
    /// SUBACK, UNSUBACK: the codes.
    pub codes: Vec<u8>,
    /// CONNECT, CONNACK: Receive Maximum.
    pub receive_maximum: u16,
    /// CONNECT, CONNACK: Maximum Packet Size.
    pub max_packet: u32,
    /// CONNECT, CONNACK: Topic Alias Maximum.
    pub alias_maximum: u16,
    /// CONNECT, DISCONNECT, CONNACK: Session Expiry Interval.
    pub session_expiry: Option<u32>,
    /// CONNECT: clean start. CONNACK: session present.
    pub flag: bool,
    /// CONNECT: the version.
    pub version: Version,
    /// CONNECT: the delay of the will, if there is a will.
    pub will: Option<u32>,
    /// The packet in words, if somebody wants to read it.
    pub text: String,
}

impl Seen {
    fn new(packet: &PacketRef<'_>, size: usize, version: Version) -> Self {
        let mut seen = Self {
            kind: packet.packet_type(),
            id: 0,
            size,
            reason: 0,
            qos: QoS::AtMostOnce,
            dup: false,
            retain: false,
            topic: String::new(),
            alias: 0,
            expiry: None,
            content: 0,
            message: None,
            filters: Vec::new(),
            codes: Vec::new(),
            receive_maximum: u16::MAX,
            max_packet: MAX_PACKET_SIZE,
            alias_maximum: 0,
            session_expiry: None,
            flag: false,
            version,
            will: None,
            text: String::new(),
        };
        match packet {
            PacketRef::Connect(p) => {
                seen.version = p.version;
                seen.flag = p.clean_start;
                seen.will = p.will.map(|will| will.properties.will_delay_interval().unwrap_or(0));
                seen.limits(p.properties);
            }
            PacketRef::Connack(p) => {
                seen.flag = p.session_present;
                seen.reason = p.reason.as_u8();
                seen.limits(p.properties);
            }
            PacketRef::Publish(p) => {
                seen.id = p.packet_id.map_or(0, u16::from);
                (seen.qos, seen.dup, seen.retain) = (p.qos, p.dup, p.retain);
                seen.topic = p.topic.into();
                seen.alias = p.properties.topic_alias().unwrap_or(0);
                seen.expiry = p.properties.message_expiry_interval();
                let mut hash = Hash::default();
                hash.add(p.payload);
                seen.content = hash.value();
                seen.message = MessageId::of(p.payload);
            }
            PacketRef::Puback(p) | PacketRef::Pubrec(p) | PacketRef::Pubrel(p) | PacketRef::Pubcomp(p) => {
                (seen.id, seen.reason) = (p.packet_id.get(), p.reason.as_u8());
            }
            PacketRef::Subscribe(p) => {
                seen.id = p.packet_id.get();
                seen.filters = p.filters.into_iter().map(|(f, o)| (f.as_str().into(), o)).collect();
            }
            PacketRef::Unsubscribe(p) => {
                seen.id = p.packet_id.get();
                seen.filters = p
                    .filters
                    .into_iter()
                    .map(|f| (f.as_str().into(), SubscriptionOptions::default()))
                    .collect();
            }
            PacketRef::Suback(p) => (seen.id, seen.codes) = (p.packet_id.get(), p.codes.to_vec()),
            PacketRef::Unsuback(p) => (seen.id, seen.codes) = (p.packet_id.get(), p.codes.to_vec()),
            PacketRef::Disconnect(p) => {
                seen.reason = p.reason.as_u8();
                seen.session_expiry = p.properties.session_expiry_interval();
            }
            PacketRef::Auth(p) => seen.reason = p.reason.as_u8(),
            PacketRef::Pingreq | PacketRef::Pingresp => {}
        }
        seen
    }

    fn limits(&mut self, properties: mqtt_proto::Properties<'_>) {
        self.receive_maximum = properties.receive_maximum().unwrap_or(u16::MAX);
        self.max_packet = properties.maximum_packet_size().unwrap_or(MAX_PACKET_SIZE);
        self.alias_maximum = properties.topic_alias_maximum().unwrap_or(0);
        self.session_expiry = properties.session_expiry_interval();
    }
}

/// One ear at one end of one direction of a link.
#[derive(Debug)]
pub struct Tap {
    buffer: Vec<u8>,
    /// The version of the link, once CONNECT told it.
    pub version: Version,
    deaf: bool,
}

impl Tap {
    /// An ear; CONNECT tells the version.
    #[must_use]
    pub const fn new(version: Version) -> Self {
        Self { buffer: Vec::new(), version, deaf: false }
    }

    /// The packets that these bytes complete. After bytes that are no packet there are no more.
    ///
    /// # Errors
    /// What was wrong with them, once.
    pub fn hear(&mut self, bytes: &[u8], tell: bool) -> Result<Vec<Seen>, String> {
        let mut heard = Vec::new();
        if self.deaf {
            return Ok(heard);
        }
        self.buffer.extend_from_slice(bytes);
        let mut used = 0;
        loop {
            match PacketRef::decode_next(&self.buffer[used..], self.version, MAX_PACKET_SIZE) {
                Ok(None) => break,
                Ok(Some((packet, len))) => {
                    used += len;
                    let mut seen = Seen::new(&packet, len, self.version);
                    if tell {
                        seen.text = mqtt_testkit::brief(&packet);
                        if seen.text.len() > 120 {
                            let end = (0..=120).rev().find(|&at| seen.text.is_char_boundary(at)).unwrap_or(0);
                            seen.text.truncate(end);
                        }
                    }
                    self.version = seen.version;
                    heard.push(seen);
                }
                Err(error) => {
                    self.deaf = true;
                    return if heard.is_empty() { Err(error.to_string()) } else { Ok(heard) };
                }
            }
        }
        self.buffer.drain(..used);
        Ok(heard)
    }
}
