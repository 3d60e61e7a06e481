//! Receiving: what is delivered, what is acknowledged and when.

mod peer;

use mqtt_proto::*;
use mqtt_session::client::*;
use peer::*;

/// [MQTT-3.3.4-1] [MQTT-4.5.0-2]
#[test]
fn each_qos_is_answered_as_it_demands() {
    let mut peer = Peer::v5();
    peer.deliver("a", "0", QoS::AtMostOnce, 0);
    peer.deliver("a", "1", QoS::AtLeastOnce, 1);
    peer.deliver("a", "2", QoS::ExactlyOnce, 2);
    assert_eq!(peer.sent(), ["PUBACK #1", "PUBREC #2"]);
    let messages = peer.messages();
    let payloads: Vec<_> = messages.iter().map(|m| &m.message.payload[..]).collect();
    assert_eq!(payloads, [b"0", b"1", b"2"]);
    assert!(messages.iter().all(|m| m.delivery.is_none() && m.message.topic == "a"));
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12]
#[test]
fn qos_2_is_delivered_once_however_often_it_comes() {
    let mut peer = Peer::v5();
    for n in 0..4 {
        peer.deliver_as("a", "x", QoS::ExactlyOnce, 1, n > 0);
        assert_eq!(peer.sent(), ["PUBREC #1"]);
    }
    assert_eq!(peer.messages().len(), 1);
    peer.pubrel(1);
    assert_eq!(peer.sent(), ["PUBCOMP #1"]);
    peer.deliver("a", "new", QoS::ExactlyOnce, 1);
    assert_eq!(peer.messages().len(), 1);
}

/// [MQTT-4.3.3-8] over a broken connection, in both versions.
#[test]
fn qos_2_is_delivered_once_over_a_broken_connection() {
    for mut peer in [Peer::v5(), Peer::v311()] {
        peer.deliver("a", "x", QoS::ExactlyOnce, 1);
        assert_eq!(peer.messages().len(), 1);
        peer.resume();
        peer.deliver_as("a", "x", QoS::ExactlyOnce, 1, true);
        assert_eq!((peer.sent(), peer.messages().len()), (vec!["PUBREC #1".to_owned()], 0));
        peer.resume();
        peer.pubrel(1);
        assert_eq!(peer.sent(), ["PUBCOMP #1"]);
    }
}

#[test]
fn a_pubrel_after_resuming_or_for_nothing_is_answered_and_the_link_stays() {
    let mut peer = Peer::v5();
    peer.pubrel(9);
    assert_eq!(peer.sent(), ["PUBCOMP #9 0x92"]);
    assert!(peer.client.is_connected());
    let mut peer = Peer::v311();
    peer.pubrel(9);
    assert_eq!(peer.sent(), ["PUBCOMP #9"]);
    assert!(peer.client.is_connected());
}

/// [MQTT-4.3.2-5]
#[test]
fn after_puback_the_same_identifier_is_a_new_message() {
    let mut peer = Peer::v5();
    peer.deliver("a", "1", QoS::AtLeastOnce, 1);
    peer.deliver_as("a", "2", QoS::AtLeastOnce, 1, true);
    let messages = peer.messages();
    assert_eq!(messages.len(), 2);
    assert!(messages[1].dup);
    assert_eq!(peer.sent(), ["PUBACK #1", "PUBACK #1"]);
}

// ---- acknowledging by hand ----

fn deliveries(peer: &mut Peer) -> Vec<Delivery> {
    peer.messages().into_iter().map(|m| m.delivery.expect("acknowledging is up to the test")).collect()
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3]
#[test]
fn acknowledgements_leave_in_the_order_of_the_messages() {
    let mut peer = Peer::online(manual());
    peer.deliver("a", "", QoS::AtLeastOnce, 1);
    peer.deliver("a", "", QoS::ExactlyOnce, 2);
    peer.deliver("a", "", QoS::AtLeastOnce, 3);
    let mut deliveries = deliveries(&mut peer);
    peer.ack(deliveries.pop().unwrap(), ReasonCode::Success).unwrap();
    peer.ack(deliveries.pop().unwrap(), ReasonCode::Success).unwrap();
    assert!(peer.sent().is_empty());
    peer.ack(deliveries.pop().unwrap(), ReasonCode::Success).unwrap();
    assert_eq!(peer.sent(), ["PUBACK #1", "PUBREC #2", "PUBACK #3"]);
}

