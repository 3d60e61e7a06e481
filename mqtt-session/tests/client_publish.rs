//! Publishing: identifiers, the window, what becomes of a message.

mod peer;

use mqtt_proto::*;
use mqtt_session::client::*;
use mqtt_session::{Message, PublishErrorKind};
use peer::*;
use std::time::Duration;

fn window(max: u16) -> Peer {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.start();
    peer.accept_with(false, &[Property::ReceiveMaximum(max)]);
    peer.clear();
    peer
}

/// [MQTT-4.3.1-1] [MQTT-2.2.1-2]
#[test]
fn qos_0_is_sent_once_and_done_when_the_connection_took_it() {
    let mut peer = Peer::v5();
    peer.room = Some(4);
    let token = peer.publish("a", "12345", QoS::AtMostOnce);
    assert_eq!(peer.done(), []);
    peer.room = None;
    peer.client.handle_timeout(peer.now);
    peer.publish("b", "", QoS::AtMostOnce);
    assert_eq!(peer.sent(), ["PUBLISH q0 a=12345", "PUBLISH q0 b="]);
    assert_eq!(peer.done()[0], (token, Outcome::Sent));
}

/// [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.2-3]
#[test]
fn qos_1_is_done_by_puback() {
    let mut peer = Peer::v5();
    let token = peer.publish("a", "1", QoS::AtLeastOnce);
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 a=1"]);
    assert_eq!((peer.done(), peer.client.in_flight()), (vec![], 1));
    peer.puback(1);
    assert_eq!((peer.done(), peer.client.in_flight()), (vec![(token, acked())], 0));
}

/// [MQTT-4.3.3-2] [MQTT-4.3.3-4] [MQTT-4.3.3-5]
#[test]
fn qos_2_is_done_by_pubcomp() {
    let mut peer = Peer::v5();
    let token = peer.publish("a", "1", QoS::ExactlyOnce);
    assert_eq!(peer.sent(), ["PUBLISH q2 #1 a=1"]);
    peer.pubrec(1);
    assert_eq!(peer.sent(), ["PUBREL #1"]);
    assert_eq!(peer.done(), []);
    peer.pubcomp(1);
    assert_eq!(peer.done(), [(token, acked())]);
    assert_eq!(peer.client.in_flight(), 0);
}

/// [MQTT-4.4.0-2]
#[test]
fn a_refusal_acknowledges_and_is_told() {
    let mut peer = Peer::v5();
    let token = peer.publish("a", "1", QoS::AtLeastOnce);
    let list = props(&[Property::ReasonString("full")]);
    let properties = list.as_properties();
    peer.send(PacketRef::Puback(AckRef { properties, ..ack_with(1, ReasonCode::QuotaExceeded) }));
    let outcome = Outcome::Acked { reason: ReasonCode::QuotaExceeded, properties: list };
    assert_eq!(peer.done(), [(token, outcome)]);
    peer.clear();
    peer.resume();
    assert!(peer.sent().is_empty());
}

/// A client whose slot is not freed by a refusing PUBREC stalls after a windowful of them.
#[test]
fn a_refusing_pubrec_frees_identifier_and_window() {
    let mut peer = window(1);
    for n in 1..=3 {
        let token = peer.publish("a", "1", QoS::ExactlyOnce);
        assert_eq!(peer.sent(), [format!("PUBLISH q2 #{n} a=1")]);
        peer.send(PacketRef::Pubrec(ack_with(n, ReasonCode::NotAuthorized)));
        assert!(matches!(peer.done()[..], [(t, Outcome::Acked { .. })] if t == token));
        assert_eq!(peer.client.in_flight(), 0);
    }
    assert!(peer.sent().is_empty());
}

/// [MQTT-3.3.4-7] [MQTT-4.9.0-2]
#[test]
fn no_more_than_receive_maximum_are_under_way_and_the_rest_waits_in_order() {
    let mut peer = window(2);
    for n in 1..=5 {
        peer.publish("a", &n.to_string(), QoS::AtLeastOnce);
    }
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 a=1", "PUBLISH q1 #2 a=2"]);
    peer.puback(2);
    assert_eq!(peer.sent(), ["PUBLISH q1 #3 a=3"]);
    peer.puback(1);
    peer.puback(3);
    assert_eq!(peer.sent(), ["PUBLISH q1 #4 a=4", "PUBLISH q1 #5 a=5"]);
}

