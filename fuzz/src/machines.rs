//! The whole machines under peers that do anything: each input is a list of things that happen.

use arbitrary::{Result, Unstructured};
use mqtt_proto::{
    AckRef, AuthRef, ConnectRef, DisconnectRef, PacketId, PacketRef, PropertiesBuf, Property, PublishRef,
    QoS, ReasonCode, SubackRef, SubscribeFiltersBuf, SubscribeRef, SubscriptionOptions,
    UnsubscribeFiltersBuf, UnsubscribeRef, Version, WillRef,
};
use mqtt_session::broker::{Answer, BrokerConfig, Overflow};
use mqtt_session::client::{Client, ClientConfig, DisconnectOptions, LinkDown, Output};
use mqtt_session::server::{Phase, ServerConfig, ServerConnection};
use mqtt_session::{Durability, Message, Timestamp};
use mqtt_testkit::{PeerId, World};
use std::time::Duration;

/// The bodies by the name of their target.
#[allow(dead_code, reason = "the targets call the bodies themselves")]
#[allow(clippy::type_complexity, reason = "a list of names and functions")]
pub const ALL: [(&str, fn(&[u8])); 3] = [
    ("broker_machine", broker_machine),
    ("client_machine", client_machine),
    ("server_connection", server_connection),
];

const TOPICS: [&str; 8] = ["a", "a/b", "a/b/c", "/", "b", "$x/a", "b/", "long/topic/that/aliases/shorten"];
const FILTERS: [&str; 10] =
    ["#", "a", "a/#", "+/b", "+", "$share/g/a", "$share/g/#", "$share/h/+/b", "$x/#", "a/+/c"];
const CLIENTS: [&str; 4] = ["", "one", "two", "three"];
const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn qos(u: &mut Unstructured<'_>) -> Result<QoS> {
    Ok(*u.choose(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])?)
}

fn id(u: &mut Unstructured<'_>) -> Result<PacketId> {
    // Few, so that they collide.
    Ok(PacketId::new(u.int_in_range(1..=6)?).unwrap_or(PacketId::MIN))
}

fn reason(u: &mut Unstructured<'_>) -> Result<ReasonCode> {
    Ok(*u.choose(ReasonCode::ALL)?)
}

fn properties(u: &mut Unstructured<'_>, choices: &[Property<'_>]) -> Result<PropertiesBuf> {
    let mut list = PropertiesBuf::new();
    for property in choices {
        if u.ratio(1, 4)? {
            // Some exclude each other; what does not fit is left out.
            let _ = list.push(*property);
        }
    }
    Ok(list)
}

