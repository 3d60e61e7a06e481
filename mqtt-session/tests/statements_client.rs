//! Statements of the standards that bind a client, one at a time.

mod peer;

use mqtt_proto::*;
use mqtt_session::Timestamp;
use mqtt_session::client::*;
use peer::*;
use std::time::Duration;

fn both() -> [Peer; 2] {
    [Peer::v5(), Peer::v311()]
}

/// Acknowledging is up to the test.
fn both_by_hand() -> [Peer; 2] {
    [manual(), ClientConfig { ack_mode: AckMode::Manual, ..v311() }].map(Peer::online)
}

fn deliveries(peer: &mut Peer) -> Vec<Delivery> {
    peer.messages().into_iter().map(|m| m.delivery.expect("acknowledging is up to the test")).collect()
}

/// [MQTT-3.1.0-1] of both
#[test]
fn connect_comes_first() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut peer = Peer::new(ClientConfig { version, ..ClientConfig::new("c") });
        peer.publish("a", "1", QoS::AtMostOnce);
        peer.subscribe(&["b"]);
        peer.start();
        let sent = peer.sent();
        assert!(sent.len() == 1 && sent[0].starts_with("CONNECT c "), "{sent:?}");
    }
}

/// [MQTT-3.1.3-7] of 3.1.1
#[test]
fn without_an_identifier_each_session_starts_clean() {
    let config = |clean_start| ClientConfig { clean_start, client_id: String::new(), ..v311() };
    let new = |clean_start| Client::new(config(clean_start), Timestamp::ZERO);
    assert_eq!(new(CleanStart::Never).unwrap_err(), ConfigError::ClientId);
    assert_eq!(new(CleanStart::FirstOnly).unwrap_err(), ConfigError::ClientId);
    let mut peer = Peer::new(config(CleanStart::Always));
    peer.start();
    assert_eq!(peer.sent(), ["CONNECT  clean=1 alive=60"]);
}

/// [MQTT-3.1.2-22] of 3.1.1
#[test]
fn below_5_a_password_needs_a_user_name() {
    let config = |user: Option<&str>| ClientConfig {
        user_name: user.map(Into::into),
        password: Some("p".into()),
        ..v311()
    };
    let error = Client::new(config(None), Timestamp::ZERO).unwrap_err();
    assert_eq!(error, ConfigError::Connect(Violation::PasswordWithoutUserName));
    assert!(Client::new(config(Some("u")), Timestamp::ZERO).is_ok());
}

/// [MQTT-3.1.2-4] of 3.1.1 [MQTT-3.1.2-6] of 3.1.1
#[test]
fn a_clean_session_forgets_and_another_remembers() {
    for (clean_start, again) in [(CleanStart::Never, true), (CleanStart::Always, false)] {
        let mut peer = Peer::online(ClientConfig { clean_start, republish: false, ..v311() });
        peer.publish("a", "1", QoS::AtLeastOnce);
        peer.deliver("b", "x", QoS::ExactlyOnce, 7);
        peer.messages();
        peer.cut();
        peer.redial();
        peer.clear();
        peer.accept(again);
        let sent: &[&str] = if again { &["PUBLISH q1 #1 dup a=1"] } else { &[] };
        assert_eq!(peer.sent(), sent);
        peer.deliver("b", "x", QoS::ExactlyOnce, 7);
        assert_eq!(peer.messages().len(), usize::from(!again), "a new message in a new session");
    }
}

/// [MQTT-4.3.2-1] of 3.1.1 [MQTT-4.3.2-3] [MQTT-3.3.1-2] of both
#[test]
fn qos_1_is_unacknowledged_until_puback() {
    for mut peer in both() {
        peer.publish("a", "1", QoS::AtLeastOnce);
        peer.publish("a", "0", QoS::AtMostOnce);
        assert_eq!(peer.sent(), ["PUBLISH q1 #1 a=1", "PUBLISH q0 a=0"]);
        peer.resume();
        assert_eq!(peer.sent(), ["PUBLISH q1 #1 dup a=1"]);
        peer.puback(1);
        peer.resume();
        assert!(peer.sent().is_empty());
        peer.publish("a", "0", QoS::AtMostOnce);
        assert_eq!(peer.sent(), ["PUBLISH q0 a=0"]);
    }
}

