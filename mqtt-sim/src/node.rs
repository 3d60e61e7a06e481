//! The peers of the broker: client machines that do what applications do, and raw ones that do not.

use crate::checks::End;
use crate::options::{FILTERS, Kind, NodeOptions, Options, SHARED, TOPICS, number_of};
use crate::random::Random;
use crate::store::Store;
use crate::wire::{MessageId, Seen};
use bytes::Bytes;
use mqtt_proto::{
    AckRef, ConnectRef, DisconnectRef, PacketId, PacketRef, PacketType, PropertiesBuf, Property, PublishRef,
    QoS, ReasonCode, RetainHandling, SubscribeFiltersBuf, SubscribeRef, SubscriptionOptions, Version,
};
use mqtt_session::client::{Delivery, DisconnectOptions, Token};
use mqtt_session::{Client, Durability, Message, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A node.
pub struct Node {
    /// What was drawn for it.
    pub options: NodeOptions,
    /// The machine; none for a raw peer.
    pub client: Option<Client>,
    /// Its present link.
    pub link: Option<usize>,
    /// Counts dials, so that a late answer to an old one is known.
    pub dial: u64,
    /// Its store.
    pub store: Store,
    /// Its end of the wire.
    pub end: End,
    /// What the broker takes from it is not known before CONNACK.
    pub greeted: bool,
    /// How many messages it published.
    pub published: u64,
    /// What its tokens stand for; `None` for requests.
    pub tokens: BTreeMap<Token, Option<MessageId>>,
    /// Messages that its application has not acknowledged.
    pub unacknowledged: Vec<(Delivery, Option<MessageId>)>,
    /// Raw: what arrived and may be answered.
    pub inbox: VecDeque<(PacketType, u16, QoS)>,
    /// The broker began a new session, and the CONNACK that says so has not arrived.
    pub unaware: bool,
    /// A client whose session ended without its knowing (3.1 does not tell; otherwise the CONNACK that
    /// told was lost): it takes new messages for old ones, so nothing can be demanded for it.
    pub lost_track: bool,
    /// Counts lives.
    pub life: u32,
    /// Messages whose tokens are known, ended ones too.
    pub names: BTreeMap<u64, (Token, MessageId)>,
    /// QoS 2 messages that the application got, and the store group after which a crash does not bring
    /// them back; none as long as the application has not acknowledged them.
    pub shown: Vec<(MessageId, Option<u64>)>,
    /// It was told of a new session, and the store group that holds that, once it is known.
    pub new_session: Option<Option<u64>>,
}

/// What a node did and the oracle has to know.
pub struct Published {
    /// Which message.
    pub id: MessageId,
    /// Where to.
    pub topic: &'static str,
    /// How.
    pub qos: QoS,
    /// Whether to be retained.
    pub retain: bool,
    /// Its lifetime.
    pub expiry: Option<u32>,
}

impl Node {
    /// A node that has done nothing.
    ///
    /// # Panics
    /// If its settings are refused.
    #[must_use]
    pub fn new(number: usize, options: NodeOptions, now: Timestamp) -> Self {
        let client = (options.kind != Kind::Raw)
            .then(|| Client::new(options.config.clone(), now).expect("settings that were drawn are valid"));
        Self {
            end: End::new(format!("client n{number}"), options.config.resend_interval.is_some()),
            options,
            client,
            link: None,
            dial: 0,
            store: Store::default(),
            greeted: false,
            published: 0,
            tokens: BTreeMap::new(),
            unacknowledged: Vec::new(),
            inbox: VecDeque::new(),
            unaware: false,
            lost_track: false,
            life: 0,
            names: BTreeMap::new(),
            shown: Vec::new(),
            new_session: None,
        }
    }

    /// The client identifier.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.config.client_id
    }

    /// The version that it speaks.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.options.config.version
    }

    /// The application does something. Tells what it published.
    pub fn act(
        &mut self,
        number: usize,
        now: Timestamp,
        run: &Options,
        random: &mut Random,
    ) -> Option<Published> {
        let stopped = self.client.as_ref()?.is_stopped();
        if stopped {
            if random.chance(30) {
                self.client.as_mut()?.connect(now);
            }
            return None;
        }
        match random.range(0..100) {
            0..50 if self.options.publishes => return self.publish(number, now, run, random),
            50..70 => self.subscribe(now, random),
            70..74 => self.unsubscribe(now, random),
            76..78 if self.options.publishes && random.chance(run.retained) => {
                // Nothing is left of the topic's retained message.
                let message = Message { retain: true, ..Message::new(random.pick(&TOPICS), Bytes::new()) };
                let token = self.client.as_mut()?.publish(now, message).ok()?;
                self.tokens.insert(token, None);
            }
            74..76 => {
                let reason = random.pick(&[ReasonCode::Success, ReasonCode::DisconnectWithWill]);
                let expiry = random.pick(&[None, None, Some(0), Some(3)]);
                let drain = Duration::from_secs(random.pick(&[0, 3]));
                let options =
                    DisconnectOptions { reason, session_expiry_secs: expiry, drain, ..Default::default() };
                self.client.as_mut()?.disconnect(now, options);
            }
            _ => self.acknowledge(now, random),
        }
        None
    }

    fn publish(
        &mut self,
        number: usize,
        now: Timestamp,
        run: &Options,
        random: &mut Random,
    ) -> Option<Published> {
        let id = MessageId { node: number, number: self.published + 1 };
        let topic = random.pick(&TOPICS);
        let qos = random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce]);
        let retain = random.chance(run.retained);
        let expiry =
            (self.version().is_v5() && random.chance(run.expiring)).then(|| random.pick(&[1, 5, 60]));
        let mut properties = PropertiesBuf::new();
        if let Some(expiry) = expiry {
            properties.push(Property::MessageExpiryInterval(expiry)).ok()?;
        }
        let payload = Bytes::from(id.payload(random.below(run.payload + 1)));
        let message = Message { topic: topic.into(), payload, qos, retain, properties };
        let token = self.client.as_mut()?.publish(now, message).ok()?;
        self.published += 1;
        self.tokens.insert(token, Some(id));
        self.names.insert(token.as_u64(), (token, id));
        Some(Published { id, topic, qos, retain, expiry })
    }

    fn subscribe(&mut self, now: Timestamp, random: &mut Random) {
        let v5 = self.version().is_v5();
        let mut filters = Vec::new();
        let count = if self.options.numbers { 1 } else { 1 + random.below(2) };
        for _ in 0..count {
            let filter = if self.options.shares { random.pick(&SHARED) } else { random.pick(&FILTERS) };
            let mut options = SubscriptionOptions::from(random.pick(&[
                QoS::AtMostOnce,
                QoS::AtLeastOnce,
                QoS::ExactlyOnce,
                QoS::ExactlyOnce,
            ]));
            if v5 {
                options.no_local = !self.options.shares && random.chance(10);
                options.retain_as_published = random.chance(50);
                options.retain_handling = random.pick(&[
                    RetainHandling::Send,
                    RetainHandling::SendIfNew,
                    RetainHandling::DoNotSend,
                ]);
            }
            if filters.iter().all(|(known, _)| *known != filter) {
                filters.push((filter, options));
            }
        }
        let mut properties = PropertiesBuf::new();
        if let Some((filter, _)) = filters.first().filter(|_| self.options.numbers)
            && properties.push(Property::SubscriptionIdentifier(number_of(filter))).is_err()
        {
            return;
        }
        let Some(client) = &mut self.client else { return };
        if let Ok(token) = client.subscribe(now, &filters, &properties) {
            self.tokens.insert(token, None);
        }
    }

    fn unsubscribe(&mut self, now: Timestamp, random: &mut Random) {
        let filter = if self.options.shares { random.pick(&SHARED) } else { random.pick(&FILTERS) };
        let Some(client) = &mut self.client else { return };
        if let Ok(token) = client.unsubscribe(now, &[filter], &PropertiesBuf::new()) {
            self.tokens.insert(token, None);
        }
    }

    /// Acknowledges some of what waits, in any order.
    pub fn acknowledge(&mut self, now: Timestamp, random: &mut Random) {
        for _ in 0..3 {
            if self.unacknowledged.is_empty() {
                return;
            }
            let delivery = self.unacknowledged.swap_remove(random.below(self.unacknowledged.len()));
            self.acknowledge_one(now, delivery);
        }
    }

    /// Acknowledges everything that waits.
    pub fn acknowledge_all(&mut self, now: Timestamp) {
        for delivery in std::mem::take(&mut self.unacknowledged) {
            self.acknowledge_one(now, delivery);
        }
    }

    fn acknowledge_one(&mut self, now: Timestamp, (delivery, id): (Delivery, Option<MessageId>)) {
        let Some(client) = &mut self.client else { return };
        // It may belong to a link that is gone.
        if client.ack(now, delivery, ReasonCode::Success).is_ok() {
            for (_, group) in self.shown.iter_mut().filter(|(shown, _)| Some(*shown) == id) {
                // The next group that comes, or one soon after it.
                group.get_or_insert(u64::MAX);
            }
        }
    }

    /// The application got a message.
    pub fn took(&mut self, qos: QoS, delivery: Option<Delivery>, id: Option<MessageId>) {
        if let Some(id) = id.filter(|_| self.can_crash() && qos == QoS::ExactlyOnce) {
            let last = self.store.last();
            self.shown.push((id, delivery.is_none().then_some(last)));
            let confirmed = self.store.confirmed;
            self.shown.retain(|(_, group)| group.is_none_or(|group| group > confirmed));
        }
        self.unacknowledged.extend(delivery.map(|delivery| (delivery, id)));
    }

    /// What was to be in the groups that come is in those that came.
    pub fn settle_marks(&mut self) {
        let last = self.store.last();
        for group in self.shown.iter_mut().filter_map(|(_, group)| group.as_mut()) {
            *group = (*group).min(last);
        }
        if let Some(group) = &mut self.new_session {
            group.get_or_insert(last);
        }
    }

    /// Whether it keeps its session over a crash.
    #[must_use]
    pub fn can_crash(&self) -> bool {
        self.options.kind == Kind::Machine && self.options.config.durability != Durability::Off
    }

    /// A raw peer's CONNECT.
    #[must_use]
    pub fn raw_connect(&self) -> Vec<u8> {
        let config = &self.options.config;
        let mut properties = PropertiesBuf::new();
        if config.version.is_v5() {
            for property in [
                Property::ReceiveMaximum(config.receive_maximum),
                Property::MaximumPacketSize(config.max_packet_size),
                Property::TopicAliasMaximum(config.topic_alias_maximum),
            ] {
                // Each occurs once.
                let _ = properties.push(property);
            }
        }
        let connect = ConnectRef {
            version: config.version,
            clean_start: true,
            keep_alive: config.keep_alive_secs,
            client_id: self.name(),
            properties: properties.as_properties(),
            ..ConnectRef::default()
        };
        let mut bytes = Vec::new();
        // Its fields are valid; if they were not, nothing would be sent.
        let _ = PacketRef::Connect(connect).encode(config.version, &mut bytes);
        bytes
    }

    /// A raw peer heard a packet.
    pub fn raw_heard(&mut self, seen: &Seen) {
        if matches!(seen.kind, PacketType::Publish | PacketType::Pubrec | PacketType::Pubrel) {
            self.inbox.push_back((seen.kind, seen.id, seen.qos));
        }
    }

    /// What comes to a raw peer's mind.
    pub fn raw_bytes(&mut self, random: &mut Random) -> Vec<u8> {
        let version = self.version();
        let id = PacketId::new(random.pick(&[1, 2, 3, 65_530, 65_535])).unwrap_or(PacketId::MIN);
        let ack = AckRef::from(id);
        let mut bytes = Vec::new();
        let mut filters = SubscribeFiltersBuf::new();
        let qos = random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        // The filter is valid.
        let _ = filters.push(random.pick(&FILTERS), SubscriptionOptions::from(qos));
        let mut properties = PropertiesBuf::new();
        if version.is_v5() && random.chance(20) {
            let _ = properties.push(Property::TopicAlias(random.pick(&[1, 2, 33])));
        }
        let packet = match random.range(0..100) {
            0..30 => PacketRef::Publish(PublishRef {
                topic: random.pick(&TOPICS),
                qos,
                packet_id: (qos > QoS::AtMostOnce).then_some(id),
                dup: qos > QoS::AtMostOnce && random.chance(30),
                payload: b"raw",
                properties: properties.as_properties(),
                ..PublishRef::default()
            }),
            30..40 => PacketRef::Subscribe(SubscribeRef {
                packet_id: id,
                properties: mqtt_proto::Properties::EMPTY,
                filters: filters.as_filters(),
            }),
            40..70 => return self.raw_answer(random),
            70..74 => PacketRef::Puback(ack),
            74..78 => PacketRef::Pubrec(ack),
            78..84 => PacketRef::Pubrel(ack),
            84..88 => PacketRef::Pubcomp(ack),
            88..94 => PacketRef::Pingreq,
            94..96 => PacketRef::Disconnect(DisconnectRef::default()),
            _ => return (0..1 + random.below(20)).map(|_| random.next().to_le_bytes()[0]).collect(),
        };
        // What cannot be encoded is not sent.
        let _ = packet.encode(version, &mut bytes);
        bytes
    }

    /// Answers some of what came, as a client would.
    fn raw_answer(&mut self, random: &mut Random) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(4) {
            let Some((kind, id, qos)) = self.inbox.pop_front() else { break };
            let Some(id) = PacketId::new(id) else { continue };
            let ack = AckRef::from(id);
            let packet = match (kind, qos) {
                (PacketType::Publish, QoS::AtLeastOnce) => PacketRef::Puback(ack),
                (PacketType::Publish, _) => PacketRef::Pubrec(ack),
                (PacketType::Pubrec, _) => PacketRef::Pubrel(ack),
                _ => PacketRef::Pubcomp(ack),
            };
            let _ = packet.encode(self.version(), &mut bytes);
        }
        bytes
    }
}