/// Appends some packet of a client.
fn client_packet(u: &mut Unstructured<'_>, version: Version, out: &mut Vec<u8>) -> Result<()> {
    let none = PropertiesBuf::new();
    let v5 = version.is_v5();
    let ack = AckRef { reason: if v5 { reason(u)? } else { ReasonCode::Success }, ..AckRef::from(id(u)?) };
    let _ = match u.int_in_range(0..=12)? {
        0 => {
            let expiry = Property::SessionExpiryInterval(u.int_in_range(0..=20)?);
            let list = properties(
                u,
                &[
                    expiry,
                    Property::ReceiveMaximum(2),
                    Property::MaximumPacketSize(40),
                    Property::TopicAliasMaximum(2),
                    Property::AuthenticationMethod("m"),
                ],
            )?;
            let will_properties =
                properties(u, &[Property::WillDelayInterval(3), Property::MessageExpiryInterval(2)])?;
            let topic = u.choose(&TOPICS)?;
            let will = WillRef {
                topic,
                qos: qos(u)?,
                retain: u.arbitrary()?,
                payload: b"will",
                ..Default::default()
            };
            let properties = if v5 { list.as_properties() } else { none.as_properties() };
            let will =
                if v5 { WillRef { properties: will_properties.as_properties(), ..will } } else { will };
            let connect = ConnectRef {
                version,
                clean_start: u.arbitrary()?,
                keep_alive: u.int_in_range(0..=5)?,
                properties,
                client_id: u.choose(&CLIENTS)?,
                will: u.ratio(1, 2)?.then_some(will),
                ..ConnectRef::default()
            };
            PacketRef::Connect(connect).encode(version, out)
        }
        1..=4 => {
            let qos = qos(u)?;
            let alias = u.int_in_range(1..=3)?;
            let list = properties(
                u,
                &[
                    Property::TopicAlias(alias),
                    Property::MessageExpiryInterval(2),
                    Property::ContentType("x"),
                ],
            )?;
            let payload = vec![b'x'; u.int_in_range(0..=60)?];
            let publish = PublishRef {
                dup: qos > QoS::AtMostOnce && u.arbitrary()?,
                qos,
                retain: u.ratio(1, 3)?,
                topic: if u.ratio(1, 6)? { "" } else { u.choose(&TOPICS)? },
                packet_id: if qos > QoS::AtMostOnce { Some(id(u)?) } else { None },
                properties: if v5 { list.as_properties() } else { none.as_properties() },
                payload: &payload,
            };
            PacketRef::Publish(publish).encode(version, out)
        }
        5 => {
            let mut filters = SubscribeFiltersBuf::new();
            for _ in 0..u.int_in_range(1..=3)? {
                let mut options = SubscriptionOptions::from(qos(u)?);
                options.no_local = u.ratio(1, 5)?;
                options.retain_as_published = u.arbitrary()?;
                // No Local is refused on shared filters.
                let _ = filters.push(u.choose(&FILTERS)?, options);
            }
            let number = Property::SubscriptionIdentifier(u.int_in_range(1..=3)?);
            let list = properties(u, &[number])?;
            let properties = if v5 { list.as_properties() } else { none.as_properties() };
            let subscribe = SubscribeRef { packet_id: id(u)?, properties, filters: filters.as_filters() };
            PacketRef::Subscribe(subscribe).encode(version, out)
        }
        6 => {
            let mut filters = UnsubscribeFiltersBuf::new();
            let _ = filters.push(u.choose(&FILTERS)?);
            let unsubscribe = UnsubscribeRef {
                packet_id: id(u)?,
                properties: none.as_properties(),
                filters: filters.as_filters(),
            };
            PacketRef::Unsubscribe(unsubscribe).encode(version, out)
        }
        7 => PacketRef::Puback(ack).encode(version, out),
        8 => PacketRef::Pubrec(ack).encode(version, out),
        9 => PacketRef::Pubrel(ack).encode(version, out),
        10 => PacketRef::Pubcomp(ack).encode(version, out),
        11 => PacketRef::Pingreq.encode(version, out),
        _ => {
            let list = properties(u, &[Property::SessionExpiryInterval(1)])?;
            let reason = if v5 { reason(u)? } else { ReasonCode::Success };
            if u.ratio(1, 2)? {
                let auth = AuthRef { reason, properties: none.as_properties() };
                PacketRef::Auth(auth).encode(version, out)
            } else {
                let properties = if v5 { list.as_properties() } else { none.as_properties() };
                PacketRef::Disconnect(DisconnectRef { reason, properties }).encode(version, out)
            }
        }
    };
    Ok(())
}

fn tiny(u: &mut Unstructured<'_>) -> Result<BrokerConfig> {
    let mut config = BrokerConfig::default();
    config.ask.connect = u.ratio(1, 4)?;
    config.ask.publish = u.ratio(1, 8)?;
    config.ask.subscribe = u.ratio(1, 8)?;
    config.ask.will = u.ratio(1, 8)?;
    config.durability = if u.ratio(1, 3)? { Durability::Synced } else { Durability::Off };
    config.receive_maximum = u.int_in_range(1..=4)?;
    config.max_inflight = u.int_in_range(1..=3)?;
    config.topic_alias_maximum = 2;
    config.max_outbound_aliases = 2;
    config.max_queued_messages = u.int_in_range(1..=6)?;
    config.max_queued_bytes = u.int_in_range(200..=4000)?;
    config.max_message_bytes = u.int_in_range(1000..=20_000)?;
    config.overflow = *u.choose(&[Overflow::DropNewest, Overflow::DropOldest, Overflow::Disconnect])?;
    config.queue_qos0 = u.arbitrary()?;
    config.max_subscriptions = 4;
    config.max_retained = 4;
    config.max_session_expiry = 30;
    config.work_budget = u.int_in_range(1..=20)?;
    config.resend_after = if u.ratio(1, 4)? { Some(Duration::from_secs(2)) } else { None };
    Ok(config)
}

/// Any peers against the broker machine.
pub fn broker_machine(data: &[u8]) {
    // An input that ends early is a short history.
    let _ = broker_history(&mut Unstructured::new(data));
}

