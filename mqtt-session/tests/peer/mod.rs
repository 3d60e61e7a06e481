//! A server made of raw packets, on virtual time: it sends what the test says and keeps what the
//! client sends, as one line of text per packet.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use mqtt_proto::*;
use mqtt_session::client::*;
use mqtt_session::{Message, StoreGroup, StoreSeq, Timestamp};
use std::collections::VecDeque;
use std::time::Duration;

pub struct Peer {
    pub client: Client,
    pub now: Timestamp,
    version: Version,
    /// Bytes of the client that are not looked at yet.
    wire: Vec<u8>,
    pub outputs: VecDeque<Output>,
    /// How many bytes the connection takes; `None` is all.
    pub room: Option<usize>,
}

impl Peer {
    pub fn new(config: ClientConfig) -> Self {
        let version = config.version;
        let now = Timestamp::from_micros(1);
        let client = Client::new(config, now).unwrap();
        Self { client, now, version, wire: Vec::new(), outputs: VecDeque::new(), room: None }
    }

    pub fn with(client: Client, version: Version) -> Self {
        let now = Timestamp::from_micros(1);
        Self { client, now, version, wire: Vec::new(), outputs: VecDeque::new(), room: None }
    }

    /// Connected, with a CONNACK without properties.
    pub fn online(config: ClientConfig) -> Self {
        let mut peer = Self::new(config);
        peer.start();
        peer.accept(false);
        peer.clear();
        peer
    }

    /// Connected in 5.0 with the defaults.
    pub fn v5() -> Self {
        Self::online(ClientConfig::new("c"))
    }

    /// Connected in 3.1.1 with a session that lasts.
    pub fn v311() -> Self {
        Self::online(v311())
    }

    /// `connect`, and the connection is open.
    pub fn start(&mut self) {
        self.client.connect(self.now);
        self.link_up();
    }

    pub fn link_up(&mut self) {
        self.pump();
        self.client.handle_link_up(self.now);
        self.pump();
    }

    pub fn accept(&mut self, session_present: bool) {
        self.accept_with(session_present, &[]);
    }

    pub fn accept_with(&mut self, session_present: bool, properties: &[Property<'_>]) {
        let list = props(properties);
        let reason = ReasonCode::Success;
        let properties = list.as_properties();
        self.send(PacketRef::Connack(ConnackRef { session_present, reason, properties }));
    }

    /// The connection breaks; what was on the way is lost.
    pub fn cut(&mut self) {
        self.client.handle_link_down(self.now, LinkDown::Failed);
        self.wire.clear();
        self.pump();
    }

    /// Waits for the next dial and opens the connection.
    pub fn redial(&mut self) {
        let due = self.client.poll_timeout().expect("it waits to dial");
        self.now = self.now.max(due);
        self.client.handle_timeout(self.now);
        self.link_up();
    }

    /// Cut, dial, and go on with the session.
    pub fn resume(&mut self) {
        self.cut();
        self.redial();
        self.clear();
        self.accept(true);
    }

    pub fn send(&mut self, packet: PacketRef<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        self.read(&bytes);
    }

    pub fn read(&mut self, bytes: &[u8]) {
        self.client.handle_read(self.now, bytes);
        self.pump();
    }

    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.client.handle_timeout(self.now);
        self.pump();
    }

    /// Obeys outputs until there are none; keeps them for the test, except `Flush`.
    pub fn pump(&mut self) {
        loop {
            let mut flush = false;
            while let Some(output) = self.client.poll_output() {
                match output {
                    Output::Flush | Output::HangUp => {
                        flush = true;
                        if output == Output::HangUp {
                            self.drain();
                            self.outputs.push_back(output);
                            self.client.handle_link_down(self.now, LinkDown::Closed);
                        }
                    }
                    other => self.outputs.push_back(other),
                }
            }
            if !flush {
                return;
            }
            self.drain();
        }
    }

    fn drain(&mut self) {
        loop {
            let mut outbox = self.client.outbox(self.now, 4096);
            let mut slices = [&[][..]; 8];
            let n = outbox.fill_slices(&mut slices);
            let mut bytes = slices[..n].concat();
            bytes.truncate(self.room.unwrap_or(usize::MAX));
            if bytes.is_empty() {
                return;
            }
            outbox.consume(bytes.len());
            if let Some(room) = &mut self.room {
                *room -= bytes.len();
            }
            self.wire.extend_from_slice(&bytes);
        }
    }