/// [MQTT-4.3.3-9] [MQTT-3.4.2-1] [MQTT-3.5.2-1]
#[test]
fn a_message_may_be_refused() {
    let mut peer = Peer::online(manual());
    peer.deliver("a", "", QoS::AtLeastOnce, 1);
    peer.deliver("a", "", QoS::ExactlyOnce, 2);
    for delivery in deliveries(&mut peer) {
        peer.ack(delivery, ReasonCode::QuotaExceeded).unwrap();
    }
    assert_eq!(peer.sent(), ["PUBACK #1 0x97", "PUBREC #2 0x97"]);
    peer.deliver("a", "", QoS::ExactlyOnce, 2);
    let delivery = deliveries(&mut peer).pop().unwrap();
    let error = peer.ack(delivery, ReasonCode::KeepAliveTimeout).unwrap_err();
    assert_eq!(error, AckError::Reason(ReasonCode::KeepAliveTimeout));
}

#[test]
fn below_5_a_refused_message_is_acknowledged_all_the_same() {
    let mut peer = Peer::online(ClientConfig { ack_mode: AckMode::Manual, ..v311() });
    peer.deliver("a", "", QoS::AtLeastOnce, 1);
    let delivery = deliveries(&mut peer).pop().unwrap();
    peer.ack(delivery, ReasonCode::QuotaExceeded).unwrap();
    assert_eq!(peer.sent(), ["PUBACK #1"]);
}

#[test]
fn a_delivery_of_an_old_link_is_stale_at_qos_1_and_good_at_qos_2() {
    let mut peer = Peer::online(manual());
    peer.deliver("a", "", QoS::AtLeastOnce, 1);
    peer.deliver("a", "", QoS::ExactlyOnce, 2);
    let mut old = deliveries(&mut peer);
    peer.resume();
    peer.deliver_as("a", "", QoS::AtLeastOnce, 1, true);
    peer.deliver_as("a", "", QoS::ExactlyOnce, 2, true);
    let mut new = deliveries(&mut peer);
    assert_eq!(new.len(), 1, "QoS 2 is not delivered again");
    peer.ack(old.pop().unwrap(), ReasonCode::Success).unwrap();
    assert_eq!(peer.ack(old.pop().unwrap(), ReasonCode::Success), Err(AckError::Stale));
    peer.ack(new.pop().unwrap(), ReasonCode::Success).unwrap();
    assert_eq!(peer.sent(), ["PUBACK #1", "PUBREC #2"]);
}

#[test]
fn qos_2_acknowledged_between_two_links_is_answered_when_it_comes_again() {
    let mut peer = Peer::online(manual());
    peer.deliver("a", "", QoS::ExactlyOnce, 2);
    let delivery = deliveries(&mut peer).pop().unwrap();
    peer.cut();
    peer.ack(delivery, ReasonCode::Success).unwrap();
    peer.redial();
    peer.clear();
    peer.accept(true);
    peer.deliver_as("a", "", QoS::ExactlyOnce, 2, true);
    assert_eq!(peer.sent(), ["PUBREC #2"]);
}

#[test]
fn a_delivery_of_a_lost_session_is_stale() {
    let mut peer = Peer::online(manual());
    peer.deliver("a", "", QoS::ExactlyOnce, 2);
    let delivery = deliveries(&mut peer).pop().unwrap();
    peer.cut();
    peer.redial();
    peer.accept(false);
    assert_eq!(peer.ack(delivery, ReasonCode::Success), Err(AckError::Stale));
}

#[test]
fn pubrel_before_pubrec_closes() {
    let mut peer = Peer::online(manual());
    peer.deliver("a", "", QoS::ExactlyOnce, 2);
    peer.pubrel(2);
    assert_eq!(peer.sent(), ["DISCONNECT 0x82"]);
}

// ---- limits ----

fn three() -> Peer {
    Peer::online(ClientConfig { receive_maximum: 3, ..manual() })
}

#[test]
fn more_messages_than_receive_maximum_close() {
    let mut peer = three();
    for id in 1..=4 {
        peer.deliver("a", "", if id % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce }, id);
    }
    assert_eq!(peer.sent(), ["DISCONNECT 0x93"]);
    assert!(peer.hung_up());
}