fn broker_history(u: &mut Unstructured<'_>) -> Result<()> {
    let config = tiny(u)?;
    let bytes_limit = config.max_message_bytes + 64 * 1024;
    let mut w = World::new(config);
    let mut peers: Vec<(PeerId, Version)> = Vec::new();
    while !u.is_empty() && peers.len() < 64 {
        let any = if peers.is_empty() { None } else { Some(*u.choose(&peers)?) };
        match (u.int_in_range(0..=15)?, any) {
            (0, _) | (_, None) => {
                let version = *u.choose(&VERSIONS)?;
                let peer = w.open(version);
                peers.push((peer, version));
                let connect = ConnectRef {
                    version,
                    client_id: u.choose(&CLIENTS)?,
                    clean_start: u.arbitrary()?,
                    ..ConnectRef::default()
                };
                w.send(peer, &PacketRef::Connect(connect));
            }
            (1..=8, Some((peer, version))) => {
                let mut bytes = Vec::new();
                for _ in 0..u.int_in_range(1..=3)? {
                    client_packet(u, version, &mut bytes)?;
                }
                if u.ratio(1, 10)? && !bytes.is_empty() {
                    let at = u.choose_index(bytes.len())?;
                    bytes[at] = u.arbitrary()?;
                }
                if u.ratio(1, 10)? {
                    bytes.truncate(u.int_in_range(0..=bytes.len())?);
                }
                w.send_raw(peer, &bytes);
            }
            (9, Some((peer, _))) => w.cut(peer),
            (10, Some(_)) => w.advance(Duration::from_millis(u.int_in_range(0..=8000)?)),
            (11, Some((peer, _))) => w.set_reads(peer, u.arbitrary()?),
            (12, Some(_)) => {
                if let Some(ask) = w.asks.pop() {
                    let answer = match u.int_in_range(0..=3)? {
                        0 => Answer::Allow,
                        1 => Answer::Deny(reason(u)?),
                        2 => Answer::Continue(bytes::Bytes::from_static(b"more")),
                        _ => Answer::Filters(vec![Ok(()), Err(ReasonCode::NotAuthorized)]),
                    };
                    w.broker.handle_answer(w.now, ask.id, answer);
                    w.settle();
                }
            }
            (13, Some(_)) => w.confirm_stores(),
            (14, Some(_)) => {
                if let Some((seq, _)) = w.stores.first() {
                    let seq = *seq;
                    w.stores.clear();
                    w.broker.handle_store_failed(w.now, seq);
                    w.settle();
                }
            }
            (_, Some(_)) => {
                let message = Message::new(*u.choose(&TOPICS)?, "local").with_qos(qos(u)?);
                // A full memory hands it back.
                let _ = w.broker.publish(w.now, message);
                // An older time is harmless.
                w.broker.handle_timeout(Timestamp::ZERO);
                w.settle();
            }
        }
        let stats = w.broker.stats();
        assert!(stats.connections <= peers.len());
        assert!(stats.message_bytes <= bytes_limit, "{stats:?}");
        assert!(w.broker.poll_timeout().is_none_or(|due| due >= w.now), "what is due was done");
        for &(peer, _) in &peers {
            // Panics if the broker sent anything but whole, valid packets.
            for line in w.got(peer) {
                let kind = line.split(' ').next().unwrap_or_default();
                assert!(!matches!(kind, "CONNECT" | "SUBSCRIBE" | "UNSUBSCRIBE" | "PINGREQ"), "{line}");
            }
        }
    }
    // In the end everybody leaves, time passes, and nothing may be left but what is retained.
    for &(peer, _) in &peers {
        w.cut(peer);
    }
    for _ in 0..20 {
        // What they sent before is still asked about, one question after the other.
        while let Some(ask) = w.asks.pop() {
            w.broker.handle_answer(w.now, ask.id, Answer::Allow);
            w.settle();
        }
        w.confirm_stores();
        w.advance(Duration::from_secs(10));
    }
    w.confirm_stores();
    let stats = w.broker.stats();
    assert_eq!((stats.connections, stats.sessions, stats.subscriptions), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.messages, stats.retained, "{stats:?}");
    Ok(())
}

/// Any client against one connection of a server, and any owner.
pub fn server_connection(data: &[u8]) {
    let _ = connection_history(&mut Unstructured::new(data));
}