/// [MQTT-4.3.3-3] [MQTT-4.3.3-6] [MQTT-4.3.3-1] of 3.1.1
#[test]
fn qos_2_goes_from_publish_to_pubrel_and_never_back() {
    for mut peer in both() {
        let token = peer.publish("a", "1", QoS::ExactlyOnce);
        assert_eq!(peer.sent(), ["PUBLISH q2 #1 a=1"]);
        peer.resume();
        assert_eq!(peer.sent(), ["PUBLISH q2 #1 dup a=1"]);
        peer.pubrec(1);
        assert_eq!(peer.sent(), ["PUBREL #1"]);
        for _ in 0..2 {
            peer.resume();
            assert_eq!(peer.sent(), ["PUBREL #1"]);
        }
        peer.pubcomp(1);
        assert_eq!(peer.done(), [(token, acked())]);
        peer.resume();
        assert!(peer.sent().is_empty());
    }
}

/// [MQTT-2.3.1-2] of 3.1.1 [MQTT-2.3.1-3] of 3.1.1 [MQTT-4.3.3-1]
#[test]
fn an_identifier_is_kept_until_the_last_acknowledgement() {
    for mut peer in both() {
        peer.publish("kept", "", QoS::AtLeastOnce);
        peer.publish("kept", "", QoS::ExactlyOnce);
        peer.pubrec(2);
        peer.resume();
        assert_eq!(peer.sent(), ["PUBLISH q1 #1 dup kept=", "PUBREL #2"]);
        let mut next = 3;
        for _ in 0..65_534 {
            peer.publish("a", "", QoS::AtLeastOnce);
            assert_eq!(peer.sent(), [format!("PUBLISH q1 #{next} a=")]);
            peer.puback(next);
            next = if next == u16::MAX { 3 } else { next + 1 };
        }
        peer.puback(1);
        peer.pubcomp(2);
        for id in next..=u16::MAX {
            peer.publish("a", "", QoS::AtLeastOnce);
            peer.puback(id);
        }
        peer.clear();
        peer.publish("a", "", QoS::ExactlyOnce);
        peer.publish("a", "", QoS::ExactlyOnce);
        assert_eq!(peer.sent(), ["PUBLISH q2 #1 a=", "PUBLISH q2 #2 a="], "free again");
    }
}

/// [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-4.3.2-2] of 3.1.1 [MQTT-4.5.0-2] of both [MQTT-3.3.4-1] of 3.1.1
///
/// More than three: one rule with a number in each version.
#[test]
fn each_message_at_qos_1_is_acknowledged_and_new() {
    for mut peer in both() {
        for dup in [false, true, true] {
            peer.deliver_as("nobody/asked", "x", QoS::AtLeastOnce, 9, dup);
            assert_eq!(peer.sent(), ["PUBACK #9"]);
            assert_eq!(peer.messages().len(), 1);
        }
        peer.deliver("nobody/asked", "x", QoS::AtMostOnce, 0);
        assert!(peer.sent().is_empty());
    }
}

/// [MQTT-4.3.3-8] [MQTT-4.3.3-2] of 3.1.1
#[test]
fn a_message_at_qos_2_is_new_only_after_pubcomp() {
    for mut peer in both() {
        for round in 0..2 {
            for dup in [false, true] {
                peer.deliver_as("a", "x", QoS::ExactlyOnce, 9, dup);
                assert_eq!(peer.sent(), ["PUBREC #9"]);
                assert_eq!(peer.messages().len(), usize::from(!dup), "round {round}");
            }
            peer.pubrel(9);
            assert_eq!(peer.sent(), ["PUBCOMP #9"]);
        }
    }
}

/// [MQTT-4.4.0-1] of both [MQTT-4.6.0-1] of both [MQTT-3.3.1-1] of both
#[test]
fn repetitions_keep_order_and_identifiers() {
    for mut peer in both() {
        peer.publish("a", "1", QoS::AtLeastOnce);
        peer.publish("a", "2", QoS::ExactlyOnce);
        peer.publish("a", "3", QoS::AtLeastOnce);
        peer.publish("a", "4", QoS::ExactlyOnce);
        peer.pubrec(4);
        peer.puback(1);
        peer.resume();
        assert_eq!(peer.sent(), ["PUBLISH q2 #2 dup a=2", "PUBLISH q1 #3 dup a=3", "PUBREL #4"]);
        peer.wait(Duration::from_secs(30));
        assert!(peer.sent().is_empty(), "only on a new connection");
    }
}

