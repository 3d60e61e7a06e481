//! Connecting, what the server answers, authentication, disconnecting.

mod peer;

use mqtt_proto::*;
use mqtt_session::client::*;
use mqtt_session::{Message, PublishErrorKind};
use peer::*;
use std::time::Duration;

/// [MQTT-3.1.0-1]
#[test]
fn connect_is_the_first_packet() {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.publish("a", "1", QoS::AtMostOnce);
    peer.subscribe(&["b"]);
    peer.start();
    assert_eq!(peer.sent(), ["CONNECT c clean=1 alive=60"]);
    peer.accept(false);
    assert_eq!(peer.sent(), ["SUBSCRIBE #1 b", "PUBLISH q0 a=1"]);
}

/// [MQTT-3.1.2-9]
#[test]
fn connect_carries_the_settings() {
    let will = Message::new("w", "gone").with_qos(QoS::AtLeastOnce).retained();
    let mut peer = Peer::new(ClientConfig {
        user_name: Some("u".into()),
        password: Some("p".into()),
        will: Some(Will { message: will, delay_secs: 7 }),
        receive_maximum: 9,
        user_properties: vec![("k".into(), "v".into())],
        request_response_information: true,
        ..ClientConfig::new("c")
    });
    peer.start();
    let bytes = peer.sent_bytes();
    let PacketRef::Connect(connect) = PacketRef::decode(&bytes, Version::V5).unwrap() else { panic!() };
    assert_eq!((connect.user_name, connect.password), (Some("u"), Some(&b"p"[..])));
    let will = connect.will.unwrap();
    assert_eq!(
        (will.topic, will.payload, will.qos, will.retain),
        ("w", &b"gone"[..], QoS::AtLeastOnce, true)
    );
    assert_eq!(will.properties.will_delay_interval(), Some(7));
    assert_eq!(connect.properties.receive_maximum(), Some(9));
    assert_eq!(connect.properties.request_response_information(), Some(true));
    assert_eq!(connect.properties.user_properties().collect::<Vec<_>>(), [("k", "v")]);
}

#[test]
fn settings_that_cannot_work_are_refused_at_once() {
    let error = |config| Client::new(config, mqtt_session::Timestamp::ZERO).unwrap_err();
    let base = ClientConfig::default;
    assert_eq!(error(ClientConfig { version: Version::V31, ..base() }), ConfigError::ClientId);
    assert_eq!(error(ClientConfig { version: Version::V311, ..base() }), ConfigError::ClientId);
    assert_eq!(error(ClientConfig { receive_maximum: 0, ..base() }), ConfigError::Zero("receive_maximum"));
    let resend = Some(Duration::from_secs(1));
    assert_eq!(error(ClientConfig { resend_interval: resend, ..base() }), ConfigError::ResendIn5);
    let password = Some("p".into());
    assert_eq!(
        error(ClientConfig { password, ..v311() }),
        ConfigError::Connect(Violation::PasswordWithoutUserName)
    );
    let will = Some(Will { message: Message::new("a/#", ""), ..Will::default() });
    assert_eq!(error(ClientConfig { will, ..base() }), ConfigError::Connect(Violation::TopicWildcard));
}

/// [MQTT-4.13.2-1]
#[test]
fn every_refusal_is_told_and_closes() {
    for (version, codes) in
        [(Version::V31, ReasonCode::ALL), (Version::V311, ReasonCode::ALL), (Version::V5, ReasonCode::ALL)]
    {
        for &reason in codes {
            let exists = if version.is_v5() {
                reason.is_error() && reason.is_allowed_in(PacketType::Connack)
            } else {
                ReasonCode::from_return_code(reason.to_return_code().unwrap_or(9)) == Some(reason)
                    && reason.is_error()
            };
            if !exists {
                continue;
            }
            let mut peer = Peer::new(ClientConfig { version, ..ClientConfig::new("c") });
            peer.start();
            peer.send(PacketRef::Connack(ConnackRef { reason, ..ConnackRef::default() }));
            assert!(peer.hung_up());
            assert_eq!(peer.cause(), Cause::Refused(reason), "{version} {reason}");
        }
    }
}