#[test]
fn receive_maximum_counts_until_puback_and_pubcomp_and_repetitions_once() {
    let mut peer = three();
    for round in 0..5 {
        for id in 1..=3 {
            peer.deliver("a", "", QoS::ExactlyOnce, id);
            peer.deliver_as("a", "", QoS::ExactlyOnce, id, true);
        }
        for delivery in deliveries(&mut peer) {
            peer.ack(delivery, ReasonCode::Success).unwrap();
        }
        for id in 1..=3 {
            peer.pubrel(id);
        }
        for id in 1..=3 {
            peer.deliver("a", "", QoS::AtLeastOnce, id);
        }
        for delivery in deliveries(&mut peer) {
            peer.ack(delivery, ReasonCode::Success).unwrap();
        }
        assert!(peer.client.is_connected(), "round {round}");
    }
}

#[test]
fn below_5_a_count_and_a_byte_limit_bound_what_is_unacknowledged() {
    let config = ClientConfig { ack_mode: AckMode::Manual, ..v311() };
    for config in [
        ClientConfig { max_unacknowledged: 2, ..config.clone() },
        ClientConfig { max_unacknowledged_bytes: 25, ..config },
    ] {
        let mut peer = Peer::online(config);
        peer.deliver("a", "0123456789", QoS::AtLeastOnce, 1);
        peer.deliver("a", "0123456789", QoS::AtLeastOnce, 2);
        assert!(peer.client.is_connected());
        peer.deliver("a", "0123456789", QoS::AtLeastOnce, 3);
        assert_eq!(peer.cause(), Cause::TooManyUnacknowledged);
    }
}

#[test]
fn a_server_that_does_not_read_its_answers_is_cut_off() {
    let mut peer = Peer::v5();
    peer.room = Some(0);
    for _ in 0..200_000 {
        peer.pubrel(1);
        if !peer.client.is_connected() {
            break;
        }
    }
    assert!(matches!(peer.cause(), Cause::Violation { reason: ReasonCode::MessageRateTooHigh, .. }));
}

// ---- aliases ----

fn alias(peer: &mut Peer, topic: &str, number: u16) {
    let list = props(&[Property::TopicAlias(number), Property::UserProperty("k", "v")]);
    let properties = list.as_properties();
    peer.send(PacketRef::Publish(PublishRef { topic, properties, ..PublishRef::default() }));
}

/// [MQTT-3.3.2-10]: an application never sees an empty topic, nor the alias.
#[test]
fn aliases_are_resolved_before_delivery() {
    let mut peer = Peer::v5();
    alias(&mut peer, "long/topic", 16);
    alias(&mut peer, "", 16);
    alias(&mut peer, "other", 16);
    alias(&mut peer, "", 16);
    let messages = peer.messages();
    let topics: Vec<_> = messages.iter().map(|m| &m.message.topic[..]).collect();
    assert_eq!(topics, ["long/topic", "long/topic", "other", "other"]);
    assert!(messages.iter().all(|m| m.message.properties == props(&[Property::UserProperty("k", "v")])));
}

#[test]
fn a_repetition_sets_an_alias_as_well() {
    let mut peer = Peer::v5();
    peer.deliver("a", "", QoS::ExactlyOnce, 1);
    let list = props(&[Property::TopicAlias(1)]);
    let (packet_id, properties) = (PacketId::new(1), list.as_properties());
    let qos = QoS::ExactlyOnce;
    peer.send(PacketRef::Publish(PublishRef {
        dup: true,
        qos,
        packet_id,
        topic: "a",
        properties,
        ..PublishRef::default()
    }));
    alias(&mut peer, "", 1);
    assert_eq!(peer.messages().last().unwrap().message.topic, "a");
}

/// [MQTT-3.3.2-11]
#[test]
fn an_alias_over_the_maximum_or_unknown_closes() {
    for (topic, number, code) in [("a", 17, "0x94"), ("", 1, "0x82")] {
        let mut peer = Peer::v5();
        alias(&mut peer, topic, number);
        assert_eq!(peer.sent(), [format!("DISCONNECT {code}")]);
    }
}

/// [MQTT-3.3.2-7]
#[test]
fn the_server_s_aliases_end_with_their_connection() {
    let mut peer = Peer::v5();
    alias(&mut peer, "a", 1);
    peer.resume();
    alias(&mut peer, "", 1);
    assert_eq!(peer.sent(), ["DISCONNECT 0x82"]);
}