    /// What the client sent since the last call, one line for each packet.
    pub fn sent(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = &self.wire[..];
        while let Some((packet, len)) =
            PacketRef::decode_next(rest, self.version, u32::MAX).expect("the client sends valid packets")
        {
            lines.push(describe(&packet));
            rest = &rest[len..];
        }
        let kept = rest.to_vec();
        self.wire = kept;
        lines
    }

    /// The bytes that the client sent since the last call.
    pub fn sent_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.wire)
    }

    /// The events since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let (events, rest) =
            self.outputs.drain(..).partition::<Vec<_>, _>(|output| matches!(output, Output::Event(_)));
        self.outputs.extend(rest);
        events
            .into_iter()
            .map(|output| match output {
                Output::Event(event) => event,
                _ => unreachable!(),
            })
            .collect()
    }

    /// Outcomes since the last call, by token.
    pub fn done(&mut self) -> Vec<(Token, Outcome)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Done { token, outcome } => Some((token, outcome)),
                _ => None,
            })
            .collect()
    }

    /// Messages since the last call.
    pub fn messages(&mut self) -> Vec<Received> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Message(message) => Some(*message),
                _ => None,
            })
            .collect()
    }

    /// Why the connection ended, which has to be among the events.
    pub fn cause(&mut self) -> Cause {
        self.disconnected().cause
    }

    pub fn disconnected(&mut self) -> Disconnected {
        self.events()
            .into_iter()
            .find_map(|event| match event {
                Event::Disconnected(disconnected) => Some(*disconnected),
                _ => None,
            })
            .expect("it is disconnected")
    }

    pub fn hung_up(&mut self) -> bool {
        let hung_up = self.outputs.contains(&Output::HangUp);
        self.outputs.retain(|output| *output != Output::HangUp);
        hung_up
    }

    pub fn groups(&mut self) -> Vec<(StoreSeq, StoreGroup)> {
        let mut groups = Vec::new();
        self.outputs = std::mem::take(&mut self.outputs)
            .into_iter()
            .filter_map(|output| match output {
                Output::Store(seq, group) => {
                    groups.push((seq, group));
                    None
                }
                other => Some(other),
            })
            .collect();
        groups
    }

    pub fn clear(&mut self) {
        self.pump();
        self.wire.clear();
        self.outputs.retain(|output| matches!(output, Output::Store(..)));
    }

    // ---- short hands ----

    pub fn publish(&mut self, topic: &str, payload: &str, qos: QoS) -> Token {
        self.publish_message(message(topic, payload, qos))
    }

    pub fn publish_message(&mut self, message: Message) -> Token {
        let token = self.client.publish(self.now, message).unwrap();
        self.pump();
        token
    }

    /// The server publishes.
    pub fn deliver(&mut self, topic: &str, payload: &str, qos: QoS, id: u16) {
        self.deliver_as(topic, payload, qos, id, false);
    }

    pub fn deliver_as(&mut self, topic: &str, payload: &str, qos: QoS, id: u16, dup: bool) {
        let payload = payload.as_bytes();
        let packet_id = PacketId::new(id);
        self.send(PacketRef::Publish(PublishRef {
            dup,
            qos,
            topic,
            packet_id,
            payload,
            ..PublishRef::default()
        }));
    }

    pub fn puback(&mut self, id: u16) {
        self.send(PacketRef::Puback(ack(id)));
    }

    pub fn pubrec(&mut self, id: u16) {
        self.send(PacketRef::Pubrec(ack(id)));
    }

    pub fn pubrel(&mut self, id: u16) {
        self.send(PacketRef::Pubrel(ack(id)));
    }

    pub fn pubcomp(&mut self, id: u16) {
        self.send(PacketRef::Pubcomp(ack(id)));
    }

    pub fn suback(&mut self, id: u16, codes: &[u8]) {
        let packet_id = PacketId::new(id).unwrap();
        self.send(PacketRef::Suback(SubackRef { packet_id, properties: Properties::EMPTY, codes }));
    }

    pub fn subscribe(&mut self, filters: &[&str]) -> Token {
        let filters: Vec<_> = filters.iter().map(|f| (*f, QoS::AtLeastOnce.into())).collect();
        let token = self.client.subscribe(self.now, &filters, &PropertiesBuf::new()).unwrap();
        self.pump();
        token
    }

    pub fn ack(&mut self, delivery: Delivery, reason: ReasonCode) -> Result<(), AckError> {
        let result = self.client.ack(self.now, delivery, reason);
        self.pump();
        result
    }
}