#[test]
fn a_refusal_that_may_pass_is_tried_again_and_one_that_may_not_is_not() {
    for (reason, again) in [(ReasonCode::ServerBusy, true), (ReasonCode::BadUserNameOrPassword, false)] {
        let mut peer = Peer::new(ClientConfig::new("c"));
        peer.start();
        peer.send(PacketRef::Connack(ConnackRef { reason, ..ConnackRef::default() }));
        assert_eq!(peer.disconnected().retry_at.is_some(), again);
        assert_eq!(peer.client.is_stopped(), !again);
    }
}

/// [MQTT-3.2.0-1]
#[test]
fn a_packet_before_connack_closes() {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.start();
    peer.send(PacketRef::Pingresp);
    assert!(matches!(peer.cause(), Cause::Violation { reason: ReasonCode::ProtocolError, .. }));
}

/// [MQTT-3.2.0-2]
#[test]
fn a_second_connack_closes() {
    let mut peer = Peer::v5();
    peer.accept(false);
    assert_eq!(peer.sent(), ["DISCONNECT 0x82"]);
    assert!(peer.hung_up());
}

/// [MQTT-3.2.2-4]
#[test]
fn a_session_that_the_client_does_not_know_closes() {
    let config = ClientConfig { clean_start: CleanStart::Never, ..ClientConfig::new("c") };
    let mut peer = Peer::new(config.clone());
    peer.start();
    peer.accept(true);
    assert!(peer.hung_up());
    assert_eq!(peer.cause(), Cause::UnknownSession);
    // Unless the application says that it has kept its part, which is empty.
    let mut peer = Peer::new(ClientConfig { adopt_session: true, ..config });
    peer.start();
    peer.accept(true);
    assert!(peer.client.is_connected());
}

/// [MQTT-3.2.2-2]
#[test]
fn session_present_after_clean_start_closes() {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.start();
    peer.accept(true);
    assert!(peer.hung_up());
    assert!(matches!(peer.cause(), Cause::Violation { .. }));
}

/// [MQTT-3.1.2-4]
#[test]
fn clean_start_is_set_as_the_settings_say() {
    for (clean_start, first, second) in
        [(CleanStart::Always, 1, 1), (CleanStart::FirstOnly, 1, 0), (CleanStart::Never, 0, 0)]
    {
        let mut peer = Peer::new(ClientConfig { clean_start, ..ClientConfig::new("c") });
        peer.start();
        assert_eq!(peer.sent(), [format!("CONNECT c clean={first} alive=60")]);
        peer.accept(false);
        peer.cut();
        peer.redial();
        assert_eq!(peer.sent(), [format!("CONNECT c clean={second} alive=60")]);
    }
}

#[test]
fn an_assigned_identifier_is_used_from_then_on() {
    let mut peer = Peer::new(ClientConfig::default());
    peer.start();
    peer.accept_with(false, &[Property::AssignedClientIdentifier("given")]);
    assert_eq!(peer.client.client_id(), "given");
    peer.cut();
    peer.clear();
    peer.redial();
    assert_eq!(peer.sent(), ["CONNECT given clean=0 alive=60"]);
}

#[test]
fn connected_tells_what_is_in_force() {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.start();
    peer.accept_with(
        false,
        &[
            Property::ReceiveMaximum(5),
            Property::MaximumQos(QoS::AtLeastOnce),
            Property::RetainAvailable(false),
            Property::MaximumPacketSize(100),
            Property::ServerKeepAlive(7),
            Property::SessionExpiryInterval(8),
            Property::TopicAliasMaximum(3),
            Property::ResponseInformation("re"),
        ],
    );
    let Some(Event::Connected(connected)) = peer.events().pop() else { panic!() };
    let limits = connected.limits;
    assert_eq!((limits.in_flight, limits.max_qos, limits.retain), (5, QoS::AtLeastOnce, false));
    assert_eq!((limits.max_packet_size, limits.keep_alive_secs), (100, 7));
    assert_eq!((limits.session_expiry_secs, limits.topic_aliases), (8, 3));
    assert_eq!(connected.properties.as_properties().response_information(), Some("re"));
}