fn connection_history(u: &mut Unstructured<'_>) -> Result<()> {
    let version = *u.choose(&VERSIONS)?;
    let config = ServerConfig {
        max_packet_size: 200,
        max_outbox_bytes: 2_000,
        max_outbound_aliases: 2,
        answer_pings: u.arbitrary()?,
        ..ServerConfig::default()
    };
    let outbox = config.max_outbox_bytes + 100;
    let (mut connection, mut now) = (ServerConnection::new(config, Timestamp::ZERO), Timestamp::ZERO);
    let mut bytes = Vec::new();
    let connect = ConnectRef { version, client_id: "c", keep_alive: 5, ..ConnectRef::default() };
    let _ = PacketRef::Connect(connect).encode(version, &mut bytes);
    while !u.is_empty() {
        for _ in 0..u.int_in_range(0..=3)? {
            client_packet(u, version, &mut bytes)?;
        }
        if u.ratio(1, 10)? && !bytes.is_empty() {
            let at = u.choose_index(bytes.len())?;
            bytes[at] = u.arbitrary()?;
        }
        let rest = bytes.split_off(u.int_in_range(0..=bytes.len())?);
        connection.handle_read(now, &bytes);
        bytes = rest;
        let mut connects = 0;
        while let Some(packet) = connection.poll_packet(now) {
            if let PacketRef::Publish(publish) = packet {
                assert!(!publish.topic.is_empty() && publish.properties.topic_alias().is_none());
            }
            connects += usize::from(matches!(packet, PacketRef::Connect(_)));
        }
        assert!(connects <= 1);
        let mut packet = Vec::new();
        server_packet(u, version, &mut packet)?;
        if let Ok(packet) = PacketRef::decode(&packet, version) {
            let before = connection.outbox().len();
            if connection.send(now, &packet).is_err() {
                assert_eq!(connection.outbox().len(), before, "a refused packet left bytes");
            }
        }
        let over = connection.phase() == Phase::Closing;
        while connection.poll_output().is_some() {}
        assert!(connection.outbox().len() <= outbox);
        match u.int_in_range(0..=5)? {
            0 => connection.consume(now, u.int_in_range(0..=300)?),
            1 => now = now + Duration::from_millis(u.int_in_range(0..=4_000)?),
            2 => connection.hang_up(now, reason(u)?),
            3 => connection.handle_close(now),
            _ => {}
        }
        connection.handle_timeout(now);
        assert!(!over || connection.phase() == Phase::Closing, "what is over stays over");
    }
    Ok(())
}

/// Appends some packet of a server.
fn server_packet(u: &mut Unstructured<'_>, version: Version, out: &mut Vec<u8>) -> Result<()> {
    let none = PropertiesBuf::new();
    let v5 = version.is_v5();
    if u.ratio(2, 3)? {
        let id = id(u)?;
        let _ = match u.int_in_range(0..=3)? {
            0 => {
                let list = properties(
                    u,
                    &[
                        Property::ReceiveMaximum(1),
                        Property::MaximumPacketSize(60),
                        Property::TopicAliasMaximum(2),
                        Property::ServerKeepAlive(2),
                        Property::AssignedClientIdentifier("assigned"),
                        Property::MaximumQos(QoS::AtLeastOnce),
                    ],
                )?;
                let connack = mqtt_proto::ConnackRef {
                    session_present: u.arbitrary()?,
                    reason: ReasonCode::Success,
                    properties: if v5 { list.as_properties() } else { none.as_properties() },
                };
                PacketRef::Connack(connack).encode(version, out)
            }
            1 => {
                let codes = [0, 1, 2];
                let codes = &codes[..u.int_in_range(1..=3)?];
                PacketRef::Suback(SubackRef { packet_id: id, properties: none.as_properties(), codes })
                    .encode(version, out)
            }
            2 => PacketRef::Pingresp.encode(version, out),
            _ => {
                let unsuback =
                    mqtt_proto::UnsubackRef { packet_id: id, properties: none.as_properties(), codes: &[0] };
                PacketRef::Unsuback(unsuback).encode(version, out)
            }
        };
        return Ok(());
    }
    client_packet(u, version, out)
}

/// Any server against the client machine.
pub fn client_machine(data: &[u8]) {
    let _ = client_history(&mut Unstructured::new(data));
}