/// [MQTT-4.6.0-2] of both [MQTT-4.6.0-3] of both [MQTT-4.6.0-4] of both
#[test]
fn acknowledgements_keep_the_order_of_what_they_answer() {
    for mut peer in both_by_hand() {
        for (qos, id) in [(QoS::AtLeastOnce, 1), (QoS::AtLeastOnce, 2), (QoS::ExactlyOnce, 3)] {
            peer.deliver("a", "", qos, id);
        }
        peer.deliver("a", "", QoS::ExactlyOnce, 4);
        for delivery in deliveries(&mut peer).into_iter().rev() {
            peer.ack(delivery, ReasonCode::Success).unwrap();
        }
        assert_eq!(peer.sent(), ["PUBACK #1", "PUBACK #2", "PUBREC #3", "PUBREC #4"]);
        for _ in 0..3 {
            peer.publish("a", "", QoS::ExactlyOnce);
        }
        peer.clear();
        for id in [2, 3, 1] {
            peer.pubrec(id);
        }
        assert_eq!(peer.sent(), ["PUBREL #2", "PUBREL #3", "PUBREL #1"]);
    }
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.4-1] of 3.1.1 [MQTT-3.14.4-2] of 3.1.1
///
/// More than three: two rules with a number in each version, which are exchanged.
#[test]
fn after_disconnect_nothing_is_sent_and_the_connection_closed() {
    for mut peer in both() {
        peer.publish("a", "waits", QoS::AtLeastOnce);
        peer.clear();
        let options = DisconnectOptions { drain: Duration::ZERO, ..DisconnectOptions::default() };
        peer.client.disconnect(peer.now, options);
        peer.pump();
        assert_eq!(peer.sent(), ["DISCONNECT 0x00"]);
        assert!(peer.hung_up());
        peer.deliver("b", "", QoS::AtLeastOnce, 1);
        peer.wait(Duration::from_secs(1000));
        assert!(peer.sent().is_empty());
    }
}

/// [MQTT-3.14.2-3] [MQTT-3.14.2-4]
#[test]
fn disconnect_leaves_off_what_makes_it_too_large() {
    for property in [Property::ReasonString("a long farewell"), Property::UserProperty("a long", "farewell")]
    {
        for (max, size) in [(100, 22), (20, 2)] {
            let mut peer = Peer::new(ClientConfig::new("c"));
            peer.start();
            peer.accept_with(false, &[Property::MaximumPacketSize(max)]);
            peer.clear();
            let options =
                DisconnectOptions { properties: props(&[property]), ..DisconnectOptions::default() };
            peer.client.disconnect(peer.now, options);
            peer.pump();
            let sent = peer.sent_bytes();
            assert!(sent.len() >= size && sent.len() <= max as usize, "{sent:02X?}");
            let PacketRef::Disconnect(d) = PacketRef::decode(&sent, Version::V5).unwrap() else { panic!() };
            assert_eq!(d.properties.is_empty(), max == 20);
        }
    }
}

/// The client acknowledges with a code and nothing more, so that neither a Reason String nor a User
/// Property is ever too much for the server.
///
/// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
/// [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.15.2-2] [MQTT-3.15.2-3]
///
/// More than three: each packet has two numbers for the same rule.
#[test]
fn no_acknowledgement_is_larger_than_a_small_server_takes() {
    let authentication = Some(Authentication { method: "M".into(), data: None });
    let mut peer = Peer::new(ClientConfig { authentication, ..manual() });
    peer.start();
    peer.accept_with(false, &[Property::MaximumPacketSize(12), Property::AuthenticationMethod("M")]);
    peer.clear();
    let check = |peer: &mut Peer, wanted: &[&str]| {
        let raw = peer.sent_bytes();
        let mut rest = &raw[..];
        for wanted in wanted {
            let (packet, len) = PacketRef::decode_next(rest, Version::V5, 12).unwrap().unwrap();
            let properties = match &packet {
                PacketRef::Puback(p)
                | PacketRef::Pubrec(p)
                | PacketRef::Pubrel(p)
                | PacketRef::Pubcomp(p) => p.properties,
                PacketRef::Auth(p) => p.properties,
                other => panic!("{other:?}"),
            };
            assert_eq!(packet.packet_type().to_string(), *wanted);
            assert!(properties.reason_string().is_none());
            assert_eq!(properties.user_properties().count(), 0);
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
    };
    peer.deliver("a", "", QoS::AtLeastOnce, 1);
    peer.deliver("a", "", QoS::ExactlyOnce, 2);
    for delivery in deliveries(&mut peer) {
        peer.ack(delivery, ReasonCode::QuotaExceeded).unwrap();
    }
    check(&mut peer, &["PUBACK", "PUBREC"]);
    peer.pubrec(9);
    peer.pubrel(9);
    check(&mut peer, &["PUBREL", "PUBCOMP"]);
    assert_eq!(peer.client.reauthenticate(peer.now, b"too much for it"), Err(AuthError::TooLarge));
    peer.client.reauthenticate(peer.now, b"").unwrap();
    peer.pump();
    check(&mut peer, &["AUTH"]);
}