#[test]
fn packets_that_only_clients_send_close() {
    let filters = {
        let mut list = SubscribeFiltersBuf::new();
        list.push("a", QoS::AtMostOnce.into()).unwrap();
        list
    };
    let names = {
        let mut list = UnsubscribeFiltersBuf::new();
        list.push("a").unwrap();
        list
    };
    let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
    for packet in [
        PacketRef::Connect(ConnectRef { version: Version::V5, ..ConnectRef::default() }),
        PacketRef::Pingreq,
        PacketRef::Subscribe(SubscribeRef { packet_id, properties, filters: filters.as_filters() }),
        PacketRef::Unsubscribe(UnsubscribeRef { packet_id, properties, filters: names.as_filters() }),
    ] {
        let mut peer = Peer::v5();
        peer.send(packet);
        assert_eq!(peer.sent(), ["DISCONNECT 0x82"], "{packet:?}");
        assert!(peer.hung_up());
    }
}

/// [MQTT-4.13.1-1]
#[test]
fn a_malformed_packet_is_answered_with_its_reason_then_hung_up_then_told() {
    let mut peer = Peer::v5();
    peer.read(&[0x30, 3, 0, 9, b'a']);
    assert_eq!(peer.sent(), ["DISCONNECT 0x81"]);
    assert!(matches!(peer.outputs.pop_front(), Some(Output::HangUp)));
    assert!(matches!(peer.cause(), Cause::Malformed(_)));
    // Nothing is read or sent on that link any more.
    peer.deliver("a", "1", QoS::AtLeastOnce, 1);
    assert!(peer.sent().is_empty() && peer.messages().is_empty());
}

/// [MQTT-4.8.0-1] of 3.1.1: below 5.0 the connection is closed without a word, so that the will fires.
#[test]
fn below_5_a_violation_just_closes() {
    let mut peer = Peer::v311();
    peer.send(PacketRef::Pingreq);
    assert!(peer.sent().is_empty());
    assert!(peer.hung_up());
    let mut peer = Peer::v311();
    peer.send(PacketRef::Disconnect(DisconnectRef::default()));
    assert!(matches!(peer.cause(), Cause::Violation { .. }));
}

