//! What survives a connection: sending again, the session that is lost, connecting again.

mod peer;

use mqtt_proto::*;
use mqtt_session::client::*;
use peer::*;
use std::time::Duration;

/// [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1]
#[test]
fn what_is_unacknowledged_is_sent_again_in_order_with_dup() {
    let mut peer = Peer::v5();
    peer.publish("a", "1", QoS::AtLeastOnce);
    peer.publish("a", "2", QoS::ExactlyOnce);
    peer.publish("a", "3", QoS::AtLeastOnce);
    peer.clear();
    peer.puback(1);
    peer.resume();
    peer.publish("a", "4", QoS::AtLeastOnce);
    assert_eq!(peer.sent(), ["PUBLISH q2 #2 dup a=2", "PUBLISH q1 #3 dup a=3", "PUBLISH q1 #4 a=4"]);
}

/// [MQTT-4.3.3-6]
#[test]
fn after_pubrec_only_pubrel_is_sent_again() {
    let mut peer = Peer::v5();
    let token = peer.publish("a", "1", QoS::ExactlyOnce);
    peer.pubrec(1);
    peer.resume();
    assert_eq!(peer.sent(), ["PUBREL #1"]);
    peer.pubcomp(1);
    assert_eq!(peer.done(), [(token, acked())]);
}

/// Repetitions take places in the window of the new link, which may be smaller than the old one, and
/// each acknowledgement gives back one and no more.
#[test]
fn repetitions_stay_within_the_new_window() {
    let mut peer = Peer::v5();
    for n in 1..=4 {
        peer.publish("a", &n.to_string(), QoS::AtLeastOnce);
    }
    peer.cut();
    peer.redial();
    peer.clear();
    peer.accept_with(true, &[Property::ReceiveMaximum(2)]);
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 dup a=1", "PUBLISH q1 #2 dup a=2"]);
    for id in 1..=4 {
        peer.puback(id);
        peer.puback(id);
    }
    assert_eq!(peer.sent(), ["PUBLISH q1 #3 dup a=3", "PUBLISH q1 #4 dup a=4"]);
    assert_eq!(peer.client.in_flight(), 0);
    for n in 5..=7 {
        peer.publish("a", &n.to_string(), QoS::AtLeastOnce);
    }
    assert_eq!(peer.sent().len(), 2);
}

/// Order is that of sending, not of the numbers, which wrap.
#[test]
fn order_holds_when_identifiers_wrap() {
    let mut peer = Peer::v5();
    for _ in 0..65_533 {
        peer.publish("a", "", QoS::AtLeastOnce);
        let line = peer.sent().remove(0);
        let id = line.split(['#', ' ']).nth(3).unwrap().parse().unwrap();
        peer.puback(id);
    }
    for n in 1..=4 {
        peer.publish("a", &n.to_string(), QoS::AtLeastOnce);
    }
    peer.clear();
    peer.resume();
    assert_eq!(
        peer.sent(),
        [
            "PUBLISH q1 #65534 dup a=1",
            "PUBLISH q1 #65535 dup a=2",
            "PUBLISH q1 #1 dup a=3",
            "PUBLISH q1 #2 dup a=4"
        ]
    );
}

#[test]
fn an_acknowledgement_that_comes_before_the_repetition_counts() {
    let mut peer = Peer::v5();
    for n in 1..=2 {
        peer.publish("a", &n.to_string(), QoS::AtLeastOnce);
    }
    peer.cut();
    peer.redial();
    peer.clear();
    peer.room = Some(0);
    peer.accept(true);
    peer.puback(2);
    peer.puback(1);
    assert_eq!(peer.done().len(), 2);
    assert_eq!(peer.client.in_flight(), 0);
}

/// What waited for its turn when the connection broke is not new: it was never sent, so no DUP, but
/// it keeps its place behind what was.
#[test]
fn what_the_window_held_back_goes_behind_the_repetitions() {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.start();
    peer.accept_with(false, &[Property::ReceiveMaximum(1)]);
    peer.publish("a", "1", QoS::AtLeastOnce);
    peer.publish("a", "2", QoS::AtLeastOnce);
    peer.clear();
    peer.resume();
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 dup a=1", "PUBLISH q1 #2 a=2"]);
}

/// [MQTT-3.2.2-5]
#[test]
fn a_lost_session_is_told_or_published_anew() {
    for republish in [false, true] {
        let mut peer = Peer::online(ClientConfig { republish, ..ClientConfig::new("c") });
        let sent = peer.publish("a", "1", QoS::AtLeastOnce);
        let released = peer.publish("a", "2", QoS::ExactlyOnce);
        peer.pubrec(2);
        peer.cut();
        let waiting = peer.publish("a", "3", QoS::AtLeastOnce);
        peer.redial();
        peer.clear();
        peer.accept(false);
        let done = peer.done();
        let lost = |token| done.contains(&(token, Outcome::SessionLost));
        assert_eq!((lost(sent), lost(released), lost(waiting)), (!republish, true, false));
        let lines = peer.sent();
        if republish {
            assert_eq!(lines, ["PUBLISH q1 #3 a=1", "PUBLISH q1 #4 a=3"]);
        } else {
            // Requests that were never sent are not cleared with the session.
            assert_eq!(lines, ["PUBLISH q1 #3 a=3"]);
        }
    }
}