/// The place in the window comes back with PUBCOMP, not with PUBREC.
#[test]
fn qos_2_holds_its_place_until_pubcomp() {
    let mut peer = window(1);
    peer.publish("a", "1", QoS::ExactlyOnce);
    peer.publish("a", "2", QoS::ExactlyOnce);
    peer.clear();
    peer.pubrec(1);
    assert_eq!(peer.sent(), ["PUBREL #1"]);
    peer.pubcomp(1);
    assert_eq!(peer.sent(), ["PUBLISH q2 #2 a=2"]);
}

/// [MQTT-3.3.4-8] [MQTT-4.9.0-3]
#[test]
fn a_full_window_holds_back_nothing_else() {
    let mut peer = window(1);
    peer.publish("a", "1", QoS::AtLeastOnce);
    peer.publish("b", "0", QoS::AtMostOnce);
    peer.subscribe(&["f"]);
    peer.deliver("x", "", QoS::AtLeastOnce, 9);
    peer.deliver("x", "", QoS::ExactlyOnce, 8);
    assert_eq!(
        peer.sent(),
        ["PUBLISH q1 #1 a=1", "PUBLISH q0 b=0", "SUBSCRIBE #2 f", "PUBACK #9", "PUBREC #8"]
    );
}

/// [MQTT-4.6.0-4]
#[test]
fn pubrels_leave_in_the_order_of_the_pubrecs() {
    let mut peer = Peer::v5();
    for _ in 0..3 {
        peer.publish("a", "", QoS::ExactlyOnce);
    }
    peer.clear();
    for id in [2, 3, 1] {
        peer.pubrec(id);
    }
    assert_eq!(peer.sent(), ["PUBREL #2", "PUBREL #3", "PUBREL #1"]);
}