#[test]
fn a_packet_over_the_limit_is_refused_by_its_header() {
    let mut peer = Peer::online(ClientConfig { max_packet_size: 100, ..ClientConfig::new("c") });
    peer.read(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert_eq!(peer.sent(), ["DISCONNECT 0x95"]);
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2]
#[test]
fn disconnect_is_the_last_packet_and_closes() {
    let mut peer = Peer::v5();
    let token = peer.publish("a", "1", QoS::AtMostOnce);
    peer.client.disconnect(peer.now, DisconnectOptions::default());
    assert_eq!(
        peer.client.publish(peer.now, Message::new("b", "")).unwrap_err().kind,
        PublishErrorKind::Closed
    );
    peer.pump();
    assert_eq!(peer.sent(), ["PUBLISH q0 a=1", "DISCONNECT 0x00"]);
    assert!(peer.hung_up());
    let events = peer.events();
    assert!(events.contains(&Event::Done { token, outcome: Outcome::Sent }));
    assert!(peer.client.is_stopped());
    assert_eq!(peer.client.poll_timeout(), None);
    assert!(matches!(events.last(), Some(Event::Disconnected(d)) if d.cause == Cause::Requested));
}

#[test]
fn disconnect_waits_for_what_was_accepted_but_not_for_ever() {
    for answered in [true, false] {
        let mut peer = Peer::v5();
        peer.publish("a", "1", QoS::AtLeastOnce);
        peer.clear();
        peer.client.disconnect(peer.now, DisconnectOptions::default());
        peer.pump();
        assert!(peer.sent().is_empty());
        if answered {
            peer.puback(1);
        } else {
            peer.wait(Duration::from_secs(5));
        }
        assert_eq!(peer.sent(), ["DISCONNECT 0x00"]);
    }
}

/// Found by the simulator: an acknowledgement waited to be sent, and the link that it waited for was gone.
#[test]
fn disconnect_does_not_wait_for_a_link_that_is_gone() {
    let mut peer = Peer::v5();
    // PUBLISH a=1 at QoS 1, which nobody pumps.
    peer.client.handle_read(peer.now, &[0x32, 7, 0, 1, b'a', 0, 1, 0, b'1']);
    peer.client.disconnect(peer.now, DisconnectOptions::default());
    assert!(!peer.client.is_stopped(), "PUBACK is not sent yet");
    peer.client.handle_link_down(peer.now, LinkDown::Closed);
    assert!(peer.client.is_stopped());
    assert_eq!(peer.client.poll_timeout(), None);
}

#[test]
fn disconnect_with_will_and_session_expiry() {
    let mut peer = Peer::v5();
    let options = DisconnectOptions {
        reason: ReasonCode::DisconnectWithWill,
        session_expiry_secs: Some(9),
        ..DisconnectOptions::default()
    };
    peer.client.disconnect(peer.now, options);
    peer.pump();
    let bytes = peer.sent_bytes();
    let PacketRef::Disconnect(d) = PacketRef::decode(&bytes, Version::V5).unwrap() else { panic!() };
    assert_eq!((d.reason, d.properties.session_expiry_interval()), (ReasonCode::DisconnectWithWill, Some(9)));
}

#[test]
fn after_disconnect_connect_starts_again_and_the_session_goes_on() {
    let mut peer = Peer::v5();
    let token = peer.publish("a", "1", QoS::AtLeastOnce);
    let options = DisconnectOptions { drain: Duration::ZERO, ..DisconnectOptions::default() };
    peer.client.disconnect(peer.now, options);
    peer.clear();
    peer.start();
    assert_eq!(peer.sent(), ["CONNECT c clean=0 alive=60"]);
    peer.accept(true);
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 dup a=1"]);
    peer.puback(1);
    assert_eq!(peer.done(), [(token, acked())]);
}

#[test]
fn the_server_s_disconnect_is_told_with_its_reason() {
    let mut peer = Peer::v5();
    let list = props(&[Property::ReasonString("bye")]);
    let reason = ReasonCode::ServerShuttingDown;
    peer.send(PacketRef::Disconnect(DisconnectRef { reason, properties: list.as_properties() }));
    assert!(peer.hung_up() && peer.sent().is_empty());
    let disconnected = peer.disconnected();
    assert_eq!(disconnected.cause, Cause::ByServer(reason));
    assert_eq!(disconnected.properties.as_properties().reason_string(), Some("bye"));
    assert!(disconnected.retry_at.is_some());
}

/// A client whose session was taken over must not take it back: both would push each other out.
#[test]
fn session_taken_over_stops_unless_told_otherwise() {
    for stop in [true, false] {
        let mut peer = Peer::online(ClientConfig { stop_when_taken_over: stop, ..ClientConfig::new("c") });
        let reason = ReasonCode::SessionTakenOver;
        peer.send(PacketRef::Disconnect(DisconnectRef { reason, ..DisconnectRef::default() }));
        assert_eq!(peer.disconnected().retry_at.is_none(), stop);
    }
}

/// [MQTT-3.14.2-2]
#[test]
fn session_expiry_in_the_server_s_disconnect_closes() {
    let mut peer = Peer::v5();
    let list = props(&[Property::SessionExpiryInterval(1)]);
    let properties = list.as_properties();
    peer.send(PacketRef::Disconnect(DisconnectRef { properties, ..DisconnectRef::default() }));
    assert_eq!(peer.sent(), ["DISCONNECT 0x82"]);
}

// ---- enhanced authentication ----

fn with_method() -> ClientConfig {
    let authentication = Some(Authentication { method: "M".into(), data: Some("hello".into()) });
    ClientConfig { authentication, ..ClientConfig::new("c") }
}

fn auth(reason: ReasonCode, method: &str, data: &str) -> (ReasonCode, PropertiesBuf) {
    (reason, props(&[Property::AuthenticationMethod(method), Property::AuthenticationData(data.as_bytes())]))
}

fn send_auth(peer: &mut Peer, (reason, list): (ReasonCode, PropertiesBuf)) {
    peer.send(PacketRef::Auth(AuthRef { reason, properties: list.as_properties() }));
}

/// [MQTT-4.12.0-3] [MQTT-3.1.2-30]
#[test]
fn authentication_goes_back_and_forth_before_connack() {
    let mut peer = Peer::new(with_method());
    peer.publish("a", "1", QoS::AtMostOnce);
    peer.start();
    peer.clear();
    send_auth(&mut peer, auth(ReasonCode::ContinueAuthentication, "M", "who?"));
    let Some(Event::Auth(step)) = peer.events().pop() else { panic!() };
    assert_eq!((step.wants_answer, step.data.as_deref()), (true, Some(&b"who?"[..])));
    peer.client.authenticate(peer.now, b"me").unwrap();
    assert_eq!(peer.client.authenticate(peer.now, b"me"), Err(AuthError::NotDue));
    peer.pump();
    assert_eq!(peer.sent(), ["AUTH 0x18 me"]);
    peer.accept_with(false, &[Property::AuthenticationMethod("M")]);
    assert_eq!(peer.sent(), ["PUBLISH q0 a=1"]);
}

/// [MQTT-4.12.1-1]
#[test]
fn authenticating_again_on_a_live_connection() {
    let mut peer = Peer::new(with_method());
    peer.start();
    peer.accept_with(false, &[Property::AuthenticationMethod("M")]);
    peer.clear();
    peer.client.reauthenticate(peer.now, b"again").unwrap();
    peer.pump();
    assert_eq!(peer.sent(), ["AUTH 0x19 again"]);
    send_auth(&mut peer, auth(ReasonCode::Success, "M", "fine"));
    let Some(Event::Auth(step)) = peer.events().pop() else { panic!() };
    assert!(!step.wants_answer);
    assert!(peer.client.is_connected());
}

/// [MQTT-4.12.0-5] [MQTT-4.12.0-6]
#[test]
fn another_method_closes() {
    let mut peer = Peer::new(with_method());
    peer.start();
    send_auth(&mut peer, auth(ReasonCode::ContinueAuthentication, "N", ""));
    assert!(peer.hung_up());
    let mut peer = Peer::new(with_method());
    peer.start();
    peer.accept(false);
    assert!(peer.hung_up());
    let mut peer = Peer::v5();
    send_auth(&mut peer, auth(ReasonCode::ContinueAuthentication, "M", ""));
    assert_eq!(peer.sent(), ["DISCONNECT 0x82"]);
}

/// [MQTT-4.12.0-7]
#[test]
fn without_a_method_no_auth_is_sent() {
    let mut peer = Peer::v5();
    assert_eq!(peer.client.authenticate(peer.now, b""), Err(AuthError::NoMethod));
    assert_eq!(peer.client.reauthenticate(peer.now, b""), Err(AuthError::NoMethod));
}

#[test]
fn auth_out_of_turn_closes() {
    let mut peer = Peer::new(with_method());
    peer.start();
    peer.accept_with(false, &[Property::AuthenticationMethod("M")]);
    peer.clear();
    send_auth(&mut peer, auth(ReasonCode::ContinueAuthentication, "M", ""));
    assert_eq!(peer.sent(), ["DISCONNECT 0x82"]);
}

#[test]
fn version_3_1_speaks_its_own_name_and_trusts_the_server_with_the_session() {
    let config = ClientConfig { version: Version::V31, ..v311() };
    let mut peer = Peer::new(config);
    peer.start();
    let bytes = peer.sent_bytes();
    assert_eq!(&bytes[2..11], b"\0\x06MQIsdp\x03");
    peer.read(&[0x20, 2, 0, 0]);
    peer.publish("a", "1", QoS::ExactlyOnce);
    peer.cut();
    peer.redial();
    peer.clear();
    peer.read(&[0x20, 2, 0, 0]);
    assert_eq!(peer.sent(), ["PUBLISH q2 #1 dup a=1"]);
}