pub fn v311() -> ClientConfig {
    ClientConfig { version: Version::V311, clean_start: CleanStart::Never, ..ClientConfig::new("c") }
}

pub fn manual() -> ClientConfig {
    ClientConfig { ack_mode: AckMode::Manual, ..ClientConfig::new("c") }
}

pub fn message(topic: &str, payload: &str, qos: QoS) -> Message {
    Message::new(topic, payload.to_owned()).with_qos(qos)
}

pub fn expiring(topic: &str, qos: QoS, secs: u32) -> Message {
    let properties = props(&[Property::MessageExpiryInterval(secs)]);
    Message { properties, ..message(topic, "x", qos) }
}

pub fn ack(id: u16) -> AckRef<'static> {
    AckRef::from(PacketId::new(id).unwrap())
}

pub fn ack_with(id: u16, reason: ReasonCode) -> AckRef<'static> {
    AckRef { reason, ..ack(id) }
}

pub fn props(list: &[Property<'_>]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    for property in list {
        properties.push(*property).unwrap();
    }
    properties
}

pub fn acked() -> Outcome {
    Outcome::Acked { reason: ReasonCode::Success, properties: PropertiesBuf::new() }
}

/// One line of text: what matters of a packet.
pub fn describe(packet: &PacketRef<'_>) -> String {
    let reason = |a: &AckRef<'_>| match a.reason {
        ReasonCode::Success => String::new(),
        reason => format!(" 0x{:02X}", reason.as_u8()),
    };
    match packet {
        PacketRef::Connect(c) => {
            format!("CONNECT {} clean={} alive={}", c.client_id, u8::from(c.clean_start), c.keep_alive)
        }
        PacketRef::Publish(p) => {
            let mut line = format!("PUBLISH q{}", p.qos.as_u8());
            if let Some(id) = p.packet_id {
                line += &format!(" #{id}");
            }
            if p.dup {
                line += " dup";
            }
            if p.retain {
                line += " retain";
            }
            line += &format!(" {}={}", p.topic, String::from_utf8_lossy(p.payload));
            for property in p.properties {
                line += &format!(" {property:?}");
            }
            line
        }
        PacketRef::Puback(a) => format!("PUBACK #{}{}", a.packet_id, reason(a)),
        PacketRef::Pubrec(a) => format!("PUBREC #{}{}", a.packet_id, reason(a)),
        PacketRef::Pubrel(a) => format!("PUBREL #{}{}", a.packet_id, reason(a)),
        PacketRef::Pubcomp(a) => format!("PUBCOMP #{}{}", a.packet_id, reason(a)),
        PacketRef::Subscribe(s) => {
            let filters: Vec<_> = s.filters.into_iter().map(|(f, _)| f.to_string()).collect();
            format!("SUBSCRIBE #{} {}", s.packet_id, filters.join(" "))
        }
        PacketRef::Unsubscribe(u) => {
            let filters: Vec<_> = u.filters.into_iter().map(|f| f.to_string()).collect();
            format!("UNSUBSCRIBE #{} {}", u.packet_id, filters.join(" "))
        }
        PacketRef::Disconnect(d) => format!("DISCONNECT 0x{:02X}", d.reason.as_u8()),
        PacketRef::Auth(a) => format!(
            "AUTH 0x{:02X} {}",
            a.reason.as_u8(),
            String::from_utf8_lossy(a.properties.authentication_data().unwrap_or_default())
        ),
        PacketRef::Pingreq => "PINGREQ".into(),
        other => format!("{}", other.packet_type()),
    }
}