#[test]
fn an_unknown_pubrec_is_answered_and_the_link_stays() {
    let mut peer = Peer::v5();
    peer.pubrec(7);
    assert_eq!(peer.sent(), ["PUBREL #7 0x92"]);
    peer.pubcomp(7);
    peer.puback(7);
    assert!(peer.client.is_connected());
    let mut peer = Peer::v311();
    peer.pubrec(7);
    assert_eq!(peer.sent(), ["PUBREL #7"]);
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_closes() {
    for (qos, answer) in [
        (QoS::ExactlyOnce, PacketRef::Puback(ack(1))),
        (QoS::ExactlyOnce, PacketRef::Pubcomp(ack(1))),
        (QoS::AtLeastOnce, PacketRef::Pubrec(ack(1))),
    ] {
        let mut peer = Peer::v5();
        peer.publish("a", "", qos);
        peer.clear();
        peer.send(answer);
        assert_eq!(peer.sent(), ["DISCONNECT 0x82"], "{answer:?}");
    }
}

/// [MQTT-2.2.1-3]: PUBLISH, SUBSCRIBE and UNSUBSCRIBE share the identifiers, and none is given twice,
/// also after they have wrapped.
#[test]
fn identifiers_in_use_are_never_given_again() {
    let mut peer = Peer::v5();
    peer.publish("keep", "", QoS::AtLeastOnce);
    peer.subscribe(&["keep"]);
    peer.clear();
    let mut next = 3;
    for _ in 0..65_535 {
        peer.publish("a", "", QoS::AtLeastOnce);
        assert_eq!(peer.sent(), [format!("PUBLISH q1 #{next} a=")]);
        peer.puback(next);
        next = if next == u16::MAX { 3 } else { next + 1 };
    }
}

/// Requests need identifiers of their own even if the server never answers them.
#[test]
fn unanswered_subscribes_have_different_identifiers() {
    let mut peer = Peer::v5();
    for _ in 0..4 {
        peer.subscribe(&["a"]);
    }
    let ids: Vec<_> = peer.sent().iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(ids, ["#1", "#2", "#3", "#4"]);
}

#[test]
fn a_message_that_breaks_a_rule_is_handed_back() {
    let mut peer = Peer::v5();
    let mut refused = |message: Message| {
        let error = peer.client.publish(peer.now, message.clone()).unwrap_err();
        assert_eq!(error.clone().into_message(), message);
        assert!(!error.to_string().is_empty());
        error.kind
    };
    let wildcard = refused(Message::new("a/#", ""));
    assert_eq!(wildcard, PublishErrorKind::Invalid(Violation::TopicWildcard));
    assert_eq!(refused(Message::new("", "")), PublishErrorKind::Invalid(Violation::TopicEmpty));
}

/// [MQTT-3.3.4-6]
#[test]
fn a_client_publishes_no_subscription_identifier() {
    let mut peer = Peer::v5();
    for property in [Property::SubscriptionIdentifier(1), Property::TopicAlias(1)] {
        let message = Message { properties: props(&[property]), ..Message::new("a", "") };
        let error = peer.client.publish(peer.now, message).unwrap_err();
        assert_eq!(error.kind, PublishErrorKind::Invalid(Violation::PropertyNotAllowed));
    }
}

/// [MQTT-3.2.2-11] [MQTT-3.2.2-14] [MQTT-3.2.2-15]
#[test]
fn what_the_server_does_not_support_is_refused_when_known_and_dropped_when_learned() {
    let limits = [
        Property::MaximumQos(QoS::AtLeastOnce),
        Property::RetainAvailable(false),
        Property::MaximumPacketSize(20),
    ];
    let messages = [
        message("a", "", QoS::ExactlyOnce),
        Message::new("a", "").retained(),
        message("a", "more than twenty bytes", QoS::AtMostOnce),
    ];
    let mut peer = Peer::new(ClientConfig::new("c"));
    let tokens = messages.clone().map(|message| peer.publish_message(message));
    let fine = peer.publish("ok", "", QoS::AtLeastOnce);
    peer.start();
    peer.clear();
    peer.accept_with(false, &limits);
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 ok="]);
    let done = peer.done();
    assert_eq!(done[0], (tokens[0], Outcome::NotSupported(ReasonCode::QosNotSupported)));
    assert_eq!(done[1], (tokens[1], Outcome::NotSupported(ReasonCode::RetainNotSupported)));
    assert_eq!(done[2], (tokens[2], Outcome::TooLarge { size: 28, max: 20 }));
    assert!(done[3..].is_empty() && fine > tokens[2]);
    let kinds = messages.map(|message| peer.client.publish(peer.now, message).unwrap_err().kind);
    assert_eq!(kinds[0], PublishErrorKind::QosNotSupported(QoS::AtLeastOnce));
    assert_eq!(kinds[1], PublishErrorKind::RetainNotSupported);
    assert_eq!(kinds[2], PublishErrorKind::TooLarge { size: 28, max: 20 });
}

// ---- the queue ----

#[test]
fn what_is_published_without_a_connection_waits() {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.publish("a", "1", QoS::AtMostOnce);
    peer.publish("a", "2", QoS::AtLeastOnce);
    peer.start();
    peer.clear();
    peer.accept(false);
    assert_eq!(peer.sent(), ["PUBLISH q0 a=1", "PUBLISH q1 #1 a=2"]);
}

/// Nothing is lost in silence and no identifier leaks: what the queue does not take is handed back.
#[test]
fn a_full_queue_hands_back() {
    let config = ClientConfig { max_queued_messages: 2, max_queued_bytes: 10, ..ClientConfig::new("c") };
    let mut peer = Peer::new(config);
    peer.publish("a", "1", QoS::AtLeastOnce);
    let big = message("a", "123456789", QoS::AtMostOnce);
    assert_eq!(peer.client.publish(peer.now, big).unwrap_err().kind, PublishErrorKind::QueueFull);
    peer.publish("a", "2", QoS::AtLeastOnce);
    let error = peer.client.publish(peer.now, message("a", "3", QoS::AtLeastOnce)).unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::QueueFull);
    assert!(!peer.client.has_room(0));
    peer.start();
    peer.clear();
    peer.accept(false);
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 a=1", "PUBLISH q1 #2 a=2"]);
    assert!(peer.client.has_room(10));
}