#[test]
fn qos_0_that_the_connection_did_not_take_is_told() {
    let mut peer = Peer::v5();
    peer.room = Some(3);
    let token = peer.publish("a", "1", QoS::AtMostOnce);
    peer.cut();
    assert_eq!(peer.done(), [(token, Outcome::LinkLost)]);
}

#[test]
fn requests_that_were_not_answered_are_asked_anew() {
    let mut peer = Peer::v5();
    let token = peer.subscribe(&["a"]);
    peer.clear();
    peer.resume();
    assert_eq!(peer.sent(), ["SUBSCRIBE #2 a"]);
    peer.suback(2, &[1]);
    assert!(matches!(&peer.done()[..], [(t, Outcome::Granted(_))] if *t == token));
}

// ---- connecting again ----

#[test]
fn waits_grow_with_jitter_up_to_the_longest() {
    let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(8) };
    let mut peer = Peer::new(ClientConfig { reconnect: Some(backoff), ..ClientConfig::new("c") });
    peer.client.connect(peer.now);
    peer.pump();
    for (attempt, most) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (6, 8)] {
        assert_eq!(peer.outputs.pop_front(), Some(Output::Dial { attempt }));
        peer.client.handle_link_down(peer.now, LinkDown::DialFailed);
        peer.pump();
        let disconnected = peer.disconnected();
        assert_eq!(disconnected.cause, Cause::Link(LinkDown::DialFailed));
        let wait = disconnected.retry_at.unwrap().since(peer.now);
        let most = Duration::from_secs(most);
        assert!(wait >= most / 2 && wait <= most, "{wait:?} of {most:?}");
        // Not a moment too early.
        peer.wait(wait - Duration::from_micros(1));
        assert!(peer.outputs.is_empty());
        peer.wait(Duration::from_micros(1));
    }
}

#[test]
fn different_seeds_wait_differently_and_equal_ones_equally() {
    let wait = |seed| {
        let mut peer =
            Peer::new(ClientConfig { seed: mqtt_session::Seed([seed; 16]), ..ClientConfig::new("c") });
        peer.start();
        peer.cut();
        peer.disconnected().retry_at
    };
    assert_eq!(wait(1), wait(1));
    assert_ne!(wait(1), wait(2));
}

#[test]
fn a_connection_that_lasted_starts_the_waits_anew() {
    let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) };
    let mut peer = Peer::new(ClientConfig { reconnect: Some(backoff), ..ClientConfig::new("c") });
    peer.start();
    for _ in 0..4 {
        peer.accept(false);
        peer.cut();
        peer.redial();
    }
    peer.accept(true);
    peer.outputs.clear();
    peer.now = peer.now + Duration::from_secs(30);
    peer.cut();
    let retry_at = peer.disconnected().retry_at.unwrap();
    assert!(retry_at.since(peer.now) <= Duration::from_secs(1));
}

#[test]
fn without_reconnecting_the_first_loss_is_the_end() {
    let mut peer = Peer::online(ClientConfig { reconnect: None, ..ClientConfig::new("c") });
    peer.cut();
    assert_eq!(peer.disconnected().retry_at, None);
    assert!(peer.client.is_stopped());
}

#[test]
fn dialling_and_connack_together_have_one_deadline() {
    for link_up in [false, true] {
        let mut peer = Peer::new(ClientConfig::new("c"));
        peer.client.connect(peer.now);
        peer.pump();
        if link_up {
            peer.link_up();
        }
        peer.clear();
        assert_eq!(peer.client.poll_timeout(), Some(peer.now + Duration::from_secs(15)));
        peer.wait(Duration::from_secs(15));
        assert!(peer.hung_up());
        assert_eq!(peer.cause(), Cause::ConnectTimeout);
    }
}

// ---- sending again on a live connection, below 5.0 ----

#[test]
fn below_5_messages_may_be_sent_again_after_a_time() {
    let interval = Some(Duration::from_secs(5));
    let mut peer = Peer::online(ClientConfig { resend_interval: interval, ..v311() });
    peer.publish("a", "1", QoS::AtLeastOnce);
    peer.publish("a", "2", QoS::ExactlyOnce);
    peer.pubrec(2);
    peer.clear();
    peer.wait(Duration::from_secs(5));
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 dup a=1", "PUBREL #2"]);
    peer.puback(1);
    peer.pubcomp(2);
    peer.wait(Duration::from_secs(5));
    assert!(peer.sent().is_empty());
}

#[test]
fn by_default_nothing_is_sent_again_on_a_live_connection() {
    let mut peer = Peer::v311();
    peer.publish("a", "1", QoS::AtLeastOnce);
    peer.clear();
    for _ in 0..20 {
        peer.wait(Duration::from_secs(30));
        peer.send(PacketRef::Pingresp);
    }
    assert!(peer.sent().iter().all(|line| line == "PINGREQ"));
}
