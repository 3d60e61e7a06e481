//! What the simulator found, each as small as it could be made.

use mqtt_proto::*;
use mqtt_session::broker::{BrokerConfig, Overflow};
use mqtt_session::client::{CleanStart, Client, ClientConfig, DisconnectOptions, Output};
use mqtt_session::{Durability, Message, StoreSeq, Timestamp};
use mqtt_testkit::{Pair, PeerId, World};

fn config(change: impl FnOnce(&mut BrokerConfig)) -> BrokerConfig {
    let mut config = BrokerConfig::default();
    change(&mut config);
    config
}

fn subscribe(world: &mut World, peer: PeerId, filter: &str, qos: QoS) {
    let mut filters = SubscribeFiltersBuf::new();
    filters.push(filter, SubscriptionOptions::from(qos)).unwrap();
    let packet_id = PacketId::MIN;
    let packet = SubscribeRef { packet_id, properties: Properties::EMPTY, filters: filters.as_filters() };
    world.send(peer, &PacketRef::Subscribe(packet));
}

fn publish(world: &mut World, peer: PeerId, topic: &str, payload: &[u8], id: u16) {
    let (qos, packet_id) = (QoS::AtLeastOnce, PacketId::new(id));
    let packet = PublishRef { topic, payload, qos, packet_id, ..PublishRef::default() };
    world.send(peer, &PacketRef::Publish(packet));
}

#[test]
fn nothing_follows_the_disconnect_of_a_client_that_filled_its_own_queue() {
    let mut world = World::new(config(|c| {
        c.overflow = Overflow::Disconnect;
        c.max_queued_messages = 1;
        c.max_inflight = 1;
    }));
    let peer = world.client(Version::V5, "a");
    subscribe(&mut world, peer, "t", QoS::AtLeastOnce);
    for id in 1..=3 {
        publish(&mut world, peer, "t", b"x", id);
    }
    let got = world.got(peer);
    assert_eq!(got.last().map(String::as_str), Some("DISCONNECT 97"), "{got:?}");
}

#[test]
fn groups_that_are_committed_after_the_store_failed_are_emitted() {
    let mut world = World::new(config(|c| c.durability = Durability::Synced));
    let connect = |client_id| ConnectRef { version: Version::V311, client_id, ..ConnectRef::default() };
    let second = world.connect(&connect("b"));
    world.confirm_stores();
    assert_eq!(world.got(second), ["CONNACK 00"]);
    let first = world.connect(&connect("a"));
    let lost: Vec<StoreSeq> = world.stores.drain(..).map(|(seq, _)| seq).collect();
    world.broker.handle_store_failed(world.now, lost[0]);
    world.settle();
    let before = world.stores.len();
    world.cut(second);
    assert_eq!(world.stores.len(), before + 1, "its time without a connection begins");
    let third = world.connect(&connect("c"));
    assert_eq!(world.got(third), ["CONNACK 88"], "nothing is promised");
    world.confirm_stores();
    assert_eq!(world.got(first), ["CONNACK 00"]);
}

#[test]
fn a_repeated_pubrel_waits_for_the_store_like_the_first() {
    let mut world = World::new(config(|c| {
        c.durability = Durability::Synced;
        c.resend_after = Some(std::time::Duration::from_secs(1));
    }));
    let packet = ConnectRef { version: Version::V311, client_id: "a", ..ConnectRef::default() };
    let peer = world.connect(&packet);
    subscribe(&mut world, peer, "t", QoS::ExactlyOnce);
    world.confirm_stores();
    let now = world.now;
    world.broker.publish(now, Message::new("t", "x").with_qos(QoS::ExactlyOnce)).unwrap();
    world.settle();
    world.confirm_stores();
    assert_eq!(world.got(peer).last().map(String::as_str), Some("PUBLISH t q2 #1 \"x\""));
    world.send(peer, &PacketRef::Pubrec(AckRef::from(PacketId::MIN)));
    world.advance(std::time::Duration::from_secs(2));
    assert!(world.got(peer).is_empty(), "PUBREL before its stage is stored");
    world.confirm_stores();
    assert_eq!(world.got(peer), ["PUBREL #1"]);
}

#[test]
fn what_was_begun_is_not_sent_again_to_a_client_that_takes_less_now() {
    let mut world = World::new(config(|_| {}));
    let connect = |max: u32| {
        let list = PropertiesBuf::new().with(Property::SessionExpiryInterval(60)).unwrap();
        list.with(Property::MaximumPacketSize(max)).unwrap()
    };
    let (wide, narrow) = (connect(1000), connect(60));
    let packet = |properties| ConnectRef { client_id: "a", properties, ..ConnectRef::default() };
    let peer = world.connect(&packet(wide.as_properties()));
    subscribe(&mut world, peer, "t", QoS::AtLeastOnce);
    let other = world.client(Version::V5, "b");
    publish(&mut world, other, "t", &[b'x'; 100], 1);
    publish(&mut world, other, "t", b"small", 2);
    world.cut(peer);
    let peer = world.connect(&packet(narrow.as_properties()));
    let got = world.got(peer);
    assert_eq!(got[1..], ["PUBLISH t q1 #2 dup \"small\""], "{got:?}");
}

#[test]
fn below_5_a_disconnect_cannot_end_the_session() {
    let settings =
        ClientConfig { version: Version::V31, clean_start: CleanStart::Never, ..ClientConfig::new("a") };
    let mut pair = Pair::new(World::new(config(|_| {})), settings);
    pair.connect();
    let now = pair.world.now;
    let options = DisconnectOptions { session_expiry_secs: Some(0), ..DisconnectOptions::default() };
    pair.client.disconnect(now, options);
    pair.drive();
    pair.events.clear();
    pair.connect();
    let resumed = pair.events.iter().any(|event| {
        matches!(event, mqtt_session::client::Event::Connected(connected) if connected.session_present)
    });
    assert!(resumed, "{:?}", pair.events);
}

#[test]
fn an_outbox_without_room_does_not_ask_to_be_drained_again() {
    let mut pair = Pair::new(World::new(config(|_| {})), ClientConfig::new("a"));
    pair.connect();
    let now = pair.world.now;
    let client: &mut Client = &mut pair.client;
    client.publish(now, Message::new("t", "x")).unwrap();
    assert_eq!(client.poll_output(), Some(Output::Flush));
    client.outbox(now, 0).consume(0);
    assert_eq!(client.poll_output(), None);
    assert!(!client.outbox(Timestamp::ZERO, 100).is_empty());
}

/// [MQTT-3.3.2-6]: the time for which a message waited includes that in which somebody decided about it.
#[test]
fn the_lifetime_of_a_message_counts_from_its_arrival() {
    let mut config = BrokerConfig::default();
    config.ask.publish = true;
    let mut w = World::new(config);
    let s = w.client(Version::V5, "s");
    subscribe(&mut w, s, "t", QoS::AtMostOnce);
    w.got(s);
    let p = w.client(Version::V5, "p");
    let properties = PropertiesBuf::new().with(Property::MessageExpiryInterval(9)).unwrap();
    let properties = properties.as_properties();
    w.send(
        p,
        &PacketRef::Publish(PublishRef { topic: "t", payload: b"x", properties, ..Default::default() }),
    );
    w.advance(std::time::Duration::from_secs(4));
    let ask = w.asks.pop().expect("a question");
    w.broker.handle_answer(w.now, ask.id, mqtt_session::broker::Answer::Allow);
    w.settle();
    assert_eq!(w.got(s), ["PUBLISH t q0 \"x\" {MessageExpiryInterval(5)}"]);
}