#[test]
fn what_expires_while_it_waits_is_told_in_time_and_not_sent() {
    let mut peer = Peer::new(ClientConfig::new("c"));
    let token = peer.publish_message(expiring("a", QoS::AtLeastOnce, 10));
    peer.publish("b", "", QoS::AtLeastOnce);
    assert_eq!(peer.client.poll_timeout(), Some(peer.now + Duration::from_secs(10)));
    peer.wait(Duration::from_secs(10));
    assert_eq!(peer.done(), [(token, Outcome::Expired)]);
    assert_eq!(peer.client.poll_timeout(), None);
    peer.start();
    peer.clear();
    peer.accept(false);
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 b="]);
}

#[test]
fn what_has_expired_makes_room() {
    let mut peer = Peer::new(ClientConfig { max_queued_messages: 1, ..ClientConfig::new("c") });
    peer.publish_message(expiring("a", QoS::AtMostOnce, 1));
    peer.now = peer.now + Duration::from_secs(2);
    peer.publish("b", "", QoS::AtMostOnce);
    assert!(matches!(peer.done()[..], [(_, Outcome::Expired)]));
}

/// [MQTT-4.3.3-7]: once sent, a message no longer expires; what is left is what is announced.
#[test]
fn the_expiry_counts_down_while_a_message_waits() {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.publish_message(expiring("a", QoS::ExactlyOnce, 10));
    peer.start();
    peer.clear();
    peer.wait(Duration::from_millis(3500));
    peer.accept(false);
    assert_eq!(peer.sent(), ["PUBLISH q2 #1 a=x MessageExpiryInterval(7)"]);
    peer.cut();
    peer.now = peer.now + Duration::from_secs(100);
    peer.redial();
    peer.clear();
    peer.accept(true);
    assert_eq!(peer.sent(), ["PUBLISH q2 #1 dup a=x MessageExpiryInterval(1)"]);
}

// ---- topic aliases ----

fn aliases(max: u16) -> Peer {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.start();
    peer.accept_with(false, &[Property::TopicAliasMaximum(max)]);
    peer.clear();
    peer
}

/// [MQTT-3.2.2-17] [MQTT-3.3.2-9] [MQTT-3.3.2-8]
#[test]
fn aliases_stay_within_what_the_server_takes() {
    let mut peer = aliases(1);
    for topic in ["long/one", "long/one", "long/two", "long/one"] {
        peer.publish(topic, "", QoS::AtMostOnce);
    }
    assert_eq!(
        peer.sent(),
        [
            "PUBLISH q0 long/one= TopicAlias(1)",
            "PUBLISH q0 = TopicAlias(1)",
            "PUBLISH q0 long/two=",
            "PUBLISH q0 = TopicAlias(1)"
        ]
    );
}

/// [MQTT-3.2.2-18] [MQTT-3.3.2-7]
#[test]
fn aliases_end_with_their_connection() {
    let mut peer = aliases(1);
    peer.publish("long/one", "1", QoS::AtLeastOnce);
    peer.clear();
    peer.resume();
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 dup long/one=1"]);
}

/// The alias is added after the size was checked, so it must not make the packet too large.
#[test]
fn an_alias_never_pushes_a_packet_over_the_limit() {
    for max in 20..60 {
        let mut peer = Peer::new(ClientConfig::new("c"));
        peer.start();
        peer.accept_with(false, &[Property::TopicAliasMaximum(9), Property::MaximumPacketSize(max)]);
        peer.clear();
        for n in 0..60 {
            let _ = peer.client.publish(peer.now, message("long/topic", &"x".repeat(n), QoS::AtLeastOnce));
            peer.pump();
            let sent = peer.sent_bytes();
            assert!(sent.len() <= max as usize, "{} > {max}", sent.len());
        }
    }
}

#[test]
fn large_payloads_are_shared_and_small_ones_copied_and_all_arrive_in_order() {
    let mut peer = Peer::v5();
    let large = "L".repeat(10_000);
    peer.publish("a", "1", QoS::AtMostOnce);
    peer.publish("b", &large, QoS::AtMostOnce);
    peer.publish("c", "3", QoS::AtMostOnce);
    assert_eq!(peer.sent(), ["PUBLISH q0 a=1", &format!("PUBLISH q0 b={large}"), "PUBLISH q0 c=3"]);
}