fn client_history(u: &mut Unstructured<'_>) -> Result<()> {
    let version = *u.choose(&VERSIONS)?;
    let mut config = ClientConfig::new("client");
    config.version = version;
    config.session_expiry_secs = u.int_in_range(0..=100)?;
    config.max_queued_messages = u.int_in_range(1..=8)?;
    config.max_queued_bytes = 10_000;
    config.max_in_flight = 4;
    config.max_in_flight_3x = 4;
    config.receive_maximum = u.int_in_range(1..=4)?;
    config.max_unacknowledged = usize::from(config.receive_maximum);
    config.keep_alive_secs = u.int_in_range(0..=5)?;
    config.durability = if u.ratio(1, 3)? { Durability::Synced } else { Durability::Off };
    let mut now = Timestamp::ZERO;
    // Settings that contradict each other are refused.
    let Ok(mut client) = Client::new(config, now) else { return Ok(()) };
    let (mut open, mut bytes) = (false, Vec::new());
    let mut deliveries = Vec::new();
    let mut stored = Vec::new();
    let mut tokens = std::collections::BTreeSet::new();
    client.connect(now);
    while !u.is_empty() {
        match u.int_in_range(0..=12)? {
            0..=4 => {
                bytes.clear();
                for _ in 0..u.int_in_range(1..=3)? {
                    server_packet(u, version, &mut bytes)?;
                }
                if u.ratio(1, 10)? && !bytes.is_empty() {
                    let at = u.choose_index(bytes.len())?;
                    bytes[at] = u.arbitrary()?;
                }
                if open {
                    client.handle_read(now, &bytes);
                }
            }
            5 => {
                open = true;
                client.handle_link_up(now);
            }
            6 => {
                open = false;
                client.handle_link_down(now, LinkDown::Failed);
            }
            7 => {
                let message =
                    Message::new(*u.choose(&TOPICS)?, vec![b'y'; u.int_in_range(0..=80)?]).with_qos(qos(u)?);
                if let Ok(token) = client.publish(now, message) {
                    assert!(tokens.insert(token), "tokens are never given twice");
                }
            }
            8 => {
                let filters = [(*u.choose(&FILTERS)?, SubscriptionOptions::from(qos(u)?))];
                if let Ok(token) = client.subscribe(now, &filters, &PropertiesBuf::new()) {
                    assert!(tokens.insert(token));
                }
            }
            9 => {
                now = now + Duration::from_millis(u.int_in_range(0..=10_000)?);
                client.handle_timeout(now);
            }
            10 => {
                if let Some(delivery) = deliveries.pop() {
                    // The link may have ended since.
                    let _ = client.ack(now, delivery, reason(u)?);
                }
            }
            11 => match stored.pop() {
                Some(seq) if u.ratio(3, 4)? => client.handle_stored(now, seq),
                _ => client.handle_store_failed(now),
            },
            _ => {
                if u.ratio(1, 8)? {
                    client.disconnect(now, DisconnectOptions::default());
                } else {
                    client.connect(now);
                }
            }
        }
        for turn in 0.. {
            assert!(turn < 10_000, "the outputs end");
            match client.poll_output() {
                None => break,
                Some(Output::Flush) => {
                    let mut outbox = client.outbox(now, 4096);
                    let mut slices = [&[][..]; 64];
                    let used = outbox.fill_slices(&mut slices);
                    let taken = slices[..used].concat();
                    outbox.consume(taken.len());
                    // Panics if the client sent anything but whole, valid packets.
                    for line in mqtt_testkit::brief_all(&taken, version) {
                        let kind = line.split(' ').next().unwrap_or_default();
                        assert!(!matches!(kind, "CONNACK" | "SUBACK" | "UNSUBACK" | "PINGRESP"), "{line}");
                    }
                }
                Some(Output::Store(seq, _)) => stored.push(seq),
                Some(Output::Event(mqtt_session::client::Event::Message(received))) => {
                    deliveries.extend(received.delivery);
                }
                Some(Output::Event(mqtt_session::client::Event::Done { token, .. })) => {
                    assert!(tokens.remove(&token), "a token is done once");
                }
                Some(Output::HangUp) => open = false,
                Some(_) => {}
            }
        }
        // What was in flight is queued again when the session is lost.
        assert!(client.queued() <= 8 + 4);
    }
    Ok(())
}
