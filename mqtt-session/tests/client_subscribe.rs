//! Subscribing, unsubscribing, and subscribing again.

mod peer;

use mqtt_proto::*;
use mqtt_session::client::*;
use peer::*;

fn granted(outcome: &Outcome) -> &[ReasonCode] {
    match outcome {
        Outcome::Granted(granted) => &granted.codes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn subscribe_is_answered_for_each_filter() {
    let mut peer = Peer::v5();
    let token = peer.subscribe(&["a/+", "b/#"]);
    assert_eq!(peer.sent(), ["SUBSCRIBE #1 a/+ b/#"]);
    peer.suback(1, &[1, 0x87]);
    let done = peer.done();
    assert_eq!(done[0].0, token);
    assert_eq!(granted(&done[0].1), [ReasonCode::GrantedQos1, ReasonCode::NotAuthorized]);
}

#[test]
fn unsubscribe_is_answered_in_every_version() {
    for mut peer in [Peer::v5(), Peer::v311()] {
        let token = peer.client.unsubscribe(peer.now, &["a", "b"], &PropertiesBuf::new()).unwrap();
        peer.pump();
        assert_eq!(peer.sent(), ["UNSUBSCRIBE #1 a b"]);
        let codes: &[u8] = &[0, 0x11];
        let properties = Properties::EMPTY;
        peer.send(PacketRef::Unsuback(UnsubackRef { packet_id: PacketId::MIN, properties, codes }));
        let done = peer.done();
        assert_eq!((done[0].0, granted(&done[0].1).len()), (token, 2));
    }
}

/// [MQTT-3.8.3-2] [MQTT-3.8.3-4] [MQTT-4.7.1-1]
#[test]
fn requests_that_break_a_rule_are_refused() {
    let mut peer = Peer::v5();
    let none = PropertiesBuf::new();
    let mut error = |filters: &[(&str, SubscriptionOptions)]| {
        peer.client.subscribe(peer.now, filters, &none).unwrap_err()
    };
    let qos = SubscriptionOptions::default();
    assert_eq!(error(&[]), RequestError::Invalid(Violation::NoFilters));
    assert_eq!(error(&[("a#", qos)]), RequestError::Invalid(Violation::FilterHash));
    let no_local = SubscriptionOptions { no_local: true, ..qos };
    assert_eq!(error(&[("$share/g/a", no_local)]), RequestError::Invalid(Violation::NoLocalShared));
}

/// [MQTT-3.10.3-2] [MQTT-4.7.1-2]
#[test]
fn unsubscribe_needs_valid_filters() {
    let mut peer = Peer::v5();
    let none = PropertiesBuf::new();
    let mut error = |filters: &[&str]| peer.client.unsubscribe(peer.now, filters, &none).unwrap_err();
    assert_eq!(error(&[]), RequestError::Invalid(Violation::NoUnsubscribeFilters));
    assert_eq!(error(&["a+"]), RequestError::Invalid(Violation::FilterPlus));
}

#[test]
fn what_the_server_does_not_support_is_refused_when_known_and_told_when_learned() {
    let limits = [
        Property::WildcardSubscriptionAvailable(false),
        Property::SharedSubscriptionAvailable(false),
        Property::SubscriptionIdentifierAvailable(false),
    ];
    let with_id = props(&[Property::SubscriptionIdentifier(1)]);
    let asks = [("a/#", PropertiesBuf::new()), ("$share/g/a", PropertiesBuf::new()), ("a", with_id)];
    let reasons = [
        ReasonCode::WildcardSubscriptionsNotSupported,
        ReasonCode::SharedSubscriptionsNotSupported,
        ReasonCode::SubscriptionIdentifiersNotSupported,
    ];
    let ask = |peer: &mut Peer, (filter, properties): &(&str, PropertiesBuf)| {
        peer.client.subscribe(peer.now, &[(filter, QoS::AtMostOnce.into())], properties)
    };
    let mut peer = Peer::new(ClientConfig::new("c"));
    let tokens: Vec<_> = asks.iter().map(|a| ask(&mut peer, a).unwrap()).collect();
    peer.start();
    peer.clear();
    peer.accept_with(false, &limits);
    assert!(peer.sent().is_empty());
    let wanted: Vec<_> = tokens.into_iter().zip(reasons.map(Outcome::NotSupported)).collect();
    assert_eq!(peer.done(), wanted);
    for (a, reason) in asks.iter().zip(reasons) {
        assert_eq!(ask(&mut peer, a), Err(RequestError::NotSupported(reason)));
    }
}

#[test]
fn unanswered_requests_are_bounded() {
    let mut peer = Peer::online(ClientConfig { max_requests: 2, ..ClientConfig::new("c") });
    peer.subscribe(&["a"]);
    peer.subscribe(&["b"]);
    let options = SubscriptionOptions::default();
    let error = peer.client.subscribe(peer.now, &[("c", options)], &PropertiesBuf::new());
    assert_eq!(error, Err(RequestError::QueueFull));
    peer.suback(1, &[0]);
    peer.subscribe(&["c"]);
}

/// [MQTT-3.8.4-2] [MQTT-3.8.4-6]
#[test]
fn an_answer_that_does_not_fit_its_request_closes() {
    let mut peer = Peer::v5();
    peer.subscribe(&["a", "b"]);
    peer.clear();
    peer.suback(1, &[0]);
    assert_eq!(peer.sent(), ["DISCONNECT 0x82"]);
    let mut peer = Peer::v5();
    peer.suback(1, &[0]);
    assert_eq!(peer.sent(), ["DISCONNECT 0x82"]);
}

#[test]
fn subscriptions_are_made_again_when_the_server_lost_the_session() {
    let mut peer = Peer::v5();
    peer.subscribe(&["a", "b"]);
    peer.suback(1, &[1, 0x87]);
    let with_id = props(&[Property::SubscriptionIdentifier(5)]);
    peer.client.subscribe(peer.now, &[("c", QoS::AtMostOnce.into())], &with_id).unwrap();
    peer.pump();
    peer.suback(2, &[0]);
    peer.subscribe(&["gone"]);
    peer.suback(3, &[0]);
    peer.client.unsubscribe(peer.now, &["gone"], &PropertiesBuf::new()).unwrap();
    peer.pump();
    let (packet_id, properties) = (PacketId::new(4).unwrap(), Properties::EMPTY);
    peer.send(PacketRef::Unsuback(UnsubackRef { packet_id, properties, codes: &[0] }));
    peer.cut();
    peer.redial();
    peer.clear();
    peer.accept(false);
    assert_eq!(peer.sent(), ["SUBSCRIBE #5 a", "SUBSCRIBE #6 c"]);
    // Refused this time: the application has to know.
    peer.suback(5, &[0x87]);
    let lost = Event::SubscriptionLost { filter: "a".into(), reason: ReasonCode::NotAuthorized };
    assert!(peer.events().contains(&lost));
    peer.suback(6, &[0]);
    // With a session that goes on, nothing has to be done.
    peer.resume();
    assert!(peer.sent().is_empty());
}

#[test]
fn subscriptions_are_not_made_again_if_the_settings_say_so() {
    let mut peer = Peer::online(ClientConfig { resubscribe: false, ..ClientConfig::new("c") });
    peer.subscribe(&["a"]);
    peer.suback(1, &[1]);
    peer.cut();
    peer.redial();
    peer.clear();
    peer.accept(false);
    assert!(peer.sent().is_empty());
}

#[test]
fn subscribing_again_keeps_to_the_server_s_packet_size() {
    let mut peer = Peer::v5();
    let filters: Vec<String> = (0..50).map(|n| format!("filter/number/{n:03}")).collect();
    for (n, filter) in filters.iter().enumerate() {
        peer.subscribe(&[filter]);
        peer.suback(u16::try_from(n).unwrap() + 1, &[1]);
    }
    peer.cut();
    peer.redial();
    peer.clear();
    peer.accept_with(false, &[Property::MaximumPacketSize(100)]);
    let lines = peer.sent();
    let asked: Vec<_> = lines.iter().flat_map(|line| line.split(' ').skip(2)).collect();
    assert_eq!(asked, filters);
    assert!(lines.len() > 10);
}
